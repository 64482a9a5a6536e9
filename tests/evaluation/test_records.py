import json
import math
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duetto.errors import DataError
from duetto.evaluation import records
from duetto.types import Cost, Record

numbers = st.floats(allow_nan=False, allow_infinity=False)
words = st.text(max_size=8)
costs = st.builds(Cost, numbers, st.integers(0, 2**60), st.integers(0, 2**60), numbers, numbers)
logs = st.lists(
    st.builds(
        Record,
        protocol=words,
        step=st.integers(0, 2**60),
        metrics=st.dictionaries(words, st.one_of(numbers, st.integers(-(2**60), 2**60), words), max_size=4),
        cost=costs,
        time=numbers,
        party=words,
        user=words,
    ),
    max_size=5,
)


def some(n: int, start: int = 0) -> list[Record]:
    return [
        Record("answer", i, {"correct": i % 2}, Cost(0.1 * i, 10 * i), 1.0 * i, "p", f"u{i}") for i in range(start, n)
    ]


@given(logs)
def test_what_is_written_is_read(tmp_path_factory, log):
    path = tmp_path_factory.mktemp("log") / "records.jsonl"
    records.write(path, log)
    back = records.read(path)
    assert back == log
    assert [repr(each.time) for each in back] == [repr(each.time) for each in log]  # -0.0 too
    first = path.read_bytes()
    records.write(path, back)
    assert path.read_bytes() == first
    assert [entry.name for entry in path.parent.iterdir()] == ["records.jsonl"]


def test_one_order_of_keys_whatever_the_order_of_metrics(tmp_path):
    forth = Record("answer", 1, {"a": 1.0, "b": "x"})
    back = Record("answer", 1, {"b": "x", "a": 1.0})
    assert records.line(forth) == records.line(back)
    assert list(json.loads(records.line(forth))) == ["time", "party", "user", "protocol", "step", "metrics", "cost"]


def test_numbers_of_numpy_are_numbers():
    line = records.line(Record("answer", 0, {"a": np.float32(0.1), "b": np.int64(3), "c": np.True_}))
    assert json.loads(line)["metrics"] == {"a": float(np.float32(0.1)), "b": 3, "c": 1}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan"), None, [1.0]])
def test_what_is_no_finite_number_or_text_is_refused_and_nothing_is_lost(tmp_path, value):
    path = tmp_path / "records.jsonl"
    records.write(path, some(3))
    kept = path.read_bytes()
    bad = Record("answer", 7, {"loss": value})
    with pytest.raises(DataError, match=r"loss = .*step 7"):
        records.write(path, [*some(9), bad])
    with pytest.raises(DataError, match="loss"):
        records.append(path, [*some(9), bad])
    assert path.read_bytes() == kept
    with pytest.raises(DataError, match="time"):
        records.line(Record("answer", time=math.nan))


def test_a_line_cut_anywhere_by_a_crash_loses_that_line_only(tmp_path):
    path = tmp_path / "records.jsonl"
    log = [*some(3), Record("answer", 3, {"why": "naïve é"}, user="ü")]
    records.write(path, log)
    whole = path.read_bytes()
    end = whole[:-1].rfind(b"\n") + 1
    assert records.intact(path)
    for cut in range(end, len(whole) + 1):
        path.write_bytes(whole[:cut])
        complete = cut >= len(whole) - 1  # without its line's end the record is whole
        assert records.read(path) == (log if complete else log[:3])
        assert records.intact(path) == (complete or cut == end)
        records.append(path, some(6, 5))
        assert records.read(path) == (log if complete else log[:3]) + some(6, 5)
        assert records.intact(path)


def test_append_makes_a_log_and_adds_to_it(tmp_path):
    path = tmp_path / "records.jsonl"
    records.append(path, some(2))
    records.append(path, [])
    records.append(path, some(5, 2))
    assert records.read(path) == some(5)


def test_a_cut_line_longer_than_a_block_is_found(tmp_path):
    path = tmp_path / "records.jsonl"
    records.write(path, some(2))
    with path.open("ab") as file:
        file.write(b'{"time":' + b"1" * 200_000)
    assert not records.intact(path)
    records.append(path, some(3, 2))
    assert records.read(path) == some(3)


GOOD = json.loads(records.line(some(2)[1]))


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[]",
        "3",
        json.dumps({**GOOD, "extra": 1}),
        json.dumps({name: GOOD[name] for name in GOOD if name != "cost"}),
        json.dumps({**GOOD, "metrics": {"loss": math.nan}}),
        json.dumps(GOOD).replace("1.0", "1e999"),
        json.dumps({**GOOD, "metrics": {"loss": None}}),
        json.dumps({**GOOD, "step": 1.5}),
        json.dumps({**GOOD, "user": 3}),
        json.dumps({**GOOD, "cost": {**GOOD["cost"], "up_bytes": 1.5}}),
        "[" * 100_000,
    ],
)
def test_a_malformed_line_in_the_middle_is_named(tmp_path, line):
    path = tmp_path / "records.jsonl"
    first, last = (records.line(record) for record in some(2))
    path.write_text(f"{first}\n{line}\n{last}\n")
    with pytest.raises(DataError, match=r"line 2 of .*records\.jsonl is no record: .+"):
        records.read(path)


def test_a_missing_log_says_so(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        records.read(tmp_path / "records.jsonl")


def test_columns_hold_metrics_and_costs_of_one_protocol():
    log = [
        Record("answer", 0, {"correct": 1, "why": "sure"}, Cost(0.5, 3, 4, 0.1, 0.2), 1.5, "p0", "u0"),
        Record("rounds", 0, {"loss": 2.0}),
        Record("answer", 1, {"correct": 0, "score": 0.25}, Cost(0.7), 2.5, "p1", "u1"),
    ]
    table = records.columns(log, "answer")
    assert set(table) == {
        *("time", "step", "party", "user", "seconds", "up_bytes", "down_bytes", "joules", "dollars"),
        *("correct", "score", "why"),
    }
    assert table["seconds"].tolist() == [0.5, 0.7]
    assert table["up_bytes"].tolist() == [3, 0]
    assert table["up_bytes"].dtype == np.int64
    assert table["user"].tolist() == ["u0", "u1"]
    assert table["why"].tolist() == ["sure", ""]
    np.testing.assert_array_equal(table["score"], [np.nan, 0.25])
    np.testing.assert_array_equal(table["correct"], [1.0, 0.0])
    assert len(records.columns(log, "gossip")["time"]) == 0


@pytest.mark.parametrize("metrics", [{"why": 1.0}, {"seconds": 1.0}, {"user": "u"}])
def test_columns_refuse_what_they_cannot_hold(metrics):
    log = [Record("answer", 0, {"why": "sure"}), Record("answer", 1, metrics)]
    with pytest.raises(DataError, match=next(iter(metrics))):
        records.columns(log, "answer")


def test_a_line_is_one_line():
    assert "\n" not in records.line(Record("answer", 0, {"why": string.whitespace}, user="a\nb"))
