"""What a fifth of attackers leaves of each aggregator: sign flips, A Little Is Enough, NaN, on people's handwriting.

    DUETTO_DATA=... python benchmarks/federated/attacks.py --seeds 0,1,2 --rounds 40

Prints, for every attack and aggregator, the mean over users of held-back rows, and the difference from the same
aggregator without attackers; means and ranges over seeds. The attackers are the same for all aggregators of a seed.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from duetto import aggregation, attacks
from duetto.evaluation import users
from duetto.programs import federated
from duetto.training import Cohort
from duetto.types import Algorithm, rng

SHARE = 0.2


def aggregators(cohort: int) -> dict[str, Any]:
    """Each with what it must know: how many attackers may come."""
    bad = int(np.ceil(SHARE * cohort))
    return {
        "mean": aggregation.Mean(),
        "mean, gate on norm": aggregation.Mean(),
        "median": aggregation.Median(),
        "trimmed": aggregation.Trimmed(SHARE),
        "multi-krum": aggregation.Krum(bad, keep=cohort - 2 * bad),
        "geometric median": aggregation.GeometricMedian(),
        "centred clipping": aggregation.CentredClip(1.0),
    }


def poisons(cohort: int) -> dict[str, Any]:
    """The attacks."""
    bad = int(np.ceil(SHARE * cohort))
    return {
        "nobody": None,
        "sign flip": attacks.SignFlip(3.0),
        "ALIE": attacks.Alie(bad, cohort),
        "NaN": attacks.NaN(),
    }


def main() -> None:
    """Run all that is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--task", default="handwriting")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--cohort", type=int, default=20)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--out", type=Path, default=Path("attacks.json"))
    args = parser.parse_args()
    done: dict[str, float] = json.loads(args.out.read_text()) if args.out.exists() else {}
    settings = federated.Settings(rounds=args.rounds, cohort=args.cohort, lr=args.lr, points=1)
    for seed in map(int, args.seeds.split(",")):
        here = None
        for attack, poison in poisons(args.cohort).items():
            for name, aggregator in aggregators(args.cohort).items():
                mark = f"{seed}/{attack}/{name}"
                if mark in done:
                    continue
                here = here or federated.world(args.task, settings, seed)
                everybody = sorted(here.train)
                bad = rng((seed, "attackers")).choice(everybody, round(SHARE * len(everybody)), replace=False)
                norm = 2.0 if name == "mean, gate on norm" else None

                def changed(
                    made: Algorithm,
                    poison: Any = poison,
                    bad: Any = bad,
                    aggregator: Any = aggregator,
                    norm: Any = norm,
                ) -> Algorithm:
                    client = made.client if poison is None else attacks.Poisoned(made.client, poison, frozenset(bad))
                    return replace(made, client=client, aggregator=aggregator, gate=aggregation.Gate(norm=norm))

                outcome = federated.learn("fedavg", here, settings, seed, {}, Cohort(), lambda *a: None, changed)
                done[mark] = float(users.user_mean(outcome.of("held")))
                args.out.write_text(json.dumps(done))
                print(f"{mark}: {done[mark]:.1%}", flush=True)
    seeds = args.seeds.split(",")
    print("\n| aggregator | " + " | ".join(poisons(args.cohort)) + " |\n|---|" + "---|" * len(poisons(args.cohort)))
    for name in aggregators(args.cohort):
        cells = []
        for attack in poisons(args.cohort):
            values = np.array([done[f"{seed}/{attack}/{name}"] for seed in seeds])
            clean = np.array([done[f"{seed}/nobody/{name}"] for seed in seeds])
            gain = "" if attack == "nobody" else f" ({100 * (values - clean).mean():+.1f})"
            cells.append(f"{values.mean():.1%}{gain} [{values.min():.1%}, {values.max():.1%}]")
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
