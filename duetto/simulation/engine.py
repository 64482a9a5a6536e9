"""The simulated world: runs the roles of a program on a virtual clock.

Asking a peer costs what it would cost: the encoded bytes cross the device's link, wait for the peer's processor,
take the time its profile says, and the answer crosses back. ``Cost`` counts as the device sees it: ``up`` is
device to cloud whoever asked, joules are the device's (the cloud's electricity is in its price).

Everything a party remembers is a tree, so a run can be saved whenever nothing is in flight, and a role that keeps
its place in ``local.memory`` goes on from there as if it had never stopped.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from duetto import tree as trees
from duetto.errors import ConfigError, Error
from duetto.simulation import energy
from duetto.simulation.clock import RANK, Clock
from duetto.simulation.energy import Profile
from duetto.simulation.fleet import Fleet
from duetto.simulation.inflight import Cell, InFlight, Job
from duetto.simulation.link import Direction, Link, Network, named
from duetto.simulation.store import Left, Store
from duetto.tree import Tree
from duetto.types import GIVEN_UP, LATE, Cost, Group, Key, Local, Party, Peer, Record, Reply, Role, Skill, playing

T = TypeVar("T")
CLOUD = "cloud"


@dataclass(frozen=True, eq=False)
class Saved:
    """A run at a moment when nothing was in flight: its state as a tree, and how many records it had written."""

    state: Tree
    records: int


@dataclass(frozen=True, eq=False)
class Log:
    """What a run leaves: its records, what every party that changed remembers, and when it ended."""

    records: Sequence[Record]
    memory: Mapping[str, Mapping[str, Any]]
    seconds: float


def simulate(
    *,
    fleet: Fleet,
    device: Party | Role | None = None,
    cloud: Party | Role | None = None,
    neighbours: Mapping[str, Sequence[str]] | None = None,
    network: Network | str = "constant-10",
    seed: int = 0,
    cloud_profile: str = "cloud-gpu",
    servers: int = 8,
    prices: str = "default",
    memory_bytes: int = 1 << 30,
    alone: bool = False,
    on_record: Callable[[Record], None] = lambda record: None,
    on_save: Callable[[Saved], None] | None = None,
    resume: Saved | None = None,
) -> Log:
    """Run a program on a simulated fleet.

    Args:
        fleet: the devices; each runs the device's roles and can be asked for its skills.
        device, cloud: a party, or one role of a party without skills.
        neighbours: user -> the users it knows; a device's role may then name ``neighbours``, its peers by name.
            What one device asks another crosses both their links.
        network: how devices reach the cloud; a user's link is drawn by name from ``seed``.
        seed: of links; roles draw by their own keys.
        cloud_profile, servers: the cloud's processors.
        prices: a table of ``profiles.toml``.
        memory_bytes: what devices at rest remember beyond this lies on disk.
        alone: run every use of a skill by itself, as machines of one's own do: their answers bit for bit, but slower.
        on_record: called with each record as it is logged.
        on_save: called with the state when a cloud's role logs a record and nothing is in flight.
        resume: a state to go on from; the log then holds only what comes after it.

    Raises:
        Deadlock: everybody waits.
        ConfigError: a role wants a peer that it cannot have; an unknown network, profile or price table; no server;
            a user who is called "cloud"; neighbours outside the fleet.
    """
    parties = _party(device), _party(cloud)
    world = _World(
        fleet, *parties, neighbours, network, seed, cloud_profile, servers, prices, memory_bytes, alone, resume
    )
    records: list[Record] = []
    before = resume.records if resume else 0

    def log(record: Record) -> None:
        records.append(record)
        on_record(record)

    def save() -> None:
        if on_save is not None and world.quiet:
            on_save(Saved(world.state(), before + len(records)))

    world.clock.run(world.play(log, save))
    return Log(records, _Remembered(world), world.clock.time())


def _party(given: Party | Role | None) -> Party:
    if given is None:
        return Party()
    return given if isinstance(given, Party) else Party(roles=(given,))


@dataclass(frozen=True, eq=False)
class Ask:
    """What one of many is asked."""

    name: str
    tree: Tree
    key: Key


@dataclass(eq=False)
class _Member:
    """A party while it is asked or runs a role."""

    name: str
    cell: Cell
    party: Party
    profile: Profile
    link: Link | None  # the cloud has none: it is reached over the device's
    servers: list[float]  # when each processor is free
    lanes: dict[Direction, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    radio: float | None = None  # when the radio was last on air
    held: int = 0  # roles it runs and asks under way


@dataclass(frozen=True, eq=False)
class _Known:
    """What many who are asked together have in common: the sizes of messages by form, and transfers over one link."""

    sizes: dict[Any, int] = field(default_factory=dict)
    legs: dict[Any, tuple[float, float, Cost]] = field(default_factory=dict)


class _Asked(Peer):
    """A party as another one sees it."""

    def __init__(self, world: _World, asker: _Member, name: str, traits: Mapping[str, Any] | None = None) -> None:
        self.name, self._world, self._asker = name, world, asker
        self._traits = traits

    @property
    def traits(self) -> Mapping[str, Any]:  # type: ignore[override]
        """What is known of a device beforehand, found when it is asked for; nothing of the cloud."""
        if self._traits is None:
            row = self._world.fleet.row[self.name]
            columns = self._world.fleet.traits | self._world.online()
            self._traits = {trait: column[row] for trait, column in columns.items()}
        return self._traits

    async def ask(self, skill: Skill, tree: Tree, *, key: Key, deadline: float | None = None) -> Reply:
        return await self._world.ask(self._asker, self.name, skill, tree, key, deadline)


class _Everybody(Group):
    """The fleet as the cloud sees it."""

    def __init__(self, world: _World, asker: _Member) -> None:
        self.names = world.fleet.names
        self._world, self._asker = world, asker

    @property
    def traits(self) -> Mapping[str, np.ndarray]:  # type: ignore[override]
        """The fleet's, and who is online now."""
        return self._world.fleet.traits | self._world.online()

    def __len__(self) -> int:
        return len(self.names)

    def peer(self, name: str) -> Peer:
        if name not in self._world.fleet.row:
            raise ConfigError(f"no user of the fleet is called {name!r}", "names are in fleet.names")
        return _Asked(self._world, self._asker, name)

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
        peers = [self.peer(name) for name in names]
        asks = [Ask(name, send(peer), (*key, name)) for name, peer in zip(names, peers, strict=True)]
        if deadline is None and enough is None and self._world.alone(self._asker, names):
            return await self._world.ask_all(self._asker, skill, asks)
        return await self._world.ask_each(self._asker, skill, asks, deadline, enough)


class _Remembered(Mapping[str, Mapping[str, Any]]):
    """What every party remembers that differs from how it began; what lies on disk is read when it is asked for."""

    def __init__(self, world: _World) -> None:
        self._world = world

    def __getitem__(self, name: str) -> Mapping[str, Any]:
        memory = self._world.left(name).memory
        if memory is self._world.first(name):
            raise KeyError(name)
        return memory

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._world.parties() if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _World:
    def __init__(
        self,
        fleet: Fleet,
        device: Party,
        cloud: Party,
        neighbours: Mapping[str, Sequence[str]] | None,
        network: Network | str,
        seed: int,
        cloud_profile: str,
        servers: int,
        prices: str,
        memory_bytes: int,
        alone: bool,
        resume: Saved | None,
    ) -> None:
        self.fleet, self.device, self.cloud, self.seed = fleet, device, cloud, seed
        self.neighbours = neighbours
        if strange := {name for each in (neighbours or {}).items() for name in (each[0], *each[1])} - set(fleet.row):
            raise ConfigError(f"{min(strange)!r} has or is a neighbour", "neighbours are users of the fleet")
        self.network = named(network) if isinstance(network, str) else network
        self.radio = _named(energy.radios(), self.network.radio, "radio")
        self.prices = _named(energy.prices(), prices, "price table")
        if servers < 1:
            raise ConfigError(f"a cloud with {servers} servers", "give it at least one")
        if CLOUD in fleet.row:
            raise ConfigError(f"a user is called {CLOUD!r}", "that name is the cloud's")
        self.rest = Store(memory_bytes)
        self.jobs = InFlight(alone)
        self.waits: dict[int, str] = {}
        self.busy: dict[str, asyncio.Future[None]] = {}  # devices that were asked together, until all have answered
        self.members = {
            CLOUD: _Member(
                CLOUD,
                Cell(Local(cloud.local.data, cloud.local.memory)),
                cloud,
                _named(energy.profiles(), cloud_profile, "profile"),
                None,
                [0.0] * servers,
                held=1,
            )
        }
        if resume:
            self._restore(resume.state)
        self.clock = Clock(float(resume.state["time"]) if resume else 0.0, self._waiting)

    # ---------------------------------------------------------------------------------------------- parties

    def member(self, name: str) -> _Member:
        """The party of that name; a device exists from now on until it is let go."""
        if name not in self.members:
            if name not in self.fleet.row:
                raise ConfigError(f"no party is called {name!r}", "ask the cloud, or a user of the fleet")
            self.members[name] = self._at_rest(name)
        return self.members[name]

    def _at_rest(self, name: str) -> _Member:
        """A device as it was left."""
        left = self.rest.pop(name, Left(self.fleet.memory, None))
        cell = Cell(Local(self.fleet.data(name), left.memory))
        link = self.network.link((self.seed, "link", name))
        return _Member(name, cell, self.device, self.fleet.of(name), link, [0.0], radio=left.radio)

    def _let_go(self, member: _Member) -> None:
        """A device that is not needed any more leaves only what it changed."""
        if member.held or member.cell.jobs:
            return
        del self.members[member.name]
        self._rest(member)

    def _rest(self, device: _Member) -> None:
        """Leave what a device has changed."""
        if device.cell.local.memory is not self.fleet.memory or device.radio is not None:
            self.rest[device.name] = Left(device.cell.local.memory, device.radio)

    def online(self) -> dict[str, np.ndarray]:
        """Who can be reached now, as a trait; nothing where everybody always can."""
        return {} if self.fleet.online is None else {"online": self.fleet.online(self.clock.time())}

    def _gone(self, device: _Member) -> bool:
        return device.name != CLOUD and bool(self.online()) and not self.online()["online"][self.fleet.row[device.name]]

    def _waiting(self) -> str:
        """Who waits for whom, for the message of a deadlock."""
        first = "; ".join(list(self.waits.values())[:5]) or "a role waits for what nobody does"
        return first + (f"; and {len(self.waits) - 5} more" if len(self.waits) > 5 else "")

    # ----------------------------------------------------------------------------------------------- asking

    async def ask(
        self,
        asker: _Member,
        name: str,
        skill: Skill,
        tree: Tree,
        key: Key,
        deadline: float | None,
        limits: set[asyncio.Timeout] | None = None,
    ) -> Reply:
        while name in self.busy:
            await self.busy[name]
        peer = self.member(name)
        if not peer.party.offers(skill):
            self._let_go(peer)
            return Reply(name, failure=_not_offered(name, skill))
        began, spent, token = self.clock.time(), [Cost()], object()
        self.waits[id(token)] = f"{asker.name} waits for {name} to {skill.name}"
        peer.held += 1
        try:
            async with asyncio.timeout(deadline) as limit:
                if limits is not None:
                    limits.add(limit)
                reply = await self._ask(asker, peer, Job(skill, peer.cell, tree, key, asker.name), spent)
                if limits is not None:
                    limits.remove(limit)
        except TimeoutError:
            if not limit.expired():
                raise  # a skill's own
            late = deadline is None or self.clock.time() < began + deadline
            reply = Reply(name, failure=LATE if late else f"no answer within {deadline:g} s")
        except asyncio.CancelledError as cancelled:
            task = asyncio.current_task()
            if cancelled.args != (GIVEN_UP,) or task is None:
                raise
            task.uncancel()
            reply = Reply(name, failure=GIVEN_UP)
        finally:
            del self.waits[id(token)]
            peer.held -= 1
            self._let_go(peer)
        return replace(reply, cost=replace(spent[0], seconds=self.clock.time() - began))

    async def ask_each(
        self, asker: _Member, skill: Skill, asks: Sequence[Ask], deadline: float | None, enough: int | None
    ) -> Sequence[Reply]:
        """Ask several, each for itself; once ``enough`` have answered, the others are cut off."""
        limits: set[asyncio.Timeout] = set()
        tasks = [
            asyncio.ensure_future(self.ask(asker, each.name, skill, each.tree, each.key, deadline, limits))
            for each in asks
        ]
        if enough is not None:
            waiting = set(tasks)
            while waiting and sum(task.done() and task.result().failure is None for task in tasks) < enough:
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for limit in limits if waiting else ():
                limit.reschedule(self.clock.time())
        return await asyncio.gather(*tasks)

    def alone(self, asker: _Member, names: Sequence[str]) -> bool:
        """Whether nobody but ``asker`` has, or can come to have, to do with these devices meanwhile."""
        apart = asker.name == CLOUD and not self.device.roles and self.fleet.online is None
        return apart and len(set(names)) == len(names) and not any(n in self.members or n in self.busy for n in names)

    async def ask_all(self, asker: _Member, skill: Skill, asks: Sequence[Ask]) -> Sequence[Reply]:
        """As :meth:`ask_each`, of devices at rest that nobody else asks meanwhile: then all that happens to one of
        them is known as soon as it is asked, and costs no event on the clock."""
        if not asks:
            return []
        if not self.device.offers(skill):
            return [Reply(each.name, failure=_not_offered(each.name, skill)) for each in asks]
        began, token = self.clock.time(), object()
        self.waits[id(token)] = f"{asker.name} waits for {asks[0].name} and others to {skill.name}"
        done = asyncio.get_running_loop().create_future()
        self.busy.update((each.name, done) for each in asks)
        members = [self._at_rest(each.name) for each in asks]
        jobs = [
            Job(skill, member.cell, each.tree, each.key, asker.name) for member, each in zip(members, asks, strict=True)
        ]
        known = _Known()
        try:
            spent = [self._there(member, job, began, known) for member, job in zip(members, jobs, strict=True)]
            ready = [job for job in jobs if job.finish is not None and job.failure is None]
            self.jobs.together([(job, job.cell.local.memory) for job in ready])
            replies = [
                self._back(member, job, cost, began, known)
                for member, job, cost in zip(members, jobs, spent, strict=True)
            ]
            await self._until(began + max(reply.cost.seconds for reply in replies))
        finally:
            for member in members:
                self._rest(member)
                del self.busy[member.name]
            del self.waits[id(token)]
            done.set_result(None)
        return replies

    def _there(self, member: _Member, job: Job, began: float, known: _Known) -> Cost:
        """A message arrives and is worked on, as far as that depends on nobody: sets when the job finishes."""
        if id(job.tree) not in known.sizes:
            known.sizes[id(job.tree)] = trees.size(trees.spec(job.tree))
        arrival, cost = self._leg(member, "down", known.sizes[id(job.tree)], began, known)
        job.finish = arrival
        try:
            seconds, joules = energy.compute(member.profile, job.skill.work(member.cell.local, job.tree))
        except Error as error:
            job.failure = str(error)
            return cost
        job.seconds, job.finish = seconds, arrival + seconds
        return cost + Cost(joules=joules)

    def _back(self, member: _Member, job: Job, cost: Cost, began: float, known: _Known) -> Reply:
        """What a device answers, and when that arrives."""
        assert job.finish is not None
        if job.result is None:
            return Reply(member.name, failure=job.failure, cost=cost.lasting(job.finish - began))
        local, answer = job.result
        version = int(member.cell.local.memory.get("version", 0))
        member.cell.local.memory = local.memory
        if (form := _form(answer)) not in known.sizes:
            known.sizes[form] = trees.size(trees.spec(answer))
        arrival, back = self._leg(member, "up", known.sizes[form], job.finish, known)
        total = (cost + back).lasting(arrival - began)
        return Reply(member.name, answer, version=version, metrics={"compute_seconds": job.seconds}, cost=total)

    def _leg(
        self, device: _Member, direction: Direction, nbytes: int, begin: float, known: _Known
    ) -> tuple[float, Cost]:
        """When a message over a free link arrives, and what it costs."""
        assert device.link is not None
        quiet = self._quiet(device, begin)
        mark = (device.link, direction, nbytes, begin, quiet)
        if mark not in known.legs:
            arrival = device.link.sent(begin, nbytes, direction)
            last = max(begin, arrival - device.link.rtt_seconds / 2)
            known.legs[mark] = arrival, last, self._carried(direction, nbytes, last - begin, quiet)
        arrival, last, cost = known.legs[mark]
        device.radio = max(last, device.radio or 0.0)
        return arrival, cost

    def _quiet(self, device: _Member, begin: float) -> float:
        """How long the radio's tail burnt before a transfer; the first use stands in for the last one's."""
        return self.radio.tail_seconds if device.radio is None else max(0.0, begin - device.radio)

    async def _ask(self, asker: _Member, peer: _Member, job: Job, spent: list[Cost]) -> Reply:
        """There, work, and back; ``spent`` tells also what a deadline cut short has cost."""
        if self._gone(peer):
            return Reply(peer.name, failure=f"{peer.name} is offline")
        self.jobs.add(job)
        try:
            up_seconds = await self._carry(asker, peer, job.tree, spent)
        except BaseException:
            self.jobs.drop(job)  # it never arrived
            raise
        try:
            seconds, joules = energy.compute(peer.profile, job.skill.work(peer.cell.local, job.tree))
        except Error as error:
            self.jobs.drop(job)
            return Reply(peer.name, failure=str(error))
        if peer.link:
            spent[0] += Cost(joules=joules)
        else:
            call = 0.0 if peer is asker else self.prices.per_call
            spent[0] += Cost(dollars=call + seconds * self.prices.per_cloud_second)
        server = min(range(len(peer.servers)), key=peer.servers.__getitem__)
        job.finish = peer.servers[server] = max(self.clock.time(), peer.servers[server]) + seconds
        try:
            await self._until(job.finish)
        except asyncio.CancelledError:
            self.clock.call_at(job.finish, self._abandoned, peer, job)
            raise
        self.jobs.finish(job)
        if self._gone(peer):
            return Reply(peer.name, failure=f"{peer.name} dropped out")
        if job.result is None:
            return Reply(peer.name, failure=job.failure)
        answer = job.result[1]
        await self._carry(peer, asker, answer, spent)
        assert job.read is not None
        version = int(job.read.get("version", 0))
        metrics = {"compute_seconds": seconds}
        if asker.link and peer is not asker:
            metrics["up_seconds"] = up_seconds
        return Reply(peer.name, answer, version=version, metrics=metrics)

    def _abandoned(self, peer: _Member, job: Job) -> None:
        """What was asked for is done even if the asker has gone."""
        self.jobs.finish(job)
        self._let_go(peer)

    async def _carry(self, sender: _Member, receiver: _Member, tree: Tree, spent: list[Cost]) -> float:
        """Move a tree up the sender's link and down the receiver's; the cloud has none, and oneself is here.

        Returns the seconds on air.
        """
        if sender is receiver:
            return 0.0
        seconds = await self._cross(sender, "up", tree, spent) if sender.link else 0.0
        return seconds + (await self._cross(receiver, "down", tree, spent) if receiver.link else 0.0)

    async def _cross(self, device: _Member, direction: Direction, tree: Tree, spent: list[Cost]) -> float:
        """Move a tree over a device's link, in so many seconds on air; a direction carries one after the other."""
        link = device.link
        assert link is not None
        nbytes, delay = trees.size(trees.spec(tree)), link.rtt_seconds / 2
        async with device.lanes[direction]:  # the next message need not wait for this one to arrive
            begin = self.clock.time()
            arrival = link.sent(begin, nbytes, direction)
            last = max(begin, arrival - delay)
            quiet = self._quiet(device, begin)  # a tail is charged when the radio is next used
            device.radio = max(last, device.radio or 0.0)
            try:
                await self._until(last)
            except asyncio.CancelledError:
                now = self.clock.time()
                if device.radio == last:
                    device.radio = now
                last = now
                out = bisect_right(range(nbytes + 1), now, key=lambda n: link.sent(begin, n, direction) - delay)
                nbytes = max(0, out - 1)  # what had gone out by then
                raise
            finally:
                spent[0] += self._carried(direction, nbytes, last - begin, quiet)
        await self._until(arrival)
        return last - begin

    def _carried(self, direction: Direction, nbytes: int, seconds: float, quiet: float) -> Cost:
        """What so many bytes in so many seconds on air cost, ``quiet`` seconds after the transfer before."""
        if direction == "up":
            joules = energy.transfer_joules(self.radio, seconds, 0.0, quiet)
            return Cost(up_bytes=nbytes, joules=joules, dollars=nbytes / 1e9 * self.prices.per_gigabyte_up)
        joules = energy.transfer_joules(self.radio, 0.0, seconds, quiet)
        return Cost(down_bytes=nbytes, joules=joules, dollars=nbytes / 1e9 * self.prices.per_gigabyte_down)

    async def _until(self, time: float) -> None:
        reached = self.clock.create_future()
        if time == float("inf"):  # a link that stays down: only a deadline ends the wait
            await reached
        timer = self.clock.call_at(time, _reach, reached)
        try:
            await reached
        finally:
            timer.cancel()

    # ------------------------------------------------------------------------------------------------ roles

    async def play(self, log: Callable[[Record], None], save: Callable[[], None]) -> None:
        """Run every role of every party to its end."""
        parties = [(CLOUD, role, save) for role in self.cloud.roles]
        for role in self.device.roles:
            parties += [(name, role, lambda: None) for name in self.fleet.names]
        await asyncio.gather(*(self._play(rank, *party, log) for rank, party in enumerate(parties)))

    async def _play(
        self, rank: int, name: str, role: Role, save: Callable[[], None], log: Callable[[Record], None]
    ) -> None:
        RANK.set(rank)
        member = self.member(name)
        member.held += 1
        known: dict[str, Any] = {"me": _Asked(self, member, name, {}), "local": member.cell.local}
        if name == CLOUD:
            known["fleet"] = _Everybody(self, member)
        else:
            known["cloud"] = _Asked(self, member, CLOUD, {})
            if self.neighbours is not None:
                everybody = _Everybody(self, member)
                known["neighbours"] = {other: everybody.peer(other) for other in self.neighbours.get(name, ())}
        async for record in playing(role, known, name):
            log(record.at(self.clock.time(), name))
            save()
        member.held -= 1
        self._let_go(member)

    # ----------------------------------------------------------------------------------------------- saving

    @property
    def quiet(self) -> bool:
        """Whether nothing is in flight, nor about to go on at this very moment."""
        return not self.waits and not len(self.jobs) and self.clock.idle

    def left(self, name: str) -> Left:
        """Memory and radio of a party; a device that was never asked is not known here."""
        if name in self.members:
            member = self.members[name]
            return Left(member.cell.local.memory, member.radio)
        return self.rest[name]

    def parties(self) -> list[str]:
        """Every party but those devices that were never asked."""
        return [*self.rest, *self.members]

    def first(self, name: str) -> Mapping[str, Any]:
        return self.cloud.local.memory if name == CLOUD else self.fleet.memory

    def state(self) -> Tree:
        """All that a resumed run needs; nothing is in flight, so every processor and every link is free."""
        parties: dict[str, Tree] = {}
        for name in self.parties():
            left = self.left(name)
            kept = {} if left.memory is self.first(name) else {"memory": left.memory}
            if kept or left.radio is not None:
                parties[name] = {**kept, "radio": np.array([np.nan if left.radio is None else left.radio])}
        return {"time": np.float64(self.clock.time()), "parties": parties}

    def _restore(self, state: Tree) -> None:
        for name, party in state["parties"].items():
            memory, radio = party.get("memory", self.first(name)), float(party["radio"][0])
            if name == CLOUD:
                self.members[CLOUD].cell.local.memory = memory
            else:
                self.rest[name] = Left(memory, None if np.isnan(radio) else radio)


def _reach(reached: asyncio.Future[None]) -> None:
    if not reached.done():  # its asker may have gone at this very moment
        reached.set_result(None)


def _form(tree: Tree) -> Any:
    """What decides how many bytes a tree takes: answers to one question mostly agree in it."""
    if isinstance(tree, trees.Member):
        return id(tree.bundle)
    if isinstance(tree, Mapping):
        return tuple((name, _form(child)) for name, child in tree.items())
    return getattr(tree, "shape", ()), getattr(tree, "dtype", type(tree))


def _not_offered(name: str, skill: Skill) -> str:
    return f"{name} does not offer {skill.name}"


def _named(table: Mapping[str, T], name: str, kind: str) -> T:
    if name not in table:
        raise ConfigError(f"no {kind} is called {name!r}", f"use one of {', '.join(table)}")
    return table[name]
