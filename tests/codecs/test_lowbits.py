"""Signs, levels and thin factors: their errors are those of the papers."""

from collections.abc import Mapping

import numpy as np
import pytest

from duetto import tree as trees
from duetto.codecs import QSGD, PowerSGD, Sign
from duetto.errors import ConfigError, DataError, WireError
from duetto.tree import Tree
from duetto.types import Codec

DRAW = np.random.default_rng(0)
LEAF = DRAW.normal(size=(12, 9))


def sent(codec: Codec, tree: Tree, key: tuple = (1,)) -> Tree:
    return codec.decode(trees.decode(trees.encode(codec.encode(codec.init(), tree, key)[1])))


def test_signs_take_a_bit_each_and_the_mean_size() -> None:
    back = sent(Sign(), {"w": LEAF})["w"]
    np.testing.assert_allclose(back, np.where(LEAF >= 0, 1, -1) * np.abs(LEAF).mean())
    assert len(Sign().encode({}, {"w": LEAF}, ())[1]["w"]["signs"]) == -(-LEAF.size // 8)


def test_levels_are_neighbours_and_right_in_the_mean() -> None:
    norm, many = np.linalg.norm(LEAF), [sent(QSGD(7), {"w": LEAF}, (i,))["w"] for i in range(600)]
    step = norm / 7
    for back in many[:20]:
        assert (np.abs(back - LEAF) < step * (1 + 1e-9)).all()
        np.testing.assert_allclose(back / step, np.rint(back / step), atol=1e-9)
    assert (np.abs(np.mean(many, axis=0) - LEAF) < 5 * step / 2 / np.sqrt(600)).all()


def test_a_matrix_of_low_rank_comes_back_whole() -> None:
    low = DRAW.normal(size=(40, 2)) @ DRAW.normal(size=(2, 30))
    tree = {"w": low.reshape(40, 5, 6), "b": LEAF[0], "s": np.float64(3)}
    back = sent(PowerSGD(2), tree)
    np.testing.assert_allclose(back["w"], tree["w"], rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(back["b"], tree["b"])
    assert not isinstance(PowerSGD(9).encode({}, {"w": LEAF}, ())[1]["w"], Mapping), "no smaller so"


def test_a_lower_rank_is_the_nearest_of_a_subspace() -> None:
    coded = PowerSGD(1).encode({}, {"w": LEAF}, (0,))[1]["w"]
    left = coded["left"]
    np.testing.assert_allclose(left.T @ left, np.eye(1), atol=1e-9)
    np.testing.assert_allclose(PowerSGD(1).decode({"w": coded})["w"], left @ left.T @ LEAF, atol=1e-9)


@pytest.mark.parametrize("codec", [Sign(), QSGD(3), PowerSGD(1)])
def test_what_is_not_finite_is_not_sent(codec: Codec) -> None:
    bad = LEAF.copy()
    bad[1, 1] = np.inf
    with pytest.raises(DataError, match="finite"):
        codec.encode({}, {"w": bad}, ())


@pytest.mark.parametrize("make", [lambda: QSGD(0), lambda: QSGD(128), lambda: PowerSGD(0)])
def test_senseless_settings_are_refused(make: object) -> None:
    with pytest.raises(ConfigError):
        make()  # type: ignore[operator]


SIGN, LEVELS, THIN = (codec.encode({}, {"w": LEAF}, ())[1]["w"] for codec in (Sign(), QSGD(3), PowerSGD(1)))


@pytest.mark.parametrize(
    ("codec", "broken"),
    [
        (Sign(), {**SIGN, "signs": SIGN["signs"][:-1]}),
        (Sign(), {**SIGN, "shape": np.array([1 << 60, 1 << 60])}),
        (Sign(), {**SIGN, "size": np.zeros(2)}),
        (QSGD(3), {**LEVELS, "levels": np.full((12, 9), 4, np.int8)}),
        (QSGD(3), {**LEVELS, "of": np.zeros(1, np.uint8)}),
        (QSGD(3), {**LEVELS, "norm": np.zeros(0)}),
        (PowerSGD(1), {**THIN, "left": THIN["left"][:-1]}),
        (PowerSGD(1), {**THIN, "right": np.zeros((9, 2))}),
        (PowerSGD(1), {**THIN, "shape": np.array([108])}),
    ],
)
def test_a_damaged_message_is_refused(codec: Codec, broken: Tree) -> None:
    with pytest.raises(WireError):
        codec.decode({"w": broken})
