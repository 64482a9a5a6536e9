"""FedProx: clients that do uneven amounts of work on unlike data are held near to where they started.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith: Federated Optimization in Heterogeneous Networks, MLSys 2020. A client's
loss has ``mu/2 |w - w_t|^2`` beside it; all else is FedAvg, which ``mu = 0`` is. The paper samples clients by their
examples and averages them equally; here replies are weighted by examples, whoever is in the cohort.

Up: the change of the parameters. Down: the parameters. Stays: the data.
"""

from __future__ import annotations

import math
from typing import Unpack

from duetto.algorithms.common import Common, spelled_out, variant
from duetto.algorithms.fedavg import Average
from duetto.errors import ConfigError
from duetto.models import Net
from duetto.training import Proximal
from duetto.tree import Tree
from duetto.types import Algorithm


@spelled_out
def fedprox(net: Net, params: Tree, *, mu: float, server_lr: float = 1.0, **common: Unpack[Common]) -> Algorithm:
    """FedProx; ``mu`` is the strength of the pull back to the start.

    Raises:
        ConfigError: a negative ``mu``.
    """
    if not 0 <= mu < math.inf:
        raise ConfigError(f"mu={mu}", "use a number from 0")
    return variant(net, params, Average(server_lr), terms=(Proximal(mu),), **common)
