"""The cases that the types must carry: each a paper's method in the house's types, run by the house's engine.

Local training is declared (a :class:`ClientUpdate`) and run by the small executor below, which finds gradients by the
complex step; what comes out is compared with the paper's formula in plain numpy, with gradients found by hand.
"""

import ast
import asyncio
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import duetto
from duetto import simulate
from duetto import tree as trees
from duetto.aggregation import Gate, Mean, Stack
from duetto.codecs import Quantise, Zstd
from duetto.errors import ConfigError, DataError
from duetto.policies import Everyone
from duetto.protocols import Coded, Plain, rounds
from duetto.simulation.engine import Log
from duetto.simulation.fleet import Fleet, fleet
from duetto.tree import Array, Spec, Tree
from duetto.types import (
    Action,
    Aggregator,
    Algorithm,
    Chain,
    ClientUpdate,
    Codec,
    Collect,
    Cost,
    Domain,
    Group,
    Held,
    Index,
    Key,
    Local,
    Mechanism,
    Move,
    Party,
    Peer,
    Plan,
    Policy,
    Record,
    Replies,
    Reply,
    Role,
    Seen,
    ServerUpdate,
    Skill,
    Staged,
    Trained,
    View,
    Work,
    rng,
)
from duetto.types import Gate as AnyGate

USERS = ("ada", "bob", "cyd", "dee")
ROWS = {"ada": 4, "bob": 6, "cyd": 8, "dee": 10}
WIDTH, LR, EPOCHS, BATCH = 3, 0.1, 2, 2
START = {"w": np.array([0.3, -0.2, 0.1])}
Net = Callable[[Tree, Array], Array]


def data(name: str) -> dict[str, np.ndarray]:
    """A user's own regression problem."""
    draw = rng(("data", name))
    x = draw.normal(size=(ROWS.get(name, 5), WIDTH))
    return {"x": x, "y": x @ draw.normal(size=WIDTH) + draw.normal(size=len(x)) / 10}


# ---------------------------------------------------------------------------------------------------- executor


def linear(params: Tree, x: Array) -> Array:
    """Weights, and a bias where there is one; a narrow model reads the first columns."""
    return x[:, : len(params["w"])] @ params["w"] + params.get("b", 0.0)


def curved(params: Tree, x: Array) -> Array:
    """Not linear, so that an ensemble is no model."""
    return np.tanh(linear(params, x))


def square(outputs: Array, batch: Tree, params: Tree, start: Tree) -> Array:
    """Half the squared error of every row."""
    return (outputs - batch["y"]) ** 2 / 2


@dataclass(frozen=True)
class SGD:
    """The local optimiser."""

    lr: float = LR


@dataclass(frozen=True)
class FedAvg:
    """A client update: McMahan et al. 2017."""

    loss: tuple[Any, ...] = (square,)
    optimiser: SGD = SGD()
    epochs: int = EPOCHS
    batch_size: int = BATCH

    def start(self, sent: Tree, memory: Mapping[str, Any]) -> Tree:
        """From what was sent."""
        return {"params": sent["params"]}

    def finish(self, sent: Tree, memory: Mapping[str, Any], trained: Trained) -> tuple[Mapping[str, Any], Tree, float]:
        """The change, by examples."""
        return memory, trained.delta, float(trained.examples)


def gradient(loss: Callable[[Tree], Array], params: Tree) -> Tree:
    """The gradient of a number by the complex step (Squire, Trapp 1998): exact to rounding."""

    def slopes(pointer: str, leaf: Array) -> Array:
        found = np.zeros(leaf.shape)
        for at in np.ndindex(leaf.shape):
            moved = leaf.astype(complex)
            moved[at] += 1e-30j
            found[at] = loss(trees.pointed(lambda other, p: moved if other == pointer else p, params)).imag / 1e-30  # noqa: B023
        return found

    return trees.pointed(slopes, params)


def trained(update: ClientUpdate, net: Net, start: Tree, rows: Mapping[str, Array]) -> Trained:
    """The executor: it owns the loop, and takes the rows in their order."""
    params, sums, steps, count = start["params"], trees.zeros(start["params"]), 0, len(rows["x"])
    for _ in range(update.epochs):
        for at in range(0, count, update.batch_size):
            batch = {name: column[at : at + update.batch_size] for name, column in rows.items()}

            def loss(p: Tree, batch: Tree = batch) -> Array:
                return sum(term(net(p, batch["x"]), batch, p, start) for term in update.loss).mean()

            slope = gradient(loss, params)
            params = trees.subtract(params, trees.scale(slope, update.optimiser.lr))
            sums, steps = trees.add(sums, slope), steps + 1
    return Trained(start["params"], trees.subtract(params, start["params"]), sums, steps, count, math.nan)


@dataclass(frozen=True)
class Training(Skill):
    """The skill of local training, whatever the update."""

    update: ClientUpdate = FedAvg()
    net: Net = linear
    flops: float = 0.0

    @property
    def writes(self) -> bool:
        """A client may remember."""
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Train."""
        done = trained(self.update, self.net, self.update.start(tree, local.memory), local.data)
        memory, delta, weight = self.update.finish(tree, local.memory, done)
        return Local(local.data, memory), {"delta": delta, "weight": np.float64(weight)}

    def work(self, local: Local, tree: Tree) -> Work:
        """So much a row."""
        return Work(flops=self.flops * len(local.data["x"]))


@dataclass(frozen=True)
class Average(ServerUpdate[Any]):
    """Add the mean delta."""

    def step(
        self, state: Any, params: Tree, collected: Tree | None, *, cohort_size: int, fleet_size: int, key: Key
    ) -> tuple[Any, Tree]:
        """Add it."""
        return state, params if collected is None else trees.add(params, collected)


@dataclass(frozen=True, eq=False)
class Against:
    """Plain collection, with the gate comparing deltas with what the server update expects."""

    like: Tree

    async def gather(self, *args: Any, like: Tree, **kwargs: Any) -> tuple[Tree | None, Replies]:
        """As :class:`Plain`."""
        return await Plain().gather(*args, like=self.like, **kwargs)


def algorithm(client: Skill, server: ServerUpdate[Any], params: Tree = START, **parts: Any) -> Algorithm:
    """An algorithm of everybody, gated and averaged, unless ``parts`` say otherwise."""
    given: dict[str, Any] = {
        "aggregator": Mean(),
        "cohort": Everyone(),
        "gate": Gate(norm=1e6),
        "collect": Against(server.expects(params)),
    }
    return Algorithm(client, params, server, **{**given, **parts})


def run(
    given: Algorithm, steps: int, users: Sequence[str] = USERS, skills: tuple[type[Skill], ...] = (Training,)
) -> Log:
    """Rounds on a simulated fleet in which nobody fails."""
    device = Party(skills=skills)
    log: Log = simulate(fleet=fleet("phones", users, data=data), device=device, cloud=rounds(given, steps=steps))
    assert [record.metrics["failed"] for record in log.records] == [0] * steps
    return log


def descend(w: np.ndarray, rows: Mapping[str, Array], slope: Callable[..., np.ndarray], epochs: int = EPOCHS) -> Any:
    """Plain numpy: SGD in batches, and how many steps it took."""
    steps = 0
    for _ in range(epochs):
        for at in range(0, len(rows["x"]), BATCH):
            x, y = rows["x"][at : at + BATCH, : len(w)], rows["y"][at : at + BATCH]
            w, steps = w - LR * slope(w, x, y), steps + 1
    return w, steps


def slope_of_square(w: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """By hand: the mean gradient of half the squared error of x @ w."""
    return np.asarray(x.T @ (x @ w - y) / len(x))


def slope_of_curved(w: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """By hand: the same of tanh(x @ w)."""
    out = np.tanh(x @ w)
    return np.asarray(x.T @ ((out - y) * (1 - out**2)) / len(x))


def close(left: Any, right: Any) -> None:
    """Equal but for rounding."""
    np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-11)


# ---------------------------------------------------------------------------------------------------- SCAFFOLD


def drift(outputs: Array, batch: Tree, params: Tree, start: Tree) -> Array:
    """A term whose gradient is the correction c - c_i."""
    return (start["drift"]["w"] * params["w"]).sum()


@dataclass(frozen=True)
class ScaffoldClient(FedAvg):
    """Karimireddy et al. 2020, option II: a control variate stays on the client."""

    loss: tuple[Any, ...] = (square, drift)

    def start(self, sent: Tree, memory: Mapping[str, Any]) -> Tree:
        """What the loss terms read comes beside the parameters."""
        own = memory.get("control", trees.zeros(sent["params"]))
        return {"params": sent["params"], "drift": trees.subtract(sent["control"], own)}

    def finish(self, sent: Tree, memory: Mapping[str, Any], trained: Trained) -> tuple[Mapping[str, Any], Tree, float]:
        """c_i - c + the mean of the corrected gradients; every client counts the same."""
        own = memory.get("control", trees.zeros(sent["params"]))
        mean = trees.scale(trained.gradients, 1 / trained.steps)
        control = trees.add(trees.subtract(own, sent["control"]), mean)
        delta = {"params": trained.delta, "control": trees.subtract(control, own)}
        return {**memory, "control": control}, delta, 1.0


@dataclass(frozen=True)
class ScaffoldServer(ServerUpdate[Tree]):
    """The server's control variate is its state, and is sent with the parameters."""

    def init(self, params: Tree) -> Tree:
        """No control yet."""
        return {"control": trees.zeros(params)}

    def send(self, state: Tree, params: Tree, peer: Peer) -> Tree:
        """Both."""
        return {"params": params, "control": state["control"]}

    def expects(self, params: Tree) -> Tree:
        """Both."""
        return {"params": params, "control": params}

    def step(
        self, state: Tree, params: Tree, collected: Tree | None, *, cohort_size: int, fleet_size: int, key: Key
    ) -> tuple[Tree, Tree]:
        """The control moves by the share of the fleet that answered."""
        assert collected is not None
        control = trees.add(state["control"], trees.scale(collected["control"], cohort_size / fleet_size))
        return {"control": control}, trees.add(params, collected["params"])


@dataclass(frozen=True)
class Turns(Policy[Tree]):
    """Two clients a round, in turn."""

    def init(self) -> Tree:
        """The first turn."""
        return {"turn": np.int64(0)}

    def choose(self, state: Tree, seen: Seen, key: Key) -> tuple[Tree, Move]:
        """This turn's and the next one's."""
        turn = int(state["turn"])
        chosen = np.isin(np.arange(seen.size), [turn % seen.size, (turn + 1) % seen.size])
        return {"turn": np.int64(turn + 1)}, Move.sure(np.where(chosen, Action.ASK, Action.STOP), "in turn")


def test_scaffold() -> None:
    log = run(algorithm(Training(ScaffoldClient()), ScaffoldServer(), cohort=Turns()), steps=5)
    x, c, own = START["w"], np.zeros(WIDTH), {name: np.zeros(WIDTH) for name in USERS}
    for turn in range(5):
        moves: list[Any] = []
        changes: list[Any] = []
        for name in (USERS[turn % 4], USERS[(turn + 1) % 4]):
            y, steps = descend(x, data(name), lambda w, *b, shift=c - own[name]: slope_of_square(w, *b) + shift)
            after = own[name] - c + (x - y) / (steps * LR)
            moves.append(y - x)
            changes.append(after - own[name])
            own[name] = after
        x, c = x + np.mean(moves, axis=0), c + 2 / 4 * np.mean(changes, axis=0)
    cloud = log.memory["cloud"]
    close(cloud["params"]["w"], x)
    close(cloud["rounds"]["server"]["control"]["w"], c)
    for name in USERS:
        close(log.memory[name]["control"]["w"], own[name])


# ----------------------------------------------------------------------------------------------------- FedBuff


def buffered(given: Algorithm, goal: int, discount: Callable[[int], float], flushes: int) -> Role:
    """Nguyen et al. 2022: everybody trains all the time; the server steps at every ``goal`` replies."""

    async def role(fleet: Group, local: Local) -> AsyncIterator[Record]:
        params, server, version = given.params, given.server.init(given.params), 0
        state, added = given.aggregator.init(), 0
        sent: dict[str, int] = {}
        asked: dict[asyncio.Task[Reply], str] = {}

        def ask(name: str) -> None:
            peer = fleet.peer(name)
            message = given.server.send(server, params, peer)
            sent[name] = version
            asked[asyncio.create_task(peer.ask(given.client, message, key=(version, name)))] = name

        for name in fleet.names:
            ask(name)
        while version < flushes:
            done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=asked.__getitem__):
                name, reply = asked.pop(task), task.result()
                assert reply.tree is not None
                reply = replace(reply, tree=reply.tree["delta"], version=sent[name], staleness=version - sent[name])
                assert given.gate(reply, params) is None
                state = given.aggregator.add(state, replace(reply, weight=discount(reply.staleness)))
                added += 1
                yield Record("buffered", version, {"sender": name, "staleness": reply.staleness}, reply.cost)
                if added == goal:
                    state, mean = given.aggregator.finish(state)
                    size = {"cohort_size": goal, "fleet_size": len(fleet)}
                    server, params = given.server.step(server, params, mean, key=(version,), **size)
                    version, added = version + 1, 0
                ask(name)
        for task in asked:
            task.cancel()
        local.memory = {"params": params, "version": np.int64(version)}

    return role


def test_fedbuff() -> None:
    def discount(staleness: int) -> float:
        return 1 / math.sqrt(1 + staleness)

    given = algorithm(Training(flops=1e10), Average())
    phones = fleet("phones", USERS, data=data)
    log = simulate(fleet=phones, device=Party(skills=(Training,)), cloud=buffered(given, 2, discount, 8))
    x, version, buffer, sent = START["w"], 0, [], dict.fromkeys(USERS, (0, START["w"]))
    for record in log.records:
        name = str(record.metrics["sender"])
        began, start = sent[name]
        assert (record.step, record.metrics["staleness"]) == (version, version - began)
        buffer.append((discount(version - began), descend(start, data(name), slope_of_square)[0] - start))
        if len(buffer) == 2:  # K; the weights are those of a mean
            x, version = x + sum(s * d for s, d in buffer) / sum(s for s, _ in buffer), version + 1
            buffer = []
        sent[name] = version, x
    assert version == 8
    close(log.memory["cloud"]["params"]["w"], x)
    assert len({record.metrics["staleness"] for record in log.records}) > 2, "fast and slow devices"


# ----------------------------------------------------------------------------------------------------- FedNova


@dataclass(frozen=True)
class NovaClient(FedAvg):
    """Wang et al. 2020: the mean step of a client, and how many it took."""

    def finish(self, sent: Tree, memory: Mapping[str, Any], trained: Trained) -> tuple[Mapping[str, Any], Tree, float]:
        """tau is a leaf of the delta, an integer."""
        change = trained.delta
        delta = {"params": trees.scale(change, 1 / trained.steps), "tau": np.int64(trained.steps)}
        return memory, delta, float(trained.examples)


@dataclass(frozen=True)
class NovaServer(ServerUpdate[Tree]):
    """As many mean steps as the clients took on average."""

    def init(self, params: Tree) -> Tree:
        """Nothing seen."""
        return {"tau": np.float64(0)}

    def expects(self, params: Tree) -> Tree:
        """The parameters and tau."""
        return {"params": params, "tau": np.int64(0)}

    def step(
        self, state: Tree, params: Tree, collected: Tree | None, *, cohort_size: int, fleet_size: int, key: Key
    ) -> tuple[Tree, Tree]:
        """Both are means by examples, so that their product is the paper's step."""
        assert collected is not None
        moved = trees.add(params, trees.scale(collected["params"], float(collected["tau"])))
        return {"tau": collected["tau"]}, moved


@pytest.mark.parametrize("up", [Chain(), Zstd(), Chain((Quantise(8), Zstd()))], ids=["plain", "zstd", "int8"])
def test_fednova(up: Codec[Any]) -> None:
    log = run(algorithm(Training(NovaClient()), NovaServer(), up=up), steps=1)
    shares = np.array([ROWS[name] for name in USERS]) / sum(ROWS.values())
    ends, taus = zip(*(descend(START["w"], data(name), slope_of_square) for name in USERS), strict=True)
    assert len(set(taus)) == 4
    means = np.array([(end - START["w"]) / tau for end, tau in zip(ends, taus, strict=True)])
    close(log.memory["cloud"]["rounds"]["server"]["tau"], shares @ taus)
    error = np.abs(log.memory["cloud"]["params"]["w"] - (START["w"] + (shares @ taus) * (shares @ means))).max()
    half_a_step = np.ptp(means, axis=1) / 255 / 2
    lossy = isinstance(up, Chain) and bool(up.codecs)
    assert error <= (shares @ taus) * (shares @ half_a_step) * (1 + 1e-9) * lossy + 1e-12
    assert (error > 1e-9) == lossy


# ------------------------------------------------------------------------------------------------------- FedDF


@dataclass(frozen=True, eq=False)
class FedDF(ServerUpdate[Any]):
    """Lin et al. 2020: the server trains their mean on what all clients' models say about public inputs."""

    public: Array
    update: ClientUpdate
    net: Net

    def step(
        self, state: Any, params: Tree, collected: Tree | None, *, cohort_size: int, fleet_size: int, key: Key
    ) -> tuple[Any, Tree]:
        """``collected`` holds every client's delta by its name; the same executor trains here."""
        assert collected is not None
        members = [trees.add(params, delta) for delta in collected.values()]
        teacher = sum(self.net(member, self.public) for member in members) / len(members)
        start = {"params": trees.scale(reduce(trees.add, members), 1 / len(members))}
        return state, trained(self.update, self.net, start, {"x": self.public, "y": teacher}).params


def test_feddf() -> None:
    public = rng(("public",)).normal(size=(12, WIDTH))
    server = FedDF(public, FedAvg(epochs=3), curved)
    given = algorithm(Training(net=curved), server, aggregator=Stack())
    log = run(given, steps=2)
    w = START["w"]
    for _ in range(2):
        members = [descend(w, data(name), slope_of_curved)[0] for name in USERS]
        teacher = np.mean([np.tanh(public @ member) for member in members], axis=0)
        mean = np.mean(members, axis=0)
        w, _ = descend(mean, {"x": public, "y": teacher}, slope_of_curved, epochs=3)
        assert np.abs(w - mean).max() > 1e-4, "distillation moves it"
    close(log.memory["cloud"]["params"]["w"], w)


# ---------------------------------------------------------------------------------------------------- SplitFed

HIDDEN = 2
SPLIT_ROUNDS = 2


@dataclass(frozen=True, eq=False)
class TwoStages:
    """A network in stages, each ``(forward, backward)``; ``net[:cut]`` and ``net[cut:]`` are networks too."""

    stages: tuple[Any, ...]
    params: Tree

    @property
    def exits(self) -> Mapping[int, Any]:
        """None."""
        return {}

    def __getitem__(self, cut: slice) -> "TwoStages":
        names = [str(i) for i in range(len(self.stages))][cut]
        return TwoStages(self.stages[cut], {str(i): self.params[name] for i, name in enumerate(names)})


def forward(net: Staged, params: Tree, x: Array) -> list[Array]:
    """What goes into every stage, and what comes out of the last."""
    flow = [x]
    for i, (there, _) in enumerate(net.stages):
        flow.append(there(params[str(i)], flow[-1]))
    return flow


def backward(net: Staged, params: Tree, flow: list[Array], slope: Array) -> tuple[Tree, Array]:
    """The parameters after a step, and the gradient of the input."""
    after = dict(params)
    for i, (_, back) in reversed(list(enumerate(net.stages))):
        own, through = back(params[str(i)], flow[i], flow[i + 1], slope)
        after[str(i)], slope = params[str(i)] - LR * own, through
    return after, slope


WHOLE: Staged = TwoStages(
    (
        (lambda p, x: np.tanh(x @ p), lambda p, x, out, g: (x.T @ (g * (1 - out**2)), (g * (1 - out**2)) @ p.T)),
        (lambda p, x: x @ p, lambda p, x, out, g: (x.T @ g, np.outer(g, p))),
    ),
    {"0": rng(("split", 0)).normal(size=(WIDTH, HIDDEN)), "1": rng(("split", 1)).normal(size=HIDDEN)},
)


@dataclass(frozen=True)
class Half(Skill):
    """One batch: takes the gradient of the features of the batch before, gives the features of the next."""

    cut: int

    @property
    def writes(self) -> bool:
        """Its half of the model, and where it is in its data."""
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """An empty tree at first, and at the end."""
        net: Staged = WHOLE[: self.cut]
        params, batch = local.memory.get("half", net.params), int(local.memory.get("batch", 0))
        rows = [slice(at, at + BATCH) for at in range(0, len(local.data["x"]), BATCH)]
        if "gradient" in tree:
            flow = forward(net, params, local.data["x"][rows[batch - 1]])
            params, _ = backward(net, params, flow, tree["gradient"])
        after = {"half": params, "batch": np.int64((batch + 1) % (len(rows) + 1))}
        if batch == len(rows):
            return local.remembering(**after), {}
        features = forward(net, params, local.data["x"][rows[batch]])[-1]
        return local.remembering(**after), {"features": features, "y": local.data["y"][rows[batch]]}


@dataclass(frozen=True)
class Exchange(Skill):
    """Gives the device's half, or takes the mean of all."""

    @property
    def writes(self) -> bool:
        """It may take one."""
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """An empty tree asks for it."""
        return (local.remembering(half=tree), {}) if tree else (local, local.memory["half"])


def split(plan: Plan) -> Role:
    """Thapa et al. 2022 (SplitFedV1): the cloud asks; its halves live in its memory, by sender."""

    cut = plan.cut
    assert isinstance(cut, int)

    async def one(peer: Peer, local: Local, key: Key) -> Cost:
        net: Staged = WHOLE[cut:]
        message: Tree = {}
        cost = Cost()
        while True:
            reply = await peer.ask(Half(cut), message, key=key)
            cost += reply.cost
            if not reply.tree:
                assert reply.failure is None
                return cost
            half = local.memory["halves"][reply.sender]
            flow = forward(net, half, reply.tree["features"])
            after, slope = backward(net, half, flow, (flow[-1] - reply.tree["y"]) / len(flow[-1]))
            local.memory = {**local.memory, "halves": {**local.memory["halves"], reply.sender: after}}
            message = {"gradient": slope}

    async def role(fleet: Group, local: Local) -> AsyncIterator[Record]:
        peers = [fleet.peer(name) for name in fleet.names]
        local.memory = {"halves": dict.fromkeys(fleet.names, WHOLE[cut:].params)}
        for step in range(SPLIT_ROUNDS):
            costs = await asyncio.gather(*(one(peer, local, (step, peer.name)) for peer in peers))
            replies = await asyncio.gather(*(peer.ask(Exchange(), {}, key=(step,)) for peer in peers))
            mean = [
                trees.scale(reduce(trees.add, halves), 1 / len(peers))
                for halves in ([reply.tree for reply in replies], list(local.memory["halves"].values()))
            ]
            await asyncio.gather(*(peer.ask(Exchange(), mean[0], key=(step,)) for peer in peers))
            local.memory = {"halves": dict.fromkeys(fleet.names, mean[1]), "device": mean[0]}
            yield Record("split", step, {}, reduce(Cost.__add__, costs))

    return role


def test_splitfed() -> None:
    log = simulate(
        fleet=fleet("phones", USERS, data=data), device=Party(skills=(Half, Exchange)), cloud=split(Plan(cut=1))
    )
    u, v = WHOLE.params["0"], WHOLE.params["1"]
    for _ in range(SPLIT_ROUNDS):
        ends = []
        for name in USERS:
            a, b, rows = u, v, data(name)
            for at in range(0, len(rows["x"]), BATCH):
                x, y = rows["x"][at : at + BATCH], rows["y"][at : at + BATCH]
                out = np.tanh(x @ a)
                error = (out @ b - y) / len(x)
                a, b = a - LR * x.T @ (np.outer(error, b) * (1 - out**2)), b - LR * out.T @ error
            ends.append((a, b))
        u, v = np.mean([a for a, _ in ends], axis=0), np.mean([b for _, b in ends], axis=0)
    close(log.memory["cloud"]["device"]["0"], u)
    for name in USERS:
        close(log.memory["cloud"]["halves"][name]["0"], v)
        close(log.memory[name]["half"]["0"], u)
    batches = sum(count // BATCH for count in ROWS.values())
    features = {"features": np.zeros((BATCH, HIDDEN)), "y": np.zeros(BATCH)}
    sent, empty = len(trees.encode(features)), len(trees.encode({}))
    assert [record.cost.up_bytes for record in log.records] == [batches * sent + len(USERS) * empty] * SPLIT_ROUNDS


# ------------------------------------------------------------------------------------------------------ gossip

GRAPH = {"ada": ("bob",), "bob": ("ada", "cyd"), "cyd": ("bob", "dee"), "dee": ("cyd",)}


@dataclass(frozen=True)
class Tell(Skill):
    """What a party holds now, and how many it knows."""

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Read."""
        return local, {"params": local.memory["params"], "degree": local.memory["degree"]}


async def gossiping(me: Peer, neighbours: Mapping[str, Peer], local: Local) -> AsyncIterator[Record]:
    """Xiao, Boyd 2004: repeated averaging with neighbours, by Metropolis weights; nobody is in the middle."""
    degree = len(neighbours)
    local.memory = {"params": {"w": local.data["x"][0]}, "degree": np.int64(degree)}
    for step in range(6):
        await until(2 * step + 1)
        replies = [await peer.ask(Tell(), {}, key=(step, name)) for name, peer in neighbours.items()]
        await until(2 * step + 2)
        own = local.memory["params"]
        moved = own
        for reply in replies:
            assert reply.tree is not None
            weight = 1 / (1 + max(degree, int(reply.tree["degree"])))
            moved = trees.add(moved, trees.scale(trees.subtract(reply.tree["params"], own), weight))
        local.memory = {**local.memory, "params": moved}
        yield Record("gossip", step, {"me": me.name}, reduce(Cost.__add__, (reply.cost for reply in replies)))


async def until(time: float) -> None:
    """Sleep on the world's clock."""
    await asyncio.sleep(time - asyncio.get_running_loop().time())


def test_gossip() -> None:
    log = simulate(
        fleet=fleet("phones", USERS, data=data), device=Party((gossiping,), (Tell,)), neighbours=GRAPH, network="wifi"
    )
    degree = np.array([len(GRAPH[name]) for name in USERS])
    edges = np.array([[other in GRAPH[name] for other in USERS] for name in USERS])
    mixing = edges / (1 + np.maximum(degree[:, None], degree))
    mixing += np.diag(1 - mixing.sum(axis=1))
    first = np.array([data(name)["x"][0] for name in USERS])
    expected = np.linalg.matrix_power(mixing, 6) @ first
    close([log.memory[name]["params"]["w"] for name in USERS], expected)
    close(expected.mean(axis=0), first.mean(axis=0))
    # Both messages go up one link and down another.
    told = {"params": {"w": np.zeros(WIDTH)}, "degree": np.int64(0)}
    both = len(trees.encode({})) + len(trees.encode(told))
    assert len(log.records) == 6 * len(USERS)
    for record in log.records:
        crossed = len(GRAPH[record.party]) * both
        assert (record.cost.up_bytes, record.cost.down_bytes, record.metrics["me"]) == (crossed, crossed, record.party)


@pytest.mark.parametrize(
    ("graph", "why"),
    [(None, "wants neighbours"), ({"ada": ("eve",)}, "'eve' has or is"), ({"eve": ()}, "'eve' has or is")],
)
def test_neighbours_are_users_of_the_fleet(graph: Any, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        simulate(fleet=fleet("phones", USERS, data=data), device=gossiping, neighbours=graph)


# ------------------------------------------------------------------------------------------ secure aggregation


@dataclass(frozen=True)
class FixedPoint(Codec[Tree]):
    """Numbers as integers modulo 2**64, so that masks add without rounding; scalars too, for they are masked too."""

    bits: int = 30
    takes: ClassVar[frozenset[Domain]] = frozenset({Domain.FLOATS})
    gives: ClassVar[Domain] = Domain.CODES

    def encode(self, state: Tree, tree: Tree, key: Key) -> tuple[Tree, Tree]:
        """To the nearest."""
        return state, trees.map(
            lambda leaf: np.asarray(np.rint(leaf * 2.0**self.bits).astype(np.int64), np.uint64), tree
        )

    def decode(self, tree: Tree) -> Tree:
        """The upper half of the range is negative."""
        return trees.map(lambda leaf: np.asarray(leaf.astype(np.int64) / 2.0**self.bits), tree)

    def becomes(self, spec: Spec) -> Spec:
        """Eight bytes a number."""
        return trees.map(lambda leaf: replace(leaf, dtype="uint64"), spec)


@dataclass(frozen=True)
class Masked(Skill):
    """Bonawitz et al. 2017: a client's part of a linear state, gated here, in fixed point, under masks in pairs."""

    skill: Skill
    aggregator: Aggregator[Tree]
    codec: Codec[Any]
    gate: AnyGate
    cohort: tuple[str, ...]

    @property
    def writes(self) -> bool:
        """As the skill."""
        return self.skill.writes

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """The last part of the key names the party that is asked."""
        local, said = self.skill(local, tree, key, sender)
        me = str(key[-1])
        reply = Reply(me, said["delta"], float(said["weight"]))
        if fault := self.gate(reply, tree["params"]):
            raise DataError(f"{me} sends nothing, for {fault}", "train again")
        state = self.aggregator.add(self.aggregator.init(), reply)
        _, coded = self.codec.encode(self.codec.init(), state, key)
        for other in self.cohort:
            if other != me:
                masks = trees.pointed(partial(mask, tuple(sorted((me, other)))), coded)
                coded = trees.add(coded, masks) if me < other else trees.subtract(coded, masks)
        return local, coded


def mask(pair: tuple[str, ...], pointer: str, leaf: Array) -> Array:
    """What two parties have agreed on (in a simulation, from a key that both can name)."""
    return np.asarray(rng(("mask", *pair, pointer)).integers(2**64, size=leaf.shape, dtype=np.uint64))


@dataclass(frozen=True)
class Secure:
    """The cloud adds what it cannot read; the masks cancel in the sum, and nowhere else."""

    async def gather(
        self,
        group: Group,
        names: Sequence[str],
        skill: Skill,
        send: Callable[[Peer], Tree],
        *,
        gate: AnyGate,
        aggregator: Aggregator[Any],
        decode: Callable[[Tree], Tree],
        like: Tree,
        key: Key,
        deadline: float | None,
        enough: int | None = None,
    ) -> tuple[Tree | None, Replies]:
        """Linear aggregators only."""
        assert aggregator.linear
        assert isinstance(skill, Coded)
        masked = Masked(replace(skill, back=Chain()), aggregator, skill.back, gate, tuple(names))
        replies = await group.ask(names, masked, send, key=key, deadline=deadline)
        total = reduce(trees.add, (reply.tree for reply in replies))
        collected = aggregator.finish(decode(total))[1]
        assert gate(Reply("everybody", collected), like) is None
        return collected, [replace(reply, tree=None) for reply in replies]


def test_secure_aggregation() -> None:
    given = algorithm(Training(), Average(), up=FixedPoint(), collect=Secure())
    log = run(given, steps=2, skills=(Masked,))
    w, shares = START["w"], np.array([ROWS[name] for name in USERS]) / sum(ROWS.values())
    for _ in range(2):
        w = shares @ np.array([descend(w, data(name), slope_of_square)[0] for name in USERS])
    # A sum of four codes is wrong by four half steps at most; it is divided by the 28 rows, twice over.
    np.testing.assert_allclose(log.memory["cloud"]["params"]["w"], w, rtol=0, atol=2 * 2 * 4 * 2.0**-31 / 28)
    assert np.abs(log.memory["cloud"]["params"]["w"] - w).max() > 0, "it is fixed point"


def test_a_masked_message_alone_says_nothing_and_the_sum_all() -> None:
    def message(me: str, cohort: tuple[str, ...]) -> Tree:
        skill = Masked(Training(), Mean(), FixedPoint(), Gate(norm=1e6), cohort)
        return skill(Local(data(me)), {"params": START}, (me,), "cloud")[1]

    alone, masked = ([message(name, cohort(name)) for name in USERS] for cohort in (lambda me: (me,), lambda me: USERS))
    for clear, hidden in zip(alone, masked, strict=True):
        pairs = zip(trees.leaves(clear), trees.leaves(hidden), strict=True)
        assert all((a != b).all() for (_, a), (_, b) in pairs)
    assert trees.encode(reduce(trees.add, alone)) == trees.encode(reduce(trees.add, masked))


def test_the_gate_of_a_masked_message_is_on_the_device() -> None:
    skill = Masked(Training(), Mean(), FixedPoint(), Gate(norm=1e-9), ("ada",))
    with pytest.raises(DataError, match="ada sends nothing, for the norm"):
        skill(Local(data("ada")), {"params": START}, ("ada",), "cloud")


# -------------------------------------------------------------------------------------------------- central DP


@dataclass(frozen=True)
class Poisson(Policy[Tree]):
    """Everybody by an own coin."""

    rate: float
    sampling: ClassVar[str] = "poisson"

    def choose(self, state: Tree, seen: Seen, key: Key) -> tuple[Tree, Move]:
        """Toss them."""
        asked = rng(key).random(seen.size) < self.rate
        propensity = np.where(asked, self.rate, 1 - self.rate)
        return state, Move(np.where(asked, Action.ASK, Action.STOP), propensity, "a coin")


@dataclass(frozen=True)
class ClippedSum(Aggregator[Tree]):
    """The sum of replies of a bounded norm; the weight that a client claims does not count."""

    clip: float
    linear: ClassVar[bool] = True

    def init(self) -> Tree:
        """Nothing."""
        return {}

    def add(self, state: Tree, reply: Reply) -> Tree:
        """Clip after decoding, for coding may lengthen."""
        norm = trees.norm(reply.tree)
        return self.merge(state, trees.scale(reply.tree, min(1.0, self.clip / norm) if norm else 1.0))

    def merge(self, left: Tree, right: Tree) -> Tree:
        """The sum of both."""
        return trees.add(left, right) if left and right else left or right

    def finish(self, state: Tree) -> tuple[Tree, Tree]:
        """The sum."""
        if not state:
            raise DataError("nothing to add", "ask somebody")
        return {}, state


@dataclass(frozen=True)
class Gaussian(Mechanism[Tree]):
    """Noise of ``multiplier * clip`` on the sum; by key, so this is a simulation."""

    clip: float
    multiplier: float

    def init(self) -> Tree:
        """Nothing to remember."""
        return {}

    def noise(self, state: Tree, total: Tree, key: Key) -> tuple[Tree, Tree]:
        """Every leaf has its own."""

        def noisy(pointer: str, leaf: Array) -> Array:
            return leaf + rng((*key, pointer)).normal(scale=self.multiplier * self.clip, size=leaf.shape)

        return state, trees.pointed(noisy, total)

    def event(self, sampling: str, cohort_size: int) -> Any:
        """What an accountant needs."""
        if sampling != "poisson":
            raise ConfigError(f"a cohort by {sampling!r} sampling", "this accountant assumes poisson")
        return ("poisson-gaussian", self.multiplier, cohort_size)


@dataclass(frozen=True)
class Release(ServerUpdate[Tree]):
    """McMahan et al. 2018: the noisy sum over the expected size of a cohort, whoever came."""

    mechanism: Mechanism[Any]
    cohort: Poisson

    def init(self, params: Tree) -> Tree:
        """The mechanism's state."""
        return {"mechanism": self.mechanism.init()}

    def step(
        self, state: Tree, params: Tree, collected: Tree | None, *, cohort_size: int, fleet_size: int, key: Key
    ) -> tuple[Tree, Tree]:
        """Nobody is a sum of zeros."""
        total = trees.zeros(params) if collected is None else collected
        after, noisy = self.mechanism.noise(state["mechanism"], total, (*key, "noise"))
        return {"mechanism": after}, trees.add(params, trees.scale(noisy, 1 / (self.cohort.rate * fleet_size)))


def test_central_privacy() -> None:
    users, steps, seed = (*USERS, "eve"), 6, 2
    mechanism, cohort = Gaussian(clip=0.7, multiplier=0.5), Poisson(0.3)
    given = algorithm(
        Training(), Release(mechanism, cohort), aggregator=ClippedSum(0.7), cohort=cohort, privacy=mechanism
    )

    def with_eve(name: str) -> dict[str, np.ndarray]:
        return {"x": data(name)["x"], "y": data(name)["y"] * (np.nan if name == "eve" else 1)}

    log = simulate(
        fleet=fleet("phones", users, data=with_eve),
        device=Party(skills=(Training,)),
        cloud=rounds(given, steps=steps, seed=seed),
    )
    w, norms, sizes, rejected = START["w"], [], [], []
    for step in range(steps):
        asked = [
            name for name, coin in zip(users, rng((seed, "round", step, "cohort")).random(5), strict=True) if coin < 0.3
        ]
        total = rng((seed, "round", step, "server", "noise", "/w")).normal(scale=0.7 * 0.5, size=WIDTH)
        for name in asked:
            if name != "eve":
                delta = descend(w, data(name), slope_of_square)[0] - w
                norms.append(np.linalg.norm(delta))
                total = total + delta * min(1, 0.7 / norms[-1])
        w = w + total / (0.3 * 5)
        sizes.append(len(asked))
        rejected.append(int("eve" in asked))
    close(log.memory["cloud"]["params"]["w"], w)
    assert [record.metrics["cohort"] for record in log.records] == sizes
    assert [record.metrics["failed"] for record in log.records] == rejected
    assert min(sizes) == 0 < max(rejected), "a round of nobody, and one with a rejected reply"
    assert min(norms) < 0.7 < max(norms), "some are clipped"
    assert given.privacy is not None
    assert given.privacy.event(cohort.sampling, 2) == ("poisson-gaussian", 0.5, 2)
    with pytest.raises(ConfigError, match="fixed-size"):
        given.privacy.event("fixed-size", 2)


# ----------------------------------------------------------------------------------- a fleet-wide call budget

LEAST, MOST, BUDGET, INPUTS = 0.1, 1.0, 40, 30


def price(spent: int) -> float:
    """Zhou, Chakrabarty, Lukose 2008: what a unit of a budget must earn when a share of it is gone."""
    share = spent / BUDGET
    return max(LEAST, float(math.pow(MOST * math.e / LEAST, share)) * LEAST / math.e)


@dataclass(frozen=True)
class Priced(Skill):
    """The cloud's answer, and its price from now on; nothing but the price when the budget is spent."""

    @property
    def writes(self) -> bool:
        """What is spent."""
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Serve, while there is something left."""
        spent = int(local.memory["spent"])
        served = {} if spent == BUDGET else {"logits": tree["x"]}
        spent = min(BUDGET, spent + 1)
        return local.remembering(spent=np.int64(spent)), {**served, "metrics": {"price": np.float64(price(spent))}}


@dataclass(frozen=True)
class WorthIt(Policy[Tree]):
    """Asks where the gain is above the price that was heard last; a price is a reward below zero."""

    def init(self) -> Tree:
        """The least."""
        return {"price": np.float64(LEAST)}

    def choose(self, state: Tree, seen: Seen, key: Key) -> tuple[Tree, Move]:
        """By ``seen.scores``, the gain."""
        return state, Move.sure(np.where(seen.scores > state["price"], Action.ASK, Action.STOP), "worth it")

    def learn(self, state: Tree, seen: Seen, move: Move, reward: Array) -> Tree:
        """The last one heard."""
        return {"price": np.float64(-reward[-1])}


def gains(name: str) -> np.ndarray:
    """What asking about each input would bring."""
    return rng(("gain", name)).uniform(LEAST, MOST, INPUTS)


async def buying(me: Peer, cloud: Peer, local: Local) -> AsyncIterator[Record]:
    """One input at a time, each user at an own moment."""
    held = Held.of(WorthIt())
    for step, gain in enumerate(gains(me.name)):
        await until(len(USERS) * step + USERS.index(me.name) + 1)
        seen = Seen(scores=np.array([gain]))
        move, served = held.choose(seen, (step,)), 0
        if move.action[0] == Action.ASK:
            reply = await cloud.ask(Priced(), {"x": np.array([gain])}, key=(me.name, step))
            assert reply.tree is not None
            said = {name: float(value) for name, value in reply.tree["metrics"].items()}
            served = int("logits" in reply.tree)
            reply = replace(reply, metrics={**reply.metrics, **said})
            held.learn(seen, move, np.array([-reply.metrics["price"]]))
        yield Record("buying", step, {"asked": int(move.action[0] == Action.ASK), "served": served})


def test_a_fleet_wide_call_budget() -> None:
    cloud = Party(skills=(Priced,), local=Local(None, {"spent": np.int64(0)}))
    log = simulate(fleet=fleet("phones", USERS), device=buying, cloud=cloud)
    heard, spent, expected = dict.fromkeys(USERS, LEAST), 0, []
    for step in range(INPUTS):
        for name in USERS:
            asked = gains(name)[step] > heard[name]
            served = asked and spent < BUDGET
            if asked:
                spent = min(BUDGET, spent + 1)
                heard[name] = max(LEAST, LEAST / math.e * math.exp(spent / BUDGET * (1 + math.log(MOST / LEAST))))
            expected.append((name, step, int(asked), int(served)))
    logged = [(record.party, record.step, record.metrics["asked"], record.metrics["served"]) for record in log.records]
    assert logged == expected
    asked_early, asked_late = (sum(row[2] for row in rows) for rows in (expected[:60], expected[60:]))
    assert asked_early > asked_late > 0, "the price rises for all"
    assert sum(row[2] for row in expected) > sum(row[3] for row in expected) == BUDGET, "one asked in vain"


# ------------------------------------------------------------------------------------------------------- views


@dataclass(frozen=True)
class Widths:
    """Diao et al. 2021 (HeteroFL): a weak device has the first columns of the model."""

    widths: tuple[tuple[str, int], ...]

    def travels(self, params: Tree, peer: str) -> Tree:
        """The first columns."""
        return {"w": params["w"][: dict(self.widths)[peer]]}

    def stays(self, params: Tree, peer: str) -> Tree:
        """The others."""
        return {"w": params["w"][dict(self.widths)[peer] :]}

    def join(self, travels: Tree, stays: Tree) -> Tree:
        """One after the other."""
        return {"w": np.concatenate([travels["w"], stays["w"]])}

    def index(self, params: Tree, peer: str) -> Index:
        """Where the part belongs."""
        return {"/w": (params["w"].shape, np.arange(dict(self.widths)[peer]))}


@dataclass(frozen=True)
class Narrow(Average):
    """Sends every peer its part."""

    view: View

    personal: ClassVar[bool] = True

    def send(self, state: Any, params: Tree, peer: Peer | None) -> Tree:
        """The part."""
        assert peer is not None
        return {"params": self.view.travels(params, peer.name)}


@dataclass(frozen=True)
class Partial:
    """Plain collection of parts: the cloud knows which part it has sent to whom."""

    view: Widths

    async def gather(
        self,
        group: Group,
        names: Sequence[str],
        skill: Skill,
        send: Callable[[Peer], Tree],
        *,
        gate: AnyGate,
        aggregator: Aggregator[Any],
        decode: Callable[[Tree], Tree],
        like: Tree,
        key: Key,
        deadline: float | None,
        enough: int | None = None,
    ) -> tuple[Tree | None, Replies]:
        """Ask, decode, index, gate, add."""
        state, replies = aggregator.init(), await group.ask(names, skill, send, key=key, deadline=deadline)
        for reply in replies:
            said = decode(reply.tree)
            index = self.view.index(like, reply.sender)
            part = replace(reply, tree=said["delta"], weight=float(said["weight"]), index=index)
            assert gate(part, like) is None
            state = aggregator.add(state, part)
        return aggregator.finish(state)[1], [replace(reply, tree=None) for reply in replies]


def test_partial_trees() -> None:
    view = Widths((("ada", 1), ("bob", 2), ("cyd", 2), ("dee", 1)))
    collect: Collect = Partial(view)
    log = run(algorithm(Training(), Narrow(view), collect=collect), steps=2)
    w = START["w"]
    for _ in range(2):
        total, count = np.zeros(WIDTH), np.zeros(WIDTH)
        for name, width in view.widths:
            moved = descend(w[:width], data(name), slope_of_square)[0] - w[:width]
            total[:width] += ROWS[name] * moved
            count[:width] += ROWS[name]
        w = w + total / np.where(count > 0, count, 1)
    close(log.memory["cloud"]["params"]["w"], w)
    assert log.memory["cloud"]["params"]["w"][2] == START["w"][2], "nobody had the last column"


@dataclass(frozen=True)
class BodyAndHead:
    """Arivazhagan et al. 2019 (FedPer): the bias is the user's own."""

    def travels(self, params: Tree, peer: str) -> Tree:
        """The body."""
        return {"w": params["w"]}

    def stays(self, params: Tree, peer: str) -> Tree:
        """The head."""
        return {"b": params["b"]}

    def join(self, travels: Tree, stays: Tree) -> Tree:
        """Both."""
        return {**travels, **stays}


@dataclass(frozen=True)
class Personal(FedAvg):
    """Trains body and head; the head stays in the device's memory."""

    view: View = BodyAndHead()

    def start(self, sent: Tree, memory: Mapping[str, Any]) -> Tree:
        """The body that came and the head that is here."""
        return {"params": self.view.join(sent["params"], memory.get("head", {"b": np.zeros(())}))}

    def finish(self, sent: Tree, memory: Mapping[str, Any], trained: Trained) -> tuple[Mapping[str, Any], Tree, float]:
        """Keep the head, send the body's change."""
        delta = trees.subtract(self.view.travels(trained.params, "me"), sent["params"])
        return {**memory, "head": self.view.stays(trained.params, "me")}, delta, float(trained.examples)


def test_a_view_joins_what_travels_and_what_stays() -> None:
    log = run(algorithm(Training(Personal()), Average()), steps=3)
    shares = np.array([ROWS[name] for name in USERS]) / sum(ROWS.values())
    w, heads = START["w"], dict.fromkeys(USERS, 0.0)
    for _ in range(3):
        bodies = []
        for name in USERS:
            one = {"x": np.column_stack([data(name)["x"], np.ones(ROWS[name])]), "y": data(name)["y"]}
            both, _ = descend(np.append(w, heads[name]), one, slope_of_square)
            bodies.append(both[:-1])
            heads[name] = both[-1]
        w = shares @ np.array(bodies)
    close(log.memory["cloud"]["params"]["w"], w)
    for name in USERS:
        close(log.memory[name]["head"]["b"], heads[name])


@pytest.mark.parametrize("view", [Widths((("ada", 2),)), BodyAndHead()], ids=["widths", "head"])
def test_nothing_is_lost_between_travels_and_stays(view: View) -> None:
    params = {"w": np.arange(3.0), **({"b": np.array(5.0)} if isinstance(view, BodyAndHead) else {})}
    joined = view.join(view.travels(params, "ada"), view.stays(params, "ada"))
    assert trees.encode(joined) == trees.encode(params)


# ------------------------------------------------------------------------------------------------------- house


def imported(source: str) -> set[str]:
    """The names that a file takes from the types."""
    return {
        alias.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.module == "duetto.types"
        for alias in node.names
    }


def test_every_type_is_used() -> None:
    house = Path(duetto.__path__[0])
    defined = set()
    for node in ast.parse((house / "types.py").read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            defined.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            defined.add(node.target.id)
    public = {name for name in defined if not name.startswith("_")}
    assert {"Skill", "rng", "Key", "Role"} <= public
    files = [file for file in (*house.rglob("*.py"), Path(__file__)) if file != house / "types.py"]
    assert public - set().union(*(imported(file.read_text("utf-8")) for file in files)) == set()


def test_the_fleet_of_these_cases_is_real() -> None:
    phones = fleet("phones", USERS, data=data)
    assert isinstance(phones, Fleet)
    assert len({phones.of(name).flops for name in USERS}) > 1
