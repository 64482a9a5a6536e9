"""Activity recognition by person: 43 features of ten seconds of a phone's accelerometer (WISDM v1.1).

``$DUETTO_DATA/wisdm_ar_v1.1`` or ``duetto data get activity``. People differ strongly and some lack whole classes.
Features are standardised by the mean and deviation of the "train" people.
"""

from __future__ import annotations

from dataclasses import replace

from duetto.errors import DataError
from duetto.tasks import arff
from duetto.tasks.by_user import draw_users, standardise
from duetto.tasks.official import locate
from duetto.tasks.task import Task, found


def task(seed: int) -> Task:
    """Two fifths of the people train, a fifth each calibrates, has a device, and is unseen."""
    from duetto.models import Mlp
    from duetto.training import SGD, Adam, Client, CrossEntropy, Distil

    folder = locate("activity")
    if folder is None:
        raise DataError("the data of activity is not here", found("activity"))
    data = arff.read(folder)
    users = draw_users(data.users, {"train": 0.4, "calibration": 0.2, "device": 0.2, "unseen": 0.2}, seed)
    mean, scale = standardise(data.only(users["train"]).x)
    data = replace(data, x=((data.x - mean) / scale).astype("float32"))
    shape, classes = data.x.shape[1:], len(data.classes)
    small, large = Mlp(shape, classes, (32,)), Mlp(shape, classes, (1024, 1024), dropout=0.5)
    return Task(
        name="activity",
        seed=seed,
        data=data,
        users=users,
        small=small,
        large=large,
        teach_large=Client(large, (CrossEntropy(),), Adam(1e-3, 1e-2, schedule="cosine"), 20, 64),
        learn=Client(small, (Distil(1.0, 1.0),), SGD(0.01, 0.9), 5, 16, lessons="lessons"),
        tune=Client(small, (Distil(1.0, 1.0),), SGD(0.003, 0.9), 4, 16, lessons="lessons"),
        teach_small=Client(small, (CrossEntropy(0.1), Distil(0.9, 2.0)), Adam(3e-3, schedule="cosine"), 30, 64),
    )
