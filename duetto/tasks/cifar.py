"""CIFAR-10 spread over invented users with skewed labels, about 100 images each.

Krizhevsky 2009; ``$DUETTO_DATA/cifar10_subset`` (10,000 images that went through JPEG: accuracies are far below those
of the whole set) or ``duetto data get cifar`` (all 60,000). Users are drawn by Dirichlet(0.5 a class) over the labels
of training and test images together (Hsu, Qi, Brown 2019). They are no people, so nothing here says how people differ.
Channels are standardised by the mean and deviation of the "train" users.
"""

from __future__ import annotations

from dataclasses import replace

from duetto.errors import DataError
from duetto.tasks import cifar_bin
from duetto.tasks.by_user import draw_users, standardise
from duetto.tasks.official import locate
from duetto.tasks.partition import Dirichlet
from duetto.tasks.task import Task, found

_ROWS = 100  # of a user, about


def task(seed: int) -> Task:
    """Half of the users train, a tenth calibrates, a fifth each has a device and is unseen."""
    from duetto.models import Conv
    from duetto.training import SGD, Adam, Client, Crop, CrossEntropy, Distil

    folder = locate("cifar")
    if folder is None:
        raise DataError("the data of cifar is not here", found("cifar"))
    images = cifar_bin.read(folder)
    data = Dirichlet(max(1, len(images.y) // _ROWS))(images, seed)
    users = draw_users(data.users, {"train": 0.5, "calibration": 0.1, "device": 0.2, "unseen": 0.2}, seed)
    mean, scale = standardise(data.only(users["train"]).x)
    data = replace(data, x=(data.x - mean) / scale)
    shape, classes, augment = (3, 32, 32), len(data.classes), Crop(4)
    small = Conv(shape, classes, (16, 32, 64))
    large = Conv(shape, classes, (32, 64, 128, 256), (512,), dropout=0.3)
    return Task(
        name="cifar",
        seed=seed,
        data=data,
        users=users,
        small=small,
        large=large,
        teach_large=Client(large, (CrossEntropy(),), Adam(1e-3, schedule="cosine"), 40, 64, augment=augment),
        teach_small=Client(
            small, (CrossEntropy(0.1), Distil(0.9, 2.0)), Adam(3e-3, schedule="cosine"), 30, 64, augment=augment
        ),
        learn=Client(small, (Distil(1.0, 1.0),), SGD(0.01, 0.9), 5, 16, augment=augment, lessons="lessons", own=0.5),
        tune=Client(small, (Distil(1.0, 1.0),), SGD(0.003, 0.9), 4, 16, augment=augment, lessons="lessons", own=0.5),
    )
