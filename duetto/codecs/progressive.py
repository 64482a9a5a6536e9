"""The high bits first, the low ones if they are asked for: one coding in parts, of which the first will often do.

A bit-plane order as in Shapiro's embedded coding (1993), over :class:`duetto.codecs.Ranged`. The whole is never sent
twice: all parts together give exactly what the quantiser alone would.

A protocol sends :func:`parts` one by one, each through a byte codec of its own, and decodes what has come so far::

    first, second = parts(codec.encode({}, features, key)[1])
    answer = cloud(codec.decode(first))                         # coarse; if unsure, the cloud asks for more:
    answer = cloud(codec.decode(joined([first, second])))       # exactly as Ranged
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, ClassVar, TypeAlias

import numpy as np

from duetto.codecs.calibrated import Ranged, named, read, table, walked
from duetto.codecs.leaves import FLOATS, OTHERS, floating
from duetto.codecs.packing import packed, unpacked
from duetto.errors import ConfigError, WireError
from duetto.tree import Shaped, Spec, Tree
from duetto.types import Codec, Domain, Key

Counts: TypeAlias = tuple[str, tuple[int, ...]]
"""A leaf's JSON pointer, and how often each of its codes occurs."""


@dataclass(frozen=True)
class Progressive(Codec[Tree]):
    """What ``ranged`` codes, its high bits apart from its low ones: a branch for each part, named "0", "1" and so on.

    Part 0 is a tree as of :class:`duetto.codecs.Ranged` and holds all leaves that are not coded; the others hold the
    packed bits of each coded leaf, by its position among them. Decoding takes the first part, or the first few.

    Args:
        ranged: the quantiser.
        steps: the bits of each part, 4 or 2, high ones first; together those of ``ranged``.
        counts: of :func:`counts`. A value of which low bits are missing comes back as the mean of those that they could
            make, weighted by how often they occur; without counts as their middle. After a ReLU that moves every zero,
            so give them.

    Raises:
        ConfigError: other ``steps``, or counts of another number of codes.
    """

    ranged: Ranged
    steps: tuple[int, ...] = (4, 4)
    counts: tuple[Counts, ...] = ()
    takes: ClassVar[frozenset[Domain]] = frozenset({Domain.FLOATS})
    gives: ClassVar[Domain] = Domain.CODES

    def __post_init__(self) -> None:
        if len(self.steps) < 2 or set(self.steps) - {4, 2} or sum(self.steps) != self.ranged.bits:
            raise ConfigError(f"parts of {self.steps} bits of {self.ranged.bits}", "use two or more, of 4 or 2 bits")
        if any(len(row) != 1 << self.ranged.bits or min(row) < 0 for _, row in self.counts):
            raise ConfigError("counts of another number of codes", f"count {1 << self.ranged.bits} codes a leaf")

    def encode(self, state: Tree, tree: Tree, key: Key) -> tuple[Tree, Tree]:
        """Code the tree; all parts.

        Raises:
            DataError: a coded leaf with a value that is not finite.
            ConfigError: a branch, in place of a leaf, that looks like a coded one.
        """
        codes = self.ranged.codes(tree)
        parts: dict[str, Tree] = {}
        for part, (bits, low) in enumerate(self._planes):
            planes = {p: packed(leaf >> low & np.uint8((1 << bits) - 1), 8 // bits) for p, leaf in codes.items()}
            if part:
                parts[str(part)] = {str(i): planes[pointer] for i, pointer in enumerate(sorted(planes))}
            else:
                parts["0"] = walked(tree, "", partial(_coarse, planes, 8 // bits), self._refused)
        return state, parts

    def decode(self, tree: Tree) -> Tree:
        """Leaves of the shapes and dtypes that went in, from the first part or the first few.

        Raises:
            WireError: not such parts of what :meth:`encode` gives.
        """
        count = len(tree) if isinstance(tree, Mapping) else 0
        if not 1 <= count <= len(self.steps) or set(tree) != {str(part) for part in range(count)}:
            raise WireError("not the first parts of a message", OTHERS)
        found = self._first(tree["0"])
        codes = {pointer: leaf for pointer, (leaf, _) in found.items()}
        for part in range(1, count):
            bits, low = self._planes[part]
            later = tree[str(part)]
            if not isinstance(later, Mapping) or set(later) != {str(i) for i in range(len(codes))}:
                raise WireError(f"part {part} of another message", OTHERS)
            for i, pointer in enumerate(sorted(codes)):
                codes[pointer] = codes[pointer] | _plane(later[str(i)], bits, codes[pointer].shape) << np.uint8(low)
        missing = self._planes[count - 1][1]
        known = {pointer: (low, high) for pointer, low, high in self.ranged.ranges}
        occurring = dict(self.counts)

        def plain(leaf: Any, pointer: str) -> Any:
            if pointer in known and floating(leaf):
                raise WireError(f"the leaf {pointer or '(root)'} was not coded", OTHERS)
            return leaf

        def coded(branch: Mapping[str, Any], pointer: str) -> Any:
            if pointer not in codes:
                return None
            values = _means(*known[pointer], self.ranged.bits, missing, found[pointer][1], occurring.get(pointer, ()))
            return values.take(codes[pointer])

        return walked(tree["0"], "", plain, coded)

    def becomes(self, spec: Spec) -> Spec:
        """The spec of all parts; shapes fix it always."""
        known = {pointer for pointer, _, _ in self.ranged.ranges}
        coded: dict[str, Shaped] = {}

        def form(leaf: Any, pointer: str) -> Spec:
            if pointer not in known or not leaf.shape or leaf.dtype not in FLOATS:
                return leaf
            coded[pointer] = leaf
            each = 8 // self.steps[0]
            return {named(leaf.dtype, -leaf.shape[-1] % each): _shaped(leaf, each)}

        parts = {"0": walked(spec, "", form, self._refused)}
        for part, bits in enumerate(self.steps[1:], 1):
            parts[str(part)] = {str(i): _shaped(coded[p], 8 // bits) for i, p in enumerate(sorted(coded))}
        return parts

    def error(self, tree: Tree) -> dict[str, float]:
        """As of ``ranged``, once all parts have come."""
        return self.ranged.error(tree)

    @property
    def _planes(self) -> list[tuple[int, int]]:
        """The bits of each part, and how many lie below them."""
        return [(bits, self.ranged.bits - sum(self.steps[: i + 1])) for i, bits in enumerate(self.steps)]

    def _first(self, tree: Tree) -> dict[str, tuple[np.ndarray, str]]:
        """The high bits in their place, and the dtype, of each coded leaf of part 0."""
        known = {pointer for pointer, _, _ in self.ranged.ranges}
        bits, low = self._planes[0]
        found: dict[str, tuple[np.ndarray, str]] = {}

        def coded(branch: Mapping[str, Any], pointer: str) -> Any:
            leaf = read(branch) if pointer in known else None
            if leaf is None:
                return None
            codes, dtype, fill = leaf
            if codes.dtype != np.uint8 or not codes.ndim or fill >= 8 // bits or (fill and not codes.shape[-1]):
                raise WireError("codes that are none", OTHERS)
            shape = (*codes.shape[:-1], codes.shape[-1] * (8 // bits) - fill)
            found[pointer] = _plane(codes, bits, shape) << np.uint8(low), dtype
            return branch

        walked(tree, "", lambda leaf, pointer: leaf, coded)
        return found

    def _refused(self, branch: Mapping[str, Any], pointer: str) -> None:
        if any(pointer == known for known, _, _ in self.ranged.ranges) and read(branch) is not None:
            raise ConfigError(f"a branch named {sorted(branch)} looks like a coded leaf", "rename it")


def parts(coded: Tree) -> tuple[Tree, ...]:
    """The parts of what :meth:`Progressive.encode` gave, each a message of its own, first first."""
    return tuple({str(part): coded[str(part)]} for part in range(len(coded)))


def joined(messages: Sequence[Tree]) -> Tree:
    """One message of several parts."""
    return {name: part for message in messages for name, part in message.items()}


def counts(ranged: Ranged, messages: Iterable[Tree]) -> tuple[Counts, ...]:
    """How often each code of a quantiser occurs in calibration data (as it is before coding), for :class:`Progressive`.

    Raises:
        DataError: a coded leaf with a value that is not finite.
    """
    found: dict[str, np.ndarray] = {}
    for message in messages:
        for pointer, codes in ranged.codes(message).items():
            row = np.bincount(codes.reshape(-1), minlength=1 << ranged.bits)
            found[pointer] = found.get(pointer, 0) + row
    return tuple((pointer, tuple(row.tolist())) for pointer, row in sorted(found.items()))


def _coarse(planes: Mapping[str, np.ndarray], each: int, leaf: Any, pointer: str) -> Any:
    if pointer not in planes:
        return leaf
    array = np.asarray(leaf)
    return {named(array.dtype.name, -array.shape[-1] % each): planes[pointer]}


def _plane(codes: Any, bits: int, shape: tuple[int, ...]) -> np.ndarray:
    codes = np.asarray(codes)
    each = 8 // bits
    fits = codes.dtype == np.uint8 and codes.shape == (*shape[:-1], -(-shape[-1] // each))
    if not fits:
        raise WireError("bits that do not fit their leaf", OTHERS)
    return np.ascontiguousarray(unpacked(codes, each)[..., : shape[-1]])


def _shaped(leaf: Shaped, each: int) -> Shaped:
    return Shaped((*leaf.shape[:-1], -(-leaf.shape[-1] // each)), "uint8")


@lru_cache(256)
def _means(low: float, high: float, bits: int, missing: int, dtype: str, occurring: tuple[int, ...]) -> np.ndarray:
    """What each code stands for whose ``missing`` low bits are 0: ``[codes]``."""
    levels = np.asarray(table(low, high, bits, 1, dtype).view(dtype))
    if not missing:
        return levels
    weights = np.array(occurring or [1] * len(levels), np.float64).reshape(-1, 1 << missing)
    weights[weights.sum(axis=1) == 0] = 1
    weights /= weights.sum(axis=1, keepdims=True)
    means = (levels.astype(np.float64).reshape(weights.shape) * weights).sum(axis=1)
    ends = levels.astype(np.float64).reshape(weights.shape)[:, [0, -1]]
    return np.repeat(np.clip(means, ends[:, 0], ends[:, 1]).astype(dtype), 1 << missing)
