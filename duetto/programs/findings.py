"""What a closed loop found: figures per seed, and the result that the report shows.

"Ask share" is the smallest share of inputs that the cascade must ask so that its accuracy reaches that of the large
model *before* learning, less the tolerance; it is read off the accuracy-offload curve of the scored users, so it tells
how good the score is. Beside it stands the operating point: the threshold that was chosen without these users, which
is what a user really gets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duetto.evaluation import pareto, table, users
from duetto.evaluation.result import Curve, Point, Result, Target, Users, hashed
from duetto.evaluation.table import Row
from duetto.programs.closed_loop import Settings
from duetto.programs.scoring import GROUPS, Models, Scores, scores
from duetto.tasks import Task
from duetto.types import Held, Key, Record, Seen

WORST = 0.2
"""Which share of the device users counts as those who were worst before."""

REDRAWS = 500
"""Fleets redrawn for the interval of a ratio of ask shares; each redraw sweeps two curves."""

NAMES = {
    "only_on_device": "device only",
    "prefer_on_device": "prefer device",
    "prefer_in_cloud": "prefer cloud",
    "only_in_cloud": "cloud only",
    "cascade": "cascade",
}
PEOPLE = {"unseen": "new users", "device": "device users"}


@dataclass(frozen=True, eq=False)
class Finding:
    """One seed's figures by name (shares, not percent), scores before and after by group, and its learning curve."""

    seed: int
    figures: Mapping[str, float]
    before: Mapping[str, Scores]
    after: Mapping[str, Scores]
    unsure: Mapping[tuple[str, str], NDArray[np.float64]]  # (group, stage) -> [n]: the higher, the sooner to ask
    rounds: Sequence[Mapping[str, float]]
    worst: Sequence[tuple[NDArray[np.float64], NDArray[np.str_]]]  # right or wrong, and whose: chosen by, before, after


def of(
    task: Task,
    settings: Settings,
    before: Models,
    after: Mapping[str, Models],
    history: Mapping[int, Any],
    learning: Sequence[Record],
    scored: Sequence[Record],
) -> Finding:
    """The figures of a seed."""
    figures: dict[str, float] = {}
    first = {group: scores(task, group, before) for group in GROUPS}
    last = {group: scores(task, group, after[group]) for group in GROUPS}
    unsure: dict[tuple[str, str], NDArray[np.float64]] = {}
    for group in GROUPS:
        unsure[group, "before"] = _unsure(before.policy, first[group])
        unsure[group, "after"] = _unsure(after[group].policy, last[group])
        figures |= {f"{group}_{name}": value for name, value in _group(group, first, last, unsure, settings).items()}
        for stage in ("before", "after"):
            given = _chosen(scored, group, stage, "cascade")
            figures[f"{group}_chosen_share_{stage}"] = float(np.mean([r.metrics["asked"] for r in given]))
            figures[f"{group}_chosen_accuracy_{stage}"] = float(np.mean([r.metrics["correct"] for r in given]))
    worst = _before_and_after(task, before, after["device"])
    figures |= _worst([users.by(*each) for each in worst], (settings.seed, "worst"))
    figures |= _signatures(task, after, learning)
    figures |= _calls(task, learning, figures)
    return Finding(settings.seed, figures, first, last, unsure, _curve(task, settings, before, history), worst)


def result(
    name: str, task: str, seeds: Sequence[int], network: str, found: Sequence[Finding], records: Sequence[Record]
) -> Result:
    """All seeds together: the table, the curves, the people, and what speaks against it."""
    mean = {figure: float(np.mean([f.figures[figure] for f in found])) for figure in found[0].figures}
    curves: list[Curve] = []
    points: list[Point] = []
    sweeps = {}
    for stage in ("before", "after"):
        at, small, large = _pooled(found, "unseen", stage)
        sweeps[stage] = (small, large)
        curves.append(_drawn(f"{stage} learning", pareto.curve(at, small, large)))
        share, accuracy = mean[f"unseen_chosen_share_{stage}"], mean[f"unseen_chosen_accuracy_{stage}"]
        points.append(Point(f"chosen {stage}", share, accuracy, curves[-1].label))
    curves.append(_drawn("random", pareto.random(*sweeps["before"]), True))
    curves.append(_drawn("oracle", pareto.oracle_gain(*sweeps["before"]), True))
    points.append(Point("device only", 0.0, float(sweeps["before"][0].mean())))
    points.append(Point("cloud only", 1.0, float(sweeps["before"][1].mean())))
    reference = mean["unseen_large_before"]
    return Result(
        name=name,
        task=task,
        seeds=tuple(seeds),
        headline=_headline(task, mean),
        rows=rows(records, found),
        curves=tuple(curves),
        points=tuple(points),
        target=Target("large model before, less the tolerance", mean["unseen_target"]),
        rounds=_mean_rounds(found),
        users=_people(found),
        notes=tuple(_notes(mean, reference, network)),
    )


def rows(records: Sequence[Record], found: Sequence[Finding]) -> tuple[Row, ...]:
    """The table: every system for new users and for device users, then what teaching cost."""
    lines = []
    tagged = [record for record in records if "system" in record.metrics]
    for group in GROUPS:
        alone = _chosen(tagged, group, "before", "only_on_device")
        for stage in ("before", "after"):
            for system, label in NAMES.items():
                given = _chosen(tagged, group, stage, system)
                if given:
                    name = f"{PEOPLE[group]}: {label}" + (" + learning" if stage == "after" else "")
                    lines.append(table.row(name, _by_seed(given), key=(0, "table"), device_only=_by_seed(alone)))
    calls = sum(f.figures["teaching_calls"] + f.figures["audit_calls"] for f in found)
    devices = sum(f.figures["devices"] for f in found)
    saved = float(np.mean([f.figures["device_ask_before"] - f.figures["device_ask_after"] for f in found]))
    lines.append(
        table.teaching("teaching and audit", calls=int(calls), devices=int(devices), calls_saved_per_input=saved)
    )
    return tuple(lines)


# ------------------------------------------------------------------------------------------------------- one seed


def _unsure(policy: Held[Any], of: Scores) -> NDArray[np.float64]:
    sure = policy.part.scores(policy.state, Seen(stage=1, answer=of.small, size=len(of.truth)))  # type: ignore[attr-defined]
    return -np.asarray(sure, np.float64)


def _group(
    group: str,
    first: Mapping[str, Scores],
    last: Mapping[str, Scores],
    unsure: Mapping[tuple[str, str], NDArray[np.float64]],
    settings: Settings,
) -> dict[str, float]:
    before, after = first[group], last[group]
    target = float(before.large_correct.mean()) - settings.tolerance_points / 100

    def share(stage: str, of: Scores, weight: Any = None, aim: float = target) -> float:
        return pareto.ask_share_at(unsure[group, stage], of.small_correct, of.large_correct, aim, weight)

    ratios = []
    for weight in users.redraws(before.user, key=(settings.seed, "ratio"), n=REDRAWS):
        aim = float(np.average(before.large_correct, weights=weight)) - settings.tolerance_points / 100
        old, new = share("before", before, weight, aim), share("after", after, weight, aim)
        ratios.append(1 - new / old if old > 0 else 0.0)
    low, high = np.nanquantile(ratios, [0.025, 0.975])
    old, new = share("before", before), share("after", after)
    lift = users.paired(
        users.example_weighted,
        users.by(before.large_correct, before.user),
        users.by(after.large_correct, after.user),
        key=(settings.seed, "large"),
    )
    own = {"before": users.by(before.small_correct, before.user), "after": users.by(after.small_correct, after.user)}
    spread = {f"deviation_{stage}": float(users.deviation(each)) for stage, each in own.items()}
    fairness = {f"jain_{stage}": float(users.jain(each)) for stage, each in own.items()}
    return {
        **spread,
        **fairness,
        "large_before": float(before.large_correct.mean()),
        "large_after": float(after.large_correct.mean()),
        "large_gain_low": lift[0],
        "large_gain_high": lift[1],
        "small_before": float(before.small_correct.mean()),
        "small_after": float(after.small_correct.mean()),
        "target": target,
        "ask_before": old,
        "ask_after": new,
        "fewer_calls": 1 - new / old if old > 0 else float("nan"),
        "fewer_calls_low": float(low),
        "fewer_calls_high": float(high),
        "area_before": pareto.area(unsure[group, "before"], before.small_correct, before.large_correct),
    }


def _before_and_after(task: Task, before: Models, after: Models) -> list[tuple[NDArray[np.float64], NDArray[np.str_]]]:
    """The device alone: on the part by which users are chosen, then on another, before and after."""
    parts = {name: task.rows(name).parts for name in task.users["device"]}
    scored = [name for name, has in parts.items() if len(has["calibration"]) and len(has["held"])]

    def answered(models: Models, part: str) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
        correct, owner = [], []
        for name in scored:
            rows = task.rows(name).part(part)
            correct.append(task.small.logits(models.small(name), rows.x).argmax(1) == rows.y)
            owner.append(np.repeat(name, len(rows)))
        return np.concatenate(correct).astype(np.float64), np.concatenate(owner)

    return [answered(before, "calibration"), answered(before, "held"), answered(after, "held")]


def _worst(answered: Sequence[users.PerUser], key: Key) -> dict[str, float]:
    """The users who were worst before, chosen on one part of their inputs and measured on another."""
    chosen, before, after = answered
    found = users.worst_group_gain(chosen, before, after, WORST, key=key)
    return {
        "worst_gain": found.gain,
        "worst_control": found.control,
        "worst_difference": found.difference,
        "worst_difference_low": found.low,
        "worst_difference_high": found.high,
    }


def _signatures(task: Task, after: Mapping[str, Models], learning: Sequence[Record]) -> dict[str, float]:
    """Signs of a failure: the non-IID gap and forgetting of local learning, and time spent communicating."""
    common, _ = task.group("device", "held")
    kept = slice(None, None, max(1, len(common) // 500))  # about 500 rows of everybody's are enough
    fleet = float((task.small.logits(after["unseen"].small(""), common.x[kept]).argmax(1) == common.y[kept]).mean())
    local, shared = [], []
    for name in task.users["device"]:
        params, own = after["device"].small(name), task.rows(name).part("held")
        if not len(own):
            continue
        local.append(float((task.small.logits(params, own.x).argmax(1) == own.y).mean()))
        shared.append(float((task.small.logits(params, common.x[kept]).argmax(1) == common.y[kept]).mean()))
    rounds = [record for record in learning if record.protocol == "rounds"]
    seconds = np.array([record.cost.seconds for record in rounds])
    working = np.array([min(float(record.metrics["compute_seconds"]), record.cost.seconds) for record in rounds])
    return {
        "noniid_gap": users.noniid_gap(np.array(local), np.array(shared)),
        "forgetting": users.forgetting(np.full(len(shared), fleet), np.array(shared)),
        "communication_share": users.communication_share(seconds - working, seconds),
    }


def _calls(task: Task, learning: Sequence[Record], figures: Mapping[str, float]) -> dict[str, float]:
    def called(protocol: str) -> float:
        return float(sum(float(r.metrics["calls"]) for r in learning if r.protocol == protocol))

    rounds = [record.cost for record in learning if record.protocol in ("rounds", "publish")]
    return {
        "teaching_calls": called("teach"),
        "audit_calls": called("audit"),
        "devices": float(len(task.users["device"])),
        "learning_up_bytes": float(sum(cost.up_bytes for cost in rounds)),
        "learning_down_bytes": float(sum(cost.down_bytes for cost in rounds)),
        "break_even_inputs": table.break_even(
            (called("teach") + called("audit")) / len(task.users["device"]),
            figures["device_ask_before"] - figures["device_ask_after"],
        ),
    }


def _curve(task: Task, settings: Settings, before: Models, history: Mapping[int, Any]) -> list[dict[str, float]]:
    """The fleet's model on new users, round by round; their labels only score."""
    rows, user = task.group("unseen")
    points = []
    for step, params in sorted({0: before.small(""), **history}.items()):
        correct = users.by((task.small.logits(params, rows.x).argmax(1) == rows.y).astype(float), user)
        low, high = users.bootstrap(users.example_weighted, correct, key=(settings.seed, "rounds"), n=REDRAWS)
        accuracy = float(users.example_weighted(correct))
        points.append({"round": step, "accuracy": accuracy, "accuracy_low": low, "accuracy_high": high})
    return points


# ------------------------------------------------------------------------------------------------- all seeds


def _chosen(records: Sequence[Record], group: str, stage: str, system: str) -> list[Record]:
    wanted = {"group": group, "stage": stage, "system": system}
    return [r for r in records if all(r.metrics.get(name) == value for name, value in wanted.items())]


def _by_seed(records: Sequence[Record]) -> list[Record]:
    """The records with users told apart by seed: another seed is another fleet."""
    return [replace(record, user=f"{record.metrics['seed']}:{record.user}") for record in records]


def _pooled(found: Sequence[Finding], group: str, stage: str) -> tuple[NDArray[np.float64], ...]:
    scored = [(f.unsure[group, stage], (f.before if stage == "before" else f.after)[group]) for f in found]
    return (
        np.concatenate([at for at, _ in scored]),
        np.concatenate([of.small_correct for _, of in scored]),
        np.concatenate([of.large_correct for _, of in scored]),
    )


def _drawn(label: str, points: tuple[Any, Any], reference: bool = False) -> Curve:
    """A curve thinned to what a picture can show; the ends stay."""
    share, accuracy = points
    keep = np.unique(np.linspace(0, len(share) - 1, min(len(share), 400)).round().astype(int))
    return Curve(label, [float(s) for s in share[keep]], [float(a) for a in accuracy[keep]], reference)


def _people(found: Sequence[Finding]) -> Users:
    """Device users' own accuracy on held-back inputs, before and after; names hashed."""
    before, after, names = [], [], []
    for each in found:
        old, new = each.before["device"], each.after["device"]
        was, now = users.by(old.small_correct, old.user), users.by(new.small_correct, new.user)
        before += [float(value) for value in was.mean]
        after += [float(value) for value in now.mean]
        names += [hashed(f"{each.seed}:{name}") for name in was.names]
    return Users(before, after, names)


def _mean_rounds(found: Sequence[Finding]) -> tuple[dict[str, float], ...]:
    entries = []
    for points in zip(*(f.rounds for f in found), strict=True):
        entries.append({name: float(np.mean([point[name] for point in points])) for name in points[0]})
    return tuple(entries)


def _headline(task: str, mean: Mapping[str, float]) -> str:
    old, new, own = (mean[f"unseen_{name}"] for name in ("ask_before", "ask_after", "small_after"))
    asked = [f"{share:.1%} of inputs" if math.isfinite(share) else "never, at no share," for share in (old, new)]
    return (
        f"On {task}, people whom no model was trained on get the large model's accuracy (within the tolerance) asking "
        f"{asked[0]} before learning and {asked[1]} after; the device alone went from "
        f"{mean['unseen_small_before']:.1%} to {own:.1%}, the cloud from {mean['unseen_large_before']:.1%} to "
        f"{mean['unseen_large_after']:.1%}."
    )


def _notes(mean: Mapping[str, float], reference: float, network: str) -> list[str]:
    notes = [f"Latency, energy and bytes are simulated on the network {network!r}; accuracies are measured."]
    for stage in ("before", "after"):
        short = mean["unseen_target"] - mean[f"unseen_chosen_accuracy_{stage}"]
        if short > 0:
            notes.append(
                f"The threshold chosen {stage} learning missed its promise on new users by {short:.2%}: "
                f"they differ from those it was chosen on."
            )
    if mean["unseen_large_after"] < reference:
        notes.append("The cloud's answers to new users got worse by learning.")
    if not mean["unseen_ask_before"] > 0:
        notes.append("The small model reached the target alone, before anything was learned: nothing to save.")
    return notes


def figures_table(found: Sequence[Finding]) -> dict[str, dict[str, Any]]:
    """Every figure: its mean over the seeds, and each seed's; None where it was not reached.

    The worst users' figures have ``pooled`` too: the worst of all seeds' users together, whose interval is narrower.
    """
    shown: dict[str, dict[str, Any]] = {}
    for name in found[0].figures:
        values = [f.figures[name] for f in found]
        shown[name] = {"mean": _number(float(np.mean(values))), "seeds": [_number(value) for value in values]}
    pools = []
    for part in zip(*(f.worst for f in found), strict=True):
        owners = [np.char.add(f"{f.seed}:", owner) for f, (_, owner) in zip(found, part, strict=True)]
        pools.append(users.by(np.concatenate([values for values, _ in part]), np.concatenate(owners)))
    for name, value in _worst(pools, (0, "worst")).items():
        shown[name]["pooled"] = _number(value)
    return shown


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
