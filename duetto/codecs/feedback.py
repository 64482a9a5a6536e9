"""Error feedback: what a codec has lost is added to the next message.

Seide, Fu, Droppo, Li, Yu: 1-Bit Stochastic Gradient Descent, Interspeech 2014; Karimireddy, Rebjock, Stich, Jaggi:
Error Feedback Fixes SignSGD and other Gradient Compression Schemes, ICML 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from duetto import tree as trees
from duetto.codecs.leaves import floating
from duetto.errors import ConfigError
from duetto.tree import Spec, Tree
from duetto.types import Codec, Domain, Key


@dataclass(frozen=True)
class Feedback(Codec[Tree]):
    """``codec``, a lossy one or a chain, with its errors made good: the state is what was lost, by leaf.

    A leaf that is new, or has another shape, starts without a loss; what was lost of a message that was not finite is
    forgotten.

    Raises:
        ConfigError: a codec that itself remembers.
    """

    codec: Codec[Any]

    def __post_init__(self) -> None:
        if self.codec.remembers:
            raise ConfigError(
                f"feedback around {self.codec!r}, which remembers", "put only the outermost into feedback"
            )

    @property
    def takes(self) -> frozenset[Domain]:
        """What the codec takes."""
        return self.codec.takes

    @property
    def gives(self) -> Domain:
        """What the codec gives."""
        return self.codec.gives

    @property
    def remembers(self) -> bool:
        """What was lost."""
        return True

    def encode(self, state: Tree, tree: Tree, key: Key) -> tuple[Tree, Tree]:
        """Add what was lost, code, and keep what is lost now."""

        def whole(pointer: str, leaf: Any) -> Any:
            lost = state.get(_name(pointer))
            fits = lost is not None and floating(leaf) and np.shape(lost) == np.shape(leaf)
            return (leaf + lost).astype(np.asarray(leaf).dtype) if fits else leaf

        meant = trees.pointed(whole, tree)
        _, coded = self.codec.encode(self.codec.init(), meant, key)
        lost: dict[str, np.ndarray] = {}

        def compare(pointer: str, before: Any, after: Any) -> None:
            if floating(before):
                error = np.asarray(before - after)
                if np.isfinite(error).all():
                    lost[_name(pointer)] = error

        trees.pointed(compare, meant, self.codec.decode(coded))
        return lost, coded

    def decode(self, tree: Tree) -> Tree:
        """As the codec."""
        return self.codec.decode(tree)

    def becomes(self, spec: Spec) -> Spec | None:
        """As the codec."""
        return self.codec.becomes(spec)


def _name(pointer: str) -> str:
    return pointer or "(root)"
