"""Many clients in one call are what each is alone: every supported layer, optimiser and loss, in float64."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from duetto import tree as trees
from duetto.errors import ConfigError, DataError
from duetto.models import Conv, Mlp
from duetto.models.net import Net
from duetto.training import SGD, Adam, Affine, Client, Cohort, CrossEntropy, Distil, Drift, Proximal, Sequential
from duetto.training.cohort.executor import why_not
from duetto.training.cohort.split import split
from duetto.training.executor import Task
from duetto.tree import Tree
from duetto.types import Trained

SIZES = (7, 5, 12, 1, 9, 5)  # ragged; last batches of one row and of many


class Residual(nn.Module):
    """Convolutions, a residual sum, group and layer norms."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8)
        self.second, self.dense = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8 * 36, 20)
        self.after, self.out = nn.LayerNorm(20), nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = x + self.second(x)
        return self.out(torch.relu(self.after(self.dense(x.flatten(1)))))


class Words(nn.Module):
    """Embeddings and norms for all clients at once."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.norm, self.dense = nn.Embedding(30, 6), nn.LayerNorm((4, 6)), nn.Linear(24, 9)
        self.group, self.out = nn.GroupNorm(3, 9), nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.words(x.long().abs() % 30))
        return self.out(torch.tanh(self.group(self.dense(x.flatten(1)))))


class Recurrent(nn.Module):
    """A recurrent layer, client by client, before dense ones."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.cell: Any = kind(3, 7, batch_first=True)  # type: ignore[call-arg]
        self.norm, self.dense, self.out = nn.LayerNorm(7), nn.Linear(7, 9), nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.cell(x)
        return self.out(torch.tanh(self.dense(self.norm(y[:, -1]))))


class Tied(nn.Module):
    """The same layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.out = nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.twice(torch.tanh(self.twice(x)))))


class Transformer(nn.Module):
    """Attention, and a free parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.randn(5, 8) / 10)
        self.layer, self.out = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), nn.Linear(40, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(x + self.place).flatten(1))


class Skip(nn.Module):
    """The input is read by a dense layer, and again further on; no bias in one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(6, 5, bias=False), nn.Linear(11, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.cat([torch.relu(self.first(x)), x], 1))


class Mixed(nn.Module):
    """Its rows know of each other."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x - x.mean(0))


class Branching(nn.Module):
    """A forward that no tracer can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x) if float(x.sum()) > 0 else self.out(2 * x)


class Batched(nn.Module):
    """Batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.out = nn.BatchNorm1d(6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(x))


@dataclass(frozen=True)
class Made(Net):
    """Any of the modules above."""

    make: Any
    shape: tuple[int, ...]
    args: tuple[Any, ...] = ()
    classes: int = 4

    def module(self) -> nn.Module:
        return self.make(*self.args)  # type: ignore[no-any-return]


NETS: dict[str, Net] = {
    "dense": Mlp((6,), 4, (9, 8)),
    "dense with dropout": Mlp((2, 3), 4, (9,), dropout=0.3),
    "convolutions with dropout": Conv((1, 12, 12), 4, (4, 6), (10,), dropout=0.25),
    "residual": Made(Residual, (3, 6, 6)),
    "words": Made(Words, (4,)),
    "lstm": Made(Recurrent, (5, 3), (nn.LSTM,)),
    "gru": Made(Recurrent, (5, 3), (nn.GRU,)),
    "tied": Made(Tied, (6,)),
    "transformer": Made(Transformer, (5, 8)),
    "skip": Made(Skip, (6,)),
}
OPTIMISERS = {
    "sgd": SGD(0.1),
    "momentum": SGD(0.1, 0.9),
    "nesterov, decay, cosine": SGD(0.1, 0.9, 0.01, "cosine", nesterov=True),
    "decay": SGD(0.1, 0.0, 0.05),
}
PULLS = (CrossEntropy(0.7), Distil(0.3, 2.0), Proximal(0.3), Drift("drift"), Proximal(0.2, "other"))


@dataclass(frozen=True)
class Summing(Client):
    """Asks for the sum of the gradients."""

    sums_gradients: ClassVar[bool] = True


def client(net: Net, optimiser: Any = SGD(0.1), loss: Any = (CrossEntropy(),), **more: Any) -> Client:  # noqa: B008
    return Summing(net, loss, optimiser, 2, 5, **more)


def tasks(net: Net, sizes: Sequence[int] = SIZES, dtype: type = np.float64) -> list[Task]:
    """Clients of these sizes that start together and are pulled apart."""
    random = np.random.default_rng(0)
    params = trees.map(lambda leaf: leaf.astype(dtype), net.init(0))

    def near() -> Tree:
        return trees.map(lambda leaf: (leaf + random.normal(size=leaf.shape) / 10).astype(dtype), params)

    made = []
    for k, n in enumerate(sizes):
        x = random.normal(size=(n, *net.shape)) * 3
        data = {"x": x.astype(np.float32), "y": random.integers(0, net.classes, n)}
        teacher = random.normal(size=(n, net.classes)).astype(np.float32)
        made.append(Task({"params": params, "drift": near(), "other": near()}, {**data, "teacher": teacher}, ("k", k)))
    return made


def close(left: Tree, right: Tree, tolerance: float = 1e-10) -> None:
    """Equal, relative to the largest entry of the tree."""
    largest = max(float(np.abs(leaf).max()) for _, leaf in trees.leaves(right))
    trees.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * largest), left, right)


def same(one: Client, given: Sequence[Task], executor: Cohort) -> None:
    """Changes, gradients, losses, norms and weighted sums are those of the reference."""
    assert why_not(one, given) is None
    alone, together = Sequential().train(one, given), executor.train(one, given)
    for a, b in zip(alone, together, strict=True):
        assert isinstance(a, Trained)
        assert isinstance(b, Trained)
        assert isinstance(b.delta, trees.Member)
        close(b.delta, a.delta)
        close(b.gradients, a.gradients)
        close(b.params, a.params)
        assert (a.steps, a.examples) == (b.steps, b.examples)
        assert b.loss == pytest.approx(a.loss, rel=1e-5)  # told in float32 by the reference
        assert trees.norm(b.delta) == pytest.approx(trees.norm(a.delta), rel=1e-9)
        assert trees.finite(b.delta)
        assert trees.spec(b.delta) == trees.spec(a.delta)
    weights = np.random.default_rng(1).random(len(given))
    for what in ("delta", "gradients"):
        expected = trees.total([getattr(each, what) for each in alone], weights)
        close(trees.total([getattr(each, what) for each in together], weights), expected)


@pytest.mark.parametrize("optimiser", OPTIMISERS.values(), ids=OPTIMISERS)
@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_a_cohort_is_its_clients(net: Net, optimiser: SGD) -> None:
    same(client(net, optimiser), tasks(net), Cohort(threads=2))


@pytest.mark.parametrize("optimiser", [SGD(0.1), SGD(0.1, 0.5, 0.02)], ids=["sgd", "momentum and decay"])
@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_pulls_and_terms_that_add(net: Net, optimiser: SGD) -> None:
    same(client(net, optimiser, PULLS), tasks(net), Cohort(threads=1))


@pytest.mark.parametrize("threads", [1, 2, 5, 50])
def test_any_number_of_threads(threads: int) -> None:
    same(client(NETS["dense with dropout"]), tasks(NETS["dense with dropout"]), Cohort(threads))


def test_augmented_images() -> None:
    net = NETS["convolutions with dropout"]
    same(client(net, augment=Affine(stroke=0.5)), tasks(net), Cohort(threads=2))


def test_factors_may_lie_in_a_file() -> None:
    for name in ("dense", "residual"):
        same(client(NETS[name]), tasks(NETS[name]), Cohort(threads=2, max_cohort_bytes=1))


def test_memory_that_is_used_again_holds_nothing_of_before() -> None:
    one, net = client(NETS["dense"]), NETS["dense"]
    poisoned = tasks(net, (12, 12, 12))
    for task in poisoned:
        task.data["x"][:] = np.nan
    Cohort(threads=1).train(one, poisoned)
    same(one, tasks(net), Cohort(threads=1))


def test_in_float32_it_is_the_same_to_float32() -> None:
    net, one = NETS["dense"], client(NETS["dense"])
    given = tasks(net, dtype=np.float32)
    for a, b in zip(Sequential().train(one, given), Cohort().train(one, given), strict=True):
        assert {leaf.dtype.name for _, leaf in trees.leaves(b.delta)} == {"float32"}
        close(b.delta, a.delta, 1e-5)


def test_who_starts_elsewhere_is_trained_apart() -> None:
    net, one = NETS["dense"], client(NETS["dense"])
    given = tasks(net)
    other = trees.map(lambda leaf: leaf + 1, given[0].start["params"])
    given = [replace(task, start={**task.start, "params": other}) if i % 2 else task for i, task in enumerate(given)]
    for a, b in zip(Sequential().train(one, given), Cohort(threads=2).train(one, given), strict=True):
        close(b.delta, a.delta)
        close(b.params, a.params)


def test_one_bad_client_fails_alone() -> None:
    net, one = NETS["dense"], client(NETS["dense"])
    given = tasks(net, (7, 0, 5))
    results = Cohort(threads=1).train(one, given)
    assert isinstance(results[1], DataError)
    close(results[0].delta, Sequential().train(one, given)[0].delta)


def test_a_client_that_runs_away_is_not_finite_and_spoils_nobody() -> None:
    net = NETS["dense"]
    one, given = client(net), tasks(net)
    given[2].data["x"][:] = np.inf
    results = Cohort(threads=1).train(one, given)
    assert [trees.finite(each.delta) for each in results] == [k != 2 for k in range(len(given))]
    assert not np.isfinite(trees.norm(results[2].delta))
    weights = [float(k != 2) for k in range(len(given))]
    total = trees.total([each.delta for each in results], weights)
    alone = Sequential().train(one, given)
    close(total, trees.total([each.delta for k, each in enumerate(alone) if k != 2], [1.0] * 5))


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (client(NETS["dense"], Adam(0.1)), "Adam is not linear"),
        (client(Made(Batched, (6,))), "mixes rows"),
        (client(Made(Mixed, (6,))), "mixes rows, or draws"),
        (client(Made(Branching, (6,))), "cannot be traced"),
        (client(Made(nn.Flatten, (4,))), "no dense layer"),
        (client(NETS["dense"], loss=(lambda logits, batch, params, start: logits[:, 0],)), "may read more"),
        (client(NETS["dense"], loss=(Proximal(1.0),)), "nothing is learned"),
        (replace(client(NETS["dense"]), epochs=0), "nothing is learned"),
    ],
    ids=["adam", "batch norm", "mixed", "branching", "nothing dense", "unknown term", "no row read", "no epochs"],
)
def test_what_cannot_be_trained_together_says_why(one: Client, said: str) -> None:
    assert said in (why_not(one, tasks(one.net)) or "")


@pytest.mark.parametrize("one", [client(NETS["dense"], Adam(0.1)), client(Made(Mixed, (6,)))], ids=["adam", "mixed"])
def test_what_cannot_be_trained_together_is_trained_one_by_one(one: Client) -> None:
    given = tasks(one.net)
    for a, b in zip(Sequential().train(one, given), Cohort().train(one, given), strict=True):
        assert trees.encode(a.delta) == trees.encode(b.delta)


def test_the_path_of_every_layer_is_told() -> None:
    paths = split(NETS["residual"]).paths
    assert paths["first"] == paths["norm"] == "client by client"
    assert paths["dense"] == paths["out"] == "all clients at once, kept as factors"
    assert paths["after"] == "all clients at once, with own parameters for each"


@pytest.mark.parametrize("name", ["dense", "residual", "lstm"])
def test_rounded_to_bfloat16_it_is_close(name: str) -> None:
    net, one = NETS[name], client(NETS[name])
    given = tasks(net, dtype=np.float32)
    exact, rounded = (Cohort(threads=1, precision=precision).train(one, given) for precision in ("full", "bfloat16"))
    for a, b in zip(exact, rounded, strict=True):
        close(b.delta, a.delta, 0.1)
        assert trees.spec(b.delta) == trees.spec(a.delta)
    assert trees.norm(trees.subtract(exact[0].delta, rounded[0].delta)) > 1e-6 * trees.norm(exact[0].delta)


@pytest.mark.parametrize("settings", [{"threads": 0}, {"max_cohort_bytes": 0}, {"precision": "half"}])
def test_senseless_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="use"):
        Cohort(**settings)
