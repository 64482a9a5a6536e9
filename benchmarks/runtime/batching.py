"""Dynamic batching beside the same model offline, and what becomes of those who ask twice too often.

    export OMP_NUM_THREADS=1
    python benchmarks/runtime/batching.py                                                # 10 minutes
    python benchmarks/runtime/batching.py --only "conv torch" --seconds 1 --turns 5      # a quick look

Requests of one row each come from the same process, so the loop that serves them also makes them: what is measured is
the batcher, without a network. *Offline* is the model alone over the same rows, in batches of the same size, in a
loop; *served* the same through the batcher, from as many clients as four batches have rows, each of which asks again
when it is answered; *one by one* is the model on single rows. The three take turns, and each figure is the median of
the turns, shares with the least and the most. On a machine that is busy with something else two threads lose more than
one, so there is a share of the model's processor time too: what a row costs offline over what it costs in the
batcher's thread, and beside it what the loop's thread pays for one request, asking included. The turns that count
are those in which other programs used the least; how many processors that were is told.

*Overload* is an open loop: Poisson arrivals at twice the rate that was served, each with a deadline. Latencies are of
those that were answered, by the clock of who asked; *not in time* are those that were let in and not answered.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np
import torch

from duetto.cli import real
from duetto.cloud.batcher import Batcher, Overloaded
from duetto.device import Artefact
from duetto.models import Conv, Mlp, Predict, export
from duetto.models.net import Net
from duetto.types import Local, Skill

T = TypeVar("T")
ROWS = 64
MODELS: dict[str, Net] = {
    "mlp": Mlp((784,), 62, (1024, 1024)),
    "conv": Conv((1, 28, 28), 62, (32, 64, 128), (800,)),
}


def skills(folder: Path) -> dict[str, tuple[Skill, Local, tuple[int, ...]]]:
    """By name: a skill, the party's cell, and the shape of a row. Torch, and onnxruntime where it is installed."""
    found: dict[str, tuple[Skill, Local, tuple[int, ...]]] = {}
    for name, net in MODELS.items():
        params = net.init(0)
        found[f"{name} torch"] = Predict(net), Local(None, {"params": params, "version": 1}), net.shape
        path = str(export.onnx(net, params, folder / f"{name}.onnx"))
        found[f"{name} onnx"] = Artefact(path), Local(None, {"version": 1}), net.shape
    return found


def offline(skill: Skill, cell: Local, x: np.ndarray, seconds: float, rows: int) -> tuple[float, float]:
    """Rows a second of the model alone, and processor seconds a row."""
    batches = [{"x": x[i : i + rows]} for i in range(0, len(x) - rows + 1, rows)]
    done, begun, used = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() < begun + seconds:
        for batch in batches:
            skill(cell, batch, (0,), "ann")
        done += rows * len(batches)
    return done / (time.perf_counter() - begun), (time.process_time() - used) / done


async def served(skill: Skill, cell: Local, x: np.ndarray, seconds: float) -> tuple[float, float, float]:
    """Rows a second through the batcher, and processor seconds a row, of its thread and of the loop's."""
    async with Batcher(max_rows=ROWS) as batcher:
        end, done = time.perf_counter() + seconds, 0

        async def client(i: int) -> None:
            nonlocal done
            while time.perf_counter() < end:
                await batcher.use(skill, cell, {"x": x[i % len(x)][None]}, (i,), "ann", deadline=60.0)
                done += 1
                i += 1

        begun, used, own = time.perf_counter(), time.process_time(), time.thread_time()
        await asyncio.gather(*(client(i) for i in range(4 * ROWS)))
        own, used = time.thread_time() - own, time.process_time() - used
        return done / (time.perf_counter() - begun), (used - own) / done, own / done


async def overload(
    skill: Skill, cell: Local, x: np.ndarray, seconds: float, rate: float, deadline: float, seed: int
) -> dict[str, float]:
    """What becomes of Poisson arrivals at ``rate`` a second."""
    draw = np.random.default_rng(seed)
    took: list[float] = []
    missed = 0

    async def ask(i: int, batcher: Batcher) -> None:
        nonlocal missed
        begun = time.perf_counter()
        try:
            await batcher.use(skill, cell, {"x": x[i % len(x)][None]}, (i,), "ann", deadline=deadline)
            took.append(time.perf_counter() - begun)
        except Overloaded:
            missed += 1

    async with Batcher(max_rows=ROWS) as batcher:
        for i in range(20):  # it learns its pace
            await asyncio.gather(*(batcher.use(skill, cell, {"x": x[:1]}, (i,), "ann") for _ in range(1 + i % ROWS)))
        before = batcher.counters()
        arrivals = np.cumsum(draw.exponential(1 / rate, int(rate * seconds)))
        tasks: set[asyncio.Task[None]] = set()
        begun, i = time.perf_counter(), 0
        while i < len(arrivals):
            now = time.perf_counter() - begun
            while i < len(arrivals) and arrivals[i] <= now:
                task = asyncio.ensure_future(ask(i, batcher))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                i += 1
            await asyncio.sleep(0 if i == len(arrivals) else max(0.0, min(arrivals[i] - now, 2e-3)))
        lasted = time.perf_counter() - begun
        await asyncio.gather(*tasks)
        after = batcher.counters()
    told = {name: after[name] - before.get(name, 0) for name in after}
    let_in = told["asked"] - told["shed"]
    times = np.array(took) if took else np.full(1, np.nan)
    return {
        "offered_a_second": len(arrivals) / lasted,
        "answered_a_second": len(took) / (time.perf_counter() - begun),
        "shed": told["shed"] / told["asked"],
        "not_in_time": (told["dropped"] + told["late"]) / let_in if let_in else float("nan"),
        "p50_ms": 1e3 * float(np.quantile(times, 0.5)),
        "p99_ms": 1e3 * float(np.quantile(times, 0.99)),
        "most_ms": 1e3 * float(times.max()),
        "rows_a_batch": told["rows"] / max(1, told["batches"]),
    }


def others(measure: Callable[[], T]) -> tuple[T, float]:
    """What a measure gives, and how many processors other programs used meanwhile; NaN where Linux does not tell."""

    def busy() -> float:
        try:
            ticks = [float(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
        except (OSError, ValueError):
            return float("nan")
        return (sum(ticks[:8]) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")

    begun, used, all_used = time.perf_counter(), time.process_time(), busy()
    found = measure()
    own = time.process_time() - used
    return found, max(0.0, busy() - all_used - own) / (time.perf_counter() - begun)


def turns(
    repeats: int, quiet: float, most: int, *measures: Callable[[], tuple[float, ...]]
) -> tuple[list[list[tuple[float, ...]]], float, int]:
    """Each measure's figures, taken in turns, so that whatever else the machine does strikes all of them.

    Until there are ``repeats`` turns in which others used no more than ``quiet`` processors, and ``most`` turns at
    most; then those that were the quietest. Beside the figures: what others used in the worst of them, and how many
    turns it took.
    """
    figures: list[tuple[float, list[tuple[float, ...]]]] = []
    while sum(disturbed <= quiet for disturbed, _ in figures) < repeats and len(figures) < most:
        found = [others(measure) for measure in measures]
        figures.append((max(used for _, used in found), [each for each, _ in found]))
    kept = sorted(figures, key=lambda figure: figure[0])[:repeats]
    return [list(column) for column in zip(*(each for _, each in kept), strict=True)], kept[-1][0], len(figures)


def main(words: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn")
    parser.add_argument("--repeats", type=int, default=5, help="turns that count")
    parser.add_argument("--quiet", type=float, default=0.1, help="processors that others may use in them")
    parser.add_argument("--turns", type=int, default=15, help="the most turns")
    parser.add_argument("--overload-seconds", type=float, default=10.0)
    parser.add_argument("--deadlines", type=float, nargs="*", default=[0.1, 0.25, 1.0], help="seconds")
    parser.add_argument("--times", type=float, default=2.0, help="the rate that was served, so many times")
    parser.add_argument("--switch", type=float, default=5e-4, help="sys.setswitchinterval, seconds; Python's is 5e-3")
    parser.add_argument("--only", default="", help="models whose name contains this")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(words)
    torch.set_num_threads(1)
    real.serving()
    real.loaded()
    sys.setswitchinterval(chosen.switch)
    tables: dict[str, Any] = {"load before": os.getloadavg()[0], "rows": ROWS}
    with tempfile.TemporaryDirectory() as folder:
        for name, (skill, cell, shape) in skills(Path(folder)).items():
            if chosen.only not in name:
                continue
            x = np.random.default_rng(0).normal(size=(16 * ROWS, *shape)).astype(np.float32)
            skill(cell, {"x": x[:ROWS]}, (0,), "ann")
            (alone, through, singly), disturbed, taken = turns(
                chosen.repeats,
                chosen.quiet,
                chosen.turns,
                partial(offline, skill, cell, x, chosen.seconds, ROWS),
                partial(lambda *each: asyncio.run(served(*each)), skill, cell, x, chosen.seconds),
                partial(offline, skill, cell, x[:ROWS], chosen.seconds / 3, 1),
            )
            shares = sorted(b[0] / a[0] for a, b in zip(alone, through, strict=True))
            processor = sorted(a[1] / b[1] for a, b in zip(alone, through, strict=True))
            rates = [median(each[0] for each in column) for column in (alone, through, singly)]
            loop = median(each[2] for each in through)
            row: dict[str, Any] = dict(zip(("offline", "served", "one by one"), rates, strict=True))
            row |= {
                "others": disturbed,
                "turns": taken,
                "shares": shares,
                "processor shares": processor,
                "loop seconds a request": loop,
            }
            if not chosen.json:
                print(
                    f"{name:10s} offline {rates[0]:6.0f}/s, served {rates[1]:6.0f}/s, share {median(shares):.0%} "
                    f"[{shares[0]:.0%}, {shares[-1]:.0%}]; of processor time {median(processor):.0%} "
                    f"[{processor[0]:.0%}, {processor[-1]:.0%}], loop {1e6 * loop:.0f} us; "
                    f"one by one {rates[2]:6.0f}/s; others used up to {disturbed:.2f} processors, {taken} turns",
                    flush=True,
                )
            for deadline in chosen.deadlines:
                rate = chosen.times * rates[1]
                measure = partial(overload, skill, cell, x, chosen.overload_seconds, rate, deadline, seed=0)
                found, disturbed = others(lambda measure=measure: asyncio.run(measure()))
                found["others"] = disturbed
                row[f"deadline {deadline}"] = found
                if not chosen.json:
                    print(
                        f"    deadline {1e3 * deadline:4.0f} ms: offered {found['offered_a_second']:8.0f}/s, answered "
                        f"{found['answered_a_second']:8.0f}/s, shed {found['shed']:.1%}, let in but not in time "
                        f"{found['not_in_time']:.2%}, p50 {found['p50_ms']:.1f} ms, p99 {found['p99_ms']:.1f} ms, most "
                        f"{found['most_ms']:.1f} ms, {found['rows_a_batch']:.0f} rows a batch; others {disturbed:.2f}",
                        flush=True,
                    )
            tables[name] = row
    tables["load after"] = os.getloadavg()[0]
    if chosen.json:
        print(json.dumps(tables, indent=1))
    else:
        print(
            f"load average {tables['load before']:.1f} before, {tables['load after']:.1f} after, {os.cpu_count()} cores"
        )


if __name__ == "__main__":
    main()
