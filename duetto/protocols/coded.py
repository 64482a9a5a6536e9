"""A skill whose messages cross the wire through codecs, one for each direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from duetto.errors import Error
from duetto.tree import Tree
from duetto.types import Chain, Codec, Key, Local, Peer, Reply, Skill, Work

_SLOT = "codec"  # where a party remembers what a codec with feedback keeps between its answers


@dataclass(frozen=True)
class Coded(Skill):
    """``skill``, asked through ``there`` and answered through ``back``.

    What ``back`` remembers (error feedback) stays in the memory of the party that answers; ``there`` must be a codec
    that remembers nothing.
    """

    skill: Skill
    there: Codec[Any] = Chain()
    back: Codec[Any] = Chain()

    @property
    def name(self) -> str:
        """The name of the skill inside: codecs give nobody a right."""
        return self.skill.name

    @property
    def writes(self) -> bool:
        """Where the skill writes, or the codec remembers."""
        return self.skill.writes or self._remembers

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Decode, use the skill, encode."""
        return self._encoded(*self.skill(local, self.there.decode(tree), key, sender), key)

    def many(
        self, locals: Sequence[Local], trees: Sequence[Tree], keys: Sequence[Key], senders: Sequence[str]
    ) -> list[tuple[Local, Tree]]:
        """Decode all, use the skill for all at once, encode all."""
        results = self.skill.many(locals, [self.there.decode(tree) for tree in trees], keys, senders)
        return [self._encoded(*result, key) for result, key in zip(results, keys, strict=True)]

    def work(self, local: Local, tree: Tree) -> Work:
        """The skill's; coding is not counted."""
        return self.skill.work(local, self.there.decode(tree))

    def group(self, local: Local, tree: Tree) -> Any:
        """The skill's."""
        return self.skill.group(local, self.there.decode(tree))

    async def asked_of(self, peer: Peer, tree: Tree, *, key: Key, deadline: float | None = None) -> Reply:
        """Encode, ask, decode; an answer that cannot be decoded is a failure."""
        _, coded = self.there.encode(self.there.init(), tree, key)
        return self.heard(await peer.ask(self, coded, key=key, deadline=deadline))

    def heard(self, reply: Reply) -> Reply:
        """The reply with its tree decoded."""
        if reply.tree is None:
            return reply
        try:
            return replace(reply, tree=self.back.decode(reply.tree))
        except Error as error:
            return replace(reply, tree=None, failure=f"{reply.sender} answered with {error}")

    @property
    def _remembers(self) -> bool:
        return not _empty(self.back.init())

    def _encoded(self, local: Local, tree: Tree, key: Key) -> tuple[Local, Tree]:
        if not self._remembers:
            return local, self.back.encode(self.back.init(), tree, key)[1]
        state, coded = self.back.encode(local.memory.get(_SLOT, self.back.init()), tree, (*key, _SLOT))
        return local.remembering(**{_SLOT: state}), coded


def _empty(state: Any) -> bool:
    """Whether a codec's first state, nested in those of a chain, holds nothing."""
    return all(_empty(part) for part in state) if isinstance(state, tuple) else not state
