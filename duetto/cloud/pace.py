"""How long a batch of so many rows takes, learned from the batches before it.

Seconds are a line over rows (a call has a fixed part, and each row its own), fitted by least squares that forget
exponentially. Beside it runs the mean error of the predictions, as TCP estimates its time-outs (Jacobson 1988,
"Congestion avoidance and control"): what is promised has room for some errors. And as a server that is flooded is
slower in ways that no single batch shows, all predictions are stretched until the share of promises that are broken
is what it may be (adaptive conformal inference, Gibbs and Candes, NeurIPS 2021).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

MISS = 0.005  # the share of promises that may be broken
_STEP = 0.2  # that as many broken promises as a batch has rows add to the stretch
_MOST = 10.0


@dataclass(frozen=True)
class Pace:
    """What is known of a skill's speed; a value, replaced by :meth:`measured`.

    Attributes:
        keep: how much of its weight a batch keeps when another one is measured; 0.8 halves it in three batches.
        weight, rows, squares, seconds, products: sums over the batches, forgotten exponentially.
        error: mean absolute error of the predictions, seconds.
        stretch: how many times as long as is predicted it takes, as far as promises go.
    """

    keep: float = 0.8
    weight: float = 0.0
    rows: float = 0.0
    squares: float = 0.0
    seconds: float = 0.0
    products: float = 0.0
    error: float = 0.0
    stretch: float = 1.0

    def measured(self, rows: int, seconds: float) -> Pace:
        """After a batch of ``rows`` that took ``seconds``."""
        off = abs(seconds - self.expected(rows)) if self.weight else 0.0
        return replace(
            self,
            weight=self.keep * self.weight + 1,
            rows=self.keep * self.rows + rows,
            squares=self.keep * self.squares + rows * rows,
            seconds=self.keep * self.seconds + seconds,
            products=self.keep * self.products + rows * seconds,
            error=self.keep * self.error + (1 - self.keep) * off,
        )

    def kept(self, broken: int, promises: int) -> Pace:
        """After some of so many promises were broken."""
        mean = self.rows / self.weight if self.weight else 1.0
        moved = self.stretch + _STEP * (broken - MISS * promises) / mean
        return replace(self, stretch=min(_MOST, max(1.0, moved)))

    def expected(self, rows: int) -> float:
        """Seconds that a batch of ``rows`` will take; 0 where nothing was measured yet."""
        if not self.weight:
            return 0.0
        mean, mean_seconds = self.rows / self.weight, self.seconds / self.weight
        spread = self.squares / self.weight - mean * mean
        if spread <= 1e-9 * mean * mean:  # batches of one size: no less for fewer rows, in proportion for more
            return mean_seconds * max(1.0, rows / mean) if mean else mean_seconds
        slope = max(0.0, (self.products / self.weight - mean * mean_seconds) / spread)
        slope = min(slope, mean_seconds / mean)  # no call takes less than nothing beside its rows
        return mean_seconds + slope * (rows - mean)
