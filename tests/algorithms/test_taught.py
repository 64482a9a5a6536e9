"""Federated distillation from the cloud's answers."""

from dataclasses import replace

import numpy as np
import pytest

from duetto import tree as trees
from duetto.algorithms import taught
from duetto.codecs import Quantise, Zstd
from duetto.models import Mlp
from duetto.policies import Everyone
from duetto.protocols import rounds
from duetto.simulation.engine import simulate
from duetto.simulation.fleet import fleet
from duetto.training import SGD, Client, Distil, sequential
from duetto.types import Chain, Party, Rows

NET = Mlp((3,), 2, (4,))
PARAMS = NET.init(0)
CLIENT = Client(NET, (Distil(1.0, 2.0),), SGD(0.1), 2, 4, lessons="lessons")
X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
LESSONS = {"rows": np.array([4, 0, 3]), "logits": np.array([[3, 0], [0, 2], [1, 1]], np.float32)}


@pytest.mark.parametrize("codec", [Chain(), Chain((Quantise(8, "channel"), Zstd(1)))], ids=["plain", "eight bits"])
def test_a_round_distils_what_was_taught_through_the_codecs(codec: Chain) -> None:
    algorithm = taught.taught(CLIENT, PARAMS, cohort=Everyone(), up=codec, down=codec)
    log = simulate(
        fleet=fleet("phones", ["ann"], data=lambda user: Rows(X, np.full(6, -1)), memory={"lessons": LESSONS}),
        device=Party(skills=(Client,)),
        cloud=rounds(algorithm, steps=1, seed=2),
    )
    sent = codec.decode(codec.encode(codec.init(), {"params": PARAMS}, ("any",))[1])["params"]
    data = {"x": X[LESSONS["rows"]], "teacher": LESSONS["logits"]}
    end = sequential.run(CLIENT, {"params": sent}, data, (2, "round", 0, "ann")).params
    back = codec.decode(codec.encode(codec.init(), {"delta": trees.subtract(end, sent)}, ("any",))[1])["delta"]
    trees.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        log.memory["cloud"]["params"],
        trees.add(PARAMS, back),
    )
    assert log.records[0].metrics["failed"] == 0
    assert trees.norm(back) > 1e-3


def test_the_rate_falls_by_half_a_cosine_to_its_last_share() -> None:
    algorithm = taught.taught(CLIENT, PARAMS, cohort=Everyone())
    steps, final = 8, 0.1
    expected = [0.1 * (final + (1 - final) * (1 + np.cos(np.pi * step / steps)) / 2) for step in range(steps + 1)]
    found = [taught.at(algorithm, step, steps, final) for step in range(steps + 1)]
    np.testing.assert_allclose([each.client.optimiser.lr for each in found], expected, rtol=1e-12)
    assert found[0] == algorithm
    assert found[steps].client.optimiser.lr == pytest.approx(0.01)
    assert {replace(each, client=algorithm.client) == algorithm for each in found} == {True}, "nothing else changes"
    assert {replace(each.client, optimiser=CLIENT.optimiser) == CLIENT for each in found} == {True}
