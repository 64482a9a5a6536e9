"""A device walks a network with exits: who leaves where, and what is sent from the cut when no exit is sure."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from duetto.codecs import Zstd
from duetto.models import Branched, Mlp
from duetto.policies import ExitOrCut, Exits, RiskControlled, Threshold
from duetto.protocols import Advance, Coded, Finish, answer
from duetto.simulation.engine import simulate
from duetto.simulation.fleet import fleet
from duetto.simulation.link import named
from duetto.types import Action, Answer, Held, Key, Local, Move, Outcomes, Party, Peer, Plan, Policy, Record, Seen, rng

NET = Branched(Mlp((6,), 3, (8, 8)), (2, 4))
STAGED = NET.staged(NET.init(0))
X = rng(("exits", "x")).normal(size=(60, 6)).astype(np.float32)
LOGITS = NET.logits(NET.init(0), X)
FINAL = LOGITS[:, 2].argmax(1)
CUTS = (0, *NET.at, len(STAGED))
STAGES = {b - 1: Advance(a, b) for a, b in pairwise(CUTS)}


@dataclass(frozen=True)
class Cutting(Policy[Any]):
    """Always the same cut."""

    cut: int

    def choose(self, state: Any, seen: Seen, key: Key) -> tuple[Any, Move]:
        return state, Move.sure(np.full(seen.size, Action.ASK), "a plan", plan=Plan(self.cut))


def walked(policy: Held[Any]) -> list[Answer]:
    """One device's answers to all rows, with the whole network in the cloud."""
    given: list[Answer] = []

    async def device(me: Peer, cloud: Peer) -> AsyncIterator[Record]:
        for i, x in enumerate(X):
            peers: Mapping[str, Peer] = {"cloud": cloud}
            question = Coded(Finish(), Zstd(), Zstd())
            one = await answer(x, me=me, exits=STAGES, peers=peers, question=question, policy=policy, key=(i,))
            given.append(one)
            yield Record.of(one, step=i)

    simulate(
        fleet=fleet("mid-phone", ["ann"], memory={"net": STAGED}),
        device=Party((device,), (Advance,)),
        cloud=Party((), (Finish,), Local(None, {"net": STAGED})),
        network=named("constant-10"),
    )
    return given


def sure(i: int, at: float) -> np.ndarray:
    shares = np.exp(LOGITS[:, i]) / np.exp(LOGITS[:, i]).sum(1, keepdims=True)
    found: np.ndarray = shares.max(1) >= at
    return found


def test_an_item_leaves_at_the_first_exit_that_is_sure() -> None:
    known = {cut: Outcomes.of_classifiers(LOGITS[:, i], LOGITS[:, 2], FINAL) for i, cut in enumerate(NET.at)}
    held = Exits(RiskControlled(Threshold(0.5), "expected", 0.25)).fit(known)
    at = float(held.state["threshold"])
    left = np.where(sure(0, at), 0, np.where(sure(1, at), 1, 2))
    assert len(set(left.tolist())) > 1
    answers = walked(held)
    np.testing.assert_allclose([each.tree["logits"] for each in answers], LOGITS[np.arange(60), left], atol=1e-5)
    assert not any(each.asked for each in answers)


def test_an_item_that_no_exit_is_sure_of_goes_on_in_the_cloud() -> None:
    at = float(np.median(np.exp(LOGITS[:, 0]).max(1) / np.exp(LOGITS[:, 0]).sum(1)))
    answers = walked(Held.of(ExitOrCut(Cutting(NET.at[0]), at)))
    early = sure(0, at)
    assert 0 < early.mean() < 1
    wanted = np.where(early[:, None], LOGITS[:, 0], LOGITS[:, 2])
    np.testing.assert_allclose([each.tree["logits"] for each in answers], wanted, atol=1e-5)
    assert [each.asked for each in answers] == (~early).tolist()
    assert [each.cost.up_bytes > 0 for each in answers] == (~early).tolist()
