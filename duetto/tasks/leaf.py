"""Images by user in LEAF's json layout (FEMNIST, and digits by writer in the same form).

Caldas et al., *LEAF: A Benchmark for Federated Settings* (2018), https://github.com/TalwalkarLab/leaf. A file
is ``{"users": [...], "num_samples": [...], "user_data": {user: {"x": [[784 floats] ...], "y": [int ...]}}}``.
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duetto.errors import DataError
from duetto.tasks.by_user import ByUser, by_name, unpacked
from duetto.tasks.idx import DIGITS, images

CHARACTERS = tuple(string.digits + string.ascii_uppercase + string.ascii_lowercase)
"""The 62 classes of FEMNIST, in LEAF's order."""
_PIXELS = 28 * 28
_AGAIN = "write or fetch this file again"


def read(folder: Path | str, classes: Sequence[str] = DIGITS) -> ByUser:
    """All users of ``folder/train`` and ``folder/test``, pooled; ``*.json`` and ``*.json.gz``, as many as there are.

    Pixels are bytes that were divided by 255 and perhaps rounded, so ``round(x * 255)`` gives the byte back.
    Users are sorted by name; a user's rows keep the order of the files, training before test.

    Args:
        folder: holds ``train``, ``test`` or both.
        classes: the names of the labels; :data:`CHARACTERS` for FEMNIST.

    Raises:
        DataError: no file, or one that is not in the layout; the message names the file and the user.
    """
    folder = Path(folder)
    files: list[Path] = []
    for part in ("train", "test"):
        found = [path for end in ("", ".gz") for path in (folder / part).glob(f"*.json{end}")]
        unique = {path.name.removesuffix(".gz"): path for path in found}  # one that is there plain and packed: once
        files += [unique[name] for name in sorted(unique)]
    if not files:
        raise DataError(f"{folder} has no train/*.json or test/*.json", "name the folder that holds train/ and test/")
    pixels, labels, names = [], [], []
    seen: dict[str, Path] = {}
    for path in files:
        for user, x, y in _users(path):
            pixels.append(x)
            labels.append(y)
            names += [user] * len(y)
            seen.setdefault(user, path)
    for user in seen.keys() - set(names):
        raise DataError(f"{seen[user]}: user {user!r} has no rows in any file", "leave this user out")
    if not names:
        raise DataError(f"the files in {folder} have no users", "name a folder whose files have some")
    return by_name(images(np.concatenate(pixels)), np.concatenate(labels), names, classes)


def _users(path: Path) -> list[tuple[str, NDArray[np.uint8], NDArray[np.int64]]]:
    try:
        content = json.loads(unpacked(path))
    except ValueError as fault:
        raise DataError(f"{path} is not json: {fault}", _AGAIN) from fault
    users = _entry(path, content, "users", list)
    sizes = _entry(path, content, "num_samples", list)
    data = _entry(path, content, "user_data", dict)
    if len(users) != len(sizes):
        raise DataError(f"{path} has {len(users)} users but {len(sizes)} num_samples", _AGAIN)
    if sorted(map(str, users)) != sorted(data):  # also where one is listed twice
        raise DataError(f"{path}: users and the keys of user_data are not the same names", _AGAIN)
    return [
        (str(user), *_rows(path, str(user), size, data[str(user)])) for user, size in zip(users, sizes, strict=True)
    ]


def _rows(path: Path, user: str, size: int, data: Any) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    place = f"{path}: user {user!r}"
    xs, ys = _entry(place, data, "x", list), _entry(place, data, "y", list)
    if not size == len(xs) == len(ys):
        raise DataError(f"{place} has {len(xs)} x and {len(ys)} y, but num_samples is {size}", _AGAIN)
    if not size:
        return np.empty((0, _PIXELS), np.uint8), np.empty(0, np.int64)
    try:
        x, y = np.asarray(xs), np.asarray(ys)
    except ValueError as fault:  # rows of different lengths
        raise DataError(f"{place} has an x that is not {_PIXELS} numbers", _AGAIN) from fault
    if x.shape != (size, _PIXELS) or x.dtype.kind not in "fiu":
        raise DataError(f"{place} has an x that is not {_PIXELS} numbers", _AGAIN)
    if not (x.min() >= 0 and x.max() <= 1):  # also where one of them is NaN
        raise DataError(f"{place} has pixels outside 0..1", "divide bytes by 255")
    if y.shape != (size,) or y.dtype.kind not in "iu":
        raise DataError(f"{place} has a y that is not an integer", _AGAIN)
    return np.rint(x * 255).astype(np.uint8), y.astype(np.int64)


def _entry(place: Path | str, mapping: Any, key: str, kind: type) -> Any:
    entry = mapping.get(key) if isinstance(mapping, dict) else None
    if not isinstance(entry, kind):
        raise DataError(f"{place} has no {key} ({kind.__name__})", _AGAIN)
    return entry
