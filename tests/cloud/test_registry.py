"""Versions never change, channels move by transactions whoever moves them, and their history tells all."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sql

from duetto.cloud.blobs import Blobs
from duetto.cloud.database import opened, upgraded
from duetto.cloud.registry import Artefact, Move, Registry
from duetto.errors import ConfigError, DataError

SAID = {"by": "teacher", "why": "better on canary"}


@pytest.fixture
def registry(engine: sql.Engine, tmp_path: Path) -> Registry:
    return Registry(engine, Blobs(str(tmp_path / "blobs")))


def added(registry: Registry, n: int, model: str = "small") -> None:
    for i in range(n):
        registry.add(model, {"onnx": registry.blobs.put(b"%d" % i)}, by="ann")


def test_a_version_is_read_as_it_was_added(registry: Registry) -> None:
    weights, graph = registry.blobs.put(b"weights"), registry.blobs.put(b"graph!")
    first = registry.add("small", {"safetensors": weights}, by="ann", trained_from={"rounds": 3, "arrivals": [1, 99]})
    second = registry.add(
        "small", {"onnx": graph, "safetensors": weights}, by="bob", parents=[("small", 1), ("small", 1)]
    )
    other = registry.add("large-2.b", {"policy": graph}, by="ann", parents=[("small", 2), ("small", 1)])
    assert (first.number, second.number, other.number) == (1, 2, 1)
    assert (first.artefacts, first.trained_from) == (
        {"safetensors": Artefact(weights, 7)},
        {"rounds": 3, "arrivals": [1, 99]},
    )
    assert second.artefacts == {"onnx": Artefact(graph, 6), "safetensors": Artefact(weights, 7)}
    assert (second.parents, other.parents) == ((("small", 1),), (("small", 1), ("small", 2)))
    assert registry.models() == ["large-2.b", "small"]
    assert registry.versions("small") == [first, second]
    assert registry.version("large-2.b", 1) == other
    assert registry.versions("none") == []


def test_what_is_measured_is_added_and_the_newest_is_told(registry: Registry) -> None:
    added(registry, 2)
    assert registry.metrics("small", 1) == {}
    by_user = {"mean": 0.9, "by_user": {"0.1": 0.7, "0.5": 0.92}}
    registry.measure("small", 1, {"accuracy": {"mean": 0.5}, "bytes": 12}, by="teacher")
    registry.measure("small", 1, {"accuracy": by_user}, by="teacher")
    assert registry.metrics("small", 1) == {"accuracy": by_user, "bytes": 12}
    assert registry.metrics("small", 2) == {}


def test_a_channel_moves_and_its_history_tells_who_when_and_why(registry: Registry) -> None:
    added(registry, 3)
    assert registry.channel("small", "stable") is None
    assert registry.history("small", "stable") == []
    moves = [registry.promote("small", number, "stable", by="ann", why=f"try {number}") for number in (1, 3, 2)]
    assert registry.channel("small", "stable") == registry.version("small", 2)
    assert registry.channel("small", "canary") is None
    assert registry.history("small", "stable") == moves
    assert [(move.before, move.version, move.back, move.why) for move in moves] == [
        (None, 1, False, "try 1"),
        (1, 3, False, "try 3"),
        (3, 2, False, "try 2"),
    ]
    numbers = [move.number for move in moves]
    assert numbers == sorted(set(numbers))
    times = [move.unix_seconds for move in moves]
    assert times == sorted(times)


def test_rolling_back_undoes_promotions_one_by_one(registry: Registry) -> None:
    added(registry, 3)

    def back() -> Move:
        return registry.roll_back("small", "stable", by="rule", why="worse agreement")

    with pytest.raises(ConfigError, match="is nowhere"):
        back()
    for number in (1, 2, 1, 3):
        registry.promote("small", number, "stable", **SAID)
    assert [(back().version, back().version)] == [(1, 2)]
    registry.promote("small", 3, "stable", **SAID)
    steps = [back(), back()]
    assert [(move.before, move.version, move.back, move.by) for move in steps] == [
        (3, 2, True, "rule"),
        (2, 1, True, "rule"),
    ]
    with pytest.raises(ConfigError, match="at version 1, its first"):
        back()
    assert len(registry.history("small", "stable")) == 9


def test_of_two_who_decide_on_the_same_only_one_is_heard(registry: Registry) -> None:
    added(registry, 3)
    registry.promote("small", 1, "canary", expected=0, **SAID)
    with pytest.raises(ConfigError, match="points to 1, not to 0"):
        registry.promote("small", 2, "canary", expected=0, **SAID)
    registry.promote("small", 2, "canary", expected=1, **SAID)
    registry.roll_back("small", "canary", expected=2, **SAID)
    with pytest.raises(ConfigError, match="points to 1, not to 2: decide again"):
        registry.roll_back("small", "canary", expected=2, **SAID)
    with pytest.raises(ConfigError, match="points to nothing, not to 2"):
        registry.roll_back("small", "stable", expected=2, **SAID)


def test_what_has_no_sense_is_refused_and_changes_nothing(registry: Registry) -> None:
    digest = registry.blobs.put(b"x")
    for wrong in ("Small", "", "a/b", "x" * 101):
        with pytest.raises(ConfigError, match="small letters"):
            registry.add(wrong, {"onnx": digest}, by="ann")
        with pytest.raises(ConfigError, match="small letters"):
            registry.add("small", {wrong: digest}, by="ann")
    with pytest.raises(ConfigError, match="without artefacts"):
        registry.add("small", {}, by="ann")
    with pytest.raises(ConfigError, match="say who"):
        registry.add("small", {"onnx": digest}, by=" ")
    with pytest.raises(DataError, match="no blob"):
        registry.add("small", {"onnx": "0" * 64}, by="ann")
    with pytest.raises(DataError, match="no version 1 of large: there is no model large"):
        registry.add("small", {"onnx": digest}, by="ann", parents=[("large", 1)])
    with pytest.raises(DataError, match="finite"):
        registry.add("small", {"onnx": digest}, by="ann", trained_from={"loss": math.nan})
    assert registry.models() == []
    added(registry, 1)
    with pytest.raises(DataError, match="finite"):
        registry.measure("small", 1, {"accuracy": math.inf}, by="ann")
    with pytest.raises(DataError, match="no version 2 of small: the newest is 1"):
        registry.measure("small", 2, {}, by="ann")
    with pytest.raises(DataError, match="no version 2 of small"):
        registry.promote("small", 2, "stable", **SAID)
    with pytest.raises(DataError, match="no version 0"):
        registry.version("small", 0)
    with pytest.raises(ConfigError, match="there are canary and stable"):
        registry.promote("small", 1, "beta", **SAID)
    with pytest.raises(ConfigError, match="say who does it and why"):
        registry.promote("small", 1, "stable", by="ann", why="")
    registry.promote("small", 1, "stable", **SAID)
    with pytest.raises(ConfigError, match="already"):
        registry.promote("small", 1, "stable", **SAID)
    assert len(registry.history("small", "stable")) == 1


WORK = """
import json, sys
from duetto.cloud.blobs import Blobs
from duetto.cloud.database import opened
from duetto.cloud.registry import Registry
from duetto.errors import ConfigError

url, folder, name = sys.argv[1:]
registry = Registry(opened(url), Blobs(folder))
mine, won = [], 0
for i in range(12):
    digest = registry.blobs.put(f"{name} {i}".encode())
    parents = [("small", mine[-1])] if mine else []
    mine.append(registry.add("small", {"onnx": digest}, by=name, parents=parents).number)
    registry.measure("small", mine[-1], {"by": name}, by=name)
    registry.promote("small", mine[-1], "canary", by=name, why="mine")
    at = registry.channel("small", "stable")
    try:
        registry.promote("small", mine[-1], "stable", by=name, why="mine", expected=at.number if at else 0)
        won += 1
    except ConfigError as fault:
        assert "decide again" in str(fault)
    if i % 3 == 2:
        registry.roll_back("small", "canary", by=name, why="testing")
print(json.dumps([mine, won]))
"""


def test_processes_that_add_and_promote_at_once_come_one_after_the_other(url: str, tmp_path: Path) -> None:
    engine, folder = upgraded(opened(url)), str(tmp_path / "blobs")
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WORK, url, folder, name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for name in ("ann", "bob", "cem")
    ]
    told = [process.communicate(timeout=100) for process in started]
    assert [errors for _, errors in told] == ["", "", ""]
    numbers, won = zip(*(json.loads(out) for out, _ in told), strict=True)
    registry = Registry(engine, Blobs(folder))
    assert sorted(number for mine in numbers for number in mine) == list(range(1, 37))
    versions = registry.versions("small")
    for name, mine in zip(("ann", "bob", "cem"), numbers, strict=True):
        assert [each.number for each in versions if each.by == name] == mine
        assert [versions[n - 1].parents for n in mine] == [(), *((("small", n),) for n in mine[:-1])]
    stable = registry.history("small", "stable")
    assert len(stable) == sum(won)
    canary = registry.history("small", "canary")
    assert len(canary) == 36 + 12
    for moves in (stable, canary):
        assert [move.before for move in moves] == [None, *(move.version for move in moves[:-1])]
    engine.dispose()


def test_a_paused_channel_takes_no_promotion_and_can_be_rolled_back(registry: Registry) -> None:
    digest = registry.blobs.put(b"weights")
    for _ in range(3):
        registry.add("small", {"onnx": digest}, by="test")
    for number in (1, 2):
        registry.promote("small", number, "stable", by="anna", why="good")
    assert registry.paused("small", "stable") is None
    held = registry.pause("small", "stable", by="anna", why="a holiday")
    assert registry.paused("small", "stable") == held
    with pytest.raises(ConfigError, match=r"stable of small is paused \(a holiday\)"):
        registry.promote("small", 3, "stable", by="rule", why="better")
    registry.promote("small", 3, "canary", by="rule", why="another channel")
    assert registry.roll_back("small", "stable", by="anna", why="worse").version == 1
    with pytest.raises(ConfigError, match="paused already"):
        registry.pause("small", "stable", by="bert", why="me too")
    assert not registry.go_on("small", "stable", by="anna", why="back").paused
    with pytest.raises(ConfigError, match="not paused"):
        registry.go_on("small", "stable", by="anna", why="back")
    registry.promote("small", 3, "stable", by="rule", why="better")


def test_what_is_not_there_cannot_be_paused(registry: Registry) -> None:
    with pytest.raises(DataError, match="no model"):
        registry.pause("small", "stable", by="anna", why="x")
    with pytest.raises(ConfigError, match="no channel"):
        registry.pause("small", "beta", by="anna", why="x")
