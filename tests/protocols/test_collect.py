"""Replies together: in cohort order whatever the order of arrival, and one bad reply spoils nothing but itself."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duetto.aggregation import Gate, Krum, Mean, Stack
from duetto.codecs import Quantise, Zstd
from duetto.errors import DataError
from duetto.protocols import Plain
from duetto.protocols.collect import together
from duetto.simulation.clock import Clock
from duetto.tree import Tree
from duetto.types import Aggregator, Chain, Codec, Cost, Group, Key, Local, Peer, Replies, Reply, Skill


@dataclass(frozen=True)
class Train(Skill):
    """Never run here: peers have their answers ready."""

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        raise NotImplementedError


@dataclass(eq=False)
class Ready(Peer):
    """Answers ``tree`` after ``seconds``, or not at all."""

    name: str
    tree: Tree | None
    seconds: float = 1.0
    traits: Mapping[str, Any] = ()  # type: ignore[assignment]
    asked: Sequence[Any] = ()

    async def ask(self, skill: Skill, tree: Tree, *, key: Key, deadline: float | None = None) -> Reply:
        self.asked = (*self.asked, (skill, tree, key, deadline))
        late = deadline is not None and self.seconds > deadline
        await asyncio.sleep(min(self.seconds, deadline) if deadline else self.seconds)
        cost = Cost(self.seconds, 10, 20, 3.0, 0.5)
        if late or self.tree is None:
            return Reply(self.name, failure="late" if late else "gone", cost=cost)
        return Reply(self.name, self.tree, version=7, metrics={"compute_seconds": 2.0}, cost=cost)


@dataclass(eq=False)
class Few(Group):
    """Some peers."""

    peers: Sequence[Ready]

    def __len__(self) -> int:
        return len(self.peers)

    def peer(self, name: str) -> Peer:
        return next(peer for peer in self.peers if peer.name == name)


LIKE = {"w": np.zeros((2, 3)), "b": np.zeros(2, np.float32)}


def update(seed: int, weight: float = 1.0, **more: Any) -> Tree:
    random = np.random.default_rng(seed)
    delta = {"w": random.normal(size=(2, 3)), "b": random.normal(size=2).astype(np.float32)}
    return {"delta": delta, "weight": np.float64(weight), "metrics": {"loss": np.float64(seed)}, **more}


def gathered(
    peers: Sequence[Ready], *, aggregator: Aggregator[Any] | None = None, up: Codec[Any] = Chain(), **more: Any
) -> tuple[Tree | None, Replies]:
    settings: dict[str, Any] = {"gate": Gate(norm=None), "deadline": None, **more}
    return Clock().run(
        Plain().gather(
            Few(peers),
            [peer.name for peer in peers],
            Train(),
            lambda peer: {"to": peer.name},
            aggregator=aggregator or Mean(),
            decode=up.decode,
            like=LIKE,
            key=(0, "round", 3),
            **settings,
        )
    )


def mean(updates: Sequence[Tree], name: str) -> np.ndarray:
    weights = [float(each["weight"]) for each in updates]
    return np.average([each["delta"][name].astype(np.float64) for each in updates], axis=0, weights=weights)


def test_the_mean_is_weighted_and_replies_come_back_without_their_trees():
    updates = [update(1, 3), update(2, 1), update(3, 0.5)]
    peers = [Ready(f"p{i}", each) for i, each in enumerate(updates)]
    tree, replies = gathered(peers, deadline=5.0)
    for name, leaf in LIKE.items():
        assert tree[name].dtype == leaf.dtype
        assert tree[name] == pytest.approx(mean(updates, name), rel=1e-6)
    assert [(reply.sender, reply.weight, reply.tree) for reply in replies] == [
        ("p0", 3, None), ("p1", 1, None), ("p2", 0.5, None),
    ]  # fmt: skip
    assert [reply.metrics for reply in replies] == [{"loss": n, "compute_seconds": 2.0} for n in (1, 2, 3)]
    assert [reply.version for reply in replies] == [7] * 3
    assert [peer.asked for peer in peers] == [
        ((Train(), {"to": f"p{i}"}, (0, "round", 3, f"p{i}"), 5.0),) for i in range(3)
    ]


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0.1, 9)), min_size=1, max_size=8), st.randoms())
def test_the_order_of_arrival_changes_no_bit(each: list[tuple[float, float]], random: Any):
    updates = [update(i, weight) for i, (_, weight) in enumerate(each)]
    delays = [seconds for seconds, _ in each]
    at_once = gathered([Ready(f"p{i}", tree, 1.0) for i, tree in enumerate(updates)])
    apart = gathered([Ready(f"p{i}", tree, delays[i]) for i, tree in enumerate(updates)])
    for name in LIKE:
        assert (at_once[0][name] == apart[0][name]).all()
    assert [reply.sender for reply in apart[1]] == [f"p{i}" for i in range(len(each))]
    order = list(range(len(each)))
    random.shuffle(order)
    shuffled, _ = gathered([Ready(f"p{i}", updates[i]) for i in order])
    for name in LIKE:  # another order of the cohort: the same to rounding
        assert shuffled[name] == pytest.approx(at_once[0][name], rel=1e-6, abs=1e-12)


GOOD = update(4, 2.0)
NAN = update(5)
NAN["delta"]["w"][0, 0] = np.nan
BAD: Mapping[str, tuple[Tree | None, str]] = {
    "gone": (None, "gone"),
    "not a number": (NAN, "rejected: the leaf /w holds NaN or infinity"),
    "another shape": (update(6, delta={"w": np.zeros((3, 2)), "b": LIKE["b"]}), "rejected: the leaf /w has shape"),
    "another structure": (update(6, delta={"w": np.zeros((2, 3))}), "rejected: the tree has other branches"),
    "no weight": (update(6, 0.0), "rejected: the weight 0.0 is not positive"),
    "a negative weight": (update(6, -3.0), "rejected: the weight -3.0 is not positive"),
    "an infinite weight": (update(6, np.inf), "rejected: the weight inf is not positive"),
    "a weight of many": (update(6, weight=np.ones(2)), "unreadable: "),
    "no delta": ({"weight": np.float64(1)}, "unreadable: KeyError('delta')"),
    "an array": (np.zeros(3), "unreadable: "),
    "metrics that are none": (update(6, metrics=np.ones(2)), "unreadable: "),
    "empty": ({}, "unreadable: "),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_reply_counts_as_nothing_and_says_why(kind: str):
    bad, why = BAD[kind]
    tree, replies = gathered([Ready("good", GOOD), Ready("bad", bad)])
    for name in LIKE:
        assert tree[name] == pytest.approx(GOOD["delta"][name])
    assert replies[0].failure is None
    assert (replies[1].failure or "").startswith(why)
    assert "\n" not in (replies[1].failure or "")
    assert replies[1].tree is None
    assert replies[1].cost.joules == 3.0  # it was paid for
    nothing, _ = gathered([Ready("bad", bad)])
    assert nothing is None


def test_what_cannot_be_decoded_is_unreadable():
    up = Chain((Quantise(8), Zstd()))
    coded = up.encode(up.init(), GOOD, (1,))[1]
    tree, replies = gathered([Ready("good", coded), Ready("bad", GOOD)], up=up)
    assert tree is not None
    assert np.abs(tree["w"] - GOOD["delta"]["w"]).max() < np.ptp(GOOD["delta"]["w"]) / 127
    assert replies[0].weight == 2.0  # scalars pass codecs unchanged
    assert (replies[1].failure or "").startswith("unreadable: WireError")


def test_the_gate_s_norm_keeps_the_large_ones_out():
    large = update(1)
    large["delta"] = {name: 1e6 * leaf for name, leaf in large["delta"].items()}
    tree, replies = gathered([Ready("good", GOOD), Ready("eve", large)], gate=Gate(norm=100.0))
    assert tree["w"] == pytest.approx(GOOD["delta"]["w"])
    assert "norm" in (replies[1].failure or "")


def test_nobody_asked_is_nothing_gathered():
    assert gathered([]) == (None, [])


def test_who_is_late_is_left_out():
    tree, replies = gathered([Ready("good", GOOD, 1.0), Ready("late", update(9), 3.0)], deadline=2.0)
    assert tree["w"] == pytest.approx(GOOD["delta"]["w"])
    assert [reply.failure for reply in replies] == [None, "late"]


def test_any_aggregator_will_do():
    tree, _ = gathered([Ready("a", update(1)), Ready("b", update(2))], aggregator=Stack())
    assert list(tree) == ["a", "b"]
    assert (tree["b"]["w"] == update(2)["delta"]["w"]).all()


def test_a_fault_of_an_aggregator_is_not_hidden():
    class Refuses(Stack):
        def add(self, state: Tree, reply: Reply) -> Tree:
            raise DataError("cannot add")

    tree, replies = gathered([Ready("a", update(1)), Ready("b", None)], aggregator=Refuses())
    assert tree is None
    assert [reply.failure for reply in replies] == ["not aggregated: cannot add", "gone"]


def test_a_round_without_a_result_is_not_the_last_one():
    few, many = ([Ready(f"p{i}", update(i)) for i in range(n)] for n in (2, 5))
    tree, replies = gathered(few, aggregator=Krum(1))
    assert tree is None
    assert all("not aggregated" in (reply.failure or "") for reply in replies)
    assert gathered(many, aggregator=Krum(1))[0] is not None


def test_costs_add_but_seconds_pass_side_by_side():
    replies = [Reply(str(i), cost=Cost(seconds, 1, 2, 3.0, 4.0)) for i, seconds in enumerate((5.0, 9.0, 2.0))]
    assert together(replies) == Cost(9.0, 3, 6, 9.0, 12.0)
    assert together([]) == Cost()
