"""Split learning: what codecs on features and slopes cost in accuracy, and spare in bytes.

    python benchmarks/split/learning.py                      # digits, three seeds, a few minutes
    python benchmarks/split/learning.py --kinds splitfed1 --cut 2 --rounds 40

Accuracy is the mean over unseen users after the last round, with the least and the most seed; bytes are those of all
rounds, halves and labels included. Beside it stands the model before any learning.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

import duetto as du
from duetto.programs.deployed import Deployed
from duetto.programs.split_learning import Settings, joined, made, sides
from duetto.tasks import load
from duetto.training.split import learnable


def ran(task: str, settings: Settings) -> tuple[float, float, int, int]:
    """Accuracy before and after, bytes up and down."""
    loaded = load(task, settings.seed)
    device, cloud, first = made(loaded, settings)
    given = Deployed(loaded.users["device"], device, cloud, first, loaded)
    fleet = du.fleet("phones", given.users, data=loaded.rows, memory=first)
    log = du.simulate(device=device, cloud=cloud, fleet=fleet, network="constant-10", seed=settings.seed)
    start = joined({slot: learnable(half) for slot, half in sides(loaded, settings).items()})
    net = loaded.small if settings.model == "small" else loaded.large
    groups = [loaded.rows(user) for user in loaded.users["unseen"]]
    before = np.mean([np.mean(net.logits(start, rows.x).argmax(1) == rows.y) for rows in groups])
    up, down = (sum(getattr(record.cost, way) for record in log.records) for way in ("up_bytes", "down_bytes"))
    return float(before), float(log.records[-1].metrics["accuracy"]), up, down


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="digits")
    parser.add_argument("--kinds", nargs="*", default=["vanilla", "splitfed1", "splitfed2"])
    parser.add_argument("--wires", nargs="*", default=["float32", "int8", "int4"])
    parser.add_argument("--cut", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    given = parser.parse_args()
    print("| kind | wire | accuracy, % (least to most) | before | MB up | MB down | bytes fewer |")
    print("|:--|:--|--:|--:|--:|--:|--:|")
    for kind in given.kinds:
        plain = 0
        for wire in given.wires:
            settings = Settings(kind, cut=given.cut, rounds=given.rounds, cohort=8, lr=0.1, wire=wire)
            found = np.array([ran(given.task, replace(settings, seed=seed)) for seed in given.seeds])
            before, after, up, down = found.mean(0)
            plain = plain or up + down
            print(
                f"| {kind} | {wire} "
                f"| {100 * after:.2f} ({100 * found[:, 1].min():.1f} to {100 * found[:, 1].max():.1f}) "
                f"| {100 * before:.1f} | {up / 1e6:.2f} | {down / 1e6:.2f} | {plain / (up + down):.1f} x |",
                flush=True,
            )


if __name__ == "__main__":
    main()
