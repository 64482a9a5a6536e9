"""Activities by user from WISDM's transformed file: 43 features of each 10 seconds of a phone's accelerometer.

Kwapisz, Weiss & Moore, *Activity Recognition using Cell Phone Accelerometers* (SIGKDD Explorations 2010),
https://www.cis.fordham.edu/wisdm/dataset.php, Activity Prediction v1.1.

The parser knows just what such a file needs: numeric and nominal attributes, quotes, comments, ``?``. It is our
own because ``scipy.io.arff`` does not read the official file (it rejects ``@attribute class{ "Walking" , ...``).
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from duetto.errors import DataError
from duetto.tasks.by_user import ByUser, by_name, unpacked

MISSING = 0.0
"""What stands for ``?``. In the official file only the three PEAK features lack values: the milliseconds between
peaks of a signal too still to have any. Those present are at least 100, so 0 stays apart from all of them."""
_ATTRIBUTE = re.compile(r"""@attribute\s+("[^"]*"|'[^']*'|[^\s{]+)\s*(\{.*\}|\w+)\s*$""", re.IGNORECASE)
_AGAIN = "correct this file or fetch it again"


@dataclass(frozen=True)
class Table:
    """An ARFF file: for each attribute its name and, where it is nominal, its values (None: numeric); text cells."""

    attributes: dict[str, tuple[str, ...] | None]
    rows: list[list[str]]
    lines: list[int]


def read(path: Path | str) -> ByUser:
    """The windows of WISDM v1.1, from the file (plain or gzip) or the one folder that holds it.

    Every numeric attribute but UNIQUE_ID is a feature, as it stands: standardise with what training users give
    (:func:`duetto.tasks.by_user.standardise`). ``?`` becomes :data:`MISSING`. Classes are in the header's order.

    Raises:
        DataError: no such file, not ARFF, or a cell that its attribute does not allow; the message names the line.
    """
    path = _file(Path(path))
    table = parse(path)
    classes = table.attributes.get("class")
    if classes is None or "user" not in table.attributes:
        raise DataError(f"{path} lacks a nominal attribute class or an attribute user", _AGAIN)
    if not table.rows:
        raise DataError(f"{path} has no rows", _AGAIN)
    cells = dict(zip(table.attributes, np.array(table.rows).T, strict=True))
    label, user = cells.pop("class"), cells.pop("user")
    cells.pop("UNIQUE_ID", None)
    for name in cells:
        if table.attributes[name] is not None:
            raise DataError(f"{path}: attribute {name!r} is not numeric", _AGAIN)
    for name, column in (("class", label), ("user", user)):
        allowed = table.attributes[name]
        for line, value in zip(table.lines, column.tolist(), strict=True):
            if value == "?" or (allowed is not None and value not in allowed):
                raise DataError(f"{path}, line {line}: {name} is {value!r}", _AGAIN)
    features = np.stack(list(cells.values()), 1)
    features[features == "?"] = str(MISSING)
    try:
        x = features.astype(np.float64)
    except ValueError as fault:
        raise DataError(f"{path} has a feature that is no number: {fault}", _AGAIN) from fault
    return by_name(x, [classes.index(value) for value in label.tolist()], user, classes)


def parse(path: Path) -> Table:
    """The attributes and cells of an ARFF file.

    Raises:
        DataError: a line that is not ARFF, or not of the part of it that is known here (dense rows; numeric and
            nominal attributes).
    """
    attributes: dict[str, tuple[str, ...] | None] = {}
    rows: list[list[str]] = []
    lines: list[int] = []
    in_data = False
    for number, line in enumerate(unpacked(path).decode("utf-8", "replace").splitlines(), 1):
        line = line.strip()
        head = line.lower()
        if not line or line.startswith("%") or (head.startswith("@relation") and not in_data):
            continue
        if in_data:
            row = _cells(line)
            if len(row) != len(attributes):
                raise DataError(f"{path}, line {number}: {len(row)} cells for {len(attributes)} attributes", _AGAIN)
            rows.append(row)
            lines.append(number)
        elif head == "@data":
            in_data = True
        elif found := _ATTRIBUTE.match(line):
            name, kind = found[1].strip("\"'"), found[2]
            if not kind.startswith("{") and kind.lower() not in ("numeric", "real", "integer"):
                raise DataError(f"{path}, line {number}: attribute {name!r} is {kind}, not numeric or nominal", _AGAIN)
            attributes[name] = tuple(_cells(kind[1:-1])) if kind.startswith("{") else None
        else:
            raise DataError(f"{path}, line {number}: {line[:40]!r} is not ARFF", _AGAIN)
    return Table(attributes, rows, lines)


def _cells(line: str) -> list[str]:
    return [cell.strip().strip("'") for cell in next(csv.reader([line], skipinitialspace=True))]


def _file(path: Path) -> Path:
    if path.is_dir():
        found = sorted([*path.glob("*.arff"), *path.glob("*.arff.gz")])
        if len(found) != 1:
            raise DataError(f"{path} has {len(found)} files *.arff or *.arff.gz", "name the file itself")
        return found[0]
    return path
