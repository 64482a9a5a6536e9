"""Duetto and other federated simulators side by side: the same data, networks, first weights, clients and steps.

``python benchmarks/federated/run.py --workloads W1 W2 --systems duetto pfl2 fedjax`` runs every system as a process
of its own, one after the other and in turns over ``--repeat``, so that other load on the machine hits all alike. It
prints tables and writes what was measured as JSON. README.md tells how to set up the environments.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import workloads

HERE = Path(__file__).resolve().parent
WARM = 2  # rounds that count as warming up
ALIKE = 1e-3  # float32 systems that are further apart after one round have not done the same
_TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@dataclass(frozen=True)
class System:
    """One column of the comparison.

    Attributes:
        engine: its file.
        environment: whose Python runs it, "torch" or "jax".
        launch: what comes between Python and the file.
        bf16: whether it knows ``--bf16``.
    """

    engine: str
    environment: str = "torch"
    launch: tuple[str, ...] = ()
    bf16: bool = False


SYSTEMS = {
    "duetto": System("duetto_engine.py", bf16=True),
    "pfl": System("pfl_engine.py", bf16=True),
    "pfl2": System("pfl_engine.py", launch=_TORCHRUN, bf16=True),
    "fedjax": System("fedjax_engine.py", environment="jax"),
    "flower": System("flower_engine.py"),
    "plain": System("plain_engine.py"),
}


@dataclass
class Found:
    """What the runs of one system on one workload gave; times in seconds, memory in bytes.

    Attributes:
        laps: of each run, of each round.
        startup: of each run, from its process's begin until the first round could begin.
        memory: of each run, the peak (see :class:`Memory`).
        apart: rounds -> distance of the weights from the reference's, as a share of the largest change so far.
        loss: of the last weights.
        failure: why there is no more.
    """

    laps: list[list[float]] = field(default_factory=list)
    startup: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    apart: dict[int, float] = field(default_factory=dict)
    loss: float | None = None
    failure: str | None = None

    @property
    def steady(self) -> list[float]:
        """Rounds of all runs but those that warm up."""
        return [lap for laps in self.laps for lap in laps[WARM:]]

    @property
    def seconds(self) -> float:
        """The median of the steady rounds."""
        return statistics.median(self.steady) if self.steady else float("nan")


# ------------------------------------------------------------------------------------------------ processes


class Memory(threading.Thread):
    """Watches the memory of all processes below this one, for at most a fiftieth of a core.

    The peak of a process is what it holds (shared pages divided among those who share them) and how far above that
    the kernel says it has been: looks are too rare to see it there. Of several processes the peaks add, although
    they need not be at the same moment.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._ended = threading.Event()

    def run(self) -> None:
        """Until it is stopped."""
        pause = 0.0
        while not self._ended.wait(pause):
            begin = time.perf_counter()
            self.peak = max(self.peak, sum(map(_memory, below())))
            pause = max(0.02, 50 * (time.perf_counter() - begin))

    def stop(self) -> int:
        """The peak."""
        self._ended.set()
        self.join()
        return self.peak


def below() -> list[int]:
    """All processes below this one."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue  # it has just ended
            children.setdefault(parent, []).append(int(entry.name))
    found, front = [], [os.getpid()]
    while front:
        front = [child for parent in front for child in children.get(parent, ())]
        found += front
    return found


def _memory(process: int) -> int:
    """Bytes that a process holds, and how far above that it has been."""
    try:
        kilobytes = {
            name: int(value.split()[0])
            for file in ("smaps_rollup", "status")
            for name, _, value in (
                line.partition(":") for line in Path(f"/proc/{process}/{file}").read_text().splitlines()
            )
            if name in ("Pss", "Rss", "VmHWM")
        }
        return 1024 * (kilobytes["Pss"] + max(0, kilobytes["VmHWM"] - kilobytes["Rss"]))
    except (OSError, KeyError):
        return 0  # it has just ended


def adopt() -> None:
    """Make orphans of what is run here children of this process, so that they are seen, counted and ended."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def end_rest() -> None:
    """End what a system has left behind."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        for process in below():
            os.kill(process, signum)
        until = time.monotonic() + 5
        while below() and time.monotonic() < until:
            try:
                os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            time.sleep(0.05)


def run(command: Sequence[str], scratch: Path, limit: float) -> tuple[float, int, str | None]:
    """Run a system: when it began, its peak memory, and why it failed, if it did."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "DUETTO_CACHE": str(scratch.parent / "cache"),  # empty before the first turn
        "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
        "PYTHONWARNINGS": "ignore",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_HOME": str(scratch / "flower"),
        "RAY_TMPDIR": str(scratch),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    with (scratch / "log").open("w+") as log:
        memory, begin = Memory(), time.monotonic()
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        memory.start()
        try:
            code = process.wait(limit)
            failure = None if code == 0 else f"exit status {code}"
        except subprocess.TimeoutExpired:
            failure = f"not done within {limit:g} s"
        peak = memory.stop()
        end_rest()
        if failure and process.returncode:
            log.seek(0)
            failure += ": " + " / ".join(log.read().strip().splitlines()[-3:])
    return begin, peak, failure


# ---------------------------------------------------------------------------------------------- measurement


def chosen(spec: str, bf16: bool) -> tuple[System, list[str]]:
    """A system and its options, of ``name:option=value,option``."""
    name, _, options = spec.partition(":")
    if name not in SYSTEMS:
        raise SystemExit(f"no system is called {name!r}; there are {', '.join(SYSTEMS)}")
    words = [f"--{option}" for option in options.split(",") if option]
    return SYSTEMS[name], [*words, *(["--bf16"] if bf16 else [])]


def measured(spec: str, folder: Path, scratch: Path, found: Found, args: argparse.Namespace) -> None:
    """Run a system once on a workload; a system that has failed is not run again."""
    bf16 = spec.endswith("+bf16")
    system, options = chosen(spec.removesuffix("+bf16"), bf16)
    python = args.python if system.environment == "torch" else args.jax_python
    shutil.rmtree(scratch, ignore_errors=True)
    out = scratch / "out"
    out.mkdir(parents=True)
    command = [python, *system.launch, str(HERE / system.engine), "--folder", str(folder), "--out", str(out), *options]
    begin, peak, found.failure = run(command, scratch, args.limit)
    if found.failure:
        return
    times = json.loads((out / "times.json").read_text())
    found.startup.append(times["ready"] - begin)
    found.laps.append([end - start for start, end in times["laps"]])
    found.memory.append(peak)
    kept = folder / spec
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(out, kept)


def asked_torch(args: argparse.Namespace, *words: str) -> Any:
    """What ``measure.py`` says."""
    command = [args.python, str(HERE / "measure.py"), *words]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def compare(folder: Path, systems: dict[str, Found], args: argparse.Namespace) -> str:
    """How far weights are from the reference's, and the losses they reach; the reference's name."""
    done = [spec for spec, found in systems.items() if not found.failure]
    alike = [spec for spec in done if "algorithm=" not in spec]  # another algorithm takes other steps
    if not alike:
        return ""
    reference = "plain" if "plain" in alike else alike[0]
    first = _weights(folder / "init.npz")
    rounds = sorted(int(path.stem.partition("-")[2]) for path in (folder / reference).glob("after-*.npz"))
    for spec in alike:
        for count in rounds:
            ours, theirs = (_weights(folder / each / f"after-{count}.npz") for each in (reference, spec))
            moved = max(float(np.abs(ours[leaf] - first[leaf]).max()) for leaf in ours)
            systems[spec].apart[count] = max(float(np.abs(ours[leaf] - theirs[leaf]).max()) for leaf in ours) / moved
    files = [str(folder / spec / f"after-{rounds[-1]}.npz") for spec in done]
    for spec, loss in zip(done, asked_torch(args, "losses", str(folder), *files), strict=True):
        systems[spec].loss = loss
    return reference


def _weights(path: Path) -> workloads.Weights:
    with np.load(path) as arrays:
        return dict(arrays)


# -------------------------------------------------------------------------------------------------- tables


def table(rows: Iterable[Sequence[str]]) -> str:
    """Markdown; the first row is the head."""
    rows = [list(row) for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    )


def strays(spec: str, found: Found) -> bool:
    """Whether it has not done what the reference did; rounding of bfloat16 is not held against it."""
    return 1 in found.apart and "bf16" not in spec and not found.apart[1] <= ALIKE


def shown(name: str, rounds: int, flops: float, systems: dict[str, Found], peak: dict[str, float]) -> str:
    """The table of one workload."""
    base = next((found for spec, found in systems.items() if spec.startswith("duetto")), None)
    head = ["system", "rounds/s", "/ Duetto", "GFLOP/s", "of mm, 1 thread", "of mm, 2", "of best, 2"]
    rows = [[*head, "peak MB", "start s", "round 1 s", "apart after 1", f"after {rounds}", "loss"]]
    for spec, found in systems.items():
        if found.failure or not found.laps:
            rows.append([spec, "failed", *[""] * 11])
            continue
        rate, dtype = 1 / found.seconds, "bfloat16" if "bf16" in spec else "float32"
        mm = [peak[f"mm {dtype} {threads}"] for threads in (1, 2)]
        best = max(value for kind, value in peak.items() if f"{dtype} 2" in kind)
        apart = [f"{found.apart[count]:.0e}" if count in found.apart else "" for count in (1, rounds)]
        far = " DIFFERS" if strays(spec, found) else ""
        rows.append(
            [
                spec,
                f"{rate:.3g}",
                f"{rate * base.seconds:.3g}" if base else "",
                f"{flops * rate / 1e9:.3g}",
                *(f"{flops * rate / each:.1%}" for each in (*mm, best)),
                f"{max(found.memory) / 1e6:.0f}",
                f"{statistics.median(found.startup):.1f}",
                f"{found.laps[0][0]:.2f}",
                f"{apart[0]}{far}",
                apart[1],
                "" if found.loss is None else f"{found.loss:.4f}",
            ]
        )
    failures = [f"{spec} failed: {found.failure}" for spec, found in systems.items() if found.failure]
    title = f"### {name}: {workloads.WORKLOADS[name].about}; {flops / 1e9:.3g} GFLOP a round"
    return "\n".join([title, table(rows), *failures])


def scaling(results: dict[str, dict[str, Found]], path: Path) -> str:
    """Seconds a round and memory against the size of the fleet: a table, and a plot beside the JSON."""
    names = [name for name in results if name.startswith("scale-")]
    specs = [spec for spec in results[names[0]] if not any(results[name][spec].failure for name in names)]
    if not specs:
        return "no system has done all fleets"
    users = [workloads.WORKLOADS[name].users for name in names]
    rows = [["users", *(f"{spec}: {what}" for spec in specs for what in ("ms a round", "peak MB"))]]
    for name, count in zip(names, users, strict=True):
        cells = [(1e3 * results[name][spec].seconds, max(results[name][spec].memory) / 1e6) for spec in specs]
        rows.append(
            [f"{count:,}", *(f"{value:.0f}" if value >= 100 else f"{value:.3g}" for pair in cells for value in pair)]
        )
    text = f"### scale: a cohort of 50 in growing fleets\n{table(rows)}"
    try:
        from matplotlib import pyplot
    except ImportError:
        return f"{text}\nno plot: matplotlib is not there"
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for axes, what, column in ((left, "seconds a round", 0), (right, "peak memory, MB", 1)):
        for spec in specs:
            heights = [(results[name][spec].seconds, max(results[name][spec].memory) / 1e6)[column] for name in names]
            axes.plot(users, heights, "o-", label=spec)
        axes.set(xscale="log", xlabel="users in the fleet", ylabel=what, ylim=(0, 1.1 * axes.dataLim.y1))
    left.legend()
    figure.savefig(path, dpi=150)
    return f"{text}\nplot: {path}"


def machine() -> dict[str, Any]:
    """What the figures depend on, beside the systems."""
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    asked = ["git", "describe", "--always", "--dirty"]
    head = subprocess.run(asked, cwd=HERE, capture_output=True, text=True, check=False)
    return {
        "cpu": cpu[0].partition(":")[2].strip() if cpu else platform.processor(),
        "cores": os.cpu_count(),
        "load before": os.getloadavg(),
        "commit": head.stdout.strip(),
        "argv": sys.argv,
    }


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = [*(name for name in workloads.WORKLOADS if name.startswith("W")), "scale"]
    add = parser.add_argument
    add("--workloads", nargs="+", default=tasks[:-1], metavar="NAME", help=f"of {', '.join(tasks)}, or one scale-N")
    add(
        "--systems",
        nargs="+",
        default=list(SYSTEMS),
        metavar="NAME[:OPTION=VALUE,...]",
        help=f"of {', '.join(SYSTEMS)}; options are those of its engine, as in duetto:network=wifi",
    )
    add("--rounds", type=int, help=f"{WARM} of them warm up; without it, as many as the workload says")
    add("--repeat", type=int, default=1, help="runs of each system, in turns")
    add("--bf16", action="store_true", help="also run the systems that know bfloat16 with it")
    add("--limit", type=float, default=900, metavar="SECONDS", help="after which a run has failed")
    add("--out", type=Path, default=Path("results.json"), help="the measurements; a plot goes beside it")
    add("--python", default=sys.executable, help="the Python of all systems but fedjax")
    beside = Path(sys.prefix).parent / "jax/bin/python"
    add("--jax-python", default=str(beside), help="the Python of fedjax; by default in the environment jax beside this")
    args = parser.parse_args()
    args.out.touch()  # a folder that is not there is better found now than in an hour
    specs = [
        variant
        for spec in args.systems
        for variant in ([spec, f"{spec}+bf16"] if args.bf16 and chosen(spec, False)[0].bf16 else [spec])
    ]
    scale = [name for name in workloads.WORKLOADS if name.startswith("scale")]
    names = [name for asked in args.workloads for name in (scale if asked == "scale" else [asked])]
    if strange := set(names) - set(workloads.WORKLOADS):
        raise SystemExit(f"no workload is called {min(strange)!r}; there are {', '.join(tasks)}")
    if any(chosen(spec, False)[0].environment == "jax" for spec in args.systems) and not shutil.which(args.jax_python):
        raise SystemExit(f"no Python at {args.jax_python} for fedjax; README.md tells how to set one up")
    if args.rounds is not None and args.rounds <= WARM:
        raise SystemExit(f"{args.rounds} rounds, of which {WARM} warm up; ask for more")
    adopt()
    told, peak = machine(), asked_torch(args, "peak")
    results = {name: {spec: Found() for spec in specs} for name in names}
    with tempfile.TemporaryDirectory(prefix="fl-") as temporary:
        root = Path(temporary)
        for name in names:
            workloads.write(name, args.rounds or workloads.WORKLOADS[name].rounds, root / name)
        for turn in range(args.repeat):
            for name in names:
                for spec in specs:
                    if not (found := results[name][spec]).failure:
                        print(f"turn {turn + 1}: {name}, {spec}", file=sys.stderr)
                        measured(spec, root / name, root / "run", found, args)
                again = asked_torch(args, "peak")  # the machine's, whatever else ran on it meanwhile
                peak = {kind: max(value, again[kind]) for kind, value in peak.items()}
        print(f"{told['cpu']}, {told['cores']} cores; matrix products:")
        print(table([["library", "dtype", "threads", "GFLOP/s"], *_peaks(peak)]))
        flops = {}
        for name in names:
            given = workloads.load(root / name)
            flops[name] = given.workload.flops * float(given.sizes[given.cohorts].sum(1).mean())
            reference = compare(root / name, results[name], args)
            print("\n" + shown(name, given.rounds, flops[name], results[name], peak))
            print(f"apart: largest difference from {reference or 'nothing'}, as a share of its largest change so far")
    if any(name in scale for name in names):
        print("\n" + scaling(results, args.out.with_suffix(".png")))
    measurements = {name: {spec: asdict(found) for spec, found in each.items()} for name, each in results.items()}
    report = {"machine": told, "peak flops": peak, "flops a round": flops, "results": measurements}
    args.out.write_text(json.dumps(report, indent=1))
    print(f"\nmeasurements: {args.out}")
    if wrong := [f"{spec} on {name}" for name in names for spec, each in results[name].items() if strays(spec, each)]:
        raise SystemExit(f"not the same weights after one round: {', '.join(wrong)}")


def _peaks(peak: dict[str, float]) -> Iterable[Sequence[str]]:
    return ([*kind.split(), f"{value / 1e9:.0f}"] for kind, value in peak.items())


if __name__ == "__main__":
    main()
