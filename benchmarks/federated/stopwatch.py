"""What every engine does: read its arguments, mark when it is ready and when rounds end, keep weights to compare.

Times are of the monotonic clock, which all processes of a Linux machine share, so that ``run.py`` can subtract the
moment at which it started the engine.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from workloads import Weights

KEPT = (1, 3, 10)  # rounds after which weights are kept, beside the last one


def arguments(about: str) -> argparse.ArgumentParser:
    """The arguments that every engine has."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--folder", type=Path, required=True, help="the workload, as workloads.write made it")
    parser.add_argument("--out", type=Path, required=True, help="an empty folder for times.json and weights")
    return parser


class Stopwatch:
    """Marks the ends of rounds; what it does itself is in no round."""

    def __init__(self, out: Path, rounds: int) -> None:
        self._out, self._rounds = out, rounds
        self._laps: list[tuple[float, float]] = []
        self._begin = 0.0

    def ready(self) -> None:
        """The next thing that happens is the first round."""
        self._ready = self._begin = time.monotonic()

    def lap(self, weights: Callable[[], Weights]) -> None:
        """A round has ended; ``weights()`` are those after it."""
        self._laps.append((self._begin, time.monotonic()))
        done = len(self._laps)
        if done in KEPT or done == self._rounds:
            np.savez(self._out / f"after-{done}.npz", **weights())
        if done == self._rounds:
            (self._out / "times.json").write_text(json.dumps({"ready": self._ready, "laps": self._laps}))
            time.sleep(1)  # run.py looks at the memory now and then, and at least once from now on
        self._begin = time.monotonic()
