"""The simulated world: runs the roles of a program on a virtual clock.

Asking a peer costs what it would cost: the encoded bytes cross the device's link, wait for the peer's processor,
take the time its profile says, and the answer crosses back. ``Cost`` counts as the device sees it: ``up`` is
device to cloud whoever asked, joules are the device's (the cloud's electricity is in its price).

Everything a party remembers is a tree, so a run can be saved whenever nothing is in flight, and a role that keeps
its place in ``local.memory`` goes on from there as if it had never stopped.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.simulation import energy
from duetto.simulation.clock import Clock
from duetto.simulation.energy import Profile
from duetto.simulation.fleet import Fleet
from duetto.simulation.inflight import Cell, InFlight, Job
from duetto.simulation.link import Direction, Link, Network, named
from duetto.tree import Tree
from duetto.types import Cost, Group, Key, Local, Party, Peer, Record, Reply, Role, Skill

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
    network: Network | str = "constant-10",
    seed: int = 0,
    cloud_profile: str = "cloud-gpu",
    servers: int = 8,
    prices: str = "default",
    on_record: Callable[[Record], None] = lambda record: None,
    on_save: Callable[[Saved], None] | None = None,
    resume: Saved | None = None,
) -> Log:
    """Run a program on a simulated fleet.

    Args:
        fleet: the devices; each runs the device's roles and can be asked for its skills.
        device, cloud: a party, or one role of a party without skills.
        network: how devices reach the cloud; a user's link is drawn by name from ``seed``.
        seed: of links; roles draw by their own keys.
        cloud_profile, servers: the cloud's processors.
        prices: a table of ``profiles.toml``.
        on_record: called with each record as it is logged.
        on_save: called with the state when a cloud's role logs a record and nothing is in flight.
        resume: a state to go on from; the log then holds only what comes after it.

    Raises:
        Deadlock: everybody waits.
        ConfigError: a role wants a peer that it cannot have; an unknown network, profile or price table.
    """
    world = _World(fleet, _party(device), _party(cloud), network, seed, cloud_profile, servers, prices, resume)
    records: list[Record] = []
    before = resume.records if resume else 0

    def log(record: Record) -> None:
        records.append(record)
        on_record(record)

    def save() -> None:
        if on_save is not None and world.quiet:
            on_save(Saved(world.state(), before + len(records)))

    world.clock.run(world.play(log, save))
    return Log(records, world.remembered(), world.clock.time())


def _party(given: Party | Role | None) -> Party:
    if given is None:
        return Party()
    return given if isinstance(given, Party) else Party(roles=(given,))


@dataclass(eq=False)
class _Member:
    """A party while it is asked or runs a role."""

    name: str
    cell: Cell
    skills: frozenset[str]
    profile: Profile
    link: Link | None  # the cloud has none: it is reached over the device's
    servers: list[float]  # when each processor is free
    free: dict[str, float] = field(default_factory=lambda: {"up": 0.0, "down": 0.0})  # when each direction is
    radio: float | None = None  # when the radio was last on air
    held: int = 0  # roles it runs and asks under way


class _Asked(Peer):
    """A party as another one sees it."""

    def __init__(self, world: _World, asker: _Member, name: str, traits: Mapping[str, Any]) -> None:
        self.name, self.traits = name, traits
        self._world, self._asker = world, asker

    async def ask(self, skill: Skill, tree: Tree, *, key: Key, deadline: float | None = None) -> Reply:
        return await self._world.ask(self._asker, self.name, skill, tree, key, deadline)


class _Everybody(Group):
    """The fleet as the cloud sees it."""

    def __init__(self, world: _World, asker: _Member) -> None:
        self.names, self.traits = world.fleet.names, world.fleet.traits
        self._world, self._asker = world, asker

    def __len__(self) -> int:
        return len(self.names)

    def peer(self, name: str) -> Peer:
        row = self._world.fleet.row[name]
        return _Asked(self._world, self._asker, name, {trait: column[row] for trait, column in self.traits.items()})


class _World:
    def __init__(
        self,
        fleet: Fleet,
        device: Party,
        cloud: Party,
        network: Network | str,
        seed: int,
        cloud_profile: str,
        servers: int,
        prices: str,
        resume: Saved | None,
    ) -> None:
        self.fleet, self.device, self.cloud, self.seed = fleet, device, cloud, seed
        self.network = named(network) if isinstance(network, str) else network
        self.radio = energy.radios()[self.network.radio]
        self.prices = energy.prices()[prices]
        self.skills = _names(device.skills)
        self.rest: dict[str, tuple[Mapping[str, Any], float | None]] = {}  # memory and radio of devices at rest
        self.jobs = InFlight()
        self.waits: dict[int, str] = {}
        start = float(resume.state["time"]) if resume else 0.0
        self.clock = Clock(start, lambda: "; ".join(self.waits.values()) or "a role waits for what nobody does")
        self.members = {
            CLOUD: _Member(
                CLOUD,
                Cell(Local(cloud.local.data, cloud.local.memory)),
                _names(cloud.skills),
                energy.profiles()[cloud_profile],
                None,
                [0.0] * servers,
                held=1,
            )
        }
        if resume:
            self._restore(resume.state)

    # ---------------------------------------------------------------------------------------------- parties

    def member(self, name: str) -> _Member:
        """The party of that name; a device exists from now on until it is let go."""
        if name not in self.members:
            if name not in self.fleet.row:
                raise ConfigError(f"no party is called {name!r}", "ask the cloud, or a user of the fleet")
            memory, radio = self.rest.pop(name, (self.fleet.memory, None))
            cell = Cell(Local(self.fleet.data(name), memory))
            link = self.network.link((self.seed, "link", name))
            self.members[name] = _Member(name, cell, self.skills, self.fleet.of(name), link, [0.0], radio=radio)
        return self.members[name]

    def _let_go(self, member: _Member) -> None:
        """A device that is not needed any more leaves only what it changed."""
        busy = max(*member.servers, *member.free.values()) > self.clock.time()
        if member.held or member.cell.jobs or busy:
            return
        del self.members[member.name]
        if member.cell.local.memory is not self.fleet.memory or member.radio is not None:
            self.rest[member.name] = (member.cell.local.memory, member.radio)

    # ----------------------------------------------------------------------------------------------- asking

    async def ask(self, asker: _Member, name: str, skill: Skill, tree: Tree, key: Key, deadline: float | None) -> Reply:
        peer = self.member(name)
        if skill.name not in peer.skills:
            return Reply(name, failure=f"{name} does not offer {skill.name}")
        began, spent, token = self.clock.time(), [Cost()], object()
        self.waits[id(token)] = f"{asker.name} waits for {name} to {skill.name}"
        peer.held += 1
        try:
            async with asyncio.timeout(deadline):
                reply = await self._ask(asker, peer, Job(skill, peer.cell, tree, key, asker.name), spent)
        except TimeoutError:
            reply = Reply(name, failure=f"no answer within {deadline:g} s")
        finally:
            del self.waits[id(token)]
            peer.held -= 1
            self._let_go(peer)
        return replace(reply, cost=replace(spent[0], seconds=self.clock.time() - began))

    async def _ask(self, asker: _Member, peer: _Member, job: Job, spent: list[Cost]) -> Reply:
        """There, work, and back; ``spent`` tells also what a deadline cut short has cost."""
        device = asker if asker.link else peer
        there: Direction = "up" if asker.link else "down"
        back: Direction = "down" if asker.link else "up"
        self.jobs.add(job)
        try:
            if peer is not asker:
                await self._cross(device, there, job.tree, spent)
        except BaseException:
            self.jobs.drop(job)  # it never arrived
            raise
        seconds, joules = energy.compute(peer.profile, job.skill.work(peer.cell.local, job.tree))
        spent[0] += Cost(joules=joules if peer.link else 0.0, dollars=0.0 if peer.link else self.prices.per_call)
        server = min(range(len(peer.servers)), key=peer.servers.__getitem__)
        job.finish = peer.servers[server] = max(self.clock.time(), peer.servers[server]) + seconds
        self.clock.call_at(job.finish, self.jobs.finish, job)  # it is done even if the asker has gone
        await self._until(job.finish)
        self.jobs.finish(job)
        if job.result is None:
            return Reply(peer.name, failure=job.failure)
        local, answer = job.result
        if peer is not asker:
            await self._cross(device, back, answer, spent)
        version = int((job.read or local.memory).get("version", 0))
        return Reply(peer.name, answer, version=version, metrics={"compute_seconds": seconds})

    async def _cross(self, device: _Member, direction: Direction, tree: Tree, spent: list[Cost]) -> None:
        """Move a tree over a device's link; each direction carries one message after the other."""
        assert device.link is not None
        nbytes = trees.size(trees.spec(tree))
        begin = max(self.clock.time(), device.free[direction])
        end = device.link.sent(begin, nbytes, direction)
        on_air = max(0.0, end - begin - device.link.rtt_seconds / 2)
        # The radio's tail is charged when it is next used; the first use stands in for the last one's.
        quiet = self.radio.tail_seconds if device.radio is None else max(0.0, begin - device.radio)
        device.free[direction] = begin + on_air  # the next message need not wait for this one to arrive
        device.radio = max(begin + on_air, device.radio or 0.0)
        if direction == "up":
            joules = energy.transfer_joules(self.radio, on_air, 0.0, quiet)
            spent[0] += Cost(up_bytes=nbytes, joules=joules, dollars=nbytes / 1e9 * self.prices.per_gigabyte_up)
        else:
            joules = energy.transfer_joules(self.radio, 0.0, on_air, quiet)
            spent[0] += Cost(down_bytes=nbytes, joules=joules, dollars=nbytes / 1e9 * self.prices.per_gigabyte_down)
        await self._until(end)

    async def _until(self, time: float) -> None:
        reached = self.clock.create_future()
        if time == float("inf"):  # a link that stays down: only a deadline ends the wait
            await reached
        timer = self.clock.call_at(time, reached.set_result, None)
        try:
            await reached
        finally:
            timer.cancel()

    # ------------------------------------------------------------------------------------------------ roles

    async def play(self, log: Callable[[Record], None], save: Callable[[], None]) -> None:
        """Run every role of every party to its end."""
        playing = [self._play(CLOUD, role, log, save) for role in self.cloud.roles]
        for role in self.device.roles:
            playing += [self._play(name, role, log, lambda: None) for name in self.fleet.names]
        await asyncio.gather(*playing)

    async def _play(self, name: str, role: Role, log: Callable[[Record], None], save: Callable[[], None]) -> None:
        member = self.member(name)
        member.held += 1
        known: dict[str, Any] = {"me": _Asked(self, member, name, {}), "local": member.cell.local}
        if name == CLOUD:
            known["fleet"] = _Everybody(self, member)
        else:
            known["cloud"] = _Asked(self, member, CLOUD, {})
        wanted = inspect.signature(role).parameters
        if missing := sorted(set(wanted) - set(known)):
            raise ConfigError(f"a role of {name} wants {', '.join(missing)}", f"it can have {', '.join(sorted(known))}")
        records: AsyncIterator[Record] = role(**{word: known[word] for word in wanted})
        async for record in records:
            log(record.at(self.clock.time(), name))
            save()
        member.held -= 1
        self._let_go(member)

    # ----------------------------------------------------------------------------------------------- saving

    @property
    def quiet(self) -> bool:
        """Whether nothing is in flight."""
        return not self.waits and not len(self.jobs)

    def remembered(self) -> Mapping[str, Mapping[str, Any]]:
        """What every party remembers that differs from how it began."""
        present = {name: member.cell.local.memory for name, member in self.members.items()}
        return {**{name: memory for name, (memory, _) in self.rest.items()}, **present}

    def state(self) -> Tree:
        """All that a resumed run needs."""
        parties: dict[str, Tree] = {}
        for name, (memory, radio) in self.rest.items():
            parties[name] = {"memory": memory, "radio": _seconds([radio])}
        for name, member in self.members.items():
            parties[name] = {
                "memory": member.cell.local.memory,
                "radio": _seconds([member.radio]),
                "servers": _seconds(member.servers),
                "free": _seconds([member.free["up"], member.free["down"]]),
            }
        return {"time": np.float64(self.clock.time()), "parties": parties}

    def _restore(self, state: Tree) -> None:
        for name, party in state["parties"].items():
            radio = None if np.isnan(party["radio"][0]) else float(party["radio"][0])
            if name != CLOUD:
                self.rest[name] = (party["memory"], radio)
            if "servers" in party:
                member = self.member(name)
                member.cell.local.memory = party["memory"]
                member.servers = [float(time) for time in party["servers"]]
                member.free = {"up": float(party["free"][0]), "down": float(party["free"][1])}


def _names(skills: Sequence[type[Skill]]) -> frozenset[str]:
    return frozenset(skill.__name__ for skill in skills)


def _seconds(times: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if time is None else time for time in times], np.float64)
