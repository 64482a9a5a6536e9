"""Traces: the integral is exact, made-up ones keep their promise, files are read as published."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from duetto.errors import ConfigError, DataError
from duetto.simulation import traces
from duetto.simulation.traces import Trace

STEPS = Trace(np.array([0, 1.0, 2.5, 3.0, 5.0]), np.array([8.0, 0, 2, 0]), "steps")  # 9 Mbit every 5 s


@st.composite
def some_traces(draw: st.DrawFn) -> Trace:
    """Traces of up to six pieces, outages among them, that let something through."""
    pieces = draw(st.lists(st.tuples(st.floats(0.1, 5), st.just(0.0) | st.floats(0.1, 100)), min_size=1, max_size=6))
    seconds, mbps = np.array(pieces).T
    mbps[0] = mbps[0] or 1.0
    return Trace(np.concatenate([[0.0], np.cumsum(seconds)]), mbps, "drawn")


def test_at_is_the_value_from_edge_to_edge_and_repeats():
    expected = {0.0: 8, 0.999: 8, 1.0: 0, 2.5: 2, 3.0: 0, 4.999: 0, 5.0: 8, 7.6: 2, -4.5: 8, -0.5: 0, -1e-20: 0}
    assert {time: STEPS.at(time) for time in expected} == expected


@settings(max_examples=30)
@given(some_traces(), st.floats(-20, 20), st.floats(0, 20))
def test_megabits_is_the_integral(trace: Trace, start: float, lasting: float):
    grid = np.linspace(start, start + lasting, 4001)
    middle = (grid[1:] + grid[:-1]) / 2
    expected = sum(trace.at(time) for time in middle) * lasting / 4000
    crossings = len(trace.mbps) * (lasting / trace.seconds[-1] + 2)  # each edge is seen to half a step
    assert trace.megabits(start, start + lasting) == pytest.approx(
        expected, abs=crossings * 100 * lasting / 4000 + 1e-9
    )


CLOSES = Trace(np.array([0, 4.37814236, 9.37814236, 14.37814236, 15.37814236]), np.array([1.0, 0, 51, 0]), "closes")


@example(CLOSES, 15.0, 4.378142362086948)
@example(CLOSES, 15.0, 4.37814236)
@given(some_traces(), st.floats(0, 1e4), st.floats(1e-6, 1e4))
def test_after_is_the_first_time_at_which_that_much_has_passed(trace: Trace, start: float, megabits: float):
    end = trace.after(start, megabits)
    assert end >= start
    assert trace.megabits(start, end) == pytest.approx(megabits, rel=1e-6, abs=1e-6)
    assert (
        trace.megabits(start, end - 1e-4) < megabits
    )  # not a moment earlier: no outage is waited out after the last bit


def test_after_whole_periods_costs_no_loop_and_ends_before_the_closing_outage():
    assert STEPS.after(0, 9.0) == 3.0
    assert STEPS.after(0, 9.0 * 10**9) == pytest.approx(5.0 * (10**9 - 1) + 3.0)
    assert STEPS.after(1.2, 1.0) == pytest.approx(3.0)  # begins in an outage
    assert STEPS.after(3.0, 8.0) == 6.0
    assert STEPS.after(4.0, 0.0) == 4.0


def test_a_trace_keeps_its_own_arrays():
    mbps = np.array([1.0])
    trace = Trace(np.array([0.0, 1.0]), mbps, "mine")
    mbps[0] = 7
    assert trace.at(0) == 1
    with pytest.raises(ValueError, match="read-only"):
        trace.mbps[0] = 7


@pytest.mark.parametrize(
    ("seconds", "mbps"),
    [
        ([0.0], []),
        ([0.0, 1.0], [1.0, 2.0]),
        ([[0.0, 1.0]], [1.0]),
        ([0.0, 1.0, 1.0], [1.0, 2.0]),
        ([0.0, 2.0, 1.0], [1.0, 2.0]),
        ([1.0, 2.0], [1.0]),
        ([0.0, 1.0], [-1.0]),
        ([0.0, 1.0], [0.0]),
        ([0.0, 1.0], [np.nan]),
        ([0.0, np.inf], [1.0]),
    ],
)
def test_a_trace_that_is_none_names_itself(seconds: list[float], mbps: list[float]):
    with pytest.raises(DataError, match="trace broken"):
        Trace(np.array(seconds), np.array(mbps), "broken")


def test_constant_and_scaled():
    assert traces.scaled(traces.constant(10), 0.25).after(3.0, 5.0) == pytest.approx(5.0)


@pytest.mark.parametrize("mbps", [0, -1, np.nan, np.inf])
def test_made_up_traces_need_a_bandwidth(mbps: float):
    with pytest.raises(ConfigError, match="Mbit/s"):
        traces.constant(mbps)
    with pytest.raises(ConfigError, match="Mbit/s"):
        traces.synthetic(mbps, 0)


def test_synthetic_has_its_mean_and_short_outages_and_follows_its_seed():
    made = [traces.synthetic(20, seed, seconds=1000) for seed in range(30)]
    assert all(trace.mbps.mean() == pytest.approx(20) and trace.seconds[-1] == 1000 for trace in made)
    off = np.array([trace.mbps == 0 for trace in made])
    begun = (off[:, 1:] & ~off[:, :-1]).sum()
    assert 0.01 < off.mean() < 0.04
    assert 1.5 < off.sum() / begun < 2.5  # seconds of an outage
    assert np.array_equal(traces.synthetic(20, 3, seconds=1000).mbps, made[3].mbps)
    assert not np.array_equal(made[3].mbps, made[4].mbps)
    with pytest.raises(ConfigError, match="second"):
        traces.synthetic(20, 0, seconds=0)


def test_cooked_rates_belong_to_the_interval_that_ends_there(tmp_path: Path):
    (tmp_path / "a").write_text("10.5\t99\n11.5\t4\n13.5\t2\n\n")
    trace = traces.cooked(tmp_path / "a")
    assert trace.seconds.tolist() == [0, 1, 3]
    assert trace.mbps.tolist() == [4, 2]
    assert trace.name == f"{tmp_path.name}/a"


def test_mahimahi_counts_every_packet_once(tmp_path: Path):
    times = np.sort(np.random.default_rng(0).integers(0, 2300, 500))
    times[-1] = 2300
    (tmp_path / "b.gz").write_bytes(gzip.compress("\n".join(map(str, times)).encode()))
    trace = traces.mahimahi(tmp_path / "b.gz")
    assert trace.seconds.tolist() == [0, 0.5, 1.0, 1.5, 2.0, 2.3]
    assert trace.megabits(0, 2.3) == pytest.approx(500 * 1504 * 8 / 1e6)
    assert trace.mbps[1] == pytest.approx(((times >= 500) & (times < 1000)).sum() * 1504 * 8 / 1e6 / 0.5)


@pytest.mark.parametrize(
    "text", ["", "\n", "1 2 3\n", "0 1\n", "0 1\n1 x\n", "0 1\n1 2 3\n", "0 1\n0 1\n", "0 1\n1 0\n", "0 1\n1 -2\n"]
)
def test_cooked_tells_what_is_wrong(tmp_path: Path, text: str):
    (tmp_path / "bad").write_text(text)
    with pytest.raises(DataError, match=r"bad\b.*: \S"):
        traces.cooked(tmp_path / "bad")


@pytest.mark.parametrize("text", ["", "0\n", "1.5\n", "x\n", "5\n3\n", "-3\n5\n", "99999999999999999999\n"])
def test_mahimahi_tells_what_is_wrong(tmp_path: Path, text: str):
    (tmp_path / "bad.gz").write_bytes(gzip.compress(text.encode()))
    with pytest.raises(DataError, match=r"bad\.gz.*: \S"):
        traces.mahimahi(tmp_path / "bad.gz")


@pytest.mark.parametrize(
    "data",
    [b"plain", gzip.compress(b"1\n2\n", mtime=0)[:-4], gzip.compress(b"\xff\xfe", mtime=0)],
    ids=["not gzip", "truncated", "not text"],
)
def test_a_damaged_or_missing_file_is_named(tmp_path: Path, data: bytes):
    (tmp_path / "bad.gz").write_bytes(data)
    for read in (traces.cooked, traces.mahimahi, traces.speedtests):
        for path in (tmp_path / "bad.gz", tmp_path / "none"):
            with pytest.raises(DataError, match=path.name):
                read(path)


def test_speedtests_by_radio(tmp_path: Path):
    head = "downlink_Mbps,uplink_Mbps,latency_ms,radio_type,UE_Server_distance_km"
    rows = ["100,20,40,4G,", "50,10,60,4G,300", "0,10,60,4G,300", ",1,1,4G,1", "900,80,30,5G,10"]
    (tmp_path / "tests.csv.gz").write_bytes(gzip.compress("\n".join([head, *rows]).encode()))
    speeds = traces.speedtests(tmp_path / "tests.csv.gz")
    assert set(speeds) == {"4G", "5G"}
    assert speeds["4G"].rtt_seconds.tolist() == [0.04, 0.06]
    assert speeds["4G"].up_mbps.tolist() == [20, 10]
    assert speeds["4G"].down_mbps.tolist() == [100, 50]
    assert np.array_equal(speeds["4G"].kilometres, [np.nan, 300], equal_nan=True)
    for text in ("a,b\n1,2\n", f"{head}\n1,2\n", f"{head}\n1,2,x,4G,\n"):
        (tmp_path / "tests.csv.gz").write_bytes(gzip.compress(text.encode()))
        with pytest.raises(DataError, match="latency_ms"):
            traces.speedtests(tmp_path / "tests.csv.gz")


def test_every_published_trace_has_the_length_and_mean_that_the_index_tells(data_dir: Path):
    lines = [line.split(",") for line in (data_dir / "traces" / "index.csv").read_text().splitlines()[1:]]
    for kind, file, _, seconds, mbps in lines:
        folder = data_dir / "traces" / kind
        if kind == "mahimahi":
            trace = traces.mahimahi(folder / f"{file}.gz")
            assert trace.megabits(0, trace.seconds[-1]) / trace.seconds[-1] == pytest.approx(float(mbps), rel=0.01)
        else:
            trace = traces.cooked(folder / file)
            rows = np.loadtxt(folder / file)
            assert rows[:, 1].mean() == pytest.approx(float(mbps), abs=1e-3)
            assert np.array_equal(trace.mbps, rows[1:, 1])
        assert trace.seconds[-1] == pytest.approx(float(seconds), abs=1.1)
