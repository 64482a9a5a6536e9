"""Layers as functions of their parameters: for one client, and for many at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from duetto.training.kernels.lstm import SUFFIXES, available, lstm

Named = Mapping[str, Tensor]
FEW = 16  # rows up to which the kernel was measured to be faster than torch's layer


def _conv(layer: Any, params: Named, x: Tensor) -> Tensor:
    return layer._conv_forward(x, params["weight"], params.get("bias"))  # type: ignore[no-any-return]


def _lstm(layer: Any, params: Named, *args: Any, **kwargs: Any) -> Any:
    """By the kernel for small batches, where there is one and it knows the layer."""
    plain = layer.num_layers == 1 and layer.batch_first and layer.bias and not (layer.bidirectional or layer.proj_size)
    x = args[0]
    if (
        plain
        and len(args) == 1
        and not kwargs
        and x.ndim == 3
        and len(x) <= FEW
        and x.dtype in SUFFIXES
        and available()
    ):
        output, h, c = lstm(x, *(params[f"{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")))
        return output, (h[None], c[None])
    return functional_call(layer, dict(params), args, kwargs)


_ONE: Mapping[type, Callable[..., Any]] = {
    nn.Conv1d: _conv,
    nn.Conv2d: _conv,
    nn.Conv3d: _conv,
    nn.LSTM: _lstm,
    nn.Embedding: lambda layer, params, x: functional.embedding(
        x, params["weight"], layer.padding_idx, layer.max_norm, layer.norm_type, layer.scale_grad_by_freq, layer.sparse
    ),
    nn.Linear: lambda layer, params, x: functional.linear(x, params["weight"], params.get("bias")),
    nn.LayerNorm: lambda layer, params, x: functional.layer_norm(
        x, layer.normalized_shape, params.get("weight"), params.get("bias"), layer.eps
    ),
    nn.GroupNorm: lambda layer, params, x: functional.group_norm(
        x, layer.num_groups, params.get("weight"), params.get("bias"), layer.eps
    ),
}


def one(layer: nn.Module, params: Named, *args: Any, **kwargs: Any) -> Any:
    """The layer with these parameters; a layer that is not known is called with them swapped in."""
    known = _ONE.get(type(layer))
    return known(layer, params, *args, **kwargs) if known else functional_call(layer, dict(params), args, kwargs)


def many(layer: nn.Module, params: Named, x: Tensor) -> Tensor:
    """The layer for A clients: ``x [A * rows, ...]`` client after client, parameters ``[A, ...]``."""
    clients = len(next(iter(params.values())))
    if isinstance(layer, nn.Embedding):
        size = layer.num_embeddings
        own = torch.arange(clients).repeat_interleave(len(x) // clients).view(-1, *[1] * (x.ndim - 1)) * size
        return functional.embedding(x + own, params["weight"].flatten(0, 1))
    if isinstance(layer, nn.LayerNorm):
        plain, shape = functional.layer_norm(x, layer.normalized_shape, eps=layer.eps), tuple(layer.normalized_shape)
        ones = (1,) * (x.ndim - 1 - len(shape))
    else:
        assert isinstance(layer, nn.GroupNorm)
        plain, shape = functional.group_norm(x, layer.num_groups, eps=layer.eps), (layer.num_channels,)
        ones, shape = (), (layer.num_channels, *[1] * (x.ndim - 2))
    if "weight" in params:
        plain = plain * _each(params["weight"], x, ones, shape)
    return plain + _each(params["bias"], x, ones, shape) if "bias" in params else plain


def _each(param: Tensor, x: Tensor, ones: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
    """A client's parameter for each of its rows."""
    return param.repeat_interleave(len(x) // len(param), 0).view(len(x), *ones, *shape)


def keep(mask: Tensor, p: float, generator: torch.Generator) -> None:
    """Fill with what ``nn.Dropout`` multiplies by, where torch's own generator is in this state."""
    if p < 1:
        mask.bernoulli_(1 - p, generator=generator).div_(1 - p)
