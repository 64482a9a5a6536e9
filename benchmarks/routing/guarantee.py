"""Are the promises kept, and what do they cost? Users are drawn with replacement; the pool is the truth.

    python benchmarks/routing/guarantee.py --task handwriting --draws 1000 --seeds 1 --json guarantee.json

For each draw of n calibration users every promise sets a threshold; its excess risk on the whole pool is then known
without test noise. *Violated* is the share of draws whose risk on the pool is above the target (1,000 draws of an exact
5 % show up to 6.4 %), *offload* the median share of inputs that the cloud is asked, *times* that over the share of the
cheapest threshold on the pool that keeps the target. "example" is the same bound with the example as the unit, beside
it. Scores are margins, which nothing is fitted for; the pairs are in ``pairs.py``. For ``quantile`` the target is a
user's loss, and violated means that more than a tenth of the pool loses more.

The users of the pool choose nothing here but what is reported: no setting was tuned on them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pairs import TASKS, outcomes

from duetto.policies import RiskControlled, Threshold, confidence
from duetto.policies.promises import Terms
from duetto.types import Outcomes, rng

TARGETS = (0.005, 0.01, 0.02)
DELTA = 0.05
NORMAL = 1.6448536269514722  # the normal quantile of 95 %


@dataclass(frozen=True, eq=False)
class Pool:
    """Every threshold of the pool, falling, at which a gap changes; the first asks always.

    Attributes:
        gaps, lost: [steps, users] signed gaps, and the largest of them on the way down.
        squares: [steps, users] sum of the squared gains of what is kept.
        count: [users] items.
        asked: [steps] share of inputs below the next change, so the least that is asked with these gaps.
    """

    gaps: np.ndarray
    lost: np.ndarray
    squares: np.ndarray
    count: np.ndarray
    asked: np.ndarray

    @classmethod
    def of(cls, found: Outcomes) -> Pool:
        """By the margin of the small model."""
        scores = confidence(found.seen.answer, "margin")
        _, users, count = np.unique(found.users, return_inverse=True, return_counts=True)
        order = np.argsort(-scores, kind="stable")
        falling, gain, users = scores[order], found.gain[order], users[order]
        group = np.append(0, np.cumsum(np.diff(falling) != 0))
        steps = np.unique(group[gain != 0])
        at = np.searchsorted(steps, group)[gain != 0] + 1
        columns = []
        for values in (gain / count[users], gain**2):
            table = np.zeros((len(steps) + 1, len(count)))
            np.add.at(table, (at, users[gain != 0]), values[gain != 0])
            columns.append(table.cumsum(axis=0))
        kept = np.append(np.searchsorted(group, steps), len(group)) / len(group)
        gaps, squares = columns
        return cls(gaps, np.maximum.accumulate(gaps, axis=0), squares, count, 1 - kept)


def last_passed(passes, tables: list[np.ndarray]) -> int:
    """The last step before the first failure; -1 where not even the first one passes, which asks always."""
    begin, rows = 0, 64
    while begin < len(tables[0]):
        good = passes(*(table[begin : begin + rows] for table in tables))
        if not good.all():
            return begin + int(np.argmin(good)) - 1
        begin, rows = begin + rows, 2 * rows
    return len(tables[0]) - 1


def by_example(target: float, count: np.ndarray):
    """The normal bound with the example as the unit."""
    whole = count.sum()

    def passes(gaps: np.ndarray, squares: np.ndarray) -> np.ndarray:
        mean = (gaps @ count) / whole
        deviation = np.sqrt(np.maximum(squares.sum(axis=1) / whole - mean**2, 0) / whole)
        return mean + NORMAL * deviation <= target

    return passes


def promises(worst_user: float) -> dict[str, tuple]:
    """What is compared: the name in the table, and what makes the terms of it."""
    return {
        "expected": ("expected", None, TARGETS),
        f"expected, worst {worst_user:.0%}": ("expected", worst_user, TARGETS),
        f"confident, worst {worst_user:.0%}": ("confident", worst_user, TARGETS),
        "confident": ("confident", None, TARGETS),
        "approximate": ("approximate", None, TARGETS),
        "quantile": ("quantile", None, (0.02, 0.05)),
        "example": ("example", None, TARGETS),
    }


def measured(pool: Pool, draws: int, users: tuple[int, ...], worst_user: float, key: tuple) -> list[dict]:
    """One row for each promise, target and number of users."""
    risk, found = pool.gaps.mean(axis=1), {}
    for n in users:
        for draw in range(draws):
            drawn = rng((*key, n, draw)).integers(len(pool.count), size=n)
            count = pool.count[drawn]
            gaps, lost, squares = (table[:, drawn] for table in (pool.gaps, pool.lost, pool.squares))
            for name, (promise, worst, targets) in promises(worst_user).items():
                for target in targets:
                    if promise == "example":
                        step = last_passed(by_example(target, count), [gaps, squares])
                    else:
                        terms = Terms(promise, target, DELTA, worst)
                        step = last_passed(terms.passes, [lost if promise == "expected" else gaps])
                    found.setdefault((name, target, n), []).append(step)
    rows = []
    for (name, target, n), steps in found.items():
        at = np.array(steps)
        bad = (pool.gaps > target + 1e-12).mean(axis=1) - 0.1 if name == "quantile" else risk - target
        asked = np.where(at < 0, 1.0, pool.asked[at])
        oracle = float(pool.asked[bad <= 1e-12].min())
        rows.append(
            {
                "promise": name,
                "target": target,
                "users": n,
                "violated": float(np.where(at < 0, False, bad[at] > 1e-12).mean()),
                "offload": float(np.median(asked)),
                "oracle": oracle,
                "times": float(np.median(asked)) / oracle if oracle else float("inf"),
                "risk": float(np.where(at < 0, 0.0, risk[at]).mean()),
            }
        )
    return rows


def agrees(found: Outcomes, pool: Pool, key: tuple) -> float:
    """The largest difference in offload rate between this file's shortcut and the policy's own ``fit``, on 5 draws."""
    names, which = np.unique(found.users, return_inverse=True)
    margins, worst = confidence(found.seen.answer, "margin"), 0.0
    for draw in range(5):
        drawn = rng((*key, "check", draw)).integers(len(names), size=100)
        rows = [np.flatnonzero(which == user) for user in drawn]
        own = found.rows(np.concatenate(rows))
        alone = Outcomes(
            own.small, own.large, own.seen, np.repeat(np.arange(100), [len(each) for each in rows]), own.labels
        )
        for promise in ("expected", "approximate"):
            held = RiskControlled(Threshold(0.5, "margin"), promise, 0.02, DELTA).fit(alone)
            table = pool.lost if promise == "expected" else pool.gaps
            step = last_passed(Terms(promise, 0.02, DELTA).passes, [table[:, drawn]])
            shortcut = 1.0 if step < 0 else pool.asked[step]
            worst = max(worst, abs(float((margins < float(held.state["threshold"])).mean()) - shortcut))
    return worst


def calibration_seconds(found: Outcomes, users: int = 300) -> float:
    """The median of 9 calibrations of this many users, drawn with replacement; "confident", 1 %."""
    names, which = np.unique(found.users, return_inverse=True)
    drawn = rng(("seconds",)).integers(len(names), size=users)
    rows = [np.flatnonzero(which == user) for user in drawn]
    own = found.rows(np.concatenate(rows))
    own = Outcomes(
        own.small, own.large, own.seen, np.repeat(np.arange(users), [len(each) for each in rows]), own.labels
    )
    policy, times = RiskControlled(Threshold(0.5, "margin"), "confident", 0.01, DELTA, 0.2), []
    for _ in range(9):
        begin = time.perf_counter()
        policy.fit(own)
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=TASKS, action="append", help="default: all three")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=1, help="pairs of models, each trained on other users")
    parser.add_argument("--users", type=int, nargs="+", default=[100, 300])
    parser.add_argument(
        "--worst-user", type=float, default=0.2, help="what `confident` is told that nobody loses more of"
    )
    parser.add_argument("--models", type=Path, default=Path(tempfile.gettempdir()) / "duetto-routing")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    everything = []
    for task in asked.task or TASKS:
        for seed in range(asked.seeds):
            found = outcomes(task, asked.models, seed)
            pool = Pool.of(found)
            print(
                f"\n{task}, seed {seed}: small {found.shares @ found.small:.2%}, "
                f"large {found.shares @ found.large:.2%} by user, {len(pool.count)} users, "
                f"{len(found)} items; {asked.draws} draws; shortcut off by "
                f"{100 * agrees(found, pool, (seed, task)):.2f} points; 300 users calibrate in "
                f"{1e3 * calibration_seconds(found):.0f} ms"
            )
            print(
                f"{'promise':22}{'target':>8}{'users':>7}{'violated':>10}{'offload':>9}{'oracle':>8}{'times':>7}{'risk':>8}"
            )
            for row in measured(pool, asked.draws, tuple(asked.users), asked.worst_user, (seed, task)):
                everything.append({"task": task, "seed": seed, **row})
                print(
                    f"{row['promise']:22}{row['target']:8.1%}{row['users']:7}{row['violated']:10.1%}{row['offload']:9.1%}"
                    f"{row['oracle']:8.1%}{row['times']:7.2f}{row['risk']:8.2%}",
                    flush=True,
                )
    if asked.json:
        asked.json.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
