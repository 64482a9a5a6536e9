"""The small and the large model of a task, trained in the cloud once and then taken from the cache.

The large model learns the public labels; the small one is distilled from the large one on the same rows (Hinton,
Vinyals, Dean 2015). Both are kept as safetensors under a name that is a digest of all that made them, so other data,
another recipe or another seed never finds an old model.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from duetto import tree as trees
from duetto.errors import DataError, WireError
from duetto.folders import default_cache
from duetto.tasks.task import Task
from duetto.tree import Tree
from duetto.types import Rows

Progress = Callable[[str, int, int], None]
"""Called with what is trained, the steps done and the steps in all."""


@dataclass(frozen=True, eq=False)
class Pair:
    """Parameters of the two models, and where they are kept."""

    small: Tree
    large: Tree
    path: Path


def trained(task: Task, cache: Path | None = None, progress: Progress = lambda what, step, steps: None) -> Pair:
    """The pair of a task.

    Raises:
        DataError: a cached file is damaged; it says which to delete.
    """
    path = (cache or default_cache()) / "models" / f"{task.name}-{digest(task)}.safetensors"
    if path.exists():
        try:
            kept = trees.decode(path.read_bytes())
            return Pair(kept["small"], kept["large"], path)
        except (WireError, LookupError, TypeError) as error:
            raise DataError(
                f"the cached models in {path} are damaged", "delete that file; they are trained anew"
            ) from error
    pair = train(task, progress)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        part.write_bytes(trees.encode(pair))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return Pair(pair["small"], pair["large"], path)


def train(task: Task, progress: Progress = lambda what, step, steps: None) -> dict[str, Tree]:
    """Train ``{"small", "large"}`` now."""
    from duetto.training import sequential

    public = task.public
    data = {"x": public.x, "y": public.y}
    start = task.large.init(task.seed)
    shown = partial(progress, "large model")
    large = sequential.run(task.teach_large, {"params": start}, data, (task.seed, "large"), shown).params
    taught = {**data, "teacher": task.large.logits(large, public.x)}
    start = task.small.init(task.seed)
    shown = partial(progress, "small model")
    small = sequential.run(task.teach_small, {"params": start}, taught, (task.seed, "small"), shown).params
    return {"small": small, "large": large}


def digest(task: Task) -> str:
    """What made the models, as 16 hexadecimal digits."""
    import torch

    public: Rows = task.public
    told = hashlib.blake2b(digest_size=8)
    told.update(repr((task.seed, task.small, task.large, task.teach_large, task.teach_small)).encode())
    told.update(torch.__version__.encode())
    told.update(np.ascontiguousarray(public.x).tobytes())
    told.update(np.ascontiguousarray(public.y).tobytes())
    return told.hexdigest()
