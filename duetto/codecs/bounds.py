"""How far a codec is off: what it promises, and what calibration data show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from duetto import tree as trees
from duetto.codecs.leaves import floating
from duetto.errors import ConfigError, DataError
from duetto.tree import Tree
from duetto.types import Chain, Codec, Domain, Key


@dataclass(frozen=True)
class Bound:
    """The largest error of a leaf, in its unit.

    Attributes:
        promised: by the codec, for these data.
        seen: in these data.
    """

    promised: float
    seen: float


def bound(codec: Codec[Any], messages: Iterable[Tree], key: Key = ("bound",)) -> dict[str, Bound]:
    """The error of every floating leaf (that has an axis) over calibration data, checked: pointer -> :class:`Bound`.

    What a codec clips counts as error, so that a range which is too narrow shows.

    Args:
        codec: one with an ``error`` method (:class:`duetto.codecs.Ranged`, Quantise, Progressive), or lossless; or a
            chain of lossless ones behind such a one.
        messages: trees, as they will be sent.
        key: of the first encoding.

    Raises:
        ConfigError: a codec that promises nothing.
        DataError: no messages, or an error above what was promised: do not send by that codec.
    """
    lossy = _lossy(codec)
    found: dict[str, Bound] = {}
    state = codec.init()
    for i, message in enumerate(messages):
        promised = {} if lossy is None else lossy.error(message)
        state, coded = codec.encode(state, message, (*key, i))
        back = dict(trees.leaves(codec.decode(coded)))
        for pointer, leaf in trees.leaves(message):
            if not floating(leaf):
                continue
            before, after = (np.asarray(each).astype(np.float64) for each in (leaf, back[pointer]))
            seen = float(np.abs(before - after).max(initial=0))
            most = promised.get(pointer, 0.0)
            if not seen <= most:
                raise DataError(
                    f"{codec!r} is off by {seen:.6g} in {pointer or '(root)'}, but promised {most:.6g}",
                    "do not send by it; tell us the codec and the leaf",
                )
            last = found.get(pointer, Bound(0.0, 0.0))
            found[pointer] = Bound(max(last.promised, most), max(last.seen, seen))
    if not found:
        raise DataError("no floating leaf to measure errors on", "give the trees that a device would send")
    return found


def _lossy(codec: Codec[Any]) -> Any:
    """The one codec that loses something; None where none does."""
    lossy = [each for each in _flat(codec) if each.gives != Domain.BYTES]
    if len(lossy) > 1 or any(not hasattr(each, "error") for each in lossy):
        raise ConfigError(f"{codec!r} promises no bound", "use Ranged or Quantise, and lossless codecs behind it")
    return lossy[0] if lossy else None


def _flat(codec: Codec[Any]) -> list[Codec[Any]]:
    if not isinstance(codec, Chain):
        return [codec]
    return [each for inner in codec.codecs for each in _flat(inner)]
