"""Federated analytics: what a fleet's data look like, by counts alone; no model and nobody's rows.

Ramage, Mazzocchi: Federated Analytics: Collaborative Data Science without Data Collection, 2020. A device answers with
integers: how many of its values fall in each bin. Of its values at most ``per_user`` count, drawn by key, or with
``once`` each bin at most once, so that what is counted is users. The device's owner fixes both, for a party offers the
very skill (``Tally("y", per_user=10)``), not its class. Answers come together through any collection whose aggregator
takes means, so that a secure one shows the cloud no more than the total.

Histograms and counts are exact; quantiles are exact to a resolution, by histograms that look closer and closer; heavy
hitters are found letter by letter in a growing trie (Zhu, Kairouz, McMahan, Sun, Li: Federated Heavy Hitters Discovery
with Differential Privacy, AISTATS 2020, without its noise), exactly those that are counted often enough.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from duetto.errors import ConfigError, DataError
from duetto.protocols.collect import Plain
from duetto.tree import Tree
from duetto.types import Aggregator, Collect, Gate, Group, Key, Local, Skill, rng

_END = 256  # the letter after the last one


@dataclass(frozen=True)
class Tally(Skill):
    """Count the party's values by bin: takes ``{"edges": [k + 1]}`` float64, gives counts ``[k]`` int64.

    A bin holds its lower edge, the last one its upper edge too; values outside count nowhere.

    Attributes:
        column: of the party's data, an attribute (``"y"``) or a name: numbers.
        per_user: values that count at most.
        once: each bin at most once.

    Raises:
        ConfigError: nothing may count.
    """

    column: str
    per_user: int
    once: bool = False

    def __post_init__(self) -> None:
        _some(self.per_user)

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Count.

        Raises:
            DataError: edges that do not rise.
        """
        edges = np.asarray(tree["edges"], np.float64)
        if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all():
            raise DataError(f"{sender} asked for bins whose edges do not rise", "send two edges at least, rising")
        values = np.asarray(_drawn(_column(local, self.column), self.per_user, key), np.float64)
        bins = np.searchsorted(edges, values, side="right") - 1
        bins[values == edges[-1]] = len(edges) - 2
        inside = bins[(bins >= 0) & (bins < len(edges) - 1)]
        return local, _told(np.bincount(inside, minlength=len(edges) - 1), self.once)


@dataclass(frozen=True)
class Spell(Skill):
    """Count which letter follows: takes ``{"prefixes": [k, depth]}`` uint8 (UTF-8), gives counts ``[k, 257]`` int64 of
    the party's texts that begin with each prefix, by their next byte; 256 is the end.

    Attributes:
        column: of the party's data: texts without a zero byte.
        per_user: texts that count at most.
        once: the same text at most once.

    Raises:
        ConfigError: nothing may count.
    """

    column: str
    per_user: int
    once: bool = False

    def __post_init__(self) -> None:
        _some(self.per_user)

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Count.

        Raises:
            DataError: prefixes of another form.
        """
        prefixes = np.asarray(tree["prefixes"])
        if prefixes.ndim != 2 or prefixes.dtype != np.uint8:
            raise DataError(f"{sender} asked for prefixes that are {prefixes.dtype}", "send [k, depth] uint8")
        row = {prefix.tobytes(): i for i, prefix in enumerate(prefixes)}
        depth, counts = prefixes.shape[1], np.zeros((len(prefixes), _END + 1), np.int64)
        texts = [str(text) for text in _column(local, self.column)]
        texts = sorted(set(texts)) if self.once else texts
        for text in _drawn(np.array(texts, object), self.per_user, key):
            coded = text.encode()
            if len(coded) >= depth and coded[:depth] in row:
                counts[row[coded[:depth]], coded[depth] if len(coded) > depth else _END] += 1
        return local, _told(counts, False)


@dataclass(frozen=True)
class Survey:
    """How a question reaches a fleet and its answers come together.

    Attributes:
        aggregator: gives the mean of answers that all weigh 1.
        gate: what an answer must pass; a bound on its norm keeps one device from drowning the others.
        collect: in the clear, secure, or in tiers.
        deadline: seconds after which a question goes on without those who have not answered.
    """

    aggregator: Aggregator[Any]
    gate: Gate
    collect: Collect = field(default_factory=Plain)
    deadline: float | None = None

    async def total(
        self, fleet: Group, skill: Skill, message: Tree, shape: tuple[int, ...], *, key: Key
    ) -> tuple[NDArray[np.int64], int]:
        """The sum of all devices' counts, and how many devices it is of."""
        mean, replies = await self.collect.gather(
            fleet,
            list(fleet.names),
            skill,
            lambda peer: message,
            gate=self.gate,
            aggregator=self.aggregator,
            decode=lambda tree: tree,
            like={"counts": np.zeros(shape, np.int64)},
            key=key,
            deadline=self.deadline,
        )
        answered = sum(reply.failure is None for reply in replies)
        if mean is None:
            return np.zeros(shape, np.int64), 0
        return np.rint(np.asarray(mean["counts"], np.float64) * answered).astype(np.int64), answered

    async def histogram(self, fleet: Group, edges: ArrayLike, *, tally: Tally, key: Key) -> NDArray[np.int64]:
        """Counts ``[k]`` by bin, of the edges ``[k + 1]``.

        Raises:
            ConfigError: edges that do not rise.
        """
        sides = np.asarray(edges, np.float64)
        if sides.ndim != 1 or len(sides) < 2 or not (np.diff(sides) > 0).all():
            raise ConfigError(f"edges of shape {sides.shape} that do not rise", "give two at least, rising")
        return (await self.total(fleet, tally, {"edges": sides}, (len(sides) - 1,), key=key))[0]

    async def counts(self, fleet: Group, classes: int, *, tally: Tally, key: Key) -> NDArray[np.int64]:
        """Counts ``[classes]`` of the integers from 0, ``classes`` not included."""
        return await self.histogram(fleet, np.arange(classes + 1) - 0.5, tally=tally, key=key)

    async def quantiles(
        self,
        fleet: Group,
        shares: Sequence[float],
        *,
        low: float,
        high: float,
        resolution: float,
        tally: Tally,
        key: Key,
    ) -> NDArray[np.float64]:
        """For each share the value below or at which so much of all values lies, to within ``resolution`` (numpy's
        "inverted_cdf"); of values outside ``low`` to ``high`` is known only on which side they are.

        One question narrows every quantile 16-fold; the same values count in each of them.

        Raises:
            ConfigError: a share outside 0..1, a range that is none, or a resolution that is not positive.
            DataError: nobody answered, or nobody has values.
        """
        if not all(0 <= share <= 1 for share in shares):
            raise ConfigError(f"quantiles {list(shares)}", "use shares from 0 to 1")
        if not (math.isfinite(low) and math.isfinite(high) and low < high and resolution > 0):
            raise ConfigError(
                f"{low} to {high} at a resolution of {resolution}", "give a range and a positive resolution"
            )
        spans = [(low, high)] * len(shares)
        while max((top - bottom for bottom, top in spans), default=0.0) > resolution:
            inner = [np.linspace(bottom, top, 17) for bottom, top in dict.fromkeys(spans)]
            edges = np.unique(np.concatenate([[-np.inf], *inner, [np.inf]]))
            found = await self.histogram(fleet, edges, tally=tally, key=key)
            if not found.sum():
                raise DataError("quantiles of no values", "ask devices that have some")
            below = np.cumsum(found)
            narrowed = []
            for share in shares:
                at = int(np.searchsorted(below, max(1, math.ceil(share * below[-1] - 1e-9))))
                narrowed.append((max(low, min(edges[at], high)), min(high, max(edges[at + 1], low))))
            if narrowed == spans:
                break  # as close as numbers come
            spans = narrowed
        return np.array([(bottom + top) / 2 for bottom, top in spans])

    async def heavy_hitters(
        self, fleet: Group, threshold: int, *, spell: Spell, key: Key, longest: int = 64, widest: int = 1000
    ) -> Mapping[str, int]:
        """The texts that are counted ``threshold`` times or more, most frequent first, with their counts.

        The same texts of a user count at every letter, so a text that is frequent has only frequent beginnings and is
        found.

        Args:
            threshold: 1 tells every text of everybody, so use more.
            longest: bytes of a text that is looked for.
            widest: prefixes asked for at once; a question beyond it is an error, not a cut.

        Raises:
            ConfigError: a threshold below 1.
            DataError: more frequent prefixes than ``widest``.
        """
        if threshold < 1:
            raise ConfigError(f"texts that are there {threshold} times", "use a threshold from 1")
        open_, found = [b""], dict[str, int]()
        for depth in range(longest + 1):
            if not open_:
                break
            if len(open_) > widest:
                raise DataError(f"{len(open_)} prefixes are frequent", "raise the threshold, or widest")
            prefixes = np.frombuffer(b"".join(open_), np.uint8).reshape(len(open_), depth)
            counts, _ = await self.total(fleet, spell, {"prefixes": prefixes}, (len(open_), _END + 1), key=key)
            for prefix, row in zip(open_, counts, strict=True):
                if row[_END] >= threshold:
                    found[prefix.decode(errors="replace")] = int(row[_END])
            open_ = [
                prefix + bytes([letter])
                for prefix, row in zip(open_, counts, strict=True)
                for letter in np.flatnonzero(row[:_END] >= threshold).tolist()
            ]
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _some(per_user: int) -> None:
    if per_user < 1:
        raise ConfigError(f"{per_user} values of a user count", "let one count at least")


def _column(local: Local, column: str) -> Any:
    data = local.data
    found = data.get(column) if isinstance(data, Mapping) else getattr(data, column, None)
    if found is None:
        raise DataError(f"the data has no column {column!r}", "offer a skill of one that is there")
    return found


def _drawn(values: ArrayLike, most: int, key: Key) -> NDArray[Any]:
    """At most so many of them, each equally likely."""
    all_ = np.asarray(values).reshape(-1)
    return all_ if len(all_) <= most else all_[np.sort(rng((*key, "drawn")).choice(len(all_), most, replace=False))]


def _told(counts: NDArray[np.int64], once: bool) -> Tree:
    counts = np.minimum(counts, 1) if once else counts
    return {"delta": {"counts": counts.astype(np.int64)}, "weight": np.float64(1)}
