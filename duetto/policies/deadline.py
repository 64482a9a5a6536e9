"""Only those who will have answered in time.

Nishio, Yonetani: Client Selection for Federated Learning with Heterogeneous Resources in Mobile Edge (FedCS),
ICC 2019.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from duetto.errors import ConfigError
from duetto.policies.availability import online
from duetto.policies.cohorts import Uniform
from duetto.policies.draws import examples, remembered, sized, told, trait
from duetto.tree import Array, Tree
from duetto.types import Key, Move, Policy, Seen


@dataclass(frozen=True)
class Deadline(Policy[Tree]):
    """:class:`duetto.policies.Uniform` among those online who are expected to answer within so many seconds.

    What is expected of a party is what it took last, or else its examples / flops times the median of what the
    others took for theirs; nothing, where nobody was heard or the party's load is not known, and then it may be
    chosen. Every time that it is asked in vain doubles that. All that a party did is forgotten after ``memory``
    rounds in which it was not asked, so that who was slow once gets another chance.

    In the paper the parties share one channel, and tell before each round how fast they are; choosing then is a
    greedy packing of uploads one after the other. Here each has its own link and nobody tells anything beforehand.

    A round is one choosing. State: ``seconds`` (``[n]`` float64, NaN where not heard); ``missed`` (``[n]`` int64, in
    vain since); ``left`` (``[n]`` int64, rounds until it is forgotten).

    Args:
        size: how many; all who are expected in time where they are fewer, so possibly nobody.
        seconds: from ask to answer; above 0.
        memory: rounds after which a party is forgotten.

    Raises:
        ConfigError: a number out of range.
    """

    size: int
    seconds: float
    memory: int = 20
    sampling: ClassVar[str] = "data-dependent"

    def __post_init__(self) -> None:
        sized(self.size)
        if not self.seconds > 0:
            raise ConfigError(f"a deadline of {self.seconds} seconds", "use a number above 0")
        if self.memory < 1:
            raise ConfigError(f"a memory of {self.memory} rounds", "use at least 1")

    def choose(self, state: Tree, seen: Seen, key: Key) -> tuple[Tree, Move]:
        """Choose; the propensity is the probability of being chosen, or of not being chosen, given who is expected.

        Raises:
            DataError: the state is that of another fleet.
        """
        state = _begun(state, seen)
        in_time = online(seen) & ~(expected(state, seen) > self.seconds)  # who is not known to be late
        _, move = Uniform(self.size).choose({}, replace(seen, link={"online": in_time}), key)
        kept = state["left"] > 1
        after = {
            "seconds": np.where(kept, state["seconds"], np.nan),
            "missed": np.where(kept, state["missed"], 0),
            "left": np.maximum(state["left"] - 1, 0),
        }
        return after, replace(move, why=f"of {in_time.sum()} expected within {self.seconds:g} seconds")

    def learn(self, state: Tree, seen: Seen, move: Move, reward: Array) -> Tree:
        """Remember how long the chosen took, and who did not answer."""
        state, seconds = _begun(state, seen), told(seen, "seconds", reward)
        answered, asked = np.asarray(reward) > 0, ~np.isnan(reward)
        return {
            "seconds": np.where(np.isnan(seconds), state["seconds"], seconds),
            "missed": np.where(answered, 0, state["missed"] + asked),
            "left": np.where(asked, self.memory, state["left"]),
        }


def expected(state: Tree, seen: Seen) -> np.ndarray:
    """Seconds that each party is expected to take, ``[n]`` float64; NaN where nothing is known to go by."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        load = examples(seen) / trait(seen, "flops")
        rates = state["seconds"] / load
        rates = rates[(rates > 0) & (rates < np.inf)]
        guess = load * np.median(rates) if len(rates) else np.full(seen.size, np.nan)
        return np.asarray(np.where(np.isnan(state["seconds"]), guess, state["seconds"]) * 2.0 ** state["missed"])


def _begun(state: Tree, seen: Seen) -> Tree:
    return {
        "seconds": remembered(state, "seconds", seen, np.nan),
        "missed": remembered(state, "missed", seen, 0).astype(np.int64),
        "left": remembered(state, "left", seen, 0).astype(np.int64),
    }
