"""Federated distillation: devices learn what the large model said about their inputs.

Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, as the client's loss of federated averaging
(McMahan et al. 2017). Nothing but the cloud's soft answers labels a device's inputs. The local learning rate falls
over the rounds by half a cosine.

Up: the change of the parameters. Down: the parameters. Stays: the data; what the cloud said lies on the device already.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from duetto import aggregation
from duetto.algorithms.fedavg import Average
from duetto.protocols.collect import Plain
from duetto.training import SGD, Client
from duetto.tree import Tree
from duetto.types import Algorithm, Chain, Codec, Policy


def taught(
    client: Client, params: Tree, *, cohort: Policy[Any], up: Codec[Any] = Chain(), down: Codec[Any] = Chain()
) -> Algorithm:
    """Rounds in which ``client`` (with ``lessons``) trains on what its device was taught."""
    return Algorithm(
        client=client,
        params=params,
        server=Average(),
        aggregator=aggregation.Mean(),
        cohort=cohort,
        gate=aggregation.Gate(norm=None),
        collect=Plain(),
        up=up,
        down=down,
    )


def at(algorithm: Algorithm, step: int, steps: int, final: float) -> Algorithm:
    """The algorithm as it is in round ``step`` of ``steps``; the last rounds learn at ``final`` times the rate."""
    client = algorithm.client
    assert isinstance(client, Client)
    assert isinstance(client.optimiser, SGD)
    share = final + (1 - final) * (1 + math.cos(math.pi * step / steps)) / 2
    return replace(
        algorithm, client=replace(client, optimiser=replace(client.optimiser, lr=client.optimiser.lr * share))
    )
