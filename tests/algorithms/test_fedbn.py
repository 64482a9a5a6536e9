"""FedBN with batch normalisation: what travels, what stays, and that it is no longer FedAvg."""

from dataclasses import replace
from typing import Any

import numpy as np

from duetto import tree as trees
from duetto.algorithms import fedavg, fedbn
from duetto.models import Conv
from duetto.protocols import rounds
from duetto.simulation.engine import simulate
from duetto.simulation.fleet import fleet
from duetto.training import Sequential
from duetto.types import Algorithm, Party, Rows

NET = Conv((1, 4, 4), 2, (3,), norm="batch")
PARAMS = NET.init(0)
HOW: Any = {"lr": 0.1, "epochs": 2, "batch_size": 4}


def data(user: str) -> Rows:
    """Users whose cameras are of unlike gain."""
    draw = np.random.default_rng(len(user))
    x = draw.normal(size=(8, 1, 4, 4)) + np.arange(2).repeat(4)[:, None, None, None]
    return Rows((len(user) * x).astype(np.float32), np.arange(2).repeat(4))


def lived(algorithm: Algorithm) -> Any:
    client = replace(algorithm.client, executor=Sequential())
    log = simulate(
        fleet=fleet("phones", ["a", "bbbb"], data=data),
        device=Party(skills=(type(client),)),
        cloud=rounds(replace(algorithm, client=client), steps=2),
    )
    assert [record.metrics["failed"] for record in log.records] == [0, 0]
    return log.memory


def test_normalisation_stays_with_its_statistics() -> None:
    algorithm = fedbn(NET, PARAMS, **HOW)
    assert sorted(algorithm.server.send({}, algorithm.params, None)["params"]) == ["0", "5"]
    memory = lived(algorithm)
    ann, ben = (memory[user]["stays"]["1"] for user in ("a", "bbbb"))
    assert sorted(ann) == ["bias", "mean", "var", "weight"]
    assert (ben["var"] > 2 * ann["var"]).all()
    trees.map(np.testing.assert_array_equal, memory["cloud"]["params"]["1"], PARAMS["1"])
    plain = lived(fedavg(NET, PARAMS, **HOW))["cloud"]["params"]
    assert trees.norm(trees.subtract(plain["1"], PARAMS["1"])) > 0.1
    assert trees.encode({"5": plain["5"]}) != trees.encode({"5": memory["cloud"]["params"]["5"]})
    client: Any = algorithm.client
    sent = algorithm.server.send({}, memory["cloud"]["params"], None)
    x = data("bbbb").x
    whole = {**sent["params"], "1": ben}
    np.testing.assert_array_equal(client.logits(sent, memory["bbbb"], x), NET.logits(whole, x))
