"""The minimum cut against every cut there is."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duetto.errors import DataError
from duetto.policies import best_cut


@st.composite
def graphs(draw: Any) -> dict[str, Any]:
    """Up to seven stages, each of which reads one to three earlier values; the last one reads what nobody else did."""
    count = draw(st.integers(1, 7))
    names = [f"s{i}" for i in range(count)]
    reads: list[list[str]] = []
    for i in range(count):
        earlier = ["x", *names[:i]]
        reads.append(draw(st.lists(st.sampled_from(earlier), min_size=1, max_size=3, unique=True)))
    unread = set(names[:-1]) - {name for each in reads for name in each}
    reads[-1] = sorted({*reads[-1], *unread})
    numbers = st.integers(0, 1000).map(float)
    return {
        "names": names,
        "reads": reads,
        "nbytes": draw(st.lists(numbers, min_size=count, max_size=count)),
        "device_seconds": draw(st.lists(numbers, min_size=count, max_size=count)),
        "cloud_seconds": draw(st.lists(numbers, min_size=count, max_size=count)),
        "input_bytes": {"x": draw(numbers)},
        "up_mbps": 8e-6 * draw(st.sampled_from([0.25, 1.0, 4.0])),
        "rtt_seconds": draw(st.sampled_from([0.0, 50.0])),
        "down_seconds": draw(st.sampled_from([0.0, 10.0])),
    }


def seconds(graph: dict[str, Any], device: set[str]) -> float:
    """What a cut takes; infinite where it is not closed."""
    names, reads = graph["names"], dict(zip(graph["names"], graph["reads"], strict=True))
    if any(name != "x" and name not in device for stage in device for name in reads[stage]):
        return float("inf")
    size = {**dict(zip(names, graph["nbytes"], strict=True)), **graph["input_bytes"]}
    sent = {name for stage in names if stage not in device for name in reads[stage] if name in device or name == "x"}
    total = sum(graph["device_seconds" if name in device else "cloud_seconds"][i] for i, name in enumerate(names))
    away = graph["rtt_seconds"] + graph["down_seconds"] if len(device) < len(names) else 0.0
    return total + sum(size[name] for name in sent) * 8e-6 / graph["up_mbps"] + away


@given(graphs())
def test_no_cut_is_better(graph: dict[str, Any]) -> None:
    found = best_cut(**graph)
    names = graph["names"]
    every = product((0, 1), repeat=len(names))
    least = min(seconds(graph, {name for name, kept in zip(names, bits, strict=True) if kept}) for bits in every)
    assert np.isclose(found.seconds, seconds(graph, set(found.cut)))
    assert np.isclose(found.seconds, least, rtol=1e-6, atol=1e-3)


def test_a_value_that_several_read_is_sent_once() -> None:
    graph = {
        "names": ["a", "b", "c", "d"],
        "reads": [["x"], ["a"], ["a"], ["b", "c"]],
        "nbytes": [10.0, 9.0, 9.0, 1.0],
        "device_seconds": [1.0, 20.0, 20.0, 20.0],
        "cloud_seconds": [1.0, 1.0, 1.0, 1.0],
        "input_bytes": {"x": 100.0},
    }
    found = best_cut(**graph, up_mbps=8e-6)  # type: ignore[arg-type]
    assert found.cut == {"a"}
    assert found.seconds == 1 + 10 + 3


def test_bad_graphs() -> None:
    good: dict[str, Any] = {
        "names": ["a", "b"],
        "reads": [["x"], ["a"]],
        "nbytes": [1.0, 1.0],
        "device_seconds": [1.0, 1.0],
        "cloud_seconds": [1.0, 1.0],
        "input_bytes": {"x": 1.0},
        "up_mbps": 1.0,
    }
    best_cut(**good)
    for changed in ({"nbytes": [1.0]}, {"reads": [["b"], ["a"]]}, {"up_mbps": 0.0}, {"device_seconds": [1.0, -1.0]}):
        with pytest.raises(DataError):
            best_cut(**{**good, **changed})
