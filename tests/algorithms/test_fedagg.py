"""FedAgg: a round of the tree by hand, what travels over which link, and what a larger cloud comes to know."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.algorithms import fedagg, heterofl
from duetto.errors import ConfigError
from duetto.models import Mlp
from duetto.models.principal import decoded, principal
from duetto.protocols import Plain, Tiers, rounds
from duetto.simulation.engine import simulate
from duetto.simulation.fleet import fleet
from duetto.training import Sequential, sequential
from duetto.types import Algorithm, Key, Party, Rows

NETS = (Mlp((3,), 2, (3,)), Mlp((3,), 2, (6,)), Mlp((3,), 2, (12, 6)))
EDGES = (("ann", "ben"), ("eve",))
CODER = principal(np.random.default_rng(2).normal(size=(9, 3)), 2)
HOW: Any = {"lr": 0.2, "epochs": 2, "batch_size": 4}


def lived(data: Any, algorithm: Algorithm, steps: int, coder: Any = CODER) -> Any:
    client = replace(algorithm.client, executor=Sequential())
    log = simulate(
        fleet=fleet("phones", list(data), data=data.__getitem__, memory={"autoencoder": coder}),
        device=Party(skills=(type(client),)),
        cloud=rounds(replace(algorithm, client=client), steps=steps, seed=3),
    )
    assert [record.metrics["failed"] for record in log.records] == [0] * steps
    return log


def test_tier_by_tier(problem: Any) -> None:
    """One round by hand: an edge learns from its devices, then from the cloud, and the cloud from all edges."""
    algorithm = fedagg(NETS, EDGES, CODER, bridge=4, alpha=2.0, passes=3, **HOW)
    memory = lived(problem.data, algorithm, 1).memory
    server: Any = algorithm.server
    state, cloud, lessons = memory["cloud"]["rounds"]["server"], NETS[2].init(0), []

    def taught(net: Any, params: Any, rows: Any, key: Key) -> Any:
        return sequential.run(
            replace(server.student, net=net), {"params": params}, rows, (3, "round", 0, "server", *key)
        ).params

    for i, members in enumerate(EDGES):
        x = np.concatenate([decoded(CODER, memory[user]["codes"], (3,)) for user in members])
        y = np.concatenate([memory[user]["labels"] for user in members])
        said = np.concatenate(
            [NETS[0].logits(memory[user]["model"], decoded(CODER, memory[user]["codes"], (3,))) for user in members]
        )
        edge = taught(NETS[1], NETS[1].init(i), {"x": x, "y": y, "teacher": said}, ("devices", i))
        edge = taught(NETS[1], edge, {"x": x, "y": y, "teacher": NETS[2].logits(cloud, x)}, ("cloud", i))
        trees.map(np.testing.assert_array_equal, state["edges"][str(i)], edge)
        own = NETS[1].logits(edge, x)
        np.testing.assert_array_equal(np.concatenate([state["said"][user] for user in members]), own)
        lessons.append({"x": x, "y": y, "teacher": own})
    rows = {name: np.concatenate([each[name] for each in lessons]) for name in lessons[0]}
    trees.map(np.testing.assert_array_equal, memory["cloud"]["params"], taught(NETS[2], cloud, rows, ("edges",)))


def test_answers_travel_and_no_parameter(problem: Any) -> None:
    """Bytes by hand: from device to edge one message each, from edge to cloud what its devices said, together."""
    said = {"answers": np.zeros((4, 2), np.float32), "codes": np.zeros((4, 2), np.float32), "labels": np.zeros(4, int)}
    message = {"delta": said, "weight": np.float64(1), "metrics": {"loss": np.float64(0)}}
    near = 3 * trees.size(trees.spec(message))
    far = sum(trees.size(trees.spec(dict.fromkeys(edge, said))) for edge in EDGES)
    down = 2 * 3 * trees.size(trees.spec({"answers": said["answers"]}))
    for record in lived(problem.data, fedagg(NETS, EDGES, CODER, bridge=4, **HOW), 2).records:
        assert (record.cost.up_bytes, record.cost.down_bytes) == (near + far, down)


def test_a_larger_model_in_the_cloud_learns_what_devices_know() -> None:
    """No device knows all classes; the cloud, which sees nobody's rows but bridged ones, does."""
    draw, data = np.random.default_rng(0), {}
    centres = np.array([[2.0, 0, 0], [-2.0, 0, 0]])
    for user, share in {"ann": 0.8, "ben": 0.2, "eve": 0.5}.items():
        y = (draw.random(40) < share).astype(np.int64)
        data[user] = Rows((centres[y] + draw.normal(size=(40, 3))).astype(np.float32), y)
    y = np.arange(200) % 2
    x = (centres[y] + draw.normal(size=(200, 3))).astype(np.float32)
    coder = principal(x, 2)
    log = lived(data, fedagg(NETS, EDGES, coder, bridge=16, passes=5, **HOW), 4, coder)
    right = (NETS[2].logits(log.memory["cloud"]["params"], x).argmax(1) == y).mean()
    assert right > 0.9  # the best that can be is 0.977


def test_parts_of_a_network_pass_through_tiers_too(problem: Any) -> None:
    """Devices of several widths behind edges give what they give without, to rounding."""
    net = Mlp((3,), 2, (8,))
    plain = heterofl(net, net.init(0), levels=(1.0, 0.5), lr=0.1, epochs=1)
    tiered = replace(plain, collect=Tiers(EDGES))
    assert isinstance(plain.collect, Plain)
    one, other = (lived(problem.data, each, 2).memory["cloud"]["params"] for each in (plain, tiered))
    trees.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, other)


def test_faults_are_told(problem: Any) -> None:
    algorithm = fedagg(NETS, (("ann", "ben"),), CODER, **HOW)
    with pytest.raises(ConfigError, match=r"^eve is at no edge: give each device to one$"):
        lived(problem.data, algorithm, 1)
    with pytest.raises(ConfigError, match=r"^3 kinds of network: name some, all of the same shape and classes$"):
        fedagg((NETS[0], NETS[1], Mlp((3,), 3)), EDGES, CODER, **HOW)
    with pytest.raises(ConfigError, match=r"^a device is at no edge"):
        algorithm.server.send(algorithm.server.init({}), {}, None)
