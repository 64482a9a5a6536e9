"""A threshold with a promise about new users; the state carries what the promise was made from, and prints it.

Four promises (:mod:`duetto.policies.promises`), all with the user as the unit, because answers of one user are not
independent. Where the calibration users are too few for the target, or the surest answers already lose too much, it
asks always, which keeps every promise, and :func:`promised` says which of the two it is and how many users are
missing. A promise is about users like the calibration users: after a shift see :mod:`duetto.policies.audited`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.policies.promises import PROMISES, Promise, Terms, descend
from duetto.policies.scores import Scored
from duetto.policies.threshold import sure, unanswered
from duetto.types import Held, Key, Move, Outcomes, Policy, Seen, rng


@dataclass(frozen=True)
class RiskControlled(Policy[Mapping[str, Any]]):
    """Stop where the inner policy's score reaches a threshold that keeps the promise, else ask.

    The inner policy's own threshold is not used. Where it can be fitted, it is fitted on other users than those the
    promise is made from: a score that was fitted on them would make it look better than it is.

    State: ``inner``; ``threshold`` (inf always asks); ``promise``, numbers that :func:`promised` reads.

    Args:
        inner: a policy with a score, such as ``Threshold`` or ``Calibrated``.
        promise: "expected", "confident", "approximate" or "quantile".
        target: the largest excess risk, 0..1 (0.01 is one point of accuracy); for "quantile" a user's largest gap.
        delta: the probability with which the promise may be wrong; "expected" has none.
        worst_user: what no user loses more of, 0..1; an assumption, which the sentence states. None assumes nothing
            (1), or for "approximate" the larger of 10 % and the worst user seen.
        share: of the users who lose no more than the target, for "quantile".
        fitting: share of the calibration users that an inner policy is fitted on, where it can be.

    Raises:
        ConfigError: an inner policy without a score, an unknown promise, or a number out of range.
    """

    inner: Policy[Any]
    promise: Promise
    target: float
    delta: float = 0.05
    worst_user: float | None = None
    share: float = 0.9
    fitting: float = 0.2

    def __post_init__(self) -> None:
        if not isinstance(self.inner, Scored):
            raise ConfigError(f"{type(self.inner).__name__} has no score to rank by", "use Threshold or Calibrated")
        if not 0 < self.fitting < 1:
            raise ConfigError(f"fitting={self.fitting}", "use a share between 0 and 1")
        _ = self.terms

    @property
    def terms(self) -> Terms:
        """What is promised, without what it is promised of."""
        return Terms(self.promise, self.target, self.delta, self.worst_user, self.share)

    def init(self) -> Mapping[str, Any]:
        """Not fitted: always asks."""
        return {"inner": self.inner.init(), **self.told(np.zeros(0), math.inf, math.nan, True, True)}

    def fit(self, outcomes: Outcomes) -> Held[Mapping[str, Any]]:
        """Choose the threshold on calibration users; where ``outcomes.users`` is None, every item is a user.

        Where nobody judged the answers the large model's are the truth, so that disagreement is bounded, which is at
        least the excess risk.

        Raises:
            DataError: qualities outside 0..1, scores that are not finite, or a single user for an inner policy that
                must be fitted on others.
        """
        for name, quality in (("small", outcomes.small), ("large", outcomes.large)):
            if quality.min() < 0 or quality.max() > 1:
                raise DataError(f"qualities of the {name} model outside 0..1", "scale them: a bound needs a range")
        users = numbered(outcomes)
        fit, inner = getattr(self.inner, "fit", None), self.inner.init()
        if fit is not None:
            count = int(users.max()) + 1
            if count < 2:
                raise DataError(
                    f"one user to fit {type(self.inner).__name__} and to make the promise from",
                    "give two at least, or use Threshold, which is not fitted",
                )
            few = min(max(1, round(self.fitting * count)), count - 1)
            first = users < few  # the numbers are drawn, so these are any users
            inner = fit(outcomes.rows(first)).state
            outcomes, users = outcomes.rows(~first), users[~first] - users[~first].min()
        assert isinstance(self.inner, Scored)
        scores = np.asarray(self.inner.scores(inner, outcomes.seen), np.float64)
        at, gaps = descend(scores, outcomes.gain, users, self.terms.passes, rising=self.promise == "expected")
        kept = float((scores >= at).mean())
        told = self.told(gaps, at, kept, outcomes.users is not None, outcomes.judged)
        return Held(self, {"inner": inner, **told})

    def choose(self, state: Mapping[str, Any], seen: Seen, key: Key) -> tuple[Mapping[str, Any], Move]:
        """Stop, go on or ask, item by item."""
        if (move := unanswered(seen)) is not None:
            return state, move
        at = float(state["threshold"])
        why = f"{self.promise} excess risk {self.target:.4g}: score against {at:.4g}"
        return state, sure(self.scores(state, seen) >= at, why)

    def scores(self, state: Mapping[str, Any], seen: Seen) -> np.ndarray:
        """The inner policy's scores, ``[n]``."""
        assert isinstance(self.inner, Scored)
        return self.inner.scores(state["inner"], seen)

    def told(self, gaps: np.ndarray, at: float, kept: float, by_user: bool, labelled: bool) -> Mapping[str, Any]:
        """The threshold ``at``, and what :func:`promised` tells of it: users' ``gaps``, the share of answers kept."""
        terms, always = self.terms, math.isinf(at)
        worst = terms.worst_user or 1.0
        if self.promise == "approximate" and self.worst_user is None:
            worst = float(terms.worst(gaps))
        numbers = {
            "kind": PROMISES.index(self.promise),
            "target": self.target,
            "delta": self.delta,
            "worst_user": worst,
            "share": self.share,
            "users": len(gaps),
            "needed": float(terms.needed),
            "bound": 0.0 if always else float(terms.bound(gaps)),
            "gap": float(gaps.mean()) if len(gaps) else 0.0,
            "kept": 0.0 if math.isnan(kept) else kept,
            "threshold": at,
            "by_user": int(by_user),
            "labelled": int(labelled),
        }
        return {"threshold": np.array(at), "promise": {name: np.array(value) for name, value in numbers.items()}}


def promised(state: Mapping[str, Any]) -> str:
    """One sentence of a :class:`RiskControlled` state: what is promised, of whom, and on which assumption.

    Raises:
        DataError: a state that carries no promise.
    """
    if "promise" not in state:
        raise DataError("a state without a promise", "give that of RiskControlled, or its part in a state around it")
    told = {name: value.item() for name, value in state["promise"].items()}
    promise, n, always = PROMISES[int(told["kind"])], int(told["users"]), math.isinf(told["threshold"])
    unit = "user" if told["by_user"] else "item"
    target, worst, sure_of = (_percent(value) for value in (told["target"], told["worst_user"], 1 - told["delta"]))
    lose = f"lose{{}} at most {target} of their answers against the large model alone"
    if not told["labelled"]:
        lose = f"get{{}} at most {target} of answers that differ from the large model's"
    text = {
        "expected": f"On average, also over the draw of the calibration {unit}s, new {unit}s {lose.format('')}",
        "confident": f"With {sure_of} confidence, new {unit}s {lose.format(' on average')}",
        "approximate": f"With about {sure_of} confidence, new {unit}s {lose.format(' on average')}",
        "quantile": f"With {sure_of} confidence, {_percent(told['share'])} of new {unit}s {lose.format('')}",
    }[promise]
    if always:
        why = f"of {n} calibration {unit}s even the surest answers lose too much"
        if n < told["needed"]:
            missing = f"{told['needed'] - n:.0f} of {told['needed']:.0f} are missing"
            missing = "no number is enough" if math.isinf(told["needed"]) else missing
            why = f"{n} calibration {unit}s are too few for anything else ({missing})"
        return f"{text}, because it always asks: {why}."
    assumption = "" if told["worst_user"] == 1 else f" if no {unit} loses more than {worst}"
    how = {
        "expected": f"conformal risk control{assumption}",
        "confident": f"betting bound{assumption}",
        "approximate": f"t bound with an invented {unit} who loses {worst}; it is not distribution-free",
        "quantile": f"exact binomial bound, for {unit}s with as many items",
    }[promise]
    made = f"made from {n} of them: bound {_percent(told['bound'])}, {_percent(told['kept'])} of answers kept"
    return f"{text}, if they are like the calibration {unit}s ({how}; {made})."


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def numbered(outcomes: Outcomes) -> np.ndarray:
    """``[n]`` whose item each is, 0..u-1 in an order that tells nothing about them."""
    if outcomes.users is None:
        count, which = len(outcomes), np.arange(len(outcomes))
    else:
        names, which = np.unique(outcomes.users, return_inverse=True)
        count = len(names)
    return np.asarray(rng(("risk", "order of users", count)).permutation(count)[which])
