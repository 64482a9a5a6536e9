"""A task's model made small in every way that ``duetto compress`` knows, over several seeds.

    python benchmarks/compress/compress.py --task handwriting --passes 8 --seeds 0    # every way: 7 minutes of a core
    python benchmarks/compress/compress.py --task handwriting --passes 12 --ways "static int8" "strided, hints"
    python benchmarks/compress/compress.py --task activity --seeds 0 1 2 3 4          # half a minute a seed
    python benchmarks/compress/compress.py --task activity --role large

A stopped run goes on where it was; what is there is only told again. Figures are of unseen users; what is *chosen* is
chosen for each seed by itself, on calibration users, by the limits of ``duetto compress``. A loss is the mean over
seeds; its 95 % interval redraws people, each with all answers of all seeds. Latencies are medians over the rounds of
all seeds, each as a share of the original's in the same round.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from duetto.programs import compress as program
from duetto.programs import compress_page
from duetto.programs.compress import ORIGINAL, Found, Limits, Settings
from duetto.tasks import load
from duetto.types import rng

REDRAWS = 2000


def user_mean(accuracy: np.ndarray) -> float:
    """The mean over users ``[users]``."""
    return float(accuracy.mean())


def worst(accuracy: np.ndarray) -> float:
    """The mean over the worst tenth, one user at least."""
    return float(np.sort(accuracy)[: max(1, int(np.ceil(0.1 * len(accuracy) - 1e-9)))].mean())


def accuracies(found: Found, name: str) -> np.ndarray:
    """Every unseen user's accuracy, ``[users]``."""
    line = next(line for line in found.lines if line.outcome.name == name)
    right, count = np.array(line.outcome.unseen).T
    return np.asarray(right / count)


def lost(
    statistic: Callable[[np.ndarray], float], seeds: Sequence[Found], names: Sequence[str], people: Sequence[np.ndarray]
) -> tuple[float, float, float]:
    """Points lost by the ways ``names``, one a seed, against the original; the mean over seeds and its interval."""
    before = [accuracies(found, ORIGINAL) for found in seeds]
    after = [accuracies(found, name) for found, name in zip(seeds, names, strict=True)]
    whole = np.unique(np.concatenate(people))
    generator = rng(("benchmark", "compress"))
    drawn = []
    for _ in range(REDRAWS):
        times = np.bincount(generator.integers(len(whole), size=len(whole)), minlength=len(whole))
        each = []
        for own, old, new in zip(people, before, after, strict=True):
            index = np.repeat(np.arange(len(own)), times[np.searchsorted(whole, own)])
            if len(index):
                each.append(statistic(old[index]) - statistic(new[index]))
        drawn.append(np.mean(each))
    middle = np.mean([statistic(old) - statistic(new) for old, new in zip(before, after, strict=True)])
    low, high = np.quantile(drawn, [0.025, 0.975])
    return 100 * float(middle), 100 * float(low), 100 * float(high)


def row(
    title: str, seeds: Sequence[Found], names: Sequence[str], people: Sequence[np.ndarray], runs: list[Path]
) -> str:
    """A line of the table."""
    lines = [next(line for line in f.lines if line.outcome.name == n) for f, n in zip(seeds, names, strict=True)]
    shares = []
    for folder, name in zip(runs, names, strict=True):
        told = json.loads((folder / "latency.json").read_text())
        seconds = np.array(told["seconds"])
        shares.append(seconds[:, told["names"].index(name)] / seconds[:, told["names"].index(ORIGINAL)])
    latency = program.middle(100 * np.concatenate(shares), ("benchmark",))
    mean, bad = (lost(statistic, seeds, names, people) for statistic in (user_mean, worst))
    accuracy = 100 * np.mean([user_mean(accuracies(f, n)) for f, n in zip(seeds, names, strict=True)])
    return (
        f"| {title} | {np.mean([line.outcome.nbytes for line in lines]) / 1e3:.1f} "
        f"| {100 * np.mean([line.share for line in lines]):.1f} "
        f"| {1e6 * np.mean([line.seconds.value for line in lines]):.1f} "
        f"| {latency.value:.0f} ({latency.low:.0f} to {latency.high:.0f}) | {accuracy:.2f} "
        f"| {mean[0]:+.2f} ({mean[1]:+.2f} to {mean[2]:+.2f}) | {bad[0]:+.2f} ({bad[1]:+.2f} to {bad[2]:+.2f}) "
        f"| {np.mean([line.expected_loss for line in lines]):+.2f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="handwriting")
    parser.add_argument("--role", default="small")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--passes", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--ways", nargs="*", default=[])
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    given = parser.parse_args()
    found, runs, people = [], [], []
    for seed in given.seeds:
        folder = given.runs_dir / f"compress-{given.task}-{given.role}-{seed}"
        settings = Settings(given.task, given.role, seed, given.passes, given.rounds)
        made = program.compress(settings, Limits(), folder, names=given.ways)
        compress_page.write(made, folder / "report.html")
        found.append(made)
        runs.append(folder)
        people.append(np.unique(load(given.task, seed).group("unseen")[1]))
    print(
        "| way | kB | % of bytes | us | % of latency | accuracy, % | points lost | worst 10 % lose | calibration lose |"
    )
    print("|:--|--:|--:|--:|--:|--:|--:|--:|--:|")
    for name in (line.outcome.name for line in found[0].lines):
        have = [i for i, each in enumerate(found) if name in [line.outcome.name for line in each.lines]]
        at = [[part[i] for i in have] for part in (found, people, runs)]
        title = name if len(have) == len(found) else f"{name} ({len(have)} of {len(found)} seeds)"
        print(row(title, at[0], [name] * len(have), at[1], at[2]))
    best = [each.chosen for each in found]
    if None not in best:
        print(row("**chosen**", found, [str(name) for name in best], people, runs))
    told = [each.chosen or f"none ({program.nearest(each)})" for each in found]
    print("\nchosen: " + "; ".join(f"seed {seed}: {name}" for seed, name in zip(given.seeds, told, strict=True)))


if __name__ == "__main__":
    main()
