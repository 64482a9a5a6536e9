"""More than are wanted, so that a round need not wait for the slowest.

Bonawitz et al.: Towards Federated Learning at Scale: System Design, MLSys 2019, which asks 130 % of the devices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from duetto.errors import ConfigError
from duetto.tree import Array
from duetto.types import Key, Move, Policy, Seen


@dataclass(frozen=True)
class OverSelected(Policy[Any]):
    """Another policy with ``ceil(factor * size)`` in place of its ``size``.

    To cut the stragglers off is the protocol's part: it goes on once ``policy.size`` have answered. The state is the
    other policy's.

    Args:
        policy: a cohort policy with a ``size``.
        factor: at least 1.

    Raises:
        ConfigError: a policy without a size, a factor out of range, or a size that the policy refuses.
    """

    policy: Policy[Any]
    factor: float = 1.3

    def __post_init__(self) -> None:
        if not 1 <= self.factor < math.inf:
            raise ConfigError(f"an over-selection by {self.factor}", "use a factor from 1")
        named = "size" in getattr(self.policy, "__dataclass_fields__", {})
        if not named or getattr(self.policy, "size", None) is None:
            raise ConfigError(f"no size of {self.policy} to exceed", "use a cohort policy with one: Uniform(size=100)")
        self._wider()

    @property
    def size(self) -> int:
        """How many are asked."""
        # 1.1 * 100 is a little more than 110 in floating point.
        wanted: int = self.policy.size  # type: ignore[attr-defined]
        return math.ceil(round(self.factor * wanted, 9))

    @property
    def sampling(self) -> str:
        """The other policy's; an accountant is to be charged for all who are asked."""
        return str(self.policy.sampling)  # type: ignore[attr-defined]

    def init(self) -> Any:
        """The other policy's first state."""
        return self.policy.init()

    def choose(self, state: Any, seen: Seen, key: Key) -> tuple[Any, Move]:
        """Choose as the other policy does, but more."""
        return self._wider().choose(state, seen, key)

    def learn(self, state: Any, seen: Seen, move: Move, reward: Array) -> Any:
        """Learn as the other policy does."""
        return self._wider().learn(state, seen, move, reward)

    def _wider(self) -> Policy[Any]:
        wider: Policy[Any] = replace(self.policy, size=self.size)  # type: ignore[type-var]
        return wider
