"""docs/deploy.md and docs/operate.md, line by line: what they say to type is typed, on this machine."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

DOCS = Path(__file__).parents[2] / "docs"
TYPED = re.compile(r"^(cloud|phone|)\$ (.*)")
SERVES = re.compile(r"duetto cloud --large")


def scripts(page: str) -> Iterator[tuple[str, str]]:
    """The lines to type: at which machine, and what, here-documents with their text."""
    text = (DOCS / page).read_text(encoding="utf-8")
    for block in re.findall(r"^```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        lines = iter(block.splitlines())
        for line in lines:
            if found := TYPED.match(line):
                machine, typed = found.groups()
                if end := re.search(r"<<'(\w+)'", typed):
                    typed += "\n" + "\n".join(iter(lines.__next__, end[1])) + f"\n{end[1]}\n"
                yield machine, typed


class Typing:
    """Somebody who types, at several machines; each has a folder, and all are this one."""

    def __init__(self, root: Path, ports: dict[str, str]) -> None:
        root.mkdir(exist_ok=True)
        self.root, self._ports = root, ports
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        words = root / "words"
        words.mkdir()
        for name, does in {
            "python": f'exec "{sys.executable}" -W ignore "$@"',
            "duetto": f'exec "{sys.executable}" -m duetto "$@"',
            "scp": f'exec cp "{root}/cloud/${{1#*:}}" "$2"',  # what a machine gets from the other one
        }.items():
            (words / name).write_text(f"#!/bin/bash\n{does}\n")
            (words / name).chmod(0o755)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DUETTO_", "OTEL_"))}
        self._environment = {**kept, "PATH": f"{words}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}

    def type(self, machine: str, typed: str) -> str:
        """What it says, once it is done, or serves."""
        for name, port in self._ports.items():
            typed = typed.replace(name, port)
        folder = self.root / (machine or "one")
        folder.mkdir(exist_ok=True)
        if SERVES.match(typed):
            return self._serve(folder, typed)
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", typed],
            cwd=folder, env=self._environment, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{typed}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def _serve(self, folder: Path, typed: str) -> str:
        if folder.name in self.running:
            self.stop(folder.name)
        log = folder / f"log-{time.monotonic_ns()}"
        with log.open("wb") as file:
            self.running[folder.name] = process = subprocess.Popen(
                ["bash", "-c", f"exec {typed}"], cwd=folder, env=self._environment, stdout=file, stderr=file
            )
        end = time.monotonic() + 120
        while "listening at" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        return log.read_text()

    def stop(self, name: str) -> None:
        """As ctrl-C does."""
        process = self.running.pop(name)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *fault: object) -> None:
        """Nothing is left running."""
        for process in self.running.values():
            process.kill()
            process.wait()


def free() -> str:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def ports() -> dict[str, str]:
    """Others than the pages name, which may be somebody's here."""
    return {name: free() for name in ("8443", "8444", "8080")}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(os.name == "nt" or not shutil.which("curl"), reason="what is typed is for bash, and uses curl")
def test_the_pages_are_right(tmp_path: Path) -> None:
    lines = list(scripts("deploy.md"))
    alone = [typed for machine, typed in lines if not machine]
    apart = [(machine, typed) for machine, typed in lines if machine]
    assert (len(alone), len(apart)) == (9, 11)

    with Typing(tmp_path / "alone", ports()) as typing:
        said = {typed: typing.type("", typed) for typed in alone}
        answered = [text.splitlines() for typed, text in said.items() if typed.startswith("duetto device --cloud")]
        assert [len(each) for each in answered] == [5, 5]
        assert all('"label"' in line for each in answered for line in each), answered
        assert '"name":"phone-1"' in said[alone[-1]]
        for machine, typed in scripts("operate.md"):
            assert not machine
            typing.type("", typed)
        typing.stop("one")

    with Typing(tmp_path / "apart", ports()) as typing:
        for machine in ("cloud", "phone"):
            (typing.root / machine).mkdir()
            for name in ("large.onnx", "small.onnx", "inputs.jsonl"):
                shutil.copy(tmp_path / "alone" / "one" / name, typing.root / machine)
        told = {}
        for machine, typed in apart:
            here = typed.replace("https://cloud.example", "https://localhost").replace("cloud.example", "localhost")
            if SERVES.match(typed):  # what it listens at by default may be somebody's here
                here += " --listen 0.0.0.0:8443 --enrol 0.0.0.0:8444"
            told[typed] = typing.type(machine, here)
        assert "phone-1" in told["duetto cloud devices"]
        assert len(next(text for typed, text in told.items() if "inputs.jsonl" in typed).splitlines()) == 5
        typing.stop("cloud")
