"""Small and large networks: their sizes by hand, and what they compute by torch's own layers."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.models import Conv, Mlp
from duetto.programs.closed_loop import MODEL

NETS = {
    "mlp": Mlp((5,), 3, (7, 4)),
    "linear": Mlp((2, 3), 4, ()),
    "conv": Conv((2, 8, 12), 5, (3, 6)),
    "deep conv": Conv((1, 9, 8), 4, (3, 5), (11, 7), dropout=0.5),
    "no conv": Conv((1, 3, 3), 2, (), (4,)),
}


@pytest.fixture(params=NETS)
def net(request: pytest.FixtureRequest) -> Mlp | Conv:
    """A network."""
    return NETS[request.param]


def dense(widths: list[int]) -> int:
    """Weights and biases of dense layers."""
    return sum(before * after + after for before, after in pairwise(widths))


def pixels(net: Conv) -> tuple[int, list[tuple[int, int, int, int]]]:
    """Numbers after the last pooling, and (from, to, height, width) of each convolution."""
    (planes, high, wide), layers = net.shape, []
    for channels in net.channels:
        layers.append((planes, channels, high, wide))
        planes, high, wide = channels, high // 2, wide // 2
    return planes * high * wide, layers


def by_hand(net: Mlp | Conv, params: trees.Tree) -> nn.Sequential:
    """The same network written out, with the same numbers."""
    layers: list[nn.Module] = []
    names = sorted(params, key=int)
    for i, name in enumerate(names):
        weight, bias = (torch.tensor(params[name][part]) for part in ("weight", "bias"))
        if weight.ndim == 4:
            layer: nn.Module = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
        else:
            if not any(isinstance(layer, nn.Flatten) for layer in layers):
                layers.append(nn.Flatten())
            layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.load_state_dict({"weight": weight, "bias": bias})
        layers.append(layer)
        if i + 1 < len(names):
            layers.append(nn.ReLU())
        if weight.ndim == 4:
            layers += [nn.MaxPool2d(2)] if i + 1 < len(names) else []
    return nn.Sequential(*layers).eval()


def test_the_number_of_parameters_is_that_of_the_formula(net: Mlp | Conv) -> None:
    if isinstance(net, Mlp):
        expected = dense([int(np.prod(net.shape)), *net.hidden, net.classes])
    else:
        flat, layers = pixels(net)
        expected = sum(9 * before * after + after for before, after, _, _ in layers)
        expected += dense([flat, *net.hidden, net.classes])
    assert net.parameters == expected
    assert sum(leaf.size for _, leaf in trees.leaves(net.init(0))) == expected


def test_the_work_is_two_operations_a_weight_and_place(net: Mlp | Conv) -> None:
    if isinstance(net, Mlp):
        widths, conv = [int(np.prod(net.shape)), *net.hidden, net.classes], 0
    else:
        flat, layers = pixels(net)
        widths = [flat, *net.hidden, net.classes]
        conv = sum(2 * 9 * before * after * high * wide for before, after, high, wide in layers)
    flops = conv + sum(2 * before * after for before, after in pairwise(widths))
    assert net.work(3).flops == 3 * flops
    assert net.work(3).bytes == 4 * net.parameters
    assert net.work(3, bytes_per_parameter=1).bytes == net.parameters


def test_logits_are_those_of_torch_s_own_layers(net: Mlp | Conv) -> None:
    params = net.init(3)
    x = np.random.default_rng(0).normal(size=(6, *net.shape)).astype(np.float32)
    with torch.inference_mode():
        expected = by_hand(net, params)(torch.from_numpy(x)).numpy()
    logits = net.logits(params, x)
    assert (logits.shape, logits.dtype) == ((6, net.classes), np.float32)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    assert np.ptp(logits, axis=0).min() > 0


def test_dropout_does_nothing_where_nothing_is_learned() -> None:
    net, plain = Conv((1, 4, 4), 2, (3,), (5,), dropout=0.9), Conv((1, 4, 4), 2, (3,), (5,))
    x = np.random.default_rng(1).normal(size=(4, 1, 4, 4)).astype(np.float32)
    np.testing.assert_array_equal(net.logits(net.init(1), x), plain.logits(net.init(1), x))


def test_the_pair_for_images_has_the_promised_sizes() -> None:
    """A phone's model below 30k parameters and 40 kB; a large one of at least a million."""
    small, large = Conv((1, 28, 28), 10, (16, 32, 64)), Conv((1, 28, 28), 10, (32, 64), (384,), dropout=0.5)
    assert small.parameters < 30_000
    coded = MODEL.encode(MODEL.init(), small.init(0), (0,))[1]
    assert small.parameters < len(trees.encode(coded)) < 40_000
    assert large.parameters > 1_000_000


@pytest.mark.parametrize(
    ("shape", "channels", "dropout"), [((1, 3, 9), (2, 2), 0.0), ((1, 8, 8), (1,) * 4, 0.0), ((1, 8, 8), (1,), 1.0)]
)
def test_what_cannot_be_built_is_told(shape: tuple[int, int, int], channels: tuple[int, ...], dropout: float) -> None:
    with pytest.raises(ConfigError):
        Conv(shape, 2, channels, dropout=dropout)
