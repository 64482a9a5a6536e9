"""Slow-fast learning: a large model in the cloud learns slowly, small ones on devices fast, and each tells the other.

Chen, Yao, Wang, Jia, Han, Zhang, Yang: MC2-SF: Slow-Fast Learning for Mobile-Cloud Collaborative Recommendation, 2021.
The paper's: the cloud's model is the slow component and the device's the fast one, by how often each sees what a user
does; they tell each other prior and privileged knowledge. Ours, its details not being at hand, is what they tell. The
prior is a small network; a device goes on from it with its newest rows, ``trust`` holding it near the prior's answers.
Each ``every`` rounds the cloud learns on its rows: the slow model their labels, and to answer as it did, moved by how
the mean fast model's answers differ from the last prior's; then the prior to answer as it did, moved as the slow one's.
Up: the fast model's change, of which only the mean is read; it tells of a user's newest rows. Down: the prior.
Stays: the rows, and each user's fast model, which answers there; the slow model and its rows, in the cloud.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Unpack

import numpy as np

from duetto import tree as trees
from duetto.algorithms.common import Common, positive, spelled_out, variant
from duetto.algorithms.fedavg_ft import TunedClient
from duetto.models import Net
from duetto.training import Adam, Client, CrossEntropy, Distil, sequential
from duetto.training.distilled import distilled
from duetto.tree import Tree
from duetto.types import Algorithm, Key, Local, Rows, ServerUpdate


@dataclass(frozen=True)
class FastClient(TunedClient):
    """Trains on the last ``newest`` share of its rows, near what the prior says; where it ends is the fast model."""

    newest: float = 1.0

    def _part(self, local: Local) -> Rows:
        rows = super()._part(local)
        first = max(0, len(rows) - math.ceil(self.newest * len(rows)))
        return Rows(rows.x[first:], rows.y[first:])

    def examples(self, local: Local, params: Tree) -> dict[str, np.ndarray]:
        """The newest rows, and what the parameters that came say of them."""
        data = super().examples(local, params)
        return {**data, "teacher": self.net.logits(trees.map(np.float32, params), data["x"])}


@dataclass(frozen=True, eq=False)
class Slow(ServerUpdate[Tree]):
    """Averages fast models; every so often the slow one learns as ``teacher`` declares, then the prior as ``pupil``."""

    slow: Tree
    rows: Rows
    teacher: Client
    pupil: Client
    every: int = 1

    def init(self, params: Tree) -> Tree:
        """The slow model, and the prior as the devices first get it."""
        return {"slow": self.slow, "prior": params, "step": np.int64(0)}

    def step(
        self, state: Tree, params: Tree, collected: Tree | None, *, cohort_size: int, fleet_size: int, key: Key
    ) -> tuple[Tree, Tree]:
        """The mean fast model, or the next prior; an empty cohort changes nothing."""
        if collected is None:
            return state, params
        state, fast, x = {**state, "step": state["step"] + 1}, trees.add(params, collected), self.rows.x
        if state["step"] % self.every:
            return state, fast
        fine, net = self.teacher.net.logits, self.pupil.net
        prior, first = (net.logits(trees.map(np.float32, each), x) for each in (state["prior"], fast))
        said = fine(state["slow"], x)
        lessons = {"x": x, "y": self.rows.y, "teacher": said + first - prior}
        slow = sequential.run(self.teacher, {"params": state["slow"]}, lessons, (*key, "slow")).params
        after = distilled(self.pupil, net, fast, x, prior + fine(slow, x) - said, (*key, "prior"))
        return {**state, "slow": slow, "prior": after}, after


@spelled_out
def slow_fast(
    net: Net,
    params: Tree,
    slow: tuple[Net, Tree],
    rows: Rows,
    *,
    newest: float = 0.5,
    trust: float = 0.5,
    every: int = 1,
    passes: int = 1,
    **common: Unpack[Common],
) -> Algorithm:
    """Slow-fast from a first prior; with no ``passes`` in the cloud, no trust and all rows, FedAvg + fine-tuning."""
    positive(newest=newest, every=every)
    teacher = Client(slow[0], (CrossEntropy(0.5), Distil(0.5, 1.0)), Adam(1e-3), passes, 32)
    pupil = replace(teacher, net=net, loss=(Distil(1.0, 1.0),), optimiser=Adam(2e-4))  # gently: it is small
    server = Slow(slow[1], rows, teacher, pupil, every)
    return variant(net, params, server, partial(FastClient, newest=newest), (Distil(trust, 1.0),), **common)
