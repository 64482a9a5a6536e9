"""FedMD, DS-FL and FedDF: what is said about public inputs, in numpy; three designs together against each alone."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.algorithms import dsfl, fedavg, feddf, fedmd
from duetto.algorithms.common import kind_of
from duetto.errors import ConfigError
from duetto.models import Mlp
from duetto.protocols import rounds
from duetto.simulation.engine import simulate
from duetto.simulation.fleet import fleet
from duetto.training import Sequential
from duetto.types import Algorithm, Local, Party, Peer, Reply, Rows

NETS = (Mlp((3,), 2, (5,)), Mlp((3,), 2, ()))
PUBLIC = np.random.default_rng(2).normal(size=(7, 3)).astype(np.float32)
HOW: Any = {"lr": 0.3, "epochs": 2, "batch_size": 4}


@pytest.fixture
def data() -> dict[str, Rows]:
    """Five users, of both designs."""
    draw, made = np.random.default_rng(5), {}
    for user, n in {"ann": 4, "ben": 6, "cyd": 5, "dan": 8, "fay": 7}.items():
        x = draw.normal(size=(n, 3)).astype(np.float32)
        made[user] = Rows(x, (x[:, 0] + 0.5 * draw.normal(size=n) > 0).astype(np.int64))
    assert {kind_of(Named(user), 2) for user in made} == {0, 1}
    return made


class Named(Peer):
    """A peer that tells some traits."""

    def __init__(self, name: str, **traits: float) -> None:
        self.name, self.traits = name, traits

    async def ask(self, skill: Any, tree: Any, *, key: Any, deadline: float | None = None) -> Reply:
        raise NotImplementedError


def lived(data: Any, algorithm: Algorithm, steps: int, failed: int = 0, **memory: Any) -> Any:
    client = replace(algorithm.client, executor=Sequential())
    log = simulate(
        fleet=fleet("phones", list(data), data=data.__getitem__, memory=memory),
        device=Party(skills=(type(client),)),
        cloud=rounds(replace(algorithm, client=client), steps=steps, seed=3),
    )
    assert [record.metrics["failed"] for record in log.records] == [failed] * steps
    return log


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


@pytest.mark.parametrize("sharp", [False, True])
def test_only_what_is_said_travels_and_the_mean_comes_back(data: Any, sharp: bool) -> None:
    build: Any = dsfl if sharp else fedmd
    algorithm = build(NETS, len(PUBLIC), **HOW)
    log = lived(data, algorithm, 1, public=PUBLIC)
    said = []
    for user in data:
        memory = log.memory[user]
        assert memory["kind"] == kind_of(Named(user), 2)
        net = NETS[int(memory["kind"])]
        said.append(net.logits(memory["model"], PUBLIC))
        x = data[user].x
        np.testing.assert_array_equal(algorithm.client.logits({}, memory, x), net.logits(memory["model"], x))
    mean = np.mean([softmax(each) for each in said], axis=0) / 0.1 if sharp else np.mean(said, axis=0)
    np.testing.assert_allclose(log.memory["cloud"]["params"]["logits"], mean, rtol=1e-5, atol=1e-6)
    assert {int(log.memory[user]["kind"]) for user in data} == {0, 1}
    np.testing.assert_array_equal(algorithm.client.logits({}, {}, PUBLIC), np.zeros((7, 2)))


def test_a_digest_nears_what_all_say(data: Any) -> None:
    """With many passes and nothing learned of its own, a device says what it was told."""
    algorithm = fedmd(NETS, len(PUBLIC), digest=400, first=0, lr=0.5, epochs=0, batch_size=7)
    told = softmax(np.random.default_rng(1).normal(size=(7, 3)) @ np.random.default_rng(5).normal(size=(3, 2)))
    sent = {"logits": np.log(told).astype(np.float32), "heard": np.int64(1), "kind": np.int64(0)}
    local = Local(data["ann"], {"public": PUBLIC})
    _, answer = algorithm.client(local, sent, (0,), "cloud")
    unheard = algorithm.client(local, {**sent, "heard": np.int64(0)}, (0,), "cloud")[1]
    far = [np.abs(softmax(each["delta"]["logits"]) - told).mean() for each in (answer, unheard)]
    assert far[0] < 0.5 * far[1]


def test_without_passes_feddf_averages_each_design(data: Any) -> None:
    """Limit law: each design is FedAvg among its own devices."""
    algorithm = feddf(NETS, PUBLIC, passes=0, **HOW)
    memory = lived(data, algorithm, 3).memory
    for kind, net in enumerate(NETS):
        own = {user: rows for user, rows in data.items() if kind_of(Named(user), 2) == kind}
        alone = fedavg(net, net.init(kind), **HOW)
        after = lived(own, alone, 3).memory["cloud"]["params"]
        trees.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
            memory["cloud"]["params"][str(kind)],
            after,
        )
        user = next(iter(own))
        x = data[user].x
        found = algorithm.client.logits({"params": memory["cloud"]["params"]}, memory[user], x)
        np.testing.assert_array_equal(found, net.logits(memory["cloud"]["params"][str(kind)], x))


def test_a_design_that_nobody_has_is_taught_by_the_others(data: Any) -> None:
    """By the mean logits of all models that came: at last it says nearly what they say."""
    three = (*NETS, Mlp((3,), 2, (16,)))
    wide = np.random.default_rng(3).normal(size=(60, 3)).astype(np.float32)
    built = feddf(three, wide, passes=150, fuse_lr=0.02, **HOW)
    server, client = built.server, replace(built.client, executor=Sequential())
    state, replies, said = server.init(built.params), built.aggregator.init(), []
    for user in data:
        peer = Named(user, kind=kind_of(Named(user), 2))
        sent = server.send(state, built.params, peer)
        _, told = client(Local(data[user]), sent, (3, user), "cloud")
        reply = Reply(user, told["delta"], float(told["weight"]), index=server.part(state, built.params, peer))
        assert built.gate(reply, built.params) is None
        replies = built.aggregator.add(replies, reply)
        kind = str(int(sent["kind"]))
        model = trees.add(built.params[kind], told["delta"][kind])
        said.append(three[int(kind)].logits(model, wide))
    collected = built.aggregator.finish(replies)[1]
    _, after = server.step(state, built.params, collected, cohort_size=5, fleet_size=5, key=(0,))
    before = server.step(state, built.params, collected, cohort_size=5, fleet_size=5, key=(0,))[1]
    assert trees.encode(before) == trees.encode(after)
    wanted = np.mean(said, axis=0).argmax(1)
    agrees = [(three[2].logits(each["2"], wide).argmax(1) == wanted).mean() for each in (built.params, after)]
    assert agrees[1] > 0.9 > agrees[0]


def test_faults_are_told(data: Any) -> None:
    with pytest.raises(ConfigError, match=r"^2 kinds of network: name some, all of the same shape and classes$"):
        fedmd((NETS[0], Mlp((4,), 2, ())), 5, **HOW)
    with pytest.raises(ConfigError, match=r"^0 kinds of network"):
        feddf((), PUBLIC, **HOW)
    with pytest.raises(ConfigError, match=r"^era=0: use a positive number$"):
        dsfl(NETS, 5, era=0, **HOW)
    with pytest.raises(ConfigError, match=r"^a has a network of kind 4: kinds are 0 to 1$"):
        kind_of(Named("a", kind=4), 2)
    log = lived(data, fedmd(NETS, 5, **HOW), 1, failed=5)
    assert "ann: a device without public inputs: give every device the same" in str(log.records[0].metrics["failures"])
