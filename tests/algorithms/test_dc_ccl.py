"""DC-CCL: the small part learns beside the control model; without one that says anything it is FedAvg."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.algorithms import dc_ccl, fedavg
from duetto.errors import ConfigError
from duetto.models import Mlp
from duetto.models.beside import Beside
from duetto.types import Algorithm

NET, LARGE, CONTROL = Mlp((3,), 2, ()), Mlp((3,), 2, (32,)), Mlp((3,), 2, (4,))
INPUTS = np.random.default_rng(2).normal(size=(80, 3)).astype(np.float32)
HOW: Any = {"lr": 0.3, "epochs": 2, "batch_size": 4}


def built(passes: int = 20) -> Algorithm:
    start = trees.map(lambda leaf: leaf.astype(np.float64), NET.init(1))
    return dc_ccl(NET, start, (LARGE, LARGE.init(2)), INPUTS, control=CONTROL, passes=passes, **HOW)


def test_the_control_model_says_what_the_cloud_s_part_says() -> None:
    said = LARGE.logits(LARGE.init(2), INPUTS).argmax(1)
    agrees = [
        (CONTROL.logits(built(passes).server.control, INPUTS).argmax(1) == said).mean()  # type: ignore[attr-defined]
        for passes in (0, 60)
    ]
    assert agrees[1] > max(0.9, agrees[0])


def test_beside_a_control_model_that_says_nothing_it_is_fedavg(problem: Any) -> None:
    algorithm = built(0)
    silent = trees.map(lambda leaf: np.zeros_like(leaf, dtype=np.float64), CONTROL.init(0))
    quiet = replace(algorithm, server=replace(algorithm.server, control=silent))  # type: ignore[type-var]
    plain = fedavg(NET, algorithm.params, **HOW)
    one, other = (problem.lived(each, 3).memory["cloud"]["params"] for each in (quiet, plain))
    trees.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), one, other)


def test_a_step_descends_the_loss_of_the_sum(problem: Any) -> None:
    """The gradient of the cross-entropy at the sum of both logits, which is linear in the small part."""
    algorithm = built()
    once = replace(algorithm, client=replace(algorithm.client, epochs=1, batch_size=9))
    memory = problem.lived(once, 1).memory
    control: Any = algorithm.server.control  # type: ignore[attr-defined]
    weight, bias = algorithm.params["1"]["weight"], algorithm.params["1"]["bias"]
    moved, total = np.zeros_like(weight), 0
    for rows in problem.data.values():
        logits = rows.x @ weight.T + bias + CONTROL.logits(control, rows.x)
        error = np.exp(logits - np.logaddexp.reduce(logits, axis=1)[:, None]) - np.eye(2)[rows.y]
        moved += len(rows) * -0.3 * error.T @ rows.x / len(rows)
        total += len(rows)
    np.testing.assert_allclose(memory["cloud"]["params"]["1"]["weight"], weight + moved / total, rtol=1e-4, atol=1e-6)
    single, x = trees.map(np.float32, memory["cloud"]["params"]), problem.data["ann"].x
    client: Any = algorithm.client
    small, told = NET.logits(single, x), CONTROL.logits(control, x)
    np.testing.assert_allclose(client.logits({"params": single}, memory["ann"], x), small + told, atol=1e-5)
    np.testing.assert_array_equal(client.logits({"params": single}, {}, x), small)
    whole = Beside(LARGE, NET).logits({"frozen": LARGE.init(2), "net": single}, x)
    np.testing.assert_allclose(whole, small + LARGE.logits(LARGE.init(2), x), atol=1e-5)


def test_parts_have_the_same_inputs_and_classes() -> None:
    with pytest.raises(ConfigError, match=r"^two networks whose logits cannot add: they need the same shape"):
        dc_ccl(NET, NET.init(0), (LARGE, LARGE.init(2)), INPUTS, control=Mlp((3,), 3, ()), **HOW)
