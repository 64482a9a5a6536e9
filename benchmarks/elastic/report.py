"""What ``train.py`` found: slimmable networks beside those that stand alone, by user, as Markdown.

    python benchmarks/elastic/report.py --from runs/elastic

Accuracy is the mean over unseen users, then over seeds. A difference is paired by user and seed, and its 95 % interval
is over users drawn with replacement, all seeds of a user together: a user's answers, and the trainings that share a
user, are not independent. Beside it the differences of the single seeds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from train import WIDTHS, Run

from duetto.types import rng

Accuracies = dict[tuple[str, float], dict[int, dict[str, float]]]
"""(way, width) -> seed -> unseen user -> accuracy."""


def read(folder: Path, task: str, group: str = "unseen") -> tuple[Accuracies, dict[str, dict[int, dict[str, Any]]]]:
    """The accuracies of a task, and what each training took: way -> seed -> seconds and operations, all widths."""
    found: Accuracies = {}
    took: dict[str, dict[int, dict[str, Any]]] = {}
    for path in sorted(folder.glob(f"{task}-*.json")):
        _, seed, way = path.stem.split("-")[:3]
        told = json.loads(path.read_text())
        spent = took.setdefault(way, {}).setdefault(int(seed), {"cpu_seconds": 0.0, "flops": 0.0})
        for name in spent:
            spent[name] += told[name]
        for width, by_group in told["accuracy"].items():
            found.setdefault((way, float(width)), {})[int(seed)] = by_group[group]
    return found, took


def mean(found: Mapping[int, Mapping[str, float]]) -> float:
    """Over users, then over seeds."""
    return float(np.mean([np.mean(list(users.values())) for users in found.values()]))


def difference(
    one: Mapping[int, Mapping[str, float]], other: Mapping[int, Mapping[str, float]], n: int = 4000
) -> tuple[float, float, float, list[float]]:
    """The mean difference, its interval, and that of each seed."""
    seeds = sorted(one.keys() & other.keys())
    gaps = {seed: {user: one[seed][user] - other[seed][user] for user in one[seed]} for seed in seeds}
    by_seed = [float(np.mean(list(gaps[seed].values()))) for seed in seeds]
    low, high = interval(gaps, n)
    return float(np.mean(by_seed)), low, high, by_seed


def interval(gaps: Mapping[int, Mapping[str, float]], n: int = 4000) -> tuple[float, float]:
    """Of a mean over users, then seeds: users drawn with replacement, whichever seeds they are in."""
    users = sorted({user for by_user in gaps.values() for user in by_user})
    table = np.array([[by_user.get(user, np.nan) for user in users] for by_user in gaps.values()])
    there = ~np.isnan(table)
    drawn = rng(("elastic", "users")).multinomial(len(users), np.full(len(users), 1 / len(users)), size=n)
    with np.errstate(invalid="ignore"):
        sums = (drawn @ np.where(there, table, 0.0).T) / (drawn @ there.T)
    low, high = np.nanquantile(np.nanmean(sums, 1), [0.025, 0.975])
    return float(low), float(high)


def signed(values: Sequence[float]) -> str:
    """Points, of every seed."""
    return " ".join(f"{100 * value:+.2f}" for value in values)


def shown(folder: Path, task: str) -> None:
    """Print a task's table."""
    found, took = read(folder, task)
    seeds = sorted(found["slimmable", 1.0])
    print(f"\n### {task}, seeds {', '.join(map(str, seeds))}\n")
    ways = [way for way in ("slimmable", "thrifty", "alone", "taught") if any(key[0] == way for key in found)]
    print(f"| width | {' | '.join(ways)} | slimmable less alone, points (95 %) | by seed |")
    print(f"|--:|{'--:|' * len(ways)}--:|:--|")
    for width in WIDTHS:
        cells = [f"{100 * mean(found[way, width]):.2f}" if (way, width) in found else "–" for way in ways]
        middle, low, high, each = difference(found["slimmable", width], found["alone", width])
        print(
            f"| {width:g} | {' | '.join(cells)} | {100 * middle:+.2f} ({100 * low:+.2f} to {100 * high:+.2f}) "
            f"| {signed(each)} |"
        )
    for way in [each for each in ("taught", "thrifty") if each in ways]:
        told = []
        for width in WIDTHS:
            if (way, width) in found:
                middle, low, high, _ = difference(found["slimmable", width], found[way, width])
                told.append(f"{width:g}: {100 * middle:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})")
        print(f"\nslimmable less {way}, points: {'; '.join(told)}")
    print("\n| way | networks trained | TFLOP | CPU seconds |\n|:--|--:|--:|--:|")
    for way in ways:
        flops, seconds = (np.mean([each[name] for each in took[way].values()]) for name in ("flops", "cpu_seconds"))
        count = sum(key[0] == way for key in found) if way in ("alone", "taught") else 1
        print(f"| {way} | {count} | {flops / 1e12:.2f} | {seconds:.0f} |")


def main() -> None:
    """Print what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="folder", type=Path, default=Path("runs/elastic"))
    parser.add_argument("--tasks", nargs="*", default=["handwriting", "activity"])
    given = parser.parse_args()
    for task in given.tasks:
        if Run(task, 0, "slimmable").path(given.folder).exists():
            shown(given.folder, task)


if __name__ == "__main__":
    main()
