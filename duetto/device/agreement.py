"""Whether a new model agrees with the cloud less than the old one did: a one-sided test with a margin.

The test is that of :mod:`duetto.evaluation.shares`. Each of several looks has its share of the error (Bonferroni), so
that looking early costs power and not honesty.
"""

from __future__ import annotations

from dataclasses import dataclass

from duetto.errors import ConfigError
from duetto.evaluation.shares import fallen, share


@dataclass(frozen=True)
class Agreement:
    """When a new model is to go.

    Attributes:
        window: answers of the cloud by which a model is judged; it is kept after so many.
        margin: by which it may agree less often than the one before, in [0, 1).
        confidence: that a model within the margin is kept, in (0, 1); 0.95 sends one in twenty back in vain at most.
        looks: how often it is tested on the way, at equal distances.

    Raises:
        ConfigError: a number that cannot be.
    """

    window: int = 400
    margin: float = 0.02
    confidence: float = 0.95
    looks: int = 4

    def __post_init__(self) -> None:
        if not (0 <= self.margin < 1 and 0 < self.confidence < 1 and 1 <= self.looks <= self.window):
            raise ConfigError(f"{self}", "0 <= margin < 1, 0 < confidence < 1, 1 <= looks <= window")

    def look(self, asked: float) -> int:
        """How many looks are due after so many answers."""
        return min(self.looks, int(asked * self.looks / self.window))

    def worse(self, old: tuple[float, float], new: tuple[float, float]) -> bool:
        """Whether the new model is worse by more than the margin, as far as one look can tell.

        Args:
            old, new: how often each agreed, of how many answers. With fewer of the old one's than a look has, nothing
                can be told.
        """
        if min(old[1], new[1]) * self.looks < self.window:
            return False
        return fallen(share(*old), share(*new), self.margin, (1 - self.confidence) / self.looks)

    def kept(self, agreed: float, asked: float) -> tuple[float, float]:
        """Counts of a model that is not judged any more: of about the last window."""
        factor = min(1.0, self.window / asked) if asked else 1.0
        return agreed * factor, asked * factor
