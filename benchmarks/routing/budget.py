"""Does the offload rate stay at its target while the stream drifts? Budgeted and Dual side by side, on real tasks.

``python benchmarks/routing/budget.py --json budget.json`` draws 9,000 queries a seed (with replacement). At
first 20 % of them are from the hard half of the inputs (by the small model's confidence), at last 80 %; the change
comes at once in the middle (``abrupt``) or a little more with each query of the middle third (``gradual``). Shown is
the largest distance of the rate from the target, in points, of any seed: in any block of 1,000 queries, and over the
whole stream. ``threshold`` is the target's quantile of 1,000 confidences before the stream, left as it is.

``gained`` is the accuracy that asking brought, in points; ``oracle quantile`` asks the least sure of the whole stream,
known beforehand, at the very same number of calls.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import streams

from duetto.policies import Budgeted, Dual, Threshold, confidence
from duetto.types import Action, Held, Policy, Seen, rng

WARM, BLOCK = 1000, 1000


def drifting(hard: np.ndarray, n: int, kind: str, key: tuple[Any, ...]) -> np.ndarray:
    """Which rows come, ``[n]``: easy ones at first, hard ones at last; ``hard`` is ``[rows]`` bool."""
    draw = rng(key)
    at = np.arange(n) / n
    chance = np.clip(3 * at - 1, 0, 1) if kind == "gradual" else (at >= 0.5) * 1.0
    # Either half has some of the other, so that no third is without hard ones.
    chance = 0.2 + 0.6 * chance
    easy, difficult = (draw.choice(np.flatnonzero(which), n) for which in (~hard, hard))
    return np.where(draw.random(n) < chance, difficult, easy)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=["digits", "handwriting"])
    parser.add_argument("--rates", nargs="+", type=float, default=[0.05, 0.2, 0.5])
    parser.add_argument("--queries", type=int, default=9000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    inner = Threshold(0.5)
    made: dict[str, Callable[[float], Policy[Any]]] = {
        "Budgeted": lambda rate: Budgeted(inner, rate),
        "Dual": lambda rate: Dual(inner, rate, step=0.02),
        "Dual, never unpaid": lambda rate: Dual(inner, rate, step=0.02, spend_all=False),
    }
    rows = []
    print("| task | drift | target % | policy | rate % | worst block, points | whole, points | gained, points |")
    print("|:--|:--|--:|:--|--:|--:|--:|--:|")
    for name in asked.tasks:
        log = streams.logged(name)
        sure = confidence(log.small)
        gain = (log.large.argmax(1) == log.labels) * 1.0 - (log.small.argmax(1) == log.labels)
        hard = sure < np.median(sure)
        for kind in ("abrupt", "gradual"):
            for rate in asked.rates:
                found: dict[str, list[tuple[float, ...]]] = {}
                for seed in range(asked.seeds):
                    pick = drifting(hard, asked.queries, kind, (seed, name, kind))
                    warm = drifting(hard, 3 * WARM, kind, (seed, name, "warm"))[:WARM]
                    asks = {}
                    known = log.outcomes.rows(warm)
                    for label, make in made.items():
                        held: Held[Any] = make(rate).fit(known)  # type: ignore[attr-defined]
                        move = held.choose(Seen(stage=1, answer=log.small[pick], size=len(pick)), (seed,))
                        asks[label] = move.action == Action.ASK
                    asks["threshold"] = sure[pick] < np.quantile(sure[warm], rate)
                    least = np.zeros(len(pick), bool)
                    least[np.argsort(sure[pick], kind="stable")[: asks["Budgeted"].sum()]] = True
                    asks["oracle quantile"] = least
                    for label, ask in asks.items():
                        blocks = ask[: len(ask) // BLOCK * BLOCK].reshape(-1, BLOCK).mean(axis=1)
                        off = float(np.abs(blocks - rate).max()), float(abs(ask.mean() - rate))
                        found.setdefault(label, []).append((float(ask.mean()), *off, float((gain[pick] * ask).mean())))
                for label, each in found.items():
                    mean, (_, worst, whole, _) = np.mean(each, axis=0), np.max(each, axis=0)
                    row = {"task": name, "drift": kind, "target": rate, "policy": label, "rate": mean[0]}
                    rows.append({**row, "worst_block": worst, "whole": whole, "gained": mean[3]})
                    print(
                        f"| {name} | {kind} | {100 * rate:g} | {label} | {100 * mean[0]:.1f} | {100 * worst:.1f} "
                        f"| {100 * whole:.2f} | {100 * mean[3]:+.2f} |"
                    )
    if asked.json:
        asked.json.write_text(json.dumps({"queries": asked.queries, "seeds": asked.seeds, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
