"""Learning without forgetting: on the new rows, what the old model said of the old classes stays said.

Li, Hoiem: Learning without Forgetting, ECCV 2016. No old row is kept. With ``cloud`` the old model's place is taken by
the cloud's: its answers about the new rows consolidate what the device knew of all classes (cloud-assisted
consolidation), while the labels still say what is new.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor
from torch.nn import functional

from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.training.lifelong import OUT, Lifelong
from duetto.training.losses import Named
from duetto.tree import Tree
from duetto.types import Key, Local


@dataclass(frozen=True)
class Kept:
    """``weight * T^2 * KL(teacher/T || student/T)`` among the ``old [n, classes]`` classes; 0 where there is none.

    Raises:
        ConfigError: a temperature that is not positive.
    """

    weight: float = 1.0
    temperature: float = 2.0
    by_row: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ConfigError(f"temperature={self.temperature}", "use a positive number")

    def __call__(self, logits: Tensor, batch: Named, params: Named, start: Mapping[str, Named]) -> Tensor:
        """[n]."""
        t, new = self.temperature, ~batch["old"]
        student = functional.log_softmax((logits / t).masked_fill(new, OUT), 1)
        teacher = functional.log_softmax((batch["teacher"] / t).masked_fill(new, OUT), 1)
        # Where no class is old both are the same uniform answer, and their divergence is 0.
        kl = functional.kl_div(student, teacher, reduction="none", log_target=True).sum(1)
        return self.weight * t * t * kl


@dataclass(frozen=True)
class Lwf(Lifelong):
    """A client whose loss has a :class:`Kept`; remembers ``classes [classes]`` bool, those of parts that are over.

    Attributes:
        cloud: the memory slot with what the cloud said of the party's rows (``rows [m]``, ``logits [m, classes]``),
            every row of the part among them; then all classes are old. None is the model that training starts from.
    """

    cloud: str | None = None

    def examples(self, local: Local, params: Tree) -> dict[str, np.ndarray]:
        """The part's rows, with the teacher's logits and which classes are old.

        Raises:
            ConfigError: rows that the cloud was not asked about.
        """
        data = super().examples(local, params)
        shape = len(data["y"]), self.net.classes
        if self.cloud is None:
            seen = local.memory.get("classes", np.zeros(self.net.classes, bool))
            said = self.net.logits(trees.map(lambda leaf: np.asarray(leaf, np.float32), params), data["x"])
            return {**data, "teacher": said, "old": np.broadcast_to(seen, shape).copy()}
        whole = np.arange(len(local.data))
        own = whole if self.part is None else whole[local.data.parts[self.part]]
        told = local.memory.get(self.cloud, {"rows": whole[:0], "logits": np.zeros((0, self.net.classes), np.float32)})
        if missing := len(np.setdiff1d(own, told["rows"])):
            raise ConfigError(f"{missing} rows that the cloud was not asked about", "ask it about the whole part")
        at = np.argsort(told["rows"], kind="stable")
        found = at[np.searchsorted(told["rows"][at], own)]
        return {**data, "teacher": np.asarray(told["logits"])[found], "old": np.ones(shape, bool)}

    def learnt(
        self, memory: Mapping[str, Any], data: Mapping[str, np.ndarray], params: Tree, key: Key
    ) -> Mapping[str, Any]:
        """The classes of this part are old from now on."""
        seen = memory.get("classes", np.zeros(self.net.classes, bool)).copy()
        seen[data["y"]] = True
        return {**memory, "classes": seen}
