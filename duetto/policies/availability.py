"""Device or cloud by what is available, not by quality: the four modes known from hybrid inference SDKs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from duetto.policies.threshold import unanswered
from duetto.tree import Tree
from duetto.types import Action, Key, Move, Policy, Seen


@dataclass(frozen=True)
class OnlyOnDevice(Policy[Tree]):
    """Never ask; where the device has no model, stop without an answer."""

    def choose(self, state: Tree, seen: Seen, key: Key) -> tuple[Tree, Move]:
        """Go on before the model has run, then stop."""
        start = seen.answer is None and seen.stage == 0
        return state, Move.sure(np.full(_items(seen), Action.GO if start else Action.STOP), "only on the device")


@dataclass(frozen=True)
class PreferOnDevice(Policy[Tree]):
    """Answer on the device; ask only where it has no model."""

    def choose(self, state: Tree, seen: Seen, key: Key) -> tuple[Tree, Move]:
        """Go on before the model has run, then stop, or ask where there was none."""
        kept = Move.sure(np.full(_items(seen), Action.STOP), "the device is preferred")
        return state, unanswered(seen) or kept


@dataclass(frozen=True)
class PreferInCloud(Policy[Tree]):
    """Ask at once when online; offline, answer on the device. Not knowing counts as online."""

    def choose(self, state: Tree, seen: Seen, key: Key) -> tuple[Tree, Move]:
        """Ask or go on at stage 0; later keep the device's answer, and ask where it has none."""
        if seen.stage == 0:
            return state, Move.sure(np.where(online(seen), Action.ASK, Action.GO), "the cloud is preferred")
        kept = Move.sure(np.full(_items(seen), Action.STOP), "the cloud was out of reach")
        return state, unanswered(seen) or kept


@dataclass(frozen=True)
class OnlyInCloud(Policy[Tree]):
    """Always ask."""

    def choose(self, state: Tree, seen: Seen, key: Key) -> tuple[Tree, Move]:
        """Ask, at every stage."""
        return state, Move.sure(np.full(_items(seen), Action.ASK), "only in the cloud")


MODES: Mapping[str, Policy[Any]] = MappingProxyType(
    {
        "only_in_cloud": OnlyInCloud(),
        "only_on_device": OnlyOnDevice(),
        "prefer_in_cloud": PreferInCloud(),
        "prefer_on_device": PreferOnDevice(),
    }
)
"""The modes by the names that SDKs give them."""


def online(seen: Seen) -> np.ndarray:
    """Which items' parties are online, ``[n]`` bool; all of them where it is not known."""
    column = (seen.traits or {} if seen.link is None else seen.link).get("online")
    return np.ones(_items(seen), bool) if column is None else np.atleast_1d(np.asarray(column, bool))


def _items(seen: Seen) -> int:
    return seen.size if seen.answer is None else len(seen.answer)
