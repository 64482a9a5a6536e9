"""The walk with features: split inference, a rescue beside a late question, an answer in time in any case."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from duetto import tree as trees
from duetto.codecs import Quantise, Zstd
from duetto.models import Conv, Staged, stage
from duetto.protocols import Advance, Finish, answer
from duetto.simulation import energy
from duetto.simulation.engine import simulate
from duetto.simulation.fleet import fleet
from duetto.simulation.link import Link, Network, offline
from duetto.simulation.traces import constant
from duetto.tree import Tree
from duetto.types import Action, Answer, Chain, Cost, Held, Local, Move, Party, Peer, Plan, Policy, Record, Seen, Work

NET: Staged = stage(Conv((1, 8, 8), 3, (4, 6)).module(), torch.zeros(1, 1, 8, 8))
FIRST, SECOND, END = NET.cuts()[2], NET.cuts()[4], len(NET)
X = np.random.default_rng(0).normal(size=(1, 8, 8)).astype(np.float32)
WHOLE = NET({"x": X[None]})["logits"][0]
LINK = Link(constant(8), constant(8), 0.1)


@dataclass(frozen=True)
class Fixed:
    """An exit that always says the same, for a stated work."""

    flops: float = 1e9

    def __call__(self, tree: Tree) -> Tree:
        return {"logits": np.array([[9.0, 0.0, 0.0]])}

    def work(self, rows: int) -> Work:
        return Work(self.flops * rows)


@dataclass(frozen=True)
class Slow(Advance):
    """Stages that take as long as is said."""

    flops: float = 0.0

    def work(self, local: Local, tree: Tree) -> Work:
        return Work(self.flops)


@dataclass(frozen=True)
class Asks(Policy[Any]):
    """Asks at one stage with a plan, and goes on everywhere else."""

    at: int
    plan: Plan = Plan()

    def choose(self, state: Any, seen: Seen, key: Any) -> tuple[Any, Move]:
        action = Action.ASK if seen.stage == self.at else Action.GO
        return state, Move.sure(action, f"stage {seen.stage}", plan=self.plan)

    def learn(self, state: Any, seen: Seen, move: Move, reward: Any) -> Any:
        assert seen.traits is not None
        told = {name: float(column[0]) for name, column in seen.traits.items()}
        return {"told": told, "reward": float(reward[0])}


EXIT = {FIRST - 1: Advance(0, FIRST), SECOND - 1: Advance(FIRST, SECOND), END - 1: Advance(SECOND, END)}


def walked(
    policy: Policy[Any], *, exits: Any = EXIT, link: Link = LINK, net: Staged = NET, **more: Any
) -> tuple[Answer, Any]:
    """The answer of a device that holds the whole net, as the cloud does, and what the policy learnt."""
    given: list[Any] = []

    async def device(me: Peer, cloud: Peer) -> AsyncIterator[Record]:
        held = Held.of(policy)
        peers = {"cloud": cloud}
        said = await answer(X, me=me, exits=exits, peers=peers, question=Finish(), policy=held, key=(1,), **more)
        given.extend([said, held.state])
        yield Record("answer")

    simulate(
        fleet=fleet("mid-phone", ["ann"], memory={"net": net}),
        device=Party((device,), (Advance, Slow)),
        cloud=Party((), (Finish,), Local(None, {"net": net})),
        network=Network("link", (link,), "4g"),
    )
    return given[0], given[1]


def test_features_cross_and_the_cloud_finishes() -> None:
    for at in (0, FIRST, SECOND):
        said, _ = walked(Asks(at))
        assert said.party == "cloud"
        assert said.tree["logits"].tobytes() == WHOLE.tobytes()
        carried: Tree = {"x": X[None]} if not at else {"cut": np.int64(at), "features": NET[:at]({"x": X[None]})}
        assert said.cost.up_bytes == trees.size(trees.spec(carried))
    said, _ = walked(Asks(-1))
    assert (said.party, said.asked) == ("ann", False)
    assert said.tree["logits"].tobytes() == WHOLE.tobytes(), "never asking is device-only"


def test_a_plan_that_cuts_later_is_carried_out_there() -> None:
    said, _ = walked(Asks(0, Plan(SECOND)))
    carried = {"cut": np.int64(SECOND), "features": NET[:SECOND]({"x": X[None]})}
    assert said.cost.up_bytes == trees.size(trees.spec(carried))
    assert said.tree["logits"].tobytes() == WHOLE.tobytes()
    said, _ = walked(Asks(0, Plan(END + 9)))
    assert (said.party, said.asked) == ("cloud", True), "there is no such cut: it asks at the last one"


def test_the_plans_codec_is_what_crosses() -> None:
    codec = Chain((Quantise(8), Zstd(1)))
    said, _ = walked(Asks(FIRST, Plan(FIRST, codec)))
    carried = {"cut": np.int64(FIRST), "features": NET[:FIRST]({"x": X[None]})}
    coded = codec.encode(codec.init(), carried, (1, "ask", FIRST))[1]
    assert said.cost.up_bytes == trees.size(trees.spec(coded))
    np.testing.assert_allclose(
        said.tree["logits"], NET[FIRST:](codec.decode(coded)["features"])["logits"][0], atol=1e-6
    )


SECONDS, _ = energy.compute(energy.profiles()["mid-phone"], Work(9e9))  # of a slow stage
OVERHEAD, _ = energy.compute(energy.profiles()["mid-phone"], Work(0.0))


def slow(flops: float) -> Any:
    """Two quick halves, then one that takes a while."""
    return {FIRST - 1: Slow(0, FIRST), END - 1: Slow(FIRST, END, "net", flops)}


def test_out_of_patience_the_device_goes_on_and_the_first_answer_stands() -> None:
    stalled = replace(LINK, outages=((0.0, 0.05),))  # everything takes until 0.05 s, and half a round trip
    said, _ = walked(Asks(FIRST, Plan(FIRST, patience=0.02)), exits=slow(9e9), link=stalled)
    assert said.party == "cloud", "the local rest takes longer than the link needs"
    assert said.cost.seconds < SECONDS
    alone, _ = walked(Asks(FIRST), exits=slow(9e9), link=stalled)
    assert said.cost.seconds == pytest.approx(alone.cost.seconds), "the seconds side by side count once"
    assert said.cost.joules > alone.cost.joules, "the work that was given up was not free"

    gone = offline(LINK, 0.0)
    said, state = walked(
        Asks(FIRST, Plan(FIRST, patience=0.02)), exits=slow(9e9), link=gone, reward=lambda own, heard: 1.0
    )
    assert (said.party, said.asked) == ("ann", True)
    assert said.tree["logits"].tobytes() == WHOLE.tobytes()
    assert said.cost.seconds == pytest.approx(OVERHEAD + 0.02 + SECONDS)
    assert np.isnan(state["reward"]), "the policy learns that nothing came"
    assert state["told"]["up_bytes"] == 0


def test_a_policy_learns_what_the_transfer_took() -> None:
    said, state = walked(Asks(FIRST), reward=lambda own, heard: 0.25)
    assert state["reward"] == 0.25
    assert state["told"]["up_bytes"] == said.cost.up_bytes
    assert state["told"]["seconds"] == pytest.approx(said.cost.seconds - OVERHEAD, rel=1e-2)


def test_time_is_up_before_the_end_of_the_model() -> None:
    net = replace(NET, exits={FIRST: Fixed()})
    steps = {FIRST - 1: Advance(0, FIRST), END - 1: Slow(FIRST, END, "net", 1e12)}
    said, _ = walked(Asks(-1), exits=steps, net=net, within=0.5)
    assert said.tree["logits"].tolist() == [9.0, 0.0, 0.0], "the exit that was reached"
    assert said.why == "time is up"
    assert said.cost.seconds == pytest.approx(0.5)
    said, _ = walked(Asks(-1), exits={END - 1: Slow(0, END, "net", 1e11)}, within=0.01)
    assert said.tree["logits"].tobytes() == WHOLE.tobytes(), "without an exit on the way there is nothing else to say"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    cut_off=st.floats(0, 0.5),
    back=st.one_of(st.just(np.inf), st.floats(0.51, 2)),
    at=st.sampled_from([0, FIRST, SECOND]),
    patience=st.sampled_from([0.0, 0.05, np.inf]),
    within=st.floats(0.1, 0.6),
    flops=st.sampled_from([0.0, 1e9, 1e12]),
    mbps=st.sampled_from([0.01, 1.0, 100.0]),
)
def test_cut_off_at_any_time_the_exit_answers_in_time(
    cut_off: float, back: float, at: int, patience: float, within: float, flops: float, mbps: float
) -> None:
    net = replace(NET, exits={FIRST: Fixed(1e6)})
    link = offline(Link(constant(mbps), constant(mbps), 0.05), cut_off, back)
    steps = {
        FIRST - 1: Advance(0, FIRST),
        SECOND - 1: Advance(FIRST, SECOND),
        END - 1: Slow(SECOND, END, "net", flops),
    }
    asked = Asks(at, Plan(at, patience=patience))
    said, _ = walked(asked, exits=steps, link=link, net=net, within=within, reserve=0.01)  # the first exit takes less
    assert said.cost.seconds <= within + 1e-9
    assert said.tree["logits"].tolist() in ([9.0, 0.0, 0.0], WHOLE.tolist())


def test_costs_of_a_question_that_is_given_up_are_told() -> None:
    thin = Link(constant(0.01), constant(0.01), 0.05)  # 1,250 bytes a second
    said, _ = walked(Asks(FIRST, Plan(FIRST, patience=0.1)), exits=slow(0.0), link=thin)
    assert said.party == "ann"
    assert 0 < said.cost.up_bytes <= 1250 * said.cost.seconds
    assert isinstance(said.cost, Cost)
    assert said.cost.seconds == pytest.approx(OVERHEAD + 0.1 + OVERHEAD)
