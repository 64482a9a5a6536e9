"""Many schedules of faults, one after the other or a few at a time, and a table of what came of them.

    python tests/faults/nightly.py --schedules 1000 --seed 0
    python tests/faults/nightly.py --seed 17 --schedules 1       # the one that failed, again

Each schedule starts real processes; the exit code is 1 where something that must hold did not.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from learning import SETTINGS, USERS, Rehearsed, disturbed, kills
from schedules import FAULTS, drawn
from world import Seen, Template, Violated, World, clock, mounts


async def _all(first: int, count: int, jobs: int, minutes: float, keep: Path | None) -> int:
    begin, end = time.monotonic(), time.monotonic() + 60 * minutes
    seen: list[Seen] = []
    failed: dict[int, str] = {}
    turn = asyncio.Semaphore(jobs)
    with tempfile.TemporaryDirectory(prefix="duetto-faults-") as home:
        (Path(home) / "template").mkdir()
        template = await Template.make(Path(home) / "template")
        if clock(template.folder) is None:
            print("NO CLOCK JUMPS: this machine cannot make one (it needs Linux and cc); they are skipped", flush=True)
        if not mounts():
            print(
                "NO FULL FILE SYSTEMS: this machine mounts none; files are limited instead (RLIMIT_FSIZE)", flush=True
            )

        async def one(seed: int) -> None:
            async with turn:
                if time.monotonic() > end:
                    return
                folder = Path(home) / f"run-{seed}"
                folder.mkdir()
                try:
                    seen.append(await World(drawn(seed), template, folder).run())
                except Exception as fault:
                    said = str(fault) if isinstance(fault, Violated) else traceback.format_exc()
                    failed[seed] = said
                    again = f"python tests/faults/nightly.py --seed {seed} --schedules 1"
                    print(f"FAILED: seed {seed}; again: {again}\n{drawn(seed)}\n{said}", flush=True)
                    if keep is not None:
                        shutil.copytree(folder, keep / f"run-{seed}", dirs_exist_ok=True)
                finally:
                    shutil.rmtree(folder, ignore_errors=True)
                if (len(seen) + len(failed)) % 10 == 0:
                    took = time.monotonic() - begin
                    print(f"{len(seen) + len(failed)} schedules, {len(failed)} failed, {took:.0f} s", flush=True)

        async with asyncio.TaskGroup() as group:  # which waits for all to clear up
            for seed in range(first, first + count):
                group.create_task(one(seed))
    _table(seen, failed, time.monotonic() - begin)
    return 1 if failed or not seen else 0


async def _learning(first: int, count: int) -> int:
    from duetto.programs.deployed import deployed

    begin, failed, killed = time.monotonic(), list[int](), 0
    with tempfile.TemporaryDirectory(prefix="duetto-learning-") as home:
        (Path(home) / "calm").mkdir()
        calm = Rehearsed(Path(home) / "calm", deployed("closed-loop", "digits", SETTINGS, USERS).users)
        await calm.run()
        for seed in range(first, first + count):
            (Path(home) / str(seed)).mkdir()
            try:
                killed += len(await disturbed(seed, calm, Path(home) / str(seed)))
            except Violated as fault:
                failed.append(seed)
                again = f"python tests/faults/nightly.py --schedules 0 --learning 1 --seed {seed}"
                chosen = kills(seed, calm)
                print(f"FAILED: seed {seed}; again: {again}\n{chosen}\n{fault}", flush=True)
    took = time.monotonic() - begin
    print(f"learning: schedules {count}, kills {killed}, violations {len(failed)} {failed}, {took:.0f} s")
    return 1 if failed else 0


def _table(seen: list[Seen], failed: dict[int, str], seconds: float) -> None:
    kinds = sum((each.kinds for each in seen), Counter[str]())
    skipped = sum((each.skipped for each in seen), Counter[str]())
    print(f"{'fault':<16}{'happened':>9}{'skipped':>9}")
    for kind in FAULTS:
        print(f"{kind:<16}{kinds[kind]:>9}{skipped[kind]:>9}")
    print(f"schedules {len(seen) + len(failed)}, violations {len(failed)} {sorted(failed)}, {seconds:.0f} s")
    if seen:
        print(
            f"answers {sum(each.answers for each in seen)}, corrections acknowledged"
            f" {sum(each.corrections for each in seen)}, latest by the device's clock"
            f" {1000 * max(each.own_late for each in seen):+.0f} ms of its deadline (of which the machine's:"
            f" {sum(each.forgiven for each in seen)} answers), longest as the driver saw it"
            f" {max(each.wall for each in seen):.2f} s"
        )


def main() -> int:
    """Run them."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--schedules", type=int, default=1000)
    given.add_argument("--seed", type=int, default=0, help="of the first; the next ones count up")
    given.add_argument("--learning", type=int, default=0, help="programs that learn and are killed, after the others")
    given.add_argument("--jobs", type=int, default=2, help="schedules at a time")
    given.add_argument("--minutes", type=float, default=600.0, help="after which no further one begins")
    given.add_argument("--keep", type=Path, help="where the folders of failed runs are kept")
    args = given.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    signal.signal(signal.SIGTERM, lambda *given: signal.raise_signal(signal.SIGINT))  # all that runs is ended in order
    wrong = asyncio.run(_all(args.seed, args.schedules, args.jobs, args.minutes, args.keep)) if args.schedules else 0
    return wrong | (asyncio.run(_learning(args.seed, args.learning)) if args.learning else 0)


if __name__ == "__main__":
    sys.exit(main())
