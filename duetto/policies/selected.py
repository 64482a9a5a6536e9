"""The router that did best on users it was not fitted on: chosen by cross-validation over users (Stone 1974).

A learned router wins where it has something to learn and loses where it has not; which it is, the calibration users
tell. Candidates without a ``fit``, such as a plain threshold, take part as they are, so that with little to learn from
the choice falls back on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from duetto.errors import ConfigError
from duetto.policies.price import priced, worthwhile
from duetto.policies.scores import Scored, confidence
from duetto.policies.threshold import sure, unanswered
from duetto.types import Held, Key, Move, Outcomes, Policy, Seen, rng


@dataclass(frozen=True)
class Selected(Policy[Mapping[str, Any]]):
    """Ask by the score of the candidate with the largest area under its curve on held-out users.

    A later candidate replaces an earlier one only where it is ahead by more than ``caution`` standard errors over the
    folds: put the simple ones first.

    State: ``threshold`` (float64 scalar on the chosen one's scale), ``which`` (int64 scalar) and ``inner``, the chosen
    one's state. Before fitting it always asks.

    Args:
        candidates: routers with a score, the simplest first.
        folds: of users; as many as there are users where there are fewer.
        caution: standard errors, at least 0.
        price: of a call, in units of quality.

    Raises:
        ConfigError: no candidates, one without a score, fewer than two folds, or a negative caution.
    """

    candidates: tuple[Policy[Any], ...]
    folds: int = 5
    caution: float = 1.0
    price: float = 0.0

    def __post_init__(self) -> None:
        without = [type(each).__name__ for each in self.candidates if not isinstance(each, Scored)]
        if not self.candidates or without:
            raise ConfigError(f"candidates without a score: {without or 'none at all'}", "give routers with scores")
        if self.folds < 2 or not self.caution >= 0:
            raise ConfigError(f"{self.folds} folds, caution {self.caution}", "use at least 2 folds, and 0 or more")
        priced(self.price)

    def init(self) -> Mapping[str, Any]:
        """Not fitted: always asks."""
        return {"threshold": np.array(np.inf), "which": np.array(0), "inner": self.candidates[0].init()}

    def fit(self, outcomes: Outcomes) -> Held[Mapping[str, Any]]:
        """Choose, then fit the chosen one on all; its threshold from the held-out scores where that is what it needs.

        Raises:
            DataError: as the candidates' own ``fit``.
        """
        areas = self.areas(outcomes)
        which = 0
        for i in range(1, len(self.candidates)):
            ahead = areas[i] - areas[which]
            error = ahead.std(ddof=1) / np.sqrt(len(ahead)) if len(ahead) > 1 else np.inf
            if ahead.mean() > self.caution * error:
                which = i
        chosen = self.candidates[which]
        inner = _fitted(chosen, outcomes)
        scores = _scores(chosen, inner, outcomes.seen)
        threshold = worthwhile(scores, outcomes.gain, outcomes.shares, self.price)
        return Held(self, {"threshold": np.array(threshold), "which": np.array(which), "inner": inner})

    def areas(self, outcomes: Outcomes) -> np.ndarray:
        """Area under each candidate's curve of quality over ask share on each fold's users, ``[candidates, folds]``."""
        users = np.arange(len(outcomes)) if outcomes.users is None else outcomes.users
        names, which = np.unique(users, return_inverse=True)
        folds = min(self.folds, len(names))
        if folds < 2:
            return np.zeros((len(self.candidates), 1))
        fold = (rng(("selected", len(names), folds)).permutation(len(names)) % folds)[which]
        found = np.empty((len(self.candidates), folds))
        for f in range(folds):
            rest, held = outcomes.rows(fold != f), outcomes.rows(fold == f)
            for i, candidate in enumerate(self.candidates):
                scores = _scores(candidate, _fitted(candidate, rest), held.seen)
                found[i, f] = _area(scores, held.gain, held.shares)
        return found

    def choose(self, state: Mapping[str, Any], seen: Seen, key: Key) -> tuple[Mapping[str, Any], Move]:
        """Stop, go on or ask, item by item."""
        if (move := unanswered(seen)) is not None:
            return state, move
        chosen, at = self.candidates[int(state["which"])], float(state["threshold"])
        return state, sure(self.scores(state, seen) >= at, f"the score of {type(chosen).__name__} against {at:.4g}")

    def scores(self, state: Mapping[str, Any], seen: Seen) -> np.ndarray:
        """The chosen one's score, ``[n]``.

        Raises:
            DataError: as the chosen one's.
        """
        confidence(seen.answer)
        return _scores(self.candidates[int(state["which"])], state["inner"], seen)


def _fitted(candidate: Policy[Any], outcomes: Outcomes) -> Any:
    fit = getattr(candidate, "fit", None)
    return candidate.init() if fit is None else fit(outcomes).state


def _scores(candidate: Policy[Any], state: Any, seen: Seen) -> np.ndarray:
    assert isinstance(candidate, Scored)
    return candidate.scores(state, seen)


def _area(scores: np.ndarray, gain: np.ndarray, shares: np.ndarray) -> float:
    """The mean gain over all ask shares, the lowest scores asked first; items of equal score go together."""
    order = np.argsort(scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    asked = np.append(0.0, np.cumsum(shares[order])[ends])
    won = np.append(0.0, np.cumsum((shares * gain)[order])[ends])
    return float((np.diff(asked) * (won[1:] + won[:-1]) / 2).sum())
