"""Steps that make a model smaller, and files that keep one in few bytes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.device import Artefact
from duetto.errors import ConfigError
from duetto.models import Conv, Mlp, Net, Residual, Signal, export, narrow
from duetto.models.compress import (
    FORMS,
    Factored,
    LowRank,
    Magnitude,
    Material,
    Model,
    Rounded,
    Shown,
    Stored,
    Structured,
    compressed,
    factored,
    hidden,
    importances,
    kept,
    ranges,
    sparsity,
    strided,
    written,
)
from duetto.models.embedding import embedded
from duetto.models.zoo import Chained
from duetto.tree import Tree
from duetto.types import Local

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
DRAW = np.random.default_rng(0)
CONV = Conv((1, 8, 8), 3, (4, 6), (8,), dropout=0.5)
MLP = Mlp((5,), 3, (8, 6))
NETS = [CONV, MLP]


KEPT: dict[tuple[Net, bytes], bytes] = {}
EXPORT = export.onnx


@pytest.fixture(autouse=True)
def _once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporting a network takes a second: the same one is exported once."""

    def onnx(net: Net, params: Tree, path: Path) -> Path:
        key = (net, trees.encode(params))
        if key not in KEPT:
            KEPT[key] = EXPORT(net, params, path).read_bytes()
        path.write_bytes(KEPT[key])
        return path

    monkeypatch.setattr(export, "onnx", onnx)


def rows(net: Net, n: int = 40) -> np.ndarray:
    return DRAW.normal(size=(n, *net.shape)).astype(np.float32)


def material(net: Net) -> Material:
    return Material(rows(net), np.zeros(40, np.int64), np.zeros((40, 3), np.float32), rows(net))


def answers(path: Path, x: np.ndarray) -> np.ndarray:
    """What a device would say."""
    logits: np.ndarray = Artefact(str(path))(Local(), {"x": x}, (0,), "me")[1]["logits"]
    return logits


def silenced(params: Tree, net: Net, dead: list[list[int]]) -> Tree:
    """The parameters with these channels of each hidden layer giving zero, whatever comes in."""
    layers = sorted(int(name) for name in params)[:-1]
    still = {f"/{layer}": channels for layer, channels in zip(layers, dead, strict=True)}

    def quiet(pointer: str, leaf: Any) -> Any:
        made = np.array(leaf)
        made[still.get(pointer.rpartition("/")[0], [])] = 0
        return made

    return trees.pointed(quiet, params)


# ------------------------------------------------------------------------------------------------------- structured


@pytest.mark.parametrize(
    ("net", "dead"),
    [
        (CONV, [[0, 3], [1, 2, 5], [0, 1, 2, 7]]),
        (MLP, [[1, 2, 3, 6], [0, 4, 5]]),
        (Signal((2, 12), 3, (4, 6)), [[0, 3], [1, 2, 5]]),
    ],
    ids=["Conv", "Mlp", "Signal"],
)
def test_channels_that_give_nothing_are_removed_and_answers_stay(net: Net, dead: list[list[int]]) -> None:
    params = silenced(net.init(0), net, dead)
    made = Structured(0.5)(Model(net, params), material(net), (0,))
    assert made.net == narrow.narrowed(net, 0.5)
    assert made.net.parameters < net.parameters
    x = rows(net)
    np.testing.assert_allclose(made.net.logits(made.params, x), net.logits(params, x), atol=1e-6)


@pytest.mark.parametrize("net", NETS, ids=["Conv", "Mlp"])
def test_keeping_everything_changes_nothing(net: Net) -> None:
    model = Model(net, net.init(0))
    made = Structured(1.0)(model, material(net), (0,))
    assert made.net == net
    trees.map(np.testing.assert_array_equal, made.params, model.params)


def test_hidden_channels_are_counted() -> None:
    assert hidden(CONV) == (4, 6, 8)
    assert hidden(MLP) == (8, 6)


def test_a_channel_matters_as_much_as_what_it_adds_to_the_next_layer() -> None:
    net = Mlp((5,), 3, (4,))
    params, x = net.init(0), rows(net)
    first, second = params["1"], params["3"]
    active = np.maximum(x @ first["weight"].T + first["bias"], 0)
    expected = np.abs(active).mean(0) * np.linalg.norm(second["weight"], axis=0)
    np.testing.assert_allclose(importances(net, params, x)[0], expected, rtol=1e-5)


def test_the_windows_are_those_of_the_narrow_networks_where_the_first_channels_are_chosen() -> None:
    chosen = [np.arange(2), np.arange(3), np.arange(4)]
    expected = narrow.window(CONV, 0.5)
    found = kept(CONV, chosen)
    assert found.keys() == expected.keys()
    for pointer, axes in expected.items():
        for mine, theirs in zip(found[pointer], axes, strict=True):
            np.testing.assert_array_equal(mine, theirs)


# --------------------------------------------------------------------------------------------------------- low rank


@pytest.mark.parametrize("net", [*NETS, Signal((2, 12), 3, (4,))], ids=["Conv", "Mlp", "Signal"])
def test_full_rank_is_the_identity(net: Net) -> None:
    params = net.init(0)
    weights = {p[1:-7].replace("/", "."): leaf for p, leaf in trees.leaves(params) if p.endswith("weight")}
    ranks = {name: min(len(leaf), leaf[0].size) for name, leaf in weights.items()}
    made = factored(net, params, ranks)
    x = rows(net)
    np.testing.assert_allclose(made["net"].logits(made["params"], x), net.logits(params, x), atol=1e-5)


def test_the_rank_is_the_smallest_that_keeps_the_energy() -> None:
    net = Mlp((30,), 3, (20,))
    params = net.init(0)
    made = LowRank(0.6)(Model(net, params), material(net), (0,))

    def smallest(layer: str) -> int:
        energy = np.cumsum(np.linalg.svd(params[layer]["weight"].astype(float), compute_uv=False) ** 2)
        return 1 + int((energy < 0.6 * energy[-1]).sum())

    rank, last = smallest("1"), smallest("3")
    assert made.net == Factored(net, (("1", rank), ("3", last)))
    assert made.net.parameters == net.parameters - 20 * 30 + rank * 50 - 20 * 3 + last * 23
    left, middle, right = np.linalg.svd(params["1"]["weight"].astype(float), full_matrices=False)
    best = (left[:, :rank] * middle[:rank]) @ right[:rank]
    found = made.params["1"]["1"]["weight"] @ made.params["1"]["0"]["weight"]
    np.testing.assert_allclose(found, best, atol=1e-6)
    assert LowRank(1.0)(Model(net, params), material(net), (0,)).net == net


# --------------------------------------------------------------------------------------------------------- the rest


def test_the_smallest_weights_become_zero_wherever_they_are() -> None:
    params = MLP.init(0)
    made = Magnitude(0.75)(Model(MLP, params), material(MLP), (0,))
    weights = np.concatenate([np.abs(leaf).ravel() for _, leaf in trees.leaves(params) if leaf.ndim > 1])
    border = np.sort(weights)[round(0.75 * len(weights))]
    for (pointer, before), (_, after) in zip(trees.leaves(params), trees.leaves(made.params), strict=True):
        expected = np.where(np.abs(before) < border, 0, before) if before.ndim > 1 else before
        np.testing.assert_array_equal(after, expected, err_msg=pointer)
    assert sparsity(made.params) == pytest.approx(0.75, abs=1 / len(weights))
    trees.map(np.testing.assert_array_equal, Magnitude(0.0)(Model(MLP, params), material(MLP), (0,)).params, params)


def test_a_strided_network_has_strides_for_poolings() -> None:
    net = strided(Conv((1, 28, 28), 10, (16, 32, 64)), 0.75)
    assert net == Chained((1, 28, 28), 10, ((12, 5, 2, 2), (24, 3, 2, 1), (48, 3, 2, 1)))
    assert net.work(1).flops < Conv((1, 28, 28), 10, (16, 32, 64)).work(1).flops / 3
    blocks = strided(Conv((1, 28, 28), 10, (16, 32, 64)), 0.7, 16)
    assert [layer[0] for layer in blocks.layers] == [16, 32, 48]  # type: ignore[attr-defined]
    assert strided(Conv((1, 8, 8), 10, (4,)), 0.5, 16) == Chained((1, 8, 8), 10, ((4, 5, 2, 2),))  # no more than it has
    assert strided(MLP, 0.5) == Mlp((5,), 3, (4, 3))


def test_what_is_shown_is_what_the_last_layer_reads() -> None:
    whole = Shown(CONV)
    params, x = CONV.init(0), rows(CONV)
    found = whole.logits({"net": params}, x)
    np.testing.assert_allclose(found[:, :3], CONV.logits(params, x), atol=1e-6)
    np.testing.assert_allclose(found[:, 3:], embedded(CONV, params, x), atol=1e-6)
    spoken = Shown(CONV, 11)
    told = spoken.init(1)
    found = spoken.logits({**told, "net": params}, x)
    regressor = told["regressor"]
    expected = embedded(CONV, params, x) @ regressor["weight"].T + regressor["bias"]
    np.testing.assert_allclose(found[:, 3:], expected, atol=1e-5)


def test_steps_follow_each_other_each_with_a_key_of_its_own() -> None:
    heard = []

    class Heard:
        def __call__(self, model: Model, material: Material, key: tuple[int | str, ...]) -> Model:
            heard.append(key)
            return replace(model, form="float16")

    made = compressed((Structured(0.5), Heard(), Stored("sparse8")), Model(MLP, MLP.init(0)), material(MLP), (7,))
    assert (made.net, made.form, heard) == (Mlp((5,), 3, (4, 3)), "sparse8", [(7, 1)])


# -------------------------------------------------------------------------------------------------------- the files


@pytest.mark.parametrize(
    "net", [CONV, Mlp((20,), 3, (16,)), Residual((1, 8, 8), 3, (8,), 1)], ids=["Conv", "Mlp", "Res"]
)
def test_every_form_answers_nearly_as_the_network(net: Net, tmp_path: Path) -> None:
    params, x = net.init(0), rows(net)
    expected = net.logits(params, x)
    allowed = {"float32": 1e-5, "float16": 2e-3, "weights8": 0.03, "sparse8": 0.03, "int8": 0.1}
    sizes = {}
    for form in FORMS:
        path = written(Model(net, params, form), tmp_path / f"{form}.onnx", x)
        sizes[form] = path.stat().st_size
        found = answers(path, x)
        np.testing.assert_allclose(found, expected, atol=allowed[form] * np.ptp(expected), err_msg=form)
        np.testing.assert_allclose(found[:1], answers(path, x[:1]), atol=1e-5)
    assert sizes["weights8"] < sizes["float16"] < sizes["float32"]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f"{form}.onnx" for form in FORMS)


def test_eight_bits_are_the_nearest_whole_numbers_of_each_channel(tmp_path: Path) -> None:
    net = Mlp((20,), 3, (16,))
    params, x = net.init(0), rows(net)

    def rounded(leaf: np.ndarray) -> np.ndarray:
        if leaf.size < 64 or leaf.ndim < 2:
            return leaf
        scale = np.abs(leaf).max(1, keepdims=True) / 127
        return np.rint(leaf / scale) * scale

    near = trees.map(lambda leaf: rounded(leaf).astype(np.float32), params)
    for form in ("weights8", "sparse8"):
        path = written(Model(net, params, form), tmp_path / "net.onnx", x)
        np.testing.assert_allclose(answers(path, x), net.logits(near, x), atol=1e-5)


def test_zeros_cost_a_bit_each(tmp_path: Path) -> None:
    net = Mlp((400,), 3, (200,))
    model = Model(net, net.init(0))
    dense = written(replace(model, form="weights8"), tmp_path / "dense.onnx", rows(net)).stat().st_size
    sparse = Magnitude(0.9)(model, material(net), (0,))
    size = written(replace(sparse, form="sparse8"), tmp_path / "sparse.onnx", rows(net)).stat().st_size
    weights = 400 * 200 + 200 * 3
    assert size == pytest.approx(dense - weights + weights / 8 + 0.1 * weights, abs=1500)  # and the nodes


# -------------------------------------------------------------------------------------------------- rounded networks


@pytest.mark.parametrize("net", [CONV, MLP, strided(Conv((1, 8, 8), 3, (4, 6)))], ids=["Conv", "Mlp", "strided"])
def test_a_rounded_network_answers_as_its_int8_file(net: Net, tmp_path: Path) -> None:
    """To three steps of the logits' own scale: the file keeps biases in whole numbers, and rounds ties its own way."""
    params, x = net.init(0), rows(net, 200)
    bounds = ranges(net, params, x)
    felt = Rounded(net, bounds).logits(params, x)
    path = written(Model(net, params, "int8"), tmp_path / "net.onnx", x)
    least, most = bounds[-1]
    step = (max(most, 0) - min(least, 0)) / 255
    assert np.abs(answers(path, x) - felt).max() <= 3 * step + 1e-6
    assert np.abs(net.logits(params, x) - felt).max() > step / 4  # it does round


def test_ranges_are_those_of_the_activations() -> None:
    params, x = MLP.init(0), rows(MLP)
    first = np.maximum(x @ params["1"]["weight"].T + params["1"]["bias"], 0)
    second = np.maximum(first @ params["3"]["weight"].T + params["3"]["bias"], 0)
    logits = MLP.logits(params, x)
    found = ranges(MLP, params, x)
    expected = [(each.min(), each.max()) for each in (x, first, second, logits)]
    np.testing.assert_allclose(found, expected, atol=1e-5)


# ----------------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Structured(0), "keep=0: use a share above 0, at most 1"),
        (lambda: LowRank(1.5), "energy=1.5: use a share above 0, at most 1"),
        (lambda: Magnitude(1), "share=1: use a share from 0, below 1"),
        (lambda: Stored("int3"), "no form is called 'int3': use one of float32, float16, weights8, sparse8, int8"),
        (lambda: Rounded(MLP, bits=1), "1 bits: use 2 to 8"),
        (lambda: Rounded(MLP, ((0.0, 1.0),)).module(), "1 ranges for 4 activations: measure this network: ranges(...)"),
        (lambda: Rounded(Residual((1, 8, 8), 3)).module(), "Residual cannot be rounded in training: use Mlp, Conv, "),
        (lambda: Shown(MLP, -1), "a regressor of width -1: use the teacher's width, or 0 for none"),
        (lambda: strided(Residual((1, 8, 8), 3)), "no strided Residual is known: use Mlp, or Conv without norm"),
        (lambda: strided(CONV, 0), "width=0, multiple=1: use a share above 0, at most 1, and 1 or more"),
        (lambda: factored(MLP, MLP.init(0), {"9": 1}), "'9' is no layer to factor: name a dense layer, or a"),
        (lambda: factored(MLP, MLP.init(0), {"1": 6}), "rank 6 of the layer '1': use 1 to 5"),
        (lambda: kept(MLP, []), "channels of 0 layers: Mlp has 2 hidden"),
        (
            lambda: importances(Residual((1, 8, 8), 3), Residual((1, 8, 8), 3).init(0), rows(CONV)),
            "Residual is no chain of layers: use Mlp, Conv or Signal",
        ),
    ],
)
def test_faults_are_told_in_one_line(make: Any, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)
