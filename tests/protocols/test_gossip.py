"""Gossip on a problem whose every number numpy knows, and on a complete graph against federated averaging."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.aggregation import Gate, Mean
from duetto.algorithms import fedavg
from duetto.codecs import Feedback, Quantise, TopK, Zstd
from duetto.errors import ConfigError, DataError
from duetto.models import Mlp
from duetto.protocols import rounds
from duetto.protocols.gossip import Tell, gossip
from duetto.protocols.graphs import complete, metropolis, ring, torus
from duetto.simulation.engine import Log, simulate
from duetto.simulation.fleet import fleet
from duetto.tree import Tree
from duetto.types import Chain, Key, Local, Party, Peer, Record, Role, Rows, Skill, Work

LR = 0.5
USERS = [f"u{i}" for i in range(6)]
START = {"w": np.array([10.0, -10.0, 0.0])}
POINTS = {name: np.random.default_rng(i).normal(i, 1, (2 + i, 3)) for i, name in enumerate(USERS)}


@dataclass(frozen=True)
class Pull(Skill):
    """One step from the parameters towards the mean of the data; ``flops`` makes it slow, ``bad`` users spoil it."""

    flops: float = 1e9
    bad: tuple[str, ...] = ()

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        if sender in self.bad:
            raise DataError("no data today", "wait")
        delta = LR * (local.data.mean(axis=0) - tree["params"]["w"])
        return local, {"delta": {"w": delta}, "weight": np.float64(len(local.data)), "metrics": {"loss": 2.0}}

    def work(self, local: Local, tree: Tree) -> Work:
        return Work(self.flops)


@dataclass(frozen=True)
class Once(Skill):
    """A step by the data at the start, and none later."""

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        return local, {"delta": {"w": local.data[0] * (key[2] == 0)}, "weight": np.float64(1), "metrics": {}}


def gossiped(graph: Any, client: Any = Pull(), steps: int = 5, **more: Any) -> Log:
    """A run of gossip in a fleet of phones."""
    given: dict[str, Any] = {"weights": metropolis(graph), "aggregator": Mean(), "gate": Gate(norm=None), **more}
    role = gossip(client, START, steps=steps, **given)
    everyone = fleet("phones", USERS, data=POINTS.__getitem__)
    return simulate(fleet=everyone, device=Party((role,), (Pull, Tell)), neighbours=graph)


def by_hand(graph: Any, steps: int, silent: tuple[str, ...] = ()) -> np.ndarray:
    """[users, 3] after so many steps: train, then ``W @ models``; who is silent does not train."""
    weights = metropolis(graph)
    w = np.array([[weights[a].get(b, 0.0) for b in USERS] for a in USERS])
    moves = np.array([[0.0 if name in silent else LR] for name in USERS])
    means, models = np.array([POINTS[name].mean(axis=0) for name in USERS]), np.tile(START["w"], (6, 1))
    for _ in range(steps):
        models = w @ (models + moves * (means - models))
    return models


def models(log: Log) -> np.ndarray:
    """[users, 3]."""
    return np.array([log.memory[name]["params"]["w"] for name in USERS])


@pytest.mark.parametrize("graph", [ring(USERS), complete(USERS)], ids=["ring", "complete"])
def test_models_are_trained_and_mixed_by_the_weights(graph: Any) -> None:
    """Devices of unlike speed; each round is nevertheless that of its number."""
    log = gossiped(graph, measure=lambda params: {"first": float(params["w"][0])}, every=2)
    np.testing.assert_allclose(models(log), by_hand(graph, 5), rtol=1e-12)
    assert {(record.protocol, record.metrics["late"]) for record in log.records} == {("gossip", 0)}
    mine = [record for record in log.records if record.party == "u2"]
    assert [record.step for record in mine] == list(range(5))
    assert [("first" in record.metrics) for record in mine] == [False, True, False, True, True]
    assert mine[-1].metrics["first"] == models(log)[2, 0]
    assert {record.metrics["loss"] for record in mine} == {2.0}
    assert log.memory["u0"].keys() == {"params", "gossip"}


def test_a_client_may_change_from_step_to_step() -> None:
    """Nobody trains in the first two rounds of five, in which models are all the same."""
    log = gossiped(ring(USERS), lambda step: Pull(bad=tuple(USERS) if step < 2 else ()))
    np.testing.assert_allclose(models(log), by_hand(ring(USERS), 3), rtol=1e-12)


def test_a_message_costs_both_ends_and_training_costs_no_bytes() -> None:
    message = trees.size(trees.spec({"step": np.int64(0), "params": START})) + trees.size({})  # and what is answered
    for graph in (ring(USERS), complete(USERS)):
        for record in gossiped(graph, steps=2).records:
            wide = message * len(graph[record.party])
            assert (record.cost.up_bytes, record.cost.down_bytes) == (wide, wide)
            assert record.cost.seconds > 0


def test_a_codec_makes_messages_smaller_and_models_coarser() -> None:
    plain, coded = (gossiped(ring(USERS), codec=codec) for codec in (Chain(), Chain((Quantise(8), Zstd()))))
    assert 0 < np.abs(models(plain) - models(coded)).max() < 0.5
    whole = gossiped(ring(USERS), codec=Zstd())
    np.testing.assert_array_equal(models(plain), models(whole))


def test_differences_that_lose_nothing_and_gamma_1_are_plain_gossip() -> None:
    log = gossiped(ring(USERS), gamma=1.0, codec=Zstd())
    np.testing.assert_allclose(models(log), by_hand(ring(USERS), 5), rtol=1e-12)


def test_what_a_codec_loses_is_told_later() -> None:
    """CHOCO-SGD by hand: public copies, the difference coded, a part of the way towards the mix of copies."""
    graph, gamma = ring(USERS), 0.4
    weights = metropolis(graph)
    w = np.array([[weights[a].get(b, 0.0) for b in USERS] for a in USERS])
    means = np.array([POINTS[name].mean(axis=0) for name in USERS])
    now, public = np.tile(START["w"], (6, 1)), np.tile(START["w"], (6, 1))
    for _ in range(5):
        now = now + LR * (means - now)
        moved = now - public
        largest = np.abs(moved) == np.abs(moved).max(1, keepdims=True)
        public = public + np.where(largest, moved, 0)
        now = now + gamma * (w @ public - public)
    log = gossiped(graph, gamma=gamma, codec=TopK(1 / 3))
    np.testing.assert_allclose(models(log), now, rtol=1e-12)
    kept = np.array([log.memory[name]["gossip"]["public"]["w"] for name in USERS])
    np.testing.assert_allclose(kept, public, rtol=1e-12)
    for name in USERS:
        for other in graph[name]:
            heard = log.memory[name]["gossip"]["heard"][other]["4"]["w"]
            np.testing.assert_array_equal(heard, log.memory[other]["gossip"]["public"]["w"])


def test_coarse_differences_come_to_agree_where_coarse_models_do_not() -> None:
    """Nobody trains: plain gossip of the largest of three numbers loses the others, differences do not."""
    graph, points = complete(USERS), {name: np.full((1, 3), float(i)) for i, name in enumerate(USERS)}

    def spread(gamma: float | None) -> float:
        more: dict[str, Any] = {"codec": TopK(1 / 3), "gamma": gamma}
        role = gossip(
            Once(), START, weights=metropolis(graph), aggregator=Mean(), gate=Gate(norm=None), steps=40, **more
        )
        everyone = fleet("phones", USERS, data=points.__getitem__)
        log = simulate(fleet=everyone, device=Party((role,), (Once, Tell)), neighbours=graph)
        want = START["w"] + np.mean([points[name][0] for name in USERS], axis=0)
        return float(np.abs(models(log) - want).max())

    assert spread(0.3) < 0.01
    assert spread(None) > 1


def test_who_missed_a_difference_is_told_the_whole_copy() -> None:
    """u1 forgets what it heard of u0 after the first round: the next difference is refused, then the copy comes."""
    graph = ring(USERS)

    async def role(me: Peer, neighbours: Mapping[str, Peer], local: Local) -> AsyncIterator[Record]:
        own = gossip(
            Pull(),
            START,
            weights=metropolis(graph),
            aggregator=Mean(),
            gate=Gate(norm=None),
            steps=4,
            codec=Quantise(8),
            gamma=1.0,
            deadline=5.0,
        )
        async for record in own(me=me, neighbours=neighbours, local=local):
            if (me.name, record.step) == ("u1", 0):
                state = local.memory["gossip"]
                forgot = {**state["heard"], "u0": {}}
                local.memory = {**local.memory, "gossip": {**state, "heard": forgot}}
            yield record

    everyone = fleet("phones", USERS, data=POINTS.__getitem__)
    log = simulate(fleet=everyone, device=Party((role,), (Pull, Tell)), neighbours=graph)
    late = [record.metrics["late"] for record in log.records if record.party == "u1"]
    assert late == [0, 1, 0, 0]
    heard = log.memory["u1"]["gossip"]["heard"]["u0"]["3"]["w"]
    np.testing.assert_array_equal(heard, log.memory["u0"]["gossip"]["public"]["w"])


def test_who_cannot_train_still_mixes() -> None:
    log = gossiped(ring(USERS), Pull(bad=("u3",)))
    np.testing.assert_allclose(models(log), by_hand(ring(USERS), 5, ("u3",)), rtol=1e-12)
    told = {record.metrics.get("failures") for record in log.records if record.party == "u3"}
    assert told == {"u3: no data today: wait"}


@pytest.mark.parametrize("lost", ["last", "left out"])
def test_a_neighbour_that_is_gone_is_replaced_by_its_last_model_or_left_out(lost: str) -> None:
    """u5 leaves after its first round; nobody waits longer than the deadline."""
    graph = complete(USERS)

    def lasting(steps: int) -> Role:
        return gossip(
            Pull(),
            START,
            weights=metropolis(graph),
            aggregator=Mean(),
            gate=Gate(norm=None),
            steps=steps,
            lost=lost,
            deadline=20.0,
        )

    async def role(me: Peer, neighbours: Mapping[str, Peer], local: Local) -> AsyncIterator[Record]:
        async for record in lasting(1 if me.name == "u5" else 3)(me=me, neighbours=neighbours, local=local):
            yield record

    everyone = fleet("phones", USERS, data=POINTS.__getitem__)
    log = simulate(fleet=everyone, device=Party((role,), (Pull, Tell)), neighbours=graph)
    means = np.array([POINTS[name].mean(axis=0) for name in USERS])
    first = START["w"] + LR * (means - START["w"])
    model = first.mean(axis=0)
    for _ in range(2):
        trained = model + LR * (means[:5] - model)
        model = (trained.sum(axis=0) + first[5]) / 6 if lost == "last" else trained.mean(axis=0)
    np.testing.assert_allclose(models(log)[:5], np.tile(model, (5, 1)), rtol=1e-12)
    assert {(record.step, record.metrics["late"]) for record in log.records} == {(0, 0), (1, 1), (2, 1)}
    assert 40 < log.seconds < 45


def test_a_model_that_the_gate_refuses_is_not_mixed() -> None:
    log = gossiped(ring(USERS), steps=1, gate=Gate(norm=1e-3))
    alone = np.array([START["w"] + LR * (POINTS[name].mean(axis=0) - START["w"]) for name in USERS])
    np.testing.assert_allclose(models(log), alone, rtol=1e-12)
    assert {record.metrics["heard"] for record in log.records} == {0}


@pytest.mark.parametrize("gamma", [None, 1.0])
def test_a_role_that_is_started_again_goes_on(gamma: float | None) -> None:
    graph = {name: tuple(other for other in USERS if other != name) for name in USERS}
    once = gossiped(graph, steps=5, gamma=gamma)
    half = gossiped(graph, steps=2, gamma=gamma)
    left = half.memory["u1"]
    assert int(left["gossip"]["step"]) == 2
    kept = trees.decode(trees.encode(left))  # on a complete graph all models are the same after a round
    more: dict[str, Any] = {"steps": 5, "lost": "left out", "gamma": gamma}
    role = gossip(Pull(), START, weights=metropolis(graph), aggregator=Mean(), gate=Gate(norm=None), **more)
    everyone = fleet("phones", USERS, data=POINTS.__getitem__, memory={**kept, "gossip": {"step": np.int64(2)}})
    rest = simulate(fleet=everyone, device=Party((role,), (Pull, Tell)), neighbours=graph)
    np.testing.assert_allclose(models(rest), models(once), rtol=1e-12)
    assert {record.step for record in rest.records} == {2, 3, 4}


def rows(user: str) -> Rows:
    """A small two-class problem."""
    draw = np.random.default_rng(USERS.index(user))
    x = draw.normal(size=(4 + 2 * USERS.index(user), 3)).astype(np.float32)
    return Rows(x, (x.sum(1) > 0.3 * USERS.index(user)).astype(np.int64))


def test_a_complete_graph_is_federated_averaging() -> None:
    """Limit law: the same steps, everybody counts the same; 1e-10 in float64."""
    net = Mlp((3,), 2, (4,))
    params = trees.map(lambda leaf: leaf.astype(np.float64), net.init(0))
    algorithm = replace(fedavg(net, params, lr=0.1, epochs=2, batch_size=2), aggregator=Mean(cap=1.0))
    everyone = fleet("phones", USERS, data=rows)
    cloud = rounds(algorithm, steps=3, seed=7)
    central = simulate(fleet=everyone, device=Party(skills=(type(algorithm.client),)), cloud=cloud)
    graph = complete(USERS)
    role = gossip(
        algorithm.client,
        params,
        weights=metropolis(graph),
        aggregator=Mean(),
        gate=algorithm.gate,
        steps=3,
        seed=7,
    )
    peers = simulate(fleet=everyone, device=Party((role,), (type(algorithm.client), Tell)), neighbours=graph)
    for name in USERS:
        trees.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12),
            peers.memory[name]["params"],
            central.memory["cloud"]["params"],
        )


def test_what_cannot_be_is_refused() -> None:
    graph = ring(USERS)
    with pytest.raises(ConfigError, match=r"^lost='never': use one of 'last', 'left out'$"):
        gossiped(graph, lost="never")
    with pytest.raises(ConfigError, match=r"^a deadline of 0 s and a pause of 0.05 s: use positive numbers$"):
        gossiped(graph, deadline=0)
    with pytest.raises(ConfigError, match=r"^gamma=1.5: use a number above 0, at most 1, or None$"):
        gossiped(graph, gamma=1.5)
    with pytest.raises(ConfigError, match=r"^a codec that remembers"):
        gossiped(graph, codec=Feedback(Quantise(8)))
    with pytest.raises(ConfigError, match=r"^the weights of u0 are for \[\]: give one for itself and each neighbour$"):
        gossiped(graph, weights={})


def test_strangers_and_messages_without_a_step_are_not_heard() -> None:
    here = Local(None, {"gossip": {"step": np.int64(4), "heard": {"ann": {}}}})
    with pytest.raises(DataError, match=r"^eve is no neighbour here: "):
        Tell()(here, {"step": np.int64(0), "params": START}, (), "eve")
    with pytest.raises(DataError, match=r"^ann is no neighbour here: "):
        Tell()(Local(), {"step": np.int64(0), "params": START}, (), "ann")
    with pytest.raises(DataError, match=r"^ann told no model of a step: "):
        Tell()(here, {"params": START}, (), "ann")
    with pytest.raises(DataError, match=r"^ann moved from what was not heard, at step 4: tell the whole model$"):
        Tell()(here, {"step": np.int64(4), "moved": START}, (), "ann")
    for step in (3, 5, 4):
        here, _ = Tell()(here, {"step": np.int64(step), "params": START}, (), "ann")
    assert set(here.memory["gossip"]["heard"]["ann"]) == {"4", "5"}


def test_on_a_torus_all_come_to_agree() -> None:
    users = [f"u{i}" for i in range(9)]
    graph = torus(users)
    role = gossip(Pull(), START, weights=metropolis(graph), aggregator=Mean(), gate=Gate(norm=None), steps=8)
    points = {name: np.full((2, 3), float(i)) for i, name in enumerate(users)}
    log = simulate(
        fleet=fleet("phones", users, data=points.__getitem__), device=Party((role,), (Pull, Tell)), neighbours=graph
    )
    found = np.array([log.memory[name]["params"]["w"] for name in users])
    np.testing.assert_allclose(found.mean(axis=0), 4 + (START["w"] - 4) * (1 - LR) ** 8, rtol=1e-12)
    assert np.ptp(found, axis=0).max() < 4
