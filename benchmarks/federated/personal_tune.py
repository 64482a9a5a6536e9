"""Choose the numbers of personalised methods, on people whom ``duetto bench personal`` never reports.

    python benchmarks/federated/personal_tune.py --task activity --lrs 0.1,0.3,1 --seeds 100,101,102,103

The people are those of ``duetto.programs.personal.for_tuning``, told by their names; the score is the mean over them of
what they held back, over all seeds. FedAvg + fine-tuning goes first: it chooses the learning rate of the rounds, which
all others take over, with its own last training, in as many tries as anybody has. What comes out belongs into
``duetto.programs.personal.CHOSEN``. Each file of ``--into`` is one method, its numbers in the rounds, and a seed; what
is there is not done again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from duetto import training
from duetto.evaluation import users
from duetto.programs import federated, personal

ROUNDS: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "fedavg_ft": ({},),
    "knn_per": ({},),
    "fedper": ({},),
    "fedrep": ({"head_epochs": 1}, {"head_epochs": 3}),
    "lg_fedavg": ({},),
    "ditto": ({"lam": 0.03}, {"lam": 0.3}, {"lam": 1.0}),
    "reptile": ({"epsilon": 0.5}, {"epsilon": 0.7}, {"epsilon": 1.0}),
    "per_fedavg": ({"alpha": 0.1}, {"alpha": 0.5}),
    "apfl": ({"alpha": 0.5}, {"alpha": 0.75}),
    "pfedme": ({"lam": 0.3, "eta": 1.0, "steps": 3}, {"lam": 1.0, "eta": 0.5, "steps": 3}),
    "ifca": ({"k": 2}, {"k": 3}),
    "moon": ({"mu": 0.1}, {"mu": 1.0}),
}
"""What changes the rounds; ``alpha`` of Per-FedAvg as a part of the learning rate."""
BOTH = ("fedper", "fedrep", "lg_fedavg")
NEIGHBOURS = tuple({"k": k, "scale": scale, "last_epochs": 0} for k in (5, 10, 20) for scale in (0.3, 1.0, 3.0))


def lasts(name: str, passes: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """What is tried after the same rounds."""
    kept = tuple({"keeps": True, **each} for each in passes)
    if name == "knn_per":
        return NEIGHBOURS
    if name in BOTH:
        few = 2 if name == "fedrep" else 4
        return (*({"keeps": False, **each} for each in passes[-few:]), *kept[-few:])
    if name in ("ifca", "moon"):
        return ({"last_epochs": 0}, *kept)
    return kept if name == "apfl" else passes


def tried(
    name: str, lr: float, passes: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The numbers of the rounds, and those that are tried after them."""

    def scaled(own: Mapping[str, Any]) -> dict[str, Any]:
        shares = {"last_lr", "alpha"} if name == "per_fedavg" else {"last_lr"}
        return {key: round(lr * value, 6) if key in shares else value for key, value in own.items()}

    for own in ROUNDS[name]:
        yield {"lr": lr, **scaled(own)}, [scaled(last) for last in lasts(name, passes)]


def run(task: str, name: str, settings: personal.Settings, seed: int, own: Mapping[str, Any], after: list[Any]) -> Any:
    """The score of each last training after one set of rounds: (people, sum of their accuracies)."""
    here = personal.world(task, settings, seed, tuning=True)
    executor = training.Auto()
    first = personal.built(name, here, settings, {**own, **after[0]}, executor, seed)
    log = federated.lived(name, here, settings, seed, first, lambda *told: None)
    found = []
    for last in after:
        both = {**own, **last}
        made = personal.built(name, here, settings, both, executor, seed)
        held = {"held": personal.ready(made, log, here, settings, seed, both, ("held",))["held"]}
        mean = users.user_mean(personal.scored(here, held)["held"])
        found.append({"own": both, "people": len(here.train), "mean": float(mean)})
    return found


def main() -> None:
    """Try, choose, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", required=True)
    parser.add_argument("--lrs", default="0.1,0.3,1", help="of FedAvg + fine-tuning")
    parser.add_argument("--last", default="3:1,3:0.3,10:1,10:0.3", help="passes, and their part of that learning rate")
    parser.add_argument("--seeds", default="100")
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=personal.Settings.rounds)
    parser.add_argument("--rows", type=int, default=personal.Settings.rows)
    parser.add_argument("--methods", default=",".join(ROUNDS))
    parser.add_argument("--into", type=Path, default=Path("runs/personal-tune"))
    given = parser.parse_args()
    settings = personal.Settings(people=given.people, rounds=given.rounds, rows=given.rows)
    pairs = [each.split(":") for each in given.last.split(",")]
    passes = [{"last_epochs": int(epochs), "last_lr": float(part)} for epochs, part in pairs]
    into = given.into / given.task
    into.mkdir(parents=True, exist_ok=True)

    def best(name: str, lrs: list[float]) -> dict[str, Any]:
        scores: dict[str, list[float]] = {}
        for lr, seed in itertools.product(lrs, map(int, given.seeds.split(","))):
            for own, after in tried(name, lr, passes):
                mark = "-".join(f"{key}={value}" for key, value in own.items())
                path = into / f"{name}-{mark}-seed-{seed}.json"
                if not path.exists():
                    began = time.process_time()
                    found = run(given.task, name, settings, seed, own, after)
                    told = {"cpu_seconds": time.process_time() - began, "tried": found}
                    path.write_text(json.dumps(told))
                for each in json.loads(path.read_text())["tried"]:
                    scores.setdefault(json.dumps(each["own"]), []).append(each["mean"])
        ranked = sorted(scores, key=lambda own: -float(np.mean(scores[own])))
        print(f"{name}: {len(ranked)} tried")
        for own in ranked[:4]:
            print(f"  {100 * np.mean(scores[own]):.2f}  {own}", flush=True)
        won: dict[str, Any] = json.loads(ranked[0])
        return won

    lr = best("fedavg_ft", [float(each) for each in given.lrs.split(",")])["lr"]
    for name in given.methods.split(","):
        if name != "fedavg_ft":
            best(name, [lr])


if __name__ == "__main__":
    main()
