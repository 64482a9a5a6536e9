"""Prompts that two models have answered: the logs that text routers are fitted on and judged by.

A log is a CSV file with a header or JSON lines, either gzipped or not. RouteLLM's evaluation files (Ong et al. 2024)
are read as they are published.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from duetto.errors import DataError
from duetto.types import Outcomes, Seen

SMALL = "mistralai/Mixtral-8x7B-Instruct-v0.1"  # the two models of RouteLLM's files
LARGE = "gpt-4-1106-preview"

_WORDS = {"true": 1.0, "yes": 1.0, "right": 1.0, "false": 0.0, "no": 0.0, "wrong": 0.0}
_KINDS = (".csv", ".csv.gz", ".jsonl", ".jsonl.gz")


@dataclass(frozen=True)
class Columns:
    """What the columns of a log are called.

    Attributes:
        prompt: what was asked.
        small, large: how good the two models' answers were: true or false, 1 or 0, or a score.
        answer: the small model's answer, for cascades; used where the log has it.
        user: who asked; used where the log has it.
    """

    prompt: str = "prompt"
    small: str = "small"
    large: str = "large"
    answer: str = "answer"
    user: str = "user"


def read(path: str | Path, columns: Columns = Columns()) -> Outcomes:
    """The log of a file: ``.csv`` with a header, or ``.jsonl`` with an object a line; ``.gz`` behind either.

    Returns:
        Outcomes whose ``seen.features`` is ``{"prompt": [n] texts}`` and, where the log has answers,
        ``"answer": [n] texts`` (arrays of objects: a long prompt takes only its own room); ``seen.stage`` is 1 with
        answers, else 0.

    Raises:
        DataError: a file that is missing, damaged, empty or of another kind, a column that is missing, or a value
            that is no text, no number, or not finite; it names the line.
    """
    return outcomes(_rows(Path(path)), columns, str(path))


def prompts(
    lines: Iterable[str], columns: Columns = Columns(), where: str = "input", first: int = 1
) -> Iterator[tuple[str, str | None]]:
    """(prompt, answer or None) of JSON lines, each as it is read; blank lines are passed over.

    A line is an object with a prompt, or a JSON string, which is the prompt.

    Raises:
        DataError: a line that is neither; it names the line.
    """
    for number, line in enumerate(lines, first):
        if not line.strip():
            continue
        row = _json(line, f"{where}, line {number}")
        row = {columns.prompt: row} if isinstance(row, str) else row
        if not isinstance(row, dict):
            raise DataError(f"{where}, line {number} is no object", 'send {"prompt": "..."} a line')
        answer = row.get(columns.answer)
        found = _text(row, columns.prompt, f"{where}, line {number}")
        yield found, None if answer is None else _text(row, columns.answer, f"{where}, line {number}")


def outcomes(
    rows: Iterable[tuple[int, Mapping[str, Any]]], columns: Columns = Columns(), where: str = "log"
) -> Outcomes:
    """The log of (line, {column: value}) rows; see :func:`read`."""
    found: dict[str, list[Any]] = {name: [] for name in ("prompt", "small", "large", "answer", "user")}
    used: dict[str, str] = {}
    for line, row in rows:
        at = f"{where}, line {line}"
        if not used:
            used = {name: getattr(columns, name) for name in ("prompt", "small", "large")}
            if missing := [column for column in used.values() if column not in row]:
                there = ", ".join(str(name) for name in row)
                raise DataError(f"{where} has no column {missing[0]!r}", f"it has {there}; name the one that is meant")
            used |= {name: getattr(columns, name) for name in ("answer", "user") if getattr(columns, name) in row}
        for name, column in used.items():
            found[name].append(_quality(row, column, at) if name in ("small", "large") else _text(row, column, at))
    if not used:
        raise DataError(f"{where} has no rows", "log at least one prompt with both outcomes")
    features = {name: np.array(found[name], object) for name in ("prompt", "answer") if found[name]}
    return Outcomes(
        np.array(found["small"]),
        np.array(found["large"]),
        Seen(stage=int("answer" in features), features=features, size=len(found["prompt"])),
        np.array(found["user"], np.str_) if found["user"] else None,
    )


# ------------------------------------------------------------------------------------------------------- RouteLLM


def mmlu(folder: str | Path) -> Outcomes:
    """RouteLLM's MMLU: right or wrong of Mixtral-8x7B and GPT-4 per question; the user is the subject.

    Prompts that RouteLLM found in its training data are left out, as in its own evaluation.

    Args:
        folder: ``routellm/evals/mmlu`` of its repository, gzipped or not.

    Raises:
        DataError: files that are missing or damaged.
    """
    folder = Path(folder)
    contaminated = _contaminated(folder)
    files = sorted(path for kind in ("csv", "csv.gz") for path in folder.glob(f"responses/mmlu_*.{kind}"))
    if not files:
        raise DataError(f"no {folder}/responses/mmlu_*.csv", "name RouteLLM's folder evals/mmlu")
    columns = Columns("prompt", SMALL, LARGE)
    rows = []
    for path in files:
        subject = path.name.removeprefix("mmlu_").partition(".")[0]
        for line, row in _rows(path):
            if missing := [name for name in (SMALL, LARGE, "prompt") if row.get(name) is None]:
                raise DataError(f"{path}, line {line} has no {missing[0]!r}", "fetch the file again")
            if row["prompt"] not in contaminated:
                rows.append((line, {**row, "user": subject}))
    return outcomes(rows, columns, str(folder))


def mt_bench(folder: str | Path) -> Outcomes:
    """RouteLLM's MT-Bench: GPT-4's mean score, 1..10, of two turns of Mixtral-8x7B and GPT-4; the user is the category.

    The prompt is the first turn and the answer is Mixtral's to it, as the judge read it. Questions whose first turn
    RouteLLM found in its training data are left out.

    Raises:
        DataError: files that are missing or damaged.
    """
    folder = Path(folder)
    contaminated = _contaminated(folder)
    questions = {row.get("question_id"): row for _, row in _rows(_there(folder, "question.jsonl"))}
    score: dict[tuple[Any, Any], list[float]] = {}
    answer: dict[Any, str] = {}
    for line, row in _rows(_there(folder, "judgements.jsonl")):
        at = f"{folder}/judgements.jsonl, line {line}"
        name, model = row.get("question_id"), row.get("model")
        score.setdefault((name, model), []).append(_quality(row, "score", at))
        if model == SMALL and row.get("turn") == 1:
            said = _text(row, "user_prompt", at).rpartition("[The Start of Assistant's Answer]")[2]
            answer[name] = said.partition("[The End of Assistant's Answer]")[0].strip()
    rows = []
    for line, (name, question) in enumerate(questions.items(), 1):
        turns = question.get("turns")
        if not isinstance(turns, list) or not turns or any((name, model) not in score for model in (SMALL, LARGE)):
            raise DataError(f"{folder}: question {name} lacks its turns or a judgement", "fetch the files again")
        if turns[0] in contaminated:
            continue
        means = {model: float(np.mean(score[name, model])) for model in (SMALL, LARGE)}
        about = {"prompt": turns[0], "answer": answer.get(name, ""), "user": question.get("category", "")}
        rows.append((line, {**about, **means}))
    return outcomes(rows, Columns("prompt", SMALL, LARGE), str(folder))


def _contaminated(folder: Path) -> set[str]:
    rows = _rows(_there(folder, "contaminated_prompts.jsonl"))
    return {_text(row, "eval_prompt", f"{folder}/contaminated_prompts.jsonl, line {line}") for line, row in rows}


def _there(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(f"no {folder / name}", "name a folder of RouteLLM's evaluation files")


# ------------------------------------------------------------------------------------------------------- reading


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, {column: value}) of a file; lines count from 1 and are where a row ends."""
    kind = path.name.lower().removesuffix(".gz")
    if not kind.endswith((".csv", ".jsonl")):
        raise DataError(f"{path} is of no kind that is known", f"use one of {', '.join(_KINDS)}")
    try:
        data = path.read_bytes()
        raw = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        text = raw.decode("utf-8-sig")
    except FileNotFoundError as fault:
        raise DataError(f"there is no {path}", "name a log that is there") from fault
    except (EOFError, gzip.BadGzipFile, zlib.error) as fault:
        raise DataError(f"{path} is damaged ({fault})", "copy it again") from fault
    except UnicodeDecodeError as fault:
        raise DataError(f"{path} is no UTF-8 ({fault})", "save it as UTF-8") from fault
    yield from (_csv(text, path) if kind.endswith(".csv") else _jsonl(text, path))


def _csv(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a prompt may be longer than csv's 128 KiB
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        head: Sequence[str] = next(reader, [])
        for values in reader:
            if not values:
                continue
            if len(values) != len(head):
                raise DataError(
                    f"{path}, line {reader.line_num} has {len(values)} values for {len(head)} columns",
                    "quote texts that hold commas or line breaks",
                )
            yield reader.line_num, dict(zip(head, values, strict=True))
    except csv.Error as fault:
        raise DataError(f"{path}, line {reader.line_num}: {fault}", "quote texts as CSV does") from fault
    finally:
        csv.field_size_limit(before)


def _jsonl(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):  # splitlines would part at U+2028, which JSON may hold
        if line.strip():
            row = _json(line, f"{path}, line {number}")
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number} is no object", 'write {"prompt": ..., ...} a line')
            yield number, row


def _json(line: str, at: str) -> Any:
    try:
        return json.loads(line)
    except (json.JSONDecodeError, RecursionError) as fault:
        raise DataError(f"{at} is no JSON ({fault})", "write one JSON object a line") from fault


def _text(row: Mapping[str, Any], column: str, at: str) -> str:
    value = row.get(column)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)  # users are often numbers
    if not isinstance(value, str):
        raise DataError(f"{at}: {column} is {value!r:.40}", "give a text")
    return value


def _quality(row: Mapping[str, Any], column: str, at: str) -> float:
    value = row.get(column)
    if isinstance(value, str):
        value = _WORDS.get(value.strip().lower(), value)
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{at}: {column} is {value!r:.40}", "give true or false, or a finite number")
    return number
