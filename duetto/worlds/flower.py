"""Flower's deployment engine as a world: a program's roles and skills, unchanged, as an ordinary Flower app.

Beutel et al.: Flower: A Friendly Federated Learning Research Framework, 2020. The cloud's roles run in the
``ServerApp``; what devices can be asked for runs in ``ClientApp``s. An ask is one Flower message, whose body is the
bytes that Duetto's own transport would send; a SuperNode keeps what its device remembers as long as the run lasts.

What Flower has no place for is a device that asks: a ``ClientApp`` lives for one message. Programs whose devices have
roles (routing, split inference) run on ``duetto cloud`` and ``duetto device``.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duetto.errors import ConfigError, Error
from duetto.evaluation import records
from duetto.transport import vocabulary
from duetto.transport.channel import CLOUD, Lost
from duetto.transport.kept import Kept, opened, packed
from duetto.transport.party import Running
from duetto.transport.remote import Remote, Remotes
from duetto.transport.session import Greeting, Question, Said
from duetto.tree import Tree
from duetto.types import Local, Party, Record

if TYPE_CHECKING:
    from flwr.app import Context, Message, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp

_LOG = logging.getLogger("flwr")
_LOOK_SECONDS = 0.2  # between two looks for replies
_GREET_SECONDS = 3.0  # between two looks for nodes
_SLOT = "duetto"  # of a message and of a node's state


@dataclass(frozen=True, eq=False)
class Program:
    """What runs: the same parties that :func:`duetto.simulate` takes.

    Attributes:
        device: what a device can be asked for; it has no roles.
        cloud: its roles, and what it remembers.
        data: from a device's name to what it holds; called on that device alone.
        memory: what every device remembers at first.
        devices: their names, in the order in which policies see them; empty takes those that are there when the run
            begins, by name.

    Raises:
        ConfigError: a device with roles.
    """

    device: Party
    cloud: Party
    data: Callable[[str], Any] = lambda name: None
    memory: Mapping[str, Any] = field(default_factory=dict)
    devices: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.device.roles:
            raise ConfigError("a device with a role of its own on Flower", "run it with duetto cloud and duetto device")


Make = Callable[[Mapping[str, Any]], Program]
"""From a run's configuration (``[tool.flwr.app.config]``, ``flwr run --run-config``) to its program."""


def client(make: Make) -> ClientApp:
    """The app of every device.

    A device is called what its SuperNode's ``--node-config`` says: ``name="ann"``, or ``partition-id=3``, which is the
    fourth of the program's devices.
    """
    from flwr.app import Message
    from flwr.clientapp import ClientApp

    app = ClientApp()

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        name, traits, fault = str(context.node_config.get("name", "")), {}, ""
        try:
            program = make(context.run_config)
            name = _name(program, context.node_config)
            data = program.data(name)
            traits = {"examples": float(len(data))} if hasattr(data, "__len__") else {}
        except Error as error:
            fault = str(error)
        return Message(_content({"name": name, "traits": json.dumps(traits), "fault": fault}), reply_to=message)

    @app.query("ask")
    def ask(message: Message, context: Context) -> Message:
        try:
            said = _answered(make(context.run_config), context, message.content)
        except Error as fault:
            said = Said(failure=str(fault))
        told = {"body": said.body, "version": said.version, "failure": said.failure}
        return Message(_content({**told, "metrics": json.dumps(dict(said.metrics))}), reply_to=message)

    return app


def _answered(program: Program, context: Context, asked: RecordDict) -> Said:
    name = _name(program, context.node_config)
    local = Local(program.data(name), program.memory)
    running = Running(program.device, name, local=local, keep=_State(context.state))
    try:
        return asyncio.run(running.answer(CLOUD, _question(asked)))
    finally:
        running.close()


def server(make: Make) -> ServerApp:
    """The app of the cloud.

    It reads of the run's configuration, beside what the program reads: ``wait``, how many SuperNodes are waited for (0
    is all of the program's devices, or one where it names none); ``memory`` and ``records``, files on the SuperLink's
    machine for what the cloud remembers (a run that finds it there goes on from it) and for its records.
    """
    from flwr.serverapp import ServerApp

    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        asyncio.run(served(make(context.run_config), grid, context.run_config))

    return app


async def served(program: Program, grid: Grid, run: Mapping[str, Any]) -> None:
    """Play the cloud's roles over the nodes of a grid to their ends."""
    mail = _Mail(grid)
    nodes = _Nodes(program.devices, mail)
    file = str(run.get("memory", ""))
    running = Running(program.cloud, CLOUD, keep=Kept(file) if file else None)
    aside = [asyncio.ensure_future(mail.fetch()), asyncio.ensure_future(nodes.greet())]
    playing = asyncio.ensure_future(_played(running, nodes, run))
    try:
        done, _ = await asyncio.wait({playing, *aside}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (playing, *aside):
            task.cancel()
        await asyncio.gather(playing, *aside, return_exceptions=True)
        running.close()
        mail.close()


async def _played(running: Running, nodes: _Nodes, run: Mapping[str, Any]) -> None:
    await nodes.arrived(int(run.get("wait", 0)) or max(1, len(nodes.names)))
    path = str(run.get("records", ""))

    def log(record: Record) -> None:
        _LOG.info("%s %s: %s", record.protocol, record.step, json.dumps(dict(record.metrics), default=str))
        if path:
            records.append(Path(path), [record])

    await running.play({"fleet": nodes}, log)
    running.save()


class _Nodes(Remotes):
    """The SuperNodes of a federation as a fleet: those that go are offline, those that come are greeted."""

    def __init__(self, names: Sequence[str], mail: _Mail) -> None:
        super().__init__(Remote(name, device=False) for name in names)
        self._open, self._mail = not names, mail
        self._posts: dict[int, _Post] = {}
        self._came = asyncio.Event()

    async def arrived(self, count: int) -> None:
        """Wait until so many are there; whoever comes later is no part of a fleet without names."""
        while len(self.online) < count:
            self._came.clear()
            await self._came.wait()
        if self._open:
            self._open = False
            self._peers = {name: self._peers[name] for name in sorted(self._peers)}

    async def greet(self) -> None:
        """Look who is there, for ever."""
        while True:
            there = set(await self._mail.nodes())
            for node in self._posts.keys() - there:
                post = self._posts.pop(node)
                self._peers[post.other.name].detach(post, Lost("its SuperNode is gone"))
            await asyncio.gather(*(self._greet(node) for node in sorted(there - self._posts.keys())))
            await asyncio.sleep(_GREET_SECONDS)

    async def _greet(self, node: int) -> None:
        post = _Post(self._mail, node)
        fault = await post.hello()
        name = post.other.name
        if not fault and name not in self._peers:
            if self._open:
                self._peers[name] = Remote(name, device=False)
            else:
                fault = "the run has no device of that name"
        elif not fault and self._peers[name].connected:
            fault = "another node is called so, too"
        if fault:
            _LOG.warning("node %s (%s) takes no part: %s", node, name, fault)
            self._posts[node] = post  # not asked again
            return
        self._posts[node] = post
        self._peers[name].attach(post)
        self._came.set()


class _Post:
    """One node, as a :class:`Remote` sees a connection."""

    def __init__(self, mail: _Mail, node: int) -> None:
        self._mail, self._node, self.other = mail, node, Greeting("")

    async def hello(self) -> str:
        """Ask who it is; what is wrong, or ""."""
        reply = await self._mail.send(_content({}), self._node, "query.hello", None)
        if reply.has_error():
            return str(reply.error.reason)
        about = _told(reply.content)
        self.other = Greeting(about["name"], json.loads(about["traits"]))
        return str(about["fault"])

    async def ask(self, question: Question) -> Said:
        """One message there, and one back."""
        told = {"description": question.description, "key": vocabulary.key_text(question.key), "body": question.body}
        reply = await self._mail.send(_content(told), self._node, "query.ask", question.seconds)
        if reply.has_error():
            return Said(failure=f"Flower says: {reply.error.reason}")
        about = _told(reply.content)
        return Said(about["body"], about["version"], about["failure"], json.loads(about["metrics"]))


class _Mail:
    """Messages over a grid, which is not made for several threads: one thread of its own, one look for all replies."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._thread = ThreadPoolExecutor(1, "duetto-flower")
        self._waiting: dict[str, asyncio.Future[Message]] = {}

    async def nodes(self) -> Iterable[int]:
        """Who is there."""
        found: Iterable[int] = await self._called(self._grid.get_node_ids)
        return found

    async def send(self, content: RecordDict, node: int, kind: str, seconds: float | None) -> Message:
        """The reply to a message, which nobody reads once ``seconds`` have passed."""
        from flwr.app import Message

        message = Message(content, dst_node_id=node, message_type=kind, ttl=seconds)
        (mark,) = list(await self._called(self._grid.push_messages, [message])) or [None]
        if mark is None:
            raise ConfigError("Flower's SuperLink did not take a message", "its log says why; a body may be too large")
        reply: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[mark] = reply
        try:
            return await reply
        finally:
            del self._waiting[mark]

    async def fetch(self) -> None:
        """Hand replies to those who wait, for ever."""
        while True:
            if self._waiting:
                for message in await self._called(self._grid.pull_messages, list(self._waiting)):
                    waiting = self._waiting.get(message.metadata.reply_to_message_id)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(message)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _called(self, call: Callable[..., Any], *given: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(call, *given))

    def close(self) -> None:
        """Let the thread go."""
        self._thread.shutdown(wait=False, cancel_futures=True)


class _State:
    """A device's memory in the state that its SuperNode keeps for a run; see :class:`duetto.transport.party.Keep`."""

    def __init__(self, state: RecordDict) -> None:
        self._state = state

    def load(self) -> tuple[Mapping[str, Any], Mapping[str, Tree]] | None:
        """What was kept."""
        if _SLOT not in self._state:
            return None
        kept = opened(_told(self._state)["kept"], "the state of the SuperNode")
        return kept["memory"], kept["answered"]

    def save(self, memory: Mapping[str, Any], answered: Mapping[str, Tree]) -> None:
        """Keep both."""
        self._state[_SLOT] = _content({"kept": packed(memory, answered)})[_SLOT]


def _name(program: Program, about: Mapping[str, Any]) -> str:
    """What the device is called."""
    if "name" in about:
        return str(about["name"])
    at = about.get("partition-id", -1)
    if isinstance(at, int) and 0 <= at < len(program.devices):
        return program.devices[at]
    raise ConfigError(f"a SuperNode of no name ({dict(about)})", "start it with --node-config 'name=\"ann\"'")


def _question(content: RecordDict) -> Question:
    about = _told(content)
    text = about["description"]
    return Question(vocabulary.number(text), text, vocabulary.key_of(about["key"]), about["body"])


def _content(told: Mapping[str, Any]) -> RecordDict:
    from flwr.app import ConfigRecord, RecordDict

    return RecordDict({_SLOT: ConfigRecord(dict(told))})


def _told(content: RecordDict) -> dict[str, Any]:
    return dict(content.config_records[_SLOT])
