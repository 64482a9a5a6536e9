"""What the devices of a task have: its small model as a file, and a policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duetto.models import export
from duetto.policies import Calibrated
from duetto.tasks import Task, trained
from duetto.types import Held, Outcomes, Rows


@dataclass(frozen=True, eq=False)
class Equipped:
    """What every device of a task has.

    Attributes:
        small: its model, as ONNX.
        policy: that was fitted to the pair.
        users: the rows of each user.
    """

    small: Path
    policy: Held[Any]
    users: Sequence[Rows]


def equipped(task: Task, folder: Path) -> Equipped:
    """Take or train the pair of a task, export the small model, and fit a policy on the users kept for that."""
    pair = trained(task)
    small = export.onnx(task.small, pair.small, folder / "small.onnx")
    rows, users = task.group("calibration")
    logits = [net.logits(params, rows.x) for net, params in ((task.small, pair.small), (task.large, pair.large))]
    policy = Calibrated().fit(Outcomes.of_classifiers(logits[0], logits[1], rows.y, users))
    return Equipped(small, policy, [task.rows(user) for user in task.users["device"]])
