"""A peer that is asked nothing which the device's user does not let go, whoever asks.

What a message shows is read off the message itself, behind its codec. What is not known to be less counts as the
input.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from duetto import tree as trees
from duetto.device.settings import Leaves, Settings, Situation, allowed
from duetto.errors import Error
from duetto.protocols.coded import Coded
from duetto.protocols.deliver import FEEDBACK, Batch, Entry, Outbox
from duetto.tree import Tree
from duetto.types import Key, Peer, Reply, Skill


class Consenting(Peer):
    """Asks ``peer``, as far as the user lets it; else replies ``not sent: REASON`` at once.

    Where inputs may leave redacted only, ``redact`` does that here: a message that claims to be redacted is an input.

    Args:
        peer: who is asked.
        settings: the user's decisions, looked up for each question, so that consent can be withdrawn.
        situation: what the device finds itself in; None looks at nothing but ``leaves``.
        redact: takes what is personal from a message; None knows no way, so that such a message is not sent.
        inputs: the names of the model's inputs, which cross a cut where something behind it reads them too.
    """

    def __init__(
        self,
        peer: Peer,
        settings: Callable[[], Settings],
        *,
        situation: Callable[[], Situation] | None = None,
        redact: Callable[[Tree], Tree] | None = None,
        inputs: Collection[str] = ("x",),
    ) -> None:
        self.peer, self.settings, self.situation = peer, settings, situation
        self.redact, self.inputs = redact, inputs

    @property
    def name(self) -> str:  # type: ignore[override]
        """The peer's."""
        return self.peer.name

    @property
    def traits(self) -> Mapping[str, Any]:  # type: ignore[override]
        """The peer's."""
        return self.peer.traits

    async def ask(self, skill: Skill, tree: Tree, *, key: Key, deadline: float | None = None) -> Reply:
        """Ask, if that is allowed; see the class."""
        why, tree = self._let_go(skill, tree, key)
        if why is not None:
            return Reply(self.name, failure=f"not sent: {why}")
        return await self.peer.ask(skill, tree, key=key, deadline=deadline)

    async def stream(
        self, skill: Skill, tree: Tree, *, key: Key, deadline: float | None = None
    ) -> AsyncIterator[Reply]:
        """As :meth:`ask`, in parts."""
        why, tree = self._let_go(skill, tree, key)
        if why is not None:
            yield Reply(self.name, failure=f"not sent: {why}")
            return
        async for reply in self.peer.stream(skill, tree, key=key, deadline=deadline):
            yield reply

    def _let_go(self, skill: Skill, tree: Tree, key: Key) -> tuple[str | None, Tree]:
        """Why not, and what is sent instead of ``tree``."""
        settings = self.settings()
        if settings.most is Leaves.NOTHING:
            return "nothing may leave this device", tree
        if self.situation is not None and (why := allowed(settings, self.situation(), "ask")):
            return why, tree
        if settings.most is Leaves.RAW:
            return None, tree
        try:
            plain = _plain(skill, tree)
            shows = shown(plain, self.inputs)
            if shows <= Leaves.FEATURES:
                return None, tree
            if settings.most is Leaves.REDACTED and self.redact is not None:
                return None, _coded(skill, self.redact(plain), key)
        except Error as error:
            return f"what it shows is not known ({error})", tree
        except Exception as fault:  # no fault of a codec or a redaction lets an input through
            return f"what it shows is not known ({type(fault).__name__})", tree
        return f"it holds the input, and {settings.leaves} may leave at most", tree


class Withheld:
    """An outbox of which only leaves what the user lets go *now*: an input that was kept while it might leave stays
    here once that is withdrawn.

    Args:
        outbox: of the device.
        settings: the user's decisions, looked up for each batch.
    """

    def __init__(self, outbox: Outbox, settings: Callable[[], Settings]) -> None:
        self.outbox, self.settings = outbox, settings

    async def batch(self, max_entries: int = 256, max_bytes: int = 1 << 18) -> Batch:
        """The oldest entries, as they may leave; none where nothing may."""
        batch = await self.outbox.batch(max_entries, max_bytes)
        most = self.settings().most
        if most is Leaves.NOTHING:
            return Batch(batch.session)
        return batch if most is Leaves.RAW else Batch(batch.session, [_without_input(each) for each in batch.entries])

    async def acknowledge(self, session: bytes, sequences: Sequence[int]) -> int:
        """Let those go that the cloud has."""
        return await self.outbox.acknowledge(session, sequences)


def _without_input(entry: Entry) -> Entry:
    if entry.kind != FEEDBACK:
        return entry
    told = trees.decode(entry.body)
    return replace(entry, body=trees.encode({name: leaf for name, leaf in told.items() if name != "x"}))


def shown(tree: Tree, inputs: Collection[str] = ("x",)) -> Leaves:
    """The most that a message may show of the input.

    ``{"cut": k, "features": ...}`` behind the input are features, unless one of ``inputs`` crosses that cut as well.
    Zeros alone, as a probe of the network sends them, and messages without numbers show nothing.
    """
    if not any(np.any(np.asarray(leaf)) for _, leaf in trees.leaves(tree)):
        return Leaves.NOTHING
    if isinstance(tree, Mapping) and set(tree) == {"cut", "features"}:
        cut = np.asarray(tree["cut"])
        named = isinstance(tree["features"], Mapping) and not set(tree["features"]) & set(inputs)
        if cut.ndim == 0 and cut.dtype.kind in "iu" and cut > 0 and named:
            return Leaves.FEATURES
    return Leaves.RAW


def _plain(skill: Skill, tree: Tree) -> Tree:
    while isinstance(skill, Coded):
        tree, skill = skill.there.decode(tree), skill.skill
    return tree


def _coded(skill: Skill, tree: Tree, key: Key) -> Tree:
    if not isinstance(skill, Coded):
        return tree
    inner = _coded(skill.skill, tree, key)
    return skill.there.encode(skill.there.init(), inner, key)[1]
