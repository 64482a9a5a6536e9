"""Those who are there now and may not be there later.

Abdelmoniem, Sahu, Canini, Fahmy: REFL: Resource-Efficient Federated Learning, EuroSys 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from duetto.policies.availability import online
from duetto.policies.draws import asking, highest, sized, trait
from duetto.tree import Tree
from duetto.types import Key, Move, Policy, Seen


@dataclass(frozen=True)
class LeastAvailable(Policy[Tree]):
    """Those online of the lowest ``online_share``, ties at random; 1 where a share is not known.

    In the paper a party forecasts how likely it is to be online while the next round runs; here the trait
    ``online_share`` stands for that, so where it does not change the same parties come first whenever they are
    there. The other half of the paper, what late answers count, is the business of protocols and aggregators. Little
    here is random, so no accountant can count on it: the scheme is "data-dependent".

    Args:
        size: how many; all who are online where they are fewer.

    Raises:
        ConfigError: a size below 1.
    """

    size: int
    sampling: ClassVar[str] = "data-dependent"

    def __post_init__(self) -> None:
        sized(self.size)

    def choose(self, state: Tree, seen: Seen, key: Key) -> tuple[Tree, Move]:
        """Choose; the propensity is the probability of being chosen, or of not being chosen, given who is online."""
        share = np.nan_to_num(trait(seen, "online_share"), nan=1.0)
        return state, asking(*highest(-share, online(seen), self.size, key), "the least available of those online")
