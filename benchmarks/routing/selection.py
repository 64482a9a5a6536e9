"""What to send for learning: the small model after learning from k samples that a rule selected and the cloud labelled.

``python benchmarks/routing/selection.py --json selection.json``: the rows of a task's device users that no model was
trained on are split anew by each seed, 60 % into the pool and 40 % to score (at most 3,000 in all). The model starts as
the cloud made it (``pair``), or from 60 of the cloud's rows alone (``cold``, the usual setting of active learning). It
is trained on the k samples with the large model's soft answers; a cold model also on its first 60. The committee of
``Disagreed`` are three models that were trained on from the start with 200 of the cloud's rows each. ``neighbours``
send embeddings of the ``LeastSure`` samples up, and learn from the k nearest of the cloud's rows that come down;
``prototypes`` learn nothing and answer by the class means of the cloud's rows. Shown is the accuracy in %, the mean of
the seeds and its standard error over them, and the difference from random samples of the same seeds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from duetto import tasks
from duetto.models import Neighbours, Prototypes, embedded
from duetto.models.returns import by_prototype
from duetto.policies import Balanced, Disagreed, KCentre, LeastSure, RandomSample
from duetto.tasks import Task, pair
from duetto.training import Adam, Client, Distil, sequential
from duetto.tree import Tree
from duetto.types import Action, Key, Local, Rows, Seen, rng

ROWS, FIRST = 3000, 60


def trained(task: Task, start: Tree, x: np.ndarray, logits: np.ndarray, epochs: int, lr: float, key: Key) -> Tree:
    """The small model after learning the large one's answers."""
    client = Client(task.small, (Distil(1.0, 1.0),), Adam(lr, schedule="cosine"), epochs, 16)
    data = {"x": x, "y": logits.argmax(1), "teacher": logits}
    return sequential.run(client, {"params": start}, data, key).params


def scored(task: Task, models: pair.Pair, seed: int, cold: bool, sizes: list[int]) -> dict[tuple[str, int], float]:
    """The accuracy of every rule at every size, with one seed."""
    parts = [task.group("device", part)[0] for part in ("stream", "calibration", "held")]
    x, y = np.concatenate([each.x for each in parts]), np.concatenate([each.y for each in parts])
    order = rng((seed, "split")).permutation(len(y))[:ROWS]
    pool, test = np.split(order, [round(0.6 * len(order))])
    public, start = task.public, models.small
    base_x, base_logits = x[:0], np.zeros((0, task.small.classes), np.float32)
    pick = rng((seed, "public")).permutation(len(public.y))
    if cold:
        base_x = public.x[pick[:FIRST]]
        base_logits = task.large.logits(models.large, base_x)
        start = trained(task, task.small.init(seed), base_x, base_logits, 80, 5e-3, (seed, "cold"))
    committee = []
    for member in range(3):
        rows = public.x[rng((seed, "member", member)).permutation(len(public.y))[:200]]
        said = task.large.logits(models.large, rows)
        committee.append(trained(task, start, rows, said, 4, 1e-3, (seed, "member", member)))
    seen = Seen(
        stage=1,
        answer=task.small.logits(start, x[pool]),
        features=embedded(task.small, start, x[pool]),
        scores=np.stack([task.small.logits(each, x[pool]).argmax(1) for each in committee], axis=1),
        size=len(pool),
    )

    def right(params: Tree) -> float:
        return float((task.small.logits(params, x[test]).argmax(1) == y[test]).mean())

    def learnt(rows: np.ndarray, logits: np.ndarray) -> float:
        both = np.concatenate([base_x, rows]), np.concatenate([base_logits, logits])
        return right(trained(task, start, *both, 20, 4e-3 if cold else 5e-4, (seed, "learn")))

    cloud = Local(Rows(public.x[pick[:5000]], public.y[pick[:5000]]), {"params": start, "large": models.large})
    sent = Prototypes(task.small)(cloud, {}, (0,), "device")[1]
    answers = by_prototype(sent, embedded(task.small, start, x[test])).argmax(1)
    found = {("before", 0): right(start), ("prototypes", 0): float((answers == y[test]).mean())}
    for size in sizes:
        for rule in (RandomSample(size), LeastSure(size), Disagreed(size), KCentre(size), Balanced(size)):
            _, move = rule.choose(rule.init(), seen, (seed, "select"))
            rows = x[pool[move.action == Action.ASK]]
            found[type(rule).__name__, size] = learnt(rows, task.large.logits(models.large, rows))
        _, move = LeastSure(size).choose({}, seen, (seed, "select"))
        shown = embedded(task.small, start, x[pool[move.action == Action.ASK]])
        down = Neighbours(task.small, task.large, 1)(cloud, {"embedding": shown}, (0,), "device")[1]
        found["neighbours", size] = learnt(down["x"], down["logits"])
    return found


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=["digits", "handwriting"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[40, 160])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--start", nargs="+", default=["pair", "cold"], choices=["pair", "cold"])
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    rows = []
    print("| task | start | k | rule | accuracy % | over random, points |")
    print("|:--|:--|--:|:--|--:|--:|")
    for name in asked.tasks:
        task = tasks.load(name)
        models = pair.trained(task)
        for begin in asked.start:
            runs = [scored(task, models, seed, begin == "cold", asked.sizes) for seed in range(asked.seeds)]
            for rule, size in runs[0]:
                each = 100 * np.array([run[rule, size] for run in runs])
                error = each.std(ddof=1) / len(each) ** 0.5 if len(each) > 1 else float("nan")
                row = {"task": name, "start": begin, "k": size, "rule": rule, "accuracy": each.mean(), "error": error}
                shown = f"| {name} | {begin} | {size} | {rule} | {each.mean():.2f} ± {error:.2f} |"
                if size:
                    ahead = each - 100 * np.array([run["RandomSample", size] for run in runs])
                    row["over_random"] = ahead.mean()
                    shown += f" {ahead.mean():+.2f} ± {ahead.std(ddof=1) / len(each) ** 0.5:.2f} |"
                else:
                    shown += " |"
                rows.append(row)
                print(shown, flush=True)
    if asked.json:
        asked.json.write_text(json.dumps({"seeds": asked.seeds, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
