"""LEAF's json layout."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duetto.errors import DataError
from duetto.tasks import leaf

PIXELS = np.random.default_rng(1).integers(0, 256, (6, 784)).astype(np.uint8)


def rows(*indices: int) -> dict[str, Any]:
    """As LEAF would write these rows: three decimals; row i has label i."""
    return {"x": [[round(value / 255, 3) for value in PIXELS[i].tolist()] for i in indices], "y": list(indices)}


def write(path: Path, user_data: dict[str, Any], **changes: Any) -> None:
    content = {
        "users": list(user_data),
        "num_samples": [len(data["y"]) for data in user_data.values()],
        "user_data": user_data,
        **changes,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({key: value for key, value in content.items() if value is not ...}).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


def test_train_and_test_files_are_pooled_to_exact_bytes(tmp_path: Path) -> None:
    write(tmp_path / "train" / "b.json.gz", {"zoe": rows(0, 1)})
    write(tmp_path / "train" / "a.json", {"ann": rows(2)})
    write(tmp_path / "test" / "b.json.gz", {"zoe": rows(3), "ann": rows(), "max": rows(4, 5)})
    (tmp_path / "test" / "notes.txt").write_text("not ours")
    data = leaf.read(tmp_path)
    assert data.users == ("ann", "max", "zoe")
    assert (data.x.shape, data.x.dtype) == ((6, 1, 28, 28), np.float32)
    for user, expected in (("ann", [2]), ("max", [4, 5]), ("zoe", [0, 1, 3])):
        found = data.rows(user)
        assert data.y[found].tolist() == expected
        np.testing.assert_array_equal(
            data.x[found].reshape(-1, 784), PIXELS[expected].astype(np.float32) / np.float32(255)
        )


def test_a_file_there_plain_and_packed_counts_once(tmp_path: Path) -> None:
    for name in ("all.json", "all.json.gz"):
        write(tmp_path / "train" / name, {"ann": rows(1, 2)})
    assert leaf.read(tmp_path).y.tolist() == [1, 2]


def test_files_are_in_order_whether_packed_or_not(tmp_path: Path) -> None:
    for i, name in enumerate(("test/a.json", "train/a.json.gz", "train/b.json", "train/c.json.gz")):
        write(tmp_path / name, {"ann": rows(i)})
    assert leaf.read(tmp_path).y.tolist() == [1, 2, 3, 0]


@pytest.mark.parametrize("part", ["train", "test"])
def test_one_of_train_and_test_is_enough(tmp_path: Path, part: str) -> None:
    write(tmp_path / part / "all.json", {"ann": rows(1, 2)})
    assert leaf.read(tmp_path).y.tolist() == [1, 2]


def test_every_byte_survives_three_decimals(tmp_path: Path) -> None:
    x = [[round(value / 255, 3) for value in (*range(256), *range(256), *range(256), *range(16))]]
    write(tmp_path / "train" / "all.json", {"ann": {"x": x, "y": [0]}})
    np.testing.assert_array_equal(
        np.rint(leaf.read(tmp_path).x.ravel() * 255), [*range(256), *range(256), *range(256), *range(16)]
    )


def test_femnist_has_62_classes(tmp_path: Path) -> None:
    write(tmp_path / "train" / "all.json", {"ann": {**rows(0, 1), "y": [61, 10]}})
    data = leaf.read(tmp_path, leaf.CHARACTERS)
    assert [data.classes[label] for label in data.y] == ["z", "A"]
    with pytest.raises(DataError, match="user 'ann' has label 61 outside the 10 classes"):
        leaf.read(tmp_path)


BAD_X = {
    "short row": [[0.5] * 783],
    "text": [["a"] * 784],
    "text that looks like a number": [["0.5"] * 784],
    "null": [[None] * 784],
    "nested": [[[0.5]] * 784],
}


@pytest.mark.parametrize(
    ("data", "changes", "message"),
    [
        ({}, {}, "have no users"),
        ({"ann": rows(0)}, {"users": ...}, r"has no users \(list\)"),
        ({"ann": rows(0)}, {"num_samples": ...}, r"has no num_samples"),
        ({"ann": rows(0)}, {"user_data": ...}, r"has no user_data \(dict\)"),
        ({"ann": rows(0)}, {"user_data": [1]}, r"has no user_data \(dict\)"),
        ({"ann": rows(0)}, {"user_data": {"ann": 3}}, r"user 'ann' has no x"),
        ({"ann": rows(0)}, {"num_samples": [2]}, r"user 'ann' has 1 x and 1 y, but num_samples is 2"),
        ({"ann": {**rows(0, 1), "y": [1]}}, {"num_samples": [2]}, r"has 2 x and 1 y"),
        ({"ann": rows(0)}, {"num_samples": [1, 1]}, r"1 users but 2 num_samples"),
        ({"ann": rows(0)}, {"users": ["bob"]}, r"not the same names"),
        ({"ann": rows(0)}, {"users": ["ann", "ann"], "num_samples": [1, 1]}, r"not the same names"),
        ({"ann": rows(0), "bob": rows(1)}, {"users": ["ann"], "num_samples": [1]}, r"not the same names"),
        ({"ann": {"x": rows(0)["x"]}}, {"num_samples": [1], "users": ["ann"]}, r"user 'ann' has no y"),
        *(({"ann": {"x": x, "y": [0]}}, {}, "user 'ann' has an x that is not 784 numbers") for x in BAD_X.values()),
        ({"ann": {"x": [[0.5] * 783, [0.5] * 784], "y": [0, 1]}}, {}, "user 'ann' has an x that is not 784 numbers"),
        ({"ann": {"x": [[1.5] * 784], "y": [0]}}, {}, r"user 'ann' has pixels outside 0\.\.1"),
        ({"ann": {"x": [[float("nan")] * 784], "y": [0]}}, {}, r"user 'ann' has pixels outside 0\.\.1"),
        ({"ann": {**rows(0), "y": [0.5]}}, {}, "user 'ann' has a y that is not an integer"),
        ({"ann": {**rows(0), "y": ["3"]}}, {}, "user 'ann' has a y that is not an integer"),
        ({"ann": {**rows(0), "y": [-1]}}, {}, "user 'ann' has label -1"),
        ({"ann": rows(0), "idle": rows()}, {}, "user 'idle' has no rows in any file"),
    ],
)
def test_what_is_not_in_the_layout_is_named(
    tmp_path: Path, data: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    defaults = {"num_samples": [len(each.get("y", ())) for each in data.values()]}
    for each in data.values():
        each.setdefault("y", ...)
    data = {user: {key: value for key, value in each.items() if value is not ...} for user, each in data.items()}
    path = tmp_path / "train" / "bad.json"
    path.parent.mkdir()
    content = {"users": list(data), "user_data": data, **defaults, **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))
    with pytest.raises(DataError, match=message) as caught:
        leaf.read(tmp_path)
    assert caught.value.remedy
    if "label" not in message and data:
        assert "bad.json" in caught.value.fault


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff\xfe", gzip.compress(b"{}")[:-6]],
    ids=["empty", "half", "a list", "no text", "truncated gzip"],
)
def test_a_file_that_is_no_leaf_json_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "bad.json.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.json\.gz"):
        leaf.read(tmp_path)


def test_a_folder_without_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no train"):
        leaf.read(tmp_path)


@pytest.mark.data
def test_real_writers(data_dir: Path, tmp_path: Path) -> None:
    expected: dict[str, int] = {}
    for part in ("train", "test"):  # the smallest pair of files; test_idx.py reads all
        path = data_dir / "mnist_by_writer" / part / f"all_data_6_niid_0_keep_0_{part}_9.json.gz"
        (tmp_path / part).mkdir()
        (tmp_path / part / path.name).write_bytes(path.read_bytes())
        content = json.loads(gzip.decompress(path.read_bytes()))
        for user, size in zip(content["users"], content["num_samples"], strict=True):
            expected[user] = expected.get(user, 0) + size
    data = leaf.read(tmp_path)
    assert dict(zip(data.users, data.counts().tolist(), strict=True)) == expected
    assert (data.x.min(), data.x.max()) == (0, 1)
