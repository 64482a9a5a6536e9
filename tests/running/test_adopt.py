"""docs/adopt.md, line by line, and then what the command says to type next."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "adopt.md"
OWN = "--small small.onnx --large large.onnx --data my.csv --user-column id --label-column digit"


def typed() -> list[str]:
    """The page's lines, here-documents with their text."""
    found = []
    for block in re.findall(r"^```text\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        lines = iter(block.splitlines())
        for line in lines:
            if line.startswith("$ "):
                rest = "\n".join(["", *iter(lines.__next__, "END"), "END", ""]) if "<<'END'" in line else ""
                found.append(line[2:] + rest)
    return found


def free() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(os.name == "nt" or not shutil.which("bash"), reason="what is typed is for bash")
def test_the_page_is_right_and_so_is_what_it_leads_to(tmp_path: Path) -> None:
    words = tmp_path / "words"
    words.mkdir()
    for name, does in {"python": '-W ignore "$@"', "duetto": '-m duetto "$@"'}.items():
        (words / name).write_text(f'#!/bin/bash\nexec "{sys.executable}" {does}\n')
        (words / name).chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DUETTO_", "OTEL_"))}
    given = {**kept, "PATH": f"{words}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1", "COLUMNS": "120"}

    def run(line: str) -> str:
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", line],
            cwd=tmp_path, env=given, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    made, first, second = (run(line) for line in typed())
    assert not made
    for table in (first, second):
        for said in ("device only", "cloud only", "calibrated", "gain", "oracle, as often", "What speaks against it"):
            assert said in table
    calls = json.loads(run(f"duetto adopt {OWN} --seed 1 --json"))
    assert calls["profile"]["calls"] == len((tmp_path / "runs" / "adopt" / "answers.jsonl").read_text().splitlines())

    ports = {name: free() for name in ("8443", "8444")}
    serve, *steps = calls["next"]
    assert len(steps) == 3
    listen = f"--listen 127.0.0.1:{ports['8443']} --enrol 127.0.0.1:{ports['8444']}"
    log, last = tmp_path / "log", ""
    with log.open("wb") as file:
        cloud = subprocess.Popen(
            ["bash", "-c", f"exec {serve} {listen}"], cwd=tmp_path, env=given, stdout=file, stderr=file
        )
    try:
        end = time.monotonic() + 120
        while "listening at" not in log.read_text():
            assert cloud.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        for step in steps:
            for name, port in ports.items():
                step = step.replace(name, port)
            last = run(step)
        answers = [json.loads(line) for line in last.splitlines()]
        assert len(answers) == 5
        assert all("label" in each for each in answers), answers
        assert all(each["why"].startswith("max_softmax against") for each in answers if not each["asked"]), answers
        cloud.send_signal(signal.SIGINT)
        assert cloud.wait(60) == 0
    finally:
        cloud.kill()
        cloud.wait()
