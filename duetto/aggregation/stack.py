"""Replies kept apart, for what needs each of them: ensemble distillation (FedDF, Lin et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from duetto.errors import DataError
from duetto.tree import Tree
from duetto.types import Aggregator, Reply


@dataclass(frozen=True)
class Stack(Aggregator[Tree]):
    """Every reply's tree by its sender, in the order of the senders' names; weights do not count.

    The whole cohort stays in memory. The state is the result: ``{sender: tree}``.

    Attributes:
        weighed: keep ``{"tree": tree, "weight": float64}`` of every sender, partial trees too.
    """

    weighed: bool = False
    linear: ClassVar[bool] = False

    def init(self) -> Tree:
        """Nothing added yet."""
        return {}

    def add(self, state: Tree, reply: Reply) -> Tree:
        """Keep one reply.

        Raises:
            DataError: no tree, a partial tree, or a second one of the same sender.
        """
        if reply.tree is None:
            raise DataError(f"{reply.sender} sent no tree ({reply.failure})", "add only replies that answer")
        if reply.index and not self.weighed:
            raise DataError(f"{reply.sender} sent a partial tree", "keep whole trees apart, or take their mean")
        kept = {"tree": reply.tree, "weight": np.float64(reply.weight)} if self.weighed else reply.tree
        return self.merge(state, {reply.sender: kept})

    def merge(self, left: Tree, right: Tree) -> Tree:
        """Both.

        Raises:
            DataError: a sender that is in both.
        """
        if twice := sorted(left.keys() & right.keys()):
            raise DataError(f"{twice[0]} replied twice", "ask every peer once a round")
        return {**left, **right}

    def finish(self, state: Tree) -> tuple[Tree, Tree]:
        """The trees by sender, and an empty state.

        Raises:
            DataError: nothing was added.
        """
        if not state:
            raise DataError("no reply to keep", "every reply failed or was rejected")
        return {}, {sender: state[sender] for sender in sorted(state)}
