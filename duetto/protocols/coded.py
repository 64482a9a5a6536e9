"""A skill whose messages cross the wire through codecs, one for each direction."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from duetto.errors import ConfigError, Error, caught
from duetto.tree import Tree
from duetto.types import Chain, Codec, Key, Local, Peer, Reply, Skill, Work

_SLOT = "codec"  # where a party remembers what a codec with feedback keeps between its answers


@dataclass(frozen=True)
class Coded(Skill):
    """``skill``, asked through ``there`` and answered through ``back``.

    What ``back`` remembers (error feedback) stays in the memory of the party that answers, for each skill apart; what
    ``there`` remembers is the asker's to keep, who says so by ``owing`` and hands it to :meth:`asked_of`.

    Raises:
        ConfigError: ``there`` remembers, and nobody keeps it.
    """

    skill: Skill
    there: Codec[Any] = Chain()
    back: Codec[Any] = Chain()
    owing: bool = False
    _last: dict[str, tuple[Tree, Tree]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.there.remembers and not self.owing:
            raise ConfigError("a codec that remembers, on the way there", "this asker keeps nothing between two asks")

    @property
    def name(self) -> str:
        """The name of the skill inside: codecs give nobody a right."""
        return self.skill.name

    @property
    def inner(self) -> Skill:
        """The skill inside."""
        return self.skill.inner

    @property
    def writes(self) -> bool:
        """Where the skill writes, or the codec remembers."""
        return self.skill.writes or self.back.remembers

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Decode, use the skill, encode."""
        return self._encoded(self.skill(local, self._read(tree), key, sender), key)

    def many(
        self, locals: Sequence[Local], trees: Sequence[Tree], keys: Sequence[Key], senders: Sequence[str]
    ) -> Sequence[tuple[Local, Tree] | Error]:
        """Decode all, use the skill for all at once, encode all."""
        results = self.skill.many(locals, [self._read(tree) for tree in trees], keys, senders)
        return [
            result if isinstance(result, Error) else caught(self._encoded, result, key)
            for result, key in zip(results, keys, strict=True)
        ]

    def work(self, local: Local, tree: Tree) -> Work:
        """The skill's; coding is not counted."""
        return self.skill.work(local, self._read(tree))

    def group(self, local: Local, tree: Tree) -> Any:
        """The skill's."""
        return self.skill.group(local, self._read(tree))

    async def asked_of(
        self,
        peer: Peer,
        tree: Tree,
        *,
        key: Key,
        deadline: float | None = None,
        owed: MutableMapping[str, Any] | None = None,
    ) -> Reply:
        """Encode, ask, decode; what cannot be encoded is not sent, what cannot be decoded is a failure.

        Args:
            peer, tree, key, deadline: as of :meth:`Peer.ask`.
            owed: what ``there`` remembers of each peer, by name; the asker keeps it from one ask to the next.
        """
        before = self.there.init() if owed is None else owed.get(peer.name, self.there.init())
        try:
            after, coded = self.there.encode(before, tree, key)
        except Error as error:
            return Reply(peer.name, failure=f"not sent: {error}")
        if owed is not None:
            owed[peer.name] = after
        return self.heard(await peer.ask(self, coded, key=key, deadline=deadline))

    def heard(self, reply: Reply) -> Reply:
        """The reply with its tree decoded."""
        if reply.tree is None:
            return reply
        try:
            return replace(reply, tree=self.back.decode(reply.tree))
        except Error as error:
            return replace(reply, tree=None, failure=f"{reply.sender} answered with {error}")

    def _read(self, tree: Tree) -> Tree:
        """The message decoded; one that goes to many is decoded once."""
        last = self._last.get("message")  # one entry: several threads may read here
        if last is None or last[0] is not tree:
            last = self._last["message"] = tree, self.there.decode(tree)
        return last[1]

    def _encoded(self, result: tuple[Local, Tree], key: Key) -> tuple[Local, Tree]:
        local, tree = result
        first = self.back.init()
        if not self.back.remembers:
            return local, self.back.encode(first, tree, key)[1]
        kept = local.memory.get(_SLOT, {})
        state = _as_state(kept[self.name], first) if self.name in kept else first
        state, coded = self.back.encode(state, tree, (*key, _SLOT))
        return local.remembering(**{_SLOT: {**kept, self.name: _as_tree(state)}}), coded


def _as_tree(state: Any) -> Tree:
    """A codec's state as a party remembers it: the tuple of a chain by position."""
    return {str(i): _as_tree(part) for i, part in enumerate(state)} if isinstance(state, tuple) else state


def _as_state(tree: Tree, like: Any) -> Any:
    """What :func:`_as_tree` was made from, nested as ``like``."""
    return tuple(_as_state(tree[str(i)], part) for i, part in enumerate(like)) if isinstance(like, tuple) else tree
