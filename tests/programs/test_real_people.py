"""The whole program on real people's data, short; slow, since the models are trained from nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from duetto import tasks
from duetto.evaluation import records as log
from duetto.programs import runs
from duetto.programs.closed_loop import Settings
from duetto.programs.runs import Experiment


@pytest.mark.slow
def test_activity_by_person(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUETTO_DATA", str(data_dir))
    experiment = Experiment("activity", (0,), "4g-commute", Settings(days=2, rounds=8, cohort=3))
    result = runs.run(experiment, tmp_path / "run", cache=tmp_path)

    task = tasks.load("activity", 0)
    rows = {name: len(task.group(name, part)[0]) for name, part in (("unseen", None), ("device", "held"))}
    written = log.read(tmp_path / "run" / "records.jsonl")
    for group, people in (("unseen", "new users"), ("device", "device users")):
        cascade = [r for r in written if r.metrics.get("group") == group and r.metrics.get("system") == "cascade"]
        assert len(cascade) == 2 * rows[group], "every scored row, before and after"
        after = [r for r in cascade if r.metrics["stage"] == "after"]
        (shown,) = (row for row in result.rows if row.name == f"{people}: cascade + learning")
        share = sum(float(r.metrics["asked"]) for r in after) / len(after)
        assert shown.values["offload_rate"] == pytest.approx(share)
    taught = sum(float(r.metrics["calls"]) for r in written if r.protocol == "teach")
    heard = sum(r.metrics.get("by") == "cloud" for r in written if r.protocol == "answer" and "system" not in r.metrics)
    assert taught + heard == sum(len(task.rows(user).parts["stream"]) for user in task.users["device"])
