"""The skills of computing one side of a cut: stages on the device, and the rest in the cloud."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.tree import Tree
from duetto.types import Key, Local, Skill, Work


@dataclass(frozen=True)
class Advance(Skill):
    """Stages ``start`` to ``stop`` of the staged model that the party remembers as ``memory[slot]``.

    Takes ``{"x": [n, ...]}`` or what an :class:`Advance` before it carried on. Gives ``carried``, which the next one
    and a peer's :class:`Finish` take, and ``logits [n, classes]`` where ``stop`` is the end or there is an exit.

    Raises:
        ConfigError: the party holds no staged model.
        DataError: features that do not fit the cut.
    """

    start: int
    stop: int
    slot: str = "net"

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Compute them."""
        net = _held(local, self.slot)
        cut, features = _features(tree)
        if cut != self.start:
            raise DataError(f"features of cut {cut} where those of {self.start} go on", "walk the stages in order")
        found = net[self.start : self.stop](features)
        if self.stop == len(net):
            return local, found
        carried = {"cut": np.int64(self.stop), "features": found}
        exits = net.exits.get(self.stop)
        return local, {"carried": carried, **({} if exits is None else exits(found))}

    def work(self, local: Local, tree: Tree) -> Work:
        """Of these stages, and the exit's."""
        net = _held(local, self.slot)
        rows = net[self.start : self.stop].rows(_features(tree)[1])
        work: Work = net[self.start : self.stop].work(rows)
        exits = net.exits.get(self.stop) if self.stop < len(net) else None
        more = Work() if exits is None else exits.work(rows)
        return Work(work.flops + more.flops, work.bytes + more.bytes)


@dataclass(frozen=True)
class Finish(Skill):
    """The rest of the staged model in ``memory[slot]``, from any cut on.

    Takes ``{"x": [n, ...]}`` or ``{"cut": k, "features": net.frontier(k)}``, gives what the model gives,
    ``{"logits": [n, classes]}`` for a classifier. Features of one cut are finished in one pass, where the number of
    rows is free.

    Raises:
        ConfigError: the party holds no staged model.
        DataError: no such cut, features that do not fit it, or that are not finite.
    """

    slot: str = "net"

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Compute it."""
        cut, features = _finite(tree, sender)
        return local, _rest(local, self.slot, cut)(features)

    def many(
        self, locals: Sequence[Local], trees: Sequence[Tree], keys: Sequence[Key], senders: Sequence[str]
    ) -> Sequence[tuple[Local, Tree] | Any]:
        """One pass for all whose features are of the same cut."""
        read = [_finite(tree, sender) for tree, sender in zip(trees, senders, strict=True)]
        half = _rest(locals[0], self.slot, read[0][0])
        if not half.joinable:
            return super().many(locals, trees, keys, senders)
        rows = [half.rows(features) for _, features in read]
        found = half(half.joined([features for _, features in read]))
        return list(zip(locals, half.parted(found, rows), strict=True))

    def work(self, local: Local, tree: Tree) -> Work:
        """Of what is left."""
        cut, features = _features(tree)
        half = _rest(local, self.slot, cut)
        work: Work = half.work(half.rows(features))
        return work

    def group(self, local: Local, tree: Tree) -> Any:
        """The model and the cut."""
        return id(local.memory.get(self.slot)), _features(tree)[0]


def _held(local: Local, slot: str) -> Any:
    if slot not in local.memory:
        raise ConfigError(f"there is no staged model in {slot!r}", "ask a party that holds it")
    return local.memory[slot]


def _features(tree: Tree) -> tuple[int, Tree]:
    if isinstance(tree, Mapping) and set(tree) == {"cut", "features"}:
        cut = np.asarray(tree["cut"])
        if cut.ndim == 0 and cut.dtype.kind in "iu":
            return int(cut), tree["features"]
        raise DataError(f"a cut that is {cut.dtype} {cut.shape}", "send an integer")
    if isinstance(tree, Mapping) and tree and "cut" not in tree:
        return 0, tree
    raise DataError("neither inputs nor features of a cut", 'send {"x": rows} or {"cut": k, "features": frontier}')


def _finite(tree: Tree, sender: str) -> tuple[int, Tree]:
    cut, features = _features(tree)
    if not isinstance(features, Mapping):
        raise DataError(f"{sender} sent features without names", "send the frontier of the cut")
    for name, leaf in features.items():
        array = np.asarray(leaf)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(f"{sender} sent {name} that is not finite", "check the device's half and its codec")
    return cut, features


def _rest(local: Local, slot: str, cut: int) -> Any:
    net = _held(local, slot)
    if not 0 <= cut < len(net):
        raise DataError(f"features of cut {cut}", f"the model has the cuts 0 to {len(net) - 1}")
    return net[cut:]
