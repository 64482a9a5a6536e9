"""The log as JSON lines: one record a line, UTF-8, ``\\n`` after each.

Floats are written as Python's shortest repr, so they read back exactly, and keys always come in one order, so the
same log is the same bytes. A crash can only cut the last line: :func:`read` leaves a cut line out, :func:`intact`
tells that there is one, and :func:`append` removes it before it goes on.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from duetto.errors import DataError
from duetto.tree import Array
from duetto.types import Cost, Record

_COST = tuple(field.name for field in fields(Cost))
_ORDER = ("time", "party", "user", "protocol", "step", "metrics", "cost")
_WHOLE = frozenset({"up_bytes", "down_bytes"})


def line(record: Record) -> str:
    """The record as one line of JSON, without the line's end.

    Raises:
        DataError: a number that is not finite, or a value that is neither a number nor a text.
    """
    metrics = {name: _plain(record, name, record.metrics[name]) for name in sorted(record.metrics)}
    cost = {name: _plain(record, name, value) for name, value in asdict(record.cost).items()}
    values = [_plain(record, "time", record.time), record.party, record.user, record.protocol]
    values += [_plain(record, "step", record.step), metrics, cost]
    return json.dumps(dict(zip(_ORDER, values, strict=True)), separators=(",", ":"))


def write(path: str | Path, records: Iterable[Record]) -> None:
    """Write a whole log; it is there completely or, after a crash, not at all.

    Raises:
        DataError: as :func:`line`.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            for record in records:
                file.write(f"{line(record)}\n".encode())
            _settle(file)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def append(path: str | Path, records: Iterable[Record]) -> None:
    """Add records at the end, on disk before this returns; a line cut by a crash is removed first.

    Raises:
        DataError: as :func:`line`; then nothing is added.
    """
    new = "".join(f"{line(record)}\n" for record in records).encode()
    path = Path(path)
    path.touch()
    with path.open("r+b") as file:
        tail, start = _tail(file)
        if tail and _parsed(tail) is None:
            file.truncate(start)
            file.seek(start)
        elif tail:
            new = b"\n" + new
        file.write(new)
        _settle(file)


def read(path: str | Path) -> list[Record]:
    """The log; a last line that a crash has cut is left out (:func:`intact` tells).

    Raises:
        DataError: no such file, or a line that is no record, with its number.
    """
    path = Path(path)
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"no records at {path} ({error.strerror})", "name the folder of a run") from error
    last = len(lines)
    records = []
    for number, text in enumerate(lines, 1):
        record = _parsed(text) if text else None
        if record is not None:
            records.append(record)
        elif number < last:
            raise DataError(f"line {number} of {path} is no record", "restore the file, or delete that line to go on")
    return records


def intact(path: str | Path) -> bool:
    """Whether the log's last line is whole: no crash has cut it."""
    with Path(path).open("rb") as file:
        tail, _ = _tail(file)
    return not tail or _parsed(tail) is not None


def columns(records: Sequence[Record], protocol: str) -> dict[str, Array]:
    """The records of one protocol as columns, each [n], in the log's order.

    ``time`` (seconds), ``step``, ``party``, ``user``, the fields of the cost by their names and units, and every
    metric by its name: numbers as float64 (NaN where a record lacks it), texts as str ("" where it lacks it).

    Raises:
        DataError: a metric that is a number here and a text there, or is named like another column.
    """
    chosen = [record for record in records if record.protocol == protocol]
    table: dict[str, Array] = {
        "time": np.array([record.time for record in chosen], float),
        "step": np.array([record.step for record in chosen], np.int64),
        "party": np.array([record.party for record in chosen], str),
        "user": np.array([record.user for record in chosen], str),
    }
    for name in _COST:
        dtype = np.int64 if name in _WHOLE else np.float64
        table[name] = np.array([getattr(record.cost, name) for record in chosen], dtype)
    for name in sorted({name for record in chosen for name in record.metrics}):
        if name in table:
            raise DataError(f"a metric named {name!r} hides the column of that name", "give the metric another name")
        values = [record.metrics.get(name) for record in chosen]
        texts = {isinstance(value, str) for value in values if value is not None}
        if len(texts) > 1:
            raise DataError(f"the metric {name!r} is a number in one record and a text in another", "keep to one")
        empty: Any = "" if texts == {True} else math.nan
        column = [empty if value is None else value for value in values]
        table[name] = np.array(column, str if texts == {True} else float)
    return table


def _plain(record: Record, name: str, value: Any) -> Any:
    """A Python number or text; numpy's scalars as the Python number of the same value."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str) or (isinstance(value, int | float) and math.isfinite(value)):
        return value
    raise DataError(
        f"{name} = {value!r} in a record of {record.protocol!r}, step {record.step}",
        "a record holds finite numbers and texts; leave out what is not known",
    )


def _settle(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _tail(file: Any, block: int = 1 << 16) -> tuple[bytes, int]:
    """What stands after the last line's end, and where it starts; the file is left at its end."""
    end = start = file.seek(0, os.SEEK_END)
    tail = b""
    while start > 0 and b"\n" not in tail:
        start = max(0, start - block)
        file.seek(start)
        tail = file.read(end - start)
    file.seek(0, os.SEEK_END)
    cut = tail.rfind(b"\n") + 1
    return tail[cut:], start + cut


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _parsed(text: bytes) -> Record | None:
    """The record of a line, or None where it is none."""
    try:
        entry = json.loads(text.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, Mapping) or set(entry) != set(_ORDER):
        return None
    metrics, cost = entry["metrics"], entry["cost"]
    sound = (
        all(isinstance(entry[name], str) for name in ("party", "user", "protocol"))
        and _number(entry["time"])
        and isinstance(entry["step"], int)
        and isinstance(metrics, Mapping)
        and all(isinstance(value, str) or _number(value) for value in metrics.values())
        and isinstance(cost, Mapping)
        and set(cost) == set(_COST)
        and all(_number(value) and (name not in _WHOLE or isinstance(value, int)) for name, value in cost.items())
    )
    return Record(**{**entry, "cost": Cost(**cost)}) if sound else None
