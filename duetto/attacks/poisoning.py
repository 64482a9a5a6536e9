"""Malicious clients: an honest skill, some of whose parties lie.

``replace(algorithm, client=Poisoned(algorithm.client, SignFlip(2.0), frozenset({"user-3"})))`` puts them into any
algorithm, whatever its protocol, codecs and defence; attacks add up by wrapping twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from duetto import tree as trees
from duetto.errors import ConfigError, DataError, Error
from duetto.tree import Array, Tree
from duetto.types import Key, Local, Rows, Skill, Work, rng


class Attack:
    """What a malicious client does; a frozen dataclass. By default nothing."""

    def spoil(self, data: Any) -> Any:
        """What it works on instead of its data."""
        return data

    def lie(self, said: Sequence[Tree], keys: Sequence[Key]) -> Sequence[Tree]:
        """What the malicious clients of a call answer, who know what all of them would have said."""
        return said


@dataclass(frozen=True)
class Poisoned(Skill):
    """``skill``, at the use of which the parties in ``names`` are malicious and all others honest.

    A party is known by the last part of the key, which in rounds is the name of the peer that is asked. To codecs
    it is the skill inside: poison what goes into a codec, not what comes out of it (``Coded(Poisoned(skill, ...))``).

    Raises:
        ConfigError: names that are not a frozen set.
    """

    skill: Skill
    attack: Attack
    names: frozenset[str]

    def __post_init__(self) -> None:
        if not isinstance(self.names, frozenset):
            raise ConfigError(f"malicious names in a {type(self.names).__name__}", "give a frozenset of names")

    @property
    def name(self) -> str:
        """The name of the skill inside: a malicious client calls itself like any other."""
        return self.skill.name

    @property
    def writes(self) -> bool:
        """Where the skill writes."""
        return self.skill.writes

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Use the skill; a malicious party does so on spoilt data, and lies."""
        after, said = self.skill(self._seen(local, key), tree, key, sender)
        if key[-1] in self.names:
            (said,) = self.attack.lie([said], [key])
        return Local(local.data, after.memory), said

    def many(
        self, locals: Sequence[Local], trees: Sequence[Tree], keys: Sequence[Key], senders: Sequence[str]
    ) -> Sequence[tuple[Local, Tree] | Error]:
        """Use the skill for all at once; the malicious parties of the call may collude."""
        seen = [self._seen(local, key) for local, key in zip(locals, keys, strict=True)]
        results = self.skill.many(seen, trees, keys, senders)
        answers = {i: result for i, result in enumerate(results) if not isinstance(result, Error)}
        said = {i: answer for i, (_, answer) in answers.items()}
        if liars := [i for i in said if keys[i][-1] in self.names]:
            lies = self.attack.lie([said[i] for i in liars], [keys[i] for i in liars])
            said.update(zip(liars, lies, strict=True))
        return [
            result if isinstance(result, Error) else (Local(locals[i].data, result[0].memory), said[i])
            for i, result in enumerate(results)
        ]

    def work(self, local: Local, tree: Tree) -> Work:
        """The skill's; malice is free."""
        return self.skill.work(local, tree)

    def group(self, local: Local, tree: Tree) -> Any:
        """The skill's."""
        return self.skill.group(local, tree)

    def _seen(self, local: Local, key: Key) -> Local:
        return Local(self.attack.spoil(local.data), local.memory) if key[-1] in self.names else local


@dataclass(frozen=True)
class SignFlip(Attack):
    """The honest delta times ``-scale`` (Li, Xu, Chen, Giannakis, Ling: RSA, AAAI 2019)."""

    scale: float

    def lie(self, said: Sequence[Tree], keys: Sequence[Key]) -> Sequence[Tree]:
        """Each its own."""
        return [changed(lambda at, leaf: -self.scale * leaf, each) for each in said]


@dataclass(frozen=True)
class NaN(Attack):
    """Nothing but NaN: what one broken device sends, and what breaks every mean."""

    def lie(self, said: Sequence[Tree], keys: Sequence[Key]) -> Sequence[Tree]:
        """All the same."""
        return [changed(lambda at, leaf: leaf * np.nan, each) for each in said]


@dataclass(frozen=True)
class Gaussian(Attack):
    """Noise instead of a delta, of standard deviation ``scale`` (Blanchard et al.: Krum, NeurIPS 2017)."""

    scale: float

    def lie(self, said: Sequence[Tree], keys: Sequence[Key]) -> Sequence[Tree]:
        """Each its own, by its key."""

        def noisy(answer: Tree, key: Key) -> Tree:
            return changed(lambda at, leaf: self.scale * rng((*key, "poison", at)).normal(size=leaf.shape), answer)

        return [noisy(*each) for each in zip(said, keys, strict=True)]


@dataclass(frozen=True)
class Boast(Attack):
    """The honest delta, said to come from ``weight`` examples; wrap another attack to say something else so loudly.

    Raises:
        DataError: in use, where the answer has no weight.
    """

    weight: float

    def lie(self, said: Sequence[Tree], keys: Sequence[Key]) -> Sequence[Tree]:
        """All the same weight."""
        if any(not isinstance(each, Mapping) or "weight" not in each for each in said):
            raise DataError("an answer without a weight to boast of", "use this attack on a client that trains")
        return [{**each, "weight": np.float64(self.weight)} for each in said]


@dataclass(frozen=True)
class LabelFlip(Attack):
    """Honest work on labels ``classes - 1 - y`` (Fang, Cao, Jia, Gong: Local Model Poisoning Attacks, USENIX 2020).

    Where the cloud is the only teacher, nobody reads the labels, and it does nothing.

    Raises:
        DataError: in use, where the data has no labels.
    """

    classes: int

    def spoil(self, data: Any) -> Any:
        """The same rows, otherwise labelled."""
        if not isinstance(data, Rows):
            raise DataError(f"labels to flip in a {type(data).__name__}", "use this attack on labelled rows")
        return replace(data, y=self.classes - 1 - data.y)


def changed(function: Callable[..., Array], said: Tree, *others: Tree) -> Tree:
    """An answer with ``function(pointer, leaf, *leaves of others)`` of the floating leaves of its delta.

    An answer without a delta is changed as a whole; other leaves stay, and floating ones keep their dtype.
    """

    def leaf(pointer: str, *leaves: Array) -> Array:
        first = np.asarray(leaves[0])
        if first.dtype.kind != "f":
            return first
        with np.errstate(over="ignore"):  # an attacker does not mind
            return np.asarray(function(pointer, *leaves), first.dtype)

    deltas = [each["delta"] if isinstance(each, Mapping) and "delta" in each else each for each in (said, *others)]
    lie = trees.pointed(leaf, *deltas)
    return lie if deltas[0] is said else {**said, "delta": lie}
