"""Cuts that change no bit, for networks of every kind; what crosses; models that cannot be cut, with their line."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from duetto import tree as trees
from duetto.errors import ConfigError, DataError
from duetto.models import Chained, Conv, Inception, Mlp, Mobile, Net, Residual, Speech, Staged, Text, Vit, stage
from duetto.models.graph import unfused
from duetto.tree import Tree

S = (3, 16, 16)
ZOO: dict[str, Net] = {
    "mlp": Mlp((20,), 3),
    "conv": Conv(S, 10),
    "chained": Chained(S, 10, ((8, 5, 1, 2), (2, 2), (16, 3, 1, 1)), (20,)),
    "residual": Residual(S, 10, (8, 16), 1),
    "imagenet stem": Residual((3, 32, 32), 10, (8, 16), 1, 7),
    "mobile": Mobile(S, 10, ((1, 8, 1, 1), (4, 16, 2, 2)), 8, 1, 32),
    "inception": Inception(S, 10, 8, (4, 8)),
    "vit": Vit(S, 10, 8, 16, 2, 2),
    "text": Text((8,), 3, 50, 16, 2, 2),
    "speech": Speech((8, 21), 5, 16, 1, 2),
}


def rows(net: Net, n: int, seed: int = 0) -> Tensor:
    """Inputs of a network of the zoo."""
    torch.manual_seed(seed)
    return torch.randint(0, 50, (n, *net.shape)) if isinstance(net, Text) else torch.randn(n, *net.shape)


class Joined(nn.Module):
    """Two inputs, two named outputs, changes in place, batch normalisation, dropout, an idle buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 6), nn.Linear(3, 6)
        self.norm = nn.BatchNorm1d(6)
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("idle", torch.zeros(1))

    def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        x = self.left(a)
        x += self.right(b)
        early = x.sum(1)
        return {"early": early, "logits": self.dropout(torch.relu_(self.norm(x)))}


class Encoded(nn.Module):
    """Torch's own encoder, which fuses its layers where it may; the number of rows lies within."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.encoder(x)[:, 0]
        return out


class Dense(nn.Module):
    """Every layer reads all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3 + 4 * i, 4, 3, padding=1) for i in range(4))

    def forward(self, x: Tensor) -> Tensor:
        found = [x]
        for layer in self.layers:
            found.append(torch.relu(layer(torch.cat(found, 1))))
        return torch.cat(found, 1).mean((2, 3))


class Shuffled(nn.Module):
    """Splits, chunks, transposed memory and channel shuffling, as ShuffleNet has them; an LSTM at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.lstm = nn.LSTM(8, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        a, b = torch.relu(self.first(x)).chunk(2, 1)
        n, _, h, w = x.shape
        x = torch.cat([a, b * torch.sigmoid(a)], 1).view(n, 2, 2, h, w).transpose(1, 2).reshape(n, 4, h, w)
        x = self.second(x).permute(0, 2, 3, 1)
        out: Tensor = self.lstm(x.reshape(n, -1, 8))[0][:, -1]
        return out


class Folded(nn.Module):
    """Rows and pixels share an axis, whose length is asked for; memory is transposed where it crosses."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.last = nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        flat = torch.relu(self.dense(x.reshape(-1, 3)))
        scaled = flat * flat.shape[0] / n
        out: Tensor = self.last(scaled.t()[:, : flat.shape[0]].t().reshape(n, -1, 5).transpose(0, 1)).transpose(0, 1)
        return out.mean(1)


OTHERS: dict[str, tuple[nn.Module, Any]] = {
    "joined": (Joined(), (torch.randn(3, 4), torch.randn(3, 3))),
    "encoded": (Encoded(), torch.randn(2, 5, 8)),
    "dense": (Dense(), torch.randn(2, 3, 6, 6)),
    "shuffled": (Shuffled(), torch.randn(2, 4, 4, 4)),
    "folded": (Folded(), torch.randn(1, 4, 3)),
    "by name": (Joined(), {"b": torch.randn(1, 3), "a": torch.randn(1, 4)}),
}


@pytest.mark.parametrize("name", ZOO)
def test_every_cut_of_the_zoo_gives_the_same_bits(name: str) -> None:
    net = ZOO[name]
    module = net.module()
    staged = stage(module, rows(net, 2))  # raises where one differs
    assert staged.graph.free_rows
    assert staged.difference == 0
    x = rows(net, 3, 1)
    with torch.no_grad(), unfused():
        wanted = module.eval()(x).numpy()
    for cut in staged.cuts():
        found = staged[cut:](staged[:cut]({"x": x.numpy()}))["logits"]
        assert found.tobytes() == wanted.tobytes(), f"three rows, cut {cut}"


@pytest.mark.parametrize("name", OTHERS)
def test_other_models(name: str) -> None:
    module, example = OTHERS[name]
    module.train()
    staged = stage(module, example)
    assert module.training, "left as it was"
    assert staged.difference < 1e-5


def test_names_of_inputs_and_outputs() -> None:
    module, example = OTHERS["joined"]
    staged = stage(module, example)
    assert set(staged.frontier(0)) == {"a", "b"}
    assert set(staged.frontier(len(staged))) == {"early", "logits"}
    x = {"a": example[0].numpy(), "b": example[1].numpy()}
    with torch.no_grad():
        wanted = module.eval()(*example)
    found = staged(x)
    assert {name: value.shape for name, value in found.items()} == {n: tuple(v.shape) for n, v in wanted.items()}
    np.testing.assert_allclose(found["logits"], wanted["logits"], atol=1e-6)
    behind = next(i for i, s in enumerate(staged.stages) if "sum" in s.operation) + 1
    early = [name for name, leaf in staged.frontier(behind).items() if leaf.shape == (1,)]
    assert early, "an output that is there already crosses, too"


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_closed_set_of_stages_is_a_cut(data: st.DataObject) -> None:
    staged, x = INCEPTION
    chosen: set[str] = set()
    for each in staged.stages:
        if all(name in chosen | {"x", "input"} for name in each.reads) and data.draw(st.booleans()):
            chosen.add(each.name)
    cut = frozenset(chosen)
    crossed = staged[:cut](x)
    assert staged[cut:](crossed)["logits"].tobytes() == staged(x)["logits"].tobytes()
    assert trees.spec(crossed) == staged.frontier(cut, 2)


INCEPTION = (
    stage(ZOO["inception"].module(), rows(ZOO["inception"], 2)),
    {"x": rows(ZOO["inception"], 2, 3).numpy()},
)


def test_a_set_that_is_not_closed_is_refused() -> None:
    staged, _ = INCEPTION
    second = staged.stages[1]
    with pytest.raises(ConfigError, match=re.escape(f"a cut with {second.name} but without {second.reads[0]}")):
        staged[: frozenset({second.name})]
    with pytest.raises(ConfigError, match="no stage is called 'nobody'"):
        staged[: frozenset({"nobody"})]
    with pytest.raises(ConfigError, match="a cut after stage 99"):
        staged[:99]
    with pytest.raises(ConfigError, match="the second cut must hold the first"):
        staged[3:2]


def test_what_crosses_is_the_frontier_and_nothing_that_follows_from_shapes_or_weights() -> None:
    net = Vit(S, 10, 8, 16, 2, 2)
    staged = stage(net.module(), rows(net, 2))
    for cut in range(1, len(staged)):
        assert all(leaf.shape[0] == 1 or 1 in leaf.shape for leaf in staged.frontier(cut).values())
        assert sum(leaf.nbytes for leaf in staged.frontier(cut).values()) <= 4 * 4 * 5 * 16 * 4
    blocks = [i + 1 for i, s in enumerate(staged.stages) if s.operation.startswith("aten.add")]
    assert next(iter(staged.frontier(blocks[1]).values())).shape == (1, 5, 16), "one tensor between two blocks"


def test_halves_know_their_parameters_and_work() -> None:
    net = Conv(S, 10, (4, 8))
    params = net.init(0)
    module = net.module()
    module.load_state_dict({name[1:].replace("/", "."): torch.tensor(leaf) for name, leaf in trees.leaves(params)})
    staged = stage(module, rows(net, 1))
    assert trees.encode(staged.params) == trees.encode(params)
    assert staged[:].work(3).flops == net.work(3).flops
    for cut in staged.cuts():
        head, tail = staged[:cut], staged[cut:]
        assert head.work().flops + tail.work().flops == net.work(1).flops
        assert names(head.params) | names(tail.params) == names(params)
        assert not names(head.params) & names(tail.params)
    x = rows(net, 4).numpy()
    np.testing.assert_allclose(staged({"x": x})["logits"], net.logits(params, x), atol=1e-6)


def names(params: Tree) -> set[str]:
    """Of all parameters."""
    return {name for name, _ in trees.leaves(params)}


def test_bytes_of_the_frontier_are_those_of_the_tensors() -> None:
    staged = stage(Conv(S, 10, (4, 8)).module(), rows(ZOO["conv"], 1))
    sizes = [sum(leaf.nbytes for leaf in staged.frontier(k).values()) for k in range(len(staged) + 1)]
    pixels = 16 * 16  # of the input; (convolution, ReLU, pooling to a quarter) twice
    numbers = [3 * pixels, 4 * pixels, 4 * pixels, pixels, 2 * pixels, 2 * pixels, pixels // 2]
    assert sizes[:7] == [4 * n for n in numbers]
    assert sizes[-1] == 4 * 10


def test_many_rows_at_once() -> None:
    staged, x = INCEPTION
    cut = staged.cuts()[4]
    head, tail = staged[:cut], staged[cut:]
    one = [head({"x": x["x"][i : i + 1]}) for i in range(2)]
    assert tail.joinable
    found = tail.parted(tail(tail.joined(one)), [1, 1])
    for i in range(2):
        np.testing.assert_allclose(found[i]["logits"], tail(one[i])["logits"], atol=1e-6)


def test_a_half_is_a_module_that_can_be_exported() -> None:
    staged, x = INCEPTION
    half = staged[: staged.cuts()[5]]
    program = torch.export.export(half.module(), (torch.tensor(x["x"]),))
    for found, wanted in zip(program.module()(torch.tensor(x["x"])), half(x).values(), strict=True):
        np.testing.assert_allclose(found.detach().numpy(), wanted, atol=1e-6)


def test_features_that_do_not_fit() -> None:
    staged, x = INCEPTION
    tail = staged[2:]
    (name,) = tail.inputs
    good = staged[:2](x)
    with pytest.raises(DataError, match="this side of the cut takes"):
        tail({"other": good[name]})
    with pytest.raises(DataError, match="give Shaped"):
        tail({name: good[name][:, :1]})
    with pytest.raises(DataError, match="give Shaped"):
        tail({name: good[name].astype(np.float64)})


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:  # a branch on values
            return x * 2
        return x


class Counting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[: int((x > 0).sum())]


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class Remembering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += x.sum(0)
        return x * 2


class Ragged(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x[:, 0] > 0].sum(0)


class Brief(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.bfloat16() * 2


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(3)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Branching(), "change test_staged.py:[0-9]+: if x.sum\\(\\) > 0"),
        (Counting(), "test_staged.py:[0-9]+: return x\\[: int"),
        (Noisy(), "draws random numbers.*test_staged.py:[0-9]+: return x \\+ torch.randn_like"),
        (Remembering(), "the model changes seen"),
        (Constant(), "does not depend on the input"),
        (Ragged(), "depends on the input's values.*test_staged.py:[0-9]+: return x\\[x"),
        (Brief(), "computes in bfloat16"),
    ],
)
def test_models_that_cannot_be_cut_name_the_line(model: nn.Module, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        stage(model, torch.randn(2, 3))


def test_a_wrong_example_is_told() -> None:
    with pytest.raises(ConfigError, match="cannot be exported"):
        stage(Mlp((4,), 2).module(), torch.randn(2, 5))


def test_the_quick_proof_takes_every_stage_by_itself() -> None:
    for name in ("residual", "vit", "inception"):
        net = ZOO[name]
        assert isinstance(stage(net.module(), rows(net, 2), proof="stages"), Staged)
