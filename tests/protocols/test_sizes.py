"""A device with one set of weights answers narrow or wide, by its charge and by how sure it is; or asks the cloud."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from duetto.models import Mlp, Predict, Slimmable
from duetto.policies import Widening, confidence
from duetto.protocols import answer
from duetto.simulation import energy
from duetto.simulation.engine import simulate
from duetto.simulation.fleet import fleet
from duetto.simulation.link import named
from duetto.types import Answer, Held, Local, Outcomes, Party, Peer, Record, Seen, rng

NET = Slimmable(Mlp((6,), 3, (8, 8)), (0.25, 0.5, 1.0))
PARAMS = NET.init(0)
LARGE = Predict(Mlp((6,), 3, (16,)), "large")
X = rng(("sizes", "x")).normal(size=(40, 6)).astype(np.float32)
LOGITS = [NET.answers(PARAMS, X, sub) for sub in NET.subs]
PHONE = energy.profiles()["mid-phone"]
SECONDS, JOULES = np.array([energy.compute(PHONE, NET.sub(sub).work(1)) for sub in NET.subs]).T
SIZES = Widening(tuple(JOULES.tolist()), tuple(SECONDS.tolist()), floors=(0.0, 0.2, 0.5), like=2, loss=1.0)


def walked(policy: Held[Any], battery: np.ndarray, online: bool = True) -> list[Answer]:
    """One device's answers to all rows."""
    given: list[Answer] = []
    part = policy.part
    assert isinstance(part, Widening)

    async def device(me: Peer, cloud: Peer) -> AsyncIterator[Record]:
        for i, x in enumerate(X):
            known = Seen(battery=battery[i : i + 1], link={"rtt_seconds": np.array([0.1])})
            exits = {k: Predict(NET.at(NET.subs[k])) for k in part.ladder(policy.state, known)}
            peers: Mapping[str, Peer] = {"cloud": cloud}
            one = await answer(
                x, me=me, exits=exits, peers=peers, question=LARGE, policy=policy, key=(i,), known=known, online=online
            )
            given.append(one)
            yield Record.of(one, step=i)

    simulate(
        fleet=fleet("mid-phone", ["ann"], memory={"params": PARAMS}),
        device=Party((device,), (Predict,)),
        cloud=Party((), (Predict,), Local(None, {"large": LARGE.net.init(1)})),
        network=named("constant-10"),
    )
    return given


def fitted(policy: Widening) -> tuple[Held[Any], float]:
    """Narrow first, then the widest; half of the items are sure."""
    held = policy.fit({0: Outcomes.of_classifiers(LOGITS[0], LOGITS[2])})
    at = float(np.median(confidence(LOGITS[0])))
    state = {**held.state, "ladder": np.array([True, False, True]), "threshold": np.array(at)}
    return Held(policy, state), at


def test_a_charged_device_answers_with_the_widest_and_a_flat_one_with_the_narrowest() -> None:
    battery = np.where(np.arange(40) < 20, 1.0, 0.1)
    answers = walked(Held.of(SIZES), battery)
    size = np.where(battery == 1, 2, 0)
    np.testing.assert_allclose([each.tree["logits"] for each in answers], np.stack(LOGITS)[size, range(40)], atol=1e-5)
    np.testing.assert_allclose([each.cost.joules for each in answers], JOULES[size])


def test_what_is_unsure_is_widened_and_costs_both() -> None:
    held, at = fitted(SIZES)
    sure = confidence(LOGITS[0]) >= at
    assert 0 < sure.mean() < 1
    answers = walked(held, np.ones(40))
    wanted = np.where(sure[:, None], LOGITS[0], LOGITS[2])
    np.testing.assert_allclose([each.tree["logits"] for each in answers], wanted, atol=1e-5)
    np.testing.assert_allclose([each.cost.joules for each in answers], JOULES[0] + np.where(sure, 0, JOULES[2]))
    assert not any(each.asked for each in answers)


@pytest.mark.parametrize("online", [True, False])
def test_the_cloud_is_asked_where_that_is_cheaper_and_somebody_is_there(online: bool) -> None:
    held, at = fitted(replace(SIZES, ask_joules=0.0))
    answers = walked(held, np.ones(40), online)
    unsure = confidence(LOGITS[0]) < at
    assert [each.asked for each in answers] == (unsure & online).tolist()
    assert [each.party == "cloud" for each in answers] == (unsure & online).tolist()
