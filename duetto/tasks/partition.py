"""Partitions: rows dealt to invented users who differ in one known way, and figures of how much they differ.

A partition is a frozen description that is called with a data set (by user, or just ``(x, y)``) and a seed, and gives
a data set by user. Every row belongs to one user, no user is without rows, the rows keep their order, and the same
seed gives the same users. ``str`` of a partition is a sentence that says how it deals.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from duetto.errors import ConfigError
from duetto.tasks.by_user import ByUser, by_name
from duetto.types import rng

Given: TypeAlias = ByUser | tuple[ArrayLike, ArrayLike]
"""A data set by user, whose users only :class:`Natural` reads, or inputs [n, ...] and labels [n]."""


class Partition(ABC):
    """Who has which rows."""

    @abstractmethod
    def __call__(self, data: Given, seed: int) -> ByUser:
        """The rows, in their order, with the users that they are dealt to.

        Raises:
            ConfigError: more users than there are rows for.
        """


@dataclass(frozen=True)
class Natural(Partition):
    """The users that the data have."""

    def __call__(self, data: Given, seed: int) -> ByUser:
        """The data as they are.

        Raises:
            ConfigError: rows without users.
        """
        if not isinstance(data, ByUser):
            raise ConfigError("these rows have no users of their own", "choose a partition that invents some")
        return data

    def __str__(self) -> str:
        return "the users that the data have"


@dataclass(frozen=True)
class Dirichlet(Partition):
    """Label skew: every user has equally many rows (to within one) and its own mix of classes.

    Hsu, Qi & Brown, *Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification*
    (2019), section 2. A class that is used up leaves the mixes of later users.

    Attributes:
        users: how many.
        alpha: concentration a class, as most papers since state it: the mixes are drawn from Dirichlet(alpha k p), p
            the shares of the k classes among all rows. Hsu et al. call alpha k alpha: with 10 classes, their 1 is 0.1
            here. Small is one class a user, large is the same mix for all.
    """

    users: int
    alpha: float = 0.5

    def __post_init__(self) -> None:
        _check(self.users, alpha=self.alpha)

    def __call__(self, data: Given, seed: int) -> ByUser:
        """As :class:`Partition`."""
        data = _columns(data, self.users)
        labels, y = np.unique(data.y, return_inverse=True)
        pools = [rng((seed, "dirichlet", "class", c)).permutation(np.flatnonzero(y == c)) for c in range(len(labels))]
        left = np.array([len(pool) for pool in pools])
        concentration = self.alpha * len(labels) * left / len(y)
        user = np.empty(len(y), np.int32)
        for k in range(self.users):
            draw = rng((seed, "dirichlet", "user", k))
            mix = draw.dirichlet(concentration)
            wanted = len(y) // self.users + (k < len(y) % self.users)
            while wanted:  # ends: each turn fills the user or uses up a class
                weight = np.where(left > 0, mix, 0.0)
                if not weight.sum() > 0:  # all that this user likes is gone
                    weight = left.astype(np.float64)
                dealt = np.minimum(draw.multinomial(wanted, weight / weight.sum()), left)
                for c in np.flatnonzero(dealt):
                    user[pools[c][left[c] - dealt[c] : left[c]]] = k
                left -= dealt
                wanted -= int(dealt.sum())
        return _owned(data, user, self.users)

    def __str__(self) -> str:
        return f"{self.users} users with equally many rows, mixes of classes from Dirichlet({self.alpha:g} a class)"


@dataclass(frozen=True)
class Quantity(Partition):
    """Quantity skew: labels alike, the users' shares of all rows drawn from Dirichlet(alpha).

    Li, Diao, Chen & He, *Federated Learning on Non-IID Data Silos: An Experimental Study* (ICDE 2022).
    They draw again until nobody has too few; here every user gets one row and the shares are of the others, which
    ends for every alpha.

    Attributes:
        users: how many.
        alpha: concentration a user; small is a few users with nearly all rows, large is equal shares.
    """

    users: int
    alpha: float = 0.5

    def __post_init__(self) -> None:
        _check(self.users, alpha=self.alpha)

    def __call__(self, data: Given, seed: int) -> ByUser:
        """As :class:`Partition`."""
        data = _columns(data, self.users)
        draw = rng((seed, "quantity"))
        share = draw.dirichlet(np.full(self.users, self.alpha))
        ends = np.floor(np.cumsum(share) * (len(data.y) - self.users) + 0.5).astype(np.int64)
        return _owned(data, _dealt(1 + np.diff(ends, prepend=0), draw), self.users)

    def __str__(self) -> str:
        return f"{self.users} users with the same mix of classes, shares of the rows from Dirichlet({self.alpha:g})"


@dataclass(frozen=True)
class Shards(Partition):
    """Label skew in its hardest form: rows sorted by label and cut into equal shards, some to every user.

    McMahan, Moore, Ramage, Hampson & Agüera y Arcas, *Communication-Efficient Learning of Deep Networks from
    Decentralized Data* (AISTATS 2017), section 3. A user's rows are of about ``per_user`` classes.

    Attributes:
        users: how many.
        per_user: shards of a user; there must be a row for each.
    """

    users: int
    per_user: int = 2

    def __post_init__(self) -> None:
        _check(self.users, per_user=self.per_user)

    def __call__(self, data: Given, seed: int) -> ByUser:
        """As :class:`Partition`."""
        shards = self.users * self.per_user
        data = _columns(data, shards, "shards")
        draw = rng((seed, "shards"))
        rows = draw.permutation(len(data.y))  # so that the shards of one class are alike
        rows = rows[np.argsort(data.y[rows], kind="stable")]
        owner = draw.permutation(np.repeat(np.arange(self.users, dtype=np.int32), self.per_user))
        user = np.empty(len(rows), np.int32)
        for k, shard in zip(owner, np.array_split(rows, shards), strict=True):
            user[shard] = k
        return _owned(data, user, self.users)

    def __str__(self) -> str:
        return f"{self.users} users with {self.per_user} shards each of the rows sorted by class"


@dataclass(frozen=True)
class FeatureShift(Partition):
    """Feature skew: rows dealt evenly and by chance, then every user's inputs go through its own transform.

    "noise" is that of Li, Diao, Chen & He (ICDE 2022): user k of n has Gaussian noise of variance
    ``strength * k / n`` on every input. "rotation" is that of Ghosh, Chung, Yin & Ramchandran, *An Efficient Framework
    for Clustered Federated Learning* (NeurIPS 2020): the users' square images are turned by 0, 90, 180 or 270 degrees,
    a quarter of the users each.

    Attributes:
        users: how many.
        kind: "noise" or "rotation".
        strength: of noise: the variance for the last user, in the square of the inputs' unit.
    """

    users: int
    kind: str = "noise"
    strength: float = 0.1

    def __post_init__(self) -> None:
        _check(self.users, strength=self.strength)
        if self.kind not in ("noise", "rotation"):
            raise ConfigError(f"no shift is called {self.kind!r}", "use noise or rotation")

    def __call__(self, data: Given, seed: int) -> ByUser:
        """As :class:`Partition`.

        Raises:
            ConfigError: more users than rows, or a rotation of what are no square images.
        """
        data = _columns(data, self.users)
        turns = self.kind == "rotation"
        if turns and not (data.x.ndim == 4 and data.x.shape[2] == data.x.shape[3]):
            raise ConfigError(f"rows of {data.x.shape[1:]} cannot be turned", "use noise, or square images")
        even = np.diff(np.arange(self.users + 1) * len(data.y) // self.users)
        people = _owned(data, _dealt(even, rng((seed, "shift"))), self.users)
        x = people.x.copy()
        for k, name in enumerate(people.users):
            rows = people.rows(k)
            if turns:
                x[rows] = np.rot90(x[rows], k, (2, 3))
            else:
                noise = rng((seed, "shift", name)).standard_normal((len(rows), *x.shape[1:]), np.float32)
                x[rows] += noise * np.float32(math.sqrt(self.strength * (k + 1) / self.users))
        return replace(people, x=x)

    def __str__(self) -> str:
        does = {
            "noise": f"noise on the inputs, more from user to user up to a variance of {self.strength:g}",
            "rotation": "images turned by 0, 90, 180 or 270 degrees, by user",
        }
        return f"{self.users} users with the same mix of classes, and {does[self.kind]}"


NAMES = ("natural", "dirichlet:0.5", "quantity:0.5", "shards:2", "shift:0.1", "shift:rotation")
"""How partitions are named; the numbers are those that stand in where none is given."""

_TINY, _HUGE = 1e-9, 1e9  # beyond, the draws of a Dirichlet distribution over- or underflow


def named(text: str, users: int) -> Partition:
    """The partition of that name, such as ``"dirichlet:0.1"`` or ``"shards"``; ``users`` are those that it invents.

    Raises:
        ConfigError: no such name, or a setting that the partition does not allow.
    """
    name, colon, setting = text.partition(":")
    given = [setting] if colon else []
    made: Mapping[str, Callable[[], Partition]] = {
        "natural": Natural,
        "dirichlet": lambda: Dirichlet(users, *map(float, given)),
        "quantity": lambda: Quantity(users, *map(float, given)),
        "shards": lambda: Shards(users, *map(int, given)),
        "shift": lambda: FeatureShift(users, strength=float(setting)) if given else FeatureShift(users),
    }
    try:
        if text == "shift:rotation":
            return FeatureShift(users, "rotation")
        if name == "natural" and given:
            raise ValueError
        return made[name]()
    except (KeyError, ValueError) as error:
        raise ConfigError(f"no partition is called {text!r}", f"use one such as {', '.join(NAMES)}") from error


@dataclass(frozen=True)
class Skew:
    """How much users differ.

    Attributes:
        rows_median: of a user.
        rows_ratio: of the user with most rows to the one with fewest.
        distance: total variation between a user's shares of classes and those of all rows (0: the same; 1: nothing in
            common), the mean over users. Chance alone gives users of few rows some.
        classes: how many classes a user has in effect: exp of the entropy of its shares, the mean over users.
    """

    rows_median: float
    rows_ratio: float
    distance: float
    classes: float


def counts(data: ByUser) -> NDArray[np.int64]:
    """[users, classes] rows."""
    cells = np.bincount(data.user * np.int64(len(data.classes)) + data.y, minlength=len(data.users) * len(data.classes))
    return cells.reshape(len(data.users), len(data.classes))


def skew(data: ByUser) -> Skew:
    """How much the users of a data set differ in rows and classes."""
    table = counts(data)
    rows = table.sum(1)
    shares = table / rows[:, None]
    entropy = -(shares * np.log(np.where(table > 0, shares, 1))).sum(1)
    return Skew(
        float(np.median(rows)),
        float(rows.max() / rows.min()),
        float(np.abs(shares - table.sum(0) / rows.sum()).sum(1).mean() / 2),
        float(np.exp(entropy).mean()),
    )


def _check(users: int, per_user: int = 1, **settings: float) -> None:
    least = {"users": 1, "per_user": 1}
    for name, value in {"users": users, "per_user": per_user, **settings}.items():
        if not least.get(name, _TINY) <= value <= _HUGE:
            raise ConfigError(f"{name} is {value}", f"give a number from {least.get(name, _TINY):g} to {_HUGE:g}")


def _columns(data: Given, needed: int, what: str = "users") -> ByUser:
    """The data by user, if there is a row for each of what needs one."""
    if not isinstance(data, ByUser):
        x, y = (np.asarray(column) for column in data)
        data = by_name(x, y, ["everybody"] * len(y), tuple(map(str, range(int(y.max(initial=-1)) + 1))))
    if len(data.y) < needed:
        raise ConfigError(f"{len(data.y)} rows are too few for {needed} {what}", f"ask for fewer {what}")
    return data


def _dealt(sizes: NDArray[np.int64], draw: np.random.Generator) -> NDArray[np.int32]:
    """[rows] users by chance, so many rows each."""
    return draw.permutation(np.repeat(np.arange(len(sizes), dtype=np.int32), sizes))


def _owned(data: ByUser, user: NDArray[np.int32], users: int) -> ByUser:
    digits = len(str(users - 1))
    return replace(data, user=user, users=tuple(f"user-{k:0{digits}d}" for k in range(users)))
