"""Bandits that learn from nothing: regret against the best fixed policy in hindsight, from no labels at all.

``python benchmarks/routing/online.py --json online.json --plot online.svg`` draws 2,000 queries of a task's device
users (with replacement) for each of 20 seeds. An answer is worth 1 or 0, and asking costs ``--price``. The best fixed
policy is the best threshold on the largest probability, always and never included, in hindsight on the very stream.

Two kinds of feedback: ``chosen`` tells the reward of what was chosen, as a user does who says whether an answer was
right; ``ask`` tells nothing where the device stopped, and where it asked both arms' rewards, the cloud's answer taken
for the truth. Regret is counted in the currency that is told; the last column counts it in the truth, where what the
cloud gets wrong stays a loss that no policy can learn to avoid.

Regret is summed over queries and averaged over seeds; its slope is that of a straight line through log regret over log
queries, from the 100th query on, at 40 points evenly spaced in the logarithm; regret below 1 counts as 1. The interval
is the 95th percentile over 2,000 bootstrap draws of seeds. Half-way through, every policy is saved and restored, and
must go on as if nothing had happened, bit for bit.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import streams

from duetto.evaluation import plot
from duetto.policies import EpsilonGreedy, LinUCB, Thompson
from duetto.types import Action, Held, Move, Policy, Seen, rng

FROM, POINTS = 100, 40
PRICES = {"digits": 0.05, "handwriting": 0.05}


def policies(price: float, full: bool) -> dict[str, Policy[Any]]:
    """The bandits by name."""
    return {
        "LinUCB": LinUCB(price=price, full_information_on_ask=full),
        "Thompson": Thompson(price=price, full_information_on_ask=full),
        "epsilon-greedy": EpsilonGreedy(price=price, full_information_on_ask=full),
    }


def best_fixed(confidence: np.ndarray, rewards: np.ndarray) -> np.ndarray:
    """What the best threshold in hindsight earns, query by query ``[n]``; ``rewards [n, 2]`` of stopping and asking."""
    order = np.argsort(confidence, kind="stable")
    gain = np.concatenate([[0.0], np.cumsum((rewards[:, 1] - rewards[:, 0])[order])])
    last = np.append(np.diff(confidence[order]) > 0, True)  # equal ones are asked together
    asked = int(np.argmax(np.where(np.concatenate([[True], last]), gain, -np.inf)))
    ask = np.zeros(len(rewards), bool)
    ask[order[:asked]] = True
    return np.where(ask, rewards[:, 1], rewards[:, 0])


def lived(policy: Policy[Any], seen: Seen, told: np.ndarray, both: bool, seed: int) -> np.ndarray:
    """Which queries a policy asks ``[n]``, 0 or 1; ``told [n, 2]``. It is saved and restored on the way."""
    held, asked, other = Held.of(policy), np.zeros(seen.size, int), None
    for i in range(seen.size):
        if i == seen.size // 2:
            other = held.restore(held.save())
        one, key = seen.rows([i]), (seed, "online")
        move = held.choose(one, key)
        ask = int(move.action[0] == Action.ASK)
        asked[i] = ask
        reward = told[i : i + 1] if both else told[i : i + 1, ask]
        reward = reward if ask or not both else np.full_like(reward, np.nan)
        held.learn(one, move, reward)
        if other is not None:
            again = other.choose(one, key)
            assert (again.action, again.propensity) == (move.action, move.propensity)
            other.learn(one, Move(again.action, again.propensity), reward)
    assert other is not None
    assert other.save() == held.save(), f"{policy} is another one after a restart"
    return asked


def slope(regret: np.ndarray) -> float:
    """Of log regret ``[n]`` over log queries."""
    at = np.unique(np.geomspace(FROM, len(regret), POINTS).round().astype(int))
    return float(np.polyfit(np.log(at), np.log(np.maximum(1.0, regret[at - 1])), 1)[0])


def measured(regrets: np.ndarray, draws: int = 2000) -> dict[str, Any]:
    """Regret ``[seeds, n]`` at its end, and its slope."""
    picks = rng(("bootstrap",)).integers(0, len(regrets), (draws, len(regrets)))
    slopes = [slope(regrets[pick].mean(axis=0)) for pick in picks]
    ends = regrets[:, -1]
    return {
        "regret": float(ends.mean()),
        "regret_error": float(ends.std(ddof=1) / len(ends) ** 0.5),
        "slope": slope(regrets.mean(axis=0)),
        "slope_upper": float(np.quantile(slopes, 0.95)),
    }


def drawn(curves: dict[str, np.ndarray], title: str) -> str:
    """Mean regret over queries, both logarithmic, as SVG; the dashed line has slope 0.8."""
    n = max(len(curve) for curve in curves.values())
    axes = plot.Axes(460, 300, (0, np.log10(n)), (0, max(1.0, *(np.log10(max(1, c.max())) for c in curves.values()))))
    at = np.unique(np.geomspace(1, n, 200).round().astype(int))
    body = [f'<text x="10" y="18">{title}: mean regret (1 = one wrong answer) over queries, log-log</text>']
    for power in range(5):
        if 10**power <= n:
            x, y = axes.at(power, axes.y[0])
            body.append(f'<text x="{x:.0f}" y="{y + 16:.0f}" text-anchor="middle">{10**power}</text>')
        if power <= axes.y[1]:
            x, y = axes.at(0, power)
            body.append(f'<text x="{x - 6:.0f}" y="{y:.0f}" text-anchor="end">{10**power}</text>')
    end = min(axes.y[1], 0.8 * axes.x[1])
    shown = {"slope 0.8": (np.array([axes.x[1] - end / 0.8, axes.x[1]]), np.array([0.0, end]))}
    shown |= {name: (np.log10(at), np.log10(np.maximum(1.0, curve[at - 1]))) for name, curve in curves.items()}
    colours = ("#999", "#0067a3", "#c2410c", "#15803d", "#7c3aed")
    for i, (name, line) in enumerate(shown.items()):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(*axes.at(*line), strict=True))
        dash = ' stroke-dasharray="5 4"' if not i else ""
        body.append(f'<polyline points="{points}" fill="none" stroke="{colours[i]}" stroke-width="1.6"{dash}/>')
        body.append(f'<text x="56" y="{44 + 15 * i}" fill="{colours[i]}">{name}</text>')
    style = 'style="background:#fff;font:11px sans-serif"'
    return f'<svg viewBox="0 0 460 300" xmlns="http://www.w3.org/2000/svg" {style}>{"".join(body)}</svg>'


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=list(PRICES))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--price", type=float, help="of asking; by default 0.05 on every task")
    parser.add_argument("--feedback", nargs="+", default=["chosen", "ask"], choices=["chosen", "ask"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="an SVG a task and feedback; their names are put before .svg")
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print("| task | feedback | policy | reward | best fixed | regret | slope | upper 95 % | in truth |")
    print("|:--|:--|:--|--:|--:|--:|--:|--:|--:|")
    for name in asked.tasks:
        log = streams.logged(name)
        price = PRICES.get(name, 0.05) if asked.price is None else asked.price
        right = np.stack([log.small.argmax(1) == log.labels, log.large.argmax(1) == log.labels], axis=1) * 1.0
        agreed = np.stack([log.small.argmax(1) == log.large.argmax(1), np.ones(len(right), bool)], axis=1) * 1.0
        for feedback in asked.feedback:
            curves = {}
            for label, policy in policies(price, feedback == "ask").items():
                regrets, earned, best, truths = [], [], [], []
                for seed in range(asked.seeds):
                    pick = rng((seed, name, "stream")).integers(0, len(right), asked.queries)
                    rewards = right[pick] - [0.0, price]
                    told = rewards if feedback == "chosen" else agreed[pick] - [0.0, price]
                    seen = Seen(stage=1, answer=log.small[pick], size=len(pick))
                    shares = np.exp(log.small[pick] - log.small[pick].max(axis=1, keepdims=True))
                    surest = 1 / shares.sum(axis=1)
                    fixed = best_fixed(surest, told)
                    ask = lived(policy, seen, told, feedback == "ask", seed)
                    mine, true = (each[np.arange(len(pick)), ask] for each in (told, rewards))
                    truths.append((best_fixed(surest, rewards) - true).sum())
                    regrets.append(np.cumsum(fixed - mine))
                    earned.append(mine.mean())
                    best.append(fixed.mean())
                row = {"task": name, "feedback": feedback, "policy": label, "price": price, "seeds": asked.seeds}
                row |= {
                    "reward": float(np.mean(earned)),
                    "best_fixed": float(np.mean(best)),
                    "truth_regret": float(np.mean(truths)),
                }
                row |= measured(np.array(regrets))
                rows.append(row)
                curves[label] = np.mean(regrets, axis=0)
                print(
                    f"| {name} | {feedback} | {label} | {row['reward']:.4f} | {row['best_fixed']:.4f} "
                    f"| {row['regret']:.1f} ± {row['regret_error']:.1f} | {row['slope']:.2f} "
                    f"| {row['slope_upper']:.2f} | {row['truth_regret']:.1f} |",
                    flush=True,
                )
            if asked.plot:
                path = asked.plot.with_name(f"{name}-{feedback}-{asked.plot.name}")
                path.write_text(drawn(curves, f"{name}, told {feedback}"))
    if asked.json:
        asked.json.write_text(json.dumps({"queries": asked.queries, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
