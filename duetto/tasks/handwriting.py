"""Digits by writer, with a natural shift: the cloud knows census employees, the devices belong to students.

MNIST by NIST's writers (LEAF layout; ``$DUETTO_DATA/mnist_by_writer`` or ``duetto data get handwriting``). User
names end in the NIST partition: ``_0`` are employees, ``_4`` students. Any folder in this layout works.
"""

from __future__ import annotations

from duetto.errors import DataError
from duetto.tasks import idx, leaf
from duetto.tasks.by_user import draw_users
from duetto.tasks.official import locate
from duetto.tasks.task import Task, found


def task(seed: int) -> Task:
    """A fifth of the employees calibrates and the rest trains; half of the students are devices, half unseen."""
    from duetto.models import Conv
    from duetto.training import SGD, Adam, Affine, Client, CrossEntropy, Distil

    folder = locate("handwriting")
    if folder is None:
        raise DataError("the data of handwriting is not here", found("handwriting"))
    data = idx.by_writer(folder) if folder.name == "mnist" else leaf.read(folder)
    employees = [user for user in data.users if user.endswith("_0")]
    students = [user for user in data.users if user.endswith("_4")]
    if len(employees) < 3 or len(students) < 2:
        raise DataError(
            f"{folder} has {len(employees)} employees (names ending in _0) and {len(students)} students (_4)",
            "the task needs three employees and two students at least",
        )
    cloud = draw_users(employees, {"calibration": 0.2, "train": 0.8}, seed)
    fleet = draw_users(students, {"device": 0.5, "unseen": 0.5}, seed)
    shape, classes = (1, *data.x.shape[2:]), len(data.classes)
    small = Conv(shape, classes, (16, 32, 64))
    large = Conv(shape, classes, (32, 64, 128), (800,), dropout=0.25)
    augment = Affine(degrees=15, scale=0.15, shear=0.3, shift=0.07)
    return Task(
        name="handwriting",
        seed=seed,
        data=data,
        users={**cloud, **fleet},
        small=small,
        large=large,
        teach_large=Client(large, (CrossEntropy(),), Adam(2e-3, schedule="cosine"), 12, 64, augment=augment),
        teach_small=Client(
            small, (CrossEntropy(0.1), Distil(0.9, 2.0)), Adam(3e-3, schedule="cosine"), 6, 64, augment=augment
        ),
        learn=Client(small, (Distil(1.0, 1.0),), SGD(0.01, 0.9), 5, 16, augment=augment, lessons="lessons", own=0.5),
        tune=Client(small, (Distil(1.0, 1.0),), SGD(0.003, 0.9), 4, 16, augment=augment, lessons="lessons", own=0.5),
    )
