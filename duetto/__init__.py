"""Duetto: a small model on the device and a large model in the cloud, answering and learning together.

The public names are loaded when they are first used, so ``import duetto`` costs a device neither torch nor time.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Action": "duetto.types",
    "Answer": "duetto.types",
    "Chain": "duetto.types",
    "Cost": "duetto.types",
    "Device": "duetto.device.agent",
    "Error": "duetto.errors",
    "Fleet": "duetto.simulation.fleet",
    "Held": "duetto.types",
    "Local": "duetto.types",
    "Log": "duetto.simulation.engine",
    "Move": "duetto.types",
    "Network": "duetto.simulation.link",
    "Outcomes": "duetto.types",
    "Party": "duetto.types",
    "Peer": "duetto.types",
    "Plan": "duetto.types",
    "Record": "duetto.types",
    "Reply": "duetto.types",
    "Rows": "duetto.types",
    "Seen": "duetto.types",
    "Skill": "duetto.types",
    "Staged": "duetto.models.staged",
    "connect": "duetto.device.runner",
    "fleet": "duetto.simulation.fleet",
    "rng": "duetto.types",
    "serve": "duetto.cloud.service",
    "simulate": "duetto.simulation.engine",
    "stage": "duetto.models.staged",
}
_ROOMS = (
    "aggregation",
    "algorithms",
    "codecs",
    "evaluation",
    "models",
    "policies",
    "protocols",
    "tasks",
    "training",
    "tree",
)

__all__ = [
    "Action",
    "Answer",
    "Chain",
    "Cost",
    "Device",
    "Error",
    "Fleet",
    "Held",
    "Local",
    "Log",
    "Move",
    "Network",
    "Outcomes",
    "Party",
    "Peer",
    "Plan",
    "Record",
    "Reply",
    "Rows",
    "Seen",
    "Skill",
    "Staged",
    "aggregation",
    "algorithms",
    "codecs",
    "connect",
    "evaluation",
    "fleet",
    "models",
    "policies",
    "protocols",
    "rng",
    "serve",
    "simulate",
    "stage",
    "tasks",
    "training",
    "tree",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name in _ROOMS:
        return import_module(f"duetto.{name}")
    raise AttributeError(f"module 'duetto' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
