"""The simulated world: what an ask costs by hand, queues, deadlines, failures, and what roles can and cannot do."""

import asyncio
import gc
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.errors import ConfigError, DataError, Deadlock
from duetto.protocols import Coded
from duetto.simulation import energy
from duetto.simulation.engine import Log, simulate
from duetto.simulation.fleet import Fleet, fleet
from duetto.simulation.link import Link, Network, offline
from duetto.simulation.traces import constant, synthetic
from duetto.tree import Tree
from duetto.types import Cost, Group, Key, Local, Party, Peer, Record, Reply, Skill, Work

PHONE, CLOUD = energy.profiles()["mid-phone"], energy.profiles()["cloud-gpu"]
RADIO, PRICES = energy.radios()["4g"], energy.prices()["default"]
LINK = Link(constant(8), constant(16), 0.1)
NETWORK = Network("test", (LINK,), "4g")
FLOPS = 6e9  # 0.2 s on the phone, 2 ms in the cloud


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(caplog: pytest.LogCaptureFixture):
    yield
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


@dataclass(frozen=True)
class Sum(Skill):
    """The sum of ``x``, by hard work."""

    flops: float = FLOPS

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        if (tree["x"] < 0).any():
            raise DataError(f"{sender} sent negative numbers")
        return local, {"sum": tree["x"].sum(), "bias": np.float64(local.memory.get("bias", 0))}

    def work(self, local: Local, tree: Tree) -> Work:
        return Work(flops=self.flops)

    def group(self, local: Local, tree: Tree) -> Any:
        return "sums"


@dataclass(frozen=True)
class Note(Sum):
    """Remembers who asked, in order."""

    @property
    def writes(self) -> bool:
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        before = local.memory.get("notes", np.zeros(0, np.int64))
        return local.remembering(notes=np.append(before, np.int64(tree["x"].sum()))), {"before": before}


SKILLS = (Sum, Note)


def people(*names: str, **more: Any) -> Fleet:
    return fleet("mid-phone", names or ("ann",), **more)


def lived(role: Callable[..., Any], *, device: Party | None = None, network: Network = NETWORK, **more: Any) -> Log:
    """A role of the cloud, over devices that offer all skills; ann's where ``device`` is given."""
    return simulate(
        fleet=more.pop("fleet", people()),
        device=device or Party(skills=SKILLS),
        cloud=Party(roles=(role,), skills=SKILLS),
        network=network,
        **more,
    )


def heard(ask: Callable[..., Any], *, by: str, **more: Any) -> list[Any]:
    """What ``ask(me, peer)`` returns, where ann asks the cloud or the cloud asks ann."""
    said: list[Any] = []

    async def device(me: Peer, cloud: Peer) -> AsyncIterator[Record]:
        said.append(await ask(me, cloud))
        yield Record("asked")

    async def cloud(me: Peer, fleet: Group) -> AsyncIterator[Record]:
        said.append(await ask(me, fleet.peer("ann")))
        yield Record("asked")

    settings: dict[str, Any] = {"fleet": people(), "network": NETWORK, **more}
    simulate(
        device=Party((device,) if by == "ann" else (), SKILLS),
        cloud=Party((cloud,) if by == "cloud" else (), SKILLS),
        **settings,
    )
    return said


def crossing(link: Link, begin: float, nbytes: int, way: Any) -> tuple[float, float]:
    """When it arrives, and how long the radio is on air."""
    arrives = link.sent(begin, nbytes, way)
    return arrives, arrives - begin - link.rtt_seconds / 2


X = {"x": np.arange(50_000.0)}
OUT, BACK = len(trees.encode(X)), len(trees.encode({"sum": X["x"].sum(), "bias": np.float64(0)}))
VARYING = Link(synthetic(6, seed=3), synthetic(20, seed=4), 0.08, loss=0.01)


def close(cost: Cost, expected: Cost) -> None:
    assert (cost.up_bytes, cost.down_bytes) == (expected.up_bytes, expected.down_bytes)
    assert cost.seconds == pytest.approx(expected.seconds, rel=1e-9)
    assert cost.joules == pytest.approx(expected.joules, rel=1e-9)
    assert cost.dollars == pytest.approx(expected.dollars, rel=1e-9)


@pytest.mark.parametrize("link", [LINK, VARYING, offline(LINK, 0.1, 5.0)])
def test_what_a_device_pays_to_ask_the_cloud(link: Link):
    network = Network("test", (link,), "4g")
    link = network.link((7, "link", "ann"))  # begun where the world begins it
    arrives, up = crossing(link, 0.0, OUT, "up")
    seconds, _ = energy.compute(CLOUD, Work(flops=FLOPS))
    ready = arrives + seconds
    done, down = crossing(link, ready, BACK, "down")
    quiet = ready - up  # since the radio was last on air
    joules = energy.transfer_joules(RADIO, up, 0, RADIO.tail_seconds) + energy.transfer_joules(RADIO, 0, down, quiet)
    dollars = PRICES.per_call + PRICES.per_cloud_second * seconds
    dollars += OUT / 1e9 * PRICES.per_gigabyte_up + BACK / 1e9 * PRICES.per_gigabyte_down

    (reply,) = heard(lambda me, peer: peer.ask(Sum(), X, key=(1,)), by="ann", network=network, seed=7)
    assert reply.failure is None
    assert reply.sender == "cloud"
    assert reply.tree["sum"] == X["x"].sum()
    close(reply.cost, Cost(done, OUT, BACK, joules, dollars))


@pytest.mark.parametrize("link", [LINK, VARYING])
def test_what_the_cloud_pays_to_ask_a_device(link: Link):
    network = Network("test", (link,), "4g")
    link = network.link((7, "link", "ann"))
    arrives, down = crossing(link, 0.0, OUT, "down")
    seconds, computing = energy.compute(PHONE, Work(flops=FLOPS))
    ready = arrives + seconds
    done, up = crossing(link, ready, BACK, "up")
    joules = energy.transfer_joules(RADIO, 0, down, RADIO.tail_seconds) + computing
    joules += energy.transfer_joules(RADIO, up, 0, ready - down)
    dollars = BACK / 1e9 * PRICES.per_gigabyte_up + OUT / 1e9 * PRICES.per_gigabyte_down

    (reply,) = heard(lambda me, peer: peer.ask(Sum(), X, key=(1,)), by="cloud", network=network, seed=7)
    assert reply.tree["sum"] == X["x"].sum()
    close(reply.cost, Cost(done, BACK, OUT, joules, dollars))  # up is device to cloud whoever asked


def test_asking_oneself_costs_compute_and_no_bytes():
    (reply,) = heard(lambda me, peer: me.ask(Sum(), X, key=(1,)), by="ann")
    seconds, joules = energy.compute(PHONE, Work(flops=FLOPS))
    close(reply.cost, Cost(seconds, joules=joules))
    (reply,) = heard(lambda me, peer: me.ask(Sum(), X, key=(1,)), by="cloud")
    seconds, _ = energy.compute(CLOUD, Work(flops=FLOPS))
    close(reply.cost, Cost(seconds, dollars=seconds * PRICES.per_cloud_second))


def test_an_answer_says_from_which_version_it_came():
    memory = {"version": np.int64(4), "bias": np.float64(1)}
    (reply,) = heard(lambda me, peer: peer.ask(Sum(), X, key=()), by="cloud", fleet=people(memory=memory))
    assert reply.version == 4
    assert reply.metrics == {"compute_seconds": energy.compute(PHONE, Work(flops=FLOPS))[0]}


SMALL = {"x": np.zeros(0)}


def both(peers: Sequence[Peer], *trees_: Tree, **more: Any) -> Any:
    pairs = enumerate(zip(peers, trees_, strict=True))
    return asyncio.gather(*(peer.ask(Sum(), tree, key=(i,), **more) for i, (peer, tree) in pairs))


def test_a_busy_device_is_queued_for():
    ((one, two),) = heard(lambda me, peer: both([peer, peer], SMALL, SMALL), by="cloud")
    seconds, _ = energy.compute(PHONE, Work(flops=FLOPS))
    between = trees.size(trees.spec(SMALL)) * 8e-6 / 16  # the second message leaves after the first
    assert between < seconds
    assert two.cost.seconds - one.cost.seconds == pytest.approx(seconds)


@pytest.mark.parametrize("servers", [1, 2, 3])
def test_the_cloud_serves_as_many_at_once_as_it_has_servers(servers: int):
    work, times = Sum(flops=3e13), {}  # 10 s
    names = ("ann", "bob", "cem", "dia", "eve")

    async def role(me: Peer, cloud: Peer) -> AsyncIterator[Record]:
        reply = await cloud.ask(work, SMALL, key=())
        times[me.name] = reply.cost.seconds
        yield Record("asked")

    simulate(fleet=people(*names), device=role, cloud=Party(skills=SKILLS), network=NETWORK, servers=servers)
    seconds, _ = energy.compute(CLOUD, Work(flops=3e13))
    alone = heard(lambda me, peer: peer.ask(work, SMALL, key=()), by="ann")[0].cost.seconds
    expected = [alone + (i // servers) * seconds for i in range(5)]
    assert [times[name] for name in names] == pytest.approx(expected)


def test_a_direction_carries_one_message_after_the_other_and_the_two_directions_do_not_wait():
    ((one, two),) = heard(lambda me, peer: both([peer, peer], X, X), by="ann")
    assert two.cost.seconds - one.cost.seconds == pytest.approx(OUT * 8e-6 / 8)  # not behind the half round trip
    quiet = one.cost.joules - two.cost.joules  # back to back: the tail before it is the first one's
    assert quiet == pytest.approx(RADIO.tail_seconds * RADIO.tail_watts, rel=0.05)

    async def ask(me: Peer, peer: Peer) -> Any:
        """Down while up: the answer to a small message comes while a large one still goes up."""
        return await asyncio.gather(peer.ask(Sum(), SMALL, key=(0,)), peer.ask(Sum(), X, key=(1,)))

    ((first, _),) = heard(ask, by="ann")
    (alone,) = heard(lambda me, peer: peer.ask(Sum(), SMALL, key=()), by="ann")
    assert first.cost.seconds == pytest.approx(alone.cost.seconds)


def test_a_tail_is_charged_for_as_long_as_the_radio_was_quiet():
    async def ask(me: Peer, peer: Peer) -> list[Reply]:
        replies = []
        for pause in (0, 3, 60):
            await asyncio.sleep(pause)
            replies.append(await peer.ask(Sum(), X, key=(pause,)))
        return replies

    (replies,) = heard(ask, by="ann")
    _, up = crossing(LINK, 0, OUT, "up")
    _, down = crossing(LINK, 0, BACK, "down")
    seconds, _ = energy.compute(CLOUD, Work(flops=FLOPS))
    answered = energy.transfer_joules(RADIO, 0, down, LINK.rtt_seconds / 2 + seconds)
    for reply, quiet in zip(replies, (1e9, 3 + LINK.rtt_seconds / 2, 60 + LINK.rtt_seconds / 2), strict=True):
        assert reply.cost.joules == pytest.approx(energy.transfer_joules(RADIO, up, 0, quiet) + answered)


# ------------------------------------------------------------------------------------------------------ deadlines


def test_a_deadline_in_the_middle_of_the_way_there():
    at = OUT * 8e-6 / 8 / 2
    (reply,) = heard(lambda me, peer: peer.ask(Sum(), X, key=(), deadline=at), by="ann")
    assert reply.tree is None
    assert reply.failure == f"no answer within {at:g} s"
    assert reply.cost.seconds == at  # exactly
    assert abs(reply.cost.up_bytes - OUT / 2) <= 1
    assert reply.cost.down_bytes == 0
    assert reply.cost.joules == pytest.approx(energy.transfer_joules(RADIO, at, 0, RADIO.tail_seconds))
    assert reply.cost.dollars == pytest.approx(OUT / 2 / 1e9 * PRICES.per_gigabyte_up)


def test_a_deadline_while_the_peer_works():
    work = Sum(flops=3e13)

    async def ask(me: Peer, peer: Peer) -> Reply:
        await asyncio.sleep(0.1)
        return await peer.ask(work, X, key=(), deadline=1.7)

    (reply,) = heard(ask, by="ann")
    assert reply.failure == "no answer within 1.7 s"
    assert reply.cost.seconds == 0.1 + 1.7 - 0.1
    up = OUT * 8e-6 / 8
    joules = energy.transfer_joules(RADIO, up, 0, RADIO.tail_seconds)
    seconds, _ = energy.compute(CLOUD, Work(flops=3e13))
    close(
        replace(reply.cost, seconds=0.0),
        Cost(0.0, OUT, 0, joules, PRICES.per_call + seconds * PRICES.per_cloud_second),
    )


@pytest.mark.parametrize("way", ["there", "work", "back"])
def test_an_answer_at_the_very_deadline_is_too_late_and_leaves_no_mess(way: str):
    """The deadline falls on the moment at which a leg of the way ends."""
    link = NETWORK.link((0, "link", "ann"))
    arrives, _ = crossing(link, 0.0, OUT, "up")
    seconds, _ = energy.compute(CLOUD, Work(flops=FLOPS))
    done, _ = crossing(link, arrives + seconds, BACK, "down")
    at = {"there": arrives, "work": arrives + seconds, "back": done}[way]
    (reply,) = heard(lambda me, peer: peer.ask(Sum(), X, key=(), deadline=at), by="ann")
    assert (reply.tree, reply.cost.seconds) == (None, at)


def test_the_work_goes_on_without_the_asker_and_shows_at_its_finish():
    work = Note(flops=1.5e11)  # 5 s on the phone
    arrives, _ = crossing(LINK, 0, trees.size(trees.spec(SMALL)), "down")
    finish = arrives + energy.compute(PHONE, Work(flops=1.5e11))[0]
    seen: dict[float, int] = {}

    async def device(local: Local) -> AsyncIterator[Record]:
        loop = asyncio.get_running_loop()
        for time in (2.0, np.nextafter(finish, 0), np.nextafter(finish, 10)):
            moment = loop.create_future()
            loop.call_at(time, moment.set_result, None)
            await moment
            seen[float(loop.time())] = len(local.memory.get("notes", []))
        yield Record("looked")

    async def cloud(fleet: Group) -> AsyncIterator[Record]:
        reply = await fleet.peer("ann").ask(work, SMALL, key=(), deadline=1.0)
        yield Record("asked", metrics={"failure": reply.failure or ""})

    log = lived(cloud, device=Party((device,), SKILLS))
    assert log.records[0].metrics == {"failure": "no answer within 1 s"}
    assert list(seen.values()) == [0, 0, 1]
    assert log.memory["ann"]["notes"].tolist() == [0]


def test_a_device_that_nobody_needs_any_more_is_let_go_even_after_a_deadline():
    loads: list[str] = []

    def data(name: str) -> None:
        loads.append(name)

    async def cloud(fleet: Group) -> AsyncIterator[Record]:
        peer = fleet.peer("ann")
        await peer.ask(Note(flops=1.5e11), SMALL, key=(0,), deadline=1.0)
        await asyncio.sleep(3)
        await peer.ask(Note(flops=0), SMALL, key=(1,))  # waits behind the first
        await asyncio.sleep(60)
        reply = await peer.ask(Note(), SMALL, key=(2,))
        yield Record("asked", metrics={"before": len(reply.tree["before"])})

    log = lived(cloud, fleet=people(data=data))
    assert log.records[0].metrics == {"before": 2}  # the memory of a device at rest is kept
    assert loads == ["ann", "ann"]  # it was at rest in between


def test_after_a_message_was_given_up_the_radio_is_quiet():
    async def ask(me: Peer, peer: Peer) -> list[Reply]:
        replies = [await peer.ask(Sum(), X, key=(0,), deadline=0.1)]
        await asyncio.sleep(3)
        return [*replies, await peer.ask(Sum(), X, key=(1,), deadline=0.1)]

    ((first, second),) = heard(ask, by="ann")
    assert first.cost.joules == pytest.approx(energy.transfer_joules(RADIO, 0.1, 0, RADIO.tail_seconds))
    assert second.cost.joules == pytest.approx(energy.transfer_joules(RADIO, 0.1, 0, 3.0))


DEAD = Network("dead", (offline(LINK, 0.0),), "4g")


def test_a_link_that_stays_down_ends_at_the_deadline_or_never():
    async def ask(me: Peer, peer: Peer) -> list[Reply]:
        return [await peer.ask(Sum(), X, key=(i,), deadline=2.0) for i in range(2)]

    ((one, two),) = heard(ask, by="ann", network=DEAD)
    assert (one.cost.seconds, two.cost.seconds) == (2.0, 2.0)
    assert (one.cost.up_bytes, two.cost.up_bytes) == (0, 0)
    assert one.cost.joules == pytest.approx(energy.transfer_joules(RADIO, 2.0, 0, RADIO.tail_seconds))
    assert two.cost.joules == pytest.approx(energy.transfer_joules(RADIO, 2.0, 0, 0))
    with pytest.raises(Deadlock, match=r"deadlock at 0 s: ann waits for cloud to Sum"):
        heard(lambda me, peer: peer.ask(Sum(), X, key=()), by="ann", network=DEAD)


def test_messages_given_up_in_an_outage_do_not_stand_in_the_way_after_it():
    network = Network("test", (offline(LINK, 0.0, 100.0),), "4g")

    async def ask(me: Peer, peer: Peer) -> Reply:
        await asyncio.gather(*(peer.ask(Sum(), X, key=(i,), deadline=2.0 + i) for i in range(20)))
        await asyncio.sleep(100 - asyncio.get_running_loop().time())
        return await peer.ask(Sum(), X, key=(21,))

    (reply,) = heard(ask, by="ann", network=network)
    (alone,) = heard(lambda me, peer: peer.ask(Sum(), X, key=(21,)), by="ann")
    assert reply.cost.seconds == pytest.approx(alone.cost.seconds)


def test_a_deadlock_of_many_is_told_in_one_line():
    async def role(cloud: Peer) -> AsyncIterator[Record]:
        await cloud.ask(Sum(), SMALL, key=())
        yield Record("asked")

    with pytest.raises(Deadlock) as caught:
        simulate(fleet=fleet("mid-phone", 30), device=role, cloud=Party(skills=SKILLS), network=DEAD)
    assert "user-0 waits for cloud to Sum" in str(caught.value)
    assert "and 25 more" in str(caught.value)


# -------------------------------------------------------------------------------------------------------- failures


def test_what_nobody_offers_is_a_failure_and_a_codec_gives_no_right():
    @dataclass(frozen=True)
    class Secret(Sum):
        pass

    async def ask(me: Peer, peer: Peer) -> list[Reply]:
        return [await peer.ask(skill, X, key=()) for skill in (Secret(), Coded(Secret()))]

    for by, peer in (("ann", "cloud"), ("cloud", "ann")):
        (replies,) = heard(ask, by=by)
        assert [(reply.failure, reply.tree) for reply in replies] == [(f"{peer} does not offer Secret", None)] * 2


def test_a_skill_that_refuses_is_a_failure_and_only_of_the_guilty_one():
    async def cloud(fleet: Group) -> AsyncIterator[Record]:
        peers = [fleet.peer(name) for name in fleet.names]
        sent = [{"x": np.array([float(i) if name != "bob" else -1.0])} for i, name in enumerate(fleet.names)]
        for reply in await both(peers, *sent):
            total = -1.0 if reply.tree is None else float(reply.tree["sum"])
            yield Record(reply.sender, metrics={"failure": reply.failure or "", "sum": total})

    log = lived(cloud, fleet=people("ann", "bob", "cem"))
    failures = {record.protocol: record.metrics["failure"] for record in log.records}
    assert failures == {"ann": "", "bob": "cloud sent negative numbers", "cem": ""}
    assert [record.metrics["sum"] for record in log.records] == [0.0, -1.0, 2.0]


@dataclass(frozen=True)
class Unworkable(Sum):
    def work(self, local: Local, tree: Tree) -> Work:
        raise DataError("cannot tell how much work that is")


@dataclass(frozen=True)
class Broken(Sum):
    fault: type[Exception] = ZeroDivisionError

    @property
    def writes(self) -> bool:
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        raise self.fault("a fault of the code")


def test_work_that_cannot_be_told_is_a_failure_too_and_nothing_stays_in_flight():
    saves: list[Any] = []

    async def cloud(fleet: Group) -> AsyncIterator[Record]:
        reply = await fleet.peer("ann").ask(Unworkable(), X, key=())
        yield Record("asked", metrics={"failure": reply.failure or ""})

    log = lived(cloud, device=Party(skills=(Unworkable,)), on_save=saves.append)
    assert log.records[0].metrics["failure"] == "cannot tell how much work that is"
    assert len(saves) == 1


@pytest.mark.parametrize("fault", [ZeroDivisionError, TimeoutError])
@pytest.mark.parametrize("deadline", [None, 0.5, 1e6])
def test_other_exceptions_come_out_of_the_world_even_when_the_asker_has_gone(
    fault: type[Exception], deadline: float | None
):
    async def cloud(fleet: Group) -> AsyncIterator[Record]:
        await fleet.peer("ann").ask(Broken(3e10, fault), SMALL, key=(), deadline=deadline)
        await asyncio.sleep(10)
        yield Record("never")

    with pytest.raises(fault, match="a fault of the code"):
        lived(cloud, device=Party(skills=(Broken,)))


def test_a_role_that_raises_ends_the_world_with_its_own_exception():
    async def device(me: Peer, cloud: Peer) -> AsyncIterator[Record]:
        yield Record("began")
        await cloud.ask(Sum(), X, key=())
        if me.name == "bob":
            raise KeyError("bob's own")
        await asyncio.sleep(5)
        yield Record("never")

    records: list[Record] = []
    with pytest.raises(KeyError, match="bob's own"):
        simulate(
            fleet=people("ann", "bob"),
            device=device,
            cloud=Party(skills=SKILLS),
            network=NETWORK,
            on_record=records.append,
        )
    assert [record.protocol for record in records] == ["began", "began"]


def test_what_on_record_raises_comes_out():
    async def cloud(fleet: Group) -> AsyncIterator[Record]:
        yield Record("one")
        yield Record("two")

    def full(record: Record) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        lived(cloud, on_record=full)


# ----------------------------------------------------------------------------------------------------------- roles


def test_roles_get_only_what_they_name_and_nothing_that_is_not_theirs():
    got: dict[str, dict[str, Any]] = {}

    async def device(me: Peer, local: Local, cloud: Peer, factor: float = 2.0) -> AsyncIterator[Record]:
        got["device"] = {"me": me.name, "data": local.data, "cloud": cloud.name, "factor": factor}
        yield Record("x")

    async def nothing() -> AsyncIterator[Record]:
        yield Record("y")

    async def cloud(fleet: Group, me: Peer) -> AsyncIterator[Record]:
        got["cloud"] = {"me": me.name, "fleet": list(fleet.names), "n": len(fleet), **fleet.peer("ann").traits}
        yield Record("z")

    log = simulate(fleet=people(data=str.upper), device=Party((device, nothing)), cloud=cloud, network=NETWORK)
    assert got["device"] == {"me": "ann", "data": "ANN", "cloud": "cloud", "factor": 2.0}
    assert got["cloud"] == {"me": "cloud", "fleet": ["ann"], "n": 1, "examples": 1, "flops": PHONE.flops}
    assert {(record.protocol, record.party) for record in log.records} == {("x", "ann"), ("y", "ann"), ("z", "cloud")}

    async def greedy(fleet: Group) -> AsyncIterator[Record]:
        yield Record("never")

    with pytest.raises(ConfigError, match="a role of ann wants fleet"):
        simulate(fleet=people(), device=greedy, network=NETWORK)
    with pytest.raises(ConfigError, match="a role of cloud wants cloud"):
        simulate(fleet=people(), cloud=device, network=NETWORK)


def test_a_stranger_cannot_be_asked():
    async def cloud(fleet: Group) -> AsyncIterator[Record]:
        await fleet.peer("zoe").ask(Sum(), X, key=())
        yield Record("never")

    with pytest.raises(ConfigError, match="'zoe'"):
        lived(cloud)


@pytest.mark.parametrize(
    "bad",
    [
        {"network": "no-such-network"},
        {"network": Network("n", (LINK,), "no-such-radio")},
        {"cloud_profile": "no-such-profile"},
        {"prices": "no-such-prices"},
        {"servers": 0},
        {"fleet": people("ann", "cloud")},
    ],
)
def test_a_setting_that_cannot_be_met_is_an_error_before_anything_runs(bad: dict[str, Any]):
    with pytest.raises(ConfigError):
        simulate(**{"fleet": people(), "network": NETWORK, **bad})


def test_roles_interleave_and_records_tell_time_party_and_user():
    async def device(me: Peer) -> AsyncIterator[Record]:
        for step in range(3):
            await asyncio.sleep(2)
            yield Record("device", step)

    async def cloud() -> AsyncIterator[Record]:
        for step in range(2):
            await asyncio.sleep(3)
            yield Record("cloud", step, user="ann")

    log = simulate(fleet=people("ann", "bob"), device=device, cloud=cloud, network=NETWORK)
    told = [(record.time, record.party, record.user, record.step) for record in log.records]
    assert told == [
        (2, "ann", "ann", 0), (2, "bob", "bob", 0), (3, "cloud", "ann", 0), (4, "ann", "ann", 1), (4, "bob", "bob", 1),
        (6, "cloud", "ann", 1), (6, "ann", "ann", 2), (6, "bob", "bob", 2),
    ]  # fmt: skip
    assert log.seconds == 6


def test_a_party_serves_while_its_role_waits_and_the_role_sees_what_was_written():
    async def device(cloud: Peer) -> AsyncIterator[Record]:
        await cloud.ask(Note(), {"x": np.array([7.0])}, key=())
        yield Record("told")

    async def cloud(local: Local) -> AsyncIterator[Record]:
        await asyncio.sleep(30)
        yield Record("heard", metrics={"note": int(local.memory["notes"][0])})

    log = simulate(fleet=people(), device=device, cloud=Party((cloud,), (Note,)), network=NETWORK)
    assert [record.metrics for record in log.records] == [{}, {"note": 7}]
    assert log.memory["cloud"]["notes"].tolist() == [7]


def test_each_device_writes_its_own_memory_and_only_who_changed_is_remembered():
    async def cloud(fleet: Group) -> AsyncIterator[Record]:
        for i, name in enumerate(fleet.names[:2]):
            await fleet.peer(name).ask(Note(), {"x": np.array([float(i)])}, key=(i,))
        await fleet.peer("cem").ask(Sum(), SMALL, key=())  # reads
        yield Record("asked")

    first = {"bias": np.float64(1)}
    log = lived(cloud, fleet=people("ann", "bob", "cem", "dia", memory=first))
    assert {name: memory["notes"].tolist() for name, memory in log.memory.items()} == {"ann": [0], "bob": [1]}
    assert first == {"bias": 1}


@dataclass(frozen=True)
class Counted(Sum):
    batches: list[int] = field(default_factory=list, compare=False)

    def many(self, locals: Any, trees: Any, keys: Any, senders: Any) -> list[tuple[Local, Tree]]:
        self.batches.append(len(trees))
        return super().many(locals, trees, keys, senders)


def test_a_cohort_is_one_call_and_gives_what_one_by_one_gives():
    names = [f"u{i}" for i in range(9)]
    sent = [{"x": np.full(3, float(i))} for i in range(9)]

    def run(skill: Skill, at_once: bool) -> list[float]:
        sums: list[float] = []

        async def cloud(fleet: Group) -> AsyncIterator[Record]:
            asks = [fleet.peer(name).ask(skill, tree, key=(name,)) for name, tree in zip(names, sent, strict=True)]
            replies = await asyncio.gather(*asks) if at_once else [await ask for ask in asks]
            sums.extend(float(reply.tree["sum"]) for reply in replies)
            yield Record("asked")

        lived(cloud, device=Party(skills=(Counted,)), fleet=people(*names))
        return sums

    together, apart = Counted(), Counted()
    assert run(together, True) == run(apart, False) == [3.0 * i for i in range(9)]
    assert together.batches == [9]
    assert apart.batches == [1] * 9


def test_writes_of_many_at_the_cloud_run_in_the_order_of_their_finish():
    """A slow one that came first, on one server, and quick ones that come and go meanwhile, on the other."""
    seen = itertools.count()

    async def device(me: Peer, cloud: Peer) -> AsyncIterator[Record]:
        slow = me.name == "ann"
        await asyncio.sleep(0 if slow else 1 + next(seen))
        number = np.array([float(me.name != "ann") * asyncio.get_running_loop().time() // 1])
        await cloud.ask(Note(3e13 if slow else 0), {"x": number}, key=())
        yield Record("told")

    log = simulate(
        fleet=people("ann", "bob", "cem", "dia"),
        device=device,
        cloud=Party(skills=(Note,)),
        network=NETWORK,
        servers=2,
    )
    assert log.memory["cloud"]["notes"].tolist() == [1, 2, 3, 0]
    assert [record.party for record in log.records] == ["bob", "cem", "dia", "ann"]
