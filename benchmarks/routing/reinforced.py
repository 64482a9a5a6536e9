"""Does a policy that sees queue, link and battery pay? Reinforced against thresholds and LinUCB in a simulated day.

``python benchmarks/routing/reinforced.py --json reinforced.json``: a device lives ``--steps`` inputs, 30 s apart, of a
task's real outcomes. The link changes between good (10 Mbit/s, 50 ms) and bad (0.3 Mbit/s, 500 ms), the cloud's queue
wanders between 0 and some seconds, and asking sends 100 kB (a photo). Joules are those of the house's profiles
(mid-phone, ``--radio``): computing, sending, waiting for the answer, and the radio's tail; they come out of a battery
share of ``--joules``. Who has none left answers nothing for the rest of the day. The reward of an input is 1 or 0 for
its answer, less 0.05 a second of waiting and 0.01 for a call.

Everything is chosen in days of its own (seeds 1 …) and scored in others: the threshold, the threshold that asks on the
good link only, and LinUCB (online, in the same number of inputs as Reinforced has, then frozen) among several values.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import streams

from duetto import tasks
from duetto.policies import LinUCB, Reinforced, confidence
from duetto.simulation import energy
from duetto.types import Action, Held, Key, Move, Seen, rng

GAP, PHOTO, WAIT, CALL = 30.0, 1e5, 0.05, 0.01  # seconds, bytes, reward a second, reward a call
UP, RTT = np.array([0.3, 10.0]), np.array([0.5, 0.05])


@dataclass(frozen=True, eq=False)
class Day:
    """A world of devices that live side by side; see :class:`duetto.policies.Environment`."""

    log: streams.Logged
    local_seconds: float
    local_joules: float
    radio: energy.Radio
    joules: float

    def begin(self, devices: int, key: Key) -> tuple[Any, Seen]:
        """A full battery."""
        draw = rng((*key, "begin"))
        state = {
            "battery": np.full(devices, self.joules),
            "good": draw.random(devices) < 0.5,
            "queue": draw.exponential(0.5, devices),
            "row": draw.integers(0, len(self.log.labels), devices),
        }
        return state, self.seen(state)

    def step(self, state: Any, asked: np.ndarray, key: Key) -> tuple[Any, Seen, np.ndarray]:
        """An input is answered, and half a minute goes by."""
        draw, n = rng((*key, "step")), len(asked)
        up, rtt = UP[state["good"] * 1], RTT[state["good"] * 1]
        sending = PHOTO * 8 / 1e6 / up
        waiting = asked * (sending + rtt + state["queue"])
        # Sending, then the tail while it waits and after the answer; it is over before the next input.
        radio = sending * self.radio.up_watts
        radio += energy.transfer_joules(self.radio, 0, 0, float("inf"))
        spent = self.local_joules + asked * radio
        alive = state["battery"] >= spent
        row = state["row"]
        right = np.where(asked, self.log.large[row].argmax(1), self.log.small[row].argmax(1)) == self.log.labels[row]
        reward = alive * (right - WAIT * (self.local_seconds + waiting) - CALL * asked)
        after = {
            # Who cannot pay is switched off for the day.
            "battery": np.where(alive, state["battery"] - spent, 0.0),
            "good": np.where(draw.random(n) < 0.1, ~state["good"], state["good"]),
            "queue": np.clip(0.8 * state["queue"] + draw.exponential(0.1, n) * (1 + 4 * (draw.random(n) < 0.1)), 0, 9),
            "row": draw.integers(0, len(self.log.labels), n),
        }
        return after, self.seen(after), reward

    def seen(self, state: Any) -> Seen:
        """What a policy may see; the same as features, for those that read these."""
        good, battery = state["good"] * 1, state["battery"] / self.joules
        columns = [np.tanh(state["queue"]) / 2, good / 2, battery / 2]
        return Seen(
            stage=1,
            answer=self.log.small[state["row"]],
            features=np.stack(columns, axis=1),
            link={"up_mbps": UP[good], "rtt_seconds": RTT[good]},
            queue=state["queue"],
            battery=battery,
            size=len(good),
        )


def lived(day: Day, choose: Any, devices: int, steps: int, key: Key) -> tuple[np.ndarray, float]:
    """The mean reward of an input, device by device ``[devices]``, and the share of inputs asked."""
    state, seen = day.begin(devices, key)
    total, calls = np.zeros(devices), 0.0
    for step in range(steps):
        ask = choose(seen, (*key, step))
        state, seen, reward = day.step(state, ask, (*key, step))
        total += reward
        calls += ask.mean()
    return total / steps, calls / steps


def threshold(at: float, good_only: bool) -> Any:
    """Ask where the largest probability is below ``at``."""

    def choose(seen: Seen, key: Key) -> np.ndarray:
        return (confidence(seen.answer) < at) & (True if not good_only else seen.link["up_mbps"] > 1)

    return choose


def bandit(day: Day, policy: LinUCB, devices: int, lives: int, steps: int) -> Held[Any]:
    """LinUCB after ``lives`` days of ``devices``, told at once what each input earned."""
    held = Held.of(policy)
    for life in range(lives):
        state, seen = day.begin(devices, (1, life))
        for step in range(steps):
            move = held.choose(seen, (1, life, step))
            ask = move.action == Action.ASK
            state, after, reward = day.step(state, ask, (1, life, step))
            held.learn(seen, Move(move.action, move.propensity), reward)
            seen = after
    return Held(replace(policy, alpha=0.0), held.state)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=["digits", "handwriting"])
    parser.add_argument("--radio", default="4g")
    parser.add_argument(
        "--joules", type=float, nargs="+", default=[1e9, 40.0], help="of each world; 40 J are about three calls"
    )
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of Reinforced")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    rows = []
    print("| task | battery, J | policy | reward an input | over the best threshold | asked % |")
    print("|:--|--:|:--|--:|--:|--:|")
    for name in asked.tasks:
        small = tasks.load(name).small
        seconds, joules = energy.compute(energy.profiles()["mid-phone"], small.work(1))
        for battery in asked.joules:
            day = Day(streams.logged(name), seconds, joules, energy.radios()[asked.radio], battery)
            levels = [0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.1]
            chosen: dict[str, Any] = {"never": threshold(0.0, False), "always": threshold(1.1, False)}
            for label, good in (("threshold", False), ("threshold, good link", True)):
                each = [lived(day, threshold(at, good), 200, asked.steps, (2,))[0].mean() for at in levels]
                chosen[label] = threshold(levels[int(np.argmax(each))], good)

            def by(held: Held[Any]) -> Any:
                return lambda seen, key: held.choose(seen, key).action == Action.ASK

            bandits = [
                bandit(day, LinUCB(alpha, dimension=9, price=CALL), 64, asked.updates // 10, asked.steps)
                for alpha in (0.1, 0.5)
            ]
            each = [lived(day, by(held), 200, asked.steps, (2,))[0].mean() for held in bandits]
            chosen["LinUCB"] = by(bandits[int(np.argmax(each))])
            for seed in range(asked.seeds):
                held = Reinforced().train(day, (1, "fit", seed), devices=64, steps=asked.steps, updates=asked.updates)
                chosen[f"Reinforced {seed}"] = by(held)
            scored = {label: lived(day, each, 500, asked.steps, (3,)) for label, each in chosen.items()}
            best = max(scored["threshold"], scored["threshold, good link"], key=lambda each: each[0].mean())[0]
            for label, (reward, share) in scored.items():
                ahead = reward - best
                error = ahead.std(ddof=1) / len(ahead) ** 0.5
                row = {"task": name, "joules": battery, "policy": label, "reward": reward.mean(), "asked": share}
                rows.append({**row, "over_best_threshold": ahead.mean(), "error": error})
                print(
                    f"| {name} | {battery:g} | {label} | {reward.mean():.4f} | {ahead.mean():+.4f} ± {error:.4f} "
                    f"| {100 * share:.1f} |",
                    flush=True,
                )
    if asked.json:
        asked.json.write_text(json.dumps({"radio": asked.radio, "steps": asked.steps, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
