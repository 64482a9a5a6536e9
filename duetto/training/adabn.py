"""Adapting to a domain without labels or steps: batch normalisation by what is normal here.

Li, Wang, Shi, Liu, Hou: Revisiting Batch Normalization For Practical Domain Adaptation, ICLR workshop 2017 (AdaBN). The
weights stay as they are; the statistics of every normalisation layer become those of the device's own inputs. All
inputs pass at once, so that each layer sees what those below it make of them with the new statistics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.func import functional_call

from duetto.errors import ConfigError, DataError
from duetto.models.net import Net, built, channels_last, fitting, to_tensor, to_tree
from duetto.models.norm import Norm
from duetto.tree import Tree
from duetto.types import Key, Local, Rows, Skill, Work


@dataclass(frozen=True)
class AdaBn(Skill):
    """Takes ``{"params"}``, remembers as ``own`` what becomes of them here, and gives ``{"rows"}``: how many it read.

    Attributes:
        net: has :class:`~duetto.models.norm.Norm` layers, as ``Conv(norm="batch")``.
        part: of the party's data; None is all of it. Labels stay unread.
    """

    net: Net
    part: str | None = None

    @property
    def writes(self) -> bool:
        """The adapted parameters."""
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Adapt."""
        rows = self._rows(local)
        return local.remembering(own=adapted(self.net, tree["params"], rows.x)), {"rows": np.int64(len(rows))}

    def logits(self, sent: Tree, memory: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
        """What this device answers, ``[n, classes]`` float32; as sent, where it has not adapted."""
        return self.net.logits(memory.get("own", sent["params"]), x)

    def work(self, local: Local, tree: Tree) -> Work:
        """A forward pass."""
        return self.net.work(len(self._rows(local)))

    def _rows(self, local: Local) -> Rows:
        rows: Rows = local.data if self.part is None else local.data.part(self.part)
        return rows


def adapted(net: Net, params: Tree, x: np.ndarray) -> Tree:
    """The parameters with the statistics of inputs ``x [n, *shape]``.

    Raises:
        ConfigError: a network without such layers, or parameters of another one.
        DataError: no inputs, or some that are not finite.
    """
    module = built(net).eval().requires_grad_(False)
    norms = [layer for layer in module.modules() if isinstance(layer, Norm)]
    if not norms:
        raise ConfigError(f"{net} has no batch normalisation", 'adapt a Conv(norm="batch")')
    if not len(x) or not np.isfinite(x).all():
        raise DataError("no inputs to adapt to, or some that are not finite", "give finite ones")
    tensors = {name: tensor.clone() for name, tensor in fitting(net, params).items()}
    for layer in norms:
        layer.train()
        layer.momentum = 1.0
    dtype = next(iter(tensors.values())).dtype
    with torch.no_grad():
        functional_call(module, tensors, (channels_last(to_tensor(np.asarray(x)).to(dtype)),))
    return to_tree(tensors)
