"""HeteroFL and FedRolex: which channels a device has, and the mean over those that have them, in numpy."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.algorithms import fedavg, fedrolex, heterofl
from duetto.errors import ConfigError
from duetto.models import Conv, Mlp, Text, narrowed, window
from duetto.models.narrow import cut
from duetto.protocols import buffered
from duetto.training import Sequential
from duetto.tree import Tree
from duetto.types import Local, Peer, Reply

NET = Mlp((3,), 2, (6, 4))
HOW: Any = {"lr": 0.3, "epochs": 2, "batch_size": 4}


class Told(Peer):
    """A peer of some width."""

    def __init__(self, name: str, **traits: float) -> None:
        self.name, self.traits = name, traits

    async def ask(self, skill: Any, tree: Any, *, key: Any, deadline: float | None = None) -> Reply:
        raise NotImplementedError


def params(net: Any = NET) -> Tree:
    return trees.map(lambda leaf: leaf.astype(np.float64), net.init(1))


def close(one: Tree, other: Tree) -> None:
    trees.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), one, other)


@pytest.mark.parametrize("build", [heterofl, fedrolex])
def test_width_1_is_fedavg(problem: Any, together: bool, build: Any) -> None:
    wide = problem.lived(build(NET, params(), levels=(1.0,), **HOW), 3, together).memory["cloud"]["params"]
    plain = problem.lived(fedavg(NET, params(), **HOW), 3, together).memory["cloud"]["params"]
    assert trees.encode(wide) == trees.encode(plain)


@pytest.mark.parametrize("build", [heterofl, fedrolex])
def test_a_parameter_moves_by_the_mean_of_those_who_have_it(problem: Any, together: bool, build: Any) -> None:
    """Each device's part is trained by itself; sums and counts are numpy's, layer by layer."""
    algorithm = build(NET, params(), levels=(1.0, 0.5), **HOW)
    widths = {user: algorithm.server.width(Told(user)) for user in problem.users}
    assert set(widths.values()) == {1.0, 0.5}
    wanted = params()
    for step in range(3):
        sums = trees.map(lambda leaf: np.zeros((2, *leaf.shape)), wanted)
        for user, width in widths.items():
            offset = step if build is fedrolex and width < 1 else 0
            keep = [np.arange(3)] + [np.sort((offset + np.arange(int(n * width))) % n) for n in NET.hidden] + [range(2)]
            part: dict[str, Any] = {}
            for i, layer in enumerate(("1", "3", "5")):
                leaf = wanted[layer]
                weight = leaf["weight"][np.ix_(keep[i + 1], keep[i])]
                part[layer] = {"weight": weight, "bias": leaf["bias"][list(keep[i + 1])]}
            alone = fedavg(Mlp((3,), 2, (int(6 * width), int(4 * width))), part, **HOW)
            client = replace(alone.client, executor=Sequential())
            key = (3, "round", step, user)
            _, answer = client(Local(problem.data[user]), {"params": part}, key, "cloud")
            for i, layer in enumerate(("1", "3", "5")):
                for name, at in (("weight", np.ix_(keep[i + 1], keep[i])), ("bias", (list(keep[i + 1]),))):
                    sums[layer][name][0][at] += answer["weight"] * answer["delta"][layer][name]
                    sums[layer][name][1][at] += answer["weight"]
        wanted = trees.map(lambda w, each: w + each[0] / np.where(each[1] > 0, each[1], 1), wanted, sums)
    memory = problem.lived(algorithm, 3, together).memory
    close(memory["cloud"]["params"], wanted)
    narrow = next(user for user, width in widths.items() if width < 1)
    offset = 2 if build is fedrolex else 0
    assert memory[narrow]["part"] == {"width": 0.5, "offset": offset}
    x, wanted = problem.data[narrow].x, trees.map(lambda leaf: leaf.astype(np.float32), wanted)
    answered = algorithm.client.logits({"params": wanted}, memory[narrow], x)
    small = cut(wanted, window(NET, 0.5, offset))
    np.testing.assert_array_equal(answered, Mlp((3,), 2, (3, 2)).logits(small, x))
    np.testing.assert_array_equal(algorithm.client.logits({"params": wanted}, {}, x), NET.logits(wanted, x))


def test_nobody_has_what_only_wide_devices_have_but_rolling_reaches_all(problem: Any) -> None:
    moved = {}
    for build in (heterofl, fedrolex):
        after = problem.lived(build(NET, params(), levels=(0.5,), **HOW), 6).memory["cloud"]["params"]
        moved[build] = np.abs(after["1"]["bias"] - params()["1"]["bias"]) > 0
    np.testing.assert_array_equal(moved[heterofl], np.arange(6) < 3)
    assert moved[fedrolex].sum() > 3


@pytest.mark.parametrize("net", [Conv((1, 8, 8), 3, (4, 6), (5,)), Mlp((2, 2), 3, ()), NET])
@pytest.mark.parametrize("width", [1.0, 0.6, 0.25])
@pytest.mark.parametrize("offset", [0, 3])
def test_a_narrow_network_computes_what_the_wide_one_does_without_the_other_channels(
    net: Any, width: float, offset: int
) -> None:
    """Set what is left out to zero, and ReLU lets nothing of it through."""
    wide, kept = params(net), window(net, width, offset)
    thin = cut(wide, kept)

    def filled(at: str, zero: np.ndarray, leaf: np.ndarray) -> np.ndarray:
        zero[np.ix_(*kept[at])] = leaf[np.ix_(*kept[at])]
        return zero

    masked = trees.pointed(filled, trees.zeros(wide), wide)
    x = np.random.default_rng(0).normal(size=(5, *net.shape)).astype(np.float32)
    single = [trees.map(lambda leaf: leaf.astype(np.float32), tree) for tree in (thin, masked)]
    np.testing.assert_allclose(narrowed(net, width).logits(single[0], x), net.logits(single[1], x), atol=1e-5)


def test_a_device_s_trait_says_how_wide(problem: Any) -> None:
    server = heterofl(NET, params(), levels=(1.0, 0.5, 0.25), **HOW).server
    assert [server.width(Told("a", width=width)) for width in (2.0, 0.7, 0.25, 0.1)] == [1.0, 0.5, 0.25, 0.25]


def test_what_is_no_part_of_that_size_is_refused(problem: Any) -> None:
    """The cloud goes by what it asked for, not by what a device says it is."""
    algorithm = heterofl(NET, params(), levels=(0.5,), **HOW)
    server = algorithm.server
    index = server.part({}, params(), Told("ann"))
    whole = Reply("ann", params(), index=index)
    assert algorithm.gate(whole, params()) == "the leaf /1/bias has an index that does not fit it"


def test_faults_are_told() -> None:
    with pytest.raises(ConfigError, match=r"^width=1.5: use a share above 0, at most 1$"):
        heterofl(NET, params(), levels=(1.5,), **HOW)
    with pytest.raises(ConfigError, match=r"^levels=\(\): name a network and at least one width$"):
        fedrolex(NET, params(), levels=(), **HOW)
    with pytest.raises(
        ConfigError, match=r"^no narrower Text is known: use Mlp, Conv, Signal or Residual, or width 1$"
    ):
        narrowed(Text((4,), 2), 0.5)
    with pytest.raises(ConfigError, match=r"^Narrowing asks for parts of a model: learn in rounds$"):
        buffered(heterofl(NET, params(), levels=(0.5,), **HOW), steps=1, goal=1, discount=lambda age: 1.0)
