"""The types that everything in Duetto passes through.

Parts (policies, codecs, aggregators, mechanisms, updates) are frozen dataclasses of hyper-parameters with
pure methods: state first in, state first out, randomness as an explicit last ``key``. Parties (peers) are
asked to use skills; what comes back is a reply; what is worth keeping is a record. This module holds no
algorithm and imports no library but numpy.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property
from typing import Any, ClassVar, Generic, Protocol, Self, TypeAlias, TypeVar

import numpy as np

from duetto import tree as trees
from duetto.errors import ConfigError, DataError, Error, caught
from duetto.tree import Array, Spec, Tree

S = TypeVar("S")
Key: TypeAlias = tuple[int | str, ...]
"""A path such as ``(seed, round, user, purpose)``, hashed where used and never split in sequence."""


def rng(key: Key) -> np.random.Generator:
    """The counter-based generator (Philox, Salmon et al. 2011) that belongs to a key, whoever asks and whenever."""
    # A separator within a part is doubled, so that no two keys are one text.
    text = "\x1f".join(f"{type(part).__name__}:{part}".replace("\x1f", "\x1f\x1f") for part in key)
    return np.random.Generator(
        np.random.Philox(key=int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest()))
    )


Index: TypeAlias = Mapping[str, tuple[tuple[int, ...], Array]]
"""Which entries of which leaves a partial tree holds: a leaf's JSON pointer -> the shape of the full leaf, and the
flat positions in it of the entries that are there. A leaf that it does not name is whole."""

# ---------------------------------------------------------------------------------------------------- parties


@dataclass(frozen=True)
class Cost:
    """What something cost; costs add. Seconds pass one after the other, so parallel parts need ``max`` instead."""

    seconds: float = 0.0
    up_bytes: int = 0
    down_bytes: int = 0
    joules: float = 0.0
    dollars: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.seconds + other.seconds,
            self.up_bytes + other.up_bytes,
            self.down_bytes + other.down_bytes,
            self.joules + other.joules,
            self.dollars + other.dollars,
        )

    def lasting(self, seconds: float) -> Cost:
        """The same in so many seconds."""
        return Cost(seconds, self.up_bytes, self.down_bytes, self.joules, self.dollars)


@dataclass(frozen=True)
class Work:
    """What one use of a skill computes: floating-point operations, and bytes moved between memory and cores."""

    flops: float = 0.0
    bytes: float = 0.0


@dataclass(eq=False)
class Local:
    """What never leaves a party: its data, and its memory (models, policy states, versions), a mapping.

    A role's ``local`` is the party's own cell. A skill gets the cell, changes nothing in it, and returns
    ``local.remembering(...)`` where it writes; the world then replaces the cell's memory.
    """

    data: Any = None
    memory: Mapping[str, Any] = field(default_factory=dict)

    def remembering(self, **items: Any) -> Local:
        """A copy in whose memory ``items`` are set."""
        return Local(self.data, {**self.memory, **items})


@dataclass(frozen=True, eq=False)
class Rows:
    """A user's examples: inputs ``x [n, ...]``, labels ``y [n]`` int64, and named parts.

    Where the cloud is the only teacher, nothing but scoring reads the labels. Iterating gives ``(x, y)`` row by
    row, as they come in.
    """

    x: Array
    y: Array
    parts: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.y)

    def part(self, name: str) -> Rows:
        """The rows of a part, such as "stream" or "held".

        Raises:
            ConfigError: there is no such part.
        """
        if name not in self.parts:
            raise ConfigError(f"the data has no part {name!r}", f"it has {sorted(self.parts)}")
        rows = self.parts[name]
        return Rows(self.x[rows], self.y[rows])

    async def __aiter__(self) -> AsyncIterator[tuple[Array, int]]:
        """Row by row."""
        for x, y in zip(self.x, self.y, strict=True):
            yield x, int(y)


class Skill(ABC):
    """What a party can be asked to do: a frozen dataclass, so that a world can recognise, batch and ship it by name."""

    @property
    def writes(self) -> bool:
        """Whether it may change the party's memory; then uses of it run one after the other, in order."""
        return False

    @property
    def name(self) -> str:
        """What a party lists among the skills it can be asked for."""
        return type(self).__name__

    @property
    def inner(self) -> Skill:
        """The skill itself, without what is around it on the wire."""
        return self

    @abstractmethod
    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Use it once, for ``sender``."""

    def many(
        self, locals: Sequence[Local], trees: Sequence[Tree], keys: Sequence[Key], senders: Sequence[str]
    ) -> Sequence[tuple[Local, Tree] | Error]:
        """Use it for several parties at once: the same results as one at a time, faster where a skill knows how.

        An error in place of a result says why this one party refused; the others are not concerned.
        """
        return [caught(self, *each) for each in zip(locals, trees, keys, senders, strict=True)]

    def work(self, local: Local, tree: Tree) -> Work:
        """What one use computes, known before it is done; a world turns it into seconds and joules."""
        return Work()

    def group(self, local: Local, tree: Tree) -> Any:
        """Uses with the same skill and the same group may run in one :meth:`many`; ``None`` runs alone."""
        return None

    async def asked_of(self, peer: Peer, tree: Tree, *, key: Key, deadline: float | None = None) -> Reply:
        """Ask a peer for it; a skill that crosses the wire through codecs encodes here."""
        return await peer.ask(self, tree, key=key, deadline=deadline)


@dataclass(frozen=True)
class Reply:
    """What a peer answered, or why it did not.

    Attributes:
        sender: the peer's name.
        tree: the answer; None where there is a ``failure``.
        weight: how much the sender says it counts (examples, usually).
        version: the version of the parameters it started from.
        staleness: versions gone by since; set by the receiver.
        metrics: numbers about the work (loss, ``compute_seconds``, the cloud's price); they never hold data.
        cost: what asking and answering cost.
        index: for a partial tree, see :data:`Index`; None is a whole one. Mean divides per coordinate.
        failure: one line; None where the tree is an answer.
    """

    sender: str
    tree: Tree | None = None
    weight: float = 1.0
    version: int = 0
    staleness: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    cost: Cost = Cost()
    index: Index | None = None
    failure: str | None = None


class Peer(ABC):
    """A party one can ask. A world makes it; it is all that a role knows of the other side."""

    name: str
    traits: Mapping[str, Any]
    """What a policy may know of it beforehand: profile, examples, online."""

    @abstractmethod
    async def ask(self, skill: Skill, tree: Tree, *, key: Key, deadline: float | None = None) -> Reply:
        """Ask it to use a skill; always answers, at the latest after ``deadline`` seconds (with a failure)."""

    async def stream(
        self, skill: Skill, tree: Tree, *, key: Key, deadline: float | None = None
    ) -> AsyncIterator[Reply]:
        """Ask for an answer in parts; without anything better, one part."""
        yield await self.ask(skill, tree, key=key, deadline=deadline)


class Group(ABC):
    """Many peers as columns: a fleet. A peer exists while it is asked."""

    names: Sequence[str]
    traits: Mapping[str, Array]

    @abstractmethod
    def __len__(self) -> int:
        """How many they are."""

    @abstractmethod
    def peer(self, name: str) -> Peer:
        """The peer of that name."""

    async def ask(
        self,
        names: Sequence[str],
        skill: Skill,
        send: Callable[[Peer], Tree],
        *,
        key: Key,
        deadline: float | None = None,
        enough: int | None = None,
    ) -> Sequence[Reply]:
        """Ask several at once, each with ``send(peer)`` and its own key ``(*key, name)``; replies in their order.

        Once ``enough`` have answered, the others are late: a failure. A world may know how to ask many faster.
        """

        async def one(name: str) -> Reply:
            peer = self.peer(name)
            return await peer.ask(skill, send(peer), key=(*key, name), deadline=deadline)

        asked = {asyncio.ensure_future(one(name)): name for name in names}
        waiting = set(asked)
        try:
            while waiting and (enough is None or sum(_answered(task) for task in asked) < enough):
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        return [task.result() if task.done() else Reply(name, failure=LATE) for task, name in asked.items()]


LATE = "late: enough had answered"
GIVEN_UP = "given up: another answer came first"
"""A task that asks a peer may be cancelled with these words; it then replies with them and with what it has cost."""


def _answered(task: asyncio.Future[Reply]) -> bool:
    return task.done() and task.result().failure is None


Role: TypeAlias = Callable[..., AsyncIterator["Record"]]
"""An ``async def`` with ``yield``, called by keyword: ``me``, ``local``, and what else it names: a peer (``cloud``),
peers by name (``neighbours``), a group (``fleet``)."""


def playing(role: Role, known: Mapping[str, Any], name: str) -> AsyncIterator[Record]:
    """A role's records, called with those of ``known`` that it names.

    Raises:
        ConfigError: it wants what the party of that ``name`` cannot have.
    """
    wanted = inspect.signature(role).parameters
    needed = {word for word, each in wanted.items() if each.default is inspect.Parameter.empty}
    if missing := sorted(needed - known.keys()):
        raise ConfigError(f"a role of {name} wants {', '.join(missing)}", f"it can have {', '.join(sorted(known))}")
    return role(**{word: known[word] for word in wanted if word in known})


@dataclass(frozen=True)
class Party:
    """One participant: the roles it runs, all the skills it can be asked for, and its cell.

    What is asked is looked up in ``skills`` only; it is served while a role waits. A class there offers the skill with
    any settings; a skill offers exactly itself, through any codecs.
    """

    roles: Sequence[Role] = ()
    skills: Sequence[type[Skill] | Skill] = ()
    local: Local = field(default_factory=Local)

    def offers(self, skill: Skill) -> bool:
        """Whether it can be asked for this skill."""
        if skill.name not in self._offered:
            return False
        exactly = self._offered[skill.name]
        return not exactly or skill.inner in exactly

    @cached_property
    def _offered(self) -> Mapping[str, tuple[Skill, ...]]:
        """Names -> the very skills that are offered; none where the class is."""
        found: dict[str, tuple[Skill, ...]] = {}
        for each in (each for each in self.skills if not isinstance(each, type)):
            found[each.name] = (*found.get(each.name, ()), each.inner)
        return {**found, **{each.__name__: () for each in self.skills if isinstance(each, type)}}


# ------------------------------------------------------------------------------------------------------ parts


class Domain(IntEnum):
    """What a codec takes and gives: floating leaves, coded (integer) leaves beside scalars, or opaque bytes."""

    FLOATS = 0
    CODES = 1
    BYTES = 2


class Codec(ABC, Generic[S]):
    """Whatever sits between a party's work and the wire. Scalar and integer leaves pass unchanged."""

    @property
    @abstractmethod
    def takes(self) -> frozenset[Domain]:
        """What it can encode; most codecs state it as a class variable."""

    @property
    @abstractmethod
    def gives(self) -> Domain:
        """What it encodes to; most codecs state it as a class variable."""

    @property
    def remembers(self) -> bool:
        """Whether it keeps a state from one encoding to the next, as error feedback does; a tree, then."""
        return False

    def init(self) -> S:
        """The state before anything was encoded."""
        return {}  # type: ignore[return-value]

    @abstractmethod
    def encode(self, state: S, tree: Tree, key: Key) -> tuple[S, Tree]:
        """Encode; the same key gives the same bytes."""

    @abstractmethod
    def decode(self, tree: Tree) -> Tree:
        """Decode to the shapes and dtypes that went in.

        Raises:
            WireError: not what :meth:`encode` gives.
        """

    @abstractmethod
    def becomes(self, spec: Spec) -> Spec | None:
        """The spec of the encoded tree where shapes fix it, else None."""

    def size(self, spec: Spec) -> int | None:
        """Exactly the bytes of the encoded tree on the wire where shapes fix them, else None."""
        coded = self.becomes(spec)
        return None if coded is None else trees.size(coded)


@dataclass(frozen=True)
class Chain(Codec[tuple[Any, ...]]):
    """Codecs one after the other, decoded in reverse; an empty chain is the identity. A chain may be in a chain.

    Raises:
        ConfigError: when built, where one cannot take what the one before it gives.
    """

    codecs: tuple[Codec[Any], ...] = ()

    @property
    def takes(self) -> frozenset[Domain]:
        """What the first codec takes; an empty chain takes everything."""
        flat = self._flat()
        return flat[0].takes if flat else frozenset(Domain)

    @property
    def gives(self) -> Domain:
        """What the last codec gives. An empty chain gives what it takes: floats, where it stands alone."""
        flat = self._flat()
        return flat[-1].gives if flat else Domain.FLOATS

    def _flat(self) -> list[Codec[Any]]:
        """The codecs without the chains around them, so that an empty one in between changes nothing."""
        nested = [codec._flat() if isinstance(codec, Chain) else [codec] for codec in self.codecs]
        return [codec for codecs in nested for codec in codecs]

    def __post_init__(self) -> None:
        flat = self._flat()
        for before, after in itertools.pairwise(flat):
            if before.gives not in after.takes:
                raise ConfigError(
                    f"{type(after).__name__} cannot take the {before.gives.name.lower()} of {type(before).__name__}",
                    "put lossy codecs first and byte codecs last",
                )

    @property
    def remembers(self) -> bool:
        """Whether one of the codecs does."""
        return any(codec.remembers for codec in self.codecs)

    def init(self) -> tuple[Any, ...]:
        """The states of the codecs."""
        return tuple(codec.init() for codec in self.codecs)

    def encode(self, state: tuple[Any, ...], tree: Tree, key: Key) -> tuple[tuple[Any, ...], Tree]:
        """Through all codecs, each with its own key."""
        states = list(state)
        for i, codec in enumerate(self.codecs):
            states[i], tree = codec.encode(states[i], tree, (*key, i))
        return tuple(states), tree

    def decode(self, tree: Tree) -> Tree:
        """Back through all codecs."""
        for codec in reversed(self.codecs):
            tree = codec.decode(tree)
        return tree

    def becomes(self, spec: Spec) -> Spec | None:
        """The spec after the last codec, or None where one of them depends on values."""
        for codec in self.codecs:
            coded = codec.becomes(spec)
            if coded is None:
                return None
            spec = coded
        return spec


class Action(IntEnum):
    """The three moves of the walk."""

    STOP = 0
    GO = 1
    ASK = 2


@dataclass(frozen=True)
class Seen:
    """What a policy sees, as columns over n items; what is None is not known.

    Attributes:
        stage: the stage of the walk (0: before any computing).
        scores: [n] or [n, k] numbers from elsewhere (an exit's confidence, a client's loss).
        features: [n, d] numbers, or columns by name, such as ``{"prompt": [n] texts}``.
        answer: [n, classes] logits of the party's own model; None where it has none (yet).
        link: columns ``up_mbps``, ``down_mbps``, ``rtt_seconds``, ``online``, each [n].
        queue: [n] seconds of work waiting at the peer.
        battery: [n] share left, 0..1.
        budget_left: [n] calls, dollars or privacy left.
        traits: [n] columns by name: what is known of each party (examples, flops), and once a round is over what it
            told (loss, seconds; NaN where nothing was heard).
        size: n.
    """

    stage: int = 0
    scores: Array | None = None
    features: Array | Mapping[str, Array] | None = None
    answer: Array | None = None
    link: Mapping[str, Array] | None = None
    queue: Array | None = None
    battery: Array | None = None
    budget_left: Array | None = None
    traits: Mapping[str, Array] | None = None
    size: int = 1

    def rows(self, which: Array) -> Seen:
        """The items at these positions, or where a mask ``[n]`` is true."""
        at = np.arange(self.size)[which]

        def picked(column: Any) -> Any:
            if isinstance(column, Mapping):
                return {name: picked(each) for name, each in column.items()}
            return column if column is None else np.asarray(column)[at]

        columns = ("scores", "features", "answer", "link", "queue", "battery", "budget_left", "traits")
        return replace(self, size=len(at), **{name: picked(getattr(self, name)) for name in columns})


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What the device's and the cloud's model made of the same items: what a router is fitted on and judged by.

    Attributes:
        small, large: [n] float64, how good each model's answer is: 0 or 1 for right or wrong, or any score that is
            larger where the answer is better.
        seen: what a policy sees of the items before it decides.
        users: [n] whose item each is; None counts every item by itself.
        labels: [n] integers, the right classes, where there are classes.
        judged: whether somebody said what is right; else the large model's answers are taken for it.

    Raises:
        DataError: no items, columns of different lengths, or a quality that is not finite.
    """

    small: np.ndarray
    large: np.ndarray
    seen: Seen
    users: np.ndarray | None = None
    labels: np.ndarray | None = None
    judged: bool = True

    def __post_init__(self) -> None:
        columns: dict[str, Any] = {name: getattr(self, name) for name in ("small", "large", "users", "labels")}
        if not self.seen.size:
            raise DataError("no items to fit or judge a router on", "give at least one")
        for name, column in columns.items():
            if column is not None and np.shape(column) != (self.seen.size,):
                raise DataError(f"{name} of shape {np.shape(column)} for {self.seen.size} items", "give one an item")
        for name in ("small", "large"):
            object.__setattr__(self, name, np.asarray(columns[name], np.float64))
            if not np.isfinite(getattr(self, name)).all():
                raise DataError(f"qualities of the {name} model that are NaN or infinite", "leave these items out")

    def __len__(self) -> int:
        return self.seen.size

    @property
    def gain(self) -> np.ndarray:
        """[n] what asking brings: the large model's quality less the small one's."""
        return np.asarray(self.large - self.small)

    @property
    def shares(self) -> np.ndarray:
        """[n] what each item counts in a mean over users, summing to 1."""
        if self.users is None:
            return np.full(len(self), 1 / len(self))
        _, which, count = np.unique(self.users, return_inverse=True, return_counts=True)
        return np.asarray(1 / (len(count) * count[which]))

    def rows(self, which: Array) -> Outcomes:
        """The items at these positions, or where a mask ``[n]`` is true."""
        users, labels = (None if column is None else np.asarray(column)[which] for column in (self.users, self.labels))
        return Outcomes(self.small[which], self.large[which], self.seen.rows(which), users, labels, self.judged)

    @classmethod
    def of_classifiers(
        cls,
        small: Array,
        large: Array | None = None,
        labels: Array | None = None,
        users: Array | None = None,
        features: Array | None = None,
    ) -> Outcomes:
        """Of two classifiers' logits ``[n, classes]``.

        Args:
            small: the device's; what a policy sees as the answer.
            large: the cloud's; None takes it to be always right.
            labels: ``[n]`` integers; None takes the large model's answers for the truth.
            users: ``[n]`` whose item each is.
            features: ``[n, d]`` what else a policy sees.

        Raises:
            ConfigError: neither labels nor large logits.
            DataError: no items, other shapes, logits that are not finite, or a label outside the classes.
        """
        if labels is None and large is None:
            raise ConfigError("neither labels nor large logits", "give one of them to fit with")
        answers = {name: _logits(logits) for name, logits in (("small", small), ("large", large)) if logits is not None}
        if len({found.shape for found in answers.values()}) > 1:
            raise DataError(f"logits of shapes {[found.shape for found in answers.values()]}", "give those of one task")
        chosen = {name: found.argmax(1) for name, found in answers.items()}
        truth = chosen["large"] if labels is None else _labels(labels, *answers["small"].shape)
        return cls(
            chosen["small"] == truth,
            chosen.get("large", truth) == truth,
            Seen(stage=1, answer=answers["small"], features=features, size=len(truth)),
            None if users is None else np.asarray(users),
            truth,
            labels is not None,
        )


def _logits(logits: Array) -> np.ndarray:
    array = np.asarray(logits, np.float64)
    if array.ndim != 2 or not array.size:
        raise DataError(f"logits of shape {array.shape}", "give [items, classes], at least one item")
    if not np.isfinite(array).all():
        raise DataError("logits that are NaN or infinite", "the model diverged or its input is corrupt")
    return array


def _labels(labels: Array, items: int, classes: int) -> np.ndarray:
    array: np.ndarray = np.asarray(labels)
    if array.shape != (items,) or array.dtype.kind not in "iu":
        raise DataError(f"labels of shape {array.shape} and dtype {array.dtype}", f"give {items} integers")
    if not ((array >= 0) & (array < classes)).all():
        raise DataError(f"a label outside the {classes} classes", "labels count from 0")
    return array


@dataclass(frozen=True)
class Plan:
    """Where to cut, with which codec, and which exit may answer.

    Attributes:
        cut: a down-closed set of graph nodes, or an int k for the k-th topological prefix (0: the input).
        codec: of what crosses; None sends it as it is.
        exit: the exit that answers on the device, if the peer does not.
        patience: seconds after which the device goes on by itself, beside the question; the first answer stands.
    """

    cut: int | frozenset[str] = 0
    codec: Codec[Any] | None = None
    exit: int | None = None
    patience: float = math.inf


@dataclass(frozen=True)
class Move:
    """What a policy chose, as columns over n items.

    Attributes:
        action: [n] of :class:`Action`.
        propensity: [n] the probability with which this action was chosen; 1 where nothing was random.
        why: one phrase a person can read.
        peer: the name of the peer to ask.
        plan: what to ask it with.
    """

    action: Array
    propensity: Array
    why: str = ""
    peer: str = "cloud"
    plan: Plan = Plan()

    @classmethod
    def sure(cls, action: Array, why: str, peer: str = "cloud", plan: Plan = Plan()) -> Move:
        """A move without chance."""
        action = np.atleast_1d(np.asarray(action, np.int8))
        return cls(action, np.ones(len(action)), why, peer, plan)


class Policy(ABC, Generic[S]):
    """Whatever decides: router, exit rule, cut planner, bandit, call budget, cohort sampler, drift trigger."""

    def init(self) -> S:
        """The state before anything was fitted or seen."""
        return {}  # type: ignore[return-value]

    @abstractmethod
    def choose(self, state: S, seen: Seen, key: Key) -> tuple[S, Move]:
        """Decide for every item of ``seen``."""

    def learn(self, state: S, seen: Seen, move: Move, reward: Array) -> S:
        """Learn from what a move brought; most policies do not."""
        return state


@dataclass(eq=False)
class Held(Generic[S]):
    """A policy with what it has fitted or seen: the one mutable cell. Only the state travels."""

    part: Policy[S]
    state: S

    @classmethod
    def of(cls, part: Policy[S]) -> Self:
        """The policy with its first state."""
        return cls(part, part.init())

    def fork(self) -> Held[S]:
        """An own copy for another party; states are values, so this copies nothing."""
        return Held(self.part, self.state)

    def choose(self, seen: Seen, key: Key) -> Move:
        """Decide, and keep the new state."""
        self.state, move = self.part.choose(self.state, seen, key)
        return move

    def learn(self, seen: Seen, move: Move, reward: Array) -> None:
        """Learn, and keep the new state."""
        self.state = self.part.learn(self.state, seen, move, reward)

    def save(self) -> bytes:
        """The state as bytes; it must be a tree."""
        return trees.encode(self.state)

    def restore(self, data: bytes) -> Held[S]:
        """The same policy with a saved state."""
        return Held(self.part, trees.decode(data))


class Aggregator(ABC, Generic[S]):
    """How replies become one tree. It streams, so that nobody keeps a cohort of trees.

    ``linear``: the state is a Tree and merge is tree.add, so that an executor may add one weighted sum for a
    whole cohort and masks cancel.
    """

    linear: ClassVar[bool] = False

    @abstractmethod
    def init(self) -> S:
        """Nothing added yet."""

    @abstractmethod
    def add(self, state: S, reply: Reply) -> S:
        """Add one reply."""

    def extend(self, state: S, replies: Sequence[Reply]) -> S:
        """Add several replies, one after the other or faster."""
        for reply in replies:
            state = self.add(state, reply)
        return state

    @abstractmethod
    def merge(self, left: S, right: S) -> S:
        """Two partial states as one."""

    @abstractmethod
    def finish(self, state: S) -> tuple[S, Tree]:
        """The aggregate, and the state to go on from.

        Raises:
            DataError: nothing was added.
        """


class Gate(Protocol):
    """Lets a reply through, or says in one line why not. Runs before every aggregator."""

    def __call__(self, reply: Reply, like: Tree) -> str | None:
        """Why ``reply`` may not pass, or None; ``like`` is what its tree should resemble."""


Replies: TypeAlias = Sequence[Reply]


class Collect(Protocol):
    """How replies come together: plain, secure (masks; linear aggregators only), in tiers."""

    async def gather(
        self,
        group: Group,
        names: Sequence[str],
        skill: Skill,
        send: Callable[[Peer], Tree],
        *,
        gate: Gate,
        aggregator: Aggregator[Any],
        decode: Callable[[Tree], Tree],
        like: Tree,
        key: Key,
        deadline: float | None,
        enough: int | None = None,
        part: Callable[[str], Index | None] = lambda name: None,
    ) -> tuple[Tree | None, Replies]:
        """Ask these of the group at once and aggregate in their order; None where no reply came through.

        ``send(peer)`` is the encoded message; once ``enough`` have answered, the others are late; ``decode`` turns a
        reply's tree back; ``like`` is what the gate compares a delta's structure with; ``part(name)`` is which part of
        ``like`` that peer was asked for, None for all of it, and given only where the server asks for parts. Replies
        come back without their trees; a rejected one has a failure.
        """


class ServerUpdate(ABC, Generic[S]):
    """The cloud's side of an algorithm. It may hold public data (FedDF).

    ``personal``: what is sent depends on the peer; else :meth:`send` gets None for a peer, once for all.
    ``partial``: peers are sent, and answer with, parts of what it expects; :meth:`part` says which.
    """

    personal: ClassVar[bool] = False
    partial: ClassVar[bool] = False

    def init(self, params: Tree) -> S:
        """What the server remembers between rounds."""
        return {}  # type: ignore[return-value]

    def send(self, state: S, params: Tree, peer: Peer | None) -> Tree:
        """What a peer gets; by default the parameters."""
        return {"params": params}

    def expects(self, params: Tree) -> Tree:
        """What a client's delta resembles, for the gate; by default the parameters (FedNova adds a leaf tau)."""
        return params

    def part(self, state: S, params: Tree, peer: Peer) -> Index | None:
        """Which part of what is expected a peer's delta is; None is all of it."""
        return None

    @abstractmethod
    def step(
        self, state: S, params: Tree, collected: Tree | None, *, cohort_size: int, fleet_size: int, key: Key
    ) -> tuple[S, Tree]:
        """The next parameters; ``cohort_size`` is how many replies counted.

        ``collected`` is None for an empty cohort (a private algorithm still adds noise).
        """


@dataclass(frozen=True)
class Trained:
    """What an executor hands to a client's ``finish``.

    ``delta`` and ``gradients`` may be members of a bundle (:class:`duetto.tree.Member`), which scale and add up
    without ever becoming arrays; whatever else is done with them makes arrays of them.

    Attributes:
        start: the parameters that the client started from.
        delta: how they changed.
        gradients: the sum of the gradients of all steps.
        steps: how many steps were taken.
        examples: how many examples it has.
        loss: mean per example over the last epoch, of the terms that read examples.
    """

    start: Tree
    delta: Tree
    gradients: Tree
    steps: int
    examples: int
    loss: float

    @property
    def params(self) -> Tree:
        """The parameters it ended with."""
        return trees.add(self.start, self.delta)


class ClientUpdate(Protocol):
    """Declares local training; an executor owns the loop, so that it runs alone, as a cohort, or on a device."""

    @property
    def loss(self) -> Sequence[Any]:
        """Terms that add, each ``(logits, batch, params, start) -> [rows]``; ``start`` is what :meth:`start` gave."""

    @property
    def optimiser(self) -> Any:
        """The local optimiser."""

    @property
    def epochs(self) -> int:
        """Passes over the client's data."""

    @property
    def batch_size(self) -> int:
        """Rows of a step."""

    def start(self, sent: Tree, memory: Mapping[str, Any]) -> Tree:
        """What training starts from: ``{"params": ..., ...}``; further entries are what the loss terms read."""

    def finish(self, sent: Tree, memory: Mapping[str, Any], trained: Trained) -> tuple[Mapping[str, Any], Tree, float]:
        """What the client remembers, the delta it sends, and its weight."""


class View(Protocol):
    """Which parameters travel and which stay: all, body and head, LoRA factors, batch-norm, masks, sub-networks."""

    def travels(self, params: Tree, peer: str) -> Tree:
        """What leaves the device."""

    def stays(self, params: Tree, peer: str) -> Tree:
        """What does not."""

    def join(self, travels: Tree, stays: Tree) -> Tree:
        """The whole model again."""


class Mechanism(ABC, Generic[S]):
    """A differentially private release: clip each contribution, add noise to the sum, state the event.

    Attributes:
        clip: the largest norm of one contribution.
    """

    clip: float

    @abstractmethod
    def init(self) -> S:
        """What the mechanism remembers (correlated noise, an adaptive clip)."""

    @abstractmethod
    def noise(self, state: S, total: Tree, key: Key) -> tuple[S, Tree]:
        """The sum with noise; from the operating system unless a simulation's key says otherwise."""

    @abstractmethod
    def event(self, sampling: str, cohort_size: int) -> Any:
        """What the accountant is charged; a sampling that the cohort policy does not state is an error."""


class Staged(Protocol):
    """A model as a graph of stages with exits; ``net[:cut]`` runs on the device and ``net[cut:]`` in the cloud."""

    @property
    def stages(self) -> Sequence[Any]:
        """The stages, in topological order."""

    @property
    def exits(self) -> Mapping[int, Any]:
        """The exits, by the stage after which they may answer."""

    @property
    def params(self) -> Tree:
        """The parameters of all stages and exits."""

    def __getitem__(self, cut: slice) -> Any:
        """The stages on one side of a cut."""


@dataclass(frozen=True)
class Algorithm:
    """One way to learn together: both sides, and everything between them, each replaceable.

    Attributes:
        client: a skill that trains (a :class:`ClientUpdate` that an executor runs).
        params: the parameters that the first round starts from.
        server: the cloud's step.
        aggregator: how deltas become one.
        cohort: chooses who is asked, over a :class:`Seen` of the whole fleet.
        up, down: codecs of the two directions.
        gate: before the aggregator, always.
        collect: how replies come together.
        view: which parameters travel; None is all.
        privacy: a mechanism; None promises nothing.
    """

    client: Skill
    params: Tree
    server: ServerUpdate[Any]
    aggregator: Aggregator[Any]
    cohort: Policy[Any]
    gate: Gate
    collect: Collect
    up: Codec[Any] = Chain()
    down: Codec[Any] = Chain()
    view: View | None = None
    privacy: Mechanism[Any] | None = None


# ------------------------------------------------------------------------------------------------ what is kept


@dataclass(frozen=True)
class Answer:
    """An answer, who gave it, why, and what it cost.

    Attributes:
        tree: the answer, ``{"logits": [classes]}`` for a classifier.
        party: who gave it.
        why: the policy's reason, or why the cloud was not heard.
        cost: of the whole walk.
        own: the device's own answer where it has computed one, else None.
        asked: whether a peer was asked, answered or not.
        version: the version of the model that answered.
    """

    tree: Tree
    party: str
    why: str
    cost: Cost
    own: Tree | None = None
    asked: bool = False
    version: int = 0


@dataclass(frozen=True)
class Record:
    """One line of the only log; everything reported is a function of records.

    Attributes:
        time: seconds on the world's clock; set by the world.
        party: who wrote it; set by the world.
        user: whose data it is about.
        protocol: "answer", "rounds", "publish" ...
        step: index within that protocol (example, round).
        metrics: numbers, and short texts such as the reason.
        cost: what it cost.
    """

    protocol: str
    step: int = 0
    metrics: Mapping[str, float | str] = field(default_factory=dict)
    cost: Cost = Cost()
    time: float = 0.0
    party: str = ""
    user: str = ""

    @classmethod
    def of(cls, answer: Answer, *, truth: int | None = None, step: int = 0, **metrics: float | str) -> Record:
        """The record of an answer; ``truth`` only scores."""
        label = _label(answer.tree)
        scored: dict[str, float | str] = {"by": answer.party, "why": answer.why, "asked": int(answer.asked), **metrics}
        scored["label"] = label
        if answer.own is not None:
            scored["own"] = _label(answer.own)
        if truth is not None:
            scored["truth"] = int(truth)
            scored["correct"] = int(label == truth)
        return cls("answer", step, scored, answer.cost)

    def measuring(self, **metrics: float | str) -> Record:
        """The record with further metrics."""
        return replace(self, metrics={**self.metrics, **metrics})

    def at(self, time: float, party: str) -> Record:
        """The record as a world logs it."""
        return replace(self, time=time, party=party, user=self.user or party)


def _label(tree: Tree) -> int:
    return int(np.argmax(tree["logits"]))
