"""Calibrated on employees, used by students: the promise breaks, an alarm says so, audits repair it.

    python benchmarks/routing/shift.py --draws 1000 --orders 10 --json shift.json

1. *Break*: n employees are drawn with replacement; the share of draws whose threshold costs more than the target on
   all students (and, as a control, on all employees of the pool).
2. *Alarm*: ``Watched`` is calibrated on half of the employees and lives through the others, then the students. False
   alarms are those among the employees; the delay is counted in items after the first student. Items come in two
   orders: user after user, and mixed. Then what the policy does about it: risk and offload of the second half of the
   students.
3. *Repair*: ``Audited`` alone, students one after the other in random order. Excess risk and offload (audits included)
   of the second half; the oracle is the cheapest threshold on these same items that keeps the target. Once with the
   worst case, that a disagreement costs a right answer, and once with what it costs among the employees.

Everything runs with the settings that the classes have by default; none was chosen on the students.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pairs import outcomes

from duetto.policies import DETECTORS, Audited, RiskControlled, Threshold, Watched, confidence
from duetto.types import Action, Held, Outcomes, Seen, rng

TARGETS = (0.005, 0.01, 0.02)
MARGIN = Threshold(0.5, "margin")
PROMISES = (("expected", None), ("confident", 0.2), ("approximate", None), ("quantile", None))


@dataclass(frozen=True, eq=False)
class Side:
    """One group of users: what both models make of their items, and where the cloud's answer differs."""

    found: Outcomes
    differs: np.ndarray

    def rows(self, which: np.ndarray) -> Side:
        """These items."""
        return Side(self.found.rows(which), self.differs[which])

    @property
    def margin(self) -> np.ndarray:
        """[n] the score."""
        return confidence(self.found.seen.answer, "margin")


def drawn(side: Side, n: int, key: tuple) -> Outcomes:
    """n users with replacement, each under a name of its own."""
    names, which = np.unique(side.found.users, return_inverse=True)
    rows = [np.flatnonzero(which == user) for user in rng(key).integers(len(names), size=n)]
    own = side.found.rows(np.concatenate(rows))
    return Outcomes(own.small, own.large, own.seen, np.repeat(np.arange(n), [len(each) for each in rows]), own.labels)


class Curve:
    """Excess risk (users the same) and offload of a threshold on a group."""

    def __init__(self, side: Side, weight: np.ndarray | None = None) -> None:
        margin = side.margin
        order = np.argsort(-margin, kind="stable")
        self.falling = margin[order]
        weight = side.found.shares if weight is None else weight
        self.risk = np.append(0.0, np.cumsum((weight * side.found.gain)[order]))

    def at(self, threshold: float) -> tuple[float, float]:
        """(excess risk, offload) of a threshold."""
        kept = int(np.searchsorted(-self.falling, -threshold, "right"))
        return float(self.risk[kept]), 1 - kept / len(self.falling)

    def oracle(self, target: float) -> float:
        """The smallest offload that keeps the target."""
        return 1 - int(np.flatnonzero(self.risk <= target + 1e-12).max()) / len(self.falling)


def broken(employees: Side, students: Side, draws: int, n: int) -> list[dict]:
    """Violations by promise and target."""
    on = {"employees": Curve(employees), "students": Curve(students)}
    rows = []
    for promise, worst in PROMISES[:3]:
        for target in TARGETS:
            policy, at = RiskControlled(MARGIN, promise, target, worst_user=worst), []
            for draw in range(draws):
                at.append(float(policy.fit(drawn(employees, n, ("shift", n, draw))).state["threshold"]))
            found = {name: np.array([curve.at(each) for each in at]) for name, curve in on.items()}
            rows.append({"promise": promise, "target": target, "users": n})
            for name, both in found.items():
                rows[-1][f"violated_{name}"] = float((both[:, 0] > target + 1e-12).mean())
                rows[-1][f"risk_{name}"] = float(both[:, 0].mean())
                rows[-1][f"offload_{name}"] = float(np.median(both[:, 1]))
    return rows


def lived(held: Held[Any], side: Side, chunk: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """[n] whether each item was asked, and how many alarms there were before it; ``chunk`` items at a time."""
    asked, alarms = np.zeros(len(side.differs), bool), np.zeros(len(side.differs), int)
    logits = np.asarray(side.found.seen.answer)
    owners = np.unique(side.found.users, return_inverse=True)[1]
    for begin in range(0, len(asked), chunk):
        part = slice(begin, begin + chunk)
        seen = Seen(stage=1, answer=logits[part], traits={"user": owners[part]}, size=len(logits[part]))
        alarms[part] = int(held.state["alarms"]) if "alarms" in held.state else 0
        move = held.choose(seen, ("shift",))
        asked[part] = move.action == Action.ASK
        held.learn(seen, move, np.where(asked[part], side.differs[part], np.nan))
    return asked, alarms


def ordered(side: Side, key: tuple, mixed: bool = False) -> Side:
    """The users in a random order, each with all items; or all items mixed."""
    if mixed:
        return side.rows(rng(key).permutation(len(side.differs)))
    names, which = np.unique(side.found.users, return_inverse=True)
    return side.rows(np.argsort(rng(key).permutation(len(names))[which], kind="stable"))


def second_half(asked: np.ndarray, side: Side, target: float) -> dict:
    """Risk, disagreement and offload of the second half, beside the oracle's."""
    half = np.arange(len(asked)) >= len(asked) // 2
    rest, kept = side.rows(half), ~asked[half]
    oracle = Curve(rest, np.full(half.sum(), 1 / half.sum())).oracle(target)
    return {
        "risk": float((kept * rest.found.gain).mean()),
        "risk_by_user": float(rest.found.shares @ (kept * rest.found.gain)),
        "disagreement": float((kept * rest.differs).mean()),
        "offload": float(asked[half].mean()),
        "oracle": oracle,
    }


def alarmed(employees: Side, students: Side, orders: int, target: float = 0.01) -> list[dict]:
    """Delays, false alarms and what comes after, by detector and order of the items."""
    rows = []
    for mixed in (False, True):
        for detector in DETECTORS:
            found = []
            for i in range(orders):
                names = np.unique(employees.found.users)
                known = np.isin(employees.found.users, rng(("half", i)).permutation(names)[: len(names) // 2])
                policy = Watched(Audited(RiskControlled(MARGIN, "approximate", target), target), detector)
                held = policy.fit(employees.rows(known).found)
                before = ordered(employees.rows(~known), ("before", i), mixed)
                after = ordered(students, ("after", i), mixed)
                if detector == "kswin":  # slow: the first students are enough to see its delay
                    after = after.rows(np.arange(len(after.differs)) < 6000)
                lived(held, before, 8)
                false = int(held.state["alarms"])
                held = (
                    Held(held.part, policy.fit(employees.rows(known).found).state)
                    if int(held.state["asking"])
                    else held
                )
                start = int(held.state["alarms"])
                asked, alarms = lived(held, after, 8)
                late = np.flatnonzero(alarms > start)
                found.append(
                    {
                        "false": false,
                        "items_before": len(before.differs),
                        "delay": int(late[0]) if len(late) else None,
                        "alarms": int(held.state["alarms"]) - start,
                        **second_half(asked, after, target),
                    }
                )
            delays = [each["delay"] for each in found if each["delay"] is not None]
            rows.append(
                {
                    "detector": detector,
                    "order": "mixed" if mixed else "user after user",
                    "noticed": len(delays) / orders,
                    "delay": float(np.median(delays)) if delays else None,
                    **{name: float(np.mean([each[name] for each in found])) for name in found[0] if name != "delay"},
                }
            )
    return rows


def repaired(employees: Side, students: Side, orders: int) -> list[dict]:
    """What audits make of it."""
    rows = []
    # What a disagreement costs among the employees, whose labels the cloud knows; never taken to be below a half.
    cost = float(employees.found.gain[employees.differs > 0].mean())
    for target, factor in [(target, factor) for factor in (1.0, min(1.0, max(0.5, cost))) for target in TARGETS]:
        policy = Audited(RiskControlled(MARGIN, "approximate", target), target, factor=factor)
        found = []
        for i in range(orders):
            held, side = policy.fit(drawn(employees, 100, ("repair", i))), ordered(students, ("repair", i))
            found.append(second_half(lived(held, side)[0], side, target))
        rows.append(
            {
                "target": target,
                "factor": factor,
                **{name: float(np.mean([each[name] for each in found])) for name in found[0]},
            }
        )
        rows[-1]["kept"] = float(np.mean([each["risk"] <= target for each in found]))
        rows[-1]["points_over_oracle"] = 100 * (rows[-1]["offload"] - rows[-1]["oracle"])
        rows[-1]["worst_over_oracle"] = 100 * max(each["offload"] - each["oracle"] for each in found)
    return rows


def shown(title: str, rows: list[dict]) -> None:
    """A table."""
    print(f"\n{title}")
    print("  ".join(f"{name:>18}" for name in rows[0]))
    for row in rows:
        print(
            "  ".join(f"{value:18.4f}" if isinstance(value, float) else f"{value!s:>18}" for value in row.values()),
            flush=True,
        )


def main() -> None:
    """The three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=["handwriting"], default="handwriting")
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--orders", type=int, default=10, help="orders of the students' stream")
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--models", type=Path, default=Path(tempfile.gettempdir()) / "duetto-routing")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    everything = []
    for seed in range(asked.seeds):
        found, agreed = (outcomes("shift", asked.models, seed, labelled) for labelled in (True, False))
        both = Side(found, 1 - agreed.small)
        employed = np.char.endswith(found.users, "_0")
        employees, students = both.rows(employed), both.rows(~employed)
        for name, side in (("employees", employees), ("students", students)):
            users = len(np.unique(side.found.users))
            print(f"{name}: {users} users, small {side.found.small.mean():.2%}, large {side.found.large.mean():.2%}")
        begin = time.perf_counter()
        tables = {
            "break": broken(employees, students, asked.draws, asked.users),
            "repair": repaired(employees, students, asked.orders),
            "alarm": alarmed(employees, students, max(1, asked.orders // 3)),
        }
        for name, rows in tables.items():
            shown(f"{name}, seed {seed}", rows)
        print(f"{time.perf_counter() - begin:.0f} s")
        everything.append({"seed": seed, **tables})
    if asked.json:
        asked.json.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
