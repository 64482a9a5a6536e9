"""A call budget that holds while the stream drifts.

Items are ranked by an inner policy's score among the latest ones; a threshold on that scale, 0..1, moves after each
of them by ``step * (offload_rate - asked)``. It is the online quantile tracker behind adaptive conformal inference
(Gibbs & Candes 2021), and it promises the rate without any assumption about the stream. Let p be the rate, s the
step, and start at p. The moves add up to ``threshold = p + s * (p * n - asked)``. An item is asked only where the
threshold is above its rank, so above 0: after it, the threshold is above ``-s * (1 - p)``. An item is kept only
where the threshold is at most its rank, so at most 1: after it, it is at most ``1 + s * p``. So after n items,
**for every sequence of scores**,

    asked - p * n  <  p / s + 1 - p        and        p * n - asked  <=  (1 - p) / s + p,

that is, within ``(1 / s + 1) / n`` of the rate. The window of latest scores is not needed for that: it keeps "the
least sure" meaningful when scores drift, as the threshold is compared with ranks, not with scores of yesterday. A
small step asks for the least sure more strictly; a large one makes up for bursts faster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from duetto.errors import ConfigError
from duetto.policies.scores import Scored
from duetto.policies.threshold import sure, unanswered
from duetto.types import Held, Key, Move, Outcomes, Policy, Seen

_GOLDEN = (5**0.5 - 1) / 2  # its multiples, modulo 1, spread evenly at every length


@dataclass(frozen=True)
class Budgeted(Policy[Mapping[str, Any]]):
    """Ask for the share ``offload_rate`` of the answers, those that the inner policy is least sure of.

    The inner policy's own threshold is not used. What has no answer to judge (see
    :func:`duetto.policies.threshold.unanswered`) is passed on and not counted. A rate of 0 never asks, 1 always
    asks. An item is decided from those before it, so that an array is the same as its items one by one.

    State: ``inner``; ``window`` (``[k]`` float64, the latest scores, oldest first); ``seen`` and ``asked`` (int64
    scalars).

    Args:
        inner: a policy with a score, such as ``Threshold`` or ``Calibrated``.
        offload_rate: share asked, 0..1.
        step: how far one item moves the threshold on the scale of ranks, above 0 and at most 1.
        window: how many latest scores an item is ranked among.

    Raises:
        ConfigError: an inner policy without a score, or a number out of range.
    """

    inner: Policy[Any]
    offload_rate: float
    step: float = 0.02
    window: int = 512

    def __post_init__(self) -> None:
        if not isinstance(self.inner, Scored):
            raise ConfigError(f"{type(self.inner).__name__} has no score to rank by", "use Threshold or Calibrated")
        if not 0 <= self.offload_rate <= 1:
            raise ConfigError(f"an offload rate of {self.offload_rate}", "use a share from 0 to 1")
        if not 0 < self.step <= 1:
            raise ConfigError(f"a step of {self.step}", "use a number above 0 and at most 1")
        if self.window < 1:
            raise ConfigError(f"a window of {self.window}", "use at least 1")

    def init(self) -> Mapping[str, Any]:
        """Nothing fitted or seen: the first item ranks in the middle."""
        return self._state(self.inner.init(), np.zeros(0))

    def fit(self, outcomes: Outcomes) -> Held[Mapping[str, Any]]:
        """Fit the inner policy where it can be, and start at the ``offload_rate`` quantile of these items' scores.

        An inner policy that cannot be fitted reads what is seen of the items and nothing else of ``outcomes``.

        Raises:
            Error: those of the inner ``fit``.
        """
        fit = getattr(self.inner, "fit", None)
        inner = self.inner.init() if fit is None else fit(outcomes).state
        scores = np.sort(self._scores(inner, outcomes.seen))
        thinned = scores[np.linspace(0, len(scores) - 1, min(len(scores), self.window)).round().astype(int)]
        # What leaves the window first is spread over all scores, so that what is left stays a fair sample.
        return Held(self, self._state(inner, thinned[np.argsort(np.arange(len(thinned)) * _GOLDEN % 1)]))

    def choose(self, state: Mapping[str, Any], seen: Seen, key: Key) -> tuple[Mapping[str, Any], Move]:
        """Stop or ask, item after item."""
        if (move := unanswered(seen)) is not None:
            return state, move
        window, items, asked = state["window"], int(state["seen"]), int(state["asked"])
        rate, keep = self.offload_rate, []
        for score in self._scores(state["inner"], seen).tolist():
            below, above = np.count_nonzero(window < score), np.count_nonzero(window > score)
            # Its rank is the middle of those that are equal.
            rank = (below + len(window) - above) / 2 / len(window) if len(window) else 0.5
            # A rank reaches 1, as does the threshold of a rate of 1, which is to ask always.
            keep.append(rate < 1 and rank >= rate + self.step * (rate * items - asked))
            items, asked = items + 1, asked + (not keep[-1])
            window = np.concatenate((window[max(0, len(window) + 1 - self.window) :], (score,)))
        after = {"inner": state["inner"], "window": window}
        counts = {"seen": np.array(items), "asked": np.array(asked)}
        return {**after, **counts}, sure(np.array(keep, bool), f"the budget of {rate:.4g} of all")

    def _scores(self, inner: Any, seen: Seen) -> np.ndarray:
        assert isinstance(self.inner, Scored)
        return self.inner.scores(inner, seen)

    def _state(self, inner: Any, window: np.ndarray) -> Mapping[str, Any]:
        return {"inner": inner, "window": window, "seen": np.array(0), "asked": np.array(0)}
