"""Fleets: columns and nothing else, devices that belong to their users, and errors for what cannot be."""

import gc
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duetto.errors import ConfigError
from duetto.simulation import energy
from duetto.simulation.engine import _Member, simulate
from duetto.simulation.fleet import Fleet, fleet
from duetto.tree import Tree
from duetto.types import Group, Key, Local, Party, Record, Skill


@dataclass(frozen=True)
class Look(Skill):
    """How much data there is."""

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        return local, {"n": np.int64(len(local.data))}


@dataclass(frozen=True)
class Count(Skill):
    """How often it was asked."""

    @property
    def writes(self) -> bool:
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        return local.remembering(count=local.memory["count"] + 1), {"count": local.memory["count"]}


def members() -> int:
    """How many parties exist at this moment, the cloud's among them."""
    gc.collect()
    return sum(type(thing) is _Member for thing in gc.get_objects())


def test_a_hundred_thousand_at_rest_are_only_columns():
    loads: list[str] = []

    def data(name: str) -> list[int]:
        loads.append(name)
        return [0] * int(name.removeprefix("user-"))

    everyone = fleet("phones", 100_000, data=data)
    most: list[int] = []
    before = members()  # a failed test elsewhere may keep its world

    async def cloud(fleet: Group) -> AsyncIterator[Record]:
        for name in ("user-7", "user-99999", "user-7"):
            reply = await fleet.peer(name).ask(Look(), {}, key=(name,))
            most.append(members() - before)
            yield Record("asked", metrics={"n": int(reply.tree["n"])})

    log = simulate(fleet=everyone, device=Party(skills=(Look,)), cloud=cloud, network="constant-10")
    assert [record.metrics["n"] for record in log.records] == [7, 99_999, 7]
    assert loads == ["user-7", "user-99999", "user-7"]  # only while asked
    assert most == [1, 1, 1]  # the cloud; a device is let go before its asker goes on
    assert log.memory == {}


def test_asking_for_what_is_not_offered_leaves_no_device_behind():
    left: list[int] = []
    before = members()

    async def cloud(fleet: Group) -> AsyncIterator[Record]:
        for name in fleet.names[:50]:
            await fleet.peer(name).ask(Look(), {}, key=())
        left.append(members() - before)
        yield Record("asked")

    simulate(fleet=fleet("phones", 100), cloud=cloud, network="constant-10")
    assert left == [1]


def test_the_memory_of_a_device_at_rest_is_kept_and_the_first_one_is_everybody_s():
    first = {"count": np.int64(5)}
    everyone = fleet("mid-phone", ["ann", "bob", "cem"], memory=first, data=lambda name: [])

    async def cloud(fleet: Group) -> AsyncIterator[Record]:
        for name in ("ann", "bob", "ann", "ann"):
            reply = await fleet.peer(name).ask(Count(), {}, key=())
            yield Record("asked", metrics={"count": int(reply.tree["count"])})

    log = simulate(fleet=everyone, device=Party(skills=(Count,)), cloud=cloud, network="constant-10")
    assert [record.metrics["count"] for record in log.records] == [5, 5, 6, 7]
    assert {name: int(memory["count"]) for name, memory in log.memory.items()} == {"ann": 8, "bob": 6}
    assert first == {"count": 5}
    assert everyone.memory == {"count": 5}


names = st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=20, unique=True)


@given(names, names, st.integers(0, 5))
def test_a_user_keeps_the_device_whoever_else_is_there(some: list[str], others: list[str], seed: int):
    few = fleet("phones", some, seed=seed)
    many = fleet("phones", [name for name in others if name not in some] + some[::-1], seed=seed)
    assert [few.of(name) for name in some] == [many.of(name) for name in some]


def test_counted_users_keep_theirs_too_and_a_seed_draws_anew():
    few, many = fleet("phones", 50), fleet("phones", 5000)
    assert (few.profile == many.profile[:50]).all()
    assert (fleet("phones", 50, seed=1).profile != few.profile).any()


@pytest.mark.parametrize("users", [20_000, [f"name {i}" for i in range(5_000)]])
@pytest.mark.parametrize("mix", ["phones", "boards"])
def test_profiles_are_drawn_by_the_shares_of_the_mix(mix: str, users: int | Sequence[str]):
    drawn = fleet(mix, users)
    n = len(drawn)
    for i, (name, share) in enumerate(energy.mix(mix).items()):
        assert drawn.profiles[i] == energy.profiles()[name]
        assert (drawn.profile == i).mean() == pytest.approx(share, abs=5 * np.sqrt(share * (1 - share) / n))


def test_columns_and_traits():
    made = fleet("phones", ["ann", "bob", "cem"], examples=[3, 0, 9])
    assert len(made) == 3
    assert made.row == {"ann": 0, "bob": 1, "cem": 2}
    assert made.traits["examples"].tolist() == [3, 0, 9]
    assert made.traits["flops"].tolist() == [made.of(name).flops for name in made.names]
    assert fleet("phones", 4).traits["examples"].tolist() == [1, 1, 1, 1]
    assert set(fleet("mid-phone", 9).profile.tolist()) == {0}


@pytest.mark.parametrize(
    ("mix", "users", "examples"),
    [
        ("no-such-mix", 3, None),
        ("phones", 0, None),
        ("phones", -1, None),
        ("phones", [], None),
        ("phones", ["ann", "bob", "ann"], None),
        ("phones", ["ann", "bob"], [1]),
        ("phones", ["ann", "bob"], [1, 2, 3]),
    ],
)
def test_a_fleet_that_cannot_be(mix: str, users: int | Sequence[str], examples: Sequence[int] | None):
    with pytest.raises(ConfigError):
        fleet(mix, users, examples=examples)


def test_columns_of_other_lengths_cannot_be():
    with pytest.raises(ConfigError, match="2 names, 1 profiles, 2 counts"):
        Fleet(("ann", "bob"), (energy.profiles()["mid-phone"],), np.zeros(1, np.int64), np.ones(2, np.int64))
