"""Windows of raw phone or watch signals by subject, from the recordings of GeoTecINIT's sp-sw-har-dataset.

Matey-Sanz, Casteleyn & Granell, *Dataset of inertial measurements of smartphones and smartwatches for human
activity recognition* (Data in Brief 2023, doi:10.1016/j.dib.2023.109809). A recording is one execution of one
subject, ``DATA/sXX/sXX_YY_{sp|sw}.csv``: accelerations in m/s^2, turn rates in rad/s, Unix milliseconds, label.
The task: what is this person doing, from a second of the phone's signals? ``$DUETTO_DATA/har_spsw``.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from duetto.errors import ConfigError, DataError
from duetto.tasks.by_user import ByUser, by_name, draw_users, standardise, unpacked
from duetto.tasks.official import locate
from duetto.tasks.task import Task, found

CLASSES = ("SEATED", "STANDING_UP", "WALKING", "TURNING", "SITTING_DOWN")
CHANNELS = ("x_acc", "y_acc", "z_acc", "x_gyro", "y_gyro", "z_gyro")
_HEADER = [*CHANNELS, "timestamp", "label"]
_AGAIN = "correct this file or fetch it again"


def task(seed: int) -> Task:
    """Two fifths of the subjects train, a fifth each calibrates, has a device, and is unseen.

    Windows of one second, which do not overlap; each channel is standardised by the "train" subjects.
    """
    from duetto.models import Signal
    from duetto.training import SGD, Adam, Client, CrossEntropy, Distil

    folder = locate("sensors")
    if folder is None:
        raise DataError("the data of sensors is not here", found("sensors"))
    data = read(folder)
    users = draw_users(data.users, {"train": 0.4, "calibration": 0.2, "device": 0.2, "unseen": 0.2}, seed)
    mean, scale = standardise(data.only(users["train"]).x)
    data = replace(data, x=((data.x - mean) / scale).astype(np.float32))
    shape, classes = (data.x.shape[1], data.x.shape[2]), len(data.classes)
    small, large = Signal(shape, classes, (8, 16)), Signal(shape, classes, (64, 128, 128), (128,), dropout=0.5)
    return Task(
        name="sensors",
        seed=seed,
        data=data,
        users=users,
        small=small,
        large=large,
        teach_large=Client(large, (CrossEntropy(),), Adam(1e-3, 1e-3, schedule="cosine"), 20, 32),
        teach_small=Client(small, (CrossEntropy(0.3), Distil(0.7, 2.0)), Adam(3e-3, schedule="cosine"), 20, 32),
        learn=Client(small, (Distil(1.0, 1.0),), SGD(0.01, 0.9), 5, 16, lessons="lessons"),
        tune=Client(small, (Distil(1.0, 1.0),), SGD(0.003, 0.9), 4, 16, lessons="lessons"),
    )


def read(
    folder: Path | str,
    window: int = 100,
    step: int = 100,
    device: Literal["sp", "sw"] = "sp",
    agreement: float = 0.5,
) -> ByUser:
    """Windows [n, 6, window] float32 of one device, by subject; no window crosses two recordings.

    A window's label is the commonest one of its samples, and of equally common ones the first in
    :data:`CLASSES`; a window in which it covers less than ``agreement`` of the samples is left out (1 keeps
    uniform windows only). Samples are taken as they come, about 100 a second (a phone delivers them in bursts);
    nothing is resampled, filtered or standardised. With ``step < window`` neighbours share samples: split such
    a set by user, not by row.

    Args:
        folder: holds ``DATA/``, or is that folder; files plain or ``.gz``.
        window: samples.
        step: samples from one window's start to the next.
        device: "sp" phone, "sw" watch.
        agreement: share in 0..1.

    Raises:
        ConfigError: a window, step, device or agreement that makes no sense.
        DataError: no recording of the device, none as long as a window, or one that is broken.
    """
    if window < 1 or step < 1 or device not in ("sp", "sw") or not 0 <= agreement <= 1:
        raise ConfigError(
            f"window {window}, step {step}, device {device!r}, agreement {agreement}",
            'give window and step of at least 1, device "sp" or "sw", agreement in 0..1',
        )
    folder = Path(folder)
    root = folder / "DATA" if (folder / "DATA").is_dir() else folder
    # By name without .gz, so that a recording which is there plain and packed counts once.
    files = {path.name.removesuffix(".gz"): path for path in sorted(root.glob(f"s*/s*_{device}.csv*"))}
    if not files:
        raise DataError(f"{root} has no recording sXX/sXX_YY_{device}.csv", "name the folder that holds DATA/")
    pieces, labels, names = [], [], []
    for path in files.values():
        signal, label = recording(path)
        starts = range(0, len(label) - window + 1, step)
        if not starts:
            continue
        cut = np.stack([signal[start : start + window].T for start in starts])
        counts = np.stack([np.bincount(label[start : start + window], minlength=len(CLASSES)) for start in starts])
        clear = counts.max(1) >= agreement * window
        pieces.append(cut[clear])
        labels.append(counts.argmax(1)[clear])
        names += [path.parent.name] * int(clear.sum())
    if not names:
        raise DataError(f"{root} has no window of {window} samples with one clear label", "ask for shorter windows")
    return by_name(np.concatenate(pieces), np.concatenate(labels), names, CLASSES)


def recording(path: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """One recording: signal [samples, 6] float32 in the order of :data:`CHANNELS`, label [samples].

    Raises:
        DataError: another header, a cell that is no finite number, an unknown label, time that runs backwards.
    """
    header, *rows = [*csv.reader(unpacked(path).decode("utf-8", "replace").splitlines())] or [[]]
    if header != _HEADER:
        raise DataError(f"{path} starts with {','.join(header)[:60]!r}", f"the header must be {','.join(_HEADER)}")
    if not rows:
        raise DataError(f"{path} has no samples", _AGAIN)
    try:
        values = np.array([cells for *cells, _ in rows], np.float64)
        label = np.array([CLASSES.index(row[-1]) for row in rows])
    except ValueError as fault:
        raise DataError(f"{path}, {_fault(rows)}", _AGAIN) from fault
    if values.shape[1] != len(_HEADER) - 1 or not np.isfinite(values).all():
        raise DataError(f"{path}, {_fault(rows)}", _AGAIN)
    if (np.diff(values[:, 6]) < 0).any():
        late = int(np.argmax(np.diff(values[:, 6]) < 0)) + 3
        raise DataError(f"{path}, line {late}: time runs backwards", _AGAIN)
    return values[:, :6].astype(np.float32), label


def _fault(rows: list[list[str]]) -> str:
    """Where the first broken line is; only looked for once something is known to be wrong."""
    for line, row in enumerate(rows, 2):
        if len(row) != len(_HEADER):
            return f"line {line}: {len(row)} cells instead of {len(_HEADER)}"
        if row[7] not in CLASSES:
            return f"line {line}: label {row[7]!r}"
        for cell in row[:7]:
            try:
                if np.isfinite(float(cell)):
                    continue
            except ValueError:
                pass
            return f"line {line}: {cell!r} is no finite number"
    return "a cell is no number"
