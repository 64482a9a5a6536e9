"""`duetto cloud models | promote | rollback`, and the flags that teach."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from duetto.cli import teach
from duetto.cloud.promotion import Promotion
from duetto.cloud.site import Site
from duetto.errors import ConfigError


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A cloud's folder with two versions, the first one in stable."""
    made = Site(tmp_path / "cloud").begin()
    for text in (b"one", b"two"):
        made.registry.add("small", {"device": made.registry.blobs.put(text)}, by="teacher", trained_from={"upto": 3})
    made.registry.measure("small", 2, {"small": {"user_mean": 0.9, "worst_tenth": 0.75}}, by="teacher")
    made.registry.promote("small", 1, "stable", by="teacher", why="the first")
    return made


def test_versions_are_listed_promoted_and_rolled_back(run: Callable[..., Any], site: Site) -> None:
    state = ["--state", str(site.folder)]
    found = json.loads(run("cloud", "models", "--json", *state).out)
    assert [(each["version"], each["channels"]) for each in found] == [(1, ["stable"]), (2, [])]
    assert found[1]["trained_from"] == {"upto": 3}
    shown = run("cloud", "models", *state).out
    assert "90.0 %" in shown
    assert "75.0 %" in shown
    moved = json.loads(run("cloud", "promote", "2", "--why", "it is better", "--json", *state).out)
    assert (moved["version"], moved["before"], moved["why"], moved["by"]) == (2, 1, "it is better", "operator")
    assert [(each["channel"], each["release"]) for each in moved["releases"]] == [("stable", 1)]
    back = run("cloud", "rollback", "--why", "complaints", *state)
    assert "stable of small is at version 1, before 2" in back.err + back.out
    assert "release 2 is offered to stable" in back.err + back.out
    assert [each.version for each in site.releases.releases()] == [2]
    assert run("cloud", "rollback", *state).error.startswith("error: stable of small is at version 1, its first")
    assert "no version 7 of small" in run("cloud", "promote", "7", *state).error
    done = [(line.action, line.about.get("version")) for line in reversed(site.audit.newest())]
    told = [
        ("promote", 2),
        ("roll back", None),
        ("roll back", None),
        ("refused", None),
        ("promote", 7),
        ("refused", None),
    ]
    assert done == told


def test_flags_that_cannot_be() -> None:
    assert teach._set(Promotion(), ["window=40", "margin=0.3", "looks=2"]) == Promotion(window=40, margin=0.3, looks=2)
    for texts, why in (
        (["window"], "the setting 'window'"),
        (["size=3"], "no setting 'size'"),
        (["window=x"], "window = 'x'"),
        (["margin=2"], "margins and confidence between 0 and 1"),
    ):
        with pytest.raises(ConfigError, match=why):
            teach._set(Promotion(), texts)
    with pytest.raises(ConfigError, match="no algorithm is called 'fedmagic'"):
        teach._algorithm("fedmagic", {})


def test_forgetting_on_a_device(run: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "device").mkdir()
    for name in ("lessons.db", "head.tree", "outbox.db"):
        (tmp_path / "device" / name).write_bytes(b"x")
    assert run("device", "forget", "--state", str(tmp_path / "device")).code == 0
    assert [path.name for path in (tmp_path / "device").iterdir()] == ["outbox.db"]
