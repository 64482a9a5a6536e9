"""The replay of the cut planner's benchmark: exact transfers, true bounds, and the policy itself inside."""

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from duetto.codecs import Quantise, Zstd
from duetto.policies import Coding, Options, Planned, chained
from duetto.policies.planned import figures
from duetto.simulation.energy import radios
from duetto.simulation.link import Link
from duetto.simulation.traces import Trace, synthetic
from duetto.types import Action, Held, Move, Seen

FOLDER = str(Path(__file__).parents[2] / "benchmarks" / "split")


@pytest.fixture(scope="module")
def replay() -> Iterator[ModuleType]:
    """The script as a module."""
    sys.path.insert(0, FOLDER)
    yield importlib.import_module("replay")
    sys.path.remove(FOLDER)


@pytest.fixture(scope="module")
def grid(replay: ModuleType) -> ModuleType:
    """The benchmark as a module."""
    return importlib.import_module("grid")


def cells() -> list[Options]:
    """A slow device and a fast one."""
    return [
        chained(
            [0.0, 0.1 * slow, 0.5 * slow],
            [0.0, 0.01, 0.05],
            [600_000, 60_000, 4_000],
            (0, 1, 2),
            input_bytes=150_000,
            compressed_bytes=15_000,
            answer_bytes=200,
            watts=3.0,
            cloud_overhead_seconds=0.01,
            codings=(Coding("int8", 10.0),),
        )
        for slow in (1.0, 0.1)
    ]


def world(replay: ModuleType, links: list[Link], sigma: float = 0.2) -> object:
    """Streams of 40 requests over links."""
    streams = [replay.stream(each, interval=2.0, requests=40, sigma=sigma, seed=1) for each in links]
    return replay.world(streams, cells(), np.stack([figures(radios()["4g-2021"])] * len(links)), 2.0, 2.0)


def mobile(seed: int) -> Link:
    """A made-up link with outages."""
    made = synthetic(4.0, seed, 90)
    return Link(made, made, 0.06)


def test_transfers_equal_brute_force(replay: ModuleType) -> None:
    draw = np.random.default_rng(3)
    edges = np.concatenate([[0.0], np.cumsum(draw.uniform(0.2, 2.0, 12))])
    trace = Trace(edges, draw.lognormal(0, 1, 12) * (draw.random(12) < 0.7), "drawn")
    course = replay.Course.of(trace, 200.0)
    starts, megabits = draw.uniform(0, 60, 12), draw.lognormal(-1, 1.5, 12)
    took = course.takes(starts, megabits)
    for start, size, seconds in zip(starts, megabits, took, strict=True):
        # Second by second in small steps, and as the simulated link does it.
        assert np.isclose(seconds, min(trace.after(start, size) - start, replay.LONGEST_SECONDS), atol=1e-9)
        steps = np.arange(start, start + 31, 4e-3)
        passed = np.cumsum([trace.at(each) for each in steps]) * 4e-3
        assert abs(min(np.searchsorted(passed, size) * 4e-3, replay.LONGEST_SECONDS) - seconds) < 0.05


@pytest.mark.parametrize("knows", ["own", "monitor"])
def test_without_rescue_nobody_beats_the_clairvoyant(replay: ModuleType, knows: str) -> None:
    made = world(replay, [mobile(1), mobile(2)])
    policy = Planned(rescue=False)
    least = replay.clairvoyant(made, "latency").seconds
    found = replay.dynamic(made, policy, knows, sigma=0.1)
    assert (found.seconds >= least - 1e-9)[made.alive].all()
    energy = replay.dynamic(made, replace(policy, objective="energy", gap_seconds=2.0), "monitor")
    assert (energy.joules >= replay.clairvoyant(made, "energy").joules - 1e-9)[made.alive].all()
    everything = np.arange(2) >= 0
    assert (replay.static(made, "latency", everything).seconds >= least - 1e-9).all()


def test_rescue_waits_no_longer_than_it_says(replay: ModuleType) -> None:
    # 3 Mbit/s, and nothing from 20 to 70 s.
    edges = np.array([0.0, 20.0, 70.0, 100.0])
    trace = Trace(edges, np.array([3.0, 0.0, 3.0]), "gap")
    made = world(replay, [Link(trace, trace, 0.05)], 0.0)
    alone = made.seconds[..., 0]
    with_rescue = replay.dynamic(made, Planned(), "own").seconds
    without = replay.dynamic(made, Planned(rescue=False), "own").seconds
    assert without[:, 0, 0].max() >= replay.LONGEST_SECONDS
    assert with_rescue.max() < 3 * alone.max()


def test_a_steady_link_leaves_hardly_anything_to_regret(replay: ModuleType) -> None:
    steady = [Trace(np.array([0.0, 90.0]), np.array([mbps]), "steady") for mbps in (0.3, 2.0, 30.0)]
    made = world(replay, [Link(each, each, 0.05) for each in steady], 0.0)
    for objective in ("latency", "energy"):
        found = replay.dynamic(made, Planned(objective=objective, gap_seconds=2.0), "own")
        spent = replay.by_link(made, replay.cost(found, objective))
        least = replay.by_link(made, replay.cost(replay.clairvoyant(made, objective), objective))
        assert (spent / least).max() < 1.25
        assert (spent / least).mean() < 1.06


def test_side_by_side_is_one_device_after_the_other(replay: ModuleType) -> None:
    made = world(replay, [mobile(1), mobile(2)])
    found = replay.dynamic(made, Planned(), "monitor")
    watched = replay.rates(made, -1.0, 1.0)
    for t, c in ((0, 0), (1, 1)):
        held = Planned().given(cells()[c], radios()["4g-2021"], {"int8": Quantise(8), "input": Zstd()})
        held = Held(held.part, {**held.state, "rtt": np.array(made.streams[t].rtt[0])})
        for n in range(40):
            now = {"time": np.array([2.0 * n]), "up_mbps": watched[n, t : t + 1]}
            held.learn(Seen(traits=now), Move.sure([Action.STOP], ""), np.array([np.nan]))
            held = Held(held.part, {**held.state, "last": np.array(found.rows[n - 1, t, c] if n else -1)})
            row = int(held.part.wanted(held.state, Seen(traits={"time": now["time"]}))[0])
            assert row == found.rows[n, t, c]
            if row and found.seconds[n, t, c] == made.seconds[n, t, c, row]:
                heard = made.wait[n, t, c, row] - cells()[c].cloud_seconds[row]
                held = Held(held.part, {**held.state, "rtt": 0.8 * held.state["rtt"] + 0.2 * heard})


def test_what_is_reported_by_hand(replay: ModuleType, grid: ModuleType) -> None:
    made = world(replay, [mobile(1), mobile(2), mobile(3)])
    which = np.array([True, False, True])
    found = grid.methods(made, "latency", 0.1, 0)
    rows = grid.judged(made, "latency", found, which)
    assert rows["clairvoyant"]["captured"] == 1
    assert rows["clairvoyant"]["regret_mean"] == 0
    assert rows["static in hindsight"]["saving_mean"] == 0
    means = np.array([[found[grid.OWN].seconds[:, t, c].mean() for t in (0, 2)] for c in range(2)])
    best = np.array([min(made.seconds[:, [0, 2], c, k].mean() for k in range(4)) for c in range(2)])
    assert np.isclose(rows[grid.OWN]["saving_mean"], (1 - means.mean(1) / best).mean())
    said = grid.verdicts(made, cells(), [radios()["4g-2021"]] * 3, "latency")
    assert (said["over"] >= 1).all()
