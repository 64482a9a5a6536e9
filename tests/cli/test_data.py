"""`duetto data`."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from duetto.cli import data
from duetto.errors import DataError
from duetto.tasks import load, official, partition


@pytest.fixture
def leaf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes `$DUETTO_DATA/mnist_by_writer`: two employees and two students; ``pixel`` stands in the first image."""
    root = tmp_path / "sets"
    monkeypatch.setenv("DUETTO_DATA", str(root))

    def write(pixel: float = 0.5, rows: int = 2) -> Path:
        users = {name: rows if name == "f1_4" else 2 for name in ("f1_0", "f2_0", "f1_4", "f2_4")}
        entries = {name: {"x": [[0.0] * 784] * n, "y": [1] * n} for name, n in users.items()}
        entries["f1_0"]["x"] = [[pixel, *[0.0] * 783], [0.0] * 784]
        whole = {"users": list(users), "num_samples": list(users.values()), "user_data": entries}
        path = root / "mnist_by_writer" / "train" / "all.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(whole))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        (root / "SHA256SUMS").write_text(f"{digest}  mnist_by_writer/train/all.json\n{'0' * 64}  other/file\n")
        return path

    return write


def test_list_says_what_is_where(run: Callable[..., Any], leaf: Callable[..., Path]) -> None:
    folder = leaf().parents[1]
    found = json.loads(run("data", "list", "--json").out)
    assert set(found) == {"digits", *official.SETS, "traces"}
    assert found["handwriting"]["where"] == str(folder)
    assert found["activity"]["where"] is None
    shown = run("data", "list").out
    assert f"{folder}\n" in shown
    assert "not here: `duetto data get activity`" in shown
    assert "not here: set DUETTO_DATA" in shown


def test_check_reads_and_compares(run: Callable[..., Any], leaf: Callable[..., Path]) -> None:
    path = leaf()
    found = json.loads(run("data", "check", "--json").out)
    assert found["handwriting"] == {
        "where": str(path.parents[1]),
        "files_with_checksum": 1,
        "users": 4,
        "rows": 8,
        "classes": 10,
    }
    assert set(found) == {"digits", "handwriting"}, "what is here"
    assert "✓ handwriting: 1 files with checksum, 4 users, 8 rows" in run("data", "check", "handwriting").out

    path.write_text(path.read_text() + " ")
    assert "has not the checksum" in run("data", "check", "handwriting").error
    path.rename(path.with_name("more.json"))
    assert "all.json is listed in" in run("data", "check", "handwriting").error


def test_data_that_cannot_be_used_is_named(run: Callable[..., Any], leaf: Callable[..., Path]) -> None:
    leaf(pixel=float("nan"))
    for words in (
        ["data", "check", "handwriting"],
        ["data", "show", "handwriting"],
        ["simulate", "closed-loop", "--task", "handwriting"],
        ["info", "--task", "handwriting"],
    ):
        done = run(*words)
        assert done.code == 2
        assert "user 'f1_0' has pixels outside 0..1" in done.error
    leaf(rows=0)
    for words in (["data", "check", "handwriting"], ["simulate", "closed-loop", "--task", "handwriting"]):
        assert "user 'f1_4' has no rows in any file: leave this user out" in run(*words).error


def test_what_is_not_there_says_what_to_do(run: Callable[..., Any]) -> None:
    assert run("data", "check", "activity").error.endswith("or run `duetto data get activity`")
    assert run("data", "check", "traces").error.endswith("which holds traces/")
    assert "no set is called 'x'" in run("data", "check", "x").error
    assert "no data set 'x'" in run("data", "get", "x").error
    assert "digits cannot be fetched: get one of" in run("data", "get", "digits").error
    assert "no task is called 'traces'" in run("data", "show", "traces").error
    by_hand = "and set DUETTO_DATA to the folder that holds shakespeare"
    for ask in (("check",), ("show",), ("get",)):
        assert run("data", *ask, "shakespeare").error.endswith(by_hand)
    assert "not here: http://shakespeare.mit.edu" in run("data", "list").out


def test_get_tells_its_progress_and_its_folder(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def get(name: str, progress: Callable[..., None]) -> Path:
        progress("part.gz", 10, None)
        progress("part.gz", 20, 20)
        return tmp_path / name

    monkeypatch.setattr(official, "get", get)
    done = run("data", "get", "activity")
    assert done.out == f"activity: {tmp_path / 'activity'}\n"
    assert "part.gz" in done.err
    assert json.loads(run("data", "get", "activity", "--json").out)["folder"] == str(tmp_path / "activity")


def test_get_without_a_network_says_what_to_do(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def stream(*given: Any, **named: Any) -> None:
        raise httpx.ConnectError("no route")

    monkeypatch.setattr(httpx, "stream", stream)
    done = run("data", "get", "activity")
    assert done.code == 2
    assert "no route: set DUETTO_DATA to a folder which holds wisdm_ar_v1.1, or run again when online" in done.error


def test_get_that_is_stopped_keeps_what_it_has(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def get(name: str, progress: Callable[..., None]) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(official, "get", get)
    done = run("data", "get", "activity")
    assert done.code == 130
    assert done.err.endswith("the same command goes on\n")


def test_a_download_is_checked_by_its_published_digest(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DUETTO_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "mnist"
    folder.mkdir(parents=True)
    for source in official.SETS["handwriting"].sources:
        (folder / source.file).write_bytes(b"something else")
    done = run("data", "check", "handwriting")
    assert "is not what was downloaded: delete this file and run again" in done.error


def test_show_draws_people(run: Callable[..., Any]) -> None:
    done = run("data", "show", "digits")
    assert done.code == 0, done.err
    assert max(map(len, done.out.splitlines())) <= 80
    for words in ("40 users, 1,797 rows of 1 x 8 x 8", "unseen", "classes a user", "rows a user", "█"):
        assert words in done.out
    found = json.loads(run("data", "show", "digits", "--json").out)
    assert found["groups"]["device"]["users"] == 24
    assert sum(found["rows_per_user"]) == found["rows"] == 1797


def test_show_deals_rows_anew(run: Callable[..., Any], tmp_path: Path) -> None:
    words = ("data", "show", "digits", "--partition", "shards:2", "--users", "30")
    done = run(*words, "--picture", tmp_path / "skew.svg")
    assert done.code == 0, done.err
    assert max(len(line) for line in done.out.splitlines() if not line.startswith("Picture:")) <= 80
    for said in ("30 users with 2 shards", "24 of 30 users", "classes a user", "by chance alone", "rows a user", "▓"):
        assert said in done.out
    assert f"Picture: {tmp_path / 'skew.svg'}" in done.out.replace("\n", "")
    assert (tmp_path / "skew.svg").read_text().startswith("<svg ")

    found = json.loads(run(*words, "--json").out)
    dealt = partition.Shards(30, 2)(load("digits").data, 0)
    assert np.array_equal(list(found["users"].values()), partition.counts(dealt))
    assert list(found["users"]) == list(dealt.users)
    assert found["skew"] == pytest.approx(asdict(partition.skew(dealt)))
    assert found["skew_by_chance"]["distance"] < 0.5 * found["skew"]["distance"]
    assert found["partition"] == "Shards(users=30, per_user=2)"
    other = json.loads(run(*words, "--json", "--seed", "1").out)
    assert other["users"] != found["users"]


def test_show_keeps_the_users_that_there_are(run: Callable[..., Any]) -> None:
    found = json.loads(run("data", "show", "digits", "--partition", "natural", "--json").out)
    assert np.array_equal(list(found["users"].values()), partition.counts(load("digits").data))
    assert len(json.loads(run("data", "show", "digits", "--partition", "shift", "--json").out)["users"]) == 40


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--partition", "zipf:2"], "no partition is called 'zipf:2': use one such as natural, dirichlet:0.5"),
        (["--partition", "dirichlet:0"], "alpha is 0.0"),
        (["--partition", "shards", "--users", "0"], "users is 0"),
        (["--partition", "quantity", "--users", "1798"], "1797 rows are too few for 1798 users"),
        (["--partition", "natural", "--users", "3"], "a number of users for those that there are"),
        (["--users", "3"], "no partition is named"),
        (["--picture", "x.svg"], "no partition is named"),
        (["--partition", "natural", "--picture", "no/such/x.svg"], "no/such/x.svg: No such file or directory"),
    ],
)
def test_show_refuses_what_it_cannot_deal(run: Callable[..., Any], words: list[str], expected: str) -> None:
    done = run("data", "show", "digits", *words)
    assert done.code == 2
    assert expected in done.error


def test_the_heat_map_shades_shares() -> None:
    table = np.array([[1000, 0, 9], [1, 1, 3]])
    lines = data.heat(table, ["a", "a-very-long-name"], ["cat", "horses", "owl"], 40)
    assert lines == [
        "user          rows  cat   horse owl   ",
        "a            1,009  █████       ·····",
        "a-very-long-     5  ▒▒▒▒▒ ▒▒▒▒▒ ▓▓▓▓▓",
    ]
    many = data.heat(np.eye(30, dtype=int), [str(i) for i in range(30)], [f"class {i}" for i in range(30)], 50)
    assert max(map(len, many)) <= 50
    assert many[-1] == "29      1  " + " " * 29 + "█"


def test_the_histogram_counts_everybody() -> None:
    lines = data.histogram(np.array([3, 3, 4, 20, 103]), bins=10, width=10)
    assert sum(count for _, count, _ in lines) == 5
    assert lines[0] == ("  3–13 ", 3, "██████████")
    assert [count for _, count, _ in lines] == [3, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    assert data.histogram(np.array([7, 7])) == [("7", 2, "█" * 40)]


def test_the_real_data_are_whole(run: Callable[..., Any], data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUETTO_DATA", str(data_dir))
    names = [name for name in ("activity", "cifar", "sensors", "traces") if data._where(name)]
    found = json.loads(run("data", "check", *names, "--json").out)
    assert all(entry["files_with_checksum"] or not (data_dir / "SHA256SUMS").exists() for entry in found.values())


def test_a_folder_that_is_none_is_a_fault(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUETTO_DATA", "/nowhere/at/all")
    for words in (
        ["data", "list"],
        ["data", "check"],
        ["data", "show", "digits"],
        ["info"],
        ["info", "--task", "digits"],
    ):
        assert "DUETTO_DATA is '/nowhere/at/all', which is no folder" in run(*words).error


def test_a_missing_sum_file_is_no_fault(leaf: Callable[..., Path], run: Callable[..., Any], tmp_path: Path) -> None:
    leaf()
    (tmp_path / "sets" / "SHA256SUMS").unlink()
    assert json.loads(run("data", "check", "handwriting", "--json").out)["handwriting"]["files_with_checksum"] == 0
    assert issubclass(DataError, Exception)
