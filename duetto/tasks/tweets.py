"""Opinions by person: is this tweet to an airline negative, neutral or positive?

*Twitter US Airline Sentiment* (CrowdFlower 2015): ``Tweets.csv`` with a header, of which the columns ``name``,
``airline_sentiment`` and ``text`` are read. Words and pairs of words are hashed into slots (Weinberger et al.,
*Feature Hashing for Large Scale Multitask Learning*, ICML 2009), so no vocabulary is fitted or shipped. Also
Sentiment140 (Go, Bhayani, Huang 2009), in its own layout: :func:`read140`.
"""

from __future__ import annotations

import csv
import io
import re
import zlib
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from duetto.errors import ConfigError, DataError
from duetto.tasks.by_user import ByUser, by_name, draw_users, unpacked
from duetto.tasks.official import locate
from duetto.tasks.task import Task, found

CLASSES = ("negative", "neutral", "positive")
CLASSES140 = ("negative", "positive")
SLOTS = 1024
OFTEN = 5  # tweets that fill each part of a device
_AGAIN = "correct this file or fetch it again"
_POLARITY = {"0": 0, "4": 1}
_WORD = re.compile(r"https?://\S+|@\w+|#\w+|[a-z]+(?:'[a-z]+)?|[:;=][-']?[()dp/]|\d+|[!?]+|[^\s\w]")


def task(seed: int) -> Task:
    """People with five tweets or more have devices (half of them) or are unseen; of the others 85 % train.

    Most people wrote one or two: too few to learn from and to be scored on, but together the cloud's knowledge.
    """
    from duetto.models import Mlp
    from duetto.training import SGD, Adam, Client, CrossEntropy, Distil

    folder = locate("tweets")
    if folder is None:
        raise DataError("the data of tweets is not here", found("tweets"))
    data = read(folder)
    counts = dict(zip(data.users, data.counts().tolist(), strict=True))
    often = [user for user in data.users if counts[user] >= OFTEN]
    users = {
        **draw_users([user for user in data.users if counts[user] < OFTEN], {"train": 0.85, "calibration": 0.15}, seed),
        **draw_users(often, {"device": 0.5, "unseen": 0.5}, seed),
    }
    shape, classes = (SLOTS,), len(data.classes)
    small, large = Mlp(shape, classes, (8,)), Mlp(shape, classes, (1024,), dropout=0.5)
    return Task(
        name="tweets",
        seed=seed,
        data=data,
        users=users,
        small=small,
        large=large,
        teach_large=Client(large, (CrossEntropy(),), Adam(1e-3, 1e-4, schedule="cosine"), 3, 64),
        teach_small=Client(small, (CrossEntropy(0.3), Distil(0.7, 2.0)), Adam(3e-3, 1e-4, schedule="cosine"), 5, 64),
        learn=Client(small, (Distil(1.0, 1.0),), SGD(0.05, 0.9), 2, 8, lessons="lessons"),
        tune=Client(small, (Distil(1.0, 1.0),), SGD(0.01, 0.9), 2, 8, lessons="lessons"),
    )


def read(folder: Path | str, slots: int = SLOTS) -> ByUser:
    """Tweets by author, as :func:`hashed` has them; plain or ``.gz``. The rows keep the order of the file.

    Raises:
        DataError: no ``Tweets.csv``, other columns, an unknown sentiment, or a row that is not whole.
    """
    path = _there(folder, ("Tweets.csv",))
    rows = csv.reader(io.StringIO(unpacked(path).decode("utf-8", "replace"), newline=""))
    header = next(rows, [])
    wanted = ("name", "airline_sentiment", "text")
    if missing := [name for name in wanted if name not in header]:
        raise DataError(f"{path} has no column {missing[0]}", "fetch a file with Kaggle's header")
    at = [header.index(name) for name in wanted]
    names, labels, texts = [], [], []
    for number, row in enumerate(rows, 1):
        if not row:
            continue
        if len(row) != len(header):
            raise DataError(f"{path}, tweet {number}: {len(row)} cells instead of {len(header)}", _AGAIN)
        name, label, text = (row[i] for i in at)
        if label not in CLASSES:
            raise DataError(f"{path}, tweet {number}: sentiment {label!r}", f"it is one of {', '.join(CLASSES)}")
        names.append(name)
        labels.append(CLASSES.index(label))
        texts.append(text)
    if not names:
        raise DataError(f"{path} has no tweets", _AGAIN)
    return by_name(hashed(texts, slots), labels, names, CLASSES)


def read140(folder: Path | str, slots: int = SLOTS, least: int = 1) -> ByUser:
    """Sentiment140 by author: its ``training.1600000.processed.noemoticon.csv``, or LEAF's copy ``training.csv``.

    Six columns without a header, latin-1, each in quotation marks: polarity (0 negative, 4 positive), id, date,
    query, user, text.

    Args:
        folder: holds one of the files, plain or ``.gz``.
        slots: as for :func:`hashed`; a row takes 4 bytes a slot, so 1.6 million of them need a small number or a
            high ``least``.
        least: tweets that an author must have to be there.

    Raises:
        DataError: no such file, a row that is not in the layout, or nobody with so many tweets.
    """
    path = _there(folder, ("training.1600000.processed.noemoticon.csv", "training.csv"))
    names, labels, texts = [], [], []
    rows = csv.reader(io.StringIO(unpacked(path).decode("latin-1"), newline=""))
    for number, row in enumerate(rows, 1):
        if not row:
            continue
        if len(row) != 6:
            raise DataError(f"{path}, tweet {number}: {len(row)} cells instead of 6", _AGAIN)
        if row[0] not in _POLARITY:
            raise DataError(f"{path}, tweet {number}: polarity {row[0]!r}", "it is 0 or 4 in the training file")
        names.append(row[4])
        labels.append(_POLARITY[row[0]])
        texts.append(row[5])
    authors, which, counts = np.unique(np.array(names, np.str_), return_inverse=True, return_counts=True)
    kept = np.flatnonzero(counts[which] >= least) if len(authors) else np.zeros(0, np.int64)
    if not len(kept):
        raise DataError(f"{path} has nobody with {least} tweets", "ask for less")
    x = hashed([texts[i] for i in kept], slots)
    return by_name(x, np.array(labels)[kept], [names[i] for i in kept], CLASSES140)


def hashed(texts: Sequence[str], slots: int = SLOTS) -> NDArray[np.float32]:
    """``[n, slots]`` float32: words and pairs of neighbours, each added to its slot with its sign; length 1.

    Words are lower case; links and numbers count as one word each, and so do names after an @ (no person is a
    feature). The hash is CRC-32 of the word in UTF-8, the same everywhere.

    Raises:
        ConfigError: slots below 1.
    """
    if slots < 1:
        raise ConfigError(f"{slots} slots", "use at least 1")
    x = np.zeros((len(texts), slots), np.float32)
    for row, text in zip(x, texts, strict=True):
        for feature in _features(text):
            code = zlib.crc32(feature.encode())
            row[(code >> 1) % slots] += 1 if code & 1 else -1
    unit: NDArray[np.float32] = x / np.maximum(np.sqrt((x**2).sum(1, keepdims=True)), np.float32(1e-30))
    return unit


def words(text: str) -> list[str]:
    """The words that :func:`hashed` sees."""
    return [_plain(word) for word in _WORD.findall(text.lower())]


def _plain(word: str) -> str:
    if word.startswith("http"):
        return "<link>"
    if word[0] == "@" and len(word) > 1:
        return "<name>"
    return "<number>" if word[0].isdigit() else word


def _features(text: str) -> Iterable[str]:
    own = words(text)
    yield from own
    yield from (f"{first} {second}" for first, second in pairwise(own))


def _there(folder: Path | str, files: tuple[str, ...]) -> Path:
    found = (Path(folder) / f"{file}{end}" for file in files for end in ("", ".gz"))
    path = next((path for path in found if path.is_file()), None)
    if path is None:
        raise DataError(f"{folder} has no {' or '.join(files)}", "name the folder that holds it")
    return path
