"""Links: transfers agree with a brute-force integration, never overtake, and networks are found by name."""

import gzip
import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duetto.errors import ConfigError, DataError
from duetto.simulation.link import NAMES, Link, Network, named, offline
from duetto.simulation.traces import Trace, constant, synthetic

TRACE = synthetic(2, seed=1, seconds=30)
BARE = Link(TRACE, TRACE, rtt_seconds=0.0)
starts, sizes = st.floats(0, 1e4), st.integers(0, 10**8)


def stepped(link: Link, start: float, nbytes: int) -> float:
    """When ``nbytes`` are up, a millisecond at a time."""
    left, time = nbytes * 8e-6, start
    while left > 0:
        left -= link.mbps(time + 5e-4, "up") * 1e-3
        time += 1e-3
    return time


@pytest.mark.parametrize("start", [0.0, 0.5, 29.3, 61.7])
@pytest.mark.parametrize("nbytes", [1, 10_000, 1_000_000, 20_000_000])
@pytest.mark.parametrize("outages", [(), ((1.0, 3.5), (3.0, 4.25), (31.0, 33.5), (40.0, 41.0))])
def test_sent_is_the_integral(start: float, nbytes: int, outages: tuple[tuple[float, float], ...]):
    link = BARE
    for outage in reversed(outages):
        link = offline(link, *outage)
    assert link.sent(start, nbytes, "up") == pytest.approx(stepped(link, start, nbytes), abs=5e-3)


@given(starts, starts, sizes, sizes, st.sampled_from(["up", "down"]), st.floats(0, 0.9))
def test_more_bytes_and_later_starts_never_arrive_earlier(a: float, b: float, few: int, many: int, way, loss: float):
    link = offline(Link(TRACE, constant(3), 0.05, loss, offset=7.0), 100.0, 200.0)
    (a, b), (few, many) = sorted((a, b)), sorted((few, many))
    assert link.sent(a, few, way) <= link.sent(a, many, way) + 1e-8
    assert link.sent(a, few, way) <= link.sent(b, few, way) + 1e-8
    assert link.sent(a, few, way) >= a + 0.025


@given(starts, sizes, sizes)
def test_back_to_back_is_all_at_once(start: float, first: int, second: int):
    link = offline(offline(BARE, 300.0, 400.0), 50.0, 60.0)
    at_once, in_turn = link.sent(start, first + second, "up"), link.sent(link.sent(start, first, "up"), second, "up")
    if second:
        assert in_turn == pytest.approx(at_once, abs=1e-6)


def test_a_thousand_periods_cost_no_loop():
    nbytes = int(TRACE.megabits(0, 30) / 8e-6 * 10**6)  # a million of them
    assert BARE.sent(0.0, nbytes, "up") == pytest.approx(30e6, abs=5)


@given(starts, sizes)
def test_an_offset_moves_the_trace(start: float, nbytes: int):
    assert replace(BARE, offset=11.0).sent(start, nbytes, "up") == pytest.approx(
        BARE.sent(start + 11, nbytes, "up") - 11
    )


def test_loss_inflates_the_bytes_and_costs_the_expected_rounds():
    loss, segments, rtt = 0.3, 4, 0.1
    draws = np.random.default_rng(0).geometric(1 - loss, (200_000, segments))  # sendings until each segment is through
    lossless, lossy = Link(constant(1), constant(1), rtt), Link(constant(1), constant(1), rtt, loss)
    nbytes = segments * 1460
    expected = nbytes * 8e-6 * draws.mean() + rtt / 2 + (draws.max(axis=1) - 1).mean() * rtt
    assert lossy.sent(0.0, nbytes, "up") == pytest.approx(expected, rel=0.01)
    assert lossless.sent(0.0, nbytes, "up") == pytest.approx(nbytes * 8e-6 + rtt / 2)


def test_an_outage_happens_once_and_may_last_for_ever():
    link = Link(constant(8), constant(8), rtt_seconds=0.2)
    cut = offline(link, 2.0, 5.0)
    assert [cut.online(time) for time in (1.9, 2.0, 4.9, 5.0)] == [True, False, False, True]
    assert cut.mbps(3.0, "down") == 0
    assert cut.sent(1.0, 2_000_000, "up") == pytest.approx(1 + 2 + 3 + 0.1)
    assert cut.sent(3.0, 0, "up") == pytest.approx(5.1)
    lost = offline(link, 2.0)
    assert lost.sent(0.0, 1_000_000, "down") == pytest.approx(1.1)
    assert lost.sent(1.5, 1_000_000, "down") == math.inf
    assert not lost.online(1e9)
    for start, end in ((3.0, 3.0), (3.0, 2.0), (math.nan, 2.0)):
        with pytest.raises(ConfigError, match="outage"):
            offline(link, start, end)


@pytest.mark.parametrize("start", np.arange(0, 3, 0.1))
def test_what_ends_as_an_outage_begins_is_through(start: float):
    for way in (Link(constant(8), constant(8), 0.0), Link(constant(8), constant(8), 0.0, offset=0.7)):
        end = start + 1.1
        assert offline(way, end, end + 100).sent(start, 1_100_000, "up") == pytest.approx(end)


def test_online_needs_both_directions():
    half = Trace(np.array([0.0, 1.0, 2.0]), np.array([1.0, 0.0]), "half")
    assert [Link(constant(1), half, 0.0).online(time) for time in (0.5, 1.5)] == [True, False]


@pytest.mark.parametrize("wrong", [{"rtt_seconds": -1.0}, {"rtt_seconds": math.inf}, {"loss": 1.0}, {"loss": -0.1}])
def test_a_link_refuses_what_cannot_be(wrong: dict[str, float]):
    with pytest.raises(ConfigError):
        replace(BARE, **wrong)


def test_negative_bytes_are_refused():
    with pytest.raises(ConfigError, match="-1 bytes"):
        BARE.sent(0.0, -1, "up")


def test_networks_that_need_no_files(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("DUETTO_DATA", raising=False)
    ten = named("constant-10").link((0,))
    assert ten.sent(0.0, 1_250_000, "up") == pytest.approx(1 + 0.05 / 2)
    assert named("wifi").link((0,)).online(0.0)
    made = named("synthetic")
    drawn = [made.link((0, user)) for user in range(40)]
    assert made.link((0, 3)).offset == drawn[3].offset
    assert made.link((0, 3)).up is drawn[3].up
    assert len({id(link.up) for link in drawn}) == 8
    assert all(0 <= link.offset < 300 for link in drawn)
    assert len({link.offset for link in drawn}) == 40


@pytest.mark.parametrize(
    "name", ["5-gee", "constant-", "constant-fast", "constant-0", "constant--3", "constant-inf", ""]
)
def test_an_unknown_network_is_told(name: str):
    with pytest.raises(ConfigError, match=r"constant|positive"):
        named(name)


def folder(root: Path, speeds: bool = True) -> Path:
    """Two walks, one drive, a Mahimahi pair and a lone uplink; speed tests near and far."""
    rows = ["set,file"]
    for kind, file, text in [
        ("lumos5g_4g", "4g_trace_walking_1", "0 0\n1 4\n2 8\n"),
        ("lumos5g_4g", "4g_trace_walking_2", "0 0\n1 40\n"),
        ("lumos5g_4g", "4g_trace_driving_3", "0 0\n1 20\n"),
        ("puffer_2030", "trace.txt", "0 0\n1 3\n"),
        ("strange", "4g_trace_walking_9", "not a trace"),
        ("mahimahi", "X-LTE-short.down", "0\n500\n"),
        ("mahimahi", "X-LTE-short.up", "500\n"),
        ("mahimahi", "Y-UMTS-driving.up", "250\n500\n"),
    ]:
        (root / kind).mkdir(parents=True, exist_ok=True)
        path = root / kind / file
        if kind == "mahimahi":
            path.with_name(f"{file}.gz").write_bytes(gzip.compress(text.encode()))
        else:
            path.write_text(text)
        rows.append(f"{kind},{file}")
    (root / "index.csv").write_text("\n".join(rows))
    if speeds:
        (root / "speedtest_x").mkdir()
        head = "downlink_Mbps,uplink_Mbps,latency_ms,radio_type,UE_Server_distance_km"
        table = f"{head}\n100,20,40,4G-LTE,90\n100,20,99,4G-LTE,4000\n"
        (root / "speedtest_x" / "t.csv.gz").write_bytes(gzip.compress(table.encode()))
    return root


def test_measured_networks_are_chosen_by_set_and_name(tmp_path: Path):
    root = folder(tmp_path)
    counts = {"4g-walk": 2, "4g-drive": 1, "4g-commute": 4, "3g-commute": 1, "broadband": 1}
    assert {name: len(named(name, root).links) for name in counts} == counts
    walk = named("4g-walk", root).links[0]
    assert (walk.down.mbps.tolist(), walk.rtt_seconds) == ([4, 8], 0.04)  # the near server's latency
    assert walk.up.mbps == pytest.approx([0.8, 1.6])  # 20 over 100
    pair = named("4g-commute", root).links[-1]
    assert pair.down.megabits(0, 0.5) == pytest.approx(2 * pair.up.megabits(0, 0.5))
    alone = named("3g-commute", root).links[0]
    assert alone.down.mbps == pytest.approx(alone.up.mbps / 0.47)
    with pytest.raises(DataError, match="'5g'"):
        named("5g", root)


def test_without_speed_tests_the_documented_figures_hold(tmp_path: Path):
    link = named("4g-walk", folder(tmp_path, speeds=False)).links[0]
    assert link.rtt_seconds == 0.049
    assert link.up.mbps == pytest.approx(0.25 * link.down.mbps)


def test_a_missing_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("DUETTO_DATA", raising=False)
    with pytest.raises(DataError, match="set DUETTO_DATA"):
        named("4g-walk")
    monkeypatch.setenv("DUETTO_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"index\.csv.*set DUETTO_DATA"):
        named("4g-walk")
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / "index.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"index\.csv"):
        named("4g-walk")


def test_every_named_network_replays_the_real_traces(data_dir: Path):
    for name in itertools.chain((name for name in NAMES if "<" not in name), ["constant-2.5"]):
        network = named(name, data_dir / "traces")
        assert network.links
        for user in range(5):
            link = network.link((0, user))
            up, down = link.sent(100.0, 100_000, "up"), link.sent(100.0, 100_000, "down")
            assert 100 + link.rtt_seconds / 2 < min(up, down)
            assert max(up, down) < 200
        assert 0.02 <= network.links[0].rtt_seconds <= 0.15


def test_the_typical_link_leaves_outages_out() -> None:
    up = Trace(np.array([0.0, 5.0, 6.0, 9.0]), np.array([0.0, 8.0, 2.0]), "made")
    network = Network("two", (Link(up, constant(10), 0.1), Link(up, constant(30), 0.3)), "4g")
    assert network.typical() == {"up_mbps": 2.0, "down_mbps": 10.0, "rtt_seconds": pytest.approx(0.2)}
