"""Trees: arithmetic for every dtype, in numpy and torch, and bytes that are a tree or an error."""

import json
import math
from typing import Any

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings

from duetto import tree as trees
from duetto.errors import ConfigError, WireError
from duetto.tree import DEPTH, Shaped, Tree

DTYPES = (
    "bool",
    "uint8",
    "int8",
    "int16",
    "uint16",
    "float16",
    "int32",
    "uint32",
    "float32",
    "float64",
    "int64",
    "uint64",
)
FLOATS = ("float16", "float32", "float64")
NAMES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6),
    st.sampled_from(
        ["a/b", "~", "~0", "~1", "~01", "/", "-", ".", "..", "__metadata__", "\x00", "\x7f", '"', "\\", "é", "𝄞"]
    ),
)
SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
LEAVES = arrays.arrays(st.sampled_from(DTYPES), SHAPES)
TREES = st.recursive(LEAVES, lambda child: st.dictionaries(NAMES, child, max_size=4), max_leaves=8)
many = settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])


def same(left: Tree, right: Tree) -> bool:
    """The same structure, shapes, dtypes and bytes."""
    if isinstance(left, dict) or isinstance(right, dict):
        alike = isinstance(left, dict) and isinstance(right, dict) and left.keys() == right.keys()
        return alike and all(same(left[name], right[name]) for name in left)
    return (
        isinstance(right, np.ndarray)
        and (left.shape, left.dtype) == (right.shape, right.dtype)
        and left.tobytes() == right.tobytes()
    )


def chain(depth: int, last: Tree) -> Tree:
    """``last`` under so many names."""
    for _ in range(depth):
        last = {"n": last}
    return last


def buffer(flat: dict[str, tuple[str, list[int], bytes]]) -> bytes:
    """A safetensors buffer, written by hand from its specification."""
    header, data = {}, b""
    for name, (dtype, shape, raw) in flat.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


LEAF = ("U8", [1], b"\x07")
MARKER = ("U8", [0], b"")


# ------------------------------------------------------------------------------------------------------- bytes


@many
@given(TREES)
def test_decoding_gives_back_what_was_encoded_and_the_size_is_known(x: Tree) -> None:
    data = trees.encode(x)
    assert same(x, trees.decode(data))
    assert trees.size(trees.spec(x)) == len(data)
    assert trees.encode(trees.decode(memoryview(data))) == data


@many
@given(TREES, st.data())
def test_a_damaged_message_is_a_wire_error_or_a_tree(x: Tree, data: st.DataObject) -> None:
    damaged = bytearray(trees.encode(x))
    if data.draw(st.booleans(), "truncated"):
        del damaged[data.draw(st.integers(0, len(damaged) - 1)) :]
    for bit in data.draw(st.lists(st.integers(0, max(0, 8 * len(damaged) - 1)), max_size=4)) if damaged else []:
        damaged[bit // 8] ^= 1 << bit % 8
    try:
        y = trees.decode(bytes(damaged))
    except WireError:
        return
    assert same(y, trees.decode(trees.encode(y)))


def test_every_truncation_and_every_flipped_bit_of_one_message() -> None:
    data = trees.encode({"a": {}, "b~": {"c/": np.array([True, False]), "d": np.array(1.5)}, "e": np.zeros((0, 2))})
    refused = 0
    for damaged in [data[:end] for end in range(len(data))] + [
        data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :] for bit in range(8 * len(data))
    ]:
        try:
            y = trees.decode(damaged)
        except WireError:
            refused += 1
        else:
            assert same(y, trees.decode(trees.encode(y)))
    assert len(data) <= refused < 9 * len(data), "every truncation is refused, and not every flipped bit of a number"


@given(st.binary(max_size=100))
@example(b"")
@example(bytes(7))
@example((1 << 63).to_bytes(8, "little"))
@example((8).to_bytes(8, "little") + b"[" * 8)
@example((8000).to_bytes(8, "little") + b"[" * 8000)
def test_bytes_of_anybody_are_a_wire_error_or_a_tree(data: bytes) -> None:
    try:
        x = trees.decode(data)
    except WireError:
        return
    assert same(x, trees.decode(trees.encode(x)))


@given(st.dictionaries(st.text("/~01ab", max_size=5), st.sampled_from([LEAF, MARKER, ("U8", [0, 1], b"")]), max_size=5))
@example({"/": MARKER, "/a": LEAF})
@example({"/a/": MARKER, "/a/b/": MARKER})
def test_names_of_anybody_are_a_wire_error_or_the_only_tree_with_these_names(flat: dict[str, Any]) -> None:
    try:
        x = trees.decode(buffer(flat))
    except WireError:
        return
    assert not flat or set(json.loads(trees.encode(x)[8:].split(b"}}")[0] + b"}}")) == set(flat)


@pytest.mark.parametrize(
    ("flat", "why"),
    [
        ({"/a": ("C64", [1], bytes(8))}, "the leaf /a has dtype complex64"),
        ({"": ("C64", [1], bytes(8))}, r"the leaf \(root\) has dtype complex64"),
        ({"/a": ("BF16", [1], bytes(2))}, "not an encoded tree"),
        ({"/a": ("BOOL", [2], b"\x01\x02")}, "/a holds booleans that are neither 0 nor 1"),
        ({"/": MARKER, "/a": LEAF}, "'/' says that a branch is empty which is not"),
        ({"/a": LEAF, "/": MARKER}, "'/' says that a branch is empty which is not"),
        ({"/a/": MARKER, "/a/b": LEAF}, "'/a/' says that a branch is empty which is not"),
        ({"/a/": MARKER, "/a/b/": MARKER}, "'/a/' says that a branch is empty which is not"),
        ({"/a/": LEAF}, "'/a/' says that a branch is empty which is not"),
        ({"/a/": ("F32", [0], b"")}, "'/a/' says that a branch is empty which is not"),
        ({"/a/": MARKER, "/a": LEAF}, "'/a/' passes through a leaf"),
        ({"/a/b": LEAF, "/a": LEAF}, "'/a' is there twice"),
        ({"": LEAF, "/a": LEAF}, "'' is no path"),
        ({"a": LEAF}, "'a' is no path"),
        ({"/a//b": LEAF}, "'/a//b' is no path"),
        ({"//": MARKER}, "'//' is no path"),
        ({"/~": LEAF}, "'/~' is no path"),
        ({"/~2": LEAF}, "'/~2' is no path"),
        ({"/n" * (DEPTH + 1): LEAF}, f"more than {DEPTH} names deep"),
        ({"/n" * DEPTH + "/": MARKER}, f"more than {DEPTH} names deep"),
        ({"/n" * 3000: LEAF}, f"more than {DEPTH} names deep"),
    ],
)
def test_what_is_no_tree_is_told_why(flat: dict[str, Any], why: str) -> None:
    with pytest.raises(WireError, match=why):
        trees.decode(buffer(flat))


def test_a_tree_is_as_deep_as_the_limit_and_no_deeper() -> None:
    for deepest in (chain(DEPTH, np.ones(1)), chain(DEPTH - 1, {})):
        assert same(deepest, trees.decode(trees.encode(deepest)))
        assert trees.size(trees.spec(deepest)) == len(trees.encode(deepest))
    cycle: dict[str, Any] = {}
    cycle["n"] = cycle
    for deeper in (chain(DEPTH + 1, np.ones(1)), chain(DEPTH, {}), chain(3000, np.ones(1)), cycle):
        with pytest.raises(ConfigError, match="names deep"):
            trees.encode(deeper)
    for function in (trees.spec, trees.norm, trees.finite, trees.zeros, lambda x: list(trees.leaves(x))):
        with pytest.raises(ConfigError, match="names deep"):
            function(chain(3000, np.ones(1)))


def test_the_limit_is_in_bytes_and_checked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    data = trees.encode(np.arange(64.0))
    assert trees.decode(data, len(data)).sum() == 63 * 64 / 2
    wide: Any = memoryview(data).cast("d")
    assert len(wide) < len(data) == wide.nbytes
    monkeypatch.setattr("safetensors.numpy.load", lambda data: pytest.fail("read what is above the limit"))
    for message in (data, wide):
        with pytest.raises(WireError, match=f"a message of {len(data)} bytes: the limit is {len(data) - 1}"):
            trees.decode(message, len(data) - 1)


@pytest.mark.parametrize("name", ["", 1, None, ("a",), "\ud800", "x\udfff"])
def test_a_name_is_a_text(name: Any) -> None:
    for function in (trees.encode, trees.spec, trees.zeros):
        with pytest.raises(ConfigError, match="name"):
            function({"a": np.ones(1), name: np.ones(1)})
    with pytest.raises(ConfigError, match="name"):
        trees.size({name: Shaped((1,))})


@pytest.mark.parametrize("leaf", [np.ones(1, np.complex64), "text", None, object(), [[1], [1, 2]], np.array(["a"])])
def test_a_leaf_is_an_array_of_a_dtype_of_the_wire(leaf: Any) -> None:
    for function in (trees.encode, trees.spec):
        with pytest.raises(ConfigError, match="the leaf /a"):
            function({"a": leaf})


def test_a_spec_is_no_tree_and_a_tree_no_spec() -> None:
    with pytest.raises(ConfigError, match="the leaf /a"):
        trees.encode({"a": Shaped((2,))})
    with pytest.raises(ConfigError, match="the leaf /a"):
        trees.size({"a": np.ones(2)})
    with pytest.raises(ConfigError, match="the leaf /a"):
        trees.size({"a": Shaped((2,), "complex64")})


def test_numbers_and_strided_swapped_arrays_are_encoded_as_what_they_hold() -> None:
    x: Tree = {"a": np.arange(12.0).reshape(3, 4).T, "b": np.arange(5, dtype=">i2")[::2], "c": 1.5, "d": np.float32(2)}
    y = trees.decode(trees.encode(x))
    assert trees.spec(y) == trees.spec(x)
    assert (y["a"].tolist(), y["b"].tolist(), y["c"], y["d"]) == (x["a"].tolist(), [0, 2, 4], 1.5, 2)


def test_nothing_in_a_buffer_is_run() -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            pytest.fail("pickled")

    with pytest.raises(ConfigError):
        trees.encode({"a": np.array([Trap()], object)})
    pickled = b"cbuiltins\neval\n(S'1/0'\ntR."
    for data in (pickled, len(pickled).to_bytes(8, "little") + pickled, b"\x93NUMPY\x01\x00" + pickled):
        with pytest.raises(WireError):
            trees.decode(data)


# -------------------------------------------------------------------------------------------------- structure


def test_leaves_come_by_name_with_their_pointers() -> None:
    x = {"b": {"~": 1, "a/b": 2}, "a": 3, "c": {}}
    assert list(trees.leaves(x)) == [("/a", 3), ("/b/a~1b", 2), ("/b/~0", 1)]
    assert list(trees.leaves(4)) == [("", 4)]


@given(TREES)
def test_pointed_gives_every_leaf_the_pointer_that_leaves_gives(x: Tree) -> None:
    pointers = trees.pointed(lambda pointer, leaf, other: (pointer, leaf is other), x, x)
    flat = [pair for _, pair in trees.leaves(pointers)]
    assert flat == [(pointer, True) for pointer, _ in trees.leaves(x)]


@pytest.mark.parametrize(
    ("other", "where"),
    [({"a": {}}, "/a"), ({"a": {"b": {}}}, "/a/b"), (1, r"\(root\)"), ({"a": {"b": 1}, "c": 1}, r"\(root\)")],
)
def test_trees_of_another_structure_are_an_error(other: Tree, where: str) -> None:
    x = {"a": {"b": 1}}
    for left, right in ((x, other), (other, x)):
        for function in (trees.add, trees.subtract, trees.dot):
            with pytest.raises(ConfigError, match=f"differ in structure at {where}"):
                function(left, right)


# -------------------------------------------------------------------------------------------------- arithmetic


def torch_of(x: Tree) -> Tree:
    """The same numbers as torch tensors."""
    torch = pytest.importorskip("torch")
    return trees.map(lambda leaf: torch.asarray(np.array(leaf)), x)


BOTH = pytest.mark.parametrize("of", [lambda x: x, torch_of], ids=["numpy", "torch"])


@BOTH
@pytest.mark.parametrize("dtype", FLOATS)
def test_arithmetic_keeps_shape_and_dtype(of: Any, dtype: str) -> None:
    a = np.array([[1.5, -2.0], [0.25, 4.0]], dtype)
    x, y = of({"w": a, "tau": np.array(2, dtype)}), of({"w": a[::-1].copy(), "tau": np.array(0.5, dtype)})
    for result, w, tau in [
        (trees.add(x, y), a + a[::-1], 2.5),
        (trees.subtract(x, y), a - a[::-1], 1.5),
        (trees.scale(x, 0.5), a / 2, 1.0),
        (trees.scale(x, np.float64(0.5)), a / 2, 1.0),
        (trees.zeros(x), a * 0, 0.0),
    ]:
        assert type(result["w"]) is type(result["tau"]) is type(x["w"]), "0-d arrays are arrays"
        assert (result["w"].dtype, result["tau"].dtype) == (x["w"].dtype, x["w"].dtype)
        assert (result["w"].tolist(), tuple(result["tau"].shape), float(result["tau"])) == (w.tolist(), (), tau)


@BOTH
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int16", "int32", "int64"])
def test_scaled_integers_come_back_in_float64(of: Any, dtype: str) -> None:
    values = np.array([0, 1, 1]).astype(dtype)
    scaled = trees.scale(of({"n": values, "tau": values[1]}), 0.3)
    assert scaled["n"].tolist() == [0.0, 0.3, 0.3]
    assert (str(scaled["n"].dtype).removeprefix("torch."), float(scaled["tau"])) == ("float64", 0.3)


@BOTH
def test_integers_wrap_so_that_a_difference_undoes_a_sum(of: Any) -> None:
    x = of({"n": np.array([3, 250], np.uint8), "tau": np.array(1, np.uint8)})
    y = of({"n": np.array([5, 10], np.uint8), "tau": np.array(2, np.uint8)})
    difference = trees.subtract(x, y)
    assert (difference["n"].tolist(), int(difference["tau"])) == ([254, 240], 255)
    undone = trees.add(difference, y)
    assert (undone["n"].tolist(), int(undone["tau"])) == ([3, 250], 1)


@BOTH
def test_booleans_add_as_or_and_have_no_difference(of: Any) -> None:
    x, y = of({"m": np.array([True, True, False])}), of({"m": np.array([True, False, False])})
    assert trees.add(x, y)["m"].tolist() == [True, True, False]
    for left, right in ((x, y), (x, of({"m": np.arange(3)}))):
        with pytest.raises(ConfigError, match="the boolean leaf /m"):
            trees.subtract(left, right)


@BOTH
def test_zeros_of_anything_are_zeros(of: Any) -> None:
    x = {
        "nan": np.array([np.nan, np.inf], np.float32),
        "on": np.array(True),
        "n": np.array([7]),
        "none": np.ones((0, 2)),
    }
    result = trees.zeros(of(x))
    assert trees.spec(result) == trees.spec(x)
    assert all(not np.asarray(leaf).any() for _, leaf in trees.leaves(result))


@BOTH
@pytest.mark.parametrize("dtype", ["float16", "float32", "int8", "uint8", "bool"])
def test_norm_and_dot_are_summed_in_float64(of: Any, dtype: str) -> None:
    top = 1 if dtype == "bool" else np.finfo(dtype).max if dtype.startswith("f") else np.iinfo(dtype).max
    value, n = float(top), 1000
    x = of({"w": np.full(n, top, dtype), "b": {"tau": np.array(top, dtype), "none": np.zeros(0, dtype)}})
    assert trees.dot(x, x) == pytest.approx((n + 1) * value**2, rel=1e-14)
    assert trees.norm(x) == pytest.approx(math.sqrt(n + 1) * value, rel=1e-14)


@BOTH
@pytest.mark.parametrize("value", [1e300, 5e-324, 1e-200])
def test_no_square_of_a_norm_overflows_or_vanishes(of: Any, value: float) -> None:
    assert trees.norm(of({"a": np.array([3 * value]), "b": np.array(-4 * value)})) == pytest.approx(
        5 * value, rel=1e-15
    )


@BOTH
def test_norm_and_dot_of_what_is_not_finite(of: Any) -> None:
    nan, inf, one = of(np.array([np.nan, 1.0])), of(np.array([-np.inf, 1.0])), of(np.ones(2))
    assert math.isnan(trees.norm({"a": one, "b": nan}))
    assert math.isnan(trees.norm({"a": inf, "b": nan}))
    assert trees.norm({"a": one, "b": inf}) == math.inf
    assert trees.dot(one, inf) == -math.inf
    assert math.isnan(trees.dot(inf, of(np.zeros(2))))
    assert math.isnan(trees.dot({"a": inf, "b": inf}, {"a": one, "b": of(-np.ones(2))}))
    huge = of(np.full(2, 1e200))
    assert trees.dot(huge, huge) == math.inf
    assert trees.dot({"a": of(np.full(1, 1e308)), "b": of(np.full(1, 1e308))}, {"a": one[:1], "b": one[:1]}) == math.inf
    assert (trees.norm({}), trees.dot({}, {}), trees.norm(of(np.zeros((0, 3))))) == (0.0, 0.0, 0.0)


def test_the_sum_over_leaves_is_exact() -> None:
    x = {"a": np.array([1e16]), "b": np.array([1.0]), "c": np.array([-1e16])}
    assert trees.dot(x, {name: np.ones(1) for name in x}) == 1.0


def test_dot_takes_leaves_of_one_shape() -> None:
    with pytest.raises(ConfigError, match=r"the leaf /w has shapes \(2,\) and \(2, 1\)"):
        trees.dot({"w": np.ones(2)}, {"w": np.ones((2, 1))})


@given(st.sampled_from(DTYPES).flatmap(lambda dtype: arrays.arrays(dtype, SHAPES)))
@example(np.array(np.inf))
@example(np.array([1.0, -np.inf], np.float16))
@example(np.array([True]))
def test_finite_is_numpy_s_for_every_dtype(x: np.ndarray) -> None:
    expected = bool(np.isfinite(x).all())
    assert trees.finite({"a": x, "b": np.ones(2)}) == expected
    assert trees.finite(torch_of({"a": x})) == expected


def test_finite_of_torch_s_own_dtypes_and_of_numbers() -> None:
    torch = pytest.importorskip("torch")
    for dtype in (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64):
        assert trees.finite(torch.ones(2).to(dtype))
        assert not trees.finite(torch.tensor([1.0, torch.nan]).to(dtype))
    assert trees.finite({"a": 1, "b": 1.5, "c": True, "d": "text"})
    assert not trees.finite({"a": math.inf})


def test_torch_s_own_dtypes_are_no_host_bytes() -> None:
    torch = pytest.importorskip("torch")
    x = {"w": torch.ones(2, dtype=torch.bfloat16)}
    assert (trees.norm(x), trees.scale(x, 0.5)["w"].dtype) == (math.sqrt(2), torch.bfloat16)
    for leaf in (x["w"], torch.ones(2, requires_grad=True), torch.ones(2, device="meta"), torch.ones(2).to_sparse()):
        for function in (trees.encode, trees.spec):
            with pytest.raises(ConfigError, match="the leaf /w is no array on the host"):
                function({"w": leaf})
    assert same(trees.decode(trees.encode({"w": torch.ones(2)})), {"w": np.ones(2, np.float32)})


# ---------------------------------------------------------------------------------------------- trees kept together


class Halves(trees.Bundle):
    """Trees whose leaves are a number times a shared one, and who count what was made of them."""

    def __init__(self, shared: trees.Tree, factors: list[float]) -> None:
        self.shared, self.factors, self.made = shared, factors, 0
        self.spec = trees.spec(shared)

    def __len__(self) -> int:
        return len(self.factors)

    def tree(self, i: int) -> trees.Tree:
        self.made += 1
        return trees.scale(self.shared, self.factors[i])

    def norm(self, i: int) -> float:
        return abs(self.factors[i]) * trees.norm(self.shared)

    def finite(self, i: int) -> bool:
        return bool(np.isfinite(self.factors[i]))

    def total(self, weights: np.ndarray) -> trees.Tree:
        counted = np.flatnonzero(weights)
        return trees.scale(self.shared, float(sum(weights[i] * self.factors[i] for i in counted)))


SHARED = {"a": np.array([[1.0, -2.0]], np.float32), "b": {"c": np.array([3.0, 0.5, 4.0])}}


def test_a_member_says_what_it_is_without_becoming_arrays() -> None:
    bundle = Halves(SHARED, [2.0, -3.0, np.nan])
    members = [trees.Member(bundle, i) for i in range(3)]
    half = trees.scale(members[1], 0.5)
    assert trees.spec({"x": half, "n": np.int64(1)}) == {"x": trees.spec(SHARED), "n": trees.Shaped((), "int64")}
    assert trees.norm(half) == pytest.approx(1.5 * trees.norm(SHARED))
    assert trees.norm({"x": half, "n": np.float64(2.0)}) == pytest.approx(np.hypot(1.5 * trees.norm(SHARED), 2.0))
    assert [trees.finite(each) for each in members] == [True, True, False]
    assert not trees.finite({"x": members[0], "y": members[2]})
    total = trees.total([members[0], half, members[2]], [1.0, 4.0, 0.0])
    trees.map(np.testing.assert_allclose, total, trees.scale(SHARED, 2.0 - 6.0))
    assert bundle.made == 0
    assert [trees.bundled(each) for each in (half, {"x": {"y": half}}, SHARED, 3)] == [True, True, False, False]


def test_a_member_is_a_tree_like_any_other_once_it_is_read() -> None:
    bundle = Halves(SHARED, [2.0, -3.0])
    half = trees.scale(trees.Member(bundle, 1), 0.5)
    same = trees.scale(SHARED, -1.5)
    assert trees.encode({"x": half}) == trees.encode({"x": same})
    assert trees.decode(trees.encode(half)).keys() == half.keys() == {"a", "b"}
    trees.map(np.testing.assert_array_equal, trees.add(half, half), trees.scale(SHARED, -3.0))
    assert len(half) == 2
    assert bundle.made == 1, "and that once"


def test_the_total_of_trees_of_any_kind_is_their_weighted_sum() -> None:
    bundle, other = Halves(SHARED, [2.0, -3.0]), Halves(SHARED, [10.0])
    mixed = [trees.Member(bundle, 0), trees.scale(SHARED, 7.0), trees.Member(other, 0), trees.Member(bundle, 1)]
    weights = [0.5, 2.0, 1.0, 3.0]
    total = trees.total(mixed, weights)
    trees.map(np.testing.assert_allclose, total, trees.scale(SHARED, 1.0 + 14.0 + 10.0 - 9.0))
    assert {leaf.dtype.name for _, leaf in trees.leaves(total)} == {"float64"}
    nested = [{"tau": np.int64(3), "params": each} for each in mixed]
    total = trees.total(nested, weights)
    assert float(total["tau"]) == 3 * 6.5
    trees.map(np.testing.assert_allclose, total["params"], trees.scale(SHARED, 16.0))


def test_no_trees_and_trees_of_another_structure_have_no_total() -> None:
    with pytest.raises(ConfigError, match="no trees"):
        trees.total([], [])
    with pytest.raises(ConfigError, match="differ in structure"):
        trees.total([{"a": np.zeros(1)}, {"b": np.zeros(1)}], [1.0, 1.0])
