"""The laws of every algorithm, found by walking the room: one paper, one short file, parts that can be changed.

A builder is a public function of a module of ``duetto.algorithms`` that returns an :class:`Algorithm`; one that
cannot be built from what is GIVEN, by the names of its parameters, and a learning rate needs a line in OWN or BUILT.
"""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_type_hints

import numpy as np
import pytest

from duetto import algorithms
from duetto import tree as trees
from duetto.models import Mlp
from duetto.models.principal import principal
from duetto.policies import Everyone, Uniform
from duetto.programs.given import Given, built
from duetto.protocols import rounds
from duetto.simulation.engine import Log, Saved, simulate
from duetto.simulation.fleet import fleet
from duetto.training import SGD, Client, Cohort, Contrast, Distil, Proximal, Sequential
from duetto.tree import Tree
from duetto.types import Action, Algorithm, Key, Local, Move, Party, Policy, Reply, Rows, Seen, Skill

NET, OTHER = Mlp((3,), 2, (4,)), Mlp((3,), 2, (5,))
PARAMS = NET.init(0)
USERS = {"ann": 5, "ben": 9, "eve": 4}
OWN: dict[str, Mapping[str, Any]] = {
    "ditto": {"lam": 0.1},
    "fedagg": {"nets": (NET, OTHER, Mlp((3,), 2, (8,))), "bridge": 3},
    "fedadagrad": {"server_lr": 0.03},
    "fedadam": {"server_lr": 0.03},
    "feddyn": {"alpha": 0.1},
    "fedgkt": {"cut": 2, "shown": 4, "server": Mlp((4,), 2, (8,))},
    "fedprox": {"mu": 0.1},
    "fedrolex": {"levels": (1.0,)},
    "fedyogi": {"server_lr": 0.03},
    "heterofl": {"levels": (1.0,)},
    "ifca": {"spread": 30.0},
    "per_fedavg": {"alpha": 0.05},
    "pfedme": {"lam": 2.0, "eta": 0.2},
}
PUBLIC = np.random.default_rng(4).normal(size=(6, 3)).astype(np.float32)
CODER = principal(PUBLIC, 2)
CLOUD = (OTHER, OTHER.init(1))
MORE = {"slow": CLOUD, "edges": (("ann", "ben"), ("eve",)), "autoencoder": CODER}
GIVEN = Given(NET, PARAMS, (NET, OTHER), PUBLIC, Rows(PUBLIC, np.arange(6) % 2), CLOUD, NET, MORE)
BUILT: dict[str, Callable[[Any], Algorithm]] = {
    "taught": lambda build: build(
        Client(NET, (Distil(1.0, 1.0),), SGD(0.1), 1, 4, lessons="lessons"), PARAMS, cohort=Everyone()
    ),
}
APART = {"LoraClient", "HalfLoraClient", "DesignClient", "LogitsClient", "PatchClient", "ProbabilitiesClient"}
APART |= {"ControlledClient", "DuetClient", "AlignedClient"}
MANY = {"DesignClient", "LogitsClient", "ProbabilitiesClient"}  # devices have networks of several designs
# The cloud learns by itself, or what is learned is more than a network.
MANY |= {"PatchClient", "DuetClient", "FastClient", "AlignedClient", "Bridged", "Extractor"}
MODULES = sorted(info.name for info in pkgutil.iter_modules(algorithms.__path__, "duetto.algorithms."))
PAPERS = [name for name in MODULES if name != "duetto.algorithms.common"]
OTHERS = {"duetto.algorithms.split"}  # what they build runs by a protocol of its own, and is no Algorithm


def builders() -> dict[str, Callable[..., Any]]:
    """Every builder by name."""
    found = {}
    for name in PAPERS:
        module = importlib.import_module(name)
        for each, function in inspect.getmembers(module, inspect.isfunction):
            public = function.__module__ == name and not each.startswith("_") and each != "at"
            if public and get_type_hints(function, vars(importlib.import_module(name))).get("return") is Algorithm:
                found[each] = function
    return found


@pytest.fixture(params=builders())
def algorithm(request: pytest.FixtureRequest) -> Algorithm:
    """One built with few settings; a row a step, so that order and drift tell."""
    build, own = builders()[request.param], OWN.get(request.param, {})
    made = BUILT[request.param](build) if request.param in BUILT else built(build, GIVEN, lr=0.1, epochs=1, **own)
    return replace(made, client=replace(made.client, batch_size=1, epochs=2, executor=Sequential()))


def data(user: str) -> Rows:
    """What a user holds."""
    draw = np.random.default_rng(len(user) + ord(user[0]))
    x = draw.normal(size=(USERS[user], 3)).astype(np.float32)
    return Rows(x, (x.sum(1) > 0).astype(np.int64))


def memory() -> dict[str, Any]:
    """What a device was taught: the first four rows."""
    logits = np.array([[2.0, -1.0], [-0.5, 1.5], [0.2, 0.3], [-1.0, 3.0]], np.float32)
    return {
        "params": PARAMS,
        "lessons": {"rows": np.arange(4), "logits": logits},
        "public": PUBLIC,
        "autoencoder": CODER,
    }


def lived(algorithm: Algorithm, steps: int = 2, seed: int = 0, **more: Any) -> Log:
    """A few rounds in a fleet of three."""
    return simulate(
        fleet=fleet("phones", list(USERS), data=data, memory=memory()),
        device=Party(skills=(type(algorithm.client),)),
        cloud=rounds(algorithm, steps=steps, seed=seed),
        **more,
    )


def test_the_walk_finds_the_algorithms() -> None:
    assert {*algorithms.__all__, "taught"} == set(builders())
    homes = {function.__module__ for function in builders().values()}
    assert homes == set(PAPERS) - OTHERS, "a module without a builder"


@pytest.mark.parametrize("name", PAPERS)
def test_an_algorithm_is_one_short_file_with_its_paper(name: str) -> None:
    module = importlib.import_module(name)
    source = inspect.getsource(module)
    assert len(source.splitlines()) < 100
    assert re.search(r"[A-Z]\w+.*\b(19|20)\d\d\b", module.__doc__ or "", re.S), "who wrote it, and when"
    assert not re.search(r"\.backward\(|optimizer|\.step\(\)", source), "no algorithm writes a training loop"


def test_it_learns_and_the_same_seed_learns_the_same(algorithm: Algorithm) -> None:
    once, again = lived(algorithm), lived(algorithm)
    assert [record.metrics["failed"] for record in once.records] == [0, 0]
    assert trees.norm(trees.subtract(once.memory["cloud"]["params"], algorithm.params)) > 1e-4
    assert once.records == again.records
    assert trees.encode(once.memory["cloud"]) == trees.encode(again.memory["cloud"])
    other = lived(algorithm, seed=1)
    assert trees.encode(other.memory["cloud"]["params"]) != trees.encode(once.memory["cloud"]["params"])


def test_more_rounds_begin_with_the_fewer(algorithm: Algorithm) -> None:
    assert lived(algorithm, 3).records[:2] == lived(algorithm, 2).records


def test_stopping_anywhere_changes_nothing(algorithm: Algorithm) -> None:
    """What cloud and devices remember is all that counts, also of those who pause."""
    algorithm = replace(algorithm, cohort=Uniform(2))
    saves: list[Saved] = []
    whole = lived(algorithm, 4, on_save=saves.append)
    assert len(saves) == 4
    for save in saves[:-1]:
        kept = Saved(trees.decode(trees.encode(save.state)), save.records)
        rest = lived(algorithm, 4, resume=kept)
        assert rest.records == whole.records[save.records :]
        assert {name: trees.encode(each) for name, each in rest.memory.items()} == {
            name: trees.encode(each) for name, each in whole.memory.items()
        }


def test_a_cohort_in_one_call_learns_the_same(algorithm: Algorithm) -> None:
    """To rounding in float64, over rounds in which clients have come to remember."""
    precise = replace(algorithm, params=trees.map(lambda leaf: leaf.astype(np.float64), algorithm.params))
    together = replace(precise, client=replace(precise.client, executor=Cohort(1)))
    one, other = (lived(each, 3).memory for each in (precise, together))
    assert list(one) == list(other)
    for name in one:
        trees.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10), one[name], other[name])


def test_what_a_cohort_sends_stays_together(algorithm: Algorithm) -> None:
    """A change that is only sent on, whole, never becomes arrays."""
    alone = any(isinstance(term, Contrast) for term in algorithm.client.loss)
    if alone or (type(algorithm.client).__call__, algorithm.view) != (Client.__call__, None):
        pytest.skip("trains in its own way, or sends a part")
    client, server = replace(algorithm.client, executor=Cohort(1)), algorithm.server
    if type(client).__name__ in APART:
        pytest.skip("a network that is trained client by client")
    sent = server.send(server.init(PARAMS), PARAMS, None)
    locals = [Local(data(user), memory()) for user in USERS]
    answers = client.many(locals, [sent] * 3, [("key", user) for user in USERS], ["cloud"] * 3)
    assert [trees.bundled(answer["delta"]) for _, answer in answers] == [True] * 3


def test_every_part_can_be_changed(algorithm: Algorithm) -> None:
    assert replace(algorithm) == algorithm
    if type(algorithm.client).__name__ in MANY:
        return
    assert trees.encode(algorithm.params) == trees.encode(PARAMS)
    still = replace(algorithm, client=replace(algorithm.client, epochs=0))
    assert trees.encode(lived(still).memory["cloud"]["params"]) == trees.encode(PARAMS)


def test_without_a_pull_to_the_start_proximal_is_plain(algorithm: Algorithm) -> None:
    """Limit law: mu = 0 is FedAvg, bit for bit."""
    plain = lived(algorithm).memory["cloud"]["params"]
    for mu, same in ((0.0, True), (5.0, False)):
        client = replace(algorithm.client, loss=(*algorithm.client.loss, Proximal(mu)))
        pulled = lived(replace(algorithm, client=client)).memory["cloud"]["params"]
        assert (trees.encode(pulled) == trees.encode(plain)) == same


def frozen(tree: Tree, value: float | None = None) -> Tree:
    """A copy that nobody can write to, filled with ``value`` where one is given."""

    def copied(leaf: Any) -> np.ndarray:
        copy = np.array(leaf) if value is None else np.full_like(leaf, value)
        copy.setflags(write=False)
        return copy

    return trees.map(copied, tree)


def gathered(algorithm: Algorithm) -> Tree:
    """What the server is given where one device has answered with a change that is the same everywhere."""
    change = frozen(algorithm.server.expects(algorithm.params), 0.25)
    state = algorithm.aggregator.add(algorithm.aggregator.init(), Reply("ann", change))
    return frozen(algorithm.aggregator.finish(state)[1])


def test_a_server_s_step_is_pure_and_keeps_dtypes(algorithm: Algorithm) -> None:
    server, params = algorithm.server, frozen(algorithm.params)
    state, collected = frozen(server.init(params)), gathered(algorithm)
    once, again = (server.step(state, params, collected, cohort_size=2, fleet_size=3, key=(0,)) for _ in range(2))
    assert trees.encode(once[0]) == trees.encode(again[0])
    assert trees.encode(once[1]) == trees.encode(again[1]) != trees.encode(params)
    assert trees.spec(once[1]) == trees.spec(params)
    assert _spec(once[0]) == _spec(state)


def _spec(state: Any) -> Any:
    """Of what a server remembers, but for what it has ``said`` to each device, which grows with them."""
    return trees.spec({name: leaf for name, leaf in state.items() if name != "said"} if state else state)


def test_a_round_without_answers_changes_nothing(algorithm: Algorithm) -> None:
    server = algorithm.server
    collected = gathered(algorithm)
    before = server.step(
        server.init(algorithm.params), algorithm.params, collected, cohort_size=2, fleet_size=3, key=(0,)
    )
    after = server.step(*before, None, cohort_size=0, fleet_size=3, key=(1,))
    assert [trees.encode(each) for each in after] == [trees.encode(each) for each in before]


@dataclass(frozen=True)
class Mixed(Skill):
    """Everybody trains as told, but ben, who has another network."""

    own: Skill
    other: Algorithm

    @property
    def writes(self) -> bool:
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        if len(local.data) != USERS["ben"]:
            return self.own(local, tree, key, sender)
        server, params = self.other.server, self.other.params
        return self.other.client(local, server.send(server.init(params), params, None), key, sender)


@dataclass(frozen=True)
class NotBen(Policy[Any]):
    """Ann and Eve."""

    def choose(self, state: Any, seen: Seen, key: Key) -> tuple[Any, Move]:
        return state, Move.sure(np.array([Action.ASK, Action.STOP, Action.ASK]), "those two")


def test_a_client_with_another_network_is_rejected_and_costs_nobody_anything(algorithm: Algorithm) -> None:
    client = algorithm.client
    if type(client).__name__ in MANY:
        pytest.skip("there is no one network")
    other = replace(algorithm, params=OTHER.init(0), client=replace(client, net=OTHER))
    with_ben = lived(replace(algorithm, client=Mixed(client, other)))
    assert [record.metrics["failed"] for record in with_ben.records] == [1, 1]
    for record in with_ben.records:
        assert re.fullmatch(r"ben: rejected: the leaf \S+ has shape \(.*\b5\b.*", str(record.metrics["failures"]))
    without = lived(replace(algorithm, cohort=NotBen()))
    same = [trees.encode(log.memory["cloud"]["rounds"]["server"]) for log in (with_ben, without)]
    assert same[0] == same[1]
    same = [trees.encode(log.memory["cloud"]["params"]) for log in (with_ben, without)]
    assert same[0] == same[1]
