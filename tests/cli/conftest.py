"""The command line, called in this process or in one of its own."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from duetto.cli import main


@dataclass
class Done:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """Its one line of error."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        assert self.err.splitlines()[-1] == lines[0], "nothing comes after it"
        assert "Traceback" not in self.err
        return lines[0]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In an empty folder, without the real data, on one thread, and as wide as a usual terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DUETTO_DATA", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("COLUMNS", "80")
    loops = logging.getLogger("asyncio")  # silent once a command was stopped
    monkeypatch.setattr(loops, "setLevel", lambda level: monkeypatch.setattr(loops, "level", level))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """``run("data", "list")`` in this process."""

    def call(*words: Any) -> Done:
        capsys.readouterr()
        code = main([str(word) for word in words])
        return Done(code, *capsys.readouterr())

    return call


@pytest.fixture
def python() -> Callable[..., Done]:
    """``python(code, words...)`` in an interpreter of its own; keywords are variables of its environment."""

    def call(code: str, *words: str, **variables: str | None) -> Done:
        env = {**os.environ, **{name: value for name, value in variables.items() if value is not None}}
        for name in (name for name, value in variables.items() if value is None):
            env.pop(name, None)
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=240, check=False, env=env
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tiny_task: Callable[..., Any]) -> None:
    """Runs are on a task that learns in a second, whatever it is called (but "nope")."""
    from duetto.programs import runs
    from duetto.tasks import load

    monkeypatch.setattr(runs, "load", lambda name, seed: load(name) if name == "nope" else tiny_task(seed, name=name))
    monkeypatch.setattr(runs.findings, "REDRAWS", 20)
