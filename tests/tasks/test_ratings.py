"""Films by user: rows written by hand, time that is respected, and a list that is ranked whole."""

from pathlib import Path

import numpy as np
import pytest

from duetto import tasks
from duetto.errors import ConfigError, DataError
from duetto.models.net import log_softmax
from duetto.tasks import ratings
from duetto.types import Rows


def written(folder: Path, users: int = 20, films: int = 40, each: int = 12) -> Path:
    """Everybody rates some films, one an hour, in an order that the file hides."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    lines = [
        f"{user}\t{film}\t{draw.integers(1, 6)}\t{880000000 + 3600 * hour}\n"
        for user in range(1, users + 1)
        for hour, film in enumerate(draw.permutation(films)[:each] + 1)
    ]
    (folder / "u.data").write_text("".join(draw.permutation(lines).tolist()))
    (folder / "u.item").write_text("".join(f"{film}|Film|||\n" for film in range(1, films + 1)))
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder that holds nothing yet."""
    root = tmp_path / "data"
    root.mkdir()
    monkeypatch.setenv("DUETTO_DATA", str(root))
    return root


def test_rows_hold_the_film_and_the_films_before_the_last_first(tmp_path: Path) -> None:
    # user 1 rates film 30, then 10 and 20 in one second (in the order of the file), then 40; user 2 only one film
    (tmp_path / "u.data").write_text("1\t10\t5\t7\n1\t20\t1\t7\n2\t10\t3\t1\n1\t40\t2\t9\n1\t30\t4\t3\n")
    (tmp_path / "u.item").write_text("".join(f"{film}|\n" for film in (10, 20, 30, 40, 50, 60)))
    data, items = ratings.read(tmp_path, history=2, negatives=3)
    assert (data.users, items, data.classes) == (("1",), 7, ("passed", "rated"))
    number = {10: 1, 20: 2, 30: 3, 40: 4, 50: 5, 60: 6}
    before = [[number[30], 0], [number[10], number[30]], [number[20], number[10]]]
    assert data.y.tolist() == [1, 0, 0, 0] * 3
    assert data.x[::4, 0].tolist() == [number[10], number[20], number[40]]
    assert data.x[:, 1:].tolist() == np.repeat(before, 4, 0).tolist()
    assert set(data.x[data.y == 0, 0].tolist()) <= {number[50], number[60]}
    again = ratings.read(tmp_path, history=2, negatives=3)[0]
    assert again.x.tobytes() == data.x.tobytes()


def test_a_user_s_negatives_do_not_depend_on_the_others(tmp_path: Path) -> None:
    data, _ = ratings.read(written(tmp_path / "all"))
    lines = (tmp_path / "all" / "u.data").read_text().splitlines(keepends=True)
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "u.data").write_text("".join(line for line in lines if int(line.split()[0]) % 2))
    (tmp_path / "few" / "u.item").write_text((tmp_path / "all" / "u.item").read_text())
    few, _ = ratings.read(tmp_path / "few")
    assert few.x.tobytes() == data.only(few.users).x.tobytes()


def test_parts_follow_time_and_keep_a_film_beside_its_negatives(folder: Path) -> None:
    written(folder / "ml-100k")
    task = tasks.load("ratings", 0)
    assert {group: len(names) for group, names in task.users.items()} == {
        "train": 8,
        "calibration": 2,
        "device": 6,
        "unseen": 4,
    }
    together = 1 + ratings.NEGATIVES
    for user in task.users["device"]:
        rows = task.rows(user)
        cut = {part: own.tolist() for part, own in rows.parts.items()}
        assert cut["stream"] + cut["calibration"] + cut["held"] == list(range(len(rows)))
        # eleven films: 6.6, 2.2 and 2.2 of them, rounded in total
        assert [len(cut[part]) for part in ("stream", "calibration", "held")] == [
            7 * together,
            2 * together,
            2 * together,
        ]
    assert task.rows(task.users["unseen"][0]).parts == {}
    logits = task.small.logits(task.small.init(0), task.public.x[:3])
    assert logits.shape == (3, 2)
    assert task.large.parameters > 4 * task.small.parameters


def test_the_last_film_is_ranked_among_all_that_were_not_rated_before(folder: Path) -> None:
    data, items = ratings.read(written(folder / "ml-100k"))
    own = data.rows("7")
    rows = Rows(data.x[own], data.y[own])
    x, place = ratings.candidates(rows, items)
    films = [int(line.split("\t")[1]) for line in sorted(
        (folder / "ml-100k" / "u.data").read_text().splitlines(), key=lambda line: int(line.split("\t")[3])
    ) if line.startswith("7\t")]  # fmt: skip
    assert x[:, 0].astype(int).tolist() == sorted(set(range(1, 41)) - set(films[:-1]))
    assert x[place, 0] == films[-1]
    assert (x[:, 1 : len(films)] == films[-2::-1]).all()

    def by_number(x: np.ndarray) -> np.ndarray:
        return np.stack([np.zeros(len(x)), x[:, 0]], 1)  # the highest number first

    above = [film for film in set(range(1, 41)) - set(films) if film > films[-1]]
    assert ratings.last_rank(by_number, rows, items) == len(above)
    assert ratings.last_rank(lambda x: np.zeros((len(x), 2)), rows, items) == len(x) - 1, "ties are lost"


def test_a_score_is_the_log_odds() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 2))
    log = log_softmax(logits)
    np.testing.assert_allclose(ratings.score(logits), log[:, 1] - log[:, 0], rtol=1e-5)


def test_the_other_layout_is_found_as_well(folder: Path) -> None:
    written(folder / "ml-1m")
    for old, new, cut in (("u.data", "ratings.dat", "\t"), ("u.item", "movies.dat", "|")):
        path = folder / "ml-1m" / old
        (folder / "ml-1m" / new).write_text(path.read_text().replace(cut, "::"))
        path.unlink()
    assert len(tasks.load("ratings").data.users) == 20


def test_what_makes_no_sense_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        ratings.read(tmp_path, negatives=0)
    (tmp_path / "u.data").write_text("1\t1\t5\t7\n")
    (tmp_path / "u.item").write_text("1|\n2|\n")
    with pytest.raises(DataError, match="two ratings"):
        ratings.read(tmp_path)
    (tmp_path / "u.data").write_text("1\t1\t5\t7\n1\t2\t5\t8\n")
    with pytest.raises(DataError, match="rated every film"):
        ratings.read(tmp_path)


def test_without_data_the_publisher_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match="grouplens"):
        tasks.load("ratings")
