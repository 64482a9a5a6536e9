"""All routers on all tasks, side by side: the same pair, the same users, one table.

A router is fitted on calibration users (some also on what models by the small model's recipe said about training users
that they never saw) and judged on all others, every user counting the same. What counts is the whole curve of accuracy
over the share of inputs asked: its area, with intervals over redrawn users, and paired with the best threshold on a
single model, which is picked *after* the fact, the best of four on the test users. What a router costs the device
stands in its row: an ensemble of five computes five times as much. A run is a folder with one file a task, seed and
router; what is there is not done again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from duetto.errors import ConfigError
from duetto.evaluation import pareto, plot, records, report, table, users
from duetto.evaluation.result import Curve, Result, Target
from duetto.policies import (
    SCORES,
    Boosted,
    Ensemble,
    LearnedCascade,
    LearnedGain,
    Logistic,
    Neighbours,
    Network,
    Scored,
    Selected,
    Threshold,
)
from duetto.programs.heard import Heard, heard
from duetto.programs.saved import Saved
from duetto.tasks import Task, load
from duetto.types import Outcomes, Policy, Seen

Progress = Callable[[str, float, float], None]

GAPS = (0.5, 1.0, 2.0)  # points below the large model
TASKS = ("handwriting", "activity", "digits", "cifar")
_POINTS = 400  # of a curve that is kept for the plot


@dataclass(frozen=True)
class Router:
    """A policy, and what it is given.

    Attributes:
        policy: with a score.
        siblings: small models that the device runs; its compute.
        features: whether it reads what the small model's last layer reads, which costs nothing more.
        crossfit: whether it is fitted on training users too, by siblings that never saw them.
        together: whether the siblings' mean probability is the device's answer, instead of the small model's own.
    """

    policy: Policy[Any]
    siblings: int = 1
    features: bool = False
    crossfit: bool = False
    together: bool = False


_PLAIN = tuple(Threshold(0.0, score) for score in ("margin", "max_softmax", "entropy", "energy"))
_NETWORK = Network(decay=0.1)
_THRESHOLDS = tuple(score.replace("_", "-") for score in SCORES)

ROUTERS: Mapping[str, Router] = {
    **{name: Router(Threshold(0.0, score)) for name, score in zip(_THRESHOLDS, SCORES, strict=True)},
    "gain-logistic": Router(LearnedGain(Logistic(100.0))),
    "gain-neighbours": Router(LearnedGain(Neighbours())),
    "gain-boosted": Router(LearnedGain(Boosted())),
    "gain-network": Router(LearnedGain(_NETWORK)),
    "features-logistic": Router(LearnedGain(Logistic(10.0)), features=True, crossfit=True),
    "features-boosted": Router(LearnedGain(Boosted()), features=True, crossfit=True),
    "features-network": Router(LearnedGain(_NETWORK), features=True, crossfit=True),
    "cascade": Router(LearnedCascade()),
    "cascade-crossfit": Router(LearnedCascade(), crossfit=True),
    "selected": Router(
        Selected((*_PLAIN, LearnedCascade(), LearnedGain(Logistic(100.0)), LearnedGain(_NETWORK))), features=True
    ),
    "ensemble-2": Router(Ensemble("own"), siblings=2),
    "ensemble-own": Router(Ensemble("own"), siblings=5),
    "ensemble-votes": Router(Ensemble("votes"), siblings=5),
    "ensemble-information": Router(Ensemble("information"), siblings=5),
    "ensemble-pairs": Router(Ensemble("pairs"), siblings=5),
    "ensemble-logistic": Router(LearnedGain(Logistic(100.0)), siblings=5),
    "ensemble-gain": Router(LearnedGain(_NETWORK), siblings=5, features=True, crossfit=True),
    "ensemble-together": Router(Ensemble("own"), siblings=5, together=True),
}
"""The routers of the table. Their settings are the same on every task."""

BASELINES = ("random", "oracle-gain")


@dataclass(frozen=True)
class Settings:
    """What is compared.

    Attributes:
        siblings: small models of an ensemble, the pair's own included.
        redraws: of the test users, for the intervals.
    """

    siblings: int = 5
    redraws: int = 1000

    def __post_init__(self) -> None:
        if self.siblings < 2 or self.redraws < 1:
            raise ConfigError(f"{self.siblings} siblings, {self.redraws} redraws", "use at least 2, and 1")


@dataclass(frozen=True)
class Comparison:
    """What is to be done.

    Attributes:
        tasks: their names.
        names: routers and baselines.
        seeds: each draws its own users and models.
        settings: of all.
    """

    tasks: tuple[str, ...] = TASKS
    names: tuple[str, ...] = (*BASELINES, *ROUTERS)
    seeds: tuple[int, ...] = (0,)
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True)
class Outcome(Saved):
    """What one router came to on one task.

    Attributes:
        task, seed, name: which.
        compute: of the device, in small models.
        users, items: judged on.
        small, large: accuracies of the device's answers and of the cloud's, 0..1.
        area: mean accuracy over all ask shares, 0..1.
        apgr: the share of the gap between small and large that the area recovers; NaN where large is not better.
        oracle: the share of the way from chance to the oracle (:func:`duetto.evaluation.pareto.area`).
        asked: the smallest ask share at each of :data:`GAPS` below the large model; NaN where it is never reached.
        areas: [redraws] the area on redrawn users, the same users for every router.
        curve: (ask share, accuracy), thinned.
    """

    task: str
    seed: int
    name: str
    compute: int
    users: int
    items: int
    small: float
    large: float
    area: float
    apgr: float
    oracle: float
    asked: Sequence[float]
    areas: Sequence[float]
    curve: Sequence[Sequence[float]]


def compare(
    what: Comparison, folder: Path, progress: Progress = lambda what, done, of: None, cache: Path | None = None
) -> list[Outcome]:
    """Do what of a comparison is not there yet.

    Raises:
        ConfigError: an unknown router, or a folder that holds another comparison.
        DataError: data that is missing or damaged.
    """
    for name in what.names:
        if name not in ROUTERS and name not in BASELINES:
            raise ConfigError(f"no router is called {name!r}", f"use some of {', '.join((*BASELINES, *ROUTERS))}")
    config = {"program": "routing", "settings": asdict(what.settings)}
    claim = folder / "config.json"
    if claim.exists() and json.loads(claim.read_text()) != config:
        raise ConfigError(f"{folder} holds another comparison", "give it another --name, or forget it with --fresh")
    found = []
    for task in what.tasks:
        for seed in what.seeds:
            said: Mapping[str, Heard] | None = None
            place = folder / f"{task}-seed-{seed}"
            for i, name in enumerate(what.names):
                path = place / f"{name}.json"
                if not path.exists():
                    tell = _saying(progress, f"{task}, seed {seed}: ")
                    if said is None:
                        tell("reading the data", 0, 1)
                        loaded: Task = load(task, seed)
                        folder.mkdir(parents=True, exist_ok=True)  # what cannot start leaves no folder
                        claim.write_text(json.dumps(config))
                        place.mkdir(exist_ok=True)
                        said = heard(loaded, what.settings.siblings, place, tell, cache)
                    tell(name, i, len(what.names))
                    judged(name, said, task, seed, what.settings).save(path)
                found.append(Outcome.load(path))
    return found


def judged(name: str, said: Mapping[str, Heard], task: str, seed: int, settings: Settings) -> Outcome:
    """Fit one router, and judge it on the test users."""
    test = said["test"]
    if name in BASELINES:
        outcomes, compute = test.outcomes(), 1
        score = outcomes.gain if name == "oracle-gain" else np.zeros(len(outcomes))
    else:
        router = ROUTERS[name]
        outcomes, compute = given(test, router), min(router.siblings, settings.siblings)
        score = -_scored(router, said, outcomes.seen)
    small, large, shares = outcomes.small, outcomes.large, outcomes.shares
    ask, accuracy = pareto.curve(score, small, large, shares)
    middle = float((np.diff(ask) * (accuracy[1:] + accuracy[:-1]) / 2).sum())
    low, high = float(accuracy[0]), float(accuracy[-1])
    thin = np.unique(np.linspace(0, len(ask) - 1, min(len(ask), _POINTS)).round().astype(int))
    assert outcomes.users is not None
    return Outcome(
        task,
        seed,
        name,
        compute,
        len(np.unique(outcomes.users)),
        len(outcomes),
        low,
        high,
        middle,
        (middle - low) / (high - low) if high > low else math.nan,
        pareto.area(score, small, large, shares),
        [pareto.reached(ask, accuracy, high - gap / 100) for gap in GAPS],
        areas(score, outcomes, users.redraws(outcomes.users, key=("routing", task, seed), n=settings.redraws)).tolist(),
        [ask[thin].tolist(), accuracy[thin].tolist()],
    )


def given(said: Heard, router: Router) -> Outcomes:
    """What a router sees, and what its answers are worth."""
    outcomes = said.outcomes(siblings=router.siblings, features=router.features)
    if not router.together:
        return outcomes
    log = said.siblings.astype(np.float64)
    log = log - log.max(2, keepdims=True)
    share = np.exp(log) / np.exp(log).sum(2, keepdims=True)
    answer = np.log(np.maximum(share.mean(1), 1e-300))
    right = (answer.argmax(1) == said.truth).astype(float)
    return replace(outcomes, small=right, seen=replace(outcomes.seen, answer=answer))


def _scored(router: Router, said: Mapping[str, Heard], seen: Seen) -> np.ndarray:
    policy = router.policy
    assert isinstance(policy, Scored)
    fit = getattr(policy, "fit", None)
    if fit is None:
        return policy.scores({}, seen)
    groups = ("calibration", "train") if router.crossfit else ("calibration",)
    return policy.scores(fit(both([given(said[group], router) for group in groups])).state, seen)


def both(parts: Sequence[Outcomes]) -> Outcomes:
    """Outcomes of several groups of users as one; every user counts the same."""

    def joined(columns: Iterable[Any]) -> Any:
        held = list(columns)
        return None if any(each is None for each in held) else np.concatenate(held)

    seen = Seen(
        stage=parts[0].seen.stage,
        size=sum(map(len, parts)),
        **{name: joined(getattr(part.seen, name) for part in parts) for name in ("answer", "scores", "features")},
    )
    small, large = joined(part.small for part in parts), joined(part.large for part in parts)
    return Outcomes(small, large, seen, joined(part.users for part in parts), joined(part.labels for part in parts))


def areas(score: np.ndarray, outcomes: Outcomes, redraws: Iterable[np.ndarray]) -> np.ndarray:
    """The area under the curve for each redraw of the users (weights ``[n]``), as :func:`pareto.curve` has it."""
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    gain, small, shares = outcomes.gain[order], outcomes.small[order], outcomes.shares[order]
    found = []
    for drawn in redraws:
        weight = shares * drawn[order]
        whole = weight.sum()
        ask = np.append(0.0, np.cumsum(weight)[ends]) / whole
        won = np.append(0.0, np.cumsum(weight * gain)[ends]) / whole
        found.append((weight @ small) / whole + (np.diff(ask) * (won[1:] + won[:-1]) / 2).sum())
    return np.array(found)


def _saying(progress: Progress, front: str) -> Progress:
    return lambda what, done, of: progress(front + what, done, of)


# ------------------------------------------------------------------------------------------------------ the table


@dataclass(frozen=True)
class Line:
    """One router on one task, over all seeds.

    Attributes:
        task, name: which.
        compute: of the device, in small models.
        area: mean accuracy over all ask shares, and its 95 % interval over users.
        apgr, oracle: see :class:`Outcome`; means over seeds.
        asked: smallest ask share at each gap; means over the seeds that reach it.
        over: area less that of the best single-model threshold (of each seed, known only afterwards), its interval.
    """

    task: str
    name: str
    compute: int
    area: tuple[float, float, float]
    apgr: float
    oracle: float
    asked: tuple[float, ...]
    over: tuple[float, float, float] | None


def lines(found: Sequence[Outcome]) -> list[Line]:
    """One line a task and router, in their order."""
    keys = list(dict.fromkeys((each.task, each.name) for each in found))
    best: dict[tuple[str, int], Outcome] = {}
    for each in found:
        at = (each.task, each.seed)
        if each.name in _THRESHOLDS and (at not in best or each.area > best[at].area):
            best[at] = each
    made = []
    for task, name in keys:
        mine = [each for each in found if (each.task, each.name) == (task, name)]
        against = [best[task, each.seed] for each in mine if (task, each.seed) in best]
        over = None
        if len(against) == len(mine) and name not in _THRESHOLDS + BASELINES:
            over = _interval(
                float(np.mean([one.area - two.area for one, two in zip(mine, against, strict=True)])),
                np.mean([np.subtract(one.areas, two.areas) for one, two in zip(mine, against, strict=True)], axis=0),
            )
        area = _interval(float(np.mean([one.area for one in mine])), np.mean([one.areas for one in mine], axis=0))
        asked = tuple(_mean([one.asked[i] for one in mine]) for i in range(len(GAPS)))
        apgr, oracle = _mean([one.apgr for one in mine]), _mean([one.oracle for one in mine])
        made.append(Line(task, name, mine[0].compute, area, apgr, oracle, asked, over))
    return made


def _interval(middle: float, redrawn: np.ndarray) -> tuple[float, float, float]:
    low, high = np.quantile(redrawn, [0.025, 0.975])
    return middle, float(low), float(high)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


# ------------------------------------------------------------------------------------------------------ the pictures


def pictures(found: Sequence[Outcome], folder: Path) -> list[Path]:
    """A result, a figure with all routers, and a page for each task and seed; returns the pages."""
    pages = []
    for task, seed in dict.fromkeys((each.task, each.seed) for each in found):
        place = folder / f"{task}-seed-{seed}"
        mine = [each for each in found if (each.task, each.seed) == (task, seed)]
        drawn = result(mine, folder.name)
        drawn.save(place / "result.json")
        records.write(place / "records.jsonl", [])
        (place / "config.json").write_text(json.dumps({"task": task, "seed": seed, "program": "routing"}))
        all_of_them = plot.tradeoff(result(mine, folder.name, len(mine)), 1000)
        (place / "routers.svg").write_text(plot.alone(all_of_them), encoding="utf-8")
        pages.append(report.write(place, place / "report.html"))
    return pages


def result(mine: Sequence[Outcome], name: str, most: int = plot.SERIES - 1) -> Result:
    """The routers of one task and seed, as a report shows them: the best first.

    Drawn are the baselines, the best threshold on a single model, and the ``most`` best of the others.
    """
    found = lines(mine)
    order = sorted(range(len(mine)), key=lambda i: -mine[i].area)
    rows = [
        table.Row(
            f"{mine[i].name} ({mine[i].compute}x)",
            {"accuracy": table.Interval(*found[i].area), "device compute": float(mine[i].compute)},
        )
        for i in order
    ]
    plain = next((mine[i].name for i in order if mine[i].name in _THRESHOLDS), "")
    others = [mine[i].name for i in order if mine[i].name not in (plain, *BASELINES)][:most]
    curves = [
        Curve(each.name, each.curve[0], each.curve[1], each.name in BASELINES)
        for each in (mine[i] for i in order)
        if each.name in (plain, *others, *BASELINES)
    ]
    large = mine[0].large
    best = found[next(i for i in order if mine[i].name not in BASELINES)] if len(mine) > len(BASELINES) else found[0]
    notes = [
        f"{line.name} is below the best single-model threshold by {-100 * line.over[0]:.2f} points of area"
        for line in found
        if line.over is not None and line.over[2] < 0
    ]
    return Result(
        name=f"{name}, {mine[0].task}",
        task=mine[0].task,
        seeds=[mine[0].seed],
        headline=f"{best.name}: {best.area[0]:.2%} mean accuracy over all ask shares, {best.compute}x device compute",
        rows=rows,
        curves=curves,
        target=Target("half a point below the large model", max(0.0, large - 0.005)),
        notes=notes,
    )
