"""A network without its parameters: one module for all, and no number of its own in any answer."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.models import Conv, Mlp
from duetto.models.net import log_softmax, shared, size, to_tensors, to_tree

NET = Conv((1, 4, 4), 3, (2,), (5,))
X = np.random.default_rng(0).normal(size=(1030, 1, 4, 4)).astype(np.float32)


def test_the_same_seed_gives_the_same_parameters_and_another_others() -> None:
    assert trees.encode(NET.init(4)) == trees.encode(NET.init(4))
    assert trees.encode(NET.init(4)) != trees.encode(NET.init(5))
    assert {leaf.dtype.name for _, leaf in trees.leaves(NET.init(4))} == {"float32"}


def test_nothing_here_touches_torch_s_own_chance() -> None:
    before = torch.get_rng_state()
    NET.logits(NET.init(1), X[:3])
    NET.work(1)
    assert torch.equal(before, torch.get_rng_state())


def test_two_models_of_one_network_do_not_mix() -> None:
    one, two = NET.init(1), NET.init(2)
    first, second = NET.logits(one, X[:5]), NET.logits(two, X[:5])
    own = {name: tensor.clone() for name, tensor in shared(NET).state_dict().items()}
    for _ in range(2):
        np.testing.assert_array_equal(NET.logits(one, X[:5]), first)
        np.testing.assert_array_equal(NET.logits(two, X[:5]), second)
    assert np.abs(first - second).max() > 1e-3
    assert shared(NET) is shared(Conv((1, 4, 4), 3, (2,), (5,)))
    assert all(torch.equal(tensor, own[name]) for name, tensor in shared(NET).state_dict().items())
    assert not any(parameter.requires_grad for parameter in shared(NET).parameters())


def test_many_rows_are_the_rows_in_turn() -> None:
    params = NET.init(0)
    together = NET.logits(params, X)
    assert together.shape == (1030, 3)
    np.testing.assert_allclose(together, np.concatenate([NET.logits(params, x[None]) for x in X]), atol=1e-6)
    assert NET.logits(params, X[:0]).shape == (0, 3)


def test_arrays_that_nobody_may_write_to_are_read() -> None:
    params, x = NET.init(0), X[:4].copy()
    expected = NET.logits(params, x)
    frozen = trees.decode(trees.encode(params))
    for _, leaf in trees.leaves(frozen):
        leaf.flags.writeable = False
    x.flags.writeable = False
    np.testing.assert_array_equal(NET.logits(frozen, x), expected)
    np.testing.assert_array_equal(NET.logits(params, X[:4].astype(np.float64)), expected)
    np.testing.assert_array_equal(NET.logits(params, X[:4, :, ::-1][:, :, ::-1]), expected)


def test_tensors_become_the_tree_and_the_tree_the_tensors() -> None:
    named = dict(NET.module().named_parameters())
    tree = to_tree(named)
    assert sorted(pointer for pointer, _ in trees.leaves(tree)) == sorted(f"/{n.replace('.', '/')}" for n in named)
    back = to_tensors(tree)
    assert back.keys() == named.keys()
    assert all(torch.equal(back[name], named[name]) for name in named)
    with torch.no_grad():
        for parameter in named.values():
            parameter += 1
    assert not any(torch.equal(back[name], named[name]) for name in named), "the tree is a copy"
    assert to_tensors({"a": np.float32(2.0)})["a"].shape == ()


@pytest.mark.parametrize("change", ["lost", "more", "shape", "none"])
def test_parameters_of_another_network_are_refused(change: str) -> None:
    """torch's functional_call takes the module's own numbers for whatever is missing."""
    params = NET.init(0)
    layer = dict(params["0"])
    if change == "lost":
        layer.pop("bias")
    elif change == "more":
        layer["scale"] = np.ones(1, np.float32)
    elif change == "shape":
        layer["bias"] = np.ones(7, np.float32)
    with pytest.raises(ConfigError, match="Conv"):
        NET.logits({} if change == "none" else {**params, "0": layer}, X[:2])


def test_networks_are_values() -> None:
    assert Mlp((3,), 2) == Mlp((3,), 2)
    assert hash(Mlp((3,), 2)) == hash(Mlp((3,), 2))
    assert Mlp((3,), 2) != Mlp((3,), 2, (65,))
    assert size((2, 3, 4)) == 24


def test_log_probabilities_are_the_logarithm_of_the_softmax() -> None:
    logits = np.random.default_rng(2).normal(size=(4, 6)) * 5
    share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(log_softmax(logits), np.log(share), rtol=1e-12)
    assert np.isfinite(log_softmax(np.array([[1e4, -1e4]]))).all()


def test_threads_do_not_compute_with_each_others_parameters() -> None:
    # Calling one module with other parameters changes it while the call lasts, so each thread needs its own.
    net = Conv((3, 16, 16), 10, (16, 32))
    params = [net.init(seed) for seed in range(4)]
    x = np.random.default_rng(0).standard_normal((64, 3, 16, 16)).astype(np.float32)
    alone = [net.logits(each, x) for each in params]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            together = list(threads.map(lambda i: net.logits(params[i % 4], x), range(200)))
    finally:
        sys.setswitchinterval(before)
    assert all((found == alone[i % 4]).all() for i, found in enumerate(together))
