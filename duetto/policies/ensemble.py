"""Uncertainty by several opinions: an ensemble of small models, or one with dropout left on.

Deep ensembles: Lakshminarayanan, Pritzel, Blundell 2017. Dropout as samples: Gal & Ghahramani 2016. The part of the
uncertainty that more knowledge could remove is the mutual information of answer and member (BALD, Houlsby et al. 2011).
An ensemble of five costs five times the device's compute: what it saves in calls must be worth that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.policies.gain import priced, worthwhile
from duetto.policies.scores import confidence
from duetto.policies.threshold import sure, unanswered
from duetto.types import Held, Key, Move, Outcomes, Policy, Seen

OPINIONS = ("agreement", "information", "own", "pairs", "votes")
_TINY = 1e-6  # of a vote or a pair: mean probabilities tell ties apart


@dataclass(frozen=True)
class Ensemble(Policy[Mapping[str, Any]]):
    """Ask where the members do not stand behind the device's own answer.

    The members' logits are ``seen.scores [n, k, classes]``; the device's own answer, ``seen.answer``, is what is given
    where it is kept. Without members, the own answer is the only one.

    - ``own``: the members' mean probability of the own answer.
    - ``votes``: the share of members that give the own answer; ties by ``own``.
    - ``agreement``: minus the entropy of the mean, as a share of the largest one, plus 1.
    - ``information``: minus the mutual information of answer and member, in nats.
    - ``pairs``: minus the expected share of pairs of members that answer differently; ties by ``own``.

    State: ``threshold``, float64 scalar; before fitting inf, which always asks.

    Args:
        measure: one of :data:`OPINIONS`.
        price: of a call, in units of quality.

    Raises:
        ConfigError: an unknown measure, or a price that is not finite.
    """

    measure: str = "own"
    price: float = 0.0

    def __post_init__(self) -> None:
        if self.measure not in OPINIONS:
            raise ConfigError(f"no measure is called {self.measure!r}", f"use one of {', '.join(OPINIONS)}")
        priced(self.price)

    def init(self) -> Mapping[str, Any]:
        """Not fitted: always asks."""
        return {"threshold": np.array(np.inf)}

    def fit(self, outcomes: Outcomes) -> Held[Mapping[str, Any]]:
        """The threshold below which asking pays; see :func:`duetto.policies.gain.worthwhile`.

        Raises:
            DataError: no answers, members of another shape, or logits that are not finite.
        """
        scores = self.scores(self.init(), outcomes.seen)
        threshold = worthwhile(scores, outcomes.gain, outcomes.shares, self.price)
        return Held(self, {"threshold": np.array(threshold)})

    def choose(self, state: Mapping[str, Any], seen: Seen, key: Key) -> tuple[Mapping[str, Any], Move]:
        """Stop, go on or ask, item by item."""
        if (move := unanswered(seen)) is not None:
            return state, move
        at = float(state["threshold"])
        return state, sure(self.scores(state, seen) >= at, f"the members' {self.measure} against {at:.4g}")

    def scores(self, state: Mapping[str, Any], seen: Seen) -> np.ndarray:
        """How far the members stand behind the own answer, ``[n]``.

        Raises:
            DataError: no answers, members of another shape, or logits that are not finite.
        """
        members = _members(seen)
        own = np.asarray(seen.answer).argmax(1)
        log = members - _log_total(members)
        probability = np.exp(log)
        behind = probability[np.arange(len(own)), :, own].mean(1)
        if self.measure == "own":
            return np.asarray(behind)
        if self.measure in ("votes", "pairs"):
            said, k = members.argmax(2), members.shape[1]
            if self.measure == "votes":
                return np.asarray((said == own[:, None]).mean(1) + _TINY * behind)
            count = (said[:, :, None] == np.arange(members.shape[2])).sum(1)
            alike = (count * (count - 1)).sum(1) / max(1, k * (k - 1)) if k > 1 else np.ones(len(own))
            return np.asarray(alike - 1 + _TINY * behind)
        mean = probability.mean(1)
        whole = _entropy(mean)
        if self.measure == "agreement":
            return np.asarray(1 - whole / np.log(max(2, members.shape[2])))
        return np.asarray(np.minimum(-(whole - (-(probability * np.maximum(log, -700)).sum(2)).mean(1)), 0))


def _members(seen: Seen) -> np.ndarray:
    """``[n, k, classes]`` float64, finite."""
    confidence(seen.answer)  # refuses what is missing, NaN or of another shape
    answer = np.asarray(seen.answer, np.float64)
    if seen.scores is None:
        return answer[:, None]
    members = np.asarray(seen.scores, np.float64)
    if members.ndim != 3 or not members.shape[1] or (len(members), members.shape[2]) != answer.shape:
        raise DataError(
            f"members' logits of shape {members.shape} beside answers {answer.shape}", "give [n, members, classes]"
        )
    if not np.isfinite(members).all():
        raise DataError("members' logits that are NaN or infinite", "a member diverged or its input is corrupt")
    return members


def _log_total(logits: np.ndarray) -> np.ndarray:
    largest = logits.max(2, keepdims=True)
    return np.asarray(largest + np.log(np.exp(logits - largest).sum(2, keepdims=True)))


def _entropy(share: np.ndarray) -> np.ndarray:
    return np.asarray(-(share * np.log(np.where(share > 0, share, 1))).sum(1))
