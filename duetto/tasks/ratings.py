"""Films by user: would this person, who has rated those films, rate this one next? (MovieLens)

Implicit feedback as in He et al., *Neural Collaborative Filtering* (WWW 2017): what was rated is positive, and films
that the user never rated are drawn as negatives. No row names its user: it holds the film in question and the films
rated before it, so a model answers for people whom it has never seen. ``$DUETTO_DATA/ml-100k``, or ``ml-1m``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from duetto.errors import ConfigError, DataError
from duetto.tasks import movielens
from duetto.tasks.by_user import ByUser, draw_users, in_order
from duetto.tasks.official import locate
from duetto.tasks.task import PARTS, Task, found
from duetto.tree import Array
from duetto.types import Rows, rng

CLASSES = ("passed", "rated")
HISTORY = 20  # films rated before that a row holds
NEGATIVES = 4  # drawn for each film that was rated (the paper finds 3 to 6 best)


def task(seed: int) -> Task:
    """Two fifths of the users train, a tenth calibrates, three tenths have devices, a fifth is unseen.

    A device user's parts follow time: the first 60 % of the films rated are the stream, the last 20 % are held.
    """
    from duetto.models import Ncf
    from duetto.training import SGD, Adam, Client, CrossEntropy, Distil

    folder = locate("ratings")
    if folder is None:
        raise DataError("the data of ratings is not here", found("ratings"))
    data, items = read(folder)
    users = draw_users(data.users, {"train": 0.4, "calibration": 0.1, "device": 0.3, "unseen": 0.2}, seed)
    shape = (1 + HISTORY,)
    small, large = Ncf(shape, 2, items, 4, (8,)), Ncf(shape, 2, items, 16, (32, 16), dropout=0.1)
    return Task(
        name="ratings",
        seed=seed,
        data=data,
        users=users,
        small=small,
        large=large,
        teach_large=Client(large, (CrossEntropy(),), Adam(4e-3, schedule="cosine"), 3, 256),
        teach_small=Client(small, (CrossEntropy(0.5), Distil(0.5, 1.0)), Adam(1e-2, schedule="cosine"), 3, 256),
        learn=Client(small, (Distil(1.0, 1.0),), SGD(0.05, 0.9), 2, 32, lessons="lessons"),
        tune=Client(small, (Distil(1.0, 1.0),), SGD(0.01, 0.9), 2, 32, lessons="lessons"),
        dealt=in_order(data, PARTS, together=1 + NEGATIVES),
    )


def read(folder: Path | str, history: int = HISTORY, negatives: int = NEGATIVES) -> tuple[ByUser, int]:
    """Rows ``[film, film rated last, the one before ...]``, and how many film numbers there are.

    A user's rows are in the order of time (ratings of one second in that of the file): for each film rated, a row
    of class 1, then ``negatives`` rows of class 0 with the same history. Film numbers count from 1 up along the
    catalogue; 0 is no film, where fewer were rated before. A user's first film has nothing before it and is left out
    as a row. Negatives are drawn evenly from what the user never rated, by the user's name alone.

    Args:
        folder: as for :func:`duetto.tasks.movielens.read`.
        history: films.
        negatives: for each positive.

    Raises:
        ConfigError: history or negatives below 1.
        DataError: files that are not in the layout, nobody with two ratings, or somebody who rated everything.
    """
    if history < 1 or negatives < 1:
        raise ConfigError(f"history {history}, negatives {negatives}", "give at least 1 of each")
    rated = movielens.read(folder)
    items = len(rated.items) + 1
    counts = np.bincount(rated.user, minlength=len(rated.users))
    if not (counts > 1).any():
        raise DataError(f"{folder} has no user with two ratings", "a row needs a film rated before")
    by_time = np.lexsort((np.arange(len(rated.user)), rated.seconds, rated.user))
    x, user = [], []
    kept: list[str] = []
    for mine in np.split(by_time, np.cumsum(counts)[:-1]):
        name, films = rated.users[rated.user[mine[0]]], rated.item[mine] + 1
        if len(films) < 2:
            continue
        others = np.setdiff1d(np.arange(1, items), films)
        if not len(others):
            raise DataError(f"user {name!r} rated every film", "leave this user out; nothing is left to pass")
        drawn = rng(("ratings", "negatives", name)).choice(others, (len(films) - 1, negatives))
        padded = np.concatenate([np.zeros(history, np.int64), films])
        before = np.lib.stride_tricks.sliding_window_view(padded, history)[1:-1, ::-1]
        shown = np.concatenate([films[1:, None], drawn], 1)
        rows = np.empty((*shown.shape, 1 + history), np.float32)
        rows[..., 0], rows[..., 1:] = shown, before[:, None]
        x.append(rows.reshape(-1, 1 + history))
        user.append(np.full(shown.size, len(kept), np.int32))
        kept.append(name)
    y = np.tile(np.arange(1 + negatives) == 0, sum(map(len, user)) // (1 + negatives)).astype(np.int64)
    return ByUser(np.concatenate(x), y, np.concatenate(user), tuple(kept), CLASSES), items


def score(logits: Array) -> NDArray[np.float32]:
    """How much ``[n]`` a model is for a film: the log-odds of class 1."""
    return np.asarray(logits[:, 1] - logits[:, 0], np.float32)


def candidates(rows: Rows, items: int) -> tuple[NDArray[np.float32], int]:
    """Leave last out: what a user's last film competes with, ``[films, 1 + history]``, and its place there.

    Candidates are all films that the user did not rate before (full ranking, no sample), each with the history at
    the last one. The candidates' films rise.

    Args:
        rows: all of one user's, in the order of :func:`read`.
        items: film numbers.
    """
    rated = np.flatnonzero(rows.y == 1)
    films = rows.x[rated, 0].astype(np.int64)
    first = rows.x[0, 1:].astype(np.int64)  # what was rated before the first row
    free = np.setdiff1d(np.arange(1, items), np.concatenate([films[:-1], first]))
    x = np.repeat(rows.x[rated[-1]][None], len(free), 0).astype(np.float32)
    x[:, 0] = free
    return x, int(np.searchsorted(free, films[-1]))


def last_rank(answers: Callable[[NDArray[np.float32]], Array], rows: Rows, items: int) -> int:
    """How many films stand before the user's last one where ``answers`` (inputs to logits) orders all candidates.

    For :func:`duetto.evaluation.ranking.hit_rate` and ``ndcg``. Ties count against the last film.
    """
    x, place = candidates(rows, items)
    scores = score(answers(x))
    return int((scores >= scores[place]).sum()) - 1
