"""One hidden layer: a perceptron fitted by torch with Adam (Kingma & Ba 2015), evaluated by two products in numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from duetto.errors import ConfigError
from duetto.policies.heads.head import Head
from duetto.tree import Tree


@dataclass(frozen=True)
class Network(Head):
    """``Linear -> ReLU -> Linear``, with weight decay.

    Args:
        hidden: units.
        steps: of training.
        batch_size: items of a step.
        lr: the first learning rate; it falls to 0 along a cosine.
        decay: of the weights.
        seed: of the start and of the batches.

    Raises:
        ConfigError: a number out of range.
    """

    hidden: int = 16
    steps: int = 400
    batch_size: int = 256
    lr: float = 0.01
    decay: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.hidden, self.steps, self.batch_size) < 1 or not self.lr > 0 or not self.decay >= 0:
            raise ConfigError(f"{self.hidden} units, {self.steps} steps, lr {self.lr}", "use positive numbers")

    def _classify(self, x: np.ndarray, quality: np.ndarray, shares: np.ndarray) -> Tree:
        return self._trained(x, quality, shares, logit=True)

    def _regress(self, x: np.ndarray, quality: np.ndarray, shares: np.ndarray) -> Tree:
        mean = float(shares @ quality)
        scale = float(np.sqrt(shares @ (quality - mean) ** 2)) or 1.0
        net = self._trained(x, (quality - mean) / scale, shares, logit=False)
        return {**net, "out": net["out"] * scale, "start": net["start"] * scale + mean}

    def _trained(self, x: np.ndarray, quality: np.ndarray, shares: np.ndarray, logit: bool) -> Tree:
        import torch
        from torch import nn

        rows, wanted, weight = (torch.from_numpy(np.array(each, np.float32)) for each in (x, quality, shares * len(x)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            net = nn.Sequential(nn.Linear(x.shape[1], self.hidden), nn.ReLU(), nn.Linear(self.hidden, 1))
            loss = nn.BCEWithLogitsLoss(reduction="none") if logit else nn.MSELoss(reduction="none")
            optimiser = torch.optim.AdamW(net.parameters(), self.lr, weight_decay=self.decay)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps)
            for _ in range(self.steps):
                at = torch.randint(len(rows), (self.batch_size,)) if len(rows) > self.batch_size else slice(None)
                optimiser.zero_grad()
                (loss(net(rows[at])[:, 0], wanted[at]) * weight[at]).mean().backward()
                optimiser.step()
                schedule.step()
        into, bias, out, start = (each.detach().numpy().astype(np.float64) for each in net.parameters())
        return {"into": into.T.copy(), "bias": bias, "out": out[0].copy(), "start": np.array(start[0])}

    def _value(self, fitted: Tree, x: np.ndarray) -> np.ndarray:
        return np.asarray(np.maximum(x @ fitted["into"] + fitted["bias"], 0) @ fitted["out"] + fitted["start"])
