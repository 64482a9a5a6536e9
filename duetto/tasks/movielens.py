"""Ratings of films by user, in the layouts of MovieLens-100K and of MovieLens-1M.

Harper & Konstan, *The MovieLens Datasets: History and Context* (ACM TiiS 2015), https://grouplens.org/datasets/movielens.
100K: ``u.data``, tab separated ``user item rating timestamp``; ``u.item``, films, ``|`` separated. 1M: ``ratings.dat``,
``UserID::MovieID::Rating::Timestamp``; ``movies.dat``. Both latin-1; seconds since 1970; stars 1 to 5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from duetto.errors import DataError
from duetto.tasks.by_user import unpacked

T = TypeVar("T")
_AGAIN = "correct this file or fetch it again"


@dataclass(frozen=True, eq=False)
class Ratings:
    """Who rated what, in the order of the file.

    Attributes:
        user: [n] int64, index into ``users``.
        item: [n] int64, index into ``items``.
        stars: [n] int64, 1 to 5.
        seconds: [n] int64, since 1970.
        users: names, in numerical order; each has a rating.
        items: the films' numbers, rising; all of the catalogue, rated or not.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    stars: NDArray[np.int64]
    seconds: NDArray[np.int64]
    users: tuple[str, ...]
    items: tuple[int, ...]


def read(folder: Path | str) -> Ratings:
    """The ratings of a folder with ``u.data`` or ``ratings.dat``, plain or ``.gz``.

    The catalogue is that of ``u.item`` or ``movies.dat``; without such a file it is what was rated.

    Raises:
        DataError: neither file, or one that is broken; the message names the line.
    """
    folder = Path(folder)
    for data, films, cut in (("u.data", "u.item", "\t"), ("ratings.dat", "movies.dat", "::")):
        if (path := _there(folder, data)) is not None:
            rows = np.array(_lines(path, _rating, cut), np.int64).reshape(-1, 4)
            listed = _there(folder, films)
            break
    else:
        raise DataError(f"{folder} has no u.data and no ratings.dat", "name the folder that holds one of them")
    if not len(rows):
        raise DataError(f"{path} has no ratings", _AGAIN)
    pairs = rows[np.lexsort((rows[:, 1], rows[:, 0])), :2]
    if (twice := np.flatnonzero((np.diff(pairs, axis=0) == 0).all(1))).size:
        user, item = pairs[twice[0]]
        raise DataError(f"{path}: user {user} rated film {item} twice", _AGAIN)
    separator = "|" if films == "u.item" else "::"
    catalogue = _lines(listed, _film, separator) if listed is not None else rows[:, 1].tolist()
    items = np.unique(np.array(catalogue, np.int64))
    if (unknown := np.setdiff1d(rows[:, 1], items)).size:
        raise DataError(f"{path} has film {unknown[0]}, which {listed} does not list", _AGAIN)
    users, user = np.unique(rows[:, 0], return_inverse=True)
    return Ratings(
        user.astype(np.int64),
        np.searchsorted(items, rows[:, 1]),
        rows[:, 2],
        rows[:, 3],
        tuple(str(number) for number in users),
        tuple(items.tolist()),
    )


def _there(folder: Path, name: str) -> Path | None:
    return next((folder / file for file in (name, f"{name}.gz") if (folder / file).is_file()), None)


def _lines(path: Path, parse: Callable[[str, str], T], cut: str) -> list[T]:
    parsed: list[T] = []
    for number, line in enumerate(unpacked(path).decode("latin-1").split("\n"), 1):
        if not line.strip():
            continue
        try:
            parsed.append(parse(line.rstrip("\r"), cut))
        except ValueError as fault:
            raise DataError(f"{path}, line {number}: {fault}", _AGAIN) from fault
    return parsed


def _rating(line: str, cut: str) -> tuple[int, ...]:
    cells = tuple(int(cell) for cell in line.split(cut))
    if len(cells) != 4:
        raise ValueError(f"{len(cells)} cells instead of 4")
    if not 1 <= cells[2] <= 5:
        raise ValueError(f"{cells[2]} stars")
    if min(cells) < 0:
        raise ValueError("a number below 0")
    return cells


def _film(line: str, cut: str) -> int:
    return int(line.split(cut, 1)[0])
