"""What comes next: the recurrent network and the transformer that reads its last token."""

import numpy as np
import pytest
import torch
from torch import nn

from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.models import Recurrent, Text
from duetto.training import SGD, Client, Cohort, CrossEntropy, Sequential
from duetto.training.executor import Task

X = np.random.default_rng(0).integers(0, 11, (6, 7)).astype(np.float32)


@pytest.mark.parametrize("depth", [1, 2])
def test_logits_are_those_of_torch_s_own_layers(depth: int) -> None:
    net = Recurrent((7,), 5, 11, 3, 4, depth)
    params = net.init(2)
    cells = nn.LSTM(3, 4, depth, batch_first=True)
    named = {
        name.replace("_l0", f"_l{layer}"): torch.tensor(leaf)
        for layer in range(depth)
        for name, leaf in params["layers"][str(layer)].items()
    }
    cells.load_state_dict(named)
    with torch.inference_mode():
        seen = cells(torch.tensor(params["tokens"]["weight"])[torch.tensor(X).long()])[0][:, -1].numpy()
    expected = seen @ params["head"]["weight"].T + params["head"]["bias"]
    np.testing.assert_allclose(net.logits(params, X), expected, rtol=1e-5, atol=1e-6)
    sizes = [3, *[4] * depth]
    assert net.parameters == 11 * 3 + sum(16 * (size + 4 + 2) for size in sizes[:-1]) + 4 * 5 + 5
    assert net.work(2).flops > 0


def test_clients_in_one_call_learn_what_each_learns_alone() -> None:
    net = Recurrent((7,), 5, 11, 3, 4)
    client = Client(net, (CrossEntropy(),), SGD(0.1, 0.9), 2, 4)
    start = {"params": trees.map(lambda leaf: leaf.astype(np.float64), net.init(0))}
    draw = np.random.default_rng(1)
    clients = [
        Task(start, {"x": draw.integers(0, 11, (n, 7)).astype(np.float32), "y": draw.integers(0, 5, n)}, (0, n))
        for n in (5, 8, 3)
    ]
    for one, other in zip(Sequential().train(client, clients), Cohort().train(client, clients), strict=True):
        for (_, mine), (_, theirs) in zip(trees.leaves(one.delta), trees.leaves(other.delta), strict=True):
            np.testing.assert_allclose(theirs, mine, rtol=1e-9, atol=1e-12)


def test_a_transformer_without_blocks_reads_the_mean_or_the_last() -> None:
    mean, last = (Text((7,), 5, 11, 8, 0, read=read) for read in ("mean", "last"))  # type: ignore[arg-type]
    params = mean.init(0)
    assert trees.encode(last.init(0)) == trees.encode(params)
    seen = params["tokens"]["weight"][X.astype(int)] + params["positions"]
    normed = (seen - seen.mean(2, keepdims=True)) / np.sqrt(seen.var(2, keepdims=True) + 1e-5)
    head = params["head"]
    np.testing.assert_allclose(
        mean.logits(params, X), normed.mean(1) @ head["weight"].T + head["bias"], rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        last.logits(params, X), normed[:, -1] @ head["weight"].T + head["bias"], rtol=1e-4, atol=1e-5
    )
    with pytest.raises(ConfigError, match="first"):
        Text((7,), 5, read="first")  # type: ignore[arg-type]
