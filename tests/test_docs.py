"""Every code block of the README and the guides runs, and every command that they name exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
MADE = {"demo", "test", "test-slow"}  # run by hand and by CI: they would run these tests


def blocks(page: Path, language: str) -> list[str]:
    return [code for found, code in BLOCK.findall(page.read_text(encoding="utf-8")) if found == language]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": page.stem}
    for code in blocks(page, "python"):
        exec(compile(code, str(page), "exec", dont_inherit=True), names)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "sh")], ids=lambda page: page.name)
def test_shell_blocks_run(page: Path, tmp_path: Path) -> None:
    for line in filter(None, "\n".join(blocks(page, "sh")).splitlines()):
        command, *arguments = line.split("#")[0].split()
        if command == "make":
            assert set(arguments) <= MADE
            continue
        assert command == "duetto", f"{page.name} runs {line!r}, which nothing tests"
        done = subprocess.run(
            [sys.executable, "-m", "duetto", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_every_block_has_a_language_that_runs() -> None:
    for page in PAGES:
        assert {language for language, _ in BLOCK.findall(page.read_text(encoding="utf-8"))} <= {"python", "sh", "text"}
        assert page.read_text(encoding="utf-8").count("```") % 2 == 0


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"
