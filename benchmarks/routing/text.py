"""What a learned text router is worth on RouteLLM's MMLU: in-domain, with few labels, and on unseen subjects.

    DUETTO_DATA=... python benchmarks/routing/text.py [--only 1500] [--json]

Mixtral-8x7B is the small model and GPT-4 the large one. Figures are APGR and CPT by the exact protocol, every router
beside random, prompt length and both oracles, with 95 % bootstrap intervals over questions and, for unseen subjects,
over subjects as well. Nothing is chosen on the rows that are judged: strengths and weights come from inner folds.

- ``in-domain``: 5 folds of questions, each predicted by what was fitted on the other four.
- ``1500``, ``300``: so many labels drawn at random, all other questions judged; mean and range over draws.
- ``unseen``: 5 groups of subjects, each predicted by what was fitted on the others' subjects.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from duetto.evaluation import routing
from duetto.policies.router import Router
from duetto.policies.text_gain import TextGain
from duetto.tasks import queries
from duetto.types import Outcomes, rng

PARTS = ("in-domain", "1500", "300", "unseen")
TARGETS = {"in-domain": 0.70, "1500": 0.65}
REDRAWS = 500


def folds(outcomes: Outcomes, part: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """(fitted on, judged on) of a part."""
    n = len(outcomes)
    everything = np.arange(n)
    if part == "in-domain":
        tests = np.array_split(rng(("text", "folds")).permutation(n), 5)
    elif part == "unseen":
        names = rng(("text", "subjects")).permutation(np.unique(outcomes.users))
        tests = [np.flatnonzero(np.isin(outcomes.users, group)) for group in np.array_split(names, 5)]
    else:
        orders = [rng(("text", part, draw)).permutation(n) for draw in range(5)]
        return [(order[: int(part)], order[int(part) :]) for order in orders]
    return [(np.setdiff1d(everything, test), test) for test in tests]


def scored(policy: TextGain, outcomes: Outcomes, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, float]:
    """The gain that is predicted for the items of a fold, and the seconds it took to fit."""
    start = time.perf_counter()
    held = policy.fit(outcomes.rows(train))
    seconds = time.perf_counter() - start
    return -policy.scores(held.state, outcomes.seen.rows(test)), seconds


def measured(policy: TextGain, outcomes: Outcomes, part: str) -> dict[str, Any]:
    """The figures of a part."""
    parts = folds(outcomes, part)
    done = [scored(policy, outcomes, train, test) for train, test in parts]
    found: dict[str, Any] = {"part": part, "fit_seconds": float(np.mean([seconds for _, seconds in done]))}
    if part in ("in-domain", "unseen"):
        where = np.concatenate([test for _, test in parts])
        judged, score = outcomes.rows(where), np.concatenate([score for score, _ in done])
    else:
        lasting = [outcomes.rows(test) for _, test in parts]
        found["draws"] = [
            routing.apgr(score, rows.small, rows.large) for (score, _), rows in zip(done, lasting, strict=True)
        ]
        judged, score = lasting[0], done[0][0]
    key = ("text", part)
    found["routers"] = [
        asdict(line) for line in routing.judge({"text gain": score}, judged, key=key, n=REDRAWS, by_user=False)
    ]
    length = routing.baselines(judged)["prompt length"]
    for over, by_user in (("questions", False), ("subjects", True)):
        lead = routing.difference(routing.apgr, score, length, judged, key=key, n=REDRAWS, by_user=by_user)
        found[f"lead_over_length_by_{over}"] = asdict(lead)
    return found


def microseconds(policy: TextGain, outcomes: Outcomes) -> dict[str, float]:
    """Of a decision, one prompt at a time, as a device meets them."""
    some = outcomes.rows(rng(("text", "speed")).permutation(len(outcomes))[:1500])
    router = Router(policy.fit(some))
    taken = []
    for prompt in outcomes.seen.features["prompt"][::4]:  # type: ignore[index, call-overload]
        start = time.perf_counter()
        router.decide(prompt)
        taken.append(time.perf_counter() - start)
    return {
        "median": float(np.median(taken)) * 1e6,
        "p95": float(np.percentile(taken, 95)) * 1e6,
        "artefact_bytes": float(len(router.held.save())),
    }


def shown(found: dict[str, Any]) -> None:
    """Print a part."""
    print(f"\n{found['part']}: fitted in {found['fit_seconds']:.1f} s")
    for line in found["routers"]:
        apgr = line["apgr"]
        around = f"({apgr['low']:.3f} to {apgr['high']:.3f})"
        print(
            f"  {line['name']:<18} APGR {apgr['value']:.3f} {around}  CPT50 {line['cpt50']['value']:6.1%}"
            f"  CPT80 {line['cpt80']['value']:6.1%}  area {line['area']['value']:.3f}"
        )
    if "draws" in found:
        draws = found["draws"]
        print(f"  over {len(draws)} draws: mean {np.mean(draws):.3f}, {min(draws):.3f} to {max(draws):.3f}")
    for over in ("questions", "subjects"):
        lead = found[f"lead_over_length_by_{over}"]
        around = f"({lead['low']:+.3f} to {lead['high']:+.3f})"
        print(f"  lead over prompt length {lead['value']:+.3f} {around}, {over} redrawn")
    if (target := TARGETS.get(found["part"])) is not None:
        reached = np.mean(found.get("draws", [found["routers"][0]["apgr"]["value"]]))
        print(f"  target {target:.2f}: {'met' if reached >= target else 'MISSED'}")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=(*PARTS, "speed"), help="one part")
    parser.add_argument("--by", choices=("user", "item"), default="user")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    outcomes = queries.mmlu(Path(os.environ["DUETTO_DATA"]) / "routellm" / "mmlu")
    policy, results = TextGain(by=args.by), []
    for part in PARTS if args.only is None else (args.only,) if args.only != "speed" else ():
        results.append(measured(policy, outcomes, part))
        if not args.json:
            shown(results[-1])
    speed = microseconds(policy, outcomes) if args.only in (None, "speed") else None
    if args.json:
        print(json.dumps({"parts": results, "microseconds": speed}, indent=1))
    elif speed:
        print(
            f"\na decision: {speed['median']:.0f} us median, {speed['p95']:.0f} us p95;"
            f" weights {speed['artefact_bytes']:,.0f} bytes"
        )


if __name__ == "__main__":
    main()
