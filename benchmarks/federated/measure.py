"""Two measurements that need torch, apart from ``run.py``, whose memory the systems must not share."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import nets
import numpy as np
import torch
import workloads
from torch.nn.functional import cross_entropy, linear


def peak(seconds: float = 0.7, size: int = 2048) -> dict[str, float]:
    """Floating-point operations a second of a matrix product, the best of many; by library, dtype and threads.

    ``mm`` is ``torch.mm``, by the library that torch was built with (MKL, which on processors that are not Intel's
    reaches less than half of what they can do); ``onednn`` is by the library of torch's convolutions.
    """
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.randn(size, size).to(dtype) for _ in "ab")
        products = {"mm": (torch.mm, a, b)}
        if torch.backends.mkldnn.is_available():
            products["onednn"] = (linear, a.to_mkldnn(), b.to_mkldnn())
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for library, (product, left, right) in products.items():
                product(left, right)
                best, end = float("inf"), time.perf_counter() + seconds
                while time.perf_counter() < end:
                    begin = time.perf_counter()
                    product(left, right)
                    best = min(best, time.perf_counter() - begin)
                found[f"{library} {str(dtype).removeprefix('torch.')} {threads}"] = 2 * size**3 / best
    return found


def losses(folder: Path, files: list[Path], rows: int = 2000) -> list[float]:
    """The mean loss of each of these weights on the same rows, spread over the fleet."""
    given = workloads.load(folder)
    chosen = np.linspace(0, len(given.y) - 1, min(rows, len(given.y))).astype(int)
    x, y = torch.from_numpy(given.x[chosen]), torch.from_numpy(given.y[chosen])
    found = []
    for file in files:
        with np.load(file) as weights, torch.inference_mode():
            found.append(float(cross_entropy(nets.begun(given.name, dict(weights))(x), y)))
    return found


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["peak"]:
            print(json.dumps(peak()))
        case ["losses", folder, *files]:
            print(json.dumps(losses(Path(folder), [Path(file) for file in files])))
