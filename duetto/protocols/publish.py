"""A new version reaches every device: the cloud asks each to adopt it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from duetto.errors import ConfigError
from duetto.protocols.coded import Coded
from duetto.tree import Tree
from duetto.types import Chain, Codec, Key, Local, Peer, Replies, Skill


@dataclass(frozen=True)
class Adopt(Skill):
    """Remember what the cloud sends, in these slots of the memory and no others.

    Raises:
        ConfigError: the message names another slot.
    """

    slots: tuple[str, ...]

    @property
    def writes(self) -> bool:
        """The slots."""
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Replace what the slots held."""
        if unknown := sorted(set(tree) - set(self.slots)):
            raise ConfigError(f"{sender} published {', '.join(unknown)}", f"this skill adopts {', '.join(self.slots)}")
        return local.remembering(**tree), {}


async def publish(
    peers: Sequence[Peer],
    message: Mapping[str, Tree],
    *,
    key: Key,
    codec: Codec[Any] = Chain(),
    deadline: float | None = None,
) -> Replies:
    """Send the same message to every peer, encoded once; a peer that cannot be reached keeps what it has."""
    skill = Coded(Adopt(tuple(sorted(message))), there=codec)
    _, coded = codec.encode(codec.init(), dict(message), key)
    asked = (peer.ask(skill, coded, key=(*key, peer.name), deadline=deadline) for peer in peers)
    return await asyncio.gather(*asked)
