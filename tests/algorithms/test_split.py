"""Split learning: the same steps as whole, for every kind, in simulation."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

import duetto as du
from duetto import algorithms, codecs, policies, protocols
from duetto import tree as trees
from duetto.algorithms.split import halves, split
from duetto.errors import ConfigError
from duetto.models import Conv
from duetto.models.net import built
from duetto.models.staged import Half, Staged, stage
from duetto.models.zoo import Vit
from duetto.simulation.engine import Saved
from duetto.training import SGD
from duetto.training.halves import Backs, Forths
from duetto.training.sequential import order
from duetto.training.split import Back, Enter, Forth, Front, Leave, Tail, learnable
from duetto.tree import Spec, Tree
from duetto.types import Codec, Domain, Key, Local, Party, Rows

NET = Conv((1, 8, 8), 10, (4, 8))
VIT = Vit((1, 8, 8), 10, width=8, depth=1, heads=2)
DEVICE = (Enter, Front, Tail, Leave)


class Residual(nn.Module):
    """A network whose cuts are crossed by several tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(64, 12), nn.Linear(12, 12), nn.Linear(12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x = torch.relu(self.first(x.flatten(1)))
        return self.last(x + torch.tanh(self.second(x)))  # type: ignore[no-any-return]


@lru_cache
def staged(name: str) -> tuple[nn.Module, Staged]:
    """A model whole, and as stages."""
    torch.manual_seed(0)
    model = {"conv": lambda: built(NET, 0), "residual": Residual, "transformer": lambda: built(VIT, 0)}[name]()
    return model, stage(model, torch.zeros(2, 1, 8, 8))


def people(count: int = 3) -> dict[str, Rows]:
    """Rows of several sizes."""
    draw = np.random.default_rng(0)
    return {
        f"u{i}": Rows(draw.normal(size=(n, 1, 8, 8)).astype(np.float32), draw.integers(10, size=n))
        for i, n in enumerate((40, 23, 33)[:count])
    }


def ran(sides: Mapping[str, Half], what: Any, data: Mapping[str, Rows], steps: int = 1, **given: Any) -> Any:
    """A simulation of it."""
    memory = {slot: half for slot, half in sides.items() if slot != "back"}
    cloud = Party(
        roles=(protocols.split(what, steps=steps, seed=7),),
        skills=(Back, Backs, Forth, Forths),
        local=Local(None, {"back": sides["back"]}),
    )
    fleet = du.fleet("phones", list(data), data=data.__getitem__, memory=memory)
    return du.simulate(device=Party(skills=DEVICE), cloud=cloud, fleet=fleet, alone=True, **given)


def params(log: Any) -> dict[str, np.ndarray]:
    """What was learned, by the model's names, of all sides."""
    sides = log.memory["cloud"]["split"]["params"].values()
    return {pointer: leaf for side in sides for pointer, leaf in trees.leaves(side)}


def plain(model: nn.Module, data: Rows, optimiser: SGD, epochs: int, size: int, key: Key) -> dict[str, np.ndarray]:
    """Unsplit training in a few lines of torch."""
    leaves = {name: leaf.detach().clone().requires_grad_() for name, leaf in model.named_parameters()}
    stepping = optimiser.start(leaves.values())
    for epoch in range(epochs):
        for rows in torch.split(order(key, epoch, len(data)), size):
            logits = functional_call(model.eval(), leaves, (torch.from_numpy(data.x[rows.numpy()]),))
            stepping.zero_grad()
            nn.functional.cross_entropy(
                logits, torch.from_numpy(data.y[rows.numpy()]), reduction="none"
            ).mean().backward()
            stepping.step()
    return {"/" + name.replace(".", "/"): leaf.detach().numpy() for name, leaf in leaves.items()}


def differing(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> list[str]:
    """Where two differ by a bit."""
    assert found.keys() == wanted.keys()
    return [name for name in found if not np.array_equal(found[name], wanted[name])]


@pytest.mark.parametrize("name", ["conv", "residual", "transformer"])
def test_split_is_unsplit_bit_for_bit_at_every_cut(name: str) -> None:
    (model, net), data = staged(name), people(1)
    optimiser = SGD(0.1, 0.9)
    wanted = plain(model, data["u0"], optimiser, 2, 16, (7, "round", 0, "u0"))
    for cut in range(0, len(net), 5 if name == "transformer" else 1):  # all of its 24 were tried once, see the log
        if not net[cut:].learnable:
            continue
        sides = halves(net, cut)
        log = ran(sides, split(sides, "vanilla", optimiser, epochs=2, cohort=policies.Everyone()), data)
        assert differing(params(log), wanted) == [], f"cut {cut}"


@pytest.mark.parametrize("kind", ["vanilla", "splitfed1"])
@pytest.mark.parametrize(("cut", "last"), [(1, 7), (3, 7), (2, 5)])
def test_u_shaped_is_unsplit_and_no_label_leaves(kind: str, cut: int, last: int) -> None:
    (model, net), data = staged("conv"), people(1)
    optimiser = SGD(0.1, 0.9)
    sides = halves(net, cut, last)
    if not sides["back"].learnable:
        pytest.skip("nothing to learn between the cuts")
    seen: list[Tree] = []
    made = split(sides, kind, optimiser, epochs=1, cohort=policies.Everyone(), up=Spy(seen))
    wanted = plain(model, data["u0"], optimiser, 1, 16, (7, "round", 0, "u0"))
    found = params(ran(sides, made, data))
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-6, atol=1e-7)
    if kind == "vanilla":
        assert differing(found, wanted) == []
    sent = [leaf for tree in seen for _, leaf in trees.leaves(tree)]
    assert sent
    assert all(np.issubdtype(np.asarray(leaf).dtype, np.floating) for leaf in sent), "labels are whole numbers"
    labels = data["u0"].y.astype(np.int64)
    for tree in seen:
        body = trees.encode(tree)
        assert not any(labels[i : i + 4].tobytes() in body for i in range(len(labels) - 4))


@dataclass(frozen=True)
class Spy(Codec[None]):
    """Sees what crosses."""

    seen: list[Tree] = field(hash=False, compare=False)
    takes: ClassVar[Any] = frozenset({Domain.FLOATS})
    gives: ClassVar[Any] = Domain.FLOATS
    remembers: ClassVar[bool] = False

    def init(self) -> None:
        """Nothing."""

    def encode(self, state: None, tree: Tree, key: Key) -> tuple[None, Tree]:
        """Look at it."""
        self.seen.append(tree)
        return None, tree

    def decode(self, tree: Tree) -> Tree:
        """As it came."""
        return tree

    def becomes(self, spec: Spec) -> Spec | None:
        """As it was."""
        return spec


def test_splitfed_1_is_federated_averaging() -> None:
    """The limit law: a half of its own for each device on both sides, averaged, is the whole model averaged."""
    _, net = staged("conv")
    data, cohort = people(), policies.Uniform(2)
    sides = halves(net, 3)
    made = split(sides, "splitfed1", SGD(0.1), epochs=2, cohort=cohort, batch_size=8, batched=False)
    found = params(ran(sides, made, data, steps=3))
    avg = algorithms.fedavg(NET, NET.init(0), lr=0.1, epochs=2, batch_size=8, cohort=cohort)
    log = du.simulate(
        device=Party(skills=(type(avg.client),)),
        cloud=protocols.rounds(avg, steps=3, seed=7),
        fleet=du.fleet("phones", list(data), data=data.__getitem__),
        alone=True,
    )
    wanted = dict(trees.leaves(log.memory["cloud"]["params"]))
    assert differing(found, wanted) == []


@pytest.mark.parametrize("kind", ["vanilla", "parallel", "splitfed1", "splitfed2", "splitfed3"])
def test_every_kind_learns_and_a_stopped_one_goes_on(kind: str) -> None:
    """Rows that a line tells apart; after a stop everything is as if there had been none."""
    draw = np.random.default_rng(1)
    data = {}
    for i in range(3):
        x = draw.normal(size=(30, 1, 8, 8)).astype(np.float32)
        data[f"u{i}"] = Rows(x, (x[:, 0, 0, 0] > 0).astype(np.int64))
    _, net = staged("residual")
    sides = halves(net, 2)
    made = split(sides, kind, SGD(0.3), epochs=3, cohort=policies.Everyone())
    saves: list[Saved] = []
    whole = ran(sides, made, data, steps=4, on_save=saves.append)
    losses = [record.metrics["loss"] for record in whole.records]
    assert losses[-1] < 0.7 * losses[0]
    assert all(record.metrics["failed"] == 0 for record in whole.records)
    rest = ran(sides, made, data, steps=4, resume=saves[1])
    assert [record.metrics["loss"] for record in rest.records] == losses[2:]
    assert differing(params(rest), params(whole)) == []


def test_parallel_is_one_batch_of_all() -> None:
    """The cloud's half after one step is that of one step on all devices' rows, in the order of their names."""
    model, net = staged("residual")
    data = {name: Rows(rows.x[:8], rows.y[:8]) for name, rows in people().items()}
    sides = halves(net, 0)  # all of it in the cloud
    made = split(sides, "parallel", SGD(0.1), epochs=1, cohort=policies.Everyone(), batch_size=8)
    found = params(ran(sides, made, data))
    rows = {name: order((7, "round", 0, name), 0, 8).numpy() for name in data}
    joint = Rows(*(np.concatenate([getattr(data[n], column)[rows[n]] for n in sorted(data)]) for column in "xy"))
    leaves = {name: leaf.detach().clone().requires_grad_() for name, leaf in model.named_parameters()}
    logits = functional_call(model.eval(), leaves, (torch.from_numpy(joint.x),))
    nn.functional.cross_entropy(logits, torch.from_numpy(joint.y)).backward()
    for name, leaf in leaves.items():
        wanted = (leaf - 0.1 * leaf.grad).detach().numpy()
        np.testing.assert_allclose(found["/" + name.replace(".", "/")], wanted, atol=1e-6)


@pytest.mark.parametrize("last", [None, 7])
@pytest.mark.parametrize("kind", ["splitfed1", "splitfed2", "splitfed3"])
@pytest.mark.parametrize("name", ["conv", "residual"])
def test_halves_that_are_due_together_are_one_batch(name: str, kind: str, last: int | None) -> None:
    """Equal to rounding, with momentum, batches of several sizes, and labels on either side."""
    _, net = staged(name)
    last = None if last is None else (7 if name == "conv" else len(net) - 1)
    sides, data = halves(net, 3 if name == "conv" else 2, last), people()

    def made(batched: bool) -> Any:
        return split(sides, kind, SGD(0.1, 0.9), epochs=2, cohort=policies.Everyone(), batch_size=10, batched=batched)

    one, other = (ran(sides, made(batched), data, steps=2) for batched in (True, False))
    assert [record.metrics["failed"] for record in one.records] == [0, 0]
    for found, wanted in zip(one.records, other.records, strict=True):
        assert found.metrics.get("loss", 0) == pytest.approx(wanted.metrics.get("loss", 0), rel=1e-5)
        assert (found.cost.up_bytes, found.cost.down_bytes) == (wanted.cost.up_bytes, wanted.cost.down_bytes)
    for at, leaf in params(one).items():
        np.testing.assert_allclose(leaf, params(other)[at], rtol=1e-3, atol=2e-6)
    for user in data:
        np.testing.assert_equal(set(one.memory[user]), set(other.memory[user]))


def test_several_halves_step_in_one_call() -> None:
    """The skill itself: three devices, one with fewer rows, as one after the other."""
    _, net = staged("conv")
    back, draw = net[3:], np.random.default_rng(3)
    (name,) = back.inputs
    shape = back.takes(5)[name].shape
    halves_ = {
        user: {"params": trees.map(lambda leaf, i=i: leaf * (1 + i / 10), learnable(back)), "state": {}}
        for i, user in enumerate("abc")
    }
    parts = {
        user: {"features": {name: draw.normal(size=(n, *shape[1:])).astype(np.float32)}, "y": draw.integers(10, size=n)}
        for user, n in zip("abc", (5, 5, 3), strict=True)
    }
    local = Local(None, {"back": back, "halves": halves_})
    after, said = Backs(SGD(0.1, 0.9), 0)(local, {"parts": parts, "of": dict.fromkeys("abc", np.int64(1))}, (0,), "me")
    for user in "abc":
        local, alone = Back(SGD(0.1, 0.9), user)(local, {"parts": {user: parts[user]}}, (0,), "me")
        trees.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
            {"slopes": said["slopes"][user], "loss": said["losses"][user], "half": after.memory["halves"][user]},
            {"slopes": alone["slopes"][user], "loss": alone["loss"], "half": local.memory["halves"][user]},
        )


@pytest.mark.parametrize("batched", [True, False])
def test_a_device_that_fails_is_left_out_of_its_round(batched: bool) -> None:
    data = people()
    data["u1"] = replace(data["u1"], y=np.full(len(data["u1"]), 99))  # the cloud refuses its labels
    _, net = staged("conv")
    sides = halves(net, 3)
    made = split(sides, "splitfed1", SGD(0.1), epochs=1, cohort=policies.Everyone(), batched=batched)
    (record,) = ran(sides, made, data).records
    assert (record.metrics["cohort"], record.metrics["failed"]) == (3, 1)
    assert "u1: cloud: labels" in str(record.metrics["failures"])
    others = {name: rows for name, rows in data.items() if name != "u1"}
    found, wanted = (params(ran(sides, made, each)) for each in (data, others))
    assert batched or differing(found, wanted) == []
    for at, leaf in found.items():
        np.testing.assert_allclose(leaf, wanted[at], rtol=1e-3, atol=2e-6)


def test_int8_both_ways_is_four_times_smaller() -> None:
    _, net = staged("conv")
    sides = halves(net, 2)
    lean = du.Chain((codecs.Quantise(8), codecs.Zstd()))

    def up_and_down(**wire: Any) -> tuple[int, int]:
        made = split(sides, "splitfed3", SGD(0.1), epochs=1, cohort=policies.Everyone(), **wire)
        (record,) = ran(sides, made, people()).records
        assert record.metrics["failed"] == 0
        return record.cost.up_bytes, record.cost.down_bytes

    whole, small = up_and_down(), up_and_down(up=lean, down=lean)
    assert whole[0] > 4 * small[0]  # with the labels and what frames a message
    assert whole[1] > 3 * small[1]  # slopes are no sparse things


def test_what_a_codec_loses_is_made_good_both_ways() -> None:
    """With a fifth of each message, and feedback, what is learned is nearer to what is learned without a codec."""
    _, net = staged("conv")
    sides, few = halves(net, 3), codecs.TopK(0.2)

    def learned(wire: Codec[Any]) -> tuple[dict[str, np.ndarray], Any]:
        made = split(sides, "vanilla", SGD(0.02), epochs=6, cohort=policies.Everyone(), up=wire, down=wire)
        log = ran(sides, made, people(1))
        assert log.records[0].metrics["failed"] == 0
        return params(log), log.memory["u0"]

    (whole, _), (lossy, bare), (fed, kept) = (learned(w) for w in (du.Chain(), few, codecs.Feedback(few)))
    far = [sum(np.sum((each[name] - whole[name]) ** 2) for name in whole) for each in (lossy, fed)]
    assert far[1] < 0.9 * far[0]
    assert "codec" in kept
    assert "codec" not in bare


def test_what_cannot_be_is_one_line() -> None:
    _, net = staged("conv")
    with pytest.raises(ConfigError, match="no kind of split learning is called 'other'"):
        split(halves(net, 3), "other", SGD(0.1), epochs=1, cohort=policies.Everyone())
    with pytest.raises(ConfigError, match="leaves the cloud nothing to learn"):
        halves(net, len(net))
    with pytest.raises(ConfigError, match="a batch has at least one row"):
        Enter(1, 0)


def test_parameters_on_two_sides_of_a_cut_are_refused() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.one(torch.relu(self.one(x)))  # type: ignore[no-any-return]

    net = stage(Tied(), torch.zeros(2, 4))
    with pytest.raises(ConfigError, match=r"one\.(weight|bias) is on two sides of the cut"):
        halves(net, 1)
