"""The high bits first, the low ones if they are asked for: one coding in parts, of which the first will often do.

A bit-plane order as in Shapiro's embedded coding (1993), over :class:`duetto.codecs.Ranged`. Nothing is sent twice: all
parts together give exactly what the quantiser alone would. A protocol sends the parts one by one, each through a byte
codec of its own, and decodes what has come so far::

    first, second = codec.parts(codec.encode({}, features, key)[1])
    answer = cloud(codec.decode(first))                             # coarse; if unsure, it asks for more:
    answer = cloud(codec.decode(codec.joined([first, second])))     # exactly as Ranged
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
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

_LATER = "later-"


@dataclass(frozen=True)
class Progressive(Codec[Tree]):
    """What ``ranged`` codes, its high bits apart from its low ones.

    A coded leaf becomes a branch of packed bits: the highest by the name that :class:`duetto.codecs.Ranged` gives them,
    those below as ``later-1``, ``later-2`` and so on. Decoding takes any first few of them.

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

        def form(leaf: Any, pointer: str) -> Any:
            if pointer not in codes:
                return leaf
            names, planes = self._named(np.asarray(leaf).dtype.name, leaf.shape[-1]), self._planes
            split = (codes[pointer] >> np.uint8(low) & np.uint8((1 << bits) - 1) for bits, low in planes)
            return {n: packed(plane, 8 // bits) for n, plane, bits in zip(names, split, self.steps, strict=True)}

        return state, walked(tree, "", form, self._refused)

    def decode(self, tree: Tree) -> Tree:
        """Leaves of the shapes and dtypes that went in, from the first part or the first few.

        Raises:
            WireError: not such parts of what :meth:`encode` gives.
        """
        known = {pointer: (low, high) for pointer, low, high in self.ranged.ranges}
        occurring = dict(self.counts)

        def plain(leaf: Any, pointer: str) -> Any:
            if pointer in known and floating(leaf):
                raise WireError(f"the leaf {pointer or '(root)'} was not coded", OTHERS)
            return leaf

        def coded(branch: Mapping[str, Any], pointer: str) -> Any:
            if pointer not in known or not _looks(branch):
                return None
            codes, dtype, missing = self._joined(branch)
            return _means(*known[pointer], self.ranged.bits, missing, dtype, occurring.get(pointer, ())).take(codes)

        return walked(tree, "", plain, coded)

    def becomes(self, spec: Spec) -> Spec:
        """The spec of all parts; shapes fix it always."""
        known = {pointer for pointer, _, _ in self.ranged.ranges}

        def form(leaf: Any, pointer: str) -> Spec:
            if pointer not in known or not leaf.shape or leaf.dtype not in FLOATS:
                return leaf
            names = self._named(leaf.dtype, leaf.shape[-1])
            return {name: _shaped(leaf, 8 // bits) for name, bits in zip(names, self.steps, strict=True)}

        return walked(spec, "", form, self._refused)

    def parts(self, coded: Tree) -> tuple[Tree, ...]:
        """What :meth:`encode` gave as messages, first first; the first holds all leaves that are not coded."""
        return tuple(_part(coded, part) for part in range(len(self.steps)))

    def joined(self, messages: Sequence[Tree]) -> Tree:
        """One message of several.

        Raises:
            WireError: two that hold the same leaf.
        """
        return reduce(_merged, messages)

    def error(self, tree: Tree) -> dict[str, float]:
        """As of ``ranged``, once all parts have come."""
        return self.ranged.error(tree)

    @property
    def _planes(self) -> list[tuple[int, int]]:
        """The bits of each part, and how many lie below them."""
        return [(bits, self.ranged.bits - sum(self.steps[: i + 1])) for i, bits in enumerate(self.steps)]

    def _named(self, dtype: str, last: int) -> list[str]:
        return [named(dtype, -last % (8 // self.steps[0])), *(f"{_LATER}{i}" for i in range(1, len(self.steps)))]

    def _joined(self, branch: Mapping[str, Any]) -> tuple[np.ndarray, str, int]:
        """The codes of a coded leaf, low bits that are missing as 0; its dtype; how many are missing."""
        first = read({name: part for name, part in branch.items() if not name.startswith(_LATER)})
        if first is None or set(branch) - {f"{_LATER}{i}" for i in range(1, len(branch))} != {named(*first[1:])}:
            raise WireError("parts of which the first is missing", "send them in their order")
        if len(branch) > len(self.steps):
            raise WireError(f"a leaf in {len(branch)} parts", OTHERS)
        packs, dtype, fill = first
        each = 8 // self.steps[0]
        if not packs.ndim or fill >= each or (fill and not packs.shape[-1]):
            raise WireError("codes that are none", OTHERS)
        shape = (*packs.shape[:-1], packs.shape[-1] * each - fill)
        codes = np.zeros(shape, np.uint8)
        for i, (bits, low) in enumerate(self._planes[: len(branch)]):
            codes |= _plane(branch[f"{_LATER}{i}"] if i else packs, bits, shape) << np.uint8(low)
        return codes, dtype, self._planes[len(branch) - 1][1]

    def _refused(self, branch: Mapping[str, Any], pointer: str) -> None:
        if any(pointer == known for known, _, _ in self.ranged.ranges) and _looks(branch):
            raise ConfigError(f"a branch named {sorted(branch)} looks like a coded leaf", "rename it")


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


def _looks(branch: Mapping[str, Any]) -> bool:
    """Whether a branch looks like a coded leaf, or a part of one."""
    if any(isinstance(child, Mapping) for child in branch.values()):
        return False
    firsts = {name: child for name, child in branch.items() if not name.startswith(_LATER)}
    return len(firsts) < len(branch) or read(firsts) is not None


def _part(tree: Tree, part: int) -> Tree:
    """A part of all coded leaves, and with the first the other leaves."""
    if not isinstance(tree, Mapping):
        return {} if part else tree
    found = {}
    for name, child in tree.items():
        if isinstance(child, Mapping):
            below = _part(child, part)
            if below or not part:
                found[name] = below
        elif (name == f"{_LATER}{part}") if part else not name.startswith(_LATER):
            found[name] = child
    return found


def _merged(left: Tree, right: Tree) -> Tree:
    if isinstance(right, Mapping) and not right:
        return left
    if not isinstance(left, Mapping) or not isinstance(right, Mapping):
        raise WireError("two parts that hold the same leaf", OTHERS)
    return {
        name: _merged(left[name], right[name]) if name in left and name in right else {**left, **right}[name]
        for name in {**left, **right}
    }


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
