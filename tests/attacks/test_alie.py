"""Alie: the paper's z, mean less z deviations of the colluders in a call, and what one alone says."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from duetto import tree as trees
from duetto.aggregation import Gate
from duetto.attacks import Alie
from duetto.errors import ConfigError
from duetto.tree import Tree
from duetto.types import Reply

DRAW = np.random.default_rng(0)
DELTAS = [
    {"w": DRAW.normal(size=(2, 3)).astype(np.float32), "n": np.array(i), "tau": np.array(i / 4)} for i in range(4)
]


def lies(attack: Alie, deltas: Sequence[Tree]) -> Sequence[Tree]:
    """What colluders say who would honestly say these."""
    said = [{"delta": delta, "weight": np.float64(i + 1)} for i, delta in enumerate(deltas)]
    return attack.lie(said, [(0, f"u{i}") for i in range(len(said))])


@pytest.mark.parametrize(("n", "m"), [(50, 12), (50, 24), (51, 5), (3, 1), (10, 5)])
def test_z_is_where_so_few_of_the_honest_lie_further_out(n: int, m: int) -> None:
    needed = n // 2 + 1 - m  # honest ones who make the colluders a majority
    further = (1 - math.erf(Alie(m, n).z / math.sqrt(2))) / 2  # the share of a normal distribution above z
    assert further * (n - m) == pytest.approx(needed)


def test_all_say_the_mean_less_some_deviations() -> None:
    attack = Alie(4, 9)
    for i, lie in enumerate(lies(attack, DELTAS)):
        seen = np.stack([delta["w"].astype(np.float64) for delta in DELTAS])
        expected = seen.mean(axis=0) - attack.z * np.sqrt(((seen - seen.mean(axis=0)) ** 2).mean(axis=0))
        np.testing.assert_allclose(lie["delta"]["w"], expected, rtol=1e-5)
        assert trees.spec(lie["delta"]) == trees.spec(DELTAS[i])
        assert int(lie["delta"]["n"]) == i, "a count is left as it is"
        assert float(lie["weight"]) == i + 1


def test_one_alone_takes_the_deviation_between_the_entries_of_a_leaf() -> None:
    attack = Alie(2, 5)
    (lie,) = lies(attack, DELTAS[:1])
    w = DELTAS[0]["w"].astype(np.float64)
    np.testing.assert_allclose(lie["delta"]["w"], w - attack.z * w.std(), rtol=1e-5)
    assert float(lie["delta"]["tau"]) == float(DELTAS[0]["tau"]), "of a scalar there is none"


def test_a_gate_of_the_honest_norm_does_not_see_it() -> None:
    draw = np.random.default_rng(1)
    honest = [{"w": draw.normal(size=200)} for _ in range(9)]
    norm = max(trees.norm(delta) for delta in honest)
    for lie in lies(Alie(4, 9), honest[:4]):
        assert Gate(norm)(Reply("eve", lie["delta"]), honest[0]) is None


@pytest.mark.parametrize("numbers", [(0, 10), (6, 10), (1, 2), (-1, 5)])
def test_bad_numbers_are_errors(numbers: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="no more than half"):
        Alie(*numbers)


def test_there_are_no_defaults() -> None:
    with pytest.raises(TypeError):
        Alie(3)
