"""A skill that is asked coarsely first: more of the question is sent only where the answer is not sure enough.

Progressive offloading as of Wang et al.: Progressive Neural Compression for Adaptive Image Offloading under Timing
Constraints (RTSS 2023), but what ends it is the answer's confidence, and the parts are those of any codec that has
some, such as :class:`duetto.codecs.Progressive`. Nothing is sent twice: who answers keeps the parts that it has, and
once all have come, the question is exactly what the whole coding would have been.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeGuard, cast

import numpy as np

from duetto.errors import ConfigError, DataError, Error, WireError
from duetto.protocols.coded import Coded
from duetto.tree import Tree
from duetto.types import GIVEN_UP, Chain, Codec, Cost, Key, Local, Peer, Reply, Skill, Work

GONE = "the parts before are not here any more"
"""Why a later part is refused; whoever asked sends all parts."""
_SLOT = "parts"  # where a party remembers what has come
_QUESTION = "question"  # which question a later part belongs to: 8 bytes of a hash
_AS = "send them as Refined does, in their order"
_PART = re.compile(r"([1-9]\d?)-of-([1-9]\d?)")


class Parted(Protocol):
    """A codec whose coding can be sent in parts, and decoded from the first few."""

    def init(self) -> Any: ...
    def encode(self, state: Any, tree: Tree, key: Key) -> tuple[Any, Tree]: ...
    def decode(self, tree: Tree) -> Tree: ...
    def parts(self, coded: Tree) -> tuple[Tree, ...]: ...
    def joined(self, messages: Sequence[Tree]) -> Tree: ...


@dataclass(frozen=True)
class Refined(Skill):
    """``skill``, asked through the first part of ``codec``, and through the next ones while the answer is not sure.

    An answer is sure where the softmax of its ``logits`` gives the likeliest class at least ``sure``, in every row; one
    without logits never is. All parts share one deadline and their costs add; where a later part fails, the answer to
    those before it stands. The party that answers remembers the parts of up to ``keeps`` questions, by sender and key,
    and forgets the oldest; asked about one that it has forgotten, it says :data:`GONE`, and all parts are sent.

    Args:
        skill: what is asked for; it answers in the clear.
        codec: of the question, in at most 99 parts.
        sure: probability from 0 (the first part always does) to beyond 1 (all parts are always sent); to be chosen on
            calibration data, where coarse answers are.
        bytes: what each part goes through by itself.
        keeps: questions whose parts are remembered, of all senders together.

    Raises:
        ConfigError: a codec that has no parts or remembers, that ``bytes`` does not take, or numbers out of range.
    """

    skill: Skill
    codec: Parted
    sure: float
    bytes: Codec[Any] = Chain()
    keeps: int = 256
    _last: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not in_parts(self.codec):
            raise ConfigError(f"{type(self.codec).__name__} has no parts", "use Progressive, or Coded")
        if Chain((cast(Codec[Any], self.codec), self.bytes)).remembers:
            raise ConfigError("a codec that remembers, on the way there", "only the way back can remember")
        if not self.sure >= 0:
            raise ConfigError(f"sure={self.sure}", "use a probability, or more than 1 to send all parts")
        if self.keeps < 1:
            raise ConfigError(f"keeps={self.keeps}", "keep the parts of one question at least")

    @property
    def name(self) -> str:
        """The name of the skill inside: codecs give nobody a right."""
        return self.skill.name

    @property
    def writes(self) -> bool:
        """The parts are remembered."""
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Join, decode, use the skill, and keep what may be added to.

        Raises:
            DataError: :data:`GONE`.
            WireError: no parts of a question.
        """
        coded, plain = self._read(local, tree, sender)
        after, said = self.skill(local, plain, key, sender)
        return self._keeping(after, tree, coded, key, sender), said

    def many(
        self, locals: Sequence[Local], trees: Sequence[Tree], keys: Sequence[Key], senders: Sequence[str]
    ) -> Sequence[tuple[Local, Tree] | Error]:
        """Decode all, use the skill for all at once."""
        read = [self._read(*each) for each in zip(locals, trees, senders, strict=True)]
        results = self.skill.many(locals, [plain for _, plain in read], keys, senders)
        return [
            result if isinstance(result, Error) else (self._keeping(result[0], tree, coded, key, sender), result[1])
            for result, tree, (coded, _), key, sender in zip(results, trees, read, keys, senders, strict=True)
        ]

    def work(self, local: Local, tree: Tree) -> Work:
        """The skill's; coding is not counted."""
        return self.skill.work(local, self._read(local, tree)[1])

    def group(self, local: Local, tree: Tree) -> Any:
        """The skill's."""
        return self.skill.group(local, self._read(local, tree)[1])

    async def asked_of(self, peer: Peer, tree: Tree, *, key: Key, deadline: float | None = None) -> Reply:
        """Encode, and ask part by part until the answer is sure; what cannot be encoded is not sent.

        The reply's ``metrics`` are of all asks together, and tell how many of them were answered: ``asks``.
        """
        try:
            parts = self._parts(tree, key)
        except Error as error:
            return Reply(peer.name, failure=f"not sent: {error}")
        now = asyncio.get_running_loop().time
        begin, answer, heard = now(), None, list[Reply]()
        start, stop, left = 0, 1, deadline
        while left is None or left > 0 or not heard:
            reply = await peer.ask(self, _message(parts, start, stop, key), key=key, deadline=left)
            heard.append(reply)
            left = None if deadline is None else deadline - (now() - begin)
            if start and GONE in (reply.failure or ""):
                start, stop = 0, len(parts)
                continue
            if reply.tree is None:
                break
            answer = reply
            if stop == len(parts) or self._is_sure(reply.tree):
                break
            start, stop = stop, stop + 1
        given_up = heard[-1].failure == GIVEN_UP
        return _together(heard[-1] if answer is None or given_up else answer, heard)

    def _parts(self, tree: Tree, key: Key) -> list[Tree]:
        """The question, coded."""
        _, coded = self.codec.encode(self.codec.init(), tree, key)
        parts, first = self.codec.parts(coded), self.bytes.init()
        return [self.bytes.encode(first, part, (*key, i))[1] for i, part in enumerate(parts)]

    def _is_sure(self, answer: Tree) -> bool:
        try:
            logits = np.atleast_2d(np.asarray(answer["logits"], np.float64))
            with np.errstate(invalid="ignore"):  # what is not finite is not sure
                odds = np.exp(logits - logits.max(-1, keepdims=True))
        except (KeyError, IndexError, TypeError, ValueError):
            return False
        return bool((odds.max(-1) / odds.sum(-1) >= self.sure).all())

    def _read(self, local: Local, tree: Tree, sender: str | None = None) -> tuple[Tree, Tree]:
        """The question as far as it has come, coded and decoded; of any sender, where it does not matter of whom."""
        start, _, _, sent = _opened(tree)
        before = self._before(local, tree, start, sender) if start else None
        last = self._last
        if "tree" not in last or last["tree"] is not tree or last["before"] is not before:
            kept = [] if before is None else [before["coded"]]
            coded = self.codec.joined([*kept, *map(self.bytes.decode, sent)])
            last.update(tree=tree, before=before, read=(coded, self.codec.decode(coded)))
        read: tuple[Tree, Tree] = last["read"]
        return read

    def _before(self, local: Local, tree: Tree, start: int, sender: str | None) -> Mapping[str, Any]:
        """What is remembered of the question that a message goes on with."""
        kept = local.memory.get(_SLOT, {}).get(self.name, {})
        question = int(tree[_QUESTION])
        for name, each in kept.items():
            mine = name.startswith(_entry(question, "")) if sender is None else name == _entry(question, sender)
            if mine and int(each["parts"]) == start:
                return each  # type: ignore[no-any-return]
        raise DataError(GONE)

    def _keeping(self, local: Local, tree: Tree, coded: Tree, key: Key, sender: str) -> Local:
        """Remember what has come of a question, until all has."""
        slot, own = local.memory.get(_SLOT, {}), _entry(_question(key), sender)
        kept = {name: each for name, each in slot.get(self.name, {}).items() if name != own}
        _, stop, of, _ = _opened(tree)
        if stop < of:
            since = 1 + max((int(each["since"]) for each in kept.values()), default=0)
            kept[own] = {"coded": coded, "parts": np.int64(stop), "since": np.int64(since)}
            if len(kept) > self.keeps:
                del kept[min(kept, key=lambda name: int(kept[name]["since"]))]
        return local.remembering(**{_SLOT: {**slot, self.name: kept}})


def through(question: Skill, codec: Codec[Any]) -> Skill:
    """``question`` asked through this codec: in parts where both can, else all at once."""
    if isinstance(question, Refined):
        return replace(question, codec=codec) if in_parts(codec) else Coded(question.skill, codec)
    return Coded(question, codec)


def in_parts(codec: Any) -> TypeGuard[Parted]:
    """Whether a codec has parts."""
    return all(callable(getattr(codec, name, None)) for name in ("parts", "joined"))


def _question(key: Key) -> int:
    """By what the parts of one question are known; the sender's name comes to it."""
    text = repr([(type(part).__name__, str(part)) for part in key])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def _entry(question: int, sender: str) -> str:
    return f"{question} {sender}"


def _message(parts: Sequence[Tree], start: int, stop: int, key: Key) -> Tree:
    """Some of the parts; those that go on with others say with which."""
    message = {f"{i + 1}-of-{len(parts)}": parts[i] for i in range(start, stop)}
    return {**message, _QUESTION: np.uint64(_question(key))} if start else message


def _opened(message: Tree) -> tuple[int, int, int, list[Tree]]:
    """Of a message: its parts are ``start`` to ``stop`` of so many, and here they are.

    Raises:
        WireError: they are not.
    """
    names = set(message) - {_QUESTION} if isinstance(message, Mapping) else set()
    found = [match for name in names if (match := _PART.fullmatch(str(name)))]
    if not found:
        raise WireError("no parts of a question", _AS)
    numbers, of = sorted(int(match[1]) for match in found), int(found[0][2])
    start, stop = numbers[0] - 1, numbers[-1]
    parts = [f"{i + 1}-of-{of}" for i in range(start, stop)]
    if names != set(parts) or stop > of:
        raise WireError(f"parts named {', '.join(sorted(map(str, names)))}", _AS)
    question = message.get(_QUESTION)
    if (question is None) == (start > 0) or (start > 0 and not _is_number(question)):
        raise WireError("parts that do not tell of which question they are", _AS)
    return start, stop, of, [message[name] for name in parts]


def _is_number(leaf: Any) -> bool:
    array = None if isinstance(leaf, Mapping) else np.asarray(leaf)
    return array is not None and array.shape == () and array.dtype == np.uint64


def _together(said: Reply, heard: Sequence[Reply]) -> Reply:
    """One reply of several, one after the other; an ask that failed is taken to have been sending all the time."""
    answered = [reply for reply in heard if reply.failure is None]
    cost, metrics = sum((reply.cost for reply in heard), Cost()), dict(said.metrics)
    if answered:
        metrics["asks"] = float(len(answered))
        for name in ("compute_seconds", "up_seconds"):
            if all(name in reply.metrics for reply in answered):
                metrics[name] = sum(reply.metrics[name] for reply in answered)
        if "up_seconds" in metrics:
            metrics["up_seconds"] += sum(reply.cost.seconds for reply in heard if reply.failure is not None)
    return replace(said, cost=cost, metrics=metrics)
