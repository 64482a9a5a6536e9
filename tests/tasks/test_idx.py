"""The idx format, and MNIST by writer, on small files and on the real ones."""

import gzip
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from duetto.errors import DataError
from duetto.tasks import idx, leaf
from duetto.tasks.by_user import ByUser

KINDS = {"uint8": 8, "int8": 9, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


def idx_bytes(array: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, KINDS[array.dtype.name], array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", KINDS)
def test_what_was_written_is_read(tmp_path: Path, dtype: str, packed: bool) -> None:
    array = np.arange(-12, 12).astype(dtype).reshape(2, 3, 4)
    content = idx_bytes(array)
    path = tmp_path / "array"
    path.write_bytes(gzip.compress(content) if packed else content)
    found = idx.read(path)
    assert found.dtype == np.dtype(dtype)
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, array)
    found[0, 0, 0] = 1  # ours to write


GOOD = idx_bytes(np.arange(6, dtype=np.uint8))


BROKEN = {
    "empty": (b"", "within its header"),
    "half a header": (GOOD[:6], "within its header"),
    "another magic": (b"PNG!" + GOOD[4:], "no idx file: it starts 504e"),
    "another type": (b"\0\0\x0a\x01" + GOOD[4:], "no idx file: it starts 00000a01"),
    "no dimension": (b"\0\0\x08\x00", "no idx file"),
    "truncated": (GOOD[:-1], "truncated"),
    "longer": (GOOD + b"!", "longer"),
    "longer within": (gzip.compress(GOOD + b"!"), "longer"),
    "truncated within": (gzip.compress(GOOD[:-1]), "truncated"),
    "truncated gzip": (gzip.compress(GOOD)[:-10], "cannot read"),
    "no gzip": (b"\x1f\x8bnot really gzip", "cannot read"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_an_error(tmp_path: Path, case: str) -> None:
    content, message = BROKEN[case]
    path = tmp_path / "broken"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        idx.read(path)
    assert "broken" in caught.value.fault
    assert caught.value.remedy


@pytest.mark.parametrize("packed", [False, True])
def test_a_lying_header_allocates_nothing(tmp_path: Path, packed: bool) -> None:
    content = struct.pack(">HBB3I", 0, 8, 3, 2**31, 2**31, 2**31) + bytes(100)
    path = tmp_path / "liar"
    path.write_bytes(gzip.compress(content) if packed else content)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="liar is truncated"):
            idx.read(path)
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent"):
        idx.read(tmp_path / "absent")


def test_images_are_bytes_over_255() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 784)).astype(np.uint8)
    found = idx.images(pixels)
    assert (found.shape, found.dtype) == ((3, 1, 28, 28), np.float32)
    np.testing.assert_allclose(found.reshape(3, 784), pixels / 255, rtol=1e-6)
    np.testing.assert_array_equal(np.rint(found * 255).reshape(3, 784), pixels)


def write_mnist(folder: Path, test_stem: str = "qmnist-t10k", beyond: int = 0) -> dict[str, np.ndarray]:
    """Five training and three test images of four writers; ``beyond`` more QMNIST test labels."""
    draw = np.random.default_rng(3)
    writers = {"train": [(0, 17), (0, 2101), (0, 17), (1, 17), (0, 2101)], "t10k": [(4, 2301)] * 3}
    arrays = {}
    for part, pairs in writers.items():
        n = len(pairs)
        arrays[f"{part}-images-idx3-ubyte"] = draw.integers(0, 256, (n, 28, 28)).astype(np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = label = draw.integers(0, 10, n).astype(np.uint8)
        extended = np.zeros((n, 8), np.int32)
        extended[:, 0], extended[:, 1:3] = label, pairs
        if part == "t10k":
            extended = np.concatenate([extended, np.full((beyond, 8), 5, np.int32)])
        arrays[f"{test_stem if part == 't10k' else 'qmnist-train'}-labels-idx2-int"] = extended
    for name, array in arrays.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(array)))
    return arrays


@pytest.mark.parametrize(("stem", "beyond"), [("qmnist-t10k", 0), ("qmnist-test", 0), ("qmnist-test", 4)])
def test_by_writer_joins_images_and_writers(tmp_path: Path, stem: str, beyond: int) -> None:
    arrays = write_mnist(tmp_path, stem, beyond)
    data = idx.by_writer(tmp_path)
    assert data.users == ("f0017_0", "f0017_1", "f2101_0", "f2301_4")
    assert data.counts().tolist() == [2, 1, 2, 3]
    np.testing.assert_array_equal(
        np.rint(data.x[:, 0] * 255),
        np.concatenate([arrays["train-images-idx3-ubyte"], arrays["t10k-images-idx3-ubyte"]]),
    )
    np.testing.assert_array_equal(
        data.y, np.concatenate([arrays["train-labels-idx1-ubyte"], arrays["t10k-labels-idx1-ubyte"]])
    )
    assert data.rows("f2101_0").tolist() == [1, 4]
    assert data.classes == tuple("0123456789")


def test_by_writer_reads_plain_files_too(tmp_path: Path) -> None:
    arrays = write_mnist(tmp_path)
    before = idx.by_writer(tmp_path)
    for name, array in arrays.items():
        (tmp_path / f"{name}.gz").unlink()
        (tmp_path / name).write_bytes(idx_bytes(array))
    np.testing.assert_array_equal(idx.by_writer(tmp_path).x, before.x)


def test_files_that_do_not_belong_together_are_an_error(tmp_path: Path) -> None:
    arrays = write_mnist(tmp_path)

    def refused(name: str, array: np.ndarray, message: str) -> None:
        path = tmp_path / f"{name}.gz"
        good = path.read_bytes()
        path.write_bytes(gzip.compress(idx_bytes(array)))
        with pytest.raises(DataError, match=message):
            idx.by_writer(tmp_path)
        path.write_bytes(good)
        assert len(idx.by_writer(tmp_path).y) == 8

    refused("train-labels-idx1-ubyte", (arrays["train-labels-idx1-ubyte"] + 1) % 10, "classes in .*qmnist-train")
    refused("train-labels-idx1-ubyte", arrays["train-labels-idx1-ubyte"][1:], r"shapes .*\(4,\).* of train do not fit")
    refused("t10k-images-idx3-ubyte", np.zeros((3, 14, 56), np.uint8), "of t10k do not fit")
    longer = np.concatenate([arrays["qmnist-t10k-labels-idx2-int"]] * 2)
    refused("qmnist-t10k-labels-idx2-int", longer, "classes in .*qmnist-t10k")


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "qmnist-train-labels-idx2-int"])
def test_a_missing_part_is_named(tmp_path: Path, name: str) -> None:
    write_mnist(tmp_path)
    (tmp_path / f"{name}.gz").unlink()
    with pytest.raises(DataError, match=f"has no {name}.gz"):
        idx.by_writer(tmp_path)


@pytest.mark.data
def test_real_digits_are_those_of_the_leaf_files(data_dir: Path) -> None:
    ours, theirs = idx.by_writer(data_dir / "mnist"), leaf.read(data_dir / "mnist_by_writer")
    assert ours.users == theirs.users
    assert ours.classes == theirs.classes
    assert len(ours.y) == len(theirs.y)

    def digits(data: ByUser, user: str) -> list[tuple[int, bytes]]:
        return sorted((int(data.y[row]), data.x[row].tobytes()) for row in data.rows(user))

    for user in ours.users:
        assert digits(ours, user) == digits(theirs, user), user
