import sys

import numpy as np
import pytest

from duetto.errors import ConfigError
from duetto.evaluation import tensorboard
from duetto.types import Cost, Record

LOG = [
    Record("rounds", 0, {"loss": 2.0, "why": "first"}, Cost(1.0, 10), 3.0, "cloud"),
    Record("rounds", 1, {"loss": 1.5}, Cost(2.0, 20), 6.0, "cloud"),
    Record("answer", 0, {"correct": 1}, Cost(0.1), 1.0, "p0", "u0"),
    Record("answer", 0, {"correct": 0, "score": 0.25}, Cost(0.3), 2.0, "p1", "u1"),
]


def scalars(path):
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    first, *events = LegacyEventFileLoader(str(path)).Load()
    assert first.file_version == "brain.Event:2"
    return {
        (value.tag, event.step): (event.wall_time, value.simple_value)
        for event in events
        for value in event.summary.value
    }


def test_tensorboard_reads_what_is_exported(tmp_path):
    path = tensorboard.export(LOG, tmp_path / "events")
    read = scalars(path)
    assert read[("rounds/loss", 0)] == (3.0, 2.0)
    assert read[("rounds/loss", 1)] == (6.0, 1.5)
    assert read[("rounds/cost/up_bytes", 1)] == (6.0, 20.0)
    assert read[("answer/correct", 0)] == (2.0, 0.5)  # the mean over parties, at the later of their times
    assert read[("answer/score", 0)] == (2.0, 0.25)  # over those who have it
    assert read[("answer/cost/seconds", 0)] == (2.0, float(np.float32((0.1 + 0.3) / 2)))
    assert not [tag for tag, _ in read if "why" in tag]


def test_tensorboard_itself_finds_the_run(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tensorboard.export(LOG, tmp_path)
    run = EventAccumulator(str(tmp_path))
    run.Reload()
    assert {"rounds/loss", "answer/correct"} <= set(run.Tags()["scalars"])


def test_the_same_log_is_the_same_bytes_and_exporting_again_doubles_nothing(tmp_path):
    first = tensorboard.export(LOG, tmp_path).read_bytes()
    path = tensorboard.export(LOG, tmp_path)
    assert path.read_bytes() == first
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_library_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    with pytest.raises(ConfigError, match=r"pip install 'duetto\[report\]'"):
        tensorboard.export(LOG, tmp_path)
    assert list(tmp_path.iterdir()) == []
