"""FedADG: what travels and what stays, and that without a weight it is FedAvg."""

from dataclasses import replace
from typing import Any

import numpy as np

from duetto import tree as trees
from duetto.algorithms import fedadg, fedavg
from duetto.models import Mlp
from duetto.protocols import rounds
from duetto.simulation.engine import simulate
from duetto.simulation.fleet import fleet
from duetto.training import Align, Sequential
from duetto.types import Algorithm, Local, Party

NET = Mlp((3,), 2, (6,))
PARAMS = NET.init(1)
HOW: Any = {"lr": 0.1, "epochs": 2, "batch_size": 4}


def lived(data: Any, algorithm: Algorithm, steps: int) -> Any:
    client = replace(algorithm.client, executor=Sequential())
    log = simulate(
        fleet=fleet("phones", list(data), data=data.__getitem__),
        device=Party(skills=(type(client),)),
        cloud=rounds(replace(algorithm, client=client), steps=steps, seed=3),
    )
    assert [record.metrics["failed"] for record in log.records] == [0] * steps
    return log.memory


def test_without_a_weight_the_network_is_fedavg_s(problem: Any) -> None:
    """Limit law, bit for bit; the other two learn all the same."""
    plain = lived(problem.data, fedavg(NET, PARAMS, **HOW), 2)["cloud"]["params"]
    algorithm = fedadg(NET, PARAMS, weight=0.0, **HOW)
    after = lived(problem.data, algorithm, 2)["cloud"]["params"]
    assert trees.encode(after["net"]) == trees.encode(plain)
    assert trees.norm(trees.subtract(after["generator"], algorithm.params["generator"])) > 1e-3
    other = lived(problem.data, fedadg(NET, PARAMS, **HOW), 2)["cloud"]["params"]
    assert trees.encode(other["net"]) != trees.encode(plain)


def test_the_discriminator_stays(problem: Any) -> None:
    algorithm = fedadg(NET, PARAMS, **HOW)
    sent = algorithm.server.send({}, algorithm.params, None)["params"]
    assert sorted(sent) == ["generator", "net"]
    memory = lived(problem.data, algorithm, 2)
    trees.map(
        np.testing.assert_array_equal,
        memory["cloud"]["params"]["discriminator"],
        algorithm.params["discriminator"],
    )
    own = [memory[user]["stays"]["discriminator"] for user in problem.users]
    assert len({trees.encode(each) for each in own}) == len(own)
    client: Any = algorithm.client
    x = problem.data["ann"].x
    whole = algorithm.server.send({}, memory["cloud"]["params"], None)
    np.testing.assert_array_equal(client.logits(whole, memory["ann"], x), NET.logits(whole["params"]["net"], x))


def test_training_costs_what_it_computes(problem: Any) -> None:
    algorithm: Any = fedadg(NET, PARAMS, **HOW)
    plain: Any = fedavg(NET, PARAMS, **HOW)
    local = Local(problem.data["ann"])
    assert algorithm.client.work(local, {}).flops == 2 * plain.client.work(local, {}).flops
    assert [type(term) for term in algorithm.client.loss][1:] == [Align]
