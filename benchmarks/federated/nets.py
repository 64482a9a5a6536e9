"""The networks, for all systems on torch; the names of their parameters are those of ``workloads.py``."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor, nn
from workloads import Weights


class NextCharacter(nn.Module):
    """Embedding, LSTM, and a dense layer on its last step."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(80, 8)
        self.lstm = nn.LSTM(8, 128, batch_first=True)
        self.fc = nn.Linear(128, 80)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, 80]`` characters, as floats or not, to logits ``[n, 80]``."""
        steps, _ = self.lstm(self.embed(x.long()))
        return self.fc(steps[:, -1])


def module(name: str) -> nn.Module:
    """The network of a workload, with weights that nobody should use."""
    if name == "W3":
        return NextCharacter()
    if name == "W1":
        layers = [
            ("conv1", nn.Conv2d(1, 32, 5, padding=2)),
            ("relu1", nn.ReLU()),
            ("pool1", nn.MaxPool2d(2)),
            ("conv2", nn.Conv2d(32, 64, 5, padding=2)),
            ("relu2", nn.ReLU()),
            ("pool2", nn.MaxPool2d(2)),
            ("flat", nn.Flatten()),
            ("fc1", nn.Linear(3136, 512)),
            ("relu3", nn.ReLU()),
            ("fc2", nn.Linear(512, 62)),
        ]
    elif name == "W4":
        layers = [("flat", nn.Flatten()), ("fc", nn.Linear(784, 62))]
    else:
        inputs, hidden, outputs = (561, 128, 6) if name == "W2" else (16, 32, 4)
        layers = [("fc1", nn.Linear(inputs, hidden)), ("relu", nn.ReLU()), ("fc2", nn.Linear(hidden, outputs))]
    return nn.Sequential(OrderedDict(layers))


def begun(name: str, weights: Weights) -> nn.Module:
    """The network of a workload with these weights."""
    net = module(name)
    net.load_state_dict({leaf: torch.from_numpy(array) for leaf, array in weights.items()})
    return net


def weights(net: nn.Module) -> Weights:
    """A copy of its weights."""
    return {leaf: np.array(tensor.detach()) for leaf, tensor in net.named_parameters()}
