"""What both models of a task say about its devices' inputs, computed once and kept in the cache."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from duetto import tasks, tree
from duetto.folders import default_cache
from duetto.tasks import pair
from duetto.types import Outcomes


@dataclass(frozen=True, eq=False)
class Logged:
    """Logits of both models ``[n, classes]``, the right classes ``[n]``, and whose input each is ``[n]``."""

    small: np.ndarray
    large: np.ndarray
    labels: np.ndarray
    users: np.ndarray

    @property
    def outcomes(self) -> Outcomes:
        """As a router sees and is judged by them."""
        return Outcomes.of_classifiers(self.small, self.large, self.labels, self.users)


def logged(name: str, seed: int = 0) -> Logged:
    """Of a task's device users, the rows that no model was trained on; the pair is the closed loop's first."""
    task = tasks.load(name, seed)
    path = default_cache() / "benchmarks" / f"{name}-{pair.digest(task)}-logits.safetensors"
    if path.exists():
        kept = tree.decode(path.read_bytes())
        return Logged(kept["small"], kept["large"], kept["labels"], kept["users"])
    models = pair.trained(task)
    parts = [task.group("device", part) for part in ("stream", "calibration", "held")]
    x = np.concatenate([rows.x for rows, _ in parts])
    users = np.unique(np.concatenate([owners for _, owners in parts]), return_inverse=True)[1]
    found = {
        "small": task.small.logits(models.small, x),
        "large": task.large.logits(models.large, x),
        "labels": np.concatenate([rows.y for rows, _ in parts]).astype(np.int64),
        "users": users.astype(np.int64),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tree.encode(found))
    return Logged(**found)
