"""A round as a cohort policy lives it: it chooses, the chosen answer or do not, it learns."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.types import Action, Key, Policy, Seen


@pytest.fixture
def one_round() -> Callable[..., tuple[Any, np.ndarray]]:
    """Plays one round: the state after it, which has been saved and restored, and who was chosen, ``[n]`` bool."""

    def play(policy: Policy[Any], state: Any, seen: Seen, key: Key, *, answers: Any = True, **told: Any) -> Any:
        """``answers`` [n] bool and what would be told, [n] each, of everyone; the policy hears it of the chosen."""
        state, move = policy.choose(state, seen, key)
        chosen = move.action == Action.ASK
        reward = np.where(chosen, np.broadcast_to(answers, seen.size).astype(float), np.nan)
        columns = {
            name: np.where(reward == 1, np.broadcast_to(column, seen.size), np.nan) for name, column in told.items()
        }
        heard = replace(seen, traits={**(seen.traits or {}), **columns})
        return trees.decode(trees.encode(policy.learn(state, heard, move, reward))), chosen

    return play
