"""Batch normalisation for a house where a network is its parameters: the running statistics are parameters too.

Ioffe, Szegedy: Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift, ICML 2015.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Norm(nn.BatchNorm2d):
    """As torch's, but ``mean`` and ``var`` are leaves of the tree: they travel, are averaged and stay as all others do.

    In training they follow the batches' (``momentum`` is the share of the newest), written into the parameters that it
    is called with; no loss moves them. Else rows are normalised by them, and none depends on another.
    """

    def __init__(self, planes: int, momentum: float = 0.1) -> None:
        super().__init__(planes, momentum=momentum, track_running_stats=False)
        self.mean, self.var = nn.Parameter(torch.zeros(planes)), nn.Parameter(torch.ones(planes))

    def forward(self, x: Tensor) -> Tensor:
        """[n, planes, height, width]."""
        mean, var = self.mean.detach(), self.var.detach()
        if not self.training:  # what noise or a server's step has made negative is no variance
            return functional.batch_norm(x, mean, var.clamp(min=0), self.weight, self.bias, False, 0.0, self.eps)
        done = functional.batch_norm(x, mean, var, self.weight, self.bias, True, self.momentum or 0.0, self.eps)
        return done + 0 * (
            self.mean.sum() + self.var.sum()
        )  # a gradient of zero, for those who expect one of each leaf
