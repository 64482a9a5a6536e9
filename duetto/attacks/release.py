"""What leaves a device at a cut, as whoever is asked gets it: features, perhaps clipped, noised and coded.

Each row is released alone, as the messages of one question are: a codec sees its own range, a clip its own norm. Noise
here is drawn by a key, so that a measurement can be repeated; a device that means to hide must draw it from its
operating system, since whoever knows the key subtracts it. It is a *measured* defence and no differential privacy:
without ``clip`` one row's features are unbounded, and with it epsilon follows from the deviation over ``2 * clip``,
which at the noise that answers survive is far too large to promise anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from duetto.errors import ConfigError
from duetto.models.staged import Half
from duetto.types import Chain, Codec, Key, rng

View: TypeAlias = Callable[[np.ndarray, Key], np.ndarray]
"""Inputs ``[n, *shape]`` and a key to what the cloud gets of them, ``[n, ...]`` float32: an attacker's black box."""

ROWS = 256  # that a half computes at once


@dataclass(frozen=True)
class Release:
    """What happens to features before they leave: clipped, then noised, then coded.

    Attributes:
        codec: that tells rows apart, such as ``Quantise(4, "channel")``; what remembers has no place here.
        clip: the largest norm of a row, in units of the features; None leaves rows as they are. With ``noise=0``, the
            control: what changes the scale and hides nothing.
        noise: standard deviation of a number, in shares of the row's own root mean square (of ``clip / sqrt(size)``
            where there is one).

    Raises:
        ConfigError: a clip that is not above 0, negative noise, or a codec that remembers.
    """

    codec: Codec[Any] = field(default_factory=Chain)
    clip: float | None = None
    noise: float = 0.0

    def __post_init__(self) -> None:
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise ConfigError(f"a clip of {self.clip}", "give a norm above 0, or None")
        if not 0 <= self.noise < math.inf:
            raise ConfigError(f"noise of {self.noise}", "give a share of the features' own size, from 0")
        if self.codec.remembers:
            raise ConfigError(f"{self.codec} remembers", "questions are coded one by one; use a codec that does not")

    def __call__(self, features: np.ndarray, key: Key, sizes: tuple[int, ...] = ()) -> np.ndarray:
        """``[n, ...]`` float32 as they arrive.

        Args:
            features: ``[n, ...]``.
            key: of the noise and the codec.
            sizes: numbers of each tensor of a row where several lie behind each other; each is coded as a leaf.

        Raises:
            ConfigError: a codec that gives another row where others stand beside it.
        """
        found = np.asarray(features, np.float32)
        flat = found.reshape(len(found), -1)
        norm = np.linalg.norm(flat.astype(np.float64), axis=1, keepdims=True)
        if self.clip is not None:
            flat = (flat * np.minimum(1.0, self.clip / np.maximum(norm, 1e-12))).astype(np.float32)
        if self.noise:
            size = self.noise * (norm if self.clip is None else self.clip) / math.sqrt(flat.shape[1])
            flat = (flat + size * rng((*key, "noise")).standard_normal(flat.shape)).astype(np.float32)
        parts = np.split(flat, np.cumsum(sizes)[:-1].astype(int), axis=1) if len(sizes) > 1 else [flat]
        return np.concatenate([self._coded(part, (*key, i)) for i, part in enumerate(parts)], 1).reshape(found.shape)

    def _coded(self, rows: np.ndarray, key: Key) -> np.ndarray:
        def there_and_back(part: np.ndarray) -> np.ndarray:
            return np.asarray(self.codec.decode(self.codec.encode(self.codec.init(), part, key)[1]), np.float32)

        together = there_and_back(rows)
        if len(rows) > 1 and not np.array_equal(together[:1], there_and_back(rows[:1])):
            raise ConfigError(
                f"{self.codec} codes rows together", 'use one that does not, such as Quantise(8, "channel")'
            )
        return together


def features(half: Half, x: np.ndarray) -> np.ndarray:
    """What a half gives for inputs ``[n, *shape]``: ``[n, ...]`` of its one output, else all outputs flat, ``[n, d]``.

    Raises:
        ConfigError: a half of several inputs, or an output without a first axis of rows.
    """
    layouts = {name: half.graph.layouts[value] for name, value in half.outputs.items()}
    if len(half.inputs) != 1 or any(layout.axes[0] != (1, 0) for layout in layouts.values()):
        raise ConfigError("a cut that is not crossed by rows of one input", "choose another cut or model")
    ((name, spec),) = half.takes(1).items()
    given = np.asarray(x, spec.dtype)
    parts = [half({name: given[at : at + ROWS]}) for at in range(0, len(given), ROWS)]
    found = []
    for each, layout in layouts.items():
        stored = np.concatenate([part[each] for part in parts], layout.order.index(0))
        found.append(np.transpose(stored, np.argsort(layout.order)).astype(np.float32))
    return found[0] if len(found) == 1 else np.concatenate([leaf.reshape(len(leaf), -1) for leaf in found], 1)


def crossing(half: Half, given: np.ndarray) -> dict[str, np.ndarray]:
    """What the other half takes, from what arrived of :func:`features`."""
    flat, at, found = given.reshape(len(given), -1), 0, {}
    for name, value in half.outputs.items():
        layout = half.graph.layouts[value]
        shape = tuple(a * len(given) + b for a, b in layout.axes)
        size = math.prod(shape[1:])
        own = flat[:, at : at + size].reshape(shape).astype(layout.dtype)
        found[name], at = np.ascontiguousarray(np.transpose(own, layout.order)), at + size
    return found


def view(half: Half, release: Release) -> View:
    """The black box of an attacker who may use a device's half and knows what it does before it sends."""
    sizes = tuple(math.prod(leaf.shape) for leaf in half.gives(1).values())
    return lambda x, key: release(features(half, x), key, sizes)
