"""What the policy saves: joules an answer, and a day on a battery, beside fixed widths and an oracle.

    python benchmarks/elastic/energy.py --from runs/elastic
    python benchmarks/elastic/energy.py --tasks handwriting --devices microcontroller

Reads the logits that ``train.py`` left. ``duetto.policies.Widening`` is fitted on the calibration users of each seed to
keep the quality of the middle width (``like=1``: the lower of the two in the middle of four; ``like=2`` stands beside
it), and moves by its own ``choose`` through the answers of unseen users. A sub-network costs what the roofline of
``duetto/profiles.toml`` says, with a call's overhead for each that an input goes through. The oracle knows which
sub-network is right and runs the narrowest one only. Accuracies are means over users, then seeds; intervals as in
``report.py``.

The day: the devices of every fifth unseen user are asked all through a waking day of 16 hours, by an always-on sensor:
so many times a second, in bursts more, about the user's own inputs, each as often as any other. Minute by minute the
battery empties as ``duetto.simulation.battery`` says, idle included, work that does not fit a minute waits for the
next, and the policy sees charge and queue. An answer that comes after the battery is empty, or in a minute at whose end
more than the deadline's work waits, is none, and counts as wrong.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from report import difference, interval, mean
from train import SEEDS, WIDTHS, Run, widest

from duetto.models import Slimmable
from duetto.policies import Widening
from duetto.simulation import battery, energy
from duetto.tasks import load
from duetto.types import Action, Held, Outcomes, Seen, rng

BATTERIES = {
    "microcontroller": "coin-pouch",
    "low-end-phone": "phone",
    "mid-phone": "phone",
    "raspberry-pi-4": "power-bank",
}
PER_SECOND = (8.0, 20.0)  # asked a second
BURST, BURSTY, DEADLINE, EVERY = 60.0, 0.02, 0.5, 5  # asked a second in a burst; share of minutes; seconds; user
FLOORS = (0.0, 0.0, 0.15, 0.3)
MINUTES = 16 * 60
By = dict[int, dict[str, float]]


@dataclass(frozen=True, eq=False)
class Answers:
    """A group's answers by all sub-networks: logits ``[k, n, classes]``, right ``[k, n]``, whose ``[n]``."""

    logits: np.ndarray
    right: np.ndarray
    users: np.ndarray

    @classmethod
    def of(cls, kept: Mapping[str, np.ndarray], group: str) -> Answers:
        """Of what a run left."""
        logits = np.stack([kept[f"{group}/{width:g}"] for width in WIDTHS])
        return cls(logits, logits.argmax(2) == kept[f"{group}/y"], kept[f"{group}/users"])

    def outcomes(self) -> dict[int, Outcomes]:
        """As a policy is fitted on them."""
        return {
            k: Outcomes(right, self.right[-1], Seen(stage=k + 1, answer=self.logits[k], size=len(right)), self.users)
            for k, right in enumerate(self.right)
        }


def walked(held: Held[Any], ladder: tuple[int, ...], answers: Answers, joules: np.ndarray) -> tuple[Any, Any]:
    """Which sub-network answers each item ``[n]``, and its joules ``[n]``, by the policy's own moves."""
    n = len(answers.users)
    final, spent, going = np.zeros(n, int), np.zeros(n), np.ones(n, bool)
    for k in ladder:
        spent[going] += joules[k]
        final[going] = k
        move = held.choose(Seen(stage=k + 1, answer=answers.logits[k], size=n), ())
        going &= move.action == Action.GO
    return final, spent


def by_user(values: np.ndarray, users: np.ndarray) -> dict[str, float]:
    """The mean of each."""
    names, which = np.unique(users, return_inverse=True)
    return dict(zip(names.tolist(), (np.bincount(which, values) / np.bincount(which)).tolist(), strict=True))


def costs(task: str, device: str) -> tuple[np.ndarray, np.ndarray]:
    """Seconds and joules of an answer by each sub-network."""
    slim = Slimmable(widest(load(task, 0)), WIDTHS)
    found = np.array([energy.compute(energy.profiles()[device], slim.sub(sub).work(1)) for sub in slim.subs])
    return found[:, 0], found[:, 1]


def policy(seconds: np.ndarray, joules: np.ndarray, like: int, **more: Any) -> Widening:
    """What is fitted."""
    return Widening(tuple(joules.tolist()), tuple(seconds.tolist()), like=like, **more)


def answered(folder: Path, task: str, device: str) -> None:
    """Print joules an answer."""
    seconds, joules = costs(task, device)
    found: dict[str, tuple[By, By]] = {}
    ladders = []
    alone: dict[float, By] = {}
    for seed in SEEDS[task]:
        path = Run(task, seed, "slimmable").path(folder).with_suffix(".npz")
        if not path.exists():
            continue
        with np.load(path) as kept:
            calibration, unseen = Answers.of(kept, "calibration"), Answers.of(kept, "unseen")
        n = len(unseen.users)

        def told(name: str, right: np.ndarray, spent: np.ndarray, at: int = seed, whose: Any = unseen.users) -> None:
            accuracy, cost = found.setdefault(name, ({}, {}))
            accuracy[at], cost[at] = by_user(right, whose), by_user(spent, whose)

        for k, width in enumerate(WIDTHS):
            told(f"fixed {width:g}", unseen.right[k], np.full(n, joules[k]))
            other = Run(task, seed, "alone", width).path(folder).with_suffix(".npz")
            if other.exists():
                with np.load(other) as kept:
                    right = kept[f"unseen/{width:g}"].argmax(1) == kept["unseen/y"]
                    alone.setdefault(width, {})[seed] = by_user(right, kept["unseen/users"])
        for like in (1, 2):
            held = policy(seconds, joules, like).fit(calibration.outcomes())
            ladder = held.part.ladder(held.state, Seen())  # type: ignore[attr-defined]
            ladders.append(f"{'>'.join(f'{WIDTHS[k]:g}' for k in ladder)} at {float(held.state['threshold']):.3f}")
            final, spent = walked(held, ladder, unseen, joules)
            told(f"policy like {WIDTHS[like]:g}", unseen.right[final, np.arange(n)], spent)
        first = np.where(unseen.right.any(0), unseen.right.argmax(0), 0)
        told("oracle", unseen.right.any(0), joules[first])
    print(f"\n### {task} on {device}: ms an answer {', '.join(f'{1e3 * each:.3g}' for each in seconds)}\n")
    print(
        "| system | accuracy, % | mJ an answer | energy less than fixed 0.5 (95 %) | accuracy less fixed 0.5 (95 %) |"
    )
    print("|:--|--:|--:|--:|--:|")
    for name, (accuracy, cost) in found.items():
        print(f"| {name} | {100 * mean(accuracy):.2f} | {1e3 * mean(cost):.3f} | {against(found, name, 'fixed 0.5')} |")
    print(f"\npolicy like 0.75 against fixed 0.75: energy, accuracy {against(found, 'policy like 0.75', 'fixed 0.75')}")
    for like in (0.5, 0.75):
        if like in alone:
            gap, low, high, _ = difference(found[f"policy like {like:g}"][0], alone[like])
            print(f"policy like {like:g} against a network of {like:g} alone, accuracy {points(gap, low, high)}")
    print(f"ladders by seed: {'; '.join(ladders)}")


def against(found: Mapping[str, tuple[By, By]], name: str, other: str) -> str:
    """Energy saved and accuracy gained, with intervals."""
    (accuracy, cost), (base, spent) = found[name], found[other]
    saved = {seed: {user: 1 - cost[seed][user] / spent[seed][user] for user in cost[seed]} for seed in cost}
    low, high = interval(saved)
    gap = difference(accuracy, base)
    return f"{100 * mean(saved):.1f} % ({100 * low:.1f} to {100 * high:.1f}) | {points(*gap[:3])}"


def points(middle: float, low: float, high: float) -> str:
    """A difference of accuracies."""
    return f"{100 * middle:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"


def day(folder: Path, task: str, device: str, per_second: float) -> None:
    """Print a day on a battery."""
    seconds, joules = costs(task, device)
    cell, idle = energy.batteries()[BATTERIES[device]], energy.profiles()[device].idle_watts
    systems: dict[str, dict[str, By]] = {}
    for seed in SEEDS[task]:
        path = Run(task, seed, "slimmable").path(folder).with_suffix(".npz")
        if not path.exists():
            continue
        with np.load(path) as kept:
            calibration, unseen = Answers.of(kept, "calibration"), Answers.of(kept, "unseen")
        plain = policy(seconds, joules, 1).fit(calibration.outcomes())
        caring = policy(seconds, joules, 1, floors=FLOORS, deadline=DEADLINE).fit(calibration.outcomes())
        best = policy(seconds, joules, 3, floors=FLOORS, deadline=DEADLINE).fit(calibration.outcomes())
        for user in np.unique(unseen.users)[::EVERY]:
            own = unseen.users == user
            rows = Answers(unseen.logits[:, own], unseen.right[:, own], unseen.users[own])
            asked = arrivals(per_second, (task, seed, str(user)))
            for k, width in enumerate(WIDTHS):
                lived = _lived(None, k, rows, asked, joules, seconds, cell, idle)
                _keep(systems, f"fixed {width:g}", lived, seed, str(user))
            for name, held in (("policy like 0.5", plain), ("… by charge and queue", caring), ("… like 1", best)):
                lived = _lived(held.fork(), 3, rows, asked, joules, seconds, cell, idle)
                _keep(systems, name, lived, seed, str(user))
    print(f"\n### A day of {task} on {device} with {BATTERIES[device]}, {per_second:g} a second, idle {idle:g} W\n")
    print("| system | right and in time, % | in time, % | J of answering | charge at the end, % | hours |")
    print("|:--|--:|--:|--:|--:|--:|")
    for name, columns in systems.items():
        value = {column: mean(by) for column, by in columns.items()}
        print(
            f"| {name} | {100 * value['right']:.2f} | {100 * value['in time']:.2f} | {value['joules']:.0f} "
            f"| {100 * value['left']:.1f} | {value['hours']:.1f} |"
        )
    if systems:
        saved = {
            seed: {user: 1 - each / systems["fixed 0.5"]["joules"][seed][user] for user, each in by.items()}
            for seed, by in systems["policy like 0.5"]["joules"].items()
        }
        low, high = interval(saved)
        gap = difference(systems["policy like 0.5"]["right"], systems["fixed 0.5"]["right"])
        print(
            f"\npolicy like 0.5 against fixed 0.5 over the day: energy of answering {100 * mean(saved):.1f} % less "
            f"({100 * low:.1f} to {100 * high:.1f}), right in time {points(*gap[:3])}"
        )


def arrivals(per_second: float, key: tuple[Any, ...]) -> np.ndarray:
    """How often the device is asked in each minute ``[minutes]``."""
    draw = rng((*key, "day"))
    rate = np.where(draw.random(MINUTES) < BURSTY, BURST, per_second)
    return draw.poisson(60 * rate)


def _lived(
    held: Held[Any] | None,
    fixed: int,
    rows: Answers,
    asked: np.ndarray,
    joules: np.ndarray,
    seconds: np.ndarray,
    cell: energy.Battery,
    idle: float,
) -> dict[str, float]:
    """A day of one device, in means over the user's inputs: each is asked about as often as any other."""
    charge, waiting, spent, right, in_time, hours = 1.0, 0.0, 0.0, 0.0, 0.0, MINUTES / 60
    known: dict[tuple[int, ...], tuple[float, float, float]] = {}
    n = rows.right.shape[1]
    for minute, count in enumerate(asked.tolist()):
        ladder = (fixed,)
        if held is not None:
            seen = Seen(battery=np.array([charge]), queue=np.array([waiting]))
            ladder = held.part.ladder(held.state, seen)  # type: ignore[attr-defined]
            held.choose(seen, ())
        if ladder not in known:
            if held is None:
                made = np.full(n, fixed), np.full(n, joules[fixed])
            else:
                made = walked(held, ladder, rows, joules)
            each = float(made[1].mean())
            took = each * seconds[0] / joules[0]  # one power for all
            known[ladder] = each, took, float(rows.right[made[0], np.arange(n)].mean())
        each, took, correct = known[ladder]
        done = min(count + waiting / took, 60 / took)
        power = idle + done * each / 60
        drained = float(battery.drained(cell, power, 60.0))
        alive = min(1.0, charge / drained)
        charge = max(0.0, charge - drained)
        spent += alive * done * each
        waiting = max(0.0, waiting + count * took - 60)
        good = alive * count * (waiting + took <= DEADLINE)
        in_time, right = in_time + good, right + good * correct
        if alive < 1:
            hours = (minute + alive) / 60
            break
    total = float(asked.sum())
    return {"right": right / total, "in time": in_time / total, "joules": spent, "left": charge, "hours": hours}


def _keep(systems: dict[str, dict[str, By]], name: str, lived: Mapping[str, float], seed: int, user: str) -> None:
    for column, value in lived.items():
        systems.setdefault(name, {}).setdefault(column, {}).setdefault(seed, {})[user] = value


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="folder", type=Path, default=Path("runs/elastic"))
    parser.add_argument("--tasks", nargs="*", default=["handwriting", "activity"])
    parser.add_argument("--devices", nargs="*", default=list(BATTERIES))
    parser.add_argument("--per-second", type=float, nargs="*", default=PER_SECOND)
    given = parser.parse_args()
    for task in given.tasks:
        for device in given.devices:
            answered(given.folder, task, device)
    for task in given.tasks:
        for per_second in given.per_second:
            day(given.folder, task, given.devices[0], per_second)


if __name__ == "__main__":
    main()
