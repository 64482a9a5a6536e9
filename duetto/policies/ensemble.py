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

from duetto.errors import ConfigError
from duetto.policies.opinions import OPINIONS, members_of, opinion
from duetto.policies.price import priced, worthwhile
from duetto.policies.threshold import sure, unanswered
from duetto.types import Held, Key, Move, Outcomes, Policy, Seen


@dataclass(frozen=True)
class Ensemble(Policy[Mapping[str, Any]]):
    """Ask where the members do not stand behind the device's own answer.

    The members' logits are ``seen.scores [n, k, classes]``; the device's own answer, ``seen.answer``, is what is given
    where it is kept. Without members, the own answer is the only one.

    :func:`duetto.policies.opinions.opinion` says what the measures are.

    State: ``threshold``, float64 scalar; before fitting inf, which always asks.

    Args:
        measure: one of :data:`duetto.policies.OPINIONS`.
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
        """The threshold below which asking pays; see :func:`duetto.policies.price.worthwhile`.

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
        return opinion(np.asarray(seen.answer).argmax(1), members_of(seen), self.measure)
