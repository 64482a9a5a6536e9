"""Figures over time and over users, derived here by a loop over the rows."""

import numpy as np
import pytest

from duetto.cloud.observed import ANSWER, CORRECTION, Told
from duetto.cloud.quality import LEAST, by_device, by_release, chosen, over_time
from duetto.types import rng


@pytest.fixture
def told() -> Told:
    draw = rng(("quality", 0))
    answers = np.zeros(4000, ANSWER)
    answers["time"] = draw.uniform(0, 120, 4000)
    answers["time"][answers["time"] // 10 == 7] -= 10  # a span without anything
    answers["device"] = draw.integers(0, 9, 4000)
    answers["release"] = draw.integers(1, 3, 4000)
    answers["asked"] = draw.random(4000) < 0.1 * (1 + answers["device"])
    answers["agreed"] = np.where(answers["asked"], draw.integers(0, 2, 4000), -1)
    answers["failed"] = draw.random(4000) < 0.01
    for name in ("seconds", "bytes", "joules", "dollars"):
        answers[name] = draw.exponential(size=4000)
    corrections = np.zeros(50, CORRECTION)
    corrections["time"] = draw.uniform(0, 120, 50)
    corrections["device"] = draw.integers(0, 9, 50)
    corrections["right"] = draw.random(50) < 0.5
    return Told(answers, corrections, tuple(f"{'phone' if i < 5 else 'watch'}-{i}" for i in range(10)), 4050)


def test_over_time_is_what_a_loop_finds(told: Told) -> None:
    made = over_time(told, 20.0, 10.0, 8)
    for i in range(8):
        low, high = 20 + 10 * i, 30 + 10 * i
        rows = [row for row in told.answers if low <= row["time"] < high]
        assert made.answers[i] == len(rows)
        assert made.devices[i] == len({row["device"] for row in rows})
        if not rows:
            assert i == 5
            assert made.asked.all[i] is made.seconds[0][i] is made.bytes[i] is made.asked.middle[i] is None
            continue
        assert made.asked.all[i] == pytest.approx(np.mean([row["asked"] for row in rows]))
        by = [[row["asked"] for row in rows if row["device"] == device] for device in range(10)]
        shares = [np.mean(each) for each in by if len(each) >= LEAST]
        assert [made.asked.low[i], made.asked.middle[i], made.asked.high[i]] == pytest.approx(
            np.quantile(shares, (0.1, 0.5, 0.9))
        )
        heard = [row["agreed"] for row in rows if row["agreed"] >= 0]
        assert made.agreed.n[i] == len(heard)
        assert made.agreed.all[i] == pytest.approx(np.mean(heard))
        assert made.seconds[1][i] == pytest.approx(np.quantile([row["seconds"] for row in rows], 0.95))
        assert made.asked_seconds[0][i] == pytest.approx(np.median([row["seconds"] for row in rows if row["asked"]]))
        assert made.dollars[i] == pytest.approx(np.mean([row["dollars"] for row in rows]), rel=1e-5)
        spoken = [row["right"] for row in told.corrections if low <= row["time"] < high]
        assert made.right.n[i] == len(spoken)
        assert made.right.all[i] == (pytest.approx(np.mean(spoken)) if spoken else None)


def test_by_device_and_by_release(told: Told) -> None:
    found = by_device(told)
    assert [each.device for each in found] == sorted(told.devices)[:9]
    for each in found:
        rows = told.answers[told.answers["device"] == told.devices.index(each.device)]
        said = told.corrections[told.corrections["device"] == told.devices.index(each.device)]
        assert (each.answers, each.corrections) == (len(rows), len(said))
        assert each.asked == pytest.approx(rows["asked"].mean())
        assert each.seconds == pytest.approx(np.quantile(rows["seconds"], (0.5, 0.95)))
        assert each.last == rows["time"].max()
        assert each.release == rows["release"][rows["time"].argmax()]
        assert each.right == (pytest.approx(said["right"].mean()) if len(said) else None)
    newest, older = by_release(told)
    assert (newest.release, older.release) == (2, 1)
    assert newest.answers + older.answers == 4000
    assert older.asked == pytest.approx(told.answers["asked"][told.answers["release"] == 1].mean())


def test_filters(told: Told) -> None:
    made = chosen(told, 30.0, 60.0, "phone", 2)
    kept = [row for row in told.answers if 30 <= row["time"] < 60 and row["device"] < 5 and row["release"] == 2]
    assert made.answers.tolist() == [tuple(row.tolist()) for row in kept]
    assert len(made.corrections) == 0, "a correction tells no release"
    assert set(chosen(told, 0, 120, device="phone-1").answers["device"]) == {1}
    assert len(chosen(told, 0, 120, device="phone").answers) == 0
    assert len(chosen(told, 0, 120, "phone").corrections) == (told.corrections["device"] < 5).sum()


def test_nothing_is_no_figure() -> None:
    empty = Told(np.zeros(0, ANSWER), np.zeros(0, CORRECTION), (), 0)
    made = over_time(empty, 0.0, 1.0, 3)
    assert made.answers == made.devices == [0, 0, 0]
    assert made.agreed.all == made.agreed.high == made.joules == made.seconds[1] == [None] * 3
    assert by_device(empty) == by_release(empty) == []
    assert over_time(empty, 0.0, 1.0, 1).answers == [0]
