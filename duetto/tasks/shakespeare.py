"""The next character by speaking role, in the 37 plays of Shakespeare.

McMahan et al., *Communication-Efficient Learning of Deep Networks from Decentralized Data* (AISTATS 2017); in LEAF's
form (Caldas et al. 2018): a role's speeches joined by spaces, a window of characters, the one that follows. The file
``by_role.jsonl`` has one role a line: ``{"user": ..., "speeches": [...]}``, in the order of the play.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.tasks.by_user import ByUser, draw_users, in_order, unpacked
from duetto.tasks.official import locate
from duetto.tasks.task import PARTS, Task, found

LETTERS = "\n !\"&'(),-.0123456789:;>?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]abcdefghijklmnopqrstuvwxyz}"
"""LEAF's 80 characters, in its order; a row holds positions in it."""
CLASSES = tuple("\\n" if letter == "\n" else letter for letter in LETTERS)
_AGAIN = "correct this file or fetch it again"


def task(seed: int) -> Task:
    """Two fifths of the roles train, a tenth calibrates, three tenths have devices, a fifth is unseen.

    Roles have 1,000 characters at least. A row is 12 characters, so that the pair trains in minutes on one core; every
    ninth character of a role begins one, every third of those that train. Parts follow the play: the first 60 % of a
    role's rows are the stream, the last 20 % are held.
    """
    from duetto.models import Recurrent
    from duetto.training import SGD, Adam, Client, CrossEntropy, Distil

    folder = locate("shakespeare")
    if folder is None:
        raise DataError("the data of shakespeare is not here", found("shakespeare"))
    data = read(folder, window=12, step=3, least=1000)
    users = draw_users(data.users, {"train": 0.4, "calibration": 0.1, "device": 0.3, "unseen": 0.2}, seed)
    trains = np.isin(np.array(data.users), users["train"])
    counts = data.counts()
    place = np.arange(len(data.y)) - np.repeat(np.cumsum(counts) - counts, counts)  # a role's rows lie together
    data = data.take(trains[data.user] | (place % 3 == 0))
    shape, classes = data.x.shape[1:], len(data.classes)
    small = Recurrent((shape[0],), classes, classes, 8, 48)
    large = Recurrent((shape[0],), classes, classes, 16, 128)
    return Task(
        name="shakespeare",
        seed=seed,
        data=data,
        users=users,
        small=small,
        large=large,
        teach_large=Client(large, (CrossEntropy(),), Adam(4e-3, schedule="cosine"), 2, 128),
        teach_small=Client(small, (CrossEntropy(0.5), Distil(0.5, 1.0)), Adam(6e-3, schedule="cosine"), 2, 128),
        learn=Client(small, (Distil(1.0, 1.0),), SGD(0.1, 0.9), 2, 16, lessons="lessons"),
        tune=Client(small, (Distil(1.0, 1.0),), SGD(0.03, 0.9), 2, 16, lessons="lessons"),
        dealt=in_order(data, PARTS),
    )


def read(folder: Path | str, window: int = 80, step: int = 1, least: int = 0) -> ByUser:
    """Rows of ``window`` characters and the one that follows, by role, in the order of the play.

    Rows are float32 numbers of characters, as :data:`LETTERS` has them; what is not among them counts as a space.

    Args:
        folder: holds ``by_role.jsonl``, plain or ``.gz``.
        window: characters of a row; LEAF has 80.
        step: characters from one row's start to the next; LEAF has 1.
        least: characters that a role must have to be there; ``window + 1`` at least, for there to be a row.

    Raises:
        ConfigError: a window or step below 1.
        DataError: no such file, a line that is not in the layout, a role told twice, or no role long enough.
    """
    if window < 1 or step < 1:
        raise ConfigError(f"window {window}, step {step}", "give at least 1 of each")
    files = [Path(folder) / f"by_role.jsonl{end}" for end in ("", ".gz")]
    path = next((file for file in files if file.is_file()), None)
    if path is None:
        raise DataError(f"{folder} has no by_role.jsonl", "name the folder that holds it")
    number = {letter: i for i, letter in enumerate(LETTERS)}
    x, y, user = [], [], []
    names: dict[str, int] = {}
    told: set[str] = set()
    for line, text in enumerate(unpacked(path).decode("utf-8", "replace").split("\n"), 1):
        if not text.strip():
            continue
        name, speeches = _role(text, f"{path}, line {line}")
        if name in told:
            raise DataError(f"{path}, line {line}: role {name!r} is there twice", _AGAIN)
        told.add(name)
        said = np.array([number.get(letter, number[" "]) for letter in " ".join(speeches)], np.int64)
        if len(said) < max(least, window + 1):
            continue
        cut = np.lib.stride_tricks.sliding_window_view(said, window + 1)[::step]
        x.append(cut[:, :-1].astype(np.float32))
        y.append(cut[:, -1])
        user.append(np.full(len(cut), names.setdefault(name, len(names)), np.int32))
    if not names:
        raise DataError(f"{path} has no role of {max(least, window + 1)} characters", "ask for less")
    return ByUser(np.concatenate(x), np.concatenate(y), np.concatenate(user), tuple(names), CLASSES)


def _role(text: str, place: str) -> tuple[str, list[str]]:
    try:
        content = json.loads(text)
    except ValueError as fault:
        raise DataError(f"{place} is not json: {fault}", _AGAIN) from fault
    name, speeches = (content.get(key) if isinstance(content, dict) else None for key in ("user", "speeches"))
    if not isinstance(name, str) or not isinstance(speeches, list) or not all(isinstance(s, str) for s in speeches):
        raise DataError(f"{place} has no user with a list of speeches", _AGAIN)
    return name, speeches
