"""The laws of every algorithm, found by walking the room: one paper, one short file, parts that can be changed.

A builder is a public function of a module of ``duetto.algorithms`` that returns an :class:`Algorithm`; one that
cannot be built from a network, its parameters and a learning rate needs a line in BUILT.
"""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_type_hints

import numpy as np
import pytest

from duetto import algorithms
from duetto import tree as trees
from duetto.models import Mlp
from duetto.policies import Everyone
from duetto.protocols import rounds
from duetto.simulation.engine import Log, simulate
from duetto.simulation.fleet import fleet
from duetto.training import SGD, Client, Distil, Proximal
from duetto.types import Algorithm, Party, Rows

NET = Mlp((3,), 2, (4,))
PARAMS = NET.init(0)
USERS = {"ann": 5, "ben": 9, "eve": 4}
BUILT: dict[str, Callable[[Any], Algorithm]] = {
    "taught": lambda build: build(
        Client(NET, (Distil(1.0, 1.0),), SGD(0.1), 1, 4, lessons="lessons"), PARAMS, cohort=Everyone()
    ),
}
MODULES = sorted(info.name for info in pkgutil.iter_modules(algorithms.__path__, "duetto.algorithms."))


def builders() -> dict[str, Callable[..., Any]]:
    """Every builder by name."""
    found = {}
    for name in MODULES:
        module = importlib.import_module(name)
        for each, function in inspect.getmembers(module, inspect.isfunction):
            public = function.__module__ == name and not each.startswith("_") and each != "at"
            if public and get_type_hints(function, vars(importlib.import_module(name))).get("return") is Algorithm:
                found[each] = function
    return found


@pytest.fixture(params=builders())
def algorithm(request: pytest.FixtureRequest) -> Algorithm:
    """One built with few settings; a row a step, so that order and drift tell."""
    build = builders()[request.param]
    built = BUILT[request.param](build) if request.param in BUILT else build(NET, PARAMS, lr=0.1, epochs=1)
    return replace(built, client=replace(built.client, batch_size=1, epochs=2))


def data(user: str) -> Rows:
    """What a user holds."""
    draw = np.random.default_rng(len(user) + ord(user[0]))
    x = draw.normal(size=(USERS[user], 3)).astype(np.float32)
    return Rows(x, (x.sum(1) > 0).astype(np.int64))


def memory() -> dict[str, Any]:
    """What a device was taught: the first four rows."""
    logits = np.array([[2.0, -1.0], [-0.5, 1.5], [0.2, 0.3], [-1.0, 3.0]], np.float32)
    return {"params": PARAMS, "lessons": {"rows": np.arange(4), "logits": logits}}


def lived(algorithm: Algorithm, steps: int = 2, seed: int = 0) -> Log:
    """A few rounds in a fleet of three."""
    return simulate(
        fleet=fleet("phones", list(USERS), data=data, memory=memory()),
        device=Party(skills=(type(algorithm.client),)),
        cloud=rounds(algorithm, steps=steps, seed=seed),
    )


def test_the_walk_finds_the_algorithms() -> None:
    assert {"fedavg", "taught"} <= set(builders())
    assert {name.rpartition(".")[2] for name in MODULES} <= set(builders()), "a module without a builder of its name"


@pytest.mark.parametrize("name", MODULES)
def test_an_algorithm_is_one_short_file_with_its_paper(name: str) -> None:
    module = importlib.import_module(name)
    source = inspect.getsource(module)
    assert len(source.splitlines()) < 100
    assert re.search(r"[A-Z]\w+.*\b(19|20)\d\d\b", module.__doc__ or "", re.S), "who wrote it, and when"
    assert not re.search(r"\.backward\(|optimizer|\.step\(\)", source), "no algorithm writes a training loop"


def test_it_learns_and_the_same_seed_learns_the_same(algorithm: Algorithm) -> None:
    once, again = lived(algorithm), lived(algorithm)
    assert [record.metrics["failed"] for record in once.records] == [0, 0]
    assert trees.norm(trees.subtract(once.memory["cloud"]["params"], PARAMS)) > 1e-4
    assert once.records == again.records
    assert trees.encode(once.memory["cloud"]) == trees.encode(again.memory["cloud"])
    other = lived(algorithm, seed=1)
    assert trees.encode(other.memory["cloud"]["params"]) != trees.encode(once.memory["cloud"]["params"])


def test_more_rounds_begin_with_the_fewer(algorithm: Algorithm) -> None:
    assert lived(algorithm, 3).records[:2] == lived(algorithm, 2).records


def test_every_part_can_be_changed(algorithm: Algorithm) -> None:
    assert replace(algorithm) == algorithm
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
