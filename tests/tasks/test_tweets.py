"""Tweets by author: both published layouts, and the hashing by a few lines."""

import csv
import gzip
import io
import zlib
from pathlib import Path

import numpy as np
import pytest

from duetto import tasks
from duetto.errors import ConfigError, DataError
from duetto.tasks import tweets

COLUMNS = (
    "tweet_id,airline_sentiment,airline_sentiment_confidence,negativereason,negativereason_confidence,airline,"
    "airline_sentiment_gold,name,negativereason_gold,retweet_count,text,tweet_coord,tweet_created,tweet_location,"
    "user_timezone"
)
PARTS_OF_FIVE = {"stream": 3, "calibration": 1, "held": 1}
HEADER = COLUMNS.split(",")


def row(name: str, sentiment: str, text: str) -> list[str]:
    """A row of Kaggle's file."""
    told = {"name": name, "airline_sentiment": sentiment, "text": text, "tweet_id": "5.7E+17", "airline": "Delta"}
    return [told.get(column, "") for column in HEADER]


def written(folder: Path, rows: list[list[str]], file: str = "Tweets.csv", *, packed: bool = False) -> Path:
    """As Python's csv writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    csv.writer(
        text, lineterminator="\n", quoting=csv.QUOTE_ALL if file != "Tweets.csv" else csv.QUOTE_MINIMAL
    ).writerows(rows)
    content = text.getvalue().encode("latin-1" if file != "Tweets.csv" else "utf-8")
    (folder / f"{file}{'.gz' if packed else ''}").write_bytes(gzip.compress(content) if packed else content)
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder that holds nothing yet."""
    root = tmp_path / "data"
    root.mkdir()
    monkeypatch.setenv("DUETTO_DATA", str(root))
    return root


def by_hand(features: list[str], slots: int) -> np.ndarray:
    """Signed counts, of length 1."""
    x = np.zeros(slots)
    for feature in features:
        code = zlib.crc32(feature.encode())
        x[(code // 2) % slots] += 1 if code % 2 else -1
    return x / max(np.linalg.norm(x), 1e-30)


def test_words_and_pairs_are_hashed() -> None:
    text = "@United THANKS for nothing!! :( see http://t.co/x1 #fail 12 can't"
    expected = ["<name>", "thanks", "for", "nothing", "!!", ":(", "see", "<link>", "#fail", "<number>", "can't"]
    assert tweets.words(text) == expected
    pairs = [f"{expected[i]} {expected[i + 1]}" for i in range(len(expected) - 1)]
    got = tweets.hashed([text, "", "ok"], 16)
    np.testing.assert_allclose(got, [by_hand(expected + pairs, 16), np.zeros(16), by_hand(["ok"], 16)], atol=1e-6)
    with pytest.raises(ConfigError, match="0 slots"):
        tweets.hashed(["a"], 0)


@pytest.mark.parametrize("packed", [False, True])
def test_kaggle_s_file_is_read_by_author(tmp_path: Path, packed: bool) -> None:
    rows = [
        row("zoe", "negative", 'late, "again"\nand again'),
        row("ann", "positive", "great"),
        row("zoe", "neutral", "é"),
    ]
    data = tweets.read(written(tmp_path, [HEADER, *rows], packed=packed), 8)
    assert (data.users, data.classes) == (("ann", "zoe"), ("negative", "neutral", "positive"))
    assert data.y.tolist() == [0, 2, 1]
    assert [data.users[user] for user in data.user] == ["zoe", "ann", "zoe"]
    assert data.x.tobytes() == tweets.hashed(['late, "again"\nand again', "great", "é"], 8).tobytes()


@pytest.mark.parametrize("file", ["training.1600000.processed.noemoticon.csv", "training.csv"])
def test_sentiment140_is_read_by_author(tmp_path: Path, file: str) -> None:
    day = "Mon Apr 06 22:19:45 PDT 2009"
    rows = [
        ["0", "1467810369", day, "NO_QUERY", "_TheSpecialOne_", "@switchfoot awww, that's a bummer."],
        ["4", "1467810672", day, "NO_QUERY", "scotthamilton", "café time"],
        ["4", "1467810917", day, "NO_QUERY", "_TheSpecialOne_", "better"],
    ]
    data = tweets.read140(written(tmp_path, rows, file, packed=file == "training.csv"), 8)
    assert (data.users, data.classes) == (("_TheSpecialOne_", "scotthamilton"), ("negative", "positive"))
    assert data.y.tolist() == [0, 1, 1]
    assert data.x.tobytes() == tweets.hashed([row[5] for row in rows], 8).tobytes()
    assert tweets.read140(tmp_path, 8, least=2).users == ("_TheSpecialOne_",)
    with pytest.raises(DataError, match="nobody with 3"):
        tweets.read140(tmp_path, 8, least=3)


def test_who_tweets_often_has_a_device_or_is_unseen(folder: Path) -> None:
    counts = {f"user {i:02d}": 5 if i < 8 else 4 for i in range(28)}
    rows = [row(name, tweets.CLASSES[i % 3], f"word {i}") for name, count in counts.items() for i in range(count)]
    written(folder / "airline_sentiment", [HEADER, *rows])
    task = tasks.load("tweets", 0)
    groups = {group: len(names) for group, names in task.users.items()}
    assert groups == {"train": 17, "calibration": 3, "device": 4, "unseen": 4}
    assert {counts[name] for name in (*task.users["device"], *task.users["unseen"])} == {5}
    for user in task.users["device"]:
        assert {part: len(own) for part, own in task.rows(user).parts.items()} == PARTS_OF_FIVE
    assert task.small.logits(task.small.init(0), task.public.x[:3]).shape == (3, 3)
    assert task.large.parameters > 10 * task.small.parameters


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], "no column name"),
        ([HEADER], "no tweets"),
        ([[*HEADER[:-5], *HEADER[-4:]]], "no column text"),
        ([HEADER, row("a", "neutral", "b"), row("a", "angry", "b")], "tweet 2: sentiment 'angry'"),
        ([HEADER, ["1", "neutral"]], "tweet 1: 2 cells"),
    ],
)
def test_what_is_broken_is_named(tmp_path: Path, rows: list[list[str]], expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        tweets.read(written(tmp_path, rows))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [([["2", "1", "d", "q", "u", "t"]], "polarity '2'"), ([["0", "1"]], "2 cells"), ([], "nobody")],
)
def test_what_is_broken_in_sentiment140_is_named(tmp_path: Path, rows: list[list[str]], expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        tweets.read140(written(tmp_path, rows, "training.csv"))


def test_without_data_its_place_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match="kaggle"):
        tasks.load("tweets")
    with pytest.raises(DataError, match=r"training\.csv"):
        tweets.read140(folder)
