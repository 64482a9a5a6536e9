"""Skills, and the parts in them, by name: what one party can write and another one read.

A name is ``room.module:Class`` for what is Duetto's, from the rooms of parts and no other; a class of one's own has
its bare name, and is known to whoever lists it. Nothing else that a text names is ever imported.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any

from duetto import parts
from duetto.errors import ConfigError, WireError
from duetto.types import Key, Skill

KEY_BYTES = 16 << 10  # of a key
ROOMS = ("aggregation", "algorithms", "codecs", "models", "policies", "protocols", "training")


def written(skill: Skill) -> tuple[int, str]:
    """A skill's number, by which it is known, and its description.

    Raises:
        ConfigError: it holds what cannot be written.
    """
    try:
        hash(skill)
    except TypeError as fault:
        raise ConfigError(f"{skill.name} cannot be written ({fault})", "give it settings that never change") from fault
    return _written(skill)


@lru_cache(1024)
def _written(skill: Skill) -> tuple[int, str]:
    text = json.dumps(parts.described(skill, _name), separators=(",", ":"), sort_keys=True)
    return number(text), text


def number(text: str) -> int:
    """The number of a description: the first 8 bytes of its SHA-256."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def read(text: str, own: Mapping[str, type]) -> Skill:
    """The skill that :func:`written` described; ``own`` are the classes that have bare names here.

    Raises:
        WireError: no description of a skill.
        ConfigError: an unknown name, or settings that do not fit.
    """

    def find(name: str) -> type:
        return own[name] if name in own else _duetto(name)

    try:
        about = json.loads(text)
    except (ValueError, RecursionError) as fault:
        raise WireError("a skill whose description is not JSON", "both sides must speak the same version") from fault
    skill = parts.built(about, find)
    if not isinstance(skill, Skill):
        raise WireError(f"a {type(skill).__name__} where a skill should be", "ask for a skill")
    return skill


def classes(listed: Iterable[type | Skill]) -> dict[str, type]:
    """Classes by their bare names, of those that are not Duetto's parts."""
    found = (each if isinstance(each, type) else type(each) for each in listed)
    return {each.__name__: each for each in found}


def key_text(key: Key) -> str:
    """A key as it is written.

    Raises:
        ConfigError: it holds something else than integers and texts (numpy's are others: they draw other numbers), or
            is too long.
    """
    strange = [part for part in key if not _plain(part)]
    try:
        text = json.dumps(key, separators=(",", ":")) if not strange else ""
    except ValueError as fault:
        raise ConfigError(f"a key with a huge number ({fault})", "use fewer digits") from fault
    if strange or len(text) > KEY_BYTES:
        what = f"with {strange[0]!r} ({type(strange[0]).__name__})" if strange else f"of {len(text):,} bytes"
        raise ConfigError(f"a key {what}", f"use integers and texts, {KEY_BYTES:,} bytes in all")
    return text


def key_of(text: str) -> Key:
    """The key that was written.

    Raises:
        WireError: no list of integers and texts.
    """
    try:
        key = json.loads(text)
    except (ValueError, RecursionError) as fault:
        raise WireError("a key that is not JSON", "send a list of integers and texts") from fault
    if len(text) > KEY_BYTES or not isinstance(key, list) or not all(map(_plain, key)):
        raise WireError(f"a key {text[:80]!r}", "send a list of integers and texts")
    return tuple(key)


def _plain(part: object) -> bool:
    if type(part) is str:
        return part.isascii() or not any("\ud800" <= each <= "\udfff" for each in part)
    return type(part) is int


def _name(kind: type) -> str:
    package, _, module = kind.__module__.partition(".")
    if package == "duetto" and (module == "types" or module.partition(".")[0] in ROOMS):
        return f"{module}:{kind.__name__}"
    return kind.__name__


@lru_cache(1024)
def _duetto(name: str) -> type:
    module, colon, called = name.partition(":")
    known = (
        colon and (module == "types" or module.partition(".")[0] in ROOMS) and module.replace(".", "").isidentifier()
    )
    if not known:
        raise ConfigError(f"nothing here is called {name[:80]!r}", "list the class among the party's skills or parts")
    try:
        found: Any = getattr(import_module(f"duetto.{module}"), called, None)
    except ImportError as fault:
        raise ConfigError(
            f"{name} needs {fault.name}", "pip install 'duetto[train]' on the side that is asked"
        ) from fault
    if isinstance(found, type) and is_dataclass(found) and not called.startswith("_"):
        kind: type = found
        if kind.__module__ == f"duetto.{module}":
            return kind
    raise ConfigError(f"nothing here is called {name[:80]!r}", "both sides must run the same version")
