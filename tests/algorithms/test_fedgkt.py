"""FedGKT: what crosses the cut and back, in numpy; the law of its averaged kind; late devices; real answers."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from duetto import aggregation, codecs
from duetto import tree as trees
from duetto.algorithms import fedavg, fedgkt
from duetto.errors import ConfigError
from duetto.models import Conv, Mlp
from duetto.protocols import rounds
from duetto.simulation.engine import simulate
from duetto.simulation.fleet import fleet
from duetto.training import Sequential
from duetto.types import Algorithm, Chain, Local, Party, Rows

NET = Mlp((3,), 2, (5,))
PARAMS = NET.init(0)
SERVER = Mlp((5,), 2, (8,))
HOW: Any = {"lr": 0.2, "epochs": 2, "batch_size": 4, "cut": 2, "shown": 6}


@pytest.fixture
def data() -> dict[str, Rows]:
    draw, made = np.random.default_rng(5), {}
    for user, n in {"ann": 4, "ben": 6, "cyd": 9}.items():
        x = draw.normal(size=(n, 3)).astype(np.float32)
        made[user] = Rows(x, (x[:, 0] > 0).astype(np.int64))
    return made


def lived(data: Any, algorithm: Algorithm, steps: int, **more: Any) -> Any:
    client = replace(algorithm.client, executor=Sequential())
    return simulate(
        fleet=fleet("phones", list(data), data=data.__getitem__),
        device=Party(skills=(type(client),)),
        cloud=rounds(replace(algorithm, client=client), steps=steps, seed=3),
        **more,
    )


def test_features_are_what_the_cut_says(data: Any) -> None:
    algorithm = fedgkt(NET, PARAMS, SERVER, **HOW)
    local, reply = algorithm.client(Local(data["ann"], {}), {"answers": np.zeros((6, 2), np.float32)}, (0,), "cloud")
    told, model = local.memory["told"], local.memory["model"]
    assert sorted(set(told)) == [0, 1, 2, 3]  # six rows were asked for, there are four
    x = data["ann"].x[told]
    (first, second) = (model[name] for name in sorted(model))
    hidden = np.maximum(x @ first["weight"].T + first["bias"], 0)
    np.testing.assert_allclose(reply["delta"]["features"], hidden, rtol=1e-5, atol=1e-6)
    logits = hidden @ second["weight"].T + second["bias"]
    np.testing.assert_allclose(reply["delta"]["logits"], logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(reply["delta"]["y"], data["ann"].y[told])
    assert set(reply["delta"]) == {"features", "logits", "y"}


def test_the_cloud_answers_each_device_about_its_own_rows(data: Any) -> None:
    algorithm = fedgkt(NET, PARAMS, SERVER, **HOW)
    memory = lived(data, algorithm, 2).memory
    cloud = memory["cloud"]
    for user, rows in data.items():
        mine = memory[user]
        shown = algorithm.client.features(mine["model"], rows.x[mine["told"]])
        said = SERVER.logits(cloud["params"]["cloud"], shown)
        np.testing.assert_allclose(cloud["rounds"]["server"]["said"][user], said, rtol=1e-6, atol=1e-6)


def test_a_device_nears_what_the_cloud_answered(data: Any) -> None:
    """With weight on answers alone, and answers that contradict the labels, it says what it heard."""
    algorithm = fedgkt(NET, PARAMS, SERVER, alpha=50.0, **{**HOW, "epochs": 60, "lr": 0.01})
    rows = data["cyd"]
    local, _ = algorithm.client(Local(rows, {}), {"answers": np.zeros((6, 2), np.float32)}, (0,), "cloud")
    told = local.memory["told"]
    wrong = np.where(rows.y[told, None] == np.arange(2), -4.0, 4.0).astype(np.float32)
    after = {}
    for name, answers in {"silent": np.zeros((6, 2), np.float32), "wrong": wrong}.items():
        reply = algorithm.client(local, {"answers": answers}, (1,), "cloud")[1]
        after[name] = np.mean(reply["delta"]["logits"].argmax(1) == rows.y[told])
    assert after["wrong"] < 0.5 < after["silent"]


def test_shared_models_without_answers_are_fedavg(data: Any) -> None:
    """Limit law: with no weight on answers, split-federated distillation averages as FedAvg does."""
    with_answers, alone = (
        fedgkt(NET, PARAMS, SERVER, shares=True, alpha=0.0, **HOW),
        fedavg(NET, PARAMS, **{name: HOW[name] for name in ("lr", "epochs", "batch_size")}),
    )
    one, other = (lived(data, each, 3).memory["cloud"]["params"] for each in (with_answers, alone))
    trees.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one["device"], other)


def test_who_was_away_hears_what_was_said_of_it(data: Any) -> None:
    """A device that was lost keeps its rows, so an older answer still fits."""
    algorithm = fedgkt(NET, PARAMS, SERVER, **HOW)
    state, params = algorithm.server.init(algorithm.params), algorithm.params
    local, reply = algorithm.client(Local(data["ben"], {}), {"answers": np.zeros((6, 2), np.float32)}, (0,), "cloud")
    collected = {"ben": {"tree": reply["delta"], "weight": np.float64(6)}}
    state, params = algorithm.server.step(state, params, collected, cohort_size=1, fleet_size=2, key=(0,))
    before = state["said"]["ben"]
    state, params = algorithm.server.step(state, params, None, cohort_size=0, fleet_size=2, key=(1,))
    np.testing.assert_array_equal(state["said"]["ben"], before)
    np.testing.assert_array_equal(
        local.memory["told"], algorithm.client(local, {"answers": before}, (1,), "c")[0].memory["told"]
    )


def test_rows_that_are_gone_are_drawn_again(data: Any) -> None:
    algorithm = fedgkt(NET, PARAMS, SERVER, **HOW)
    local, _ = algorithm.client(Local(data["cyd"], {}), {"answers": np.zeros((6, 2), np.float32)}, (0,), "cloud")
    fewer = Local(data["ann"], {**local.memory, "told": np.arange(3, 9)})
    told = algorithm.client(fewer, {"answers": np.ones((6, 2), np.float32)}, (1,), "cloud")[0].memory["told"]
    assert told.max() < len(data["ann"].y)


def test_what_was_said_of_rows_that_are_gone_teaches_nothing(data: Any) -> None:
    """The reply about the new rows was lost, so the old answers come again; once the cloud has heard, they count."""
    algorithm = fedgkt(NET, PARAMS, SERVER, **HOW)
    old, new = (np.full((6, 2), value, np.float32) * [1, -1] for value in (3, -2))
    gone = Local(data["ann"], {"told": np.arange(3, 9), "before": np.zeros((6, 2)), "model": PARAMS})
    local, _ = algorithm.client(gone, {"answers": old}, (1,), "cloud")
    plain = Local(data["ann"], {name: each for name, each in local.memory.items() if name != "before"})
    silent = plain.remembering(before=new)
    again = algorithm.client(local, {"answers": old}, (2,), "cloud")[1]["delta"]["logits"]
    heard = algorithm.client(local, {"answers": new}, (2,), "cloud")[1]["delta"]["logits"]
    nothing = algorithm.client(silent, {"answers": new}, (2,), "cloud")[1]["delta"]["logits"]
    np.testing.assert_array_equal(again, nothing)
    assert np.abs(heard - nothing).max() > 1e-3


def test_features_cross_through_a_codec(data: Any) -> None:
    plain = fedgkt(NET, PARAMS, SERVER, **{**HOW, "shown": 200})
    lean = replace(plain, up=Chain((codecs.Quantise(8),)))
    cost = [sum(record.cost.up_bytes for record in lived(data, each, 2).records) for each in (plain, lean)]
    assert cost[1] < 0.6 * cost[0]  # answers of two numbers a row, and labels, weigh most


def test_what_does_not_fit_is_said(data: Any) -> None:
    with pytest.raises(ConfigError, match=r"features \(5,\) for a cloud that takes \(4,\)"):
        fedgkt(NET, PARAMS, Mlp((4,), 2, ()), **HOW)
    with pytest.raises(ConfigError, match="shown=0"):
        fedgkt(NET, PARAMS, SERVER, **{**HOW, "shown": 0})
    with pytest.raises(ConfigError, match="a cut after 0 stages"):
        fedgkt(NET, PARAMS, SERVER, **{**HOW, "cut": 0})


def test_images_keep_their_axes() -> None:
    """A convolution's features are channels, height and width for the cloud's convolution."""
    net, server = Conv((1, 8, 8), 3, (4, 8)), Conv((4, 8, 8), 3, (8,))
    algorithm = fedgkt(net, net.init(0), server, lr=0.1, epochs=1, cut=2, shown=5)
    x = np.random.default_rng(0).normal(size=(5, 1, 8, 8)).astype(np.float32)
    found = algorithm.client.features(net.init(0), x)
    assert found.shape == (5, 4, 8, 8)
    kernel = net.init(0)["0"]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    wanted = np.einsum("nchwij,ocij->nohw", windows, kernel["weight"]) + kernel["bias"][None, :, None, None]
    np.testing.assert_allclose(found, np.maximum(wanted, 0), rtol=1e-4, atol=1e-5)
    assert isinstance(algorithm.aggregator, aggregation.Stack)
