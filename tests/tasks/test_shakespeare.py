"""The next character by role: windows by hand, in the order of the play."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from duetto import tasks
from duetto.errors import ConfigError, DataError
from duetto.tasks import shakespeare
from duetto.tasks.shakespeare import LETTERS


def written(folder: Path, roles: dict[str, list[str]], *, packed: bool = False) -> Path:
    """A role a line, with what else the file tells of it."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"user": name, "play": "x", "role": name, "num_speeches": len(said), "speeches": said})
        for name, said in roles.items()
    ]
    text = ("\n".join(lines) + "\n").encode()
    (folder / f"by_role.jsonl{'.gz' if packed else ''}").write_bytes(gzip.compress(text) if packed else text)
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder that holds nothing yet."""
    root = tmp_path / "data"
    root.mkdir()
    monkeypatch.setenv("DUETTO_DATA", str(root))
    return root


def text(row: np.ndarray) -> str:
    """What a row says."""
    return "".join(LETTERS[int(number)] for number in row)


@pytest.mark.parametrize("packed", [False, True])
def test_windows_slide_over_all_that_a_role_says(tmp_path: Path, packed: bool) -> None:
    written(tmp_path, {"B": ["To be,\nor", "not"], "A": ["Ay."], "C": ["£5 then"]}, packed=packed)
    data = shakespeare.read(tmp_path, window=5, step=2)
    assert data.users == ("B", "C"), "A's three letters are too few"
    said = "To be,\nor not"
    own = data.rows("B")
    starts = range(0, len(said) - 5, 2)
    assert [text(row) for row in data.x[own]] == [said[start : start + 5] for start in starts]
    assert [LETTERS[y] for y in data.y[own]] == [said[start + 5] for start in starts]
    assert text(data.x[data.rows("C")[0]]) == " 5 th", "what nobody wrote then is a space"
    assert len(data.classes) == len(set(data.classes)) == 80


def test_short_roles_may_be_left_out(tmp_path: Path) -> None:
    written(tmp_path, {"long": ["a" * 50], "short": ["a" * 49]})
    assert shakespeare.read(tmp_path, window=3, least=50).users == ("long",)


def test_the_task_follows_the_play(folder: Path) -> None:
    draw = np.random.default_rng(0)
    letters = list("abcdefgh ")
    roles = {f"role {i}": ["".join(draw.choice(letters, 600).tolist()) for _ in range(2)] for i in range(10)}
    written(folder / "shakespeare", roles | {"page": ["Sir!"]})
    task = tasks.load("shakespeare", 0)
    assert {group: len(names) for group, names in task.users.items()} == {
        "train": 4,
        "calibration": 1,
        "device": 3,
        "unseen": 2,
    }
    for user in task.users["device"]:
        rows = task.rows(user)
        said = " ".join(roles[user])
        assert [text(row) for row in rows.part("held").x] == [
            said[start : start + 12] for start in range(0, len(said) - 12, 9)
        ][round(0.8 * len(rows)) :]
        assert len(rows.parts["stream"]) == pytest.approx(0.6 * len(rows), abs=1)
    assert len(task.public) == sum(len(range(0, len(" ".join(roles[user])) - 12, 3)) for user in task.users["train"])
    x = task.public.x[:3]
    for net in (task.small, task.large):
        assert net.logits(net.init(0), x).shape == (3, 80)
    assert task.large.parameters > 3 * task.small.parameters


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "line 2 is not json"),
        ("[]", "line 2 has no user"),
        ('{"user": "B", "speeches": "Ay"}', "line 2 has no user with a list"),
        ('{"user": "B", "speeches": [1]}', "line 2 has no user with a list"),
        ('{"user": "A", "speeches": ["Ay, ay."]}', "role 'A' is there twice"),
    ],
)
def test_what_is_broken_is_named(tmp_path: Path, line: str, expected: str) -> None:
    path = written(tmp_path, {"A": ["Ay, ay."]}) / "by_role.jsonl"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=expected):
        shakespeare.read(tmp_path, window=2)


def test_what_makes_no_sense_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        shakespeare.read(tmp_path, step=0)
    with pytest.raises(DataError, match="by_role"):
        shakespeare.read(tmp_path)
    with pytest.raises(DataError, match="no role of 81 characters"):
        shakespeare.read(written(tmp_path, {"A": ["Ay."]}))


def test_without_data_its_place_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"shakespeare\.mit\.edu"):
        tasks.load("shakespeare")
