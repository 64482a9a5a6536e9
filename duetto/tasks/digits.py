"""scikit-learn's 1,797 digits of 8x8 pixels, spread over 40 invented users with skewed labels; needs no network.

Users are drawn by Dirichlet(0.3 a class) over the labels (Hsu, Qi, Brown 2019): 24 devices, 8 to calibrate, 8
unseen. They are no people, so nothing here says how people differ. The cloud's labelled data are two fifths of the
device users' rows, collected before the product was launched.
"""

from __future__ import annotations

import numpy as np

from duetto.tasks.by_user import draw_users, split
from duetto.tasks.partition import Dirichlet
from duetto.tasks.task import Task

_USERS = 40


def task(seed: int) -> Task:
    """24 device, 8 calibration and 8 unseen users."""
    from sklearn.datasets import load_digits

    from duetto.models import Conv, Mlp
    from duetto.training import SGD, Adam, Client, CrossEntropy, Distil

    x, y = load_digits(return_X_y=True)
    data = Dirichlet(_USERS, 0.3)((x.reshape(-1, 1, 8, 8) / 16, y), seed)
    users = draw_users(data.users, {"device": 0.6, "calibration": 0.2, "unseen": 0.2}, seed)
    owned = np.isin(np.array(data.users)[data.user], users["device"])
    collected = split(data, {"collected": 0.4, "kept": 0.6}, seed + 1)["collected"]
    small, large = Conv((1, 8, 8), 10, (8, 16)), Mlp((1, 8, 8), 10, (1024, 1024))
    return Task(
        name="digits",
        seed=seed,
        data=data,
        users={"train": (), **users},
        small=small,
        large=large,
        teach_large=Client(large, (CrossEntropy(),), Adam(1e-3, 1e-4, schedule="cosine"), 30, 32),
        learn=Client(small, (Distil(1.0, 1.0),), SGD(0.01, 0.9), 5, 16, lessons="lessons"),
        tune=Client(small, (Distil(1.0, 1.0),), SGD(0.003, 0.9), 4, 16, lessons="lessons"),
        teach_small=Client(small, (CrossEntropy(0.1), Distil(0.9, 2.0)), Adam(5e-3, schedule="cosine"), 30, 32),
        train=collected[owned[collected]],
    )
