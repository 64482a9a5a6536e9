import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

from duetto.errors import DataError
from duetto.evaluation import table, users
from duetto.evaluation.table import Interval, Row
from duetto.types import Cost, Record

KEY = (0, "table")


def answers(seed=0, u=12):
    g = np.random.default_rng(seed)
    return [
        Record(
            "answer",
            i,
            {"correct": int(g.random() < 0.6 + 0.03 * (i % u)), "asked": int(i % 4 == 0)},
            Cost(float(g.random()), 100 * (i % 4 == 0), 7, 0.5, 1e-5),
            user=f"u{i % u}",
        )
        for i in range(20 * u)
    ]


def test_a_row_is_a_function_of_records():
    log, alone = answers(), answers(1)
    row = table.row("cascade", [*log, Record("rounds")], key=KEY, device_only=alone)
    correct, before = ({f"u{i}": [] for i in range(12)} for _ in range(2))
    for records, into in ((log, correct), (alone, before)):
        for record in records:
            into[record.user].append(record.metrics["correct"])
    each = np.array([np.mean(values) for values in correct.values()])
    seconds = [record.cost.seconds for record in log]
    values = row.values
    assert values["accuracy"].value == pytest.approx(each.mean())
    assert values["example_accuracy"].value == pytest.approx(np.concatenate(list(correct.values())).mean())
    assert values["worst_accuracy"].value == pytest.approx(np.sort(each)[:2].mean())
    assert values["gain"].value == pytest.approx(each.mean() - np.mean([np.mean(v) for v in before.values()]))
    assert values["offload_rate"] == 0.25
    assert values["p50_seconds"] == pytest.approx(np.median(seconds))
    assert values["p95_seconds"] == pytest.approx(np.percentile(seconds, 95))
    assert values["up_bytes"] == pytest.approx(25_000)  # a quarter of 1,000 answers, 100 bytes each
    assert values["down_bytes"] == pytest.approx(7_000)
    assert values["joules"] == pytest.approx(500)
    assert values["dollars"] == pytest.approx(0.01)
    by = users.by([r.metrics["correct"] for r in log], [r.user for r in log])
    low, high = users.bootstrap(users.user_mean, by, key=KEY)
    assert values["accuracy"] == Interval(values["accuracy"].value, low, high)
    assert "gain" not in table.row("device only", alone, key=KEY).values


def test_answers_without_truth_are_refused():
    with pytest.raises(DataError, match="no scored answers"):
        table.row("cascade", [Record("answer", 0, {"asked": 0})], key=KEY)
    with pytest.raises(DataError, match="no scored answers"):
        table.row("cascade", [*answers(), Record("answer", 0, {"asked": 0})], key=KEY)
    with pytest.raises(DataError, match="no scored answers"):
        table.row("cascade", [], key=KEY)
    with pytest.raises(DataError, match="asked"):
        table.row("cascade", [Record("answer", 0, {"correct": 1})], key=KEY)
    with pytest.raises(DataError, match="different users"):
        table.row("cascade", answers(), key=KEY, device_only=answers(u=5))


def test_break_even():
    assert table.break_even(300, 0.2) == pytest.approx(1500)
    assert table.break_even(0, 0.0) == 0
    assert table.break_even(300, 0) == math.inf
    assert table.break_even(300, -0.1) == math.inf
    row = table.teaching("teaching", calls=3000, devices=10, calls_saved_per_input=0.2)
    assert row.values == {"calls": 3000.0, "break_even_inputs": pytest.approx(1500)}


ROWS = (
    Row("device only", {"accuracy": Interval(0.917, 0.9, 0.93), "p50_seconds": 0.00401, "dollars": 0.0}),
    Row("a | b", {"accuracy": Interval(0.96, 0.95, 0.97), "gain": Interval(0.04, -0.012, 0.1), "p50_seconds": 0.2}),
    Row("teaching", {"calls": 3120.0, "break_even_inputs": math.inf}),
)


def test_json_is_exact_and_strict():
    text = json.dumps(table.to_json(ROWS), allow_nan=False)
    assert table.from_json(json.loads(text)) == ROWS
    back = table.from_json(json.loads(json.dumps(table.to_json([Row("x", {"gain": math.nan})]), allow_nan=False)))
    assert math.isnan(back[0].values["gain"])
    for bad in (
        [{"name": 3, "values": {}}],
        [{}],
        7,
        [{"name": "x", "values": {"gain": "many"}}],
        [{"name": "x", "values": []}],
    ):
        with pytest.raises(DataError, match="no rows"):
            table.from_json(bad)


@pytest.mark.parametrize(
    ("measure", "value", "shown"),
    [
        ("accuracy", 0.91749, "91.7"),
        ("gain", -0.0123, "−1.2"),
        ("gain", 0.0123, "+1.2"),
        ("gain", -0.0001, "0.0"),
        ("p50_seconds", 0.0040149, "4.01"),
        ("p95_seconds", 0.4871, "487"),
        ("p95_seconds", 12.3456, "12,346"),
        ("up_bytes", 592_100.0, "0.592"),
        ("dollars", 0.0000123456, "0.0000123"),
        ("dollars", 0.0, "0"),
        ("calls", 3120.0, "3,120"),
        ("break_even_inputs", math.inf, "never"),
        ("joules", math.nan, "–"),
        ("joules", None, "–"),
    ],
)
def test_a_value_as_a_reader_sees_it(measure, value, shown):
    column = next(column for column in table.COLUMNS if column.measure == measure)
    assert table.text(column, value) == (shown, "")


def test_only_measures_taken_are_shown_and_own_ones_come_last():
    rows = [Row("x", {"zebra_count": 1.0, "p50_seconds": 1.0}), Row("y", {"accuracy": 0.5})]
    assert [column.measure for column in table.shown(rows)] == ["accuracy", "p50_seconds", "zebra_count"]


def test_rows_of_other_measures_are_a_table_of_their_own():
    assert [[row.name for row in block] for block in table.blocks(ROWS)] == [["device only", "a | b"], ["teaching"]]


def test_markdown_is_a_table_that_a_name_cannot_break():
    first, second = table.markdown(ROWS).strip().split("\n\n")
    lines = first.split("\n")
    assert lines[0].startswith("| system | mean of users, accuracy, % |")
    assert "| device only | 91.7 (90.0–93.0) | – | 4.01 | 0 |" in lines
    assert "| a \\| b | 96.0 (95.0–97.0) | +4.0 (−1.2 to +10.0) | 200 | – |" in lines
    assert second.split("\n")[2] == "| teaching | 3,120 | never |"


def test_the_terminal_shows_the_same_figures():
    console = Console(file=io.StringIO(), width=100)
    rows = [*ROWS, Row("[bold]x[/bold]", {"calls": 1.0})]
    console.print(table.render(rows, "a [red]run"))
    shown = console.file.getvalue()
    for words in (
        "91.7",
        "90.0–93.0",
        "+4.0",
        "−1.2 to +10.0",
        "4.01",
        "3,120",
        "never",
        "[bold]x[/bold]",
        "a [red]run",
    ):
        assert words in shown


def drawn(tables, width=80):
    screen = Console(file=io.StringIO(), width=width)
    for each in tables:
        screen.print(each)
    return [line.rstrip() for line in screen.file.getvalue().splitlines()]


def told(name, accuracy, **more):
    values = {"accuracy": Interval(accuracy, accuracy - 0.021, accuracy + 0.02), "worst_accuracy": accuracy - 0.1}
    rest = {"offload_rate": 1.0, "p50_seconds": 0.0512, "p95_seconds": 1.234, "joules": 12_345.0, "dollars": 5e-4}
    return Row(name, {**values, **rest, "up_bytes": 3e5, "down_bytes": 5e4, **more})


def test_the_compact_table_fits_a_terminal_and_puts_what_was_added_below():
    rows = [
        told("new users: prefer device", 0.9),
        told("new users: cascade", 0.91),
        told("old: cascade", 0.7, p95_seconds=math.nan),
        told("new users: prefer device + learning", 0.92, up_bytes=0.0, down_bytes=0.0),
        Row("teaching", {"calls": 3.0}),
    ]
    new, old = table.compact(rows)
    assert drawn([new])[0].split() == ["new", "users", "accuracy", "worst", "asked", "p50", "p95", "MB", "J", "$"]
    assert drawn([new])[1].split() == ["%", "95", "%", "10", "%", "%", "ms", "ms", "/1,000", "/1,000", "/1", "M"]
    cost = ["100.0", "51.2", "1,234", "0.350", "12,345", "0.500"]
    assert [line.split() for line in drawn([new])[3:]] == [
        ["prefer", "device", "90.0", "87.9–92.0", "80.0", *cost],
        ["+", "learning", "92.0", "89.9–94.0", "82.0", *cost[:3], "0", *cost[4:]],
        ["cascade", "91.0", "88.9–93.0", "81.0", *cost],
    ]
    assert drawn([old])[3].split()[5:7] == ["51.2", "–"]
    for width in (80, 100):
        lines = drawn(table.compact(rows, width=width), width)
        assert not any("…" in line for line in lines)
        assert max(map(len, lines)) <= width


def test_compact_runs_stand_below_each_other():
    first, second = [told("cascade", 0.9), told("alone", 0.8)], [told("cascade", 0.95)]
    lines = drawn(table.compact(first, second))
    assert [line.split()[:3] for line in lines[3:]] == [
        ["cascade", "A", "90.0"],
        ["B", "95.0", "92.9–97.0"],
        ["alone", "A", "80.0"],
        ["B", "–", "–"],
    ]
    assert max(map(len, lines)) <= 80
    assert table.compact([]) == []
