import json
import math
from dataclasses import replace

import numpy as np
import pytest

from duetto.errors import DataError
from duetto.evaluation import result
from duetto.evaluation.result import Curve, Map, Point, Result, Target, Users
from duetto.evaluation.table import Interval, Row

MAP = Map(
    "a net on a phone",
    "s",
    (0.5, 5.0, 50.0),
    (0.01, 0.1),
    ("device", "cut 3"),
    ("device", "split"),
    ((0, 0, 1), (1, 0, 0)),
    ((0.0, 0.0, 0.25), (0.5, 0.0, 0.0)),
    (20.0, 0.05),
)
NAMES = tuple(result.hashed(name) for name in ("ann", "bob"))
FULL = Result(
    name="r",
    task="digits",
    seeds=(0, 1),
    headline="It works.",
    rows=(Row("cascade", {"accuracy": Interval(0.9, 0.8, 0.95), "break_even_inputs": math.inf}),),
    curves=(Curve("before", (0.0, 1.0), (0.8, 0.9)), Curve("chance", (0.0, 1.0), (0.8, 0.9), reference=True)),
    points=(Point("chosen", 0.2, 0.85, "before"),),
    target=Target("large − 0.3", 0.897),
    rounds=({"round": 0.0, "accuracy": 0.8}, {"round": 1.0, "accuracy": 0.1 + 0.2, "up_bytes": 12.0}),
    users=Users((0.8, 0.7), (0.9, 0.7), NAMES),
    notes=("It is small.",),
    maps=(MAP,),
)


def test_what_is_saved_is_loaded(tmp_path):
    path = tmp_path / "result.json"
    for whole in (FULL, Result("r", "digits", (), "")):
        whole.save(path)
        assert Result.load(path) == whole
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


def test_a_result_of_before_there_were_maps_is_loaded(tmp_path):
    path = tmp_path / "result.json"
    FULL.save(path)
    entry = json.loads(path.read_text())
    del entry["maps"]
    path.write_text(json.dumps(entry))
    assert Result.load(path) == replace(FULL, maps=())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"best": ((0, 0, 1),)}, "tables of other sizes"),
        ({"gain": ((0.0, 0.0), (0.0, 0.0))}, "tables of other sizes"),
        ({"kinds": ("device",)}, "a plan without a kind"),
        ({"kinds": ("device", "both")}, "a plan without a kind"),
        ({"at": (20.0,)}, "a plan without a kind, or no link"),
        ({"best": ((0, 0, 2), (1, 0, 0))}, "names a plan that it does not have"),
        ({"up_mbps": (0.0, 5.0, 50.0)}, "does not rise from above 0"),
        ({"rtt_seconds": (0.1, 0.1)}, "does not rise from above 0"),
        ({"gain": ((0.0, 0.0, math.nan), (0.5, 0.0, 0.0))}, "not finite"),
    ],
)
def test_a_map_whose_parts_do_not_fit_is_refused(changed, said):
    with pytest.raises(DataError, match=said):
        replace(MAP, **changed)


def test_arrays_and_numbers_of_numpy_are_saved(tmp_path):
    users = Users(np.array([0.8, 0.7]), np.array([0.9, 0.7]), list(NAMES))
    curve = Curve("before", np.array([0.0, 1.0]), np.array([0.8, 0.9]))
    rounds = ({"round": np.int64(0), "accuracy": np.float64(0.8)},)
    replace(FULL, users=users, curves=(curve,), rounds=rounds).save(tmp_path / "result.json")
    loaded = Result.load(tmp_path / "result.json")
    assert loaded.users == FULL.users
    assert loaded.curves == FULL.curves[:1]
    assert loaded.rounds == FULL.rounds[:1]


def test_a_name_is_hashed_with_its_salt():
    assert result.hashed("ann") == result.hashed("ann") != result.hashed("bob")
    assert result.hashed("ann", "salt") != result.hashed("ann")
    assert len(result.hashed("ann")) == 12


def test_a_name_that_is_not_hashed_cannot_be_put_in():
    with pytest.raises(DataError, match="not hashed") as caught:
        Users((0.8,), (0.9,), ("ann",))
    assert "ann" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Users((0.8,), (0.9, 0.7), NAMES),
        lambda: replace(FULL, curves=(Curve("c", (0.0, 1.0), (0.8,)),)),
        lambda: replace(FULL, curves=(Curve("c", (), ()),)),
        lambda: replace(FULL, curves=(Curve("c", (0.0,), (math.nan,)),)),
        lambda: replace(FULL, points=(Point("p", math.nan, 0.5),)),
        lambda: replace(FULL, rounds=({"accuracy": 0.5},)),
        lambda: replace(FULL, rounds=({"round": 0, "accuracy": math.inf},)),
        lambda: replace(FULL, target=Target("t", math.nan)),
        lambda: replace(FULL, users=Users((0.8, math.nan), (0.9, 0.7), NAMES)),
    ],
)
def test_what_cannot_be_shown_is_refused(wrong):
    with pytest.raises(DataError):
        wrong()


def test_a_file_that_is_missing_or_malformed_is_named(tmp_path):
    path = tmp_path / "result.json"
    with pytest.raises(DataError, match="let the run finish first"):
        Result.load(path)
    path.write_text("{")
    with pytest.raises(DataError, match="is no JSON"):
        Result.load(path)
    FULL.save(path)
    entry = json.loads(path.read_text())
    for bad in (
        [],
        {**entry, "seeds": 3},
        {**entry, "headline": None},
        {**entry, "users": {"before": [1]}},
        {"name": "r"},
    ):
        path.write_text(json.dumps(bad))
        with pytest.raises(DataError, match=r"result\.json does not follow the schema"):
            Result.load(path)
