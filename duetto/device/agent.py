"""The device: answers at once, asks the cloud when that pays, forgets nothing, and runs only models that are signed.

An application embeds it::

    async with Device("state", cloud="cloud.example:8443", small="small.onnx", policy="policy") as device:
        answer = await device.answer(x)
        device.correct(answer, label)

Everything around the answer is done beside it: connecting, delivering what the outbox holds, fetching and testing new
models. Without a model the cloud answers, until one has arrived; without a cloud the device does.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from duetto import tree as trees
from duetto.device.agreement import Agreement
from duetto.device.artefact import Artefact, session
from duetto.device.breaker import Breaker, Guarded
from duetto.device.consenting import Consenting, Withheld
from duetto.device.daily import Daily
from duetto.device.lessons import Lessons
from duetto.device.outbox import Outbox, Ticket
from duetto.device.personal import HEAD, Fitting, Head, Personal, learned, refreshed
from duetto.device.runner import Connection
from duetto.device.settings import Leaves, Settings, Situation, allowed
from duetto.device.situation import situation
from duetto.device.slots import Slot, Slots
from duetto.device.sources import Source, Stream
from duetto.device.updater import Refused, Updater, told_of
from duetto.errors import ConfigError, DataError, Error
from duetto.policies import Threshold
from duetto.policies.artefact import heard, load
from duetto.protocols.answer import answer, disagreement
from duetto.protocols.channels import CANARY, POLICY, STABLE, share, tries
from duetto.protocols.deliver import FEEDBACK, RECORD, Delivered, delivering
from duetto.protocols.probe import Echo
from duetto.protocols.stages import Finish
from duetto.transport import tracing
from duetto.transport.channel import Lost
from duetto.transport.grpc import Client
from duetto.transport.identity import Credentials, requested
from duetto.transport.party import Running
from duetto.transport.session import SOFTWARE, Greeting
from duetto.tree import Array
from duetto.types import Answer, Held, Local, Party, Peer, Seen, Skill

_LOG = logging.getLogger(__name__)
_PROFILE = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
SURE = 0.9  # the probability from which a device that was given no policy keeps its own answer
QUESTION: Skill = Finish("large")
"""What a device asks its cloud, unless told otherwise: the large model, from the input or from features."""


@dataclass(frozen=True)
class Answered:
    """An answer, and what it takes to speak of it again.

    Attributes:
        answer: with its party, reason and cost.
        number: of this answer in this run of the device.
        x: what was asked.
        model: the release of the small model that was here, whoever answered; 0 for one that came with the device.
    """

    answer: Answer
    number: int
    x: Array = field(repr=False)
    model: int = 0

    @property
    def label(self) -> int:
        """The class that was chosen."""
        return int(np.argmax(self.answer.tree["logits"]))


@dataclass(frozen=True)
class Timing:
    """How often a device does what it does beside answering, in seconds."""

    deliver: float = 5.0
    update: float = 3600.0
    personal: float = 600.0


class Device:
    """A device; an asynchronous context, in which it is connected.

    Args:
        state: its folder: key and certificate, models, outbox.
        cloud: the address, such as ``cloud.example:8443``; None never asks.
        name: what it is called; over TLS its certificate says that.
        small: an ONNX file that :mod:`duetto.models.export` wrote, to begin with; what arrives later takes its place.
        policy: a fitted policy, or the folder of one (:mod:`duetto.policies.artefact`); None is :data:`SURE`.
        question: the skill that the cloud is asked for; through codecs where it is
            :class:`~duetto.protocols.coded.Coded`.
        settings: what may leave, and when; None reads ``settings.toml`` in the folder, and without it lets nothing go.
        insecure: speak plain text, which is for one machine only.
        model, channel: what is listened to for new models; it needs ``root.json``, which enrolment leaves.
        deadline: seconds that the cloud may take; afterwards the device's own answer stands.
        within: seconds for the whole answer.
        metered: whether the network costs by volume.
        timing: how often it delivers and looks for models.
        rule: when a new model that agrees less with the cloud goes.
        personal: fit a head of this user's own while idle (:mod:`duetto.device.personal`); or how.
        learning: train with others when the cloud asks (:mod:`duetto.device.learning`); needs the extra ``train``.
        session: of the keys of this run; random by default.
        profile: what kind of device it is, such as pixel-7, for those who look at the fleet.

    Raises:
        ConfigError: a folder, file or setting that cannot be used; a cloud, and neither a certificate nor ``insecure``.
    """

    def __init__(
        self,
        state: str | Path,
        *,
        cloud: str | None = None,
        name: str = "device",
        small: str | Path | None = None,
        policy: Held[Any] | str | Path | None = None,
        question: Skill = QUESTION,
        settings: Settings | None = None,
        insecure: bool = False,
        model: str = "small",
        channel: str = "stable",
        deadline: float = 2.0,
        within: float | None = None,
        metered: bool = False,
        timing: Timing = Timing(),
        rule: Agreement = Agreement(),
        personal: bool | Fitting = False,
        learning: bool = False,
        session: str | None = None,
        profile: str = "",
    ) -> None:
        if profile and not _PROFILE.fullmatch(profile):
            raise ConfigError(f"a profile {profile[:80]!r}", "use up to 63 small letters, digits, '.' and '-'")
        self.state, self._address = Path(state), cloud
        self.state.mkdir(parents=True, exist_ok=True)
        self.settings = settings if settings is not None else _settings(self.state)
        self._credentials = None
        if cloud is not None and not insecure:
            try:
                self._credentials = Credentials.load(self.state)
            except ConfigError as fault:  # a clock that is wrong, or a year offline, must not keep it from answering
                self._credentials = Credentials.load(self.state, current=False)
                _LOG.error("%s; until then the device answers by itself", fault)
            name = self._credentials.name
        self.name, self._question, self._deadline, self._within = name, question, deadline, within
        self._metered, self._timing, self._rule = metered, timing, rule
        self._channel, self._model = channel, model
        self._given = None if small is None else Path(small)
        if self._given is not None and not self._given.is_file():
            raise ConfigError(f"no model at {small}", "name the ONNX file that duetto.models.export wrote")
        self._first = _policy(policy)
        self.policy: Held[Any] = self._first.fork()
        self._session, self._count = session or secrets.token_hex(8), 0
        self.outbox = Outbox(self.state / "outbox.db")
        self._daily = Daily(self.state / "daily.json")
        self.slots = Slots(self.state / "models")
        self.slot: Slot | None = None
        self.progress: tuple[int, int] | None = None
        self._personal = Fitting() if personal is True else personal or None
        self.head: Head | None = None
        self._lessons = Lessons(self.state / "lessons.db") if self._personal or learning else None
        self._noting: ThreadPoolExecutor | None = None
        self._running = Running(Party(skills=(Artefact, Personal)), name)
        self._offered = Running(Party(skills=(Echo,)), name)
        if learning and self._lessons is not None:
            from duetto.device.learning import Learning

            self._offered = Learning(name, self._lessons, self._unwilling, self.state / "learning.tree")
        self._software = f"{SOFTWARE} ({profile})" if profile else SOFTWARE
        self._connection = Connection(self._greeting, self._offered)
        self._cloud: Peer | None = None
        self._tasks: list[asyncio.Task[Any]] = []
        self._compared: list[tuple[int, int]] = []  # version, and whether it agreed with the cloud

    # ---------------------------------------------------------------------------------------------- life

    async def __aenter__(self) -> Self:
        """Open the outbox, take up the model, load it, and begin to connect; waits for nobody else."""
        await self.outbox.__aenter__()
        self._take_up()
        await asyncio.to_thread(self._load)
        if self._personal is not None:
            self._tasks.append(asyncio.ensure_future(self._personalise()))
        if self._address is not None:
            self._client = Client(self._address, credentials=self._credentials)
            self._connection.dial = self._client.talk
            guarded = Guarded(
                tracing.Traced(self._connection.cloud), Breaker(), deadline=self._deadline, key=(self.name,)
            )
            self._cloud = Consenting(guarded, lambda: self.settings, situation=self.situation)
            work = [self._connect(), self._deliver()]
            if self._credentials is not None:
                work.append(self._update())
            self._tasks += [asyncio.ensure_future(each) for each in work]
        return self

    async def __aexit__(self, *fault: object) -> None:
        """Commit what waits, and end the connection."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        await self._compare()
        if self._noting is not None:
            self._noting.shutdown()
        if self._address is not None:
            await self._client.close()
        await self.outbox.__aexit__(None, None, None)
        self._running.close()

    @property
    def answers_alone(self) -> bool:
        """Whether there is a model here, or none is needed since nobody else could be asked."""
        return self._path is not None or self._address is None

    @property
    def connected(self) -> bool:
        """Whether the cloud can be asked now."""
        return self._connection.cloud.connected

    async def wait_connected(self, seconds: float) -> bool:
        """Wait for the cloud, for so long."""
        end = asyncio.get_running_loop().time() + seconds
        while not self.connected and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.02)
        return self.connected

    def situation(self) -> Situation:
        """What the device finds itself in now."""
        return situation(metered=self._metered)

    # ------------------------------------------------------------------------------------------- answers

    async def answer(self, x: Array, *, known: Seen | None = None) -> Answered:
        """Answer one input, without a batch axis.

        The answer's record goes to the outbox, which nobody waits for.

        Raises:
            Unanswered: no model here yet, and no cloud that answered.
            DataError: an input that the model does not take.
        """
        self._count += 1
        number, slot = self._count, self.slot
        path, model, head = self._path, self._version, self.head
        with tracing.span("answer", device=self.name, number=number) as told:
            given = await answer(
                x,
                me=self._running.me,
                exits={} if path is None else {0: Personal(Artefact(str(path)))},
                peers={} if self._cloud is None else {"cloud": self._cloud},
                question=self._question,
                policy=self.policy,
                key=("device", self.name, self._session, number),
                deadline=self._deadline,
                within=self._within,
                online=self.connected,
                known=known,
                reward=disagreement,
            )
            if given.party == self.name and head is not None and head.used:
                given = replace(given, why=f"{given.why}; corrected by {head.lessons} lessons of this device")
            told(by=given.party, why=given.why, asked=given.asked, model=given.version)
        answered = Answered(given, number, x, model)
        if given.party != self.name:
            self._note(answered, _probabilities(given.tree["logits"]), corrected=False)
        if self.settings.most is not Leaves.NOTHING:
            self.outbox.put(RECORD, self._record(answered))
        if slot is not None and given.party != self.name and given.own is not None:
            agreed = int(np.argmax(given.own["base"]) == np.argmax(given.tree["logits"]))
            self._compared.append((slot.version, agreed))
        if slot is not None and slot.state == "trying" and given.own is not None:
            # An answer does not fail with the disk; the next one tells as much.
            with self._patient("confirm its model"):
                self.slots.confirm(slot.version)
                self.slot = self.slots.state().current
        return answered

    def correct(self, answered: Answered, label: int) -> Ticket | None:
        """Tell what would have been right: feedback, which goes to the cloud as far as the user lets it. The input goes
        with it where inputs may leave, as many a day as the user's settings say.

        Returns:
            What is done when it is durable (:meth:`duetto.device.outbox.Outbox.committed`); None where nothing may go.

        Raises:
            DataError: no such class.
        """
        logits = answered.answer.tree["logits"]
        if not 0 <= label < len(logits):
            raise DataError(f"a label {label} of {len(logits)} classes", "labels count from 0")
        self._note(answered, np.eye(len(logits))[label], corrected=True)
        if self.settings.most is Leaves.NOTHING:
            return None
        told = {"label": np.int64(label), "logits": np.asarray(logits), "number": np.int64(answered.number)}
        x = np.asarray(answered.x)
        if self.settings.most is Leaves.RAW and self._daily.take(self.settings, x.nbytes, date.today()):
            told["x"] = x
        return self.outbox.put(FEEDBACK, trees.encode(told))

    def _record(self, answered: Answered) -> bytes:
        given = answered.answer
        told = {
            "session": self._session,
            "number": answered.number,
            "time": time.time(),
            "by": given.party,
            "why": given.why,
            "asked": given.asked,
            "label": answered.label,
            "own": None if given.own is None else int(np.argmax(given.own["logits"])),
            "base": None if given.own is None else int(np.argmax(given.own["base"])),
            "version": given.version,
            "model": answered.model,
            "cost": vars(given.cost),
        }
        return json.dumps(told, separators=(",", ":")).encode()

    # -------------------------------------------------------------------------------------------- models

    @property
    def _path(self) -> Path | None:
        return self._given if self.slot is None else self.slots.path(self.slot)

    def _take_up(self) -> None:
        """Run what is in the slots from now on, with the policy of its release, and a head only if it is its own."""
        self.slot = self.slots.begin()
        self.policy = self._first.fork()
        told = {} if self.slot is None else told_of(self.state / "models", self.slot.version)
        if POLICY in told:
            try:
                self.policy = heard(told[POLICY])
            except DataError as fault:
                _LOG.error("%s keeps its first policy: %s", self.name, fault)
        self._running.local.memory = {**self._running.local.memory, "version": np.int64(self._version)}
        self._connection.greeting = self._greeting
        self._wear(None if self._personal is None else Head.load(self.state / "head.tree"))

    @property
    def _greeting(self) -> Greeting:
        return Greeting(self.name, {"version": float(self._version)}, self._software)

    @property
    def _version(self) -> int:
        return 0 if self.slot is None else self.slot.version

    @property
    def _mark(self) -> int:
        """What tells small models apart: the release, or for one that came with the device a digest below zero."""
        if self.slot is not None or self._given is None:
            return self._version
        return self._given_mark

    @cached_property
    def _given_mark(self) -> int:
        assert self._given is not None
        return -int.from_bytes(hashlib.sha256(self._given.read_bytes()).digest()[:6], "little")

    def _load(self, path: Path | None = None) -> None:
        """Load a model, or the one that runs: the first answer's time is not for that. One that cannot be loaded tells
        so when it is asked."""
        path = path or self._path
        if path is not None:
            with suppress(Error):
                session(str(path), Artefact(str(path)).threads)

    async def _compare(self) -> None:
        """A new model is sent back where it agrees less with the cloud than the one before it."""
        compared, self._compared = self._compared, []
        for version in {version for version, _ in compared}:
            said = [agreed for of, agreed in compared if of == version]
            with self._patient("note how its model does"):
                why = await asyncio.to_thread(self.slots.observe, version, sum(said), len(said), self._rule)
                if why is not None:
                    _LOG.warning("%s went back from model %s: %s", self.name, version, why)
                    self._take_up()

    @contextmanager
    def _patient(self, what: str) -> Iterator[None]:
        """A disk that is full or fails is told, and ends nothing."""
        try:
            yield
        except (DataError, OSError) as fault:
            _LOG.warning("%s could not %s: %s", self.name, what, fault)

    async def update(self) -> Slot | None:
        """Look for a new model now, fetch and test it, and switch to it.

        Requests under way end with the model that they began with.

        Raises:
            Refused: what is offered is not signed, too old, altered, or failed its test.
            DataError: it cannot be had now.
        """

        def told(here: int, whole: int) -> None:
            self.progress = here, whole

        source = Stream(self._client.fetch, asyncio.get_running_loop())

        def updated() -> Slot | None:
            slot = self._updater(self._listening(source), source).update(told)
            if slot is not None:
                self._load(self.slots.path(slot))
            return slot

        thread = ThreadPoolExecutor(1, "duetto-update")
        try:
            slot = await asyncio.get_running_loop().run_in_executor(thread, updated)
        finally:  # the thread may be waiting for this loop, which therefore must not wait for it
            source.stop()
            thread.shutdown(wait=False)
            self.progress = None
        if slot is not None:
            self._take_up()
        return slot

    def _updater(self, channel: str, source: Source) -> Updater:
        root = (self.state / "root.json").read_bytes()
        return Updater(self.state / "models", source, root, self._model, channel, self.slots, takes=_unreadable)

    def _listening(self, source: Source) -> str:
        """The channel whose model this device is to run: the canary's, where it is one of those that try it."""
        if self._channel != STABLE:
            return self._channel
        stable, floor = self._updater(STABLE, source).offered(), self.slots.state().floor
        if stable is None:
            return STABLE
        ahead = floor is not None and floor[0] > stable.version  # it tried one before, and never goes back
        if not ahead and not tries(self.name, self._model, share(stable.told)):
            return STABLE
        canary = self._updater(CANARY, source).offered()
        return CANARY if canary is not None and canary.version > stable.version else STABLE

    # ------------------------------------------------------------------------------------------- learning

    async def personalise(self) -> Head | None:
        """Fit this user's own head now, and use it while it is not worse; None where there is too little to learn from.

        Raises:
            DataError: what was learned here is damaged.
        """
        if self._lessons is None or self._personal is None or self._path is None:
            return None
        lessons, fitting, mark, path = self._lessons, self._personal, self._mark, self._path
        noted = None if self._noting is None else self._noting.submit(lambda: None)  # what was said until now

        def fitted() -> Head | None:
            if noted is not None:
                noted.result()
            if (taught := lessons.taught()) is None:
                return None

            def own(x: Array) -> np.ndarray:
                found: np.ndarray = Artefact(str(path))(Local(), {"x": x}, (), self.name)[1]["logits"]
                return found

            head = learned(refreshed(taught, mark, own), fitting, mark)
            if head is not None:
                head.save(self.state / "head.tree")
            return head

        with ThreadPoolExecutor(1, "duetto-personal") as thread:
            head = await asyncio.get_running_loop().run_in_executor(thread, fitted)
        self._wear(head)
        return self.head

    def forget(self) -> None:
        """Delete what this device has learned about its user; what was delivered to the cloud, the cloud forgets."""
        if self._noting is not None:
            self._noting.submit(lambda: None).result()
        (self._lessons or Lessons(self.state / "lessons.db")).forget()
        for name in ("head.tree", "learning.tree"):
            (self.state / name).unlink(missing_ok=True)
        self._wear(None)

    def _wear(self, head: Head | None) -> None:
        """Answer with this head, if it belongs to the model that runs and is not worse."""
        self.head = head if head is not None and head.model == self._mark else None
        memory = {name: value for name, value in self._running.local.memory.items() if name != HEAD}
        if self.head is not None and self.head.used:
            memory[HEAD] = {"weight": self.head.weight, "bias": self.head.bias}
        self._running.local.memory = memory

    def _note(self, answered: Answered, target: np.ndarray, corrected: bool) -> None:
        """Keep a lesson, in a thread: nobody waits for it."""
        own, lessons = answered.answer.own, self._lessons
        if own is None or lessons is None:
            return
        mark = answered.model or self._mark
        given = (self._session, answered.number, mark, np.asarray(answered.x), own["base"], target, corrected)
        self._noting = self._noting or ThreadPoolExecutor(1, "duetto-lessons")
        self._noting.submit(lessons.keep, *given).add_done_callback(_grumble)

    def _unwilling(self) -> str | None:
        """Why this device does not train for others now, or None: it computes, and what it sends leaves."""
        situation = self.situation()
        return allowed(self.settings, situation, "learn") or allowed(self.settings, situation, "deliver")

    async def _personalise(self) -> None:
        """Fit the head now and then, where there is something new and settings allow it."""
        last = -1
        while True:
            await asyncio.sleep(self._timing.personal)
            if self._lessons is None or allowed(self.settings, self.situation(), "learn") is not None:
                continue
            newest = self._lessons.newest()
            if newest != last or self.head is None:
                try:
                    await self.personalise()
                    last = newest
                except Error as fault:
                    _LOG.error("%s: %s", self.name, fault)

    # ---------------------------------------------------------------------------------- beside answering

    async def _connect(self) -> None:
        ended = await self._connection.keep()
        _LOG.error("%s will not connect again: %s", self.name, ended.why)

    async def _deliver(self) -> None:
        """Deliver now and then; what fails is tried again."""
        turn = 0
        while True:
            await asyncio.sleep(self._timing.deliver)
            await self._compare()
            if self.connected and allowed(self.settings, self.situation(), "deliver") is None:
                turn += 1
                await self.deliver(turn)

    async def deliver(self, turn: int = 0) -> int:
        """Deliver what the outbox holds, as far as the cloud takes it; how many entries that were."""
        key, cloud, done = ("deliver", self.name, self._session, turn), self._connection.cloud, Delivered()
        with self._patient("deliver"):  # what the cloud has and the disk does not let go is recognised later
            leaving = Withheld(self.outbox, lambda: self.settings)
            done = await delivering(leaving, cloud, key=key, deadline=max(10.0, self._deadline))
        if done.failure is not None:
            _LOG.info("%s could not deliver: %s", self.name, done.failure)
        return done.entries

    async def renew(self) -> None:
        """Have the certificate signed anew, for the same key; it is shown from the next start on.

        Raises:
            Lost: the cloud does not.
        """
        assert self._credentials is not None
        key = self._credentials.key
        certificate, authority, _ = await self._client.enrol("", requested(key, self.name))
        self._credentials = Credentials(key, certificate, authority)
        self._credentials.save(self.state)

    async def _update(self) -> None:
        while True:
            if self.connected and self._credentials is not None and self._credentials.due():
                try:
                    await self.renew()
                except (Lost, OSError) as fault:
                    _LOG.error("%s could not renew its certificate: %s", self.name, fault)
            listens = self.connected and (self.state / "root.json").exists()
            if listens and allowed(self.settings, self.situation(), "update") is None:
                try:
                    await self.update()
                except Refused as fault:
                    _LOG.error("%s: %s", self.name, fault)
                except (Error, OSError) as fault:
                    _LOG.info("%s: %s", self.name, fault)
            await asyncio.sleep(self._timing.update if self.connected else min(1.0, self._timing.update))


def _unreadable(told: Any) -> str | None:
    """Why a release's policy cannot be used here, or None."""
    try:
        if POLICY in told:
            heard(told[POLICY])
    except DataError as fault:
        return str(fault)
    return None


def _probabilities(logits: Array) -> np.ndarray:
    each = np.asarray(logits, np.float64)
    each = np.exp(each - each.max())
    found: np.ndarray = each / each.sum()
    return found


def _grumble(done: Future[None]) -> None:
    if (fault := done.exception()) is not None:
        _LOG.error("a lesson was not kept: %s", fault)


def _settings(state: Path) -> Settings:
    path = state / "settings.toml"
    return Settings.load(path) if path.exists() else Settings("nothing")


def _policy(given: Held[Any] | str | Path | None) -> Held[Any]:
    if isinstance(given, Held):
        return given.fork()
    return Held.of(Threshold(SURE)) if given is None else load(given).held
