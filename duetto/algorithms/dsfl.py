"""DS-FL: devices exchange probabilities of public inputs, and what they agree on is made sharper before it is learned.

Itahara, Nishio, Koda, Morikura, Yamamoto: Distillation-Based Semi-Supervised Federated Learning for
Communication-Efficient Collaborative Training with Non-IID Private Data, IEEE Transactions on Mobile Computing 2021.
As FedMD, but the mean is one of probabilities, whose entropy on unlike data is high: entropy reduction aggregation
(``softmax(mean / era)``) takes it down. The paper's cloud trains a network of its own on the same labels; that is a
device without data here, and is left out.

Up: probabilities ``[inputs, classes]``. Down: the logits of the sharpened mean, as many. Stays: the network, and the
data; the public inputs are on every device beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Unpack

import numpy as np

from duetto.algorithms.common import Common, alike, positive, spelled_out, variant
from duetto.algorithms.fedmd import Consensus, LogitsClient
from duetto.models import Net
from duetto.models.net import log_softmax
from duetto.tree import Tree
from duetto.types import Algorithm


@dataclass(frozen=True)
class ProbabilitiesClient(LogitsClient):
    """Tells probabilities."""

    def word(self, logits: np.ndarray) -> np.ndarray:
        """Those of the logits."""
        return np.asarray(np.exp(log_softmax(logits)))


@dataclass(frozen=True)
class Sharpened(Consensus):
    """Divides the mean probabilities by a temperature, as if they were logits.

    Raises:
        ConfigError: a temperature that is not positive.
    """

    era: float = 0.1

    def __post_init__(self) -> None:
        positive(era=self.era)

    def agreed(self, collected: Tree) -> Tree:
        """Logits that are sharp."""
        return {"logits": (collected["logits"] / self.era).astype(collected["logits"].dtype)}


@spelled_out
def dsfl(
    nets: tuple[Net, ...], public: int, *, digest: int = 1, first: int = 10, era: float = 0.1, **common: Unpack[Common]
) -> Algorithm:
    """DS-FL; ``era`` is the temperature that sharpens, all else as of FedMD."""
    client = partial(ProbabilitiesClient, nets=alike(nets), digest=digest, first=first)
    nothing = {"logits": np.zeros((public, nets[0].classes), np.float32)}
    return variant(nets[0], nothing, Sharpened(len(nets), era), client, **common)
