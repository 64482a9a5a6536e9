"""What the pair of a task is worth on people whom it has never seen, beside answers that need no model.

``python benchmarks/tasks/run.py --tasks tweets sensors --seeds 0 1 2`` trains each pair once (it is kept in the cache)
and prints, for the users of group "unseen" of all seeds: accuracy as the mean over users, its interval over users, the
worst tenth and the mean over rows. On ``ratings`` also GAUC, and HitRate@10 and NDCG@10 of the last film among all
films that the user had not rated (full ranking).

- **majority**: the commonest class of the public rows. On ``ratings`` every row is then "passed".
- **popularity** (``ratings``): how often a film was rated by the public users; its threshold is the public rows' best.
- **before** (``shakespeare``): the commonest character after the same three, else two, else one, in the public rows.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch

from duetto import tasks
from duetto.evaluation import ranking, users
from duetto.tasks import Task, ratings
from duetto.types import Rows

Answers = Callable[[np.ndarray], np.ndarray]
"""From inputs to logits."""


def majority(task: Task) -> Answers:
    """Always the commonest class."""
    counts = np.bincount(task.public.y, minlength=len(task.data.classes)).astype(float)
    return lambda x: np.tile(counts, (len(x), 1))


def popularity(public: Rows, items: int) -> Answers:
    """Films by how often they were rated; "rated" above the count with the fewest public errors."""
    film = public.x[:, 0].astype(int)
    counts = np.bincount(film[public.y == 1], minlength=items)
    levels = np.unique(counts[film])
    # Errors if a film counts as "rated" from a level on: positives below it, negatives at it or above.
    below = np.searchsorted(np.sort(counts[film[public.y == 1]]), levels)
    above = (public.y == 0).sum() - np.searchsorted(np.sort(counts[film[public.y == 0]]), levels)
    threshold = levels[np.argmin(below + above)] - 0.5
    return lambda x: np.stack([np.full(len(x), threshold), counts[x[:, 0].astype(int)]], 1).astype(float)


def before(public: Rows, classes: int) -> Answers:
    """The commonest character behind the last three, two, one."""
    tables: list[np.ndarray] = []
    for length in (0, 1, 2, 3):
        table = np.zeros((classes**length, classes), np.float32)
        np.add.at(table, (_code(public.x, length, classes), public.y), 1)
        tables.append(table / np.maximum(1, table.sum(1, keepdims=True)))
    # A longer context that was seen weighs a hundred times the next shorter one, so that it decides.
    return lambda x: sum(100.0**i * table[_code(x, i, classes)] for i, table in enumerate(tables))  # type: ignore[return-value]


def _code(x: np.ndarray, length: int, classes: int) -> np.ndarray:
    code = np.zeros(len(x), np.int64)
    for column in x[:, x.shape[1] - length :].T.astype(np.int64):
        code = code * classes + column
    return code


def systems(task: Task) -> dict[str, Answers]:
    """By name: without a model, the small one, the large one."""
    pair = tasks.trained(task)
    found: dict[str, Answers] = {"majority": majority(task)}
    if task.name == "ratings":
        found["popularity"] = popularity(task.public, task.small.items)  # type: ignore[attr-defined]
    if task.name == "shakespeare":
        found["before"] = before(task.public, len(task.data.classes))
    found[f"small, {task.small.parameters:,}"] = lambda x: task.small.logits(pair.small, x)
    found[f"large, {task.large.parameters:,}"] = lambda x: task.large.logits(pair.large, x)
    return found


def main() -> None:
    """A line a task and system."""
    flags = argparse.ArgumentParser()
    flags.add_argument("--tasks", nargs="+", default=["ratings", "shakespeare", "tweets", "sensors"])
    flags.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    asked = flags.parse_args()
    torch.set_num_threads(1)
    for name in asked.tasks:
        columns: dict[str, dict[str, list[np.ndarray]]] = {}
        for seed in asked.seeds:
            task = tasks.load(name, seed)
            rows, owner = task.group("unseen")
            owner = np.char.add(f"{seed}/", owner)
            for system, answers in systems(task).items():
                of = columns.setdefault(system, {})
                logits = answers(rows.x)
                add(of, correct=(logits.argmax(1) == rows.y).astype(float), user=owner)
                if name == "ratings":
                    add(of, score=ratings.score(logits), positive=rows.y)
                    items = task.small.items  # type: ignore[attr-defined]
                    last = [ratings.last_rank(answers, task.rows(user), items) for user in task.users["unseen"]]
                    add(of, rank=np.array(last))
        for system, of in columns.items():
            whole = {column: np.concatenate(values) for column, values in of.items()}
            print(f"{name}, {system}: {told(whole)}", flush=True)


def add(of: dict[str, list[np.ndarray]], **columns: np.ndarray) -> None:
    """Keep the columns of one seed."""
    for column, values in columns.items():
        of.setdefault(column, []).append(values)


def told(whole: dict[str, np.ndarray]) -> str:
    """The figures in one line."""
    by = users.by(whole["correct"], whole["user"])
    low, high = users.bootstrap(users.user_mean, by, key=(0, "tasks"))
    line = f"{users.user_mean(by):.2%} of a user's rows ({low:.2%} to {high:.2%}; {len(by)} users), worst tenth "
    line += f"{users.worst(by):.2%}, all rows {users.example_weighted(by):.2%}"
    if "rank" in whole:
        of = ranking.auc(whole["score"], whole["positive"], whole["user"])
        low, high = users.bootstrap(users.example_weighted, of, key=(0, "gauc"))
        hits, gains = ranking.hit_rate(whole["rank"]), ranking.ndcg(whole["rank"])
        error = 1.96 * hits.std() / len(hits) ** 0.5
        line += f"; GAUC {users.example_weighted(of):.4f} ({low:.4f} to {high:.4f}), HitRate@10 {hits.mean():.2%} "
        line += f"(± {error:.2%}), NDCG@10 {gains.mean():.4f}"
    return line


if __name__ == "__main__":
    main()
