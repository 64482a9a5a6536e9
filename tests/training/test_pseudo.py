"""Pseudo-labels by hand."""

from typing import Any

import numpy as np
import pytest

from duetto.errors import ConfigError, DataError
from duetto.models import Mlp
from duetto.training import SGD, Client, CrossEntropy
from duetto.training.pseudo import PseudoLabels
from duetto.types import Local, Rows

NET = Mlp((2,), 3, ())
PARAMS = {"1": {"weight": np.array([[3, 0], [0, 3], [-3, -3]], np.float32), "bias": np.zeros(3, np.float32)}}
X = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
UNREAD = Rows(X, np.full(30, -1), {"new": np.arange(10, 30)})
HOW: Any = {"net": NET, "loss": (CrossEntropy(),), "optimiser": SGD(0.1), "epochs": 1, "batch_size": 8}


def test_it_trains_on_the_rows_that_it_is_sure_of_as_it_answers_them() -> None:
    client = PseudoLabels(**HOW, part="new", sure=0.8)
    logits = X[10:] @ PARAMS["1"]["weight"].T
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    sure = shares.max(1) >= 0.8
    assert 0 < sure.sum() < 20
    rows = client.examples(Local(UNREAD), PARAMS)
    np.testing.assert_array_equal(rows["x"], X[10:][sure])
    np.testing.assert_array_equal(rows["y"], shares.argmax(1)[sure])
    labelled = Local(Rows(rows["x"], rows["y"]))
    one, other = (
        each(data, {"params": PARAMS}, (0,), "cloud")[1]["delta"]["1"]["weight"]
        for each, data in ((client, Local(UNREAD)), (Client(**HOW), labelled))
    )
    np.testing.assert_array_equal(one, other)


def test_sure_of_everything_takes_every_row() -> None:
    assert len(PseudoLabels(**HOW, sure=0.0).examples(Local(UNREAD), PARAMS)["y"]) == 30


def test_a_shifted_user_gains() -> None:
    """Two classes far apart, seen from another place; the boundary moves between them."""
    net = Mlp((1,), 2, ())
    params = {"1": {"weight": np.array([[-2.0], [2.0]], np.float32), "bias": np.array([0.0, 0.0], np.float32)}}
    draw = np.random.default_rng(1)
    y = np.repeat([0, 1], 100)
    x = (draw.normal(size=(200, 1)) * 0.3 + np.where(y, 1.8, -0.2)[:, None]).astype(np.float32)
    how = {**HOW, "net": net, "optimiser": SGD(0.5), "epochs": 5}
    before = (net.logits(params, x).argmax(1) == y).mean()
    for step in range(10):
        _, answer = PseudoLabels(**how, sure=0.6)(Local(Rows(x, -np.ones(200, int))), {"params": params}, (step,), "me")
        params = {"1": {name: params["1"][name] + answer["delta"]["1"][name] for name in params["1"]}}
    assert (net.logits(params, x).argmax(1) == y).mean() > before + 0.05


def test_who_is_sure_of_nothing_is_left_out() -> None:
    with pytest.raises(DataError, match=r"^a client that is sure of none of its rows: "):
        PseudoLabels(**HOW, sure=1.0).examples(Local(Rows(X * 0, UNREAD.y)), PARAMS)
    with pytest.raises(ConfigError, match=r"^sure=1.5: use a probability$"):
        PseudoLabels(**HOW, sure=1.5)
