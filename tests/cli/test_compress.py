"""`duetto compress`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from duetto.errors import DataError

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
FEW = ("--way", "8-bit weights", "--way", "pruned", "--passes", "1", "--rounds", "3")
LOOSE = ("--max-loss", "100", "--max-worst-loss", "100", "--max-bytes", "1000", "--max-latency", "10000")


def test_help_has_examples(run: Callable[..., Any]) -> None:
    shown = run("compress", "--help").out
    for words in ("--max-loss", "--max-bytes", "--fresh", "--json", "Examples", "duetto compress small --task"):
        assert words in shown


def test_a_table_a_file_and_a_page(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_task: Callable[..., Any]
) -> None:
    from duetto.programs import compress

    monkeypatch.setattr(compress, "load", lambda name, seed: tiny_task(seed, name=name))
    done = run("compress", "digits.small", *FEW, *LOOSE)
    assert done.code == 0, done.err
    for words in ("▸ ", "pruned", "8-bit weights", "original", "worst", "What speaks against it", "chosen.onnx"):
        assert words in done.out
    assert max(map(len, done.out.splitlines())) <= 80
    folder = tmp_path / "runs" / "compress-digits-small-0"
    assert "<svg" in (folder / "report.html").read_text(encoding="utf-8")
    told = json.loads(run("compress", "small", "--task", "digits", *FEW, "--max-latency", "0.001", "--json").out)
    assert told["chosen"] is told["file"] is None
    assert told["headline"].endswith("loosen --max-latency")
    assert [way["outcome"]["name"] for way in told["ways"]] == ["original", "8-bit weights", "pruned"]

    def stopped(*told: object) -> None:
        raise DataError("nothing to compress", "give something")

    monkeypatch.setattr(compress, "compress", stopped)
    assert run("compress", "digits.small", "--fresh").error == "error: nothing to compress: give something"
    assert not folder.exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("small",), "no model is called 'small': say small or large with --task TASK, or TASK.small, TASK.large"),
        (("digits.middle",), "no model is called 'digits.middle': say small or large with --task TASK, or TASK.small"),
        (("digits.small", "--task", "cifar"), "digits.small is no model of the task 'cifar': name the task once"),
        (("small", "--task", "nope"), "no task is called 'nope': choose one of activity, cifar, digits"),
        (("digits.small", "--max-loss", "-1"), "--max-loss -1: give points of accuracy, 0 or more"),
        (("digits.small", "--max-bytes", "0"), "--max-bytes 0: give percent of the original, above 0"),
        (("digits.small", "--way", "magic"), "no way is called 'magic': use some of original, float16"),
        (("digits.small", "--name", "a/b"), "a run called 'a/b': give a name without slashes"),
    ],
)
def test_faults_are_told_in_one_line(run: Callable[..., Any], words: tuple[str, ...], says: str) -> None:
    done = run("compress", *words)
    assert done.code == 2
    assert done.error.startswith(f"error: {says}")
