"""duetto flower: the app that is written."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def test_an_app_is_written(run: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "my-clinic"
    done = run("flower", "new", str(folder), "--algorithm", "pfedme", "--set", "lam=1", "--set", "eta=0.5")
    assert done.code == 0
    about = tomllib.loads((folder / "pyproject.toml").read_text())
    assert about["tool"]["flwr"]["app"]["components"]["serverapp"] == "my_clinic.server_app:app"
    config = about["tool"]["flwr"]["app"]["config"]
    assert (config["task"], config["algorithm"], config["lam"], config["eta"]) == ("digits", "pfedme", 1.0, 0.5)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert [path.relative_to(folder).as_posix() for path in files] == [
        "README.md",
        "my_clinic/__init__.py",
        "my_clinic/client_app.py",
        "my_clinic/program.py",
        "my_clinic/server_app.py",
        "pyproject.toml",
    ]
    for path in files:
        left = {"NAME", "PACKAGE", "PUBLISHER", "TASK", "ALGORITHM", "OWN", "NUMBERS"} & set(path.read_text().split())
        assert not left, path
    compile((folder / "my_clinic" / "program.py").read_text(), "program.py", "exec")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["My Clinic"], "an app called 'My Clinic': use small letters"),
        (["a", "--task", "no"], "no task is called 'no': use one of activity"),
        (["a", "--algorithm", "no"], "no algorithm is called 'no': use one of apfl"),
        (["a", "--algorithm", "ditto"], "ditto needs lam: give it: --set lam=0.1"),
        (["a", "--algorithm", "ditto", "--set", "lam=x"], "'lam=x' gives no number"),
        (["a", "--set", "lam=1"], "fedavg has no number of its own called 'lam'"),
        (["a", "--algorithm", "dccl"], "dccl needs rows, which is no number: take fedavg"),
        (["full"], "full is not empty: name a new folder"),
    ],
)
def test_what_cannot_be_is_one_line(
    words: list[str], expected: str, run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full/file").touch()
    done = run("flower", "new", *words)
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert expected in done.error
