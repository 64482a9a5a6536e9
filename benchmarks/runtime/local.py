"""What an answer that stays on the device adds to the bare model: ``python benchmarks/runtime/local.py SMALL.onnx``.

The same input goes to onnxruntime alone and through :class:`duetto.device.agent.Device` in turns: policy, record, group
commit and all. Medians over ``--answers`` of each, and quantiles of the difference of neighbours.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time

import numpy as np

from duetto.device.agent import Device
from duetto.device.artefact import session
from duetto.device.settings import Settings
from duetto.policies import Threshold
from duetto.types import Held


async def measured(path: str, answers: int) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of the bare call and of the answer, ``[answers]`` each."""
    model = session(path, 1)
    shape = [each if isinstance(each, int) else 1 for each in model.get_inputs()[0].shape]
    rows = np.random.default_rng(0).standard_normal((64, *shape[1:])).astype(np.float32)
    bare, whole = np.zeros(answers), np.zeros(answers)
    with tempfile.TemporaryDirectory() as folder:
        device = Device(folder, small=path, policy=Held.of(Threshold(0.0)), settings=Settings("raw"))
        async with device:
            for i in range(-200, answers):
                x = rows[i % len(rows)]
                begin = time.perf_counter()
                model.run(["logits"], {"x": x[None]})
                between = time.perf_counter()
                await device.answer(x)
                end = time.perf_counter()
                if i >= 0:
                    bare[i], whole[i] = between - begin, end - between
                if i % 100 == 0:
                    await asyncio.sleep(0.001)  # as an application would: the loop has other things to do
    return bare, whole


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("small")
    parser.add_argument("--answers", type=int, default=5000)
    asked = parser.parse_args()
    bare, whole = asyncio.run(measured(asked.small, asked.answers))
    print("| | p50 us | p95 us |\n|:--|--:|--:|")
    for name, seconds in (("onnxruntime alone", bare), ("answer", whole), ("what it adds", whole - bare)):
        print(f"| {name} | {1e6 * np.quantile(seconds, 0.5):.1f} | {1e6 * np.quantile(seconds, 0.95):.1f} |")


if __name__ == "__main__":
    main()
