"""Products of matrices by whichever of torch's two libraries is faster on this processor.

For ``A @ B`` of float32 torch asks MKL, which runs at half its speed on processors that are not Intel's; oneDNN, which
torch asks for convolutions, does not. Measured on an AMD EPYC (Zen 5, one thread): 105 GF/s against 240 GF/s.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

_GAIN = 1.3  # oneDNN must be so much faster: a near tie should fall the same way every time


class Factor:
    """A matrix ``[N, K]`` by which many are multiplied; laid out once as the faster library likes it.

    ``low``: both sides of a product are rounded to bfloat16, and what comes out.
    """

    def __init__(self, matrix: Tensor, low: bool = False) -> None:
        self.matrix, self._low = matrix.bfloat16() if low else matrix, low
        self._packed = self.matrix.contiguous().to_mkldnn() if _faster(self.matrix) else None

    def times(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """``x @ matrix.T + bias``: ``[R, K]`` to ``[R, N]``."""
        if self._low:
            x, bias, dtype = x.bfloat16(), None if bias is None else bias.bfloat16(), x.dtype
            found = functional.linear(x, self.matrix, bias) if self._packed is None else _linear(x, self._packed, bias)
            return found.to(dtype)
        if self._packed is not None:
            return _linear(x, self._packed, bias)
        return x @ self.matrix.T if bias is None else torch.addmm(bias, x, self.matrix.T)


def outer(g: Tensor, x: Tensor, low: bool = False) -> Tensor:
    """``g.T @ x``: ``[R, O]`` and ``[R, D]`` to ``[O, D]``; ``low`` as in :class:`Factor`."""
    if low:
        return (g.bfloat16().T @ x.bfloat16()).to(g.dtype)
    if _faster(x) and len(x) >= 128:
        return _outer(g.contiguous(), x)
    return g.T @ x


def _linear(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")  # type: ignore[no-any-return]


def _outer(g: Tensor, x: Tensor) -> Tensor:
    like = x.new_empty(g.shape[1], x.shape[1])
    found = torch.ops.aten.mkldnn_linear_backward_weights(g.to_mkldnn(), x.to_mkldnn(), like, False)[0]
    return found.to_dense()  # type: ignore[no-any-return]


def _faster(matrix: Tensor) -> bool:
    """Whether oneDNN is asked: for bfloat16, and for float32 on a processor where it has won a short trial."""
    if matrix.device.type != "cpu":
        return False
    return matrix.dtype == torch.bfloat16 or (matrix.dtype == torch.float32 and _onednn())


@cache
def _onednn() -> bool:
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    x, weight = torch.ones(256, 512), torch.ones(512, 512)
    packed = weight.to_mkldnn()
    try:
        return _seconds(lambda: x @ weight.T) > _GAIN * _seconds(lambda: _linear(x, packed, None))
    except (RuntimeError, AttributeError):  # a build of torch without these operations
        return False


def _seconds(product: Callable[[], Tensor]) -> float:
    best = float("inf")
    for _ in range(8):
        began = time.perf_counter()
        product()
        best = min(best, time.perf_counter() - began)
    return best
