"""Checks a share of its own answers in the cloud, and moves the threshold until the loss is what was promised.

A calibration says nothing after a shift, but a disagreement with the large model can be seen without labels and costs
one right answer at most. So a share s of what would be kept is asked anyway: an *audit*. The threshold, on the scale
0..1 of the ranks of the calibration scores, moves after every item by

    step * (d / s - target),        d = factor * disagreement of this item where it was audited, else 0,

which is online gradient descent on the quantile (adaptive conformal inference, Gibbs & Candes 2021, arXiv 2106.00170)
with d / s in place of a loss that is only seen where it is paid for (inverse propensity; Horvitz & Thompson 1952).
Its expectation over the audits is the loss of the item without audits. The moves add up: at a threshold above 1
nothing is kept, so that it is at most 1 + step / s. Hence after n items, each learned from before the next,
**for every sequence**, with t the threshold at the start,

    mean of d / s  <=  target + (1 + step / s - t) / (step * n),

and the mean of factor * disagreement over what is kept is this in expectation. With a step of 0.002 it takes tens of
thousands of items for this bound to say much, and nothing is promised of a single user or of the next hundred items.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.policies.scores import Scored
from duetto.policies.threshold import unanswered
from duetto.tree import Array
from duetto.types import Action, Held, Key, Move, Outcomes, Policy, Seen, rng

_RANKS = 1024  # calibration scores that are remembered


@dataclass(frozen=True)
class Audited(Policy[Mapping[str, Any]]):
    """Ask below the threshold; above it stop, but ask a ``share`` anyway and learn from what comes back.

    ``Move.propensity`` is 1 for what is asked below the threshold, ``share`` for an audit and 1 - share for what is
    kept. :meth:`learn` takes as reward the *gain* of asking, ``[n]``: 1 where the cloud's answer differs from the
    device's and 0 where not, or where the truth is known the large model's quality less the small one's; NaN where
    nothing was heard. Rewards of what was not audited are not read.

    State: ``inner``; ``ranks`` (``[k]`` float64, scores that rise; empty before fitting), ``threshold`` (float64
    scalar on their scale, above 1 asks always), ``seen``, ``audits`` and ``learned`` (int64 scalars), ``paid``
    (float64 scalar, the sum of d / s).

    Args:
        inner: a policy with a score; one with a ``threshold`` in its state, such as ``RiskControlled``, is where this
            one starts, any other starts at "always ask".
        target: mean loss, 0..1.
        share: of the kept answers that are audited, between 0 and 1.
        step: how far an item moves the threshold, between 0 and 1.
        factor: what a disagreement costs, 0..1; 1 is the worst case. Less is an assumption: that among the inputs of
            tomorrow it costs no more than it was measured to cost.

    Raises:
        ConfigError: an inner policy without a score, or a number out of range.
    """

    inner: Policy[Any]
    target: float
    share: float = 0.05
    step: float = 0.002
    factor: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.inner, Scored):
            raise ConfigError(f"{type(self.inner).__name__} has no score to rank by", "use RiskControlled or Threshold")
        if not 0 <= self.target < 1:
            raise ConfigError(f"a target of {self.target}", "use a share from 0, below 1: 0.01 is one point")
        for name, value in (("share", self.share), ("step", self.step)):
            if not 0 < value < 1:
                raise ConfigError(f"{name}={value}", "use a number between 0 and 1")
        if not 0 < self.factor <= 1:
            raise ConfigError(f"factor={self.factor}", "use a share above 0, at most 1")

    def init(self) -> Mapping[str, Any]:
        """Not fitted: always asks, and has nothing to audit."""
        return self._begun(self.inner.init(), np.zeros(0), math.inf)

    def fit(self, outcomes: Outcomes) -> Held[Mapping[str, Any]]:
        """Fit the inner policy where it can be, remember how its scores are spread, and start at its threshold.

        Raises:
            Error: those of the inner ``fit``.
            DataError: scores that are not finite.
        """
        fit = getattr(self.inner, "fit", None)
        inner = self.inner.init() if fit is None else fit(outcomes).state
        scores = np.sort(self._scores(inner, outcomes.seen))
        if not np.isfinite(scores).all():
            raise DataError("scores that are NaN or infinite", "leave these items out; a score must tell who is surer")
        ranks = scores[np.linspace(0, len(scores) - 1, min(len(scores), _RANKS)).round().astype(int)]
        at = float(inner["threshold"]) if isinstance(inner, Mapping) and "threshold" in inner else math.inf
        return Held(self, self._begun(inner, ranks, at))

    def choose(self, state: Mapping[str, Any], seen: Seen, key: Key) -> tuple[Mapping[str, Any], Move]:
        """Stop or ask, item after item; audits are drawn by the key and how many items came before."""
        if (move := unanswered(seen)) is not None:
            return state, move
        first = int(state["seen"])
        keep = self._ranks(state, self._scores(state["inner"], seen)) >= float(state["threshold"])
        audit = keep & np.array([rng((*key, "audit", first + i)).random() < self.share for i in range(seen.size)], bool)
        action = np.where(keep & ~audit, Action.STOP, Action.ASK).astype(np.int8)
        propensity = np.where(audit, self.share, np.where(keep, 1 - self.share, 1.0))
        after = {"seen": np.array(first + seen.size), "audits": np.asarray(state["audits"] + audit.sum())}
        why = f"rank against {float(state['threshold']):.4g}, {self.share:.4g} of the kept audited"
        return {**state, **after}, Move(action, propensity, why)

    def learn(self, state: Mapping[str, Any], seen: Seen, move: Move, reward: Array) -> Mapping[str, Any]:
        """Move the threshold by what the audits say; an audit without an answer moves nothing.

        Raises:
            DataError: the reward of an audit above 1 or below -1.
        """
        if not len(state["ranks"]):
            return state
        audited, reward = audits(move), np.asarray(reward, np.float64)
        heard = ~(audited & np.isnan(reward))
        paid = np.where(audited & heard, reward, 0.0)
        if (np.abs(paid) > 1).any():
            raise DataError(
                "a reward outside -1..1", "give the gain of asking: large model's quality less the small one's"
            )
        paid, at = self.factor * paid[heard] / self.share, float(state["threshold"])
        for each in paid.tolist():
            at = max(0.0, at + self.step * (each - self.target))
        after = {"threshold": np.array(at), "learned": state["learned"] + len(paid), "paid": state["paid"] + paid.sum()}
        return {**state, **{name: np.asarray(value) for name, value in after.items()}}

    def scores(self, state: Mapping[str, Any], seen: Seen) -> np.ndarray:
        """The inner policy's scores, ``[n]``."""
        return self._scores(state["inner"], seen)

    def _scores(self, inner: Any, seen: Seen) -> np.ndarray:
        assert isinstance(self.inner, Scored)
        return self.inner.scores(inner, seen)

    def _ranks(self, state: Mapping[str, Any], scores: np.ndarray) -> np.ndarray:
        """``[n]`` in 0..1: the middle of where a score would stand among those remembered."""
        ranks = state["ranks"]
        if not len(ranks):
            return np.where(np.isnan(scores), -1.0, 0.5)
        both = np.searchsorted(ranks, scores, "left") + np.searchsorted(ranks, scores, "right")
        return np.where(np.isnan(scores), -1.0, both / (2 * len(ranks)))

    def _begun(self, inner: Any, ranks: np.ndarray, at: float) -> Mapping[str, Any]:
        # A threshold is a score that is kept: everything that ranks at least as high as it is.
        begin = 1.0 + 1e-9
        if len(ranks) and math.isfinite(at):
            begin = float(self._ranks({"ranks": ranks}, np.array([at]))[0])
        counts = {name: np.array(0) for name in ("seen", "audits", "learned")}
        return {"inner": inner, "ranks": ranks, "threshold": np.array(begin), "paid": np.array(0.0), **counts}


def audits(move: Move) -> np.ndarray:
    """``[n]`` bool: which items a move asks about only to check an answer that would have been kept."""
    return np.asarray((move.action == Action.ASK) & (np.asarray(move.propensity) < 1))
