"""Parts as plain values and back: a frozen dataclass by its name and settings, those inside it likewise.

Nothing here imports or runs what a text names: whoever builds says which names there are (``find``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import Field, fields, is_dataclass
from typing import Any

from duetto.errors import ConfigError, Error

DEPTH = 32  # parts inside parts
_NUMBERS = {word: float(word) for word in ("inf", "-inf", "nan")}  # of which JSON has none


def described(value: Any, name: Callable[[type], str | None]) -> Any:
    """A part, and all that it is made of, as values that JSON can hold.

    Args:
        value: a part, a number, a text, None, or a tuple of such.
        name: what a class is called, or None where it cannot be named.

    Raises:
        ConfigError: it holds something else.
    """
    if isinstance(value, str):
        return {"text": value} if value in _NUMBERS else value
    if isinstance(value, bool | int) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(float(value))
    if isinstance(value, tuple):
        return [described(each, name) for each in value]
    if is_dataclass(value) and not isinstance(value, type) and (called := name(type(value))) is not None:
        settings = {each.name: described(getattr(value, each.name), name) for each in fields(value) if travels(each)}
        return {"class": called, "settings": settings}
    raise ConfigError(f"a part that holds {value!r}", "use parts of duetto, or say which classes are yours")


def built(about: Any, find: Callable[[str], type], depth: int = DEPTH) -> Any:
    """The part that :func:`described` told of.

    Args:
        about: what it told.
        find: the class of a name; raises where there is none.

    Raises:
        ConfigError: a name that ``find`` refuses, settings that the class refuses or does not have, parts too deep.
    """
    if depth < 0:
        raise ConfigError(f"parts inside parts, more than {DEPTH} deep", "describe it with fewer")
    if isinstance(about, list):
        return tuple(built(each, find, depth - 1) for each in about)
    if isinstance(about, str):
        return _NUMBERS.get(about, about)
    if not isinstance(about, Mapping):
        return about
    if set(about) == {"text"}:
        return str(about["text"])
    if set(about) != {"class", "settings"} or not isinstance(about["settings"], Mapping):
        raise ConfigError(f"a part with {sorted(map(str, about))}", "a part is a class and its settings")
    found = find(str(about["class"]))
    if not is_dataclass(found):
        raise ConfigError(f"{about['class']} is no part", "a part is a frozen dataclass")
    known = {each.name for each in fields(found) if travels(each)}
    if strange := sorted(set(about["settings"]) - known):
        raise ConfigError(f"{about['class']} has no {strange[0]!r}", f"it has {', '.join(sorted(known))}")
    settings = {word: built(value, find, depth - 1) for word, value in about["settings"].items()}
    try:
        return found(**settings)
    except Error:
        raise
    except Exception as fault:  # whatever a class makes of settings that it never saw
        raise ConfigError(f"{about['class']} cannot be made ({fault})", "check its settings") from fault


def travels(setting: Field[Any]) -> bool:
    """Whether a setting belongs to the part wherever it is; ``metadata={"local": True}`` says that it does not."""
    return setting.init and not setting.metadata.get("local")
