"""Somebody's own labelled rows by user, from a CSV or an NPZ file, made to fit a model's input.

A CSV has a row an example: numbers in feature columns, a label, and whose it is. An NPZ (``numpy.savez``) has ``x [n,
*shape]``, ``user [n]`` and perhaps ``y [n]``.
"""

from __future__ import annotations

import csv
import io
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duetto.errors import DataError
from duetto.tasks.by_user import unpacked


@dataclass(frozen=True, eq=False)
class Own:
    """Rows by user.

    Attributes:
        x: [n, *shape] float32.
        y: [n] int64, the classes; None where nobody knows what is right.
        user: [n] whose each row is.
        names: of the columns of a CSV that ``x`` was read from.
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64] | None
    user: NDArray[np.str_]
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.user)

    def only(self, users: Sequence[str]) -> NDArray[np.bool_]:
        """[n] whether the row is one of these users'."""
        return np.isin(self.user, users)

    def fitting(self, shape: tuple[int, ...]) -> Own:
        """With rows of that shape, those of a CSV folded to it in C order.

        Raises:
            DataError: rows of another shape.
        """
        if self.x.shape[1:] == shape:
            return self
        if self.x.ndim == 2 and self.x.shape[1] == math.prod(shape):
            return replace(self, x=self.x.reshape(len(self), *shape))
        remedy = "give x [n, *shape] of the model's shape"
        if self.names:
            shown = ", ".join(self.names[:6]) + (", ..." if len(self.names) > 6 else "")
            remedy = f"name its columns with --feature-columns; now they are {shown}"
        raise DataError(
            f"{_count(self.x.shape[1:])} features a row for a model that takes {_count(shape)} {shape}", remedy
        )

    def within(self, classes: int) -> Own:
        """The same, if every label is one of so many classes.

        Raises:
            DataError: a label that is none.
        """
        if self.y is not None and (wrong := np.flatnonzero((self.y < 0) | (self.y >= classes))).size:
            at = int(wrong[0])
            raise DataError(
                f"row {at + 1} has label {self.y[at]}, and the models have classes 0 to {classes - 1}",
                "count classes from 0 in the order of the models' outputs, or name them with --classes",
            )
        return self


def read(
    path: str | Path,
    *,
    user: str = "user",
    label: str | None = None,
    features: Sequence[str] = (),
    classes: Sequence[str] = (),
) -> Own:
    """Read a file; gzip is told by its first bytes.

    Args:
        path: of a ``.csv`` or ``.npz`` file.
        user: the column that says whose a row is.
        label: the column with the class; "" where there is none; None is "label" in a CSV, "y" in an NPZ.
        features: the columns of ``x``, in order; none takes all others of a CSV, or ``x`` of an NPZ.
        classes: what labels are called, in the order of the models' outputs; none counts them from 0.

    Raises:
        DataError: a file that cannot be read, without a column, or with a value that is no finite number or no class.
    """
    path = Path(path)
    if path.suffix == ".npz":
        return _npz(path, user, "y" if label is None else label, features, classes)
    if path.suffixes[-1:] != [".csv"] and path.suffixes[-2:] != [".csv", ".gz"]:
        raise DataError(f"{path} is neither .csv nor .npz", "write a CSV with a row an example, or numpy.savez")
    return _csv(path, user, "label" if label is None else label, features, classes)


def _csv(path: Path, user: str, label: str, features: Sequence[str], classes: Sequence[str]) -> Own:
    try:
        text = unpacked(path).decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise DataError(f"{path} is no text in UTF-8", "save it as CSV in UTF-8") from fault
    lines = csv.reader(io.StringIO(text, newline=""))
    head = [name.strip() for name in next(lines, [])]
    for name, flag in (
        (user, "--user-column"),
        (label, "--label-column"),
        *((each, "--feature-columns") for each in features),
    ):
        if name and head.count(name) != 1:
            what = "no column" if name not in head else f"{head.count(name)} columns"
            raise DataError(f"{path} has {what} {name!r}", f"name it with {flag}; it has {', '.join(head[:12])}")
    if not user:
        raise DataError("a column of users without a name", "name it with --user-column")
    names = tuple(features) or tuple(name for name in head if name not in (user, label))
    at = [head.index(name) for name in names]
    x: list[list[float]] = []
    y: list[str] = []
    who: list[str] = []
    for row in lines:
        if not row:
            continue
        if len(row) != len(head):
            raise DataError(
                f"{path}, line {lines.line_num}: {len(row)} cells under {len(head)} names", "mend that line"
            )
        try:
            x.append([float(row[i]) for i in at])
        except ValueError:
            wrong = next(name for name, i in zip(names, at, strict=True) if not _number(row[i]))
            raise DataError(
                f"{path}, line {lines.line_num}: {wrong} is {row[head.index(wrong)]!r}, which is no number",
                "mend it, or leave the column out with --feature-columns",
            ) from None
        y.append(row[head.index(label)].strip() if label else "")
        who.append(row[head.index(user)].strip())
    if not x:
        raise DataError(f"{path} has no rows", "write a row an example below the names of the columns")
    if not names:
        raise DataError(f"{path} has no feature columns", "write a column a feature")
    return _checked(path, np.array(x, np.float64), y if label else None, np.array(who, str), classes, names)


def _npz(path: Path, user: str, label: str, features: Sequence[str], classes: Sequence[str]) -> Own:
    try:
        with np.load(path, allow_pickle=False) as file:
            there = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as fault:
        raise DataError(f"{path} cannot be read ({fault})", "write it with numpy.savez, without objects") from fault
    name = features[0] if features else "x"
    wanted = [name, user, *([label] if label else [])]
    for each in wanted:
        if each not in there:
            raise DataError(f"{path} has no array {each!r}", f"it has {', '.join(sorted(there)) or 'none'}")
    x, who = there[name], there[user].astype(str)
    if x.dtype.kind not in "fiub" or x.ndim < 2 or not len(x):
        raise DataError(f"{path}: {name} of shape {x.shape} and dtype {x.dtype}", "give numbers, [n, *shape]")
    for each in wanted[1:]:
        if there[each].shape != (len(x),):
            raise DataError(f"{path}: {each} of shape {there[each].shape} for {len(x)} rows", "give one a row")
    return _checked(path, x, there[label].astype(str).tolist() if label else None, who, classes, ())


def _checked(
    path: Path, x: Any, y: list[str] | None, who: NDArray[np.str_], classes: Sequence[str], names: tuple[str, ...]
) -> Own:
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and told below
        rows = np.ascontiguousarray(x, np.float32)
    if (bad := np.flatnonzero(~np.isfinite(rows.reshape(len(rows), -1)).all(1))).size:
        raise DataError(
            f"{path}: row {bad[0] + 1} has a feature that is NaN or infinite", "fill it in, or drop the row"
        )
    if (bad := np.flatnonzero(who == "")).size:
        raise DataError(f"{path}: row {bad[0] + 1} has no user", "say whose every row is")
    return Own(rows, None if y is None else _classes(path, y, classes), who, names)


def _classes(path: Path, texts: list[str], classes: Sequence[str]) -> NDArray[np.int64]:
    if classes:
        number = {name: i for i, name in enumerate(classes)}
        if (unknown := next((text for text in texts if text not in number), None)) is not None:
            raise DataError(f"{path}: the label {unknown!r} is no class", f"--classes names {', '.join(classes[:12])}")
        return np.array([number[text] for text in texts], np.int64)
    try:
        return np.array([_whole(text) for text in texts], np.int64)
    except ValueError:
        wrong = next(text for text in texts if not _number(text) or not float(text).is_integer())
        raise DataError(
            f"{path}: the label {wrong!r} is no number of a class",
            "name the classes in the order of the models' outputs: --classes a,b,c",
        ) from None


def _whole(text: str) -> int:
    value = float(text)
    if not value.is_integer():
        raise ValueError(text)
    return int(value)


def _number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _count(shape: tuple[int, ...]) -> int:
    return math.prod(shape)
