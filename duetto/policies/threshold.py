"""Answer here what is sure enough, ask for the rest: a fixed threshold (the cascade of Viola & Jones 2001)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from duetto.errors import ConfigError
from duetto.policies.scores import SCORES, confidence
from duetto.tree import Tree
from duetto.types import Action, Key, Move, Policy, Seen


@dataclass(frozen=True)
class Threshold(Policy[Tree]):
    """Stop where the score is at least ``at``, else ask; before there is an answer, go on (see :func:`unanswered`).

    With "max_softmax", 0 never asks and anything above 1 always asks; with any score so do -inf and inf.

    Args:
        at: in the score's own units.
        score: one of :data:`duetto.policies.SCORES`.

    Raises:
        ConfigError: an unknown score, or a threshold that is NaN.
    """

    at: float
    score: str = "max_softmax"

    def __post_init__(self) -> None:
        known(self.score)
        if math.isnan(self.at):
            raise ConfigError("a threshold that is NaN", "use a number; inf always asks")

    def choose(self, state: Tree, seen: Seen, key: Key) -> tuple[Tree, Move]:
        """Stop, go on or ask, item by item."""
        move = unanswered(seen) or sure(self.scores(state, seen) >= self.at, f"{self.score} against {self.at:g}")
        return state, move

    def scores(self, state: Tree, seen: Seen) -> np.ndarray:
        """How sure each answer is, ``[n]``."""
        return confidence(seen.answer, self.score)


def known(score: str) -> None:
    """Raises ConfigError where no score has that name."""
    if score not in SCORES:
        raise ConfigError(f"no score is called {score!r}", f"use one of {', '.join(SCORES)}")


def unanswered(seen: Seen) -> Move | None:
    """The move where the party's own model has not answered: go on before stage 0, ask later (it has no model).

    None where there is an answer to judge.
    """
    if seen.answer is not None:
        return None
    if seen.stage == 0:
        return Move.sure(np.full(seen.size, Action.GO), "not answered yet")
    return Move.sure(np.full(seen.size, Action.ASK), "no model on the device")


def sure(keep: np.ndarray, why: str) -> Move:
    """Stop where ``keep`` (``[n]`` bool), else ask."""
    return Move.sure(np.where(keep, Action.STOP, Action.ASK), why)
