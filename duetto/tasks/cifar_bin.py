"""The binary layout of CIFAR-10: batches of records, each a label byte and 3,072 pixel bytes.

Krizhevsky, *Learning Multiple Layers of Features from Tiny Images* (2009),
https://www.cs.toronto.edu/~kriz/cifar.html ("Binary version").
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from duetto.errors import DataError
from duetto.tasks.by_user import ByUser, by_name, unpacked

_SHAPE = (3, 32, 32)  # red, green, blue, each row by row
_RECORD = 1 + 3 * 32 * 32
_AGAIN = "fetch this file again"


def read(folder: Path | str) -> ByUser:
    """All images of ``data_batch_1.bin`` to ``data_batch_5.bin``, as many as there are, then of ``test_batch.bin``.

    Each file may be plain or ``.gz``; ``batches.meta.txt`` names the classes. The images have no users, so the user of
    a row is the batch that it is in, such as ``data_batch_1``: deal them with a
    :class:`~duetto.tasks.partition.Partition`. Rows keep the order of the files.

    Args:
        folder: holds the files, or ``cifar-10-batches-bin`` that does.

    Returns:
        x [n, 3, 32, 32] in 0..1, y [n].

    Raises:
        DataError: a file missing, not whole, or with a label without a name.
    """
    folder = Path(folder)
    inner = folder / "cifar-10-batches-bin"
    folder = inner if inner.is_dir() else folder
    classes = _classes(_file(folder, "batches.meta.txt"))
    names = [f"data_batch_{i}" for i in range(1, 6) if _there(folder, f"data_batch_{i}.bin")] or ["data_batch_1"]
    parts = [_records(_file(folder, f"{name}.bin"), classes) for name in (*names, "test_batch")]
    whole = np.concatenate(parts)
    owners = np.repeat([*names, "test_batch"], [len(part) for part in parts])
    return by_name(whole[:, 1:].reshape(-1, *_SHAPE) / np.float32(255), whole[:, 0], owners, classes)


def _records(path: Path, classes: tuple[str, ...]) -> np.ndarray:
    """[n, 3073] bytes."""
    content = unpacked(path)
    if not content or len(content) % _RECORD:
        raise DataError(f"{path} is not whole: {len(content):,} bytes are no records of {_RECORD:,}", _AGAIN)
    records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD)
    outside = np.flatnonzero(records[:, 0] >= len(classes))
    if len(outside):
        first = outside[0]
        raise DataError(f"{path}: record {first} has label {records[first, 0]} of {len(classes)} classes", _AGAIN)
    return records


def _classes(path: Path) -> tuple[str, ...]:
    names = tuple(line.strip() for line in unpacked(path).decode("utf-8", "replace").splitlines() if line.strip())
    if len(names) != 10 or len(set(names)) < 10:
        raise DataError(f"{path} names {len(set(names))} classes", "it must name ten, one a line; fetch it again")
    return names


def _there(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)


def _file(folder: Path, name: str) -> Path:
    if path := _there(folder, name):
        return path
    raise DataError(f"{folder} has no {name}", "put it there, plain or gzip")
