"""Processes of the command line, for tests that really start them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest


class Started:
    """A running command, and what it says."""

    def __init__(self, words: Sequence[str], log: Path, **given: Any) -> None:
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "duetto", *words],
                stdin=given.get("stdin", subprocess.DEVNULL),
                stdout=given.get("stdout", file),
                stderr=file,
                env={**os.environ, "OMP_NUM_THREADS": "1", **given.get("env", {})},
                text=True,
            )

    @property
    def said(self) -> str:
        return self.log.read_text()

    def until(self, words: str, seconds: float = 60.0) -> str:
        """Wait until it has said so."""
        end = time.monotonic() + seconds
        while words not in self.said:
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"it did not say {words!r}: {self.said[-2000:]}")
            time.sleep(0.02)
        return self.said

    def ended(self, seconds: float = 120.0) -> int:
        """Wait for its end; the exit code."""
        return self.process.wait(seconds)

    def kill(self) -> None:
        """As a power cut would, but for the disk."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """Starts a command; whatever still runs in the end is killed."""
    running: list[Started] = []

    def begin(name: str, *words: str, **given: Any) -> Started:
        running.append(Started(words, tmp_path / f"{name}.log", **given))
        return running[-1]

    yield begin
    for each in running:
        if each.process.poll() is None:
            each.kill()
        for pipe in (each.process.stdin, each.process.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def port() -> int:
    """A port that nobody listens at now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
