"""What a device has seen reaches the cloud: batches of its outbox, at least once, counted once.

A device numbers its entries; ``(device, session, sequence)`` names an entry for good. It sends the oldest entries again
until a reply says that they were kept, and the cloud keeps one of each name. So nothing is lost while either is away,
and nothing is counted twice. An outbox that is full drops entries by its rule and tells how many in an entry of the
kind :data:`DROPPED`, so that the cloud knows which numbers will never come.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.tree import Tree
from duetto.types import Cost, Key, Local, Peer, Skill

DROPPED = "dropped"
RECORD, FEEDBACK = "record", "feedback"  # what devices tell of their answers, and what users say of them
SESSION_BYTES = 16
BODY_BYTES = 8 << 20  # of one entry
BATCH_BYTES = 16 << 20  # of all bodies in a batch
BATCH_ENTRIES = 4096
_KIND = re.compile(r"[a-z][a-z0-9_.-]{0,31}")
_FIELDS = {  # what a message holds: the dtype and the number of axes of each
    "session": ("uint8", 1),
    "sequences": ("int64", 1),
    "kinds": ("uint8", 1),
    "kind_ends": ("int64", 1),
    "bodies": ("uint8", 1),
    "body_ends": ("int64", 1),
}


@dataclass(frozen=True)
class Entry:
    """One thing that a device keeps for the cloud.

    Attributes:
        sequence: its number in the session, from 1.
        kind: what it is, such as "record" or "feedback".
        body: its bytes.
    """

    sequence: int
    kind: str
    body: bytes


@dataclass(frozen=True)
class Batch:
    """The oldest entries of a session.

    Attributes:
        session: 16 bytes that name this run of numbers.
        entries: in the order of their numbers.
    """

    session: bytes
    entries: Sequence[Entry] = ()


@dataclass(frozen=True)
class Drop:
    """What an outbox dropped of one kind.

    Attributes:
        entries, bytes: how many, and their bodies.
        first, last: every number from first to last that has not come was dropped; 0 where none had a number yet.
    """

    entries: int = 0
    bytes: int = 0
    first: int = 0
    last: int = 0

    def __add__(self, other: Drop) -> Drop:
        firsts = [each.first for each in (self, other) if each.first]
        return Drop(
            self.entries + other.entries,
            self.bytes + other.bytes,
            min(firsts, default=0),
            max(self.last, other.last),
        )


def checked(kind: str, body: bytes) -> None:
    """Whether an entry can be sent.

    Raises:
        DataError: a kind that is no short word, a body beyond :data:`BODY_BYTES`.
    """
    if not _KIND.fullmatch(kind):
        raise DataError(f"an entry of kind {kind!r}", "name it by a short word such as record or feedback")
    if len(body) > BODY_BYTES:
        raise DataError(f"a {kind} of {len(body)} bytes", f"at most {BODY_BYTES}; send large things as blobs")


def told(drops: Mapping[str, Drop]) -> bytes:
    """The body of an entry of kind :data:`DROPPED`: JSON, by kind."""
    return json.dumps({kind: vars(drops[kind]) for kind in sorted(drops)}, separators=(",", ":")).encode()


def heard(body: bytes) -> dict[str, Drop]:
    """What :func:`told` wrote.

    Raises:
        DataError: it did not.
    """
    try:
        drops = {str(kind): Drop(**numbers) for kind, numbers in json.loads(body).items()}
        if not all(type(n) is int and 0 <= n < 1 << 63 for drop in drops.values() for n in vars(drop).values()):
            raise ValueError("a number that counts nothing")
    except (ValueError, TypeError, AttributeError, RecursionError) as fault:
        raise DataError(
            f"an entry of kind {DROPPED} that tells nothing ({fault})", "send what the outbox wrote"
        ) from fault
    return drops


def packed(batch: Batch) -> dict[str, np.ndarray]:
    """A batch as arrays: ``session`` uint8 [16], ``sequences`` int64 [n], ``kinds`` and ``bodies`` uint8, one after
    the other, with where each ends in ``kind_ends`` and ``body_ends`` int64 [n].
    """
    kinds = [entry.kind.encode() for entry in batch.entries]
    bodies = [entry.body for entry in batch.entries]
    return {
        "session": np.frombuffer(batch.session, np.uint8),
        "sequences": np.array([entry.sequence for entry in batch.entries], np.int64),
        "kinds": np.frombuffer(b"".join(kinds), np.uint8),
        "kind_ends": np.cumsum([len(kind) for kind in kinds], dtype=np.int64),
        "bodies": np.frombuffer(b"".join(bodies), np.uint8),
        "body_ends": np.cumsum([len(body) for body in bodies], dtype=np.int64),
    }


def unpacked(tree: Tree, sender: str) -> Batch:
    """What :func:`packed` wrote.

    Raises:
        DataError: anything else: other names, dtypes or shapes, numbers that do not grow from 1, ends that do not fit,
            kinds that are no words, too many entries or bytes.
    """
    if not isinstance(tree, Mapping) or set(tree) != set(_FIELDS):
        names = sorted(tree) if isinstance(tree, Mapping) else "no branch"
        raise DataError(f"{sender} sent a batch named {names}", f"send {sorted(_FIELDS)}")
    arrays = {name: np.asarray(tree[name]) for name in _FIELDS}
    for name, (dtype, axes) in _FIELDS.items():
        if arrays[name].dtype.name != dtype or arrays[name].ndim != axes:
            fault = f"{sender} sent {name} of {arrays[name].dtype} {arrays[name].shape}"
            raise DataError(fault, f"send {dtype} with {axes} axis")
    session, sequences = arrays["session"], arrays["sequences"]
    n = len(sequences)
    if len(session) != SESSION_BYTES:
        raise DataError(f"{sender} sent a session of {len(session)} bytes", f"it has {SESSION_BYTES}")
    if not 1 <= n <= BATCH_ENTRIES or len(arrays["bodies"]) > BATCH_BYTES:
        fault = f"{sender} sent {n} entries of {len(arrays['bodies'])} bytes"
        raise DataError(fault, f"send 1 to {BATCH_ENTRIES} of at most {BATCH_BYTES} at once")
    if sequences[0] < 1 or not (sequences[1:] > sequences[:-1]).all():
        raise DataError(f"{sender} sent numbers that do not grow", "number entries from 1, in order")
    kinds = _cut(arrays["kinds"], arrays["kind_ends"], n, sender)
    bodies = _cut(arrays["bodies"], arrays["body_ends"], n, sender)
    entries = []
    for sequence, kind, body in zip(sequences.tolist(), kinds, bodies, strict=True):
        word = kind.decode("ascii", "replace")
        checked(word, body)
        entries.append(Entry(sequence, word, body))
    return Batch(session.tobytes(), tuple(entries))


def _cut(joined: np.ndarray, ends: np.ndarray, n: int, sender: str) -> list[bytes]:
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    if len(ends) != n or not (starts <= ends).all() or starts[0] > ends[0] or ends[-1] != len(joined):
        raise DataError(f"{sender} sent ends that do not fit", "say where each of the entries ends")
    return [joined[start:end].tobytes() for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


class Keeping(Protocol):
    """What the cloud keeps entries in."""

    def keep(self, device: str, session: bytes, entries: Sequence[Entry]) -> Sequence[int]:
        """Keep what is new of these; returns the numbers that are durable now, new or not."""


@dataclass(frozen=True)
class Deliver(Skill):
    """Keep a batch of the sender's entries in what the party holds as ``memory[slot]``, a :class:`Keeping`.

    Takes what :func:`packed` writes, gives ``{"sequences": [m] int64}``: the numbers that are kept for good, whether
    now or before; the sender need not send them again. The sender is the device: a world lets nobody speak for another.

    Raises:
        ConfigError: the party keeps nothing.
        DataError: a batch that is malformed, of which nothing is kept.
    """

    slot: str = "feedback"

    @property
    def writes(self) -> bool:
        """Others see what it keeps, so uses run in order; the memory itself stays."""
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Keep them."""
        if self.slot not in local.memory:
            raise ConfigError(f"nothing is kept in {self.slot!r}", "ask a party that keeps feedback")
        keeping: Keeping = local.memory[self.slot]
        batch = unpacked(tree, sender)
        kept = keeping.keep(sender, batch.session, batch.entries)
        return local, {"sequences": np.array(kept, np.int64)}


class Outbox(Protocol):
    """What a device keeps entries in until the cloud has them, as :class:`duetto.device.outbox.Outbox`."""

    async def batch(self, max_entries: int = ..., max_bytes: int = ...) -> Batch:
        """The oldest entries, and their session."""

    async def acknowledge(self, session: bytes, sequences: Sequence[int]) -> int:
        """Let those of the session go that the cloud has; returns how many."""


@dataclass(frozen=True)
class Delivered:
    """What one :func:`delivering` brought.

    Attributes:
        entries: how many the cloud has acknowledged.
        batches: how many times it was asked.
        cost: of asking.
        failure: why it ended before the outbox was empty; None where it is.
    """

    entries: int = 0
    batches: int = 0
    cost: Cost = Cost()
    failure: str | None = None


async def delivering(
    outbox: Outbox,
    cloud: Peer,
    *,
    key: Key,
    deadline: float,
    slot: str = "feedback",
    max_entries: int = 256,
    max_bytes: int = 1 << 18,
) -> Delivered:
    """Send batches until the outbox is empty or the cloud does not answer; only what a reply names is let go.

    Whoever calls decides when to try again. Cancelling it loses nothing: what was not acknowledged is sent again.

    Args:
        outbox: of this device.
        cloud: offers :class:`Deliver`.
        key: of this delivery.
        deadline: seconds for each batch.
        slot: what the cloud keeps them in.
        max_entries, max_bytes: of a batch; one entry always fits.

    Raises:
        ConfigError: bounds of a batch that no cloud takes.
    """
    if not 1 <= max_entries <= BATCH_ENTRIES or not 0 <= max_bytes <= BATCH_BYTES:
        raise ConfigError(
            f"batches of {max_entries} entries and {max_bytes} bytes", f"at most {BATCH_ENTRIES} and {BATCH_BYTES}"
        )
    done = Delivered()
    while (batch := await outbox.batch(max_entries, max_bytes)).entries:
        reply = await cloud.ask(Deliver(slot), packed(batch), key=(*key, done.batches), deadline=deadline)
        failure = reply.failure
        let_go = 0
        if failure is None:
            kept = _acknowledged(reply.tree, {entry.sequence for entry in batch.entries})
            if kept is None:
                failure = f"{cloud.name} acknowledged what it was not sent"
            elif not kept:
                failure = f"{cloud.name} kept none of {len(batch.entries)} entries"
            else:
                let_go = await outbox.acknowledge(batch.session, kept)
        done = Delivered(done.entries + let_go, done.batches + 1, done.cost + reply.cost, failure)
        if failure is not None:
            break
    return done


def _acknowledged(tree: Tree, sent: set[int]) -> list[int] | None:
    """The numbers of a reply; None where it is malformed or names what was not sent."""
    if not isinstance(tree, Mapping) or set(tree) != {"sequences"}:
        return None
    array = np.asarray(tree["sequences"])
    if array.ndim != 1 or array.dtype != np.int64 or not set(array.tolist()) <= sent:
        return None
    return [int(number) for number in array]
