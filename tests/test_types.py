"""Types: randomness by key, costs, cells, chains, moves, held policies and records."""

import asyncio
import inspect
from dataclasses import dataclass, fields
from itertools import pairwise, product
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given

from duetto import tree as trees
from duetto import types
from duetto.errors import ConfigError, DataError, Error, WireError
from duetto.tree import Shaped, Spec, Tree
from duetto.types import (
    Action,
    Answer,
    Chain,
    Codec,
    Cost,
    Domain,
    Held,
    Key,
    Local,
    Move,
    Outcomes,
    Policy,
    Record,
    Rows,
    Seen,
    rng,
)

COSTS = st.builds(Cost, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))


@dataclass(frozen=True)
class Add(Codec[Tree]):
    """Adds a number to every leaf; the domains are what a test wants."""

    number: float
    takes: frozenset[Domain] = frozenset({Domain.FLOATS})
    gives: Domain = Domain.FLOATS

    def init(self) -> Tree:
        """How often it was used."""
        return np.int64(0)

    def encode(self, state: Tree, tree: Tree, key: Key) -> tuple[Tree, Tree]:
        """Add, and what the key draws."""
        return state + 1, trees.map(lambda leaf: leaf * 2 + self.number + rng(key).integers(1000), tree)

    def decode(self, tree: Tree) -> Tree:
        """Not the key's part."""
        return trees.map(lambda leaf: (leaf - self.number) / 2, tree)

    def becomes(self, spec: Spec) -> Spec | None:
        """The same, or unknown for bytes."""
        return None if self.gives is Domain.BYTES else spec


def domain(takes: set[Domain], gives: Domain) -> Add:
    """A codec of these domains."""
    return Add(1.0, frozenset(takes), gives)


LOSSY = domain({Domain.FLOATS}, Domain.CODES)
PACK = domain({Domain.CODES, Domain.FLOATS}, Domain.BYTES)
SPARSE = domain({Domain.FLOATS}, Domain.FLOATS)


# ------------------------------------------------------------------------------------------------------ chains


def nestings(codecs: tuple[Codec[Any], ...]) -> list[Chain]:
    """The codecs in a row, with chains, empty ones too, around and between them."""
    rows = [Chain(codecs), Chain((Chain(codecs),)), Chain((Chain(), *codecs, Chain((Chain(),))))]
    for at in range(len(codecs) + 1):
        rows.append(Chain((Chain(codecs[:at]), Chain(), Chain((Chain(codecs[at:]),)))))
    return rows


def test_a_chain_is_checked_through_the_chains_in_it() -> None:
    for row in product((LOSSY, PACK, SPARSE), repeat=3):
        fits = all(before.gives in after.takes for before, after in pairwise(row))
        if fits:
            for chain in nestings(row):
                assert (chain.takes, chain.gives) == (row[0].takes, row[-1].gives)
            continue
        for at in range(len(row) + 1):
            with pytest.raises(ConfigError, match="cannot take the"):
                Chain((Chain(row[:at]), Chain(), Chain((Chain(row[at:]),))))


def test_an_empty_chain_takes_everything_and_is_the_identity() -> None:
    for chain in nestings(()):
        assert (chain.takes, chain.gives) == (frozenset(Domain), Domain.FLOATS)
        x = {"a": np.ones(2)}
        assert chain.encode(chain.init(), x, (1,))[1] is x
        assert chain.decode(x) is x
        assert chain.size({"a": Shaped((2,))}) == trees.size({"a": Shaped((2,))})
    assert Chain((PACK, Chain())).gives is Domain.BYTES
    with pytest.raises(ConfigError, match="cannot take the bytes of Add"):
        Chain((Chain((PACK, Chain())), LOSSY))


def test_every_codec_of_a_chain_has_its_own_state_and_key() -> None:
    chain = Chain((Add(3.0), Add(5.0)))
    state, coded = chain.encode(chain.init(), np.array(10.0), ("k",))
    drawn = [int(rng(("k", i)).integers(1000)) for i in range(2)]
    assert drawn[0] != drawn[1]
    assert (state, float(coded)) == ((1, 1), (10 * 2 + 3 + drawn[0]) * 2 + 5 + drawn[1])
    assert chain.encode(state, coded, ("k",))[0] == (2, 2)
    assert float(chain.decode(np.array(100.0))) == ((100 - 5) / 2 - 3) / 2
    assert Chain((SPARSE, PACK)).size({"a": Shaped((2,))}) is None


def test_a_codec_states_its_domains() -> None:
    members = {name: getattr(Add, name) for name in ("encode", "decode", "becomes")}
    with pytest.raises(TypeError, match=r"gives.*takes"):
        type("Silent", (Codec,), members)()


# ------------------------------------------------------------------------------------------------------- keys


def test_a_key_draws_the_same_wherever_and_whenever() -> None:
    assert rng((0, "a")).integers(2**62) == rng((0, "a")).integers(2**62)
    keys: list[Key] = [(0, "a"), (0, "b"), ("0", "a"), ("a", 0), (0, "a", 0), (), (0,), ("0",), ("",), ("a",), (1, 1)]
    drawn = [int(rng(key).integers(2**62)) for key in keys]
    assert len(set(drawn)) == len(keys)


PARTS = st.lists(st.integers(0, 9) | st.text("\x1f:a", max_size=3) | st.sampled_from(["str:", "int:0"]), max_size=3)


@given(PARTS, PARTS)
@example(["a", "b"], ["a\x1fstr:b"])
@example(["\x1f", "a"], ["", "\x1fa"])
def test_different_keys_draw_differently(left: list[int | str], right: list[int | str]) -> None:
    assert (rng(tuple(left)).integers(2**62) == rng(tuple(right)).integers(2**62)) == (left == right)


# ----------------------------------------------------------------------------------------------------- parties


@given(COSTS, COSTS)
def test_costs_add_field_by_field(left: Cost, right: Cost) -> None:
    total = left + right
    assert [getattr(total, field.name) for field in fields(Cost)] == [
        getattr(left, field.name) + getattr(right, field.name) for field in fields(Cost)
    ]


def test_remembering_leaves_the_cell_as_it_was() -> None:
    local = Local("data", {"a": 1, "b": 2})
    after = local.remembering(b=3, c=4)
    assert (local.data, local.memory) == ("data", {"a": 1, "b": 2})
    assert (after.data, after.memory) == ("data", {"a": 1, "b": 3, "c": 4})


def test_rows_are_iterated_and_have_parts() -> None:
    rows = Rows(np.array([[1.0], [2.0], [3.0]]), np.array([0, 1, 2]), {"held": np.array([2, 0])})

    async def seen() -> list[tuple[float, int]]:
        return [(float(x[0]), y) async for x, y in rows]

    assert (len(rows), asyncio.run(seen())) == (3, [(1.0, 0), (2.0, 1), (3.0, 2)])
    held = rows.part("held")
    assert (held.x.tolist(), held.y.tolist()) == ([[3.0], [1.0]], [2, 0])
    with pytest.raises(ConfigError, match=r"no part 'stream': it has \['held'\]"):
        rows.part("stream")


# ------------------------------------------------------------------------------------------------------- parts


@dataclass(frozen=True)
class Counting(Policy[Tree]):
    """Asks once; counts what it chose and adds up what it learned."""

    def init(self) -> Tree:
        """Nothing yet."""
        return {"chosen": np.int64(0), "reward": np.float64(0)}

    def choose(self, state: Tree, seen: Seen, key: Key) -> tuple[Tree, Move]:
        """Ask the first time."""
        action = Action.STOP if state["chosen"] else Action.ASK
        return {**state, "chosen": state["chosen"] + 1}, Move.sure(np.full(seen.size, action), "once")

    def learn(self, state: Tree, seen: Seen, move: Move, reward: Any) -> Tree:
        """Add it up."""
        return {**state, "reward": state["reward"] + reward.sum()}


def test_a_held_policy_keeps_its_state_and_a_fork_its_own() -> None:
    held = Held.of(Counting())
    fork = held.fork()
    assert held.choose(Seen(size=2), (0,)).action.tolist() == [Action.ASK] * 2
    move = held.choose(Seen(size=1), (0,))
    assert move.action.tolist() == [Action.STOP]
    held.learn(Seen(), move, np.array([1.0, 2.0]))
    assert (int(held.state["chosen"]), float(held.state["reward"])) == (2, 3.0)
    assert fork.choose(Seen(), (0,)).action.tolist() == [Action.ASK]
    back = fork.restore(held.save())
    assert trees.encode(back.state) == trees.encode(held.state)
    assert int(fork.state["chosen"]) == 1
    with pytest.raises(WireError):
        fork.restore(b"no tree")


def test_a_sure_move_has_no_chance_in_it() -> None:
    move = Move.sure(Action.GO, "why", peer="edge")
    assert (move.action.tolist(), move.propensity.tolist(), move.why, move.peer) == ([1], [1.0], "why", "edge")
    assert move.action.dtype == np.int8


# -------------------------------------------------------------------------------------------------- what is kept


def test_the_record_of_an_answer_scores_it() -> None:
    answer = Answer({"logits": np.array([0.1, 2.0, 1.0])}, "cloud", "unsure", Cost(1.0), {"logits": np.eye(3)[2]}, True)
    record = Record.of(answer, truth=1, step=7, extra=0.5)
    assert (record.protocol, record.step, record.cost) == ("answer", 7, Cost(1.0))
    said = {"by": "cloud", "why": "unsure", "asked": 1, "extra": 0.5}
    assert record.metrics == said | {"label": 1, "own": 2, "truth": 1, "correct": 1}
    alone = Record.of(Answer({"logits": np.eye(3)[0]}, "u", "sure", Cost()))
    assert alone.metrics == {"by": "u", "why": "sure", "asked": 0, "label": 0}


def test_a_world_stamps_a_record() -> None:
    record = Record("rounds")
    assert (record.at(2.5, "a").time, record.at(2.5, "a").party, record.at(2.5, "a").user) == (2.5, "a", "a")
    assert Record("rounds", user="b").at(2.5, "a").user == "b"
    assert (record.time, record.party) == (0.0, "")


# -------------------------------------------------------------------------------------------------------- house


def test_everything_public_says_what_it_is() -> None:
    silent = []
    for name, each in vars(types).items():
        if name.startswith("_") or getattr(each, "__module__", None) != types.__name__:
            continue
        silent += [name] * (not inspect.getdoc(each))
        for attribute, member in vars(each).items() if inspect.isclass(each) else ():
            member = getattr(member, "__func__", member)
            if isinstance(member, property) or inspect.isfunction(member):
                own = attribute.startswith("_") and attribute not in ("__call__", "__getitem__")
                silent += [f"{name}.{attribute}"] * (not own and not member.__doc__)
    assert silent == []


def outcomes(users: bool = True) -> Outcomes:
    """Six items of two users, answered by two classifiers of three classes."""
    small, large = np.eye(3)[[0, 1, 2, 0, 1, 2]], np.eye(3)[[0, 1, 1, 0, 0, 0]]
    return Outcomes.of_classifiers(
        small, large, np.array([0, 1, 1, 1, 0, 2]), np.array(list("aaaabb")) if users else None, np.arange(6.0)[:, None]
    )


def test_outcomes_of_classifiers_are_who_is_right() -> None:
    found = outcomes()
    assert found.small.tolist() == [1, 1, 0, 0, 0, 1]
    assert found.large.tolist() == [1, 1, 1, 0, 1, 0]
    assert found.gain.tolist() == [0, 0, 1, 0, 1, -1]
    assert found.shares.tolist() == [1 / 8] * 4 + [1 / 4] * 2
    assert outcomes(users=False).shares.tolist() == [1 / 6] * 6
    unlabelled = Outcomes.of_classifiers(np.eye(2), np.eye(2)[[0, 0]])
    assert (unlabelled.small.tolist(), unlabelled.large.tolist()) == ([1, 0], [1, 1])
    alone = Outcomes.of_classifiers(np.eye(2), labels=np.array([1, 1]))
    assert (alone.small.tolist(), alone.large.tolist()) == ([0, 1], [1, 1])


@pytest.mark.parametrize("which", [np.array([5, 0]), np.array([True, False, False, False, True, True])])
def test_rows_of_outcomes_take_every_column(which: np.ndarray) -> None:
    found, all_of = outcomes().rows(which), outcomes()
    at = np.arange(6)[which]
    assert found.seen.size == len(at)
    for column in ("small", "large", "users", "labels"):
        assert (getattr(found, column) == getattr(all_of, column)[at]).all()
    assert (np.asarray(found.seen.answer) == np.asarray(all_of.seen.answer)[at]).all()
    texts = Seen(features={"prompt": np.array(["a", "b", "c"])}, link={"online": np.ones(3, bool)}, size=3)
    picked = texts.rows(np.array([2]))
    assert picked.features["prompt"].tolist() == ["c"]  # type: ignore[index, call-overload]
    assert picked.link is not None
    assert len(picked.link["online"]) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"small": np.eye(2)}, "neither labels nor large logits"),
        ({"small": np.zeros((0, 2)), "labels": np.zeros(0, int)}, "logits of shape"),
        ({"small": np.eye(2), "large": np.eye(3)}, "logits of shapes"),
        ({"small": np.full((2, 2), np.nan), "labels": np.zeros(2, int)}, "NaN"),
        ({"small": np.eye(2), "labels": np.array([0, 2])}, "outside the 2 classes"),
        ({"small": np.eye(2), "labels": np.array([0.0, 1.0])}, "labels of shape"),
        ({"small": np.eye(2), "large": np.eye(2), "users": np.array(["a"])}, "users of shape"),
    ],
)
def test_outcomes_that_do_not_fit_are_refused(arguments: dict[str, np.ndarray], told: str) -> None:
    with pytest.raises(Error, match=told):
        Outcomes.of_classifiers(**arguments)


def test_qualities_must_be_there_and_finite() -> None:
    with pytest.raises(DataError, match="no items"):
        Outcomes(np.zeros(0), np.zeros(0), Seen(size=0))
    with pytest.raises(DataError, match="large model that are NaN"):
        Outcomes(np.zeros(2), np.array([0, np.nan]), Seen(size=2))
