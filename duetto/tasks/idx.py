"""The idx format of MNIST, and MNIST by the person who wrote each digit.

LeCun, Cortes & Burges, http://yann.lecun.com/exdb/mnist/ (format at the foot of the page). Writers: Yadav &
Bottou, *Cold Case: The Lost MNIST Digits* (NeurIPS 2019), https://github.com/facebookresearch/qmnist.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duetto.errors import DataError
from duetto.tasks.by_user import ByUser, by_name

DIGITS = tuple("0123456789")
_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_DEFLATE = 1032  # the most that deflate can shrink: a file cannot hold more than its size on disk times this
_AGAIN = "fetch this file again"


def read(path: Path | str) -> NDArray[Any]:
    """The array in an idx file, plain or gzip, in the machine's byte order.

    Raises:
        DataError: not an idx file; truncated or too long; sizes that the file cannot hold (seen before anything
            is allocated).
    """
    path = Path(path)
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        room = path.stat().st_size * (_DEFLATE if packed else 1)
        with gzip.open(path) if packed else path.open("rb") as file:
            zeros, kind, dimensions = struct.unpack(">HBB", file.read(4))
            if zeros or kind not in _DTYPES or not dimensions:
                raise DataError(f"{path} is no idx file: it starts {zeros:04x}{kind:02x}{dimensions:02x}", _AGAIN)
            shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
            dtype = np.dtype(_DTYPES[kind])
            size = math.prod(shape) * dtype.itemsize
            if size > room:
                raise DataError(f"{path} is truncated: shape {shape} cannot be in {path.stat().st_size} bytes", _AGAIN)
            data = file.read(size + 1)
    except struct.error as fault:
        raise DataError(f"{path} is truncated within its header", _AGAIN) from fault
    except (OSError, EOFError, zlib.error) as fault:
        raise DataError(f"cannot read {path}: {fault}", _AGAIN) from fault
    if len(data) != size:
        wrong = "truncated" if len(data) < size else "longer than its header says"
        raise DataError(f"{path} is {wrong}: shape {shape} needs {size} bytes", _AGAIN)
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def images(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Bytes [n, 28, 28] or [n, 784] as what a model takes: [n, 1, 28, 28] float32 in 0..1."""
    return pixels.reshape(-1, 1, 28, 28).astype(np.float32) / np.float32(255)


def by_writer(folder: Path | str) -> ByUser:
    """MNIST by writer: training rows, then test rows, in the order of the files.

    A user is ``f<writer, four digits>_<NIST hsf partition>``, such as ``f0017_0``. Needs the four MNIST files
    and QMNIST's extended labels (``qmnist-train-labels-idx2-int``, and ``qmnist-test-labels-idx2-int`` as
    published or ``qmnist-t10k-labels-idx2-int``), each plain or ``.gz``. QMNIST's test labels go on past MNIST's
    10,000 test images; only those of MNIST's images are used.

    Raises:
        DataError: a file missing or broken, or files whose rows do not belong together.
    """
    folder = Path(folder)
    pixels, labels, names = [], [], []
    for part, stems in (("train", ("qmnist-train",)), ("t10k", ("qmnist-t10k", "qmnist-test"))):
        image = read(_file(folder, f"{part}-images-idx3-ubyte"))
        label = read(_file(folder, f"{part}-labels-idx1-ubyte"))
        path = _file(folder, *(f"{stem}-labels-idx2-int" for stem in stems))
        extended = read(path)
        if image.shape[1:] != (28, 28) or label.shape != image.shape[:1] or extended.shape[1:] != (8,):
            raise DataError(
                f"{folder}: shapes {image.shape}, {label.shape}, {extended.shape} of {part} do not fit",
                "put files of one release there: images [n, 28, 28], labels [n], QMNIST labels [n, 8]",
            )
        if path.name.startswith("qmnist-test"):
            extended = extended[: len(label)]
        if len(extended) != len(label) or (extended[:, 0] != label).any():
            raise DataError(
                f"the classes in {path} are not those of the {len(label)} {part} images",
                "put the MNIST and QMNIST files of the same rows there",
            )
        pixels.append(image)
        labels.append(label)
        names += [f"f{writer:04d}_{hsf}" for hsf, writer in extended[:, 1:3].tolist()]
    return by_name(images(np.concatenate(pixels)), np.concatenate(labels), names, DIGITS)


def _file(folder: Path, *stems: str) -> Path:
    for stem in stems:
        for path in (folder / f"{stem}.gz", folder / stem):
            if path.is_file():
                return path
    raise DataError(f"{folder} has no {stems[-1]}.gz", "put it there, plain or gzip")
