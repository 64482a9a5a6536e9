"""What the console's figures cost the cloud: the first look at a store of many answers, later looks, figures, a pulse.

python benchmarks/runtime/console.py --answers 200000 --devices 1000
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from duetto.cloud import quality
from duetto.cloud.admin.access import Administered
from duetto.cloud.admin.live import pulse
from duetto.cloud.alarms import alarms
from duetto.cloud.metrics import Metrics
from duetto.cloud.observed import Observed
from duetto.cloud.promotion import Promotion
from duetto.cloud.site import Site
from duetto.protocols.deliver import RECORD, Entry
from duetto.types import rng

HOUR = 3600.0


def entry(number: int, at: float, draw: Any) -> Entry:
    """A record as a device makes it."""
    cost = {"seconds": draw.exponential(0.01), "up_bytes": 300, "down_bytes": 60, "joules": 0.01, "dollars": 1e-6}
    told = {"by": "cloud", "why": "confidence below", "asked": True, "label": 1, "own": 1, "base": 1, "version": 1}
    told |= {"session": "s", "number": number, "time": at, "model": 1, "cost": cost}
    return Entry(number, RECORD, json.dumps(told).encode())


def timed(what: str, do: Callable[[], Any], repeats: int = 1) -> Any:
    """Print the least time of a few."""
    best, found = float("inf"), None
    for _ in range(repeats):
        begin = time.perf_counter()
        found = do()
        best = min(best, time.perf_counter() - begin)
    print(f"{what:45s} {1000 * best:10.1f} ms")
    return found


def main() -> None:
    """Fill a store, and look at it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=200_000)
    parser.add_argument("--devices", type=int, default=1000)
    given = parser.parse_args()
    now, draw, each = time.time(), rng(("console", 0)), given.answers // given.devices
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder) / "cloud").begin()
        for device in range(given.devices):
            entries = [entry(i + 1, now - draw.uniform(0, 24 * HOUR), draw) for i in range(each)]
            site.feedback.keep(f"phone-{device:05d}", device.to_bytes(16, "big"), entries)
        observed = Observed(site.feedback)
        told = timed(f"first look at {given.answers:,} answers", observed.told)
        timed("a look with nothing new", observed.told, 5)
        site.feedback.keep("phone-00000", (0).to_bytes(16, "big"), [entry(each + i, now, draw) for i in range(1, 101)])
        timed("a look with 100 new answers", observed.told)
        timed("a day in 60 spans", lambda: quality.over_time(told, now - 24 * HOUR, 24 * HOUR / 60, 60), 3)
        timed(f"figures of {given.devices:,} devices", lambda: quality.by_device(told), 3)
        timed("alarms", lambda: alarms(site, told), 3)
        cloud = Administered(site, None, Metrics(site), Promotion(), observed)
        timed("a pulse, one a second", lambda: pulse(cloud), 5)


if __name__ == "__main__":
    main()
