"""DC-CCL: a large model in two parts whose logits add, one learned in the cloud, a small one on devices.

Ding, Niu, Wu, Tang, Lyu, Chen: DC-CCL: Device-Cloud Collaborative Controlled Learning for Large Vision Models, 2023.
The cloud's part is trained in the cloud, on the cloud's data, and is too large for devices. They train the small part
beside a control model, which is all that they know of the cloud's part: a network of their size that was distilled from
it on the cloud's inputs. So the small part learns what the large one lacks, not once more what it knows. A device
answers with control model and small part, the cloud with both parts (``models.beside.Beside``).

Up: the change of the small part. Down: the small part and the control model, which the device remembers. Stays: the
device's data; in the cloud, the cloud's data and part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Unpack

import numpy as np

from duetto import tree as trees
from duetto.algorithms.common import Common, declared, spelled_out, variant
from duetto.algorithms.fedavg import Average
from duetto.models import Net
from duetto.models.beside import Beside
from duetto.training import Adam, Client, Distil
from duetto.training.distilled import distilled
from duetto.tree import Tree
from duetto.types import Algorithm, Peer, Trained


@dataclass(frozen=True)
class ControlledClient(Client):
    """Trains ``net`` beside the control model, and remembers this."""

    control: Net | None = None

    def _both(self) -> Beside:
        return Beside(self.net if self.control is None else self.control, self.net)

    def trains(self, sent: Tree, memory: Mapping[str, Any]) -> Client:
        """Both, of which one learns."""
        return declared(self, self._both())

    def start(self, sent: Tree, memory: Mapping[str, Any]) -> Tree:
        """Both, in the small part's dtype."""
        dtype = next(leaf for _, leaf in trees.leaves(sent["params"])).dtype
        frozen = trees.map(lambda leaf: leaf.astype(dtype), sent["control"])
        return {"params": {"frozen": frozen, "net": sent["params"]}}

    def finish(self, sent: Tree, memory: Mapping[str, Any], trained: Trained) -> tuple[Mapping[str, Any], Tree, float]:
        """The small part's change."""
        return {**memory, "control": sent["control"]}, trained.delta["net"], float(trained.examples)

    def logits(self, sent: Tree, memory: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
        """What control model and small part say; the small part alone, where the other has never come."""
        control = sent.get("control", memory.get("control"))
        if control is None:
            return self.net.logits(sent["params"], x)
        return self._both().logits({"frozen": control, "net": sent["params"]}, x)


@dataclass(frozen=True, eq=False)
class Controlled(Average):
    """Averages the small part, and sends the control model beside it."""

    control: Tree = None

    def send(self, state: Any, params: Tree, peer: Peer | None) -> Tree:
        """Both."""
        return {"params": params, "control": self.control}


@spelled_out
def dc_ccl(
    net: Net,
    params: Tree,
    cloud: tuple[Net, Tree],
    x: np.ndarray,
    *,
    control: Net,
    passes: int = 20,
    server_lr: float = 1.0,
    **common: Unpack[Common],
) -> Algorithm:
    """DC-CCL: ``net`` is the small part, ``cloud`` the other one, trained; ``control`` is distilled from it on ``x``.

    Raises:
        ConfigError: networks of other shapes or classes.
    """
    Beside(cloud[0], net), Beside(control, net)
    pupil = Client(control, (Distil(1.0, 1.0),), Adam(1e-2, schedule="cosine"), passes, common.get("batch_size", 16))
    told = distilled(pupil, control, control.init(0), x, cloud[0].logits(cloud[1], x), (0, "control"))
    return variant(net, params, Controlled(server_lr, told), partial(ControlledClient, control=control), **common)
