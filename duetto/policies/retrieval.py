"""A memory of what the cloud answered: an input that is close to a remembered one needs no call.

Nearest neighbours within a radius (the retrieval of Guha et al. 2024 and of semantic caches), forgotten when least
recently used. Distances are Euclidean over ``seen.features``, or over the device's own logits where there are none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.policies.threshold import unanswered
from duetto.tree import Array
from duetto.types import Action, Key, Move, Policy, Seen


@dataclass(frozen=True)
class Retrieval(Policy[Mapping[str, Any]]):
    """Stop where the cloud has answered something alike, else do as the inner policy does, or ask.

    A hit is a STOP whose answer is not the device's: :meth:`remembered` says which items are hits and what the cloud
    answered. So a caller asks it first, with the state *before* choosing (or after: choosing forgets nothing), and
    gives that answer; ``why`` says "remembered" where an item of the array is a hit. :meth:`learn` is told the
    cloud's answers as the reward.

    State: ``inner``; ``keys [m, d]`` and ``answers [m, classes]`` float32; ``used [m]`` int64, when each was last
    useful; ``clock`` int64 scalar. It starts empty and never holds more than ``capacity`` rows.

    Args:
        radius: the largest distance of a hit; 0 takes only the very same.
        capacity: remembered answers.
        inner: decides what is not remembered; None asks.

    Raises:
        ConfigError: a negative or infinite radius, or no capacity.
    """

    radius: float
    capacity: int = 1024
    inner: Policy[Any] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.radius < math.inf or self.capacity < 1:
            raise ConfigError(f"a radius of {self.radius} and a capacity of {self.capacity}", "use 0 or more, and 1")

    def init(self) -> Mapping[str, Any]:
        """Nothing remembered."""
        return {
            "inner": {} if self.inner is None else self.inner.init(),
            "keys": np.zeros((0, 0), np.float32),
            "answers": np.zeros((0, 0), np.float32),
            "used": np.zeros(0, np.int64),
            "clock": np.array(0),
        }

    def choose(self, state: Mapping[str, Any], seen: Seen, key: Key) -> tuple[Mapping[str, Any], Move]:
        """Stop where there is a hit, which is thereby used; else the inner policy's move."""
        if self.inner is not None:
            inner, move = self.inner.choose(state["inner"], seen, key)
        else:
            inner, move = (
                state["inner"],
                unanswered(seen) or Move.sure(np.full(seen.size, Action.ASK), "not remembered"),
            )
        if seen.features is None and seen.answer is None:
            return {**state, "inner": inner}, move
        hit, nearest = self._nearest(state, seen)
        used, clock = state["used"].copy(), int(state["clock"])
        for at in nearest[hit].tolist():
            clock += 1
            used[at] = clock
        action = np.where(hit, np.int8(Action.STOP), move.action)
        why = "remembered" if hit.all() and len(hit) else f"remembered, or {move.why}" if hit.any() else move.why
        propensity = np.where(hit, 1.0, move.propensity)
        after = {**state, "inner": inner, "used": used, "clock": np.array(clock)}
        return after, Move(action, propensity, why, move.peer, move.plan)

    def remembered(self, state: Mapping[str, Any], seen: Seen) -> tuple[np.ndarray, np.ndarray]:
        """Which items are hits, ``[n]`` bool, and the cloud's answers, ``[n, classes]`` float32, NaN where none is.

        Raises:
            DataError: features of another width, or not finite.
        """
        hit, nearest = self._nearest(state, seen)
        answers = np.full((len(hit), state["answers"].shape[1]), np.nan, np.float32)
        answers[hit] = state["answers"][nearest[hit]]
        return hit, answers

    def learn(self, state: Mapping[str, Any], seen: Seen, move: Move, reward: Array) -> Mapping[str, Any]:
        """Remember what the cloud answered to the items that were asked, forgetting what was least recently used.

        Args:
            state: before.
            seen: the items.
            move: what was done; only what was asked is remembered.
            reward: ``[n, classes]`` the cloud's answers (or ``[n]`` numbers); a row that is not finite was not heard.

        Raises:
            DataError: answers of another shape than those remembered.
        """
        after = state
        if self.inner is not None and np.ndim(reward) == 1:
            after = {**after, "inner": self.inner.learn(after["inner"], seen, move, reward)}
        heard = np.asarray(reward, np.float32).reshape(seen.size, -1)
        told = np.isfinite(heard).all(1) & (np.asarray(move.action) == Action.ASK)
        if not told.any():
            return after
        keys, answers = _keys(seen)[told].astype(np.float32), heard[told]
        if len(after["keys"]):
            if keys.shape[1] != after["keys"].shape[1] or answers.shape[1] != after["answers"].shape[1]:
                raise DataError(
                    f"answers {answers.shape[1]} wide to inputs {keys.shape[1]} wide",
                    f"remembered are {after['answers'].shape[1]} and {after['keys'].shape[1]}",
                )
            keys = np.concatenate([after["keys"], keys])
            answers = np.concatenate([after["answers"], answers])
        clock = int(after["clock"]) + int(told.sum())
        used = np.append(after["used"], np.arange(int(after["clock"]) + 1, clock + 1))
        kept = np.sort(np.argsort(used, kind="stable")[-self.capacity :])
        return {**after, "keys": keys[kept], "answers": answers[kept], "used": used[kept], "clock": np.array(clock)}

    def _nearest(self, state: Mapping[str, Any], seen: Seen) -> tuple[np.ndarray, np.ndarray]:
        """Which items are hits, ``[n]`` bool, and where the nearest is, ``[n]``."""
        asked, keys = _keys(seen), state["keys"]
        if not len(keys):
            return np.zeros(len(asked), bool), np.zeros(len(asked), np.int64)
        if asked.shape[1] != keys.shape[1]:
            raise DataError(f"inputs {asked.shape[1]} wide", f"those remembered are {keys.shape[1]} wide")
        nearest, distance = np.empty(len(asked), np.int64), np.empty(len(asked))
        for i, row in enumerate(asked.astype(np.float32)):
            squares = ((keys - row) ** 2).sum(1)
            nearest[i] = squares.argmin()
            distance[i] = squares[nearest[i]]
        return distance <= self.radius**2, nearest


def _keys(seen: Seen) -> np.ndarray:
    given = np.asarray(seen.answer if seen.features is None else seen.features)
    if given.ndim != 2 or given.dtype.kind not in "fiub":
        raise DataError(f"inputs of shape {given.shape} to remember", "give features or answers [n, d]")
    if not np.isfinite(given).all():
        raise DataError("inputs that are NaN or infinite", "leave these items out")
    return given
