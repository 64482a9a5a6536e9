"""Whether a personal head helps real users: ``python benchmarks/runtime/personal.py [TASK ...] [--seeds 0 1 2]``.

Every device user's stream teaches a head of their own, and the user's held part scores it; the same users without a
head are the baseline. ``cloud, all``: the large model answers every input of the stream. ``cloud, asked``: only those
that a threshold policy asks about, which a device would. ``user``: the user says what each is. ``user, worse half``:
only those that the small model had wrong, and as many that it had right. Each once with the head wherever it could be
fitted ("always"), and once only where its test lets it ("tested"). The columns: accuracy on held inputs, the mean over
users with 95 % intervals over users, and the worst tenth of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import fields
from functools import partial

import numpy as np

from duetto.device.lessons import Taught
from duetto.device.personal import Fitting, Head, learned
from duetto.evaluation import users
from duetto.policies import Calibrated
from duetto.tasks import load, trained
from duetto.types import Action, Held, Outcomes, Seen


def lessons(logits: np.ndarray, target: np.ndarray, corrected: bool, which: np.ndarray) -> Taught:
    """Some rows as lessons."""
    n = int(np.count_nonzero(which)) if which.dtype == bool else len(which)
    return Taught(np.zeros((n, 0)), logits[which], target[which], np.full(n, corrected), np.zeros(n, np.int64))


def scored(head: Head | None, logits: np.ndarray, y: np.ndarray, tested: bool) -> np.ndarray:
    """Which of the held inputs are right."""
    if head is not None and (head.used or not tested):
        logits = head.logits(logits)
    return np.asarray(logits.argmax(1) == y, float)


def asked(policy: Held, logits: np.ndarray) -> np.ndarray:
    """What a device would ask about."""
    move = policy.fork().choose(Seen(stage=1, answer=logits, size=len(logits)), ("asked",))
    return np.asarray(move.action) == Action.ASK


def measured(name: str, seed: int, fitting: Fitting) -> dict[str, tuple[np.ndarray, np.ndarray, int, int]]:
    """By system: correct [n], whose [n], heads that are used, users."""
    task = load(name, seed)
    pair = trained(task)
    known, owners = task.group("calibration")
    small, large = task.small.logits(pair.small, known.x), task.large.logits(pair.large, known.x)
    policy = Calibrated().fit(Outcomes.of_classifiers(small, large, known.y, owners))
    ways = ("none", *(f"{way}, {rule}" for way in WAYS for rule in ("always", "tested")), "large model")
    found: dict[str, list[np.ndarray]] = {way: [] for way in ways}
    whose: list[np.ndarray] = []
    used = dict.fromkeys(ways, 0)
    classes = task.small.classes
    for user in task.users["device"]:
        rows = task.rows(user)
        stream, held = rows.part("stream"), rows.part("held")
        if not len(stream) or not len(held):
            continue
        own, after = (task.small.logits(pair.small, part.x) for part in (stream, held))
        said = np.asarray(task.large.logits(pair.large, stream.x), np.float64)
        soft = np.exp(said - said.max(1, keepdims=True))
        soft /= soft.sum(1, keepdims=True)
        truth = np.eye(classes)[stream.y]
        wrong = np.flatnonzero(own.argmax(1) != stream.y)
        right = np.flatnonzero(own.argmax(1) == stream.y)
        half = np.sort(np.concatenate([wrong, right[:: max(1, len(right) // max(1, len(wrong)))][: len(wrong)]]))
        taught = {
            "cloud, all": lessons(own, soft, False, np.arange(len(own))),
            "cloud, asked": lessons(own, soft, False, asked(policy, own)),
            "user": lessons(own, truth, True, np.arange(len(own))),
            "user, worse half": lessons(own, truth, True, half),
        }
        whose.append(np.full(len(held), user))
        found["none"].append(scored(None, after, held.y, True))
        found["large model"].append(scored(None, task.large.logits(pair.large, held.x), held.y, True))
        for way, given in taught.items():
            head = learned(given, fitting, 0)
            for rule in ("always", "tested"):
                found[f"{way}, {rule}"].append(scored(head, after, held.y, rule == "tested"))
                used[f"{way}, {rule}"] += head is not None and (head.used or rule == "always")
    owner = np.concatenate(whose)
    return {way: (np.concatenate(each), owner, used[way], len(whose)) for way, each in found.items()}


WAYS = ("cloud, all", "cloud, asked", "user", "user, worse half")


def main() -> None:
    """Print a table a task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=["handwriting", "activity"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    for each in fields(Fitting):
        parser.add_argument(f"--{each.name}", type=type(each.default), default=each.default)
    given = parser.parse_args()
    fitting = Fitting(**{each.name: getattr(given, each.name) for each in fields(Fitting)})
    for name in given.tasks:
        runs = [measured(name, seed, fitting) for seed in given.seeds]
        print(f"\n{name}, seeds {given.seeds}, {fitting}")
        print("| head | users with it | mean over users | difference (95 % over users) | worst tenth | difference |")
        print("|:--|--:|--:|:--|--:|:--|")
        joined = {}
        for way in runs[0]:  # a user of two seeds is drawn as two: other parts, other models
            marks = [np.char.add(f"{seed}/", run[way][1]) for seed, run in zip(given.seeds, runs, strict=True)]
            joined[way] = users.by(np.concatenate([run[way][0] for run in runs]), np.concatenate(marks))
        for way, after in joined.items():
            used, whole = (sum(run[way][i] for run in runs) for i in (2, 3))
            cells = [f"{used}/{whole}"]
            for statistic in (users.user_mean, partial(users.worst, share=0.1)):
                cells += _cells(statistic, joined["none"], after, (name, way))
            print(f"| {way} | {' | '.join(cells)} |")


def _cells(
    statistic: Callable[[users.PerUser], np.ndarray], before: users.PerUser, after: users.PerUser, key: tuple[str, str]
) -> list[str]:
    """A figure in percent, and its difference in points."""
    value, base = float(statistic(after)), float(statistic(before))
    low, high = users.paired(statistic, before, after, key=key)
    return [f"{100 * value:.2f}", f"{100 * (value - base):+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"]


if __name__ == "__main__":
    main()
