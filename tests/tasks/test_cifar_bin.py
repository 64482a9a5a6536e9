"""CIFAR-10's binary layout: what is written is read, and nothing damaged is."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from duetto.errors import DataError
from duetto.tasks import cifar_bin

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DRAW = np.random.default_rng(0)


def records(n: int) -> np.ndarray:
    """[n, 3073] bytes."""
    return np.concatenate(
        [DRAW.integers(0, 10, (n, 1), dtype=np.uint8), DRAW.integers(0, 256, (n, 3072), dtype=np.uint8)], 1
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole set of 5 + 3 + 4 images, one file packed."""
    (tmp_path / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n\n")
    (tmp_path / "data_batch_1.bin").write_bytes(records(5).tobytes())
    (tmp_path / "data_batch_4.bin.gz").write_bytes(gzip.compress(records(3).tobytes()))
    (tmp_path / "test_batch.bin").write_bytes(records(4).tobytes())
    return tmp_path


def test_what_is_written_is_read(folder: Path) -> None:
    found = cifar_bin.read(folder)
    content = [
        (folder / "data_batch_1.bin").read_bytes(),
        gzip.decompress((folder / "data_batch_4.bin.gz").read_bytes()),
        (folder / "test_batch.bin").read_bytes(),
    ]
    whole = b"".join(content)
    assert found.classes == CLASSES
    assert (found.x.shape, found.x.dtype) == ((12, 3, 32, 32), np.float32)
    assert [found.users[k] for k in found.user] == ["data_batch_1"] * 5 + ["data_batch_4"] * 3 + ["test_batch"] * 4
    for i in range(12):
        record = whole[3073 * i : 3073 * (i + 1)]
        assert found.y[i] == record[0]
        for channel, row, column in ((0, 0, 0), (1, 0, 1), (2, 5, 3), (2, 31, 31)):
            byte = record[1 + 1024 * channel + 32 * row + column]
            assert found.x[i, channel, row, column] == np.float32(byte) / np.float32(255)


def test_the_folder_around_it_will_do(folder: Path, tmp_path: Path) -> None:
    around = tmp_path / "around"
    around.mkdir()
    inner = around / "cifar-10-batches-bin"
    inner.mkdir()
    for path in [path for path in folder.iterdir() if path.is_file()]:
        path.rename(inner / path.name)
    assert len(cifar_bin.read(around).y) == 12


def test_a_batch_that_is_there_plain_and_packed_counts_once(folder: Path) -> None:
    (folder / "data_batch_1.bin.gz").write_bytes(gzip.compress((folder / "data_batch_1.bin").read_bytes()))
    assert len(cifar_bin.read(folder).y) == 12


@pytest.mark.parametrize("cut", [0, 1, 3072, 3074, 3073 * 4 - 1])
def test_a_file_that_is_not_whole_is_refused(folder: Path, cut: int) -> None:
    path = folder / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=f"test_batch.bin is not whole: {cut:,} bytes are no records of 3,073"):
        cifar_bin.read(folder)


def test_a_packed_file_that_is_damaged_is_refused(folder: Path) -> None:
    path = folder / "data_batch_4.bin.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"cannot read .*data_batch_4.bin.gz"):
        cifar_bin.read(folder)


def test_a_label_without_a_name_is_refused(folder: Path) -> None:
    damaged = records(5)
    damaged[3, 0] = 10
    (folder / "data_batch_1.bin").write_bytes(damaged.tobytes())
    with pytest.raises(DataError, match=r"data_batch_1.bin: record 3 has label 10 of 10 classes"):
        cifar_bin.read(folder)


@pytest.mark.parametrize(
    ("text", "named"),
    [("", 0), ("a\nb\n", 2), ("\n".join([*CLASSES[:9], "airplane"]), 9), ("\n".join([*CLASSES, "x"]), 11)],
)
def test_other_than_ten_names_are_refused(folder: Path, text: str, named: int) -> None:
    (folder / "batches.meta.txt").write_text(text)
    with pytest.raises(DataError, match=f"names {named} classes"):
        cifar_bin.read(folder)


@pytest.mark.parametrize("name", ["batches.meta.txt", "data_batch_1.bin", "test_batch.bin"])
def test_a_file_that_is_not_there_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / "data_batch_4.bin.gz").unlink()
    with pytest.raises(DataError, match=f"has no {name}"):
        cifar_bin.read(folder)


def test_the_real_subset_is_whole(data_dir: Path) -> None:
    if not (data_dir / "cifar10_subset").is_dir():
        pytest.skip("no cifar10_subset")
    found = cifar_bin.read(data_dir / "cifar10_subset")
    assert found.classes == CLASSES
    batch, y = (found.y[found.rows(name)] for name in ("data_batch_1", "test_batch"))
    assert np.bincount(batch).tolist() == [800] * 10
    assert np.bincount(y).tolist() == [200] * 10
    assert (found.x.min(), found.x.max()) == (0, 1)
