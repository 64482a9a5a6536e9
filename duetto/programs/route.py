"""Fitting a router on a log with a promise that can be checked, judging it, and checking it again later.

What a *text router* promises rests on scores that each logged item got from what was fitted without it: an estimate
with an interval over users. What a *calibrated threshold* promises is one of the four of
:mod:`duetto.policies.promises`, made from what two classifiers answered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from duetto.errors import DataError
from duetto.evaluation import routing, users
from duetto.evaluation.routing import Interval, Routed
from duetto.evaluation.users import redraws
from duetto.policies import RiskControlled, promised
from duetto.policies import router as artefacts
from duetto.policies.artefact import Artefact
from duetto.policies.router import Router
from duetto.policies.text_gain import TextGain
from duetto.tasks import queries
from duetto.types import Action, Outcomes

REDRAWS = 500
FIGURES = {
    "apgr": "average performance gap recovered",
    "offload_rate": "share of prompts for which the large model is asked",
    "excess": "quality lost against always asking",
}
_PLAIN = queries.Columns()
_REFITTED = 0.02  # how far the rate of what is fitted on all strays from that of its folds; measured with 1,000 labels
_NINETY_FIVE = 1.959964  # standard deviations either side of the mean
_TWO_SIDED, _ONE_SIDED = 2.393980, 2.128045  # the same for a third of 5 %: three figures share the error (Bonferroni)


@dataclass(frozen=True)
class Finding:
    """One figure of a promise against fresh data.

    Attributes:
        name: of :data:`FIGURES`.
        promised, found: with their intervals.
        worse_by: how much worse than promised it is; below 0 is better.
        allowed: how much worse it may be by chance alone, both samples counted: where all promises hold, one of them is
            called broken in about 5 % of checks.
        holds: whether it is within that.
    """

    name: str
    promised: Interval
    found: Interval
    worse_by: float
    allowed: float
    holds: bool


def log(path: str | Path, columns: queries.Columns = _PLAIN) -> Outcomes:
    """A log: a file (:func:`duetto.tasks.queries.read`), or one of RouteLLM's folders ``mmlu`` and ``mt_bench``.

    Raises:
        DataError: neither.
    """
    path = Path(path)
    if not path.is_dir():
        return queries.read(path, columns)
    if (path / "responses").is_dir():
        return queries.mmlu(path)
    if any(path.glob("judgements.jsonl*")):
        return queries.mt_bench(path)
    raise DataError(f"{path} is a folder", "name a log, or RouteLLM's folder mmlu or mt_bench")


def answers(path: str | Path) -> Outcomes:
    """What two classifiers said: safetensors with ``small [n, classes]`` logits, and ``large``, ``labels``, ``users``
    as far as they are known (see :meth:`duetto.types.Outcomes.of_classifiers`).

    Raises:
        DataError: no such file, or one without ``small``.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        columns = load_file(path)
    except (OSError, SafetensorError) as fault:
        raise DataError(f"cannot read {path} ({fault})", "write it with safetensors.numpy.save_file") from fault
    known = {name: columns.get(name) for name in ("small", "large", "labels", "users")}
    if known["small"] is None:
        raise DataError(f"{path} holds {', '.join(sorted(columns)) or 'nothing'}", "it needs small [n, classes] logits")
    return Outcomes.of_classifiers(**known)


def calibrate(policy: RiskControlled, outcomes: Outcomes) -> Artefact:
    """A threshold with its promise, in numbers and in one sentence.

    Raises:
        DataError: as :meth:`duetto.policies.RiskControlled.fit`.
    """
    held = policy.fit(outcomes)
    kept = held.choose(outcomes.seen, ("calibrate",)).action == Action.STOP
    numbers = {name: float(value) for name, value in held.state["promise"].items()}
    promise = {name: numbers[name] for name in ("target", "delta", "worst_user", "users", "bound")}
    fitted_on = {
        "items": len(outcomes),
        "users": None if outcomes.users is None else len(np.unique(outcomes.users)),
        "offload_rate": float(1 - kept.mean()),
        "small": float(outcomes.small.mean()),
        "large": float(outcomes.large.mean()),
    }
    return Artefact(held, fitted_on, {"says": promised(held.state), **promise})


def check_threshold(artefact: Artefact, outcomes: Outcomes, *, redrawn: int = REDRAWS) -> list[Finding]:
    """The promise of a calibrated threshold against fresh users, or a changed model; a user is what is redrawn.

    It is called broken where the 95 % interval of what fresh users lose lies above the target, or for a promise about
    a share of the users that of the share lies below it.

    Raises:
        DataError: a policy that makes no promise.
    """
    policy = artefact.held.part
    if not isinstance(policy, RiskControlled):
        raise DataError(f"{type(policy).__name__} makes no promise", "calibrate a threshold: duetto route calibrate")
    move = artefact.held.fork().choose(outcomes.seen, ("check",))
    kept = np.asarray(move.action) == Action.STOP
    user = np.arange(len(outcomes)) if outcomes.users is None else outcomes.users
    lost = users.by(kept * outcomes.gain, user)
    key = ("route", "check")
    if policy.promise != "quantile":
        mean = float(users.user_mean(lost))
        found = Interval(mean, *users.bootstrap(users.user_mean, lost, key=key, n=redrawn))
        worse, allowed = mean - policy.target, mean - found.low
        wanted, name = policy.target, "excess risk"
    else:
        share = users.by(1.0 * (lost.mean <= policy.target), lost.names)
        mean = float(users.user_mean(share))
        found = Interval(mean, *users.bootstrap(users.user_mean, share, key=key, n=redrawn))
        worse, allowed = policy.share - mean, found.high - mean
        wanted, name = policy.share, f"users who lose at most {policy.target:.3g}"
    return [Finding(name, Interval(wanted, wanted, wanted), found, worse, allowed, bool(worse <= allowed + 1e-12))]


def fit(policy: TextGain, outcomes: Outcomes, *, redrawn: int = REDRAWS) -> Router:
    """The policy fitted on a log, with what it promises.

    Raises:
        DataError: as :meth:`duetto.policies.TextGain.crossfit`.
    """
    held, scores = policy.crossfit(outcomes)
    promise = figures(scores, float(held.state["threshold"]), outcomes, redrawn=redrawn)
    fitted_on = {
        "items": len(outcomes),
        "users": None if outcomes.users is None else len(np.unique(outcomes.users)),
        "answers": "answer" in (outcomes.seen.features or {}),
        "small": float(outcomes.small.mean()),
        "large": float(outcomes.large.mean()),
        "sha256": artefacts.digest(outcomes),
    }
    stored = {name: None if math.isnan(each.value) else _finite(each) for name, each in promise.items()}
    return Router(held, fitted_on, stored)


def figures(scores: np.ndarray, threshold: float, outcomes: Outcomes, *, redrawn: int = REDRAWS) -> dict[str, Interval]:
    """The figures of :data:`FIGURES` with their intervals; ``scores`` are surer where higher, as a policy's."""
    asked = (scores < threshold).astype(float)
    lost = (1 - asked) * outcomes.gain
    key = ("routing", "figures")
    user = np.arange(len(outcomes)) if outcomes.users is None else outcomes.users
    weights = list(redraws(user, key=key, n=redrawn))
    found = {"apgr": routing.interval(routing.apgr, -scores, outcomes, key=key, n=redrawn)}
    for name, column in (("offload_rate", asked), ("excess", lost)):
        drawn = [float(weight @ column / weight.sum()) for weight in weights]
        found[name] = Interval(float(column.mean()), *(float(each) for each in np.quantile(drawn, [0.025, 0.975])))
    return found


def judge(router: Router, outcomes: Outcomes, *, redrawn: int = REDRAWS) -> tuple[list[Routed], dict[str, Interval]]:
    """A router beside all baselines, and its figures at its threshold with its lead over prompt length."""
    scores = router.policy.scores(router.held.state, outcomes.seen)
    key = ("routing", "figures")
    lines = routing.judge({"router": -scores}, outcomes, key=key, n=redrawn)
    found = figures(scores, float(router.held.state["threshold"]), outcomes, redrawn=redrawn)
    length = routing.baselines(outcomes)["prompt length"]
    found["apgr over prompt length"] = routing.difference(routing.apgr, -scores, length, outcomes, key=key, n=redrawn)
    return lines, found


def check(router: Router, outcomes: Outcomes, *, redrawn: int = REDRAWS) -> list[Finding]:
    """Each promised figure against fresh data; too little data cannot break a promise, but makes ``allowed`` wide.

    Raises:
        DataError: an artefact without a promise, or data that it was fitted on.
    """
    if not router.promise:
        raise DataError("an artefact without a promise", "make it with `duetto route fit`")
    if router.fitted_on.get("sha256") == artefacts.digest(outcomes):
        raise DataError("this is the log that the router was fitted on", "check it on data that it has not seen")
    scores = router.policy.scores(router.held.state, outcomes.seen)
    fresh = figures(scores, float(router.held.state["threshold"]), outcomes, redrawn=redrawn)
    findings = []
    for name, found in fresh.items():
        stored = router.promise.get(name)
        if stored is None:
            continue
        promised = Interval(**stored)
        change = found.value - promised.value
        worse = {"apgr": -change, "excess": change}.get(name, abs(change))
        spread = math.hypot(promised.high - promised.low, found.high - found.low) / 2
        if name == "offload_rate":
            allowed = math.hypot(spread / _NINETY_FIVE, _REFITTED) * _TWO_SIDED
        else:
            allowed = spread / _NINETY_FIVE * _ONE_SIDED
        # Where the large model no longer is the better one there is no gap to recover: the promise is void.
        findings.append(Finding(name, promised, found, worse, allowed, bool(worse <= allowed + 1e-12)))
    return findings


def _finite(found: Interval) -> Mapping[str, Any]:
    return {name: value if math.isfinite(value) else None for name, value in asdict(found).items()}
