"""The log as TensorBoard event files, so that a run can be watched beside others.

Written with TensorBoard's own protocol buffers and record writer and without TensorFlow. Nothing of the machine or
the hour goes in, so the same log is the same bytes, and exporting twice overwrites instead of doubling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from duetto.errors import ConfigError
from duetto.evaluation.records import columns
from duetto.types import Cost, Record

NAME = "events.out.tfevents.0000000000.duetto"


def export(records: Sequence[Record], folder: str | Path) -> Path:
    """Write the records as scalars ``protocol/metric`` and ``protocol/cost/…``; returns the file.

    A point is the mean over all records of that protocol and step (over parties, that is); its wall time is the
    latest of them on the world's clock, in seconds. Metrics that are texts are left out. TensorBoard keeps scalars
    as float32.

    Raises:
        ConfigError: TensorBoard is not installed.
        DataError: as :func:`duetto.evaluation.records.columns`.
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError as error:
        raise ConfigError("TensorBoard is not installed", "pip install 'duetto[report]'") from error

    events = [Event(wall_time=0.0, file_version="brain.Event:2")]
    for protocol in sorted({record.protocol for record in records}):
        for step, time, scalars in _points(records, protocol):
            values = [Summary.Value(tag=f"{protocol}/{name}", simple_value=value) for name, value in scalars.items()]
            events.append(Event(wall_time=time, step=step, summary=Summary(value=values)))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    with path.open("wb") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString(deterministic=True))
    return path


def _points(records: Sequence[Record], protocol: str) -> list[tuple[int, float, dict[str, float]]]:
    """(step, seconds, scalars) of one protocol, steps rising."""
    table = columns(records, protocol)
    steps, which = np.unique(table.pop("step"), return_inverse=True)
    times = np.zeros(len(steps))
    np.maximum.at(times, which, table.pop("time"))
    costs = {field.name for field in fields(Cost)}
    means: dict[str, np.ndarray] = {}
    for name, column in sorted(table.items()):
        if column.dtype.kind == "U":
            continue
        known = np.isfinite(column)
        count = np.bincount(which[known], minlength=len(steps))
        total = np.bincount(which[known], column[known], len(steps))
        means[f"cost/{name}" if name in costs else name] = np.divide(
            total, count, out=np.full(len(steps), math.nan), where=count > 0
        )
    return [
        (int(step), float(time), {name: float(mean[i]) for name, mean in means.items() if math.isfinite(mean[i])})
        for i, (step, time) in enumerate(zip(steps, times, strict=True))
    ]
