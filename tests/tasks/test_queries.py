"""Logs of prompts with two models' outcomes."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from duetto.errors import DataError
from duetto.tasks import queries
from duetto.tasks.queries import LARGE, SMALL, Columns

ROWS = [
    {"prompt": 'Is 2, 3\nor 4 "even"?', "answer": "2", "small": True, "large": True, "user": "ann"},
    {"prompt": "Größe?", "answer": "", "small": 0, "large": 0.5, "user": "ben"},
    {"prompt": "", "answer": "who knows", "small": "wrong", "large": "yes", "user": 3},
]
CSV = (
    'prompt,answer,small,large,user\n"Is 2, 3\nor 4 ""even""?",2,True,TRUE,ann\n'
    "Größe?,,0,0.5,ben\n,who knows,wrong,yes,3\n"
)
SMALLS, LARGES = [1.0, 0.0, 0.0], [1.0, 0.5, 1.0]


def write(path: Path, text: str) -> Path:
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz", "log.jsonl", "log.jsonl.gz"])
def test_a_log_is_read_alike_from_every_kind_of_file(tmp_path: Path, name: str) -> None:
    text = CSV if ".csv" in name else "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n\n"
    found = queries.read(write(tmp_path / name, text))
    assert found.small.tolist() == SMALLS
    assert found.large.tolist() == LARGES
    assert found.users.tolist() == ["ann", "ben", "3"]
    assert found.seen.stage == 1
    assert found.seen.features["prompt"].tolist() == [row["prompt"] for row in ROWS]
    assert found.seen.features["answer"].tolist() == [row["answer"] for row in ROWS]
    assert found.rows(np.array([2])).seen.features["prompt"].tolist() == [""]


def test_columns_may_have_other_names_and_answers_and_users_are_optional(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "q,a,b\nwhy?,1,0\n")
    found = queries.read(path, Columns("q", "a", "b"))
    assert (found.small.tolist(), found.large.tolist(), found.users) == ([1.0], [0.0], None)
    assert set(found.seen.features) == {"prompt"}
    assert found.seen.stage == 0


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("log.csv", "", "no rows"),
        ("log.csv", "prompt,small,large\n", "no rows"),
        ("log.csv", "prompt,small\na,1\n", "no column 'large'"),
        ("log.csv", "prompt,small,large\na,1,1\nb,maybe,0\n", "line 3: small is 'maybe'"),
        ("log.csv", "prompt,small,large\na,1,nan\n", "line 2: large is 'nan'"),
        ("log.csv", "prompt,small,large\na,1\n", "line 2 has 2 values for 3 columns"),
        ("log.csv", 'prompt,small,large\n"a,1,1\n', "line 2"),
        ("log.jsonl", '{"prompt": "a", "small": 1, "large": 1}\n{"prompt": "b"', "line 2 is no JSON"),
        ("log.jsonl", "[1]\n", "line 1 is no object"),
        ("log.jsonl", '{"prompt": "a", "small": 1, "large": 1}\n{"prompt": "a", "small": 1}', "line 2: large is None"),
        ("log.jsonl", '{"prompt": null, "small": 1, "large": 1}', "line 1: prompt is None"),
        ("log.jsonl", '{"prompt": "a", "small": 1e999, "large": 1}', "line 1: small is inf"),
        ("log.parquet", "", "no kind"),
    ],
)
def test_bad_logs_are_told_with_their_line(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as told:
        queries.read(write(tmp_path / name, text))
    assert "\n" not in str(told.value)


def test_missing_and_damaged_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no"):
        queries.read(tmp_path / "none.csv")
    whole = gzip.compress(CSV.encode())
    (tmp_path / "cut.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="damaged"):
        queries.read(tmp_path / "cut.csv.gz")
    (tmp_path / "latin.csv").write_bytes(CSV.encode("latin-1"))
    with pytest.raises(DataError, match="no UTF-8"):
        queries.read(tmp_path / "latin.csv")


def test_prompts_come_as_objects_or_as_strings() -> None:
    lines = ['{"prompt": "a", "answer": "b"}\n', "\n", '"c"\n']
    assert list(queries.prompts(lines)) == [("a", "b"), ("c", None)]
    for bad, said in (("[]", "no object"), ("{", "no JSON"), ("{}", "prompt is None")):
        with pytest.raises(DataError, match=f"line 1.*{said}"):
            list(queries.prompts([bad]))


# ------------------------------------------------------------------------------------------------------- RouteLLM


def test_mmlu_leaves_contaminated_prompts_out(tmp_path: Path) -> None:
    (tmp_path / "responses").mkdir()
    write(tmp_path / "contaminated_prompts.jsonl", json.dumps({"eval_prompt": "seen", "train_prompt": "x"}) + "\n")
    head = f"prompt,{SMALL},{LARGE}\n"
    write(tmp_path / "responses" / "mmlu_law.csv.gz", head + "one,True,False\nseen,True,True\n")
    write(tmp_path / "responses" / "mmlu_art.csv", head + "two,False,True\n")
    found = queries.mmlu(tmp_path)
    assert sorted(zip(found.users, found.seen.features["prompt"], found.small, found.large, strict=True)) == [
        ("art", "two", 0.0, 1.0),
        ("law", "one", 1.0, 0.0),
    ]
    with pytest.raises(DataError, match="contaminated_prompts"):
        queries.mmlu(tmp_path / "responses")


def test_mt_bench_is_the_mean_of_the_turns_with_the_small_answer(tmp_path: Path) -> None:
    write(tmp_path / "contaminated_prompts.jsonl", json.dumps({"eval_prompt": "known"}) + "\n")
    asked = [
        {"question_id": 1, "category": "math", "turns": ["1+1?", "and 2?"]},
        {"question_id": 2, "category": "math", "turns": ["known", "x"]},
    ]
    write(tmp_path / "question.jsonl", "\n".join(map(json.dumps, asked)))
    judged = [
        {
            "question_id": question,
            "model": model,
            "turn": turn,
            "score": score + turn,
            "user_prompt": f"[The Start of Assistant's Answer]\n {model} says\n[The End of Assistant's Answer]",
        }
        for question in (1, 2)
        for model, score in ((SMALL, 3), (LARGE, 7))
        for turn in (1, 2)
    ]
    write(tmp_path / "judgements.jsonl", "\n".join(map(json.dumps, judged)))
    found = queries.mt_bench(tmp_path)
    assert found.small.tolist() == [np.mean([4, 5])]
    assert found.large.tolist() == [np.mean([8, 9])]
    assert found.seen.features["answer"].tolist() == [f"{SMALL} says"]
    assert found.users.tolist() == ["math"]
    write(tmp_path / "judgements.jsonl", "\n".join(map(json.dumps, judged[:2])))
    with pytest.raises(DataError, match="lacks"):
        queries.mt_bench(tmp_path)


def test_the_real_files_have_the_published_sizes(data_dir: Path) -> None:
    found = queries.mmlu(data_dir / "routellm" / "mmlu")
    assert len(found) == 7538 - 3  # as the README counts, less its three contaminated prompts
    assert len(queries.mt_bench(data_dir / "routellm" / "mt_bench")) == 72
