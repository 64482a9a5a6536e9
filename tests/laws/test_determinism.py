"""Same seed, same log, bit for bit; another seed, another log. Nothing but keys and seeds decides."""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.aggregation import Gate, Mean
from duetto.codecs import Quantise, Zstd
from duetto.policies import Budgeted, Threshold, Uniform
from duetto.protocols import Coded, Plain, answer, rounds
from duetto.simulation.engine import Log, simulate
from duetto.simulation.fleet import fleet
from duetto.simulation.link import named
from duetto.tree import Tree
from duetto.types import (
    Algorithm,
    Chain,
    Held,
    Key,
    Local,
    Party,
    Peer,
    Record,
    ServerUpdate,
    Skill,
    Work,
    rng,
)


@dataclass(frozen=True)
class Judge(Skill):
    """Logits, a little noisy by key."""

    noise: float = 0.1

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        return local, {"logits": tree["x"] + self.noise * rng(key).normal(size=tree["x"].shape)}

    def work(self, local: Local, tree: Tree) -> Work:
        return Work(1e9)


@dataclass(frozen=True)
class Wander(Skill):
    """A delta drawn by key around the party's data."""

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        delta = {"w": 0.3 * (local.data - tree["params"]["w"]) + 0.1 * rng(key).normal(size=4)}
        return local.remembering(last=delta["w"]), {"delta": delta, "weight": np.float64(1), "metrics": {}}

    @property
    def writes(self) -> bool:
        return True

    def work(self, local: Local, tree: Tree) -> Work:
        return Work(5e9)


@dataclass(frozen=True)
class Step(ServerUpdate[Any]):
    def step(
        self, state: Any, params: Tree, collected: Tree | None, *, cohort_size: int, fleet_size: int, key: Key
    ) -> tuple[Any, Tree]:
        return state, params if collected is None else trees.add(params, collected)


UP = Chain((Quantise(8, stochastic=True), Zstd()))
ALGORITHM = Algorithm(
    Wander(), {"w": np.zeros(4)}, Step(), Mean(), Uniform(3), Gate(norm=None), Plain(), up=UP, down=UP
)


def lived(seed: int, *, names: int = 9, on_record: Any = lambda record: None) -> Log:
    """Devices that answer together with a cloud that also teaches them; one seed for all of it."""

    async def device(me: Peer, cloud: Peer, local: Local) -> AsyncIterator[Record]:
        held = Held.of(Budgeted(Threshold(0.7), 0.4))
        for i in range(6):
            await asyncio.sleep(float(rng((seed, me.name, i, "pause")).exponential(2)))
            given = await answer(
                rng((seed, me.name, i)).normal(size=3),
                me=me,
                exits={0: Judge(0.5)},
                peers={"cloud": cloud},
                question=Coded(Judge(0.0), Quantise(8), Zstd()),
                policy=held,
                key=(seed, me.name, i),
                deadline=0.4,
            )
            yield Record.of(given, step=i)

    return simulate(
        fleet=fleet("phones", [f"n{i}" for i in range(names)], data=lambda n: np.arange(4.0) + int(n[1:]), seed=seed),
        device=Party((device,), (Judge, Wander)),
        cloud=Party((rounds(ALGORITHM, steps=4, seed=seed),), (Judge,)),
        network="synthetic",
        seed=seed,
        on_record=on_record,
    )


def told(log: Log) -> bytes:
    """A log as bytes: every record to its last bit, and every memory."""
    records = "\n".join(json.dumps(asdict(record), sort_keys=True) for record in log.records)
    return records.encode() + b"".join(name.encode() + trees.encode(log.memory[name]) for name in sorted(log.memory))


def test_same_seed_same_log_and_another_seed_another() -> None:
    first = lived(3)
    assert told(first) == told(lived(3))
    other = lived(4)
    assert told(first) != told(other)
    for kind in ("answer", "rounds"):  # in every part of it
        mine, its = ([replace(r, time=0.0) for r in log.records if r.protocol == kind] for log in (first, other))
        assert mine != its
    asked = [record.metrics["asked"] for record in first.records if record.protocol == "answer"]
    assert 0 < sum(int(each) for each in asked) < len(asked)  # both kinds of answer were lived


def test_records_are_logged_in_order_of_time_as_they_come() -> None:
    heard: list[Record] = []
    log = lived(3, on_record=heard.append)
    assert heard == list(log.records)
    times = [record.time for record in heard]
    assert times == sorted(times)
    assert {record.party for record in heard} == {"cloud", *(f"n{i}" for i in range(9))}


@pytest.mark.parametrize("hashes", ["1", "2"])
def test_neither_hashes_nor_the_process_decide(hashes: str) -> None:
    code = (
        "import hashlib, importlib.util, sys;"
        f"spec = importlib.util.spec_from_file_location('lived', {__file__!r});"
        "module = sys.modules['lived'] = importlib.util.module_from_spec(spec); spec.loader.exec_module(module);"
        "print(hashlib.sha256(module.told(module.lived(3))).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONHASHSEED": hashes},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == hashlib.sha256(told(lived(3))).hexdigest()


def test_a_user_s_link_is_its_own_whoever_else_is_there() -> None:
    links = {n: named("synthetic").link((0, "link", "n1")) for n in range(2)}
    assert (links[0].offset, links[0].down.name) == (links[1].offset, links[1].down.name)
    few, many = lived(3, names=2), lived(3, names=9)
    mine = [[r.cost for r in log.records if r.party == "n1" and not r.metrics["asked"]] for log in (few, many)]
    # What n1 answers alone, it answers alike and at the same cost, except behind the training it was asked for.
    assert {cost.joules for cost in mine[0]} == {cost.joules for cost in mine[1]}
