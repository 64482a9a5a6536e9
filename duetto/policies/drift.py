"""Notices that inputs have changed, asks until it knows enough of the new ones, and calibrates anew.

Two signals are watched, both 0..1: the *confidence* of every answer (its largest probability) and the *disagreement*
with the cloud where it was asked. Three detectors, by the library river (the extra ``drift``):

- ``adwin``: two parts of a window whose means differ (Bifet & Gavalda 2007);
- ``page-hinkley``: a sum of deviations from the mean that grows too far (Page 1954);
- ``kswin``: the latest 30 of 100 values against the others, Kolmogorov-Smirnov (Raab, Heusinger & Schleif 2020); it is
  the slowest, about a millisecond a value.

A detector of river is an object, not a tree. So the state keeps the values since the last alarm, the latest
``window`` of them, and the detector is rebuilt from them when it is needed. A shift slower than the window is not
noticed. Detectors take the values to be independent: where one user's items come in a row, a new user may be a false
alarm. An alarm costs the answers that are asked for; it never loses accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from duetto.errors import ConfigError
from duetto.policies.audited import Audited, audits
from duetto.policies.scores import Scored, confidence
from duetto.policies.threshold import sure, unanswered
from duetto.tree import Array
from duetto.types import Action, Held, Key, Move, Outcomes, Policy, Seen

Detector: TypeAlias = Literal["adwin", "kswin", "page-hinkley"]
DETECTORS: tuple[str, ...] = get_args(Detector)
SIGNALS = ("confidence", "disagreement")

_SEED, _KSWIN = 0, 100  # river's KSWIN draws the values it compares with, from this many
# The sum of deviations at which Page-Hinkley raises an alarm. Without a change it passes t with probability
# exp(-2 * 0.005 * t / variance), so below 1e-3 for values in 0..1 of variance 0.035; river's 50 is never reached within
# a window of 2,000 by a change of less than 0.07.
_DEVIATION = 25.0
_KEEP = 8  # times ``fresh``: the latest answers that are remembered while a promise cannot be made yet


@dataclass(frozen=True)
class Watched(Policy[Mapping[str, Any]]):
    """The inner policy until an alarm; then ask always, and fit it again on ``fresh`` of the cloud's answers.

    If the promise of an inner ``RiskControlled`` cannot be made from them, it asks on and tries again after as many
    more. :meth:`learn` takes the gain of asking as reward, as :class:`~duetto.policies.audited.Audited` does; it
    needs river. ``seen.traits["user"]`` (integers from 0) says whose item each is; without it, or where there is one
    user only, every fresh answer counts as a user of its own, and what is promised anew is about items like these.

    State: ``inner``; ``confidence`` and ``disagreement`` (values since the last alarm, newest last); ``new`` (how many
    of each were not looked at); ``asking`` (0 or 1); ``answers`` (logits ``[m, classes]``), ``gains`` and ``owners``
    (``[m]``) of the fresh answers; ``learned``, ``alarms``, ``recalibrated``, ``signal`` (whose the last alarm was)
    and ``since`` (items before it), int64 scalars.

    Args:
        inner: a policy with a score and a ``fit``, such as ``RiskControlled`` or ``Audited``.
        detector: "adwin", "kswin" or "page-hinkley".
        on: the signals that are watched, of "confidence" and "disagreement".
        fresh: answers that the inner policy is fitted on again.
        every: so many new values before a signal is looked at.
        window: latest values that are kept of a signal.

    Raises:
        ConfigError: an inner policy without a score or without ``fit``, an unknown name, or a number below 1.
    """

    inner: Policy[Any]
    detector: Detector = "adwin"
    on: tuple[str, ...] = SIGNALS
    fresh: int = 500
    every: int = 32
    window: int = 2000

    def __post_init__(self) -> None:
        if not isinstance(self.inner, Scored) or not hasattr(self.inner, "fit"):
            raise ConfigError(
                f"{type(self.inner).__name__} cannot be calibrated anew", "use RiskControlled, Calibrated or Audited"
            )
        if self.detector not in DETECTORS:
            raise ConfigError(f"no detector is called {self.detector!r}", f"use one of {', '.join(DETECTORS)}")
        if not self.on or not set(self.on) <= set(SIGNALS):
            raise ConfigError(f"signals {self.on}", f"use one or both of {', '.join(SIGNALS)}")
        for name in ("fresh", "every", "window"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}", "use at least 1")

    def init(self) -> Mapping[str, Any]:
        """The inner policy's first state, and nothing seen."""
        return self._begun(self.inner.init())

    def fit(self, outcomes: Outcomes) -> Held[Mapping[str, Any]]:
        """Fit the inner policy; its errors are those of its ``fit``."""
        return Held(self, self._begun(self._fitted(outcomes)))

    def choose(self, state: Mapping[str, Any], seen: Seen, key: Key) -> tuple[Mapping[str, Any], Move]:
        """As the inner policy; after an alarm, ask."""
        if int(state["asking"]):
            why = f"{self._alarm(state)}: asking, {len(state['gains'])} of {self.fresh} fresh answers"
            return state, unanswered(seen) or sure(np.zeros(seen.size, bool), why)
        inner, move = self.inner.choose(state["inner"], seen, key)
        if int(state["recalibrated"]):
            move = replace(move, why=f"calibrated anew after {self._alarm(state)}; {move.why}")
        return {**state, "inner": inner}, move

    def learn(self, state: Mapping[str, Any], seen: Seen, move: Move, reward: Array) -> Mapping[str, Any]:
        """Watch, or gather fresh answers and calibrate anew; what was not heard (NaN) tells nothing."""
        if seen.answer is None:
            return state
        reward = np.asarray(reward, np.float64)
        whole = np.isfinite(np.asarray(seen.answer)).all(axis=1)
        heard = whole & np.isfinite(reward) & (move.action == Action.ASK)
        state = {**state, "learned": state["learned"] + np.array(seen.size)}
        if int(state["asking"]):
            return self._gathered(state, seen.rows(heard), reward[heard])
        state = {**state, "inner": self.inner.learn(state["inner"], seen, move, reward)}
        if isinstance(self.inner, Audited):  # what else is asked changes with its threshold, and is no sign of drift
            heard = heard & audits(move)
        values = {
            "confidence": confidence(np.asarray(seen.answer)[whole]),
            "disagreement": np.minimum(np.abs(reward[heard]), 1),
        }
        for i, name in enumerate(SIGNALS):
            if name not in self.on:
                continue
            new = int(state["new"][i]) + len(values[name])
            kept = np.concatenate([state[name], values[name]])[-max(self.window, new) :]
            if new >= self.every:
                if self._drifted(kept, new):
                    return self._alarmed(state, i)
                new, kept = 0, kept[-self.window :]
            state = {**state, name: kept, "new": np.where(np.arange(len(SIGNALS)) == i, new, state["new"])}
        return state

    def scores(self, state: Mapping[str, Any], seen: Seen) -> np.ndarray:
        """The inner policy's scores, ``[n]``."""
        assert isinstance(self.inner, Scored)
        return self.inner.scores(state["inner"], seen)

    def _drifted(self, values: np.ndarray, new: int) -> bool:
        """Whether the detector that saw all these values one by one would raise an alarm at one of the last ``new``."""
        import river.drift

        drift: Any = river.drift  # has types in part only
        old, latest = values[:-new].tolist(), values[-new:].tolist()
        found: Any
        if self.detector == "kswin":
            found = drift.KSWIN(window_size=_KSWIN, seed=_SEED, window=old[-_KSWIN:])
            old = []
        else:
            found = drift.ADWIN() if self.detector == "adwin" else drift.PageHinkley(threshold=_DEVIATION)
        for value in old:
            found.update(value)
        for value in latest:
            found.update(value)
            if found.drift_detected:
                return True
        return False

    def _gathered(self, state: Mapping[str, Any], seen: Seen, gains: np.ndarray) -> Mapping[str, Any]:
        if not len(gains):
            return state
        answers = np.asarray(seen.answer, np.float64)
        owners = np.full(len(gains), -1)
        if seen.traits is not None and "user" in seen.traits:
            owners = np.asarray(seen.traits["user"], np.int64)
        before = len(state["gains"])
        columns = {
            name: np.concatenate([state[name], new] if before else [new])[-_KEEP * self.fresh :]
            for name, new in (("answers", answers), ("gains", gains), ("owners", owners))
        }
        state, count = {**state, **columns}, len(columns["gains"])
        # As many more have come: the number passes a multiple of ``fresh``, or all that is remembered is new again.
        if count < self.fresh or (count // self.fresh == before // self.fresh and count < _KEEP * self.fresh):
            return state
        gains, owners = columns["gains"], columns["owners"]
        large = np.where(gains < 0, 1 + gains, 1.0)
        outcomes = Outcomes(
            large - gains,
            large,
            Seen(stage=1, answer=columns["answers"], size=count),
            owners if owners.min() >= 0 and owners.min() < owners.max() else None,
        )
        inner = self._fitted(outcomes)
        if math.isinf(float(inner["threshold"])) if "threshold" in inner else False:
            return state
        again = {"recalibrated": state["recalibrated"] + np.array(1)}
        kept = {name: state[name] for name in ("learned", "alarms", "signal", "since")}
        return {**self._begun(inner), **kept, **again}

    def _fitted(self, outcomes: Outcomes) -> Any:
        fit: Any = getattr(self.inner, "fit")  # noqa: B009  (a Policy need not have one; this one has)
        return fit(outcomes).state

    def _alarmed(self, state: Mapping[str, Any], signal: int) -> Mapping[str, Any]:
        quiet = self._begun(state["inner"])
        counts = {name: state[name] for name in ("learned", "recalibrated")}
        alarm = {"asking": np.array(1), "alarms": state["alarms"] + np.array(1), "signal": np.array(signal)}
        return {**quiet, **counts, **alarm, "since": state["learned"]}

    def _alarm(self, state: Mapping[str, Any]) -> str:
        name = SIGNALS[int(state["signal"])]
        return f"drift in {name} after {int(state['since'])} items (alarm {int(state['alarms'])})"

    def _begun(self, inner: Any) -> Mapping[str, Any]:
        columns = {"answers": np.zeros((0, 0)), "gains": np.zeros(0), "owners": np.zeros(0, np.int64)}
        names = ("asking", "learned", "alarms", "recalibrated", "signal", "since")
        counts = {name: np.array(0) for name in names}
        signals = {name: np.zeros(0) for name in SIGNALS}
        return {"inner": inner, **signals, "new": np.zeros(len(SIGNALS), np.int64), **columns, **counts}
