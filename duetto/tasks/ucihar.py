"""Activities by subject, in the layout of UCI HAR: features, or the windows of signals that they were made of.

Anguita, Ghio, Oneto, Parra, Reyes-Ortiz, *A Public Domain Dataset for Human Activity Recognition Using Smartphones*
(ESANN 2013), https://archive.ics.uci.edu/dataset/240. Thirty subjects; windows of 2.56 s at 50 Hz that overlap by half.
``train`` and ``test`` each hold ``X_<part>.txt`` (561 numbers a line), ``y_<part>.txt`` (1 to 6),
``subject_<part>.txt``, and ``Inertial Signals/<signal>_<part>.txt`` (128 samples a line).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from duetto.errors import ConfigError, DataError
from duetto.tasks.by_user import ByUser, by_name, unpacked

CLASSES = ("WALKING", "WALKING_UPSTAIRS", "WALKING_DOWNSTAIRS", "SITTING", "STANDING", "LAYING")
SIGNALS = tuple(f"{signal}_{axis}" for signal in ("body_acc", "body_gyro", "total_acc") for axis in "xyz")
FEATURES, SAMPLES = 561, 128
_AGAIN = "fetch this file again"


def read(folder: Path | str, what: Literal["features", "signals"] = "features") -> ByUser:
    """The windows of both parts, pooled, by subject; training before test, in the order of the files.

    Subjects' names have two digits. Nothing is standardised: features come within -1..1, accelerations in g, turn rates
    in rad/s. Windows that follow each other share samples: split by user, not by row.

    Args:
        folder: holds ``train`` and ``test`` (or one of them), or ``UCI HAR Dataset``; files plain or ``.gz``.
        what: ``features [n, 561]``, or ``signals [n, 9, 128]`` in the order of :data:`SIGNALS`.

    Raises:
        ConfigError: neither features nor signals.
        DataError: no part, a file that is missing or broken, or files of different lengths.
    """
    if what not in ("features", "signals"):
        raise ConfigError(f"to read {what!r}", 'read "features" or "signals"')
    folder = Path(folder)
    root = folder / "UCI HAR Dataset" if (folder / "UCI HAR Dataset").is_dir() else folder
    parts = [part for part in ("train", "test") if (root / part).is_dir()]
    if not parts:
        raise DataError(f"{root} has no train and no test", "name the folder that holds them")
    x, y, names = [], [], []
    for part in parts:
        label = _numbers(root / part / f"y_{part}.txt", 1)[:, 0]
        subject = _numbers(root / part / f"subject_{part}.txt", 1)[:, 0]
        if what == "features":
            rows = _numbers(root / part / f"X_{part}.txt", FEATURES)
        else:
            files = [root / part / "Inertial Signals" / f"{signal}_{part}.txt" for signal in SIGNALS]
            columns = [_numbers(file, SAMPLES) for file in files]
            for file, column in zip(files, columns, strict=True):
                if len(column) != len(label):
                    raise DataError(f"{file} has {len(column)} windows for {len(label)} labels", _AGAIN)
            rows = np.stack(columns, 1)
        if not len(rows) == len(label) == len(subject):
            lengths = f"{len(rows)} windows, {len(label)} labels and {len(subject)} subjects"
            raise DataError(f"{root / part} has {lengths}", "fetch these files again")
        if not np.isin(label, np.arange(1, len(CLASSES) + 1)).all():
            raise DataError(f"{root / part / f'y_{part}.txt'} has labels outside 1..{len(CLASSES)}", _AGAIN)
        x.append(rows)
        y.append(label.astype(np.int64) - 1)
        names += [f"{int(number):02d}" for number in subject]
    return by_name(np.concatenate(x), np.concatenate(y), names, CLASSES)


def _numbers(path: Path, width: int) -> NDArray[np.float64]:
    """``[lines, width]``, finite."""
    packed = path.with_name(f"{path.name}.gz")
    path = packed if packed.is_file() and not path.is_file() else path
    lines = [line.split() for line in unpacked(path).decode("ascii", "replace").splitlines() if line.strip()]
    for number, cells in enumerate(lines, 1):
        if len(cells) != width:
            raise DataError(f"{path}, line {number}: {len(cells)} numbers instead of {width}", _AGAIN)
    try:
        values = np.array(lines, np.float64).reshape(len(lines), width)
    except ValueError as fault:
        raise DataError(f"{path}: {fault}", _AGAIN) from fault
    if not len(values) or not np.isfinite(values).all():
        raise DataError(f"{path} has {'numbers that are not finite' if len(values) else 'no lines'}", _AGAIN)
    return values
