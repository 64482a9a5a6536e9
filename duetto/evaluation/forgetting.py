"""What a stream of tasks left: accuracies ``[tasks, tasks]``, where ``[i, j]`` is of task j after learning task i.

Lopez-Paz, Ranzato 2017 (average, backward transfer); Chaudhry et al. 2018 (forgetting).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from duetto.errors import DataError


def average(accuracies: ArrayLike) -> float:
    """The mean over tasks after the last one.

    Raises:
        DataError: no square of finite numbers, at least one task, on and below the diagonal.
    """
    return float(_square(accuracies, 1)[-1].mean())


def backward_transfer(accuracies: ArrayLike) -> float:
    """The mean over all tasks but the last of what it has at the end less what it had when just learnt; forgetting is
    negative.

    Raises:
        DataError: as :func:`average`, with two tasks at least.
    """
    found = _square(accuracies, 2)
    return float((found[-1] - np.diag(found))[:-1].mean())


def forgetting(accuracies: ArrayLike) -> float:
    """The mean over all tasks but the last of the best that it ever had since it was learnt less what it has at the
    end.

    Raises:
        DataError: as :func:`backward_transfer`.
    """
    found = _square(accuracies, 2)
    last = len(found) - 1
    return float(np.mean([found[task:last, task].max() - found[last, task] for task in range(last)]))


def _square(accuracies: ArrayLike, least: int) -> NDArray[np.float64]:
    found = np.asarray(accuracies, np.float64)
    if found.ndim != 2 or found.shape[0] != found.shape[1] or len(found) < least:
        raise DataError(f"accuracies of shape {found.shape}", f"give [tasks, tasks], from {least} tasks on")
    if not np.isfinite(found[np.tril_indices(len(found))]).all():
        raise DataError("accuracies of learnt tasks that are not finite", "measure every task that was learnt")
    return found
