"""What a pair, and further small models beside it, say about the rows that routers are fitted on and judged by.

The small model of a task gets siblings: the same recipe and rows, other starts. Together with it they are an ensemble
(Lakshminarayanan, Pritzel, Blundell 2017). Other models are trained without one share of the training users each, so
that every training row has one that never saw its user, and routers can learn from the training users too without
taking what was learned by heart for knowledge (cross-fitting, the out-of-fold predictions of Wolpert 1992). Everything
is kept in the run's folder: what is trained is not trained again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from duetto import tree as trees
from duetto.errors import DataError, WireError
from duetto.models.features import last_features
from duetto.tasks import Task, trained
from duetto.tree import Tree
from duetto.types import Outcomes, Rows, Seen, rng

FOLDS = 4
"""Shares of the training users, each left out by one model."""

Progress = Callable[[str, float, float], None]


@dataclass(frozen=True, eq=False)
class Heard:
    """What all models say about ``n`` rows.

    Attributes:
        user: [n] whose row each is.
        truth: [n] int64 labels.
        small: [n, classes] float32 logits of the device's model (on training rows: of a model by the same recipe that
            never saw the row's user).
        large: [n, classes] float32 logits of the cloud's model.
        siblings: [n, k, classes] float32 logits of the small model and its siblings, the small model first.
        features: [n, d] float32, what the small model's last layer reads.
    """

    user: np.ndarray
    truth: np.ndarray
    small: np.ndarray
    large: np.ndarray
    siblings: np.ndarray
    features: np.ndarray

    def outcomes(self, *, siblings: int = 1, features: bool = False) -> Outcomes:
        """As a router gets it: with the logits of that many small models, and the features or not."""
        seen = Seen(
            stage=1,
            answer=np.asarray(self.small, np.float64),
            scores=self.siblings[:, :siblings].astype(np.float64) if siblings > 1 else None,
            features=self.features.astype(np.float64) if features else None,
            size=len(self.truth),
        )
        right = [(logits.argmax(1) == self.truth).astype(float) for logits in (self.small, self.large)]
        return Outcomes(right[0], right[1], seen, self.user, self.truth)


def heard(task: Task, siblings: int, folder: Path, tell: Progress, cache: Path | None = None) -> dict[str, Heard]:
    """What is said on the rows of "train", "calibration" and "test" users.

    Test users are all others: those with devices, on rows that the cloud did not collect, and the unseen ones.

    Raises:
        DataError: a file of the run is damaged; it says which to delete.
    """
    pair = trained(task, cache, lambda what, step, of: tell(f"training the {what}", step, of))
    public, owners = _public(task)
    fold = folds(owners, FOLDS, task.seed)

    def kept(name: str, rows: np.ndarray) -> Tree:
        path = folder / f"{task.name}-{name}.safetensors"
        if not path.exists():
            write(path, again(task, Rows(public.x[rows], public.y[rows]), pair.large, name, tell))
        return read(path)

    members = [pair.small, *(kept(f"sibling-{i}", fold >= 0) for i in range(1, siblings))]
    blind = [kept(f"fold-{i}", fold != i) for i in range(FOLDS)]
    groups = {"train": (public, owners), "calibration": task.group("calibration"), "test": _test(task)}
    said: dict[str, Heard] = {}
    for group, (rows, user) in groups.items():
        path = folder / f"{task.name}-{group}.safetensors"
        if not path.exists():
            tell(f"answering the {group} users", len(said), len(groups))
            each = np.stack([task.small.logits(params, rows.x) for params in members], axis=1)
            small = each[:, 0]
            if group == "train":
                unseen = np.stack([task.small.logits(params, rows.x) for params in blind], axis=1)
                small = unseen[np.arange(len(rows)), fold]
            write(
                path,
                {
                    "small": small,
                    "large": task.large.logits(pair.large, rows.x),
                    "siblings": each,
                    "features": last_features(task.small, pair.small, rows.x),
                },
            )
        columns = read(path)
        said[group] = Heard(np.asarray(user), np.asarray(rows.y, np.int64), **columns)
    return said


def folds(owners: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Which share each row belongs to, ``[n]`` 0..count-1: whole users, shares of about the same number of users."""
    names, which = np.unique(owners, return_inverse=True)
    return np.asarray(rng((seed, "folds")).permutation(len(names)) % max(1, count))[which]


def again(task: Task, rows: Rows, large: Tree, name: str, tell: Progress) -> Tree:
    """A small model by the task's own recipe, from another start, in another order; ``name`` draws both."""
    from duetto.training import sequential

    taught = {"x": rows.x, "y": rows.y, "teacher": task.large.logits(large, rows.x)}
    start = {"params": task.small.init(int(rng((task.seed, name)).integers(2**31)))}

    def stepped(step: int, steps: int) -> None:
        tell(f"training the small model again, {name}", step, steps)

    return sequential.run(task.teach_small, start, taught, (task.seed, name), stepped).params


def _public(task: Task) -> tuple[Rows, np.ndarray]:
    if task.train is None:
        return task.group("train")
    names = np.array(task.data.users)
    return task.public, names[task.data.user[task.train]]


def _test(task: Task) -> tuple[Rows, np.ndarray]:
    parts = [task.group("unseen"), *(task.group("device", part) for part in task.parts)]
    rows = Rows(np.concatenate([each.x for each, _ in parts]), np.concatenate([each.y for each, _ in parts]))
    return rows, np.concatenate([owners for _, owners in parts])


def write(path: Path, tree: Tree) -> None:
    """A tree as a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(trees.encode(tree))
    part.replace(path)


def read(path: Path) -> Tree:
    """The tree of a file.

    Raises:
        DataError: it is damaged.
    """
    try:
        return trees.decode(path.read_bytes())
    except WireError as error:
        raise DataError(f"{path} is damaged", "delete it; that part of the run is done anew") from error
