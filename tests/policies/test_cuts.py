"""Options: their costs by hand, what is allowed, the table, and when not to split."""

from typing import Any

import numpy as np
import pytest

from duetto.codecs import Quantise, Zstd
from duetto.errors import ConfigError, DataError
from duetto.policies.cuts import COMPRESSED, DEVICE, RAW, Coding, ExitShares, Options, chained, priced, table, verdict
from duetto.simulation.energy import Radio

RADIO = Radio(up_watts=2.0, down_watts=1.0, tail_watts=0.5, tail_seconds=3.0)
HERE, THERE, SIZES = [0.0, 0.1, 0.3, 1.0], [0.0, 0.01, 0.03, 0.1], [600_000, 400_000, 40_000, 4_000]


def made(**settings: Any) -> Options:
    """Three stages: the second shrinks what crosses."""
    known: dict[str, Any] = {
        "input_bytes": 150_000,
        "compressed_bytes": 15_000,
        "answer_bytes": 200,
        "watts": 3.0,
        "overhead_seconds": 0.002,
        "cloud_overhead_seconds": 0.005,
    }
    return chained(HERE, THERE, SIZES, (0, 1, 2, 3), **{**known, **settings})


def test_the_three_without_a_cut_are_always_there() -> None:
    options = made()
    assert options.label[:3] == (DEVICE, RAW, COMPRESSED)
    assert options.cut == (3, 0, 0, 1, 2)
    assert options.up_bytes.tolist() == [0, 150_000, 15_000, 400_000, 40_000]
    assert options.splits.tolist() == [False, False, False, True, True]
    assert np.allclose(options.device_seconds, [1.002, 0, 0, 0.102, 0.302])
    assert np.allclose(options.rest_seconds, [0, 1.002, 1.002, 0.9, 0.7])
    assert np.allclose(options.cloud_seconds, [0, 0.105, 0.105, 0.095, 0.075])


def test_costs_by_hand() -> None:
    options = made(call_dollars=1.0, second_dollars=10.0)
    costs = priced(options, np.array([2.0, 8.0]), np.array([4.0, 4.0]), 0.1, 0.05, RADIO, gap_seconds=2.0)
    sending, receiving, waiting = 40_000 * 8e-6 / 2, 200 * 8e-6 / 4, 0.1 + 0.05 + 0.075
    assert costs.seconds.shape == (2, 5)
    assert np.isclose(costs.seconds[0, 4], 0.302 + sending + waiting + receiving)
    assert np.isclose(costs.joules[0, 4], 0.302 * 3 + sending * 2 + receiving * 1 + 0.5 * (waiting + 2))
    assert np.isclose(costs.dollars[0, 4], 1 + 10 * 0.075)
    assert np.allclose(costs.seconds[:, 0], 1.002)
    assert np.allclose(costs.joules[:, 0], 3.006)


def test_codings_shrink_and_slow_down() -> None:
    options = made(codings=(Coding("int8", 8.0, 1e-6, 2e-6, 0.1, 0.01),))
    assert options.up_bytes[4] == 5_000
    assert np.isclose(options.device_seconds[4], 0.3 * 1.1 + 0.002 + 40_000 * 1e-6)
    assert np.isclose(options.cloud_seconds[4], 0.075 + 40_000 * 2e-6)
    assert options.plans({"int8": Quantise(8), "input": Zstd()})[4].codec == Quantise(8)
    with pytest.raises(ConfigError, match="int8"):
        options.plans({"input": Zstd()})


def test_exits_answer_before_anything_is_sent() -> None:
    options = made(exits=ExitShares((0.25, 0.5), (0.3, 0.5)), overhead_seconds=0.0)
    # The cut at 30 % of the seconds lies behind the first exit only.
    assert options.early_share[4] == 0.3
    assert np.isclose(options.early_seconds[4], 0.25)
    # Of those that reach it, 5/7 pass the second one, at 50 %.
    rest = (0.2 * 0.7 + 0.5 * 0.5) / 0.7
    assert np.isclose(options.rest_seconds[4], rest)
    alone = 0.3 * 0.25 + 0.2 * 0.5 + 0.5 * 1.0
    assert np.isclose(priced(options, 1.0).seconds[0], alone)


def test_constraints() -> None:
    options = made(codings=(Coding("int8", 8.0, excess_risk=0.02),), memory_bytes=[0, 10, 20, 30])
    assert options.within(excess_risk=0.01).label == (DEVICE, RAW, COMPRESSED)
    assert options.within(first_cut=2).label == (DEVICE, "cut 2, int8")
    # Whoever can finish alone holds all of the network.
    assert len(options.within(memory_bytes=30)) == 5
    with pytest.raises(ConfigError, match="constraints"):
        options.within(memory_bytes=29)


def test_a_table_holds_what_is_best_somewhere() -> None:
    options = made(codings=(Coding("int8", 20.0),))
    found = table(options, "latency", up_mbps=(0.01, 0.2, 1.0, 500.0), queue_seconds=(0.0, 5.0))
    for i, mbps in enumerate((0.01, 0.2, 1.0, 500.0)):
        for j, queue in enumerate((0.0, 5.0)):
            best = int(priced(options, mbps, None, 0.05, queue).seconds.argmin())
            assert found.options.label[found.best[i, j]] == options.label[best]
    assert len(found.options) == len(set(found.options.label)) <= 4


def test_verdicts() -> None:
    plain = verdict(made(), "latency", 5.0)
    assert not plain.split
    assert plain.label == COMPRESSED
    assert plain.why.startswith("do not split")
    assert "larger than the compressed input" in plain.why
    lean = verdict(made(codings=(Coding("bottleneck", 100.0),)), "latency", 0.1)
    assert lean.split
    assert lean.label == "cut 2, bottleneck"
    seconds = priced(made(codings=(Coding("bottleneck", 100.0),)), 0.1, None, 0.05).seconds
    assert np.isclose(lean.gain, min(seconds[0], seconds[2]) / seconds[4])
    assert not verdict(made(codings=(Coding("bottleneck", 100.0),)), "latency", 0.001).split
    assert not verdict(made(codings=(Coding("bottleneck", 100.0),)), "latency", 0.1, margin=9.0).split


@pytest.mark.parametrize("objective", ["latency", "energy", "price"])
def test_a_verdict_that_says_no_costs_no_more(objective: Any) -> None:
    options = made(codings=(Coding("int8", 7.0),), call_dollars=1e-6)
    for mbps in np.geomspace(0.05, 100, 12):
        said = verdict(options, objective, mbps, radio=RADIO)
        costs = priced(options, mbps, None, 0.05, radio=RADIO).of(objective)
        chosen = costs[options.label.index(said.label)]
        kept = np.array([label != RAW for label in options.label])
        assert np.isclose(chosen, costs[kept].min())


def test_bad_input() -> None:
    with pytest.raises(ConfigError, match="objective"):
        verdict(made(), "speed", 1.0)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="bandwidth"):
        priced(made(), 0.0)
    with pytest.raises(DataError, match="lengths"):
        chained(HERE, THERE, SIZES, (0, 1), input_bytes=1, compressed_bytes=1, answer_bytes=1, watts=1)
    with pytest.raises(DataError, match="fall"):
        chained(HERE[::-1], THERE, SIZES, (0, 1, 2, 3), input_bytes=1, compressed_bytes=1, answer_bytes=1, watts=1)
    with pytest.raises(ConfigError, match="without a split"):
        verdict(made().rows([3, 4]), "latency", 1.0)
    with pytest.raises(DataError, match="device_seconds"):
        Options(*(("x",), (0,), ("",), (None,)), *([[-1.0]] * 13))  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------------------- leakage


def test_a_plan_above_the_leakage_limit_is_never_chosen() -> None:
    options = chained(
        [0.0, 0.1, 0.3, 1.0],
        [0.0, 0.01, 0.03, 0.1],
        [4e4, 2e4, 1e4, 10.0],
        (0, 2, 5, 9),
        input_bytes=4e4,
        compressed_bytes=1e4,
        answer_bytes=10,
        watts=1.0,
        codings=(Coding("int8", 4.0), Coding("int4", 8.0)),
    )
    measured = {(2, "int8"): 0.9, (2, "int4"): 0.8, (5, "int8"): 0.7, (5, "int4"): 0.3}
    for limit in (-1.0, 0.0, 0.3, 0.5, 0.75, 0.9, 2.0):
        kept = options.within(max_leakage=limit, measured=measured)
        assert DEVICE in kept.label, "what sends nothing leaks nothing"
        for cut, codec, sends in zip(kept.cut, kept.codec, kept.sends, strict=True):
            assert not sends or measured[cut, codec] <= limit, "and the input, which nobody measured, is never sent"
        best = table(kept, "latency").options
        for cut, codec, sends in zip(best.cut, best.codec, best.sends, strict=True):
            assert not sends or measured[cut, codec] <= limit
    assert len(options.within(max_leakage=0.5, measured=measured)) == 2
    assert len(options.within(measured=measured)) == len(options), "without a limit all stay"
    assert options.within(max_leakage=0.5).label == (DEVICE,), "what was not measured may leak everything"
    with pytest.raises(ConfigError, match="leakage"):
        options.rows(options.sends).within(max_leakage=0.1, measured=measured)
