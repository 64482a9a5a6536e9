"""Slimmable networks: a sub-network is a corner of the weights, and the same network when it stands alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.models import Conv, Mlp, Net, Predict, Residual, Signal, Slimmable, Sub, Text, narrowed, window
from duetto.models.elastic import deepest, shallower
from duetto.models.narrow import cut
from duetto.models.net import built, fitting, to_tensors
from duetto.tree import Tree
from duetto.types import Local

CONV = Slimmable(Conv((1, 8, 8), 3, (4, 8), (6,)), (0.5, 1.0), (1,))
MLP = Slimmable(Mlp((5,), 3, (8, 8, 8)), (0.25, 1.0), (1, 2))
SIGNAL = Slimmable(Signal((2, 16), 3, (4, 6)), (0.5, 1.0), (1,))
RESIDUAL = Slimmable(Residual((3, 8, 8), 4, (8, 16), 3, groups=4), (0.5, 1.0), (1, 2))
STEMMED = Slimmable(Residual((3, 32, 32), 4, (8, 16), 2, 7, groups=4), (0.5, 1.0), (1,))
ALL = [CONV, MLP, SIGNAL, RESIDUAL, STEMMED]
DRAW = np.random.default_rng(0)


def rows(net: Net, n: int = 5) -> np.ndarray:
    return DRAW.normal(size=(n, *net.shape)).astype(np.float32)


@pytest.mark.parametrize("net", ALL, ids=lambda net: type(net.net).__name__)
def test_a_sub_network_alone_is_the_slimmable_one_at_that_setting_bit_for_bit(net: Slimmable) -> None:
    params, x = net.init(1), rows(net)
    for sub in net.subs:
        alone = net.sub(sub).module().eval()
        alone.load_state_dict(to_tensors(net.cut(params, sub)))
        with torch.inference_mode():
            expected = alone(torch.from_numpy(x)).numpy()
        # logits lay images out with their channels innermost, which may round otherwise
        np.testing.assert_array_equal(net.at(sub).logits(params, x), net.sub(sub).logits(net.cut(params, sub), x))
        running = net.at(sub).module().eval()
        running.load_state_dict(to_tensors(params))
        with torch.inference_mode():
            np.testing.assert_array_equal(running(torch.from_numpy(x)).numpy(), expected)
    np.testing.assert_array_equal(net.answers(params, x, net.subs[-1]), net.logits(params, x))
    assert net.subs[-1] == Sub()


def test_a_party_that_holds_all_answers_in_every_size() -> None:
    params, x = CONV.init(6), rows(CONV)
    local = Local(None, {"params": params})
    for sub in CONV.subs:
        skill = Predict(CONV.at(sub))
        _, said = skill(local, {"x": x}, (0,), "me")
        np.testing.assert_array_equal(said["logits"], CONV.sub(sub).logits(CONV.cut(params, sub), x))
        assert skill.work(local, {"x": x}) == CONV.sub(sub).work(len(x))


def test_a_size_learns_in_the_weights_of_all() -> None:
    """A step at one size moves the corner that it has, and nothing else."""
    before = MLP.init(7)
    module = MLP.at(Sub(0.25, 1)).module()
    module.load_state_dict(to_tensors(before))
    module(torch.from_numpy(rows(MLP, 30))).square().sum().backward()
    for name, leaf in module.named_parameters():
        assert leaf.grad is None or name in ("net.1.weight", "net.1.bias", "heads.1.3.weight", "heads.1.3.bias")
    moved = module.get_parameter("net.1.weight").grad
    assert moved is not None
    assert (moved[2:] == 0).all()
    assert (moved[:2] != 0).any()


def test_a_narrow_chain_computes_with_the_first_channels() -> None:
    """By the layers themselves, on the wide network's tensors."""
    params, x = CONV.init(2), rows(CONV)
    leaf = {pointer: torch.from_numpy(array) for pointer, array in trees.leaves(params)}
    h = functional.conv2d(torch.from_numpy(x), leaf["/net/0/weight"][:2], leaf["/net/0/bias"][:2], padding=1)
    h = functional.max_pool2d(functional.relu(h), 2)
    deep = functional.conv2d(h, leaf["/net/3/weight"][:4, :2], leaf["/net/3/bias"][:4], padding=1)
    deep = functional.max_pool2d(functional.relu(deep), 2).flatten(1)
    # Linear of 8 channels of 2x2 pixels to 6; the half has 4 and 3.
    deep = functional.relu(deep @ leaf["/net/8/weight"][:3, :16].T + leaf["/net/8/bias"][:3])
    expected = deep @ leaf["/net/11/weight"][:, :3].T + leaf["/net/11/bias"]
    np.testing.assert_allclose(CONV.answers(params, x, Sub(0.5)), expected, rtol=1e-5, atol=1e-6)
    own = functional.relu(h.flatten(1) @ leaf["/heads/1/5/weight"][:3, :32].T + leaf["/heads/1/5/bias"][:3])
    expected = own @ leaf["/heads/1/8/weight"][:, :3].T + leaf["/heads/1/8/bias"]
    np.testing.assert_allclose(CONV.answers(params, x, Sub(0.5, 1)), expected, rtol=1e-5, atol=1e-6)


def test_a_shallow_residual_network_leaves_out_the_last_blocks_of_each_group() -> None:
    """A block whose last normalisation is all zeros adds nothing, so that leaving it out changes nothing."""
    net = Slimmable(Residual((3, 8, 8), 4, (8, 16), 3, groups=4), (1.0,), (1,))
    params, x = net.init(3), rows(net)
    silent = {}
    for pointer, leaf in trees.leaves(params):
        # stem 0..2; blocks 3, 4, 5 of the first group and 6, 7, 8 of the second
        gone = pointer.split("/")[2] in ("4", "5", "7", "8") and "second_norm" in pointer
        silent[pointer] = np.zeros_like(leaf) if gone else leaf
    muted = trees.pointed(lambda pointer, leaf: silent[pointer], params)
    np.testing.assert_allclose(net.answers(params, x, Sub(1.0, 1)), net.logits(muted, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("net", [CONV, MLP, SIGNAL, RESIDUAL], ids=lambda net: type(net.net).__name__)
def test_widths_are_those_of_the_federated_algorithms(net: Slimmable) -> None:
    params = net.init(4)
    for width in net.widths:
        other = cut(params["net"], window(net.net, width))  # type: ignore[index, call-overload]
        assert trees.encode(net.cut(params, Sub(width))) == trees.encode(other)


@pytest.mark.parametrize("offset", [0, 3])
def test_windows_of_a_residual_network_fit_its_narrower_self(offset: int) -> None:
    net = Residual((3, 8, 8), 4, (8, 16), 2, groups=4)
    fitting(narrowed(net, 0.5), cut(net.init(0), window(net, 0.5, offset)))
    whole = {pointer: np.shape(leaf) for pointer, leaf in trees.leaves(net.init(0))}
    kept = window(net, 0.5, offset)
    assert kept.keys() == whole.keys()
    # Around the second group's first block leads a convolution: it reads what the block reads, and writes as much.
    for axis in (0, 1):
        inner = kept["/5/second/weight" if axis == 0 else "/5/first/weight"][axis]
        np.testing.assert_array_equal(kept["/5/beside/weight"][axis], inner)


def test_the_smallest_comes_first_and_all_weights_are_one_set() -> None:
    flops = [RESIDUAL.sub(sub).work(1).flops for sub in RESIDUAL.subs]
    assert flops == sorted(flops)
    assert len(RESIDUAL.subs) == 2 * 3
    assert RESIDUAL.parameters == RESIDUAL.net.parameters  # nothing beside the largest
    heads = 4 * 4 * 4 * 6 + 6 + 6 * 3 + 3  # dense: 4 channels of 4x4 pixels to 6, to 3 classes
    assert CONV.parameters == CONV.net.parameters + heads


def test_it_is_a_network_as_any_other(tmp_path: Path) -> None:
    from duetto.models import export

    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    params, x, sub = CONV.init(5), rows(CONV), Sub(0.5, 1)
    path = export.onnx(CONV.sub(sub), CONV.cut(params, sub), tmp_path / "narrow.onnx")
    (found,) = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})
    np.testing.assert_allclose(found, CONV.answers(params, x, sub), rtol=1e-4, atol=1e-5)


def test_depths_of_a_network() -> None:
    assert [deepest(net.net) for net in ALL] == [2, 3, 2, 3, 2]
    assert shallower(MLP.net, 2) == Mlp((5,), 3, (8, 8))
    assert shallower(MLP.net, 0) is MLP.net


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Slimmable(MLP.net, (0.5,)), "widths"),
        (lambda: Slimmable(MLP.net, (1.0, 0.5, 1.0)), "widths"),
        (lambda: Slimmable(MLP.net, (1.0,), (2, 1)), "depths"),
        (lambda: Slimmable(MLP.net, (1.0,), (3,)), "depth=3 of a network of depth 3: use 1 to 2, or 0 for all"),
        (lambda: Slimmable(Mlp((5,), 3, (8,)), (1.0,), (1,)), "depth=1 of a network of depth 1: use 0 for all"),
        (lambda: Slimmable(Conv((1, 8, 8), 3, (4,), norm="batch")), "batch statistics"),
        (lambda: Slimmable(Text((4,), 2)), "no narrower Text"),
        (lambda: Slimmable(Text((4,), 2), (1.0,), (1,)), "no shallower Text"),
        (lambda: MLP.sub(Sub(0.5)), "no sub-network 0.5"),
        (lambda: MLP.at(Sub(0.5)), "no sub-network 0.5"),
        (lambda: MLP.cut(MLP.net.init(0), Sub()), "parameters that are not those"),
    ],
)
def test_what_is_wrong_is_told(make: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make()


def test_a_cut_copies() -> None:
    params: Tree = MLP.init(0)
    before = trees.encode(params)
    for _, leaf in trees.leaves(MLP.cut(params, Sub())):
        leaf += 1
    assert trees.encode(params) == before
    assert built(MLP) is not built(MLP)
