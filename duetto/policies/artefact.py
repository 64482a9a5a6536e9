"""Any fitted policy as a folder that can be read, checked and shipped (see :mod:`duetto.policies.sealed`).

The policy is written as its name and hyper-parameters, those of policies inside it likewise; its state as safetensors.
Only classes of this package are built again, so that a folder cannot name code of its own.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from duetto import parts
from duetto import tree as trees
from duetto.errors import ConfigError, DataError, WireError
from duetto.policies import sealed
from duetto.types import Held, Policy

FORMAT, VERSION = "duetto policy", 1


@dataclass(frozen=True, eq=False)
class Artefact:
    """A fitted policy and what is known of it.

    Attributes:
        held: the policy with its state.
        fitted_on: ``items``, ``users``, and whatever else is worth knowing.
        promise: what is promised, in words or numbers.
    """

    held: Held[Any]
    fitted_on: Mapping[str, Any] = field(default_factory=dict)
    promise: Mapping[str, Any] = field(default_factory=dict)


def save(artefact: Artefact, folder: str | Path) -> Path:
    """Write it to a folder, which is made where needed.

    Raises:
        ConfigError: a policy that is not of this package, or holds what cannot be written.
        DataError: a folder that cannot be written.
    """
    held = artefact.held
    about = {
        "policy": parts.described(held.part, _name),
        "fitted_on": dict(artefact.fitted_on),
        "promise": dict(artefact.promise),
    }
    return sealed.write(folder, FORMAT, VERSION, about, held.save())


def load(folder: str | Path) -> Artefact:
    """Read it from its folder, and check every byte.

    Raises:
        DataError: missing, damaged or changed files, or those of another program or version; one line says which.
    """
    about, weights = sealed.read(folder, FORMAT, VERSION)
    try:
        held: Held[Any] = Held(parts.built(about["policy"], _find), trees.decode(weights))
    except (TypeError, KeyError, ConfigError, WireError) as fault:
        raise DataError(f"{folder} is no policy that this version can read ({fault})", "fit anew") from fault
    return Artefact(held, about["fitted_on"], about["promise"])


def told(held: Held[Any]) -> dict[str, Any]:
    """A fitted policy as values that JSON can hold, such as a release tells beside its model.

    Raises:
        ConfigError: a policy that is not of this package, or holds what cannot be written.
    """
    return {"policy": parts.described(held.part, _name), "state": b64encode(held.save()).decode()}


def heard(about: Any) -> Held[Any]:
    """The policy that :func:`told` wrote; whoever calls has verified who did.

    Raises:
        DataError: no such policy, or one of another version.
    """
    try:
        state = trees.decode(b64decode(about["state"], validate=True))
        return Held(_policy(parts.built(about["policy"], _find)), state)
    except (TypeError, ValueError, KeyError, ConfigError, WireError) as fault:
        raise DataError(
            f"no policy that this version can read ({fault})", "publish it with the same version"
        ) from fault


def _policy(part: Any) -> Policy[Any]:
    if not isinstance(part, Policy):
        raise TypeError(f"a {type(part).__name__}")
    return part


def _name(kind: type) -> str | None:
    return kind.__name__ if _public().get(kind.__name__) is kind else None


def _find(name: str) -> type:
    found: type = _public()[name]
    return found


def _public() -> Mapping[str, Any]:
    """The public classes of the package by name; found when needed, since the package imports this module."""
    package = import_module("duetto.policies")
    return {name: getattr(package, name) for name in package.__all__}
