"""What a decision costs: median microseconds for one item, and whether a million of them leave anything behind.

    python benchmarks/routing/deciding.py                    # the table
    python benchmarks/routing/deciding.py --decisions 2000   # a quick look

One core (set OMP_NUM_THREADS=1). Every router is fitted on 2,000 invented items of ten classes, those that read
features with 64 of them; then one item at a time is decided, another one every time. Growth is what ``tracemalloc``
finds after the last decision over what it found after a tenth of them, with the state carried along.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np

from duetto.policies import (
    OPINIONS,
    SCORES,
    Boosted,
    Budgeted,
    Calibrated,
    Ensemble,
    LearnedCascade,
    LearnedGain,
    Logistic,
    Neighbours,
    Network,
    Retrieval,
    Selected,
    Spread,
    Threshold,
    Tier,
    Tiers,
)
from duetto.types import Action, Held, Move, Outcomes, Seen

ITEMS, CLASSES, FEATURES, MEMBERS = 2000, 10, 64, 5


def items(seed: int = 0) -> Outcomes:
    """Invented items: features, members, and a small model that is right where it is sure."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=(ITEMS, CLASSES)) * 2
    sure = np.exp(logits.max(1)) / np.exp(logits).sum(1)
    seen = Seen(
        stage=1,
        answer=logits,
        features=draw.normal(size=(ITEMS, FEATURES)),
        scores=logits[:, None] + draw.normal(size=(ITEMS, MEMBERS, CLASSES)),
        size=ITEMS,
    )
    right = (draw.random(ITEMS) < sure).astype(float)
    return Outcomes(right, np.ones(ITEMS), seen, draw.integers(0, 40, ITEMS))


def routers() -> dict[str, tuple[str, Held[Any], Seen]]:
    """Name -> (kind, fitted, what it sees of all items)."""
    told = items()
    plain = replace(told.seen, features=None, scores=None)
    featured, membered = replace(told.seen, scores=None), replace(told.seen, features=None)
    found: dict[str, tuple[str, Held[Any], Seen]] = {}
    for score in SCORES:
        found[f"threshold {score}"] = ("score", Held.of(Threshold(0.5, score)), plain)
    calibrated = Calibrated()
    found["calibrated"] = ("score", Held(calibrated, {**calibrated.init(), "threshold": np.array(0.5)}), plain)
    found["budgeted"] = ("score", Held.of(Budgeted(Threshold(0.5), 0.2)), plain)
    for measure in OPINIONS:
        held = Ensemble(measure).fit(replace(told, seen=membered))
        found[f"ensemble {measure}"] = ("score", held, membered)
    found["spread"] = ("score", Spread().fit(replace(told, seen=membered)), replace(membered, scores=told.seen.answer))
    for head in (Logistic(), Neighbours(), Boosted(), Network()):
        name = type(head).__name__.lower()
        found[f"gain {name}"] = ("learned", LearnedGain(head).fit(replace(told, seen=plain)), plain)
        found[f"gain {name}, features"] = ("learned", LearnedGain(head).fit(replace(told, seen=featured)), featured)
    found["cascade"] = ("learned", LearnedCascade().fit(replace(told, seen=plain)), plain)
    both = Selected((Threshold(0.5), LearnedCascade()))
    found["selected"] = ("learned", both.fit(replace(told, seen=plain)), plain)
    tiers = Tiers((Tier("edge", 0.01, 0.05), Tier("cloud", 0.05, 0.3)), 0.1)
    found["tiers"] = ("learned", tiers.fit(replace(told, seen=plain)), plain)
    memory = Retrieval(4.0, 1024)
    first = plain.rows(np.arange(1024))
    asked = Move.sure(np.full(1024, Action.ASK), "")
    found["retrieval"] = ("learned", Held(memory, memory.learn(memory.init(), first, asked, first.answer)), plain)
    return found


def measured(held: Held[Any], seen: Seen, decisions: int) -> tuple[float, int]:
    """Median microseconds for a decision, and bytes of growth."""
    single = [seen.rows(np.array([i])) for i in range(min(ITEMS, 500))]
    for one in single[:50]:
        held.choose(one, (0,))
    times = np.empty(min(decisions, 2000))
    for i in range(len(times)):
        one, began = single[i % len(single)], time.perf_counter()
        held.choose(one, (i,))
        times[i] = time.perf_counter() - began
    gc.collect()
    tracemalloc.start()
    for i in range(decisions // 10):
        held.choose(single[i % len(single)], (i,))
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    for i in range(decisions - decisions // 10):
        held.choose(single[i % len(single)], (i,))
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return float(np.median(times) * 1e6), after - before


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decisions", type=int, default=1_000_000, help="for the growth; the median takes 2,000")
    parser.add_argument("--only", default="", help="routers whose name contains this")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    rows = []
    for name, (kind, held, seen) in routers().items():
        if chosen.only not in name:
            continue
        microseconds, growth = measured(held, seen, chosen.decisions)
        target = 50 if kind == "score" else 1000
        rows.append({"router": name, "kind": kind, "microseconds": microseconds, "target": target, "growth": growth})
        if not chosen.json:
            met = "" if microseconds < target else "  MISSED"
            print(f"{name:28s} {microseconds:8.1f} us  (< {target})  {growth:+7d} bytes{met}", flush=True)
    if chosen.json:
        print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
