"""Fewer bytes, nothing lost, at the speed of memory: a whole tree through LZ4 (Collet 2011)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from duetto import tree as trees
from duetto.codecs.leaves import frame, within
from duetto.errors import ConfigError, WireError
from duetto.tree import Spec, Tree
from duetto.types import Codec, Domain, Key


@dataclass(frozen=True)
class Lz4(Codec[Tree]):
    """The tree's bytes in one LZ4 frame with its checksum, as one uint8 leaf ``[bytes]``.

    It codes no symbol in fewer than 8 bits, as :class:`duetto.codecs.Zstd` does: faster, and larger by a third on
    quantised features. Needs the extra ``codec``.

    Args:
        level: 0 (fast), or 3 to 12 (small).
        limit: bytes of the decompressed tree above which neither side goes.

    Raises:
        ConfigError: another ``level``, or a negative ``limit``.
    """

    level: int = 0
    limit: int = trees.LIMIT
    takes: ClassVar[frozenset[Domain]] = frozenset(Domain)
    gives: ClassVar[Domain] = Domain.BYTES

    def __post_init__(self) -> None:
        if self.level != 0 and not 3 <= self.level <= 12:
            raise ConfigError(f"LZ4 has no level {self.level}", "use 0, or 3 to 12")
        if self.limit < 0:
            raise ConfigError(f"a limit of {self.limit} bytes", "use a positive number")

    def encode(self, state: Tree, tree: Tree, key: Key) -> tuple[Tree, Tree]:
        """Compress the tree.

        Raises:
            WireError: a tree above the limit, which the other side would refuse.
            ConfigError: a leaf of no wire format; lz4 is not installed.
        """
        data = trees.encode(tree)
        within(len(data), self.limit)
        coded = _library().compress(data, compression_level=self.level, content_checksum=True, store_size=True)
        return state, np.frombuffer(coded, np.uint8)

    def decode(self, tree: Tree) -> Tree:
        """Decompress.

        Raises:
            WireError: not one whole frame that states its size, too large, altered, or no tree inside.
            ConfigError: lz4 is not installed.
        """
        library, data = _library(), frame(tree)
        try:
            size = library.get_frame_info(data)["content_size"]
            within(size, self.limit)
            reader = library.LZ4FrameDecompressor()
            plain = reader.decompress(data, max_length=size + 1)
        except (RuntimeError, ValueError, MemoryError) as error:
            raise WireError("not a compressed tree", f"damaged on the way ({error})") from error
        if len(plain) != size or not reader.eof or reader.unused_data:
            raise WireError(
                "a compressed message that misstates its size", "the message was not written by this library"
            )
        return trees.decode(plain, self.limit)

    def becomes(self, spec: Spec) -> None:
        """Unknown: what comes out depends on the values."""
        return None


def _library() -> Any:
    try:
        import lz4.frame
    except ImportError as error:
        raise ConfigError("lz4 is not installed", "pip install 'duetto[codec]'") from error
    return lz4.frame
