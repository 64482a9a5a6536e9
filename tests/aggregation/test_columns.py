"""What the robust aggregators share: slabs of the cohort, distances, moves; and what each of them refuses and keeps."""

from functools import reduce
from typing import Any, ClassVar

import numpy as np
import pytest

from duetto import tree as trees
from duetto.aggregation import CentredClip, GeometricMedian, Krum, Median, Trimmed, columns
from duetto.errors import ConfigError, DataError
from duetto.tree import Bundle, Member, Shaped, Tree
from duetto.types import Aggregator, Reply

DRAW = np.random.default_rng(0)
COHORT = [
    {"w": DRAW.normal(size=(4, 3)), "inner": {"b": DRAW.normal(size=2), "tau": np.array(i + 1.0)}} for i in range(7)
]
CENTRE = {"w": DRAW.normal(size=(4, 3)), "inner": {"b": DRAW.normal(size=2), "tau": np.array(0.5)}}
SHARES = DRAW.normal(size=7)
ROBUST = [Median(), Trimmed(0.2), Krum(1), Krum(1, keep=3), GeometricMedian(), CentredClip(1.0, 2)]
every_robust = pytest.mark.parametrize("robust", ROBUST, ids=str)


def flat(tree: Tree) -> np.ndarray:
    """The tree as one vector."""
    return np.concatenate([np.ravel(leaf) for _, leaf in trees.leaves(tree)])


def aggregate(robust: Aggregator[Any], cohort: list[Tree]) -> Tree:
    """Of one reply a tree."""
    replies = [Reply(f"u{i}", tree) for i, tree in enumerate(cohort)]
    return robust.finish(reduce(robust.add, replies, robust.init()))[1]


MATRIX, MIDDLE = np.stack([flat(tree) for tree in COHORT]), flat(CENTRE)


@pytest.fixture(params=[1, 40, 1 << 22], ids="{} entries".format)
def entries(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The most numbers of a slab; at least a row, whatever that takes."""
    monkeypatch.setattr(columns, "_ENTRIES", request.param)
    return max(int(request.param), len(COHORT))


def test_a_rule_sees_every_coordinate_of_all_replies_a_slab_at_a_time(entries: int) -> None:
    seen = []

    def rule(slab: np.ndarray) -> np.ndarray:
        seen.append(slab)
        return slab.min(axis=-1)

    result = columns.by_column(rule, COHORT)
    assert flat(result).tolist() == MATRIX.min(axis=0).tolist()
    assert trees.spec(result) == trees.spec(COHORT[0])
    assert max(slab.size for slab in seen) <= entries
    assert (len(seen) > 3) == (entries < 50), "three leaves, in one slab each where that is large enough"


def test_gram_distances_and_moves_are_numpy_s(entries: int) -> None:
    gram = columns.gram(COHORT, CENTRE)
    np.testing.assert_allclose(gram, (MATRIX - MIDDLE) @ (MATRIX - MIDDLE).T, rtol=1e-12)
    point = flat(columns.moved(COHORT, CENTRE, SHARES))
    np.testing.assert_allclose(point, MIDDLE + SHARES @ (MATRIX - MIDDLE), rtol=1e-12)
    np.testing.assert_allclose(columns.distances(gram, SHARES), np.linalg.norm(MATRIX - point, axis=1), rtol=1e-12)


def test_products_are_summed_in_float64() -> None:
    cohort = [{"w": DRAW.normal(1, 0.1, 5000).astype(np.float32)} for _ in range(3)]
    matrix = np.stack([tree["w"].astype(np.float64) for tree in cohort])
    gram = columns.gram(cohort, {"w": np.zeros(5000, np.float32)})
    assert gram.dtype == np.float64
    np.testing.assert_allclose(gram, matrix @ matrix.T, rtol=1e-13)


def test_distances_are_not_negative_where_a_reply_lies_on_the_point() -> None:
    cohort = [{"w": DRAW.normal(size=50) * 1e3} for _ in range(4)]
    gram = columns.gram(cohort, {"w": np.zeros(50)})
    for i, corner in enumerate(np.eye(4)):
        found = columns.distances(gram, corner)
        assert found[i] <= 1e-4  # the root of what rounding leaves of 1e7
        assert (np.delete(found, i) > 1e3).all()


@every_robust
def test_order_and_parts_do_not_matter_in_the_last_bit(robust: Aggregator[Any]) -> None:
    replies = [Reply(f"u{i}", tree, i + 1.0) for i, tree in enumerate(COHORT)]
    whole = robust.finish(reduce(robust.add, replies, robust.init()))[1]
    back = robust.finish(reduce(robust.add, replies[::-1], robust.init()))[1]
    left, right = (reduce(robust.add, part, robust.init()) for part in (replies[:3], replies[3:]))
    merged = robust.finish(robust.merge(right, left))[1]
    assert trees.encode(back) == trees.encode(whole) == trees.encode(merged)


@every_robust
def test_weights_do_not_count(robust: Aggregator[Any]) -> None:
    replies = [Reply(f"u{i}", tree, 10.0**i) for i, tree in enumerate(COHORT)]
    boasted = robust.finish(reduce(robust.add, replies, robust.init()))[1]
    assert trees.encode(boasted) == trees.encode(aggregate(robust, COHORT))


@every_robust
def test_integers_come_back_in_float64_and_floats_in_their_dtype(robust: Aggregator[Any]) -> None:
    cohort = [
        {
            "half": np.full(3, i, np.float16),
            "w": np.full((2, 2), i, np.float32),
            "n": np.array([i, 7]),
            "on": np.array(True),
            "none": np.zeros((0, 2), np.float32),
            "tau": np.float64(i),
        }
        for i in range(7)
    ]
    result = aggregate(robust, cohort)
    wanted = {**cohort[0], "n": np.zeros(2), "on": np.array(1.0)}
    assert trees.spec(result) == trees.spec(wanted)
    assert (float(result["n"][1]), float(result["on"])) == pytest.approx((7, 1), rel=1e-12)
    whole = {name: float(np.ravel(result[name])[0]) for name in ("half", "w", "n", "tau")}
    assert [*whole.values()] == pytest.approx([whole["tau"]] * 4, rel=1e-3)


@every_robust
def test_a_bare_leaf_is_a_tree_too(robust: Aggregator[Any]) -> None:
    assert aggregate(robust, [np.array(2.0)] * 5).tolist() == pytest.approx(2)


def test_widths_mix_to_the_widest() -> None:
    assert aggregate(Median(), [np.ones(2, np.float32), np.ones(2), np.ones(2, np.float16)]).dtype == np.float64


@every_robust
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_is_not_finite_is_an_error(robust: Aggregator[Any], number: float) -> None:
    with pytest.raises(DataError, match="u3 sent NaN or infinity: put a gate"):
        robust.add(robust.init(), Reply("u3", {"w": np.array([1.0, number])}))


@every_robust
def test_a_partial_reply_and_a_second_one_are_errors(robust: Aggregator[Any]) -> None:
    with pytest.raises(DataError, match="partial"):
        robust.add(robust.init(), Reply("a", {"w": np.ones(1)}, index={"/w": ((2,), np.array([0]))}))
    state = robust.add(robust.init(), Reply("a", {"w": np.ones(1)}))
    with pytest.raises(DataError, match="a replied twice"):
        robust.add(state, Reply("a", {"w": np.ones(1)}))
    with pytest.raises(DataError, match="a replied twice"):
        robust.merge(state, state)


@every_robust
def test_another_structure_or_shape_is_an_error(robust: Aggregator[Any]) -> None:
    good = [{"w": np.ones(2)}] * 5
    with pytest.raises(ConfigError, match="differ in structure"):
        aggregate(robust, [*good, {"v": np.ones(2)}])
    with pytest.raises(ConfigError, match=r"the leaf /w has shapes \(\) and \(2,\)"):
        aggregate(robust, [*good, {"w": np.array(1.0)}])


@every_robust
def test_numbers_beyond_all_sense_move_nothing_far(robust: Aggregator[Any]) -> None:
    """Their squares are no float64; the honest are within 3 of zero."""
    honest = [DRAW.normal(size=20).clip(-3, 3) for _ in range(8)]
    result = aggregate(robust, [*honest, np.full(20, 1.7e308), np.full(20, -1e200)])
    assert np.abs(result).max() < 20


@every_robust
def test_a_common_offset_does_not_drown_the_distances(robust: Aggregator[Any]) -> None:
    """Updates that differ by 1e-3 around 1e6 are aggregated as around zero."""
    near = [DRAW.normal(size=30) * 2.0**-10 for _ in range(7)]
    near[2] += 1
    far = aggregate(robust, [tree + 2.0**20 for tree in near])
    np.testing.assert_allclose(far - 2.0**20, aggregate(robust, near), atol=1e-8)


@every_robust
def test_torch_gives_the_same_numbers(robust: Aggregator[Any]) -> None:
    torch = pytest.importorskip("torch")
    of_torch = [trees.map(lambda leaf: torch.asarray(leaf, dtype=torch.float32), tree) for tree in COHORT]
    of_numpy = [trees.map(lambda leaf: leaf.astype(np.float32), tree) for tree in COHORT]
    left, right = aggregate(robust, of_torch), aggregate(robust, of_numpy)
    assert left["w"].dtype == torch.float32
    np.testing.assert_allclose(flat(trees.map(lambda leaf: leaf.numpy(), left)), flat(right), rtol=1e-6)
    halves = [{"w": torch.full((3,), float(i), dtype=torch.bfloat16), "n": torch.tensor([i])} for i in range(5)]
    result = aggregate(robust, halves)
    assert (result["w"].dtype, result["n"].dtype) == (torch.bfloat16, torch.float64)


class Ones(Bundle):
    """``i`` times ones."""

    spec: ClassVar[Tree] = {"w": Shaped((3,), "float64")}

    def __len__(self) -> int:
        return 7

    def tree(self, i: int) -> Tree:
        return {"w": np.full(3, float(i))}

    def norm(self, i: int) -> float:
        return float(i) * 3**0.5

    def finite(self, i: int) -> bool:
        return True

    def total(self, weights: np.ndarray) -> Tree:
        raise NotImplementedError


@every_robust
def test_members_of_a_bundle_are_replies_like_others(robust: Aggregator[Any]) -> None:
    bundle = Ones()
    kept = [Member(bundle, i, 2.0) for i in range(7)]
    assert trees.encode(aggregate(robust, kept)) == trees.encode(
        aggregate(robust, [{"w": np.full(3, 2.0 * i)} for i in range(7)])
    )
