"""A data set by user: its checks, and how rows and users are drawn."""

import gzip
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duetto.errors import ConfigError, DataError
from duetto.tasks.by_user import ByUser, by_name, draw_users, in_order, pooled, split, standardise, unpacked

NAMES = ["bo", "al", "bo", "cy", "al", "bo"]
COUNTS = st.lists(st.integers(1, 12), min_size=1, max_size=8)
WEIGHTS = st.lists(st.integers(0, 9), min_size=1, max_size=4).filter(any)


def small() -> ByUser:
    x = np.arange(12, dtype=np.float32).reshape(6, 2)
    return by_name(x, [0, 1, 2, 0, 1, 2], NAMES, ("a", "b", "c"))


def of_counts(counts: list[int]) -> ByUser:
    """Users u0, u1, ... whose rows are interleaved; x[:, 0] is unique."""
    user = np.concatenate([np.arange(len(counts))[np.array(counts) > turn] for turn in range(max(counts))])
    n = len(user)
    names = tuple(f"u{i}" for i in range(len(counts)))
    x = np.arange(n, dtype=np.float32)[:, None]
    return ByUser(x, np.zeros(n, np.int64), user.astype(np.int32), names, ("only",))


def fractions_of(weights: list[int]) -> dict[str, float]:
    return {f"part{i}": weight / sum(weights) for i, weight in enumerate(weights)}


def test_by_name_sorts_users_and_keeps_rows_in_order() -> None:
    data = small()
    assert data.users == ("al", "bo", "cy")
    assert [data.users[i] for i in data.user] == NAMES
    np.testing.assert_array_equal(data.x.ravel(), np.arange(12))


def test_rows_and_counts() -> None:
    data = small()
    for i, user in enumerate(data.users):
        expected = [row for row, name in enumerate(NAMES) if name == user]
        assert data.rows(user).tolist() == data.rows(i).tolist() == expected
    assert data.counts().tolist() == [2, 3, 1]


def test_rows_are_a_copy() -> None:
    data = small()
    data.rows("bo")[:] = 99
    assert data.rows("bo").tolist() == [0, 2, 5]


@pytest.mark.parametrize("user", ["dora", 3, -1])
def test_an_unknown_user_is_an_error(user: str | int) -> None:
    with pytest.raises(DataError, match=repr(user)):
        small().rows(user)


def test_a_hundred_thousand_users() -> None:
    n, users = 300_000, 100_000
    user = np.random.default_rng(0).permutation(np.arange(n) % users).astype(np.int32)
    data = ByUser(
        np.zeros((n, 1), np.float32),
        np.zeros(n, np.int64),
        user,
        tuple(f"u{i:06}" for i in range(users)),
        ("only",),
    )
    total = 0
    for i in range(users):
        rows = data.rows(i)
        total += len(rows)
        assert user[rows[0]] == i
    assert total == n
    assert data.rows("u099999").tolist() == np.flatnonzero(user == 99_999).tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((6, 2))}, "x is float64"),
        ({"y": np.zeros(6, np.int32)}, "y is int32"),
        ({"user": np.zeros(6, np.int64)}, "user is int64"),
        ({"x": np.zeros((5, 2), np.float32)}, r"do not fit: x \(5, 2\), y \(6,\)"),
        ({"x": np.zeros(6, np.float32)}, r"do not fit: x \(6,\)"),
        ({"x": np.zeros((6, 0), np.float32)}, r"do not fit: x \(6, 0\)"),
        ({"y": np.zeros((6, 1), np.int64)}, r"y \(6, 1\)"),
        ({"users": ("al", "bo", "al")}, "user 'al' is named twice"),
        ({"classes": ("a", "b", "b")}, "class 'b' is named twice"),
        ({"users": ("al", "bo")}, r"user index 0\.\.2 for 2 users"),
        ({"user": np.array([1, 0, -1, 2, 0, 1], np.int32)}, r"user index -1\.\.2"),
        ({"users": ("al", "bo", "cy", "dora", "ed")}, r"user 'dora' has no rows \(2 such users\)"),
        ({"classes": ("a", "b")}, r"user 'bo' has label 2 outside the 2 classes \(2 such rows\)"),
        ({"y": np.array([0, 1, 2, -1, 1, 2])}, "user 'cy' has label -1"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        replace(small(), **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_counted_for_their_user(bad: float) -> None:
    x = small().x.copy()
    x[0, 1] = x[5] = x[3, 0] = bad  # two rows of bo, one of cy
    with pytest.raises(DataError, match=r"user 'bo' has 2 rows with values that are not finite \(2 such users\)"):
        replace(small(), x=x)


def test_an_empty_set_is_an_error() -> None:
    with pytest.raises(DataError, match="no rows"):
        by_name(np.zeros((0, 2)), [], [], ("a",))
    with pytest.raises(DataError, match="no rows"):
        small().take([])


def test_take_keeps_the_order_asked_for_and_drops_idle_users() -> None:
    part = small().take([5, 3, 0])
    assert part.users == ("bo", "cy")
    assert [part.users[i] for i in part.user] == ["bo", "cy", "bo"]
    np.testing.assert_array_equal(part.x[:, 0], [10, 6, 0])
    assert part.y.tolist() == [2, 0, 0]


def test_take_by_mask_is_take_by_index() -> None:
    mask = np.array([False, True, True, False, False, True])
    np.testing.assert_array_equal(small().take(mask).x, small().x[mask])


def test_only_keeps_rows_and_users_in_order() -> None:
    part = small().only(["cy", "al"])
    assert part.users == ("al", "cy")
    np.testing.assert_array_equal(part.x[:, 0], [2, 6, 8])
    assert part.classes == small().classes
    with pytest.raises(DataError, match="'dora'"):
        small().only(["dora"])


def test_pooled_joins_users_of_the_same_name() -> None:
    a, b = small().only(["al", "bo"]), small().only(["bo", "cy"])
    both = pooled(a, b)
    assert both.users == ("al", "bo", "cy")
    assert both.counts().tolist() == [2, 6, 1]
    np.testing.assert_array_equal(both.x[both.rows("bo")], np.concatenate([a.x[a.rows("bo")], b.x[b.rows("bo")]]))
    assert both.y[both.rows("cy")].tolist() == [0]


def test_pooled_asks_for_the_same_classes_and_shapes() -> None:
    with pytest.raises(DataError, match="cannot pool"):
        pooled(small(), replace(small(), classes=("a", "b", "d")))
    with pytest.raises(DataError, match="cannot pool"):
        pooled(small(), replace(small(), x=np.zeros((6, 3), np.float32)))


@given(COUNTS, WEIGHTS, st.integers(0, 9))
def test_a_split_neither_loses_nor_doubles_a_row(counts: list[int], weights: list[int], seed: int) -> None:
    data, fractions = of_counts(counts), fractions_of(weights)
    parts = split(data, fractions, seed)
    assert list(parts) == list(fractions)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(data.y)))
    for name, rows in parts.items():
        mine = np.bincount(data.user[rows], minlength=len(counts))
        assert (np.abs(mine - fractions[name] * np.array(counts)) <= 1 + 1e-9).all()


@given(COUNTS, st.integers(0, 9))
def test_a_users_split_depends_on_nobody_else(counts: list[int], seed: int) -> None:
    data, fractions = of_counts(counts), {"stream": 0.6, "calibration": 0.2, "held": 0.2}
    order = np.random.default_rng(seed).permutation(len(counts))
    place = np.argsort(order).astype(np.int32)
    other = replace(data, users=tuple(data.users[i] for i in order), user=place[data.user])
    alone = data.only([data.users[-1]])
    parts, others, own = split(data, fractions, seed), split(other, fractions, seed), split(alone, fractions, seed)
    for name in fractions:
        for user in data.users:
            mine = parts[name][data.user[parts[name]] == data.index(user)]
            theirs = others[name][other.user[others[name]] == other.index(user)]
            assert mine.tolist() == theirs.tolist()
        np.testing.assert_array_equal(data.x[mine], alone.x[own[name]])  # mine: of the last user


def test_a_split_depends_on_the_seed_and_shuffles() -> None:
    data = of_counts([50, 50])
    first, again, other = (split(data, {"a": 0.5, "b": 0.5}, seed)["a"].tolist() for seed in (0, 0, 1))
    assert first == again != other
    assert first[:25] != sorted(first[:25])
    assert set(data.user[first[:25]]) == {0}  # user by user
    # Rows are interleaved: row 2 i + u is the i-th of user u. Each user has a shuffle of its own.
    assert [row // 2 for row in first[:25]] != [row // 2 for row in first[25:]]


@given(st.sets(st.text(max_size=3), max_size=12), WEIGHTS, st.integers(0, 9))
def test_users_are_drawn_into_parts_whatever_their_order(users: set[str], weights: list[int], seed: int) -> None:
    fractions = fractions_of(weights)
    parts = draw_users(sorted(users), fractions, seed)
    assert sorted(name for part in parts.values() for name in part) == sorted(users)
    assert parts == draw_users(sorted(users, reverse=True), fractions, seed)
    for name, part in parts.items():
        assert abs(len(part) - fractions[name] * len(users)) <= 1 + 1e-9
        assert list(part) == sorted(part)


def test_other_seeds_draw_other_users() -> None:
    names = [f"u{i}" for i in range(40)]
    assert draw_users(names, {"a": 0.5, "b": 0.5}, 0) != draw_users(names, {"a": 0.5, "b": 0.5}, 1)
    with pytest.raises(DataError, match="twice"):
        draw_users(["u", "u"], {"a": 1.0}, 0)


@pytest.mark.parametrize(
    "fractions", [{}, {"a": 0.5}, {"a": 1.5, "b": -0.5}, {"a": float("nan")}, {"a": 0.7, "b": 0.7}]
)
def test_fractions_must_add_up(fractions: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="add up to 1"):
        split(small(), fractions, 0)
    with pytest.raises(ConfigError, match="add up to 1"):
        draw_users(["u"], fractions, 0)


@pytest.mark.parametrize("shape", [(50, 4), (20, 4, 7), (9, 4, 3, 3)])
def test_standardise_gives_mean_0_and_deviation_1_per_feature(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(3, 5, shape).astype(np.float32)
    x[:, 2] = 0.1  # constant, and not exact in binary
    mean, scale = standardise(x)
    assert mean.dtype == scale.dtype == np.float32
    z = np.moveaxis((x - mean) / scale, 1, 0).reshape(4, -1)
    np.testing.assert_allclose(z.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(z.std(1), [1, 1, 0, 1], atol=1e-5)
    assert scale.ravel()[2] == 1


def test_unpacked_tells_gzip_by_its_bytes(tmp_path) -> None:  # type: ignore[no-untyped-def]
    packed = gzip.compress(b"hello" * 100)
    for name, content in (("plain.gz", b"hello"), ("packed.txt", packed)):
        (tmp_path / name).write_bytes(content)
    assert unpacked(tmp_path / "plain.gz") == b"hello"
    assert unpacked(tmp_path / "packed.txt") == b"hello" * 100
    for broken in (packed[:-9], packed[:12] + b"\xff\xff" + packed[14:]):
        (tmp_path / "broken").write_bytes(broken)
        with pytest.raises(DataError, match="broken"):
            unpacked(tmp_path / "broken")
    with pytest.raises(DataError, match="absent"):
        unpacked(tmp_path / "absent")


def test_parts_in_order_keep_blocks_together() -> None:
    data = by_name(np.zeros((14, 1)), np.zeros(14), list("ab" * 4 + "a" * 6), ("only",))
    parts = in_order(data, {"first": 0.5, "second": 0.5}, together=2)
    # a has ten rows, five blocks, of which 2.5 are rounded up to three; b has four rows
    assert parts["first"].tolist() == [0, 2, 4, 6, 8, 9, 1, 3]
    assert parts["second"].tolist() == [10, 11, 12, 13, 5, 7]
    assert sorted(np.concatenate(list(in_order(data, {"x": 0.3, "y": 0.7}).values())).tolist()) == list(range(14))
    with pytest.raises(ConfigError, match="by 3"):
        in_order(data, {"all": 1.0}, together=3)
    with pytest.raises(ConfigError, match="add up to 1"):
        in_order(data, {"all": 0.5})
