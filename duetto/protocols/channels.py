"""Who listens to which channel of releases, and what a release tells beside its model.

The channel ``stable`` is everybody's. Some devices try what comes in ``canary`` first: which ones follows from their
names and from the share that the stable release tells, so that the cloud need not ask anybody and a device need not be
told by anybody but by the signed release. A device is among them for every model anew, and a larger share keeps those
of a smaller one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from duetto.types import rng

STABLE, CANARY = "stable", "canary"
SHARE, POLICY, MOVE, NUMBER = "canary", "policy", "move", "model_version"
"""What a release may tell: the share of devices that try a canary; the policy of the model; the registry's move that it
was made from, and its version there."""


def tries(device: str, model: str, share: float) -> bool:
    """Whether a device is among the ``share``, from 0 to 1, that tries new versions of a model first."""
    return float(rng(("canary", model, device)).random()) < share


def share(told: Mapping[str, Any]) -> float:
    """The share that a release tells; 0 where it tells none, or no number."""
    found = told.get(SHARE, 0.0)
    return float(found) if isinstance(found, int | float) and 0 <= found <= 1 else 0.0
