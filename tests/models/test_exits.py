"""Networks with exits: the backbone stays what it was, and a walk from exit to exit computes what the whole does."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from duetto import tree as trees
from duetto.errors import ConfigError, DataError
from duetto.models import Branched, Conv, Mlp, Net, Residual, Staged, Vit, attached, evenly, stage
from duetto.models.exits import head
from duetto.models.net import built, to_tensors
from duetto.tree import Tree

NETS: dict[str, Net] = {
    "residual": Residual((3, 12, 12), 4, (8,), 1, groups=4),
    "vit": Vit((3, 8, 8), 5, width=16, depth=1),
    "conv with dropout": Conv((1, 8, 8), 3, (4, 8), (6,), 0.5),
}
DRAW = np.random.default_rng(0)


@cache
def made(name: str) -> tuple[Branched, Tree, Staged]:
    """A network with two exits, its parameters, and its stages."""
    branched = Branched(NETS[name], evenly(NETS[name], 2), 8)
    params = branched.init(3)
    return branched, params, branched.staged(params)


def rows(net: Net, n: int = 5) -> np.ndarray:
    return DRAW.normal(size=(n, *net.shape)).astype(np.float32)


@pytest.mark.parametrize("name", NETS)
def test_a_branched_network_holds_its_backbone(name: str) -> None:
    net, (branched, params, _) = NETS[name], made(name)
    own, x = net.init(3), rows(net)
    assert set(params) == {*own, "exits"}
    held = dict(trees.leaves(params))
    assert all((held[pointer] == leaf).all() for pointer, leaf in trees.leaves(own))
    logits = branched.logits(params, x)
    assert logits.shape == (5, 3, net.classes)
    np.testing.assert_allclose(logits[:, -1], net.logits(own, x), atol=1e-5)
    assert net.work(1).flops < branched.work(1).flops


@pytest.mark.parametrize("name", NETS)
def test_a_walk_from_exit_to_exit_gives_what_the_whole_gives(name: str) -> None:
    branched, params, staged = made(name)
    x = rows(branched)
    logits, walked, done = branched.logits(params, x), {"x": x}, 0
    assert tuple(staged.exits) == branched.at
    for i, (cut, exit) in enumerate(staged.exits.items()):
        walked, done = staged[done:cut](walked), cut
        found = exit(walked)["logits"]
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, logits[:, i], atol=1e-5)
    np.testing.assert_allclose(staged[done:](walked)["logits"], logits[:, -1], atol=1e-5)


def test_trained_weights_are_taken_over_and_the_heads_are_fresh() -> None:
    branched, own = made("residual")[0], NETS["residual"].init(8)
    grown, fresh = branched.grown(own, 2), branched.init(2)
    assert trees.encode({name: leaf for name, leaf in grown.items() if name != "exits"}) == trees.encode(own)
    assert trees.encode(grown["exits"]) == trees.encode(fresh["exits"])
    with pytest.raises(ConfigError, match="not those of"):
        branched.grown(fresh, 2)


def test_gradients_reach_every_parameter_and_agree_with_the_backbone_s() -> None:
    net, branched = NETS["residual"], made("residual")[0]
    module, alone = built(branched, 4).train(), built(net, 4).train()
    x = torch.tensor(rows(net, 3))
    module(x).square().sum().backward()
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in module.parameters())
    module.zero_grad()
    module(x)[:, -1].square().sum().backward()
    alone(x).square().sum().backward()
    for name, parameter in alone.named_parameters():
        np.testing.assert_allclose(module.get_parameter(name).grad, parameter.grad, rtol=1e-3, atol=1e-5)


def test_a_head_is_by_hand() -> None:
    """Images: the mean of the pixels, then dense; sequences: norm, mean, dense; vectors: dense."""
    x = DRAW.normal(size=(2, 6, 4, 4)).astype(np.float32)
    plain, sequence, dense = head((6, 4, 4), 3, 0), head((4, 6), 3), head((6,), 3)
    weight, bias = (each.detach().numpy() for each in plain.parameters())
    with torch.no_grad():
        np.testing.assert_allclose(plain(torch.tensor(x)), x.mean((2, 3)) @ weight.T + bias, atol=1e-5)
        tokens = x[:, :, :, 0].transpose(0, 2, 1)
        normed = (tokens - tokens.mean(-1, keepdims=True)) / np.sqrt(tokens.var(-1, keepdims=True) + 1e-5)
        weight, bias = (each.detach().numpy() for each in list(sequence.parameters())[2:])
        np.testing.assert_allclose(sequence(torch.tensor(tokens)), normed.mean(1) @ weight.T + bias, atol=1e-5)
        weight, bias = (each.detach().numpy() for each in dense.parameters())
        np.testing.assert_allclose(dense(torch.tensor(tokens[:, 0])), tokens[:, 0] @ weight.T + bias, atol=1e-5)
    with pytest.raises(ConfigError, match="one number"):
        head((), 3)


def test_exits_stand_where_the_work_is_even() -> None:
    """Against the best by trying all choices."""
    net = NETS["residual"]
    staged = made("residual")[2]
    done = np.cumsum([each.work.flops for each in staged.stages])
    lone = {
        done[k - 1]: k for k in range(1, len(staged)) if len(staged.frontier(k)) == 1 and 0 < done[k - 1] < done[-1]
    }
    pairs = [(a, b) for a in lone for b in lone if a < b]
    best = min(pairs, key=lambda pair: abs(pair[0] / done[-1] - 1 / 3) + abs(pair[1] / done[-1] - 2 / 3))
    assert evenly(net, 2) == evenly(staged, 2) == tuple(lone[each] for each in best)
    assert evenly(net, len(lone)) == tuple(sorted(lone.values()))
    for wrong in (0, len(lone) + 1):
        with pytest.raises(ConfigError, match=f"{wrong} exits"):
            evenly(net, wrong)


def test_any_staged_model_takes_heads() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    net, x = stage(model, torch.zeros(2, 4)), rows(Mlp((4,), 3))
    heads = {2: nn.Linear(6, 3)}
    with_exit = attached(net, heads)
    features = with_exit[:2]({"x": x})
    weight, bias = heads[2].weight.detach().numpy(), heads[2].bias.detach().numpy()
    found = with_exit.exits[2](features)["logits"]
    (value,) = features.values()
    np.testing.assert_allclose(found, value @ weight.T + bias, atol=1e-6)
    assert with_exit.exits[2].work(3).flops == 3 * 2 * 6 * 3
    assert (with_exit.exits[2].params["weight"] == weight).all()
    assert net.exits == {}
    assert tuple(attached(with_exit, {1: nn.Linear(6, 3)}).exits) == (1, 2)


def test_what_cannot_be_an_exit_is_told() -> None:
    net = NETS["conv with dropout"]
    for at in ((), (0, 2), (3, 3), (4, 2)):
        with pytest.raises(ConfigError, match="exits after"):
            Branched(net, at)
    with pytest.raises(ConfigError, match="width -1"):
        Branched(net, (2,), -1)
    with pytest.raises(ConfigError, match="an exit after stage 99"):
        Branched(net, (2, 99)).init(0)
    branched, _, staged = made("conv with dropout")
    with pytest.raises(ConfigError, match="not those of"):
        branched.staged(replace(branched, width=5).init(0))
    for cut in (0, len(staged)):
        with pytest.raises(ConfigError, match="use a cut from 1"):
            attached(staged, {cut: nn.Linear(1, 1)})


def test_an_exit_that_gets_something_else_says_so() -> None:
    branched, _, staged = made("conv with dropout")
    cut, exit = next(iter(staged.exits.items()))
    features = staged[:cut]({"x": rows(branched, 2)})
    (name,) = features
    for wrong in (features[name], {}, {"y": features[name]}):
        with pytest.raises(DataError, match="features without"):
            exit(wrong)
    for value in (features[name][..., :1], features[name].astype(np.float64), features[name][0]):
        with pytest.raises(DataError, match=name):
            exit({name: value})


def test_parameters_are_all_there_are() -> None:
    branched = Branched(Mlp((5,), 3, (8, 8)), (2,))
    assert set(to_tensors(branched.init(0))) == {f"{i}.{w}" for i in (1, 3, 5, "exits.0") for w in ("weight", "bias")}
    assert branched.parameters == 5 * 8 + 8 + 8 * 8 + 8 + 8 * 3 + 3 + 8 * 3 + 3
