"""A data set by user, as columns: who has which rows, and how rows and users are drawn into parts.

Everything here is a pure function of its arguments. What is drawn is keyed by (seed, purpose, user name), so
neither the order of users nor the presence of others changes what happens to one user's rows.
"""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from duetto.errors import ConfigError, DataError
from duetto.types import rng

Rows: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ByUser:
    """A data set by user. It is checked when built, so whoever holds one needs no further checks.

    Attributes:
        x: [n, ...] float32, finite; images [n, 1, 28, 28] in 0..1, features [n, 43], windows [n, 6, samples].
        y: [n] int64, index into ``classes``.
        user: [n] int32, index into ``users``.
        users: names, each with at least one row.
        classes: names.

    Raises:
        DataError: no rows; columns that do not fit each other; a value that is not finite; a label outside the
            classes; a user without rows; a name given twice.
    """

    x: NDArray[np.float32]
    y: Rows
    user: NDArray[np.int32]
    users: tuple[str, ...]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        n = len(self.y)
        for name, dtype in (("x", np.float32), ("y", np.int64), ("user", np.int32)):
            column = getattr(self, name)
            if column.dtype != dtype:
                raise DataError(f"{name} is {column.dtype}", f"give it as {np.dtype(dtype)}")
        if self.y.ndim != 1 or self.user.shape != (n,) or self.x.ndim < 2 or len(self.x) != n or 0 in self.x.shape[1:]:
            shapes = f"x {self.x.shape}, y {self.y.shape}, user {self.user.shape}"
            raise DataError(f"the columns do not fit: {shapes}", "give x [n, ...], y [n] and user [n]")
        if n == 0:
            raise DataError("the data set has no rows", "give it at least one row")
        for what, names in (("user", self.users), ("class", self.classes)):
            if len(set(names)) < len(names):
                twice = Counter(names).most_common(1)[0][0]
                raise DataError(f"{what} {twice!r} is named twice", "give every name once")
        if self.user.min() < 0 or self.user.max() >= len(self.users):
            raise DataError(
                f"user index {self.user.min()}..{self.user.max()} for {len(self.users)} users", "index into users"
            )
        if not self.counts().all():
            idle = np.flatnonzero(self.counts() == 0)
            raise DataError(f"user {self.users[idle[0]]!r} has no rows ({len(idle)} such users)", "leave them out")
        # The extremes are NaN or infinite where any value is, and need no copy of x.
        if not (np.isfinite(self.x.min()) and np.isfinite(self.x.max())):
            bad = ~np.isfinite(self.x.reshape(n, -1)).all(1)
            counts = np.bincount(self.user[bad], minlength=len(self.users))
            first = int(np.argmax(counts > 0))
            raise DataError(
                f"user {self.users[first]!r} has {counts[first]} rows with values that are not finite "
                f"({np.count_nonzero(counts)} such users)",
                "drop or impute these rows",
            )
        outside = np.flatnonzero((self.y < 0) | (self.y >= len(self.classes)))
        if len(outside):
            raise DataError(
                f"user {self.users[self.user[outside[0]]]!r} has label {self.y[outside[0]]} outside the "
                f"{len(self.classes)} classes ({len(outside)} such rows)",
                "name more classes or correct the labels",
            )

    @cached_property
    def _order(self) -> Rows:
        return np.argsort(self.user, kind="stable")

    @cached_property
    def _ends(self) -> Rows:
        return np.cumsum(self.counts())

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.users)}

    def index(self, user: str | int) -> int:
        """The index of a user, by name or index.

        Raises:
            DataError: no such user.
        """
        found = self._index.get(user, -1) if isinstance(user, str) else int(user)
        if not 0 <= found < len(self.users):
            raise DataError(f"no user {user!r} among {len(self.users)}", f"the first is {self.users[0]!r}")
        return found

    def rows(self, user: str | int) -> Rows:
        """The rows of one user, in order; costs as much as the user has rows."""
        i = self.index(user)
        return self._order[self._ends[i - 1] if i else 0 : self._ends[i]].copy()

    def counts(self) -> Rows:
        """[users] rows of each user."""
        return np.bincount(self.user, minlength=len(self.users))

    def take(self, rows: ArrayLike) -> ByUser:
        """These rows (indices, or a mask), in this order; users without any drop out, the others keep theirs."""
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        kept, user = np.unique(self.user[rows], return_inverse=True)
        return ByUser(
            self.x[rows], self.y[rows], user.astype(np.int32), tuple(self.users[i] for i in kept), self.classes
        )

    def only(self, users: Iterable[str | int]) -> ByUser:
        """The rows of these users; rows and users keep their order."""
        wanted = np.zeros(len(self.users), bool)
        wanted[[self.index(user) for user in users]] = True
        return self.take(np.flatnonzero(wanted[self.user]))


def by_name(x: NDArray[Any], y: ArrayLike, names: Sequence[str] | NDArray[np.str_], classes: Sequence[str]) -> ByUser:
    """A data set from one user name a row; users are sorted by name, rows keep their order."""
    users, user = np.unique(np.asarray(names, np.str_), return_inverse=True)
    return ByUser(
        np.asarray(x, np.float32),
        np.asarray(y, np.int64),
        user.astype(np.int32),
        tuple(str(name) for name in users),
        tuple(classes),
    )


def pooled(a: ByUser, b: ByUser) -> ByUser:
    """The rows of ``a``, then those of ``b``; a name in both is one user.

    Raises:
        DataError: other classes or another shape of a row.
    """
    if a.classes != b.classes or a.x.shape[1:] != b.x.shape[1:]:
        raise DataError(
            f"cannot pool rows {a.x.shape[1:]} of {len(a.classes)} classes with rows {b.x.shape[1:]} of "
            f"{len(b.classes)}",
            "pool sets with the same classes and shape of a row",
        )
    users = tuple(dict.fromkeys(a.users + b.users))
    index = {name: i for i, name in enumerate(users)}
    there = np.array([index[name] for name in b.users], np.int32)[b.user]
    return ByUser(
        np.concatenate([a.x, b.x]), np.concatenate([a.y, b.y]), np.concatenate([a.user, there]), users, a.classes
    )


def split(data: ByUser, fractions: Mapping[str, float], seed: int) -> dict[str, Rows]:
    """Split each user's rows into named parts, such as ``{"stream": .6, "calibration": .2, "held": .2}``.

    A part's rows come user by user, within a user in the order drawn. Every row is in exactly one part, and a
    part has its fraction of a user's rows to within one row, so of very small users some parts have none.

    Raises:
        ConfigError: fractions that are negative or do not add up to 1.
    """
    shares = _shares(fractions)
    parts: dict[str, list[Rows]] = {name: [] for name in fractions}
    for user in data.users:
        rows = rng((seed, "split", user)).permutation(data.rows(user))
        for part, piece in zip(parts.values(), _pieces(rows, shares), strict=True):
            part.append(piece)
    return {name: np.concatenate(pieces) for name, pieces in parts.items()}


def in_order(data: ByUser, fractions: Mapping[str, float], together: int = 1) -> dict[str, Rows]:
    """Cut each user's rows, in their order, into named parts, first to last; nothing is drawn.

    As :func:`split`, for rows whose order is that of time: what comes later is not learned from.

    Args:
        data: whose rows.
        fractions: part -> share.
        together: so many rows that follow each other are never parted (such as a positive and its negatives).

    Raises:
        ConfigError: fractions that are negative or do not add up to 1, or rows that do not come in such blocks.
    """
    shares = _shares(fractions)
    if together < 1 or (data.counts() % together).any():
        raise ConfigError(f"users whose rows do not come by {together}", "give a number that divides each user's rows")
    parts: dict[str, list[Rows]] = {name: [] for name in fractions}
    for user in data.users:
        for part, piece in zip(parts.values(), _pieces(data.rows(user).reshape(-1, together), shares), strict=True):
            part.append(piece.reshape(-1))
    return {name: np.concatenate(pieces) for name, pieces in parts.items()}


def draw_users(users: Collection[str], fractions: Mapping[str, float], seed: int) -> dict[str, tuple[str, ...]]:
    """Split user names into named parts, each sorted; the order in which they are given changes nothing.

    Raises:
        ConfigError: fractions that are negative or do not add up to 1.
        DataError: a name given twice.
    """
    names = sorted(users)
    if len(set(names)) < len(names):
        raise DataError("a user is named twice among those to draw", "give every name once")
    drawn = rng((seed, "draw_users")).permutation(len(names))
    pieces = _pieces(drawn, _shares(fractions))
    return {part: tuple(names[i] for i in np.sort(piece)) for part, piece in zip(fractions, pieces, strict=True)}


def standardise(x: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and scale of each feature (axis 1), to be fitted on training users only.

    Returns:
        Two arrays [1, features, 1 ...] that broadcast over ``x``: use ``(x - mean) / scale``. The scale is the
        standard deviation, and 1 where a feature is constant.
    """
    axes = (0, *range(2, x.ndim))
    mean = x.mean(axes, keepdims=True, dtype=np.float64)
    scale = x.std(axes, keepdims=True, dtype=np.float64)
    constant = np.ptp(x, axis=axes, keepdims=True) == 0  # rounding may leave a deviation that is not quite 0
    return mean.astype(np.float32), np.where(constant, 1.0, scale).astype(np.float32)


def unpacked(path: Path) -> bytes:
    """The bytes of a data file, plain or gzip (told by its first bytes, not by its name).

    Raises:
        DataError: cannot be read, or not whole.
    """
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError, zlib.error) as fault:
        raise DataError(f"cannot read {path}: {fault}", "fetch this file again") from fault


def _shares(fractions: Mapping[str, float]) -> NDArray[np.float64]:
    shares = np.array(list(fractions.values()), np.float64)
    if not (len(shares) and (shares >= 0).all() and abs(shares.sum() - 1) < 1e-9):
        raise ConfigError(f"fractions {dict(fractions)}", "give fractions that are not negative and add up to 1")
    return shares


def _pieces(rows: Rows, shares: NDArray[np.float64]) -> list[Rows]:
    # Rounding the running total, not each share, neither loses nor doubles a row.
    ends = np.floor(np.cumsum(shares) * len(rows) + 0.5).astype(np.int64)
    return np.split(rows, ends[:-1])
