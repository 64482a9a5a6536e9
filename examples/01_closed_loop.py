"""The closed loop on scikit-learn's digits: answer, remember, learn, publish, recalibrate.

The roles of the device and of the cloud come from ``duetto.programs.closed_loop``; this file wires them to a
simulated fleet and prints what changed for people whom no model was trained on. Run:
``python examples/01_closed_loop.py``
"""

from __future__ import annotations

import duetto as du
from duetto.programs import closed_loop
from duetto.programs.scoring import Models, scores
from duetto.types import Held


def main(rounds: int = 60) -> dict[str, float]:
    """Learn, and return accuracies before and after on new users."""
    task = du.tasks.load("digits")
    pair = du.tasks.trained(task)  # the large model on labels, the small one distilled; cached
    settings = closed_loop.Settings(days=3, rounds=rounds)

    small = closed_loop.stored(pair.small)  # eight bits a weight, as a device stores it
    policy = closed_loop.fitted(task, settings, pair.small, pair.large)
    log = du.simulate(
        device=closed_loop.device(task, settings),
        cloud=closed_loop.cloud(task, settings, pair.small, pair.large),
        fleet=du.fleet(
            "phones",
            task.users["device"],
            data=task.rows,
            memory=closed_loop.first(task, settings, pair.small, policy),
        ),
        network="synthetic",
    )
    for record in log.records:
        if record.protocol == "publish":
            print(f"day {record.time / closed_loop.DAY:.1f}: published to {record.metrics['devices']:.0f} devices")

    cloud = log.memory["cloud"]
    before = scores(task, "unseen", Models(lambda user: small, {"0": pair.large}, policy))
    after = scores(
        task, "unseen", Models(lambda user: cloud["fleet"], cloud["large"], Held(settings.policy, cloud["policy"]))
    )
    found = {
        "device before": before.small_correct.mean(),
        "device after": after.small_correct.mean(),
        "cloud before": before.large_correct.mean(),
        "cloud after": after.large_correct.mean(),
    }
    for name, accuracy in found.items():
        print(f"{name:14} {accuracy:.1%}")
    return {name: float(accuracy) for name, accuracy in found.items()}


if __name__ == "__main__":
    main()
