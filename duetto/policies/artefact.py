"""Any fitted policy as a folder that can be read, checked and shipped (see :mod:`duetto.policies.sealed`).

The policy is written as its name and hyper-parameters, those of policies inside it likewise; its state as safetensors.
Only classes of this package are built again, so that a folder cannot name code of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from duetto import tree as trees
from duetto.errors import ConfigError, DataError, WireError
from duetto.policies import sealed
from duetto.types import Held

FORMAT, VERSION = "duetto policy", 1
_INFINITE = {"inf": float("inf"), "-inf": float("-inf")}


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
        "policy": _described(held.part),
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
        held: Held[Any] = Held(_built(about["policy"]), trees.decode(weights))
    except (TypeError, KeyError, ConfigError, WireError) as fault:
        raise DataError(f"{folder} is no policy that this version can read ({fault})", "fit anew") from fault
    return Artefact(held, about["fitted_on"], about["promise"])


def _described(value: Any) -> Any:
    """A policy, and all it is made of, as JSON."""
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return next((name for name, number in _INFINITE.items() if number == value), value)
    if isinstance(value, tuple):
        return [_described(each) for each in value]
    if is_dataclass(value) and _public().get(type(value).__name__) is type(value):
        settings = {each.name: _described(getattr(value, each.name)) for each in fields(value) if each.init}
        return {"class": type(value).__name__, "settings": settings}
    raise ConfigError(f"a policy that holds {value!r}", "write policies of duetto.policies only")


def _built(about: Any) -> Any:
    if isinstance(about, list):
        return tuple(_built(each) for each in about)
    if isinstance(about, Mapping):
        settings = {name: _built(value) for name, value in about["settings"].items()}
        return _public()[about["class"]](**{name: _INFINITE.get(str(each), each) for name, each in settings.items()})
    return about


def _public() -> Mapping[str, Any]:
    """The public classes of the package by name; found when needed, since the package imports this module."""
    package = import_module("duetto.policies")
    return {name: getattr(package, name) for name in package.__all__}
