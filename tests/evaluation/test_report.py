import base64
import hashlib
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from duetto.errors import ConfigError, DataError
from duetto.evaluation import records, report, table, users
from duetto.evaluation.result import Curve, Point, Result, Target, Users, hashed
from duetto.evaluation.table import Interval, Row
from duetto.types import Cost, Record

VOID = {"meta", "link", "img", "br", "input", "base"}


class Page(HTMLParser):
    """Tags with their attributes, the text of each element by tag, and whether every element is closed."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: dict[str, list[str]] = {}
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self.text.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in set(self.open):
            self.text[tag][-1] += data


BEFORE, AFTER = np.array([0.6, 0.8, 0.9, 0.7]), np.array([0.9, 0.8, 0.85, 0.95])
PEOPLE = ["ann_4", "bob_4", "cy_4", "di_4"]
RESULT = Result(
    name="first",
    task="handwriting",
    seeds=(0, 1, 2),
    headline="The device asks 69 % less often.",
    rows=(
        Row("device only", {"accuracy": Interval(0.917, 0.9, 0.93), "offload_rate": 0.0, "p95_seconds": 0.005}),
        Row("cascade", {"accuracy": Interval(0.961, 0.95, 0.97), "offload_rate": 0.246, "p95_seconds": 0.4}),
        Row("teaching", {"calls": 3120.0, "break_even_inputs": math.inf}),
    ),
    curves=(
        Curve("before", (0.0, 0.246, 1.0), (0.917, 0.961, 0.964)),
        Curve("after", (0.0, 0.076, 1.0), (0.95, 0.961, 0.964)),
    ),
    points=(Point("cloud only", 1.0, 0.964),),
    target=Target("large − 0.3 points", 0.961),
    rounds=tuple({"round": i, "accuracy": 0.917 + 0.01 * i, "ask_share": 0.2 - 0.04 * i} for i in range(4)),
    users=Users(BEFORE, AFTER, [hashed(name) for name in PEOPLE]),
    notes=("The large model did not improve.",),
)
CONFIG = {"task": "handwriting", "seed": 0, "settings": {"alpha": 0.1, "steps": [1, 2]}, "versions": {"numpy": "2.4"}}


def folder(path, result=RESULT, config=CONFIG, log=None):
    path.mkdir()
    result.save(path / "result.json")
    (path / "config.json").write_text(json.dumps(config))
    if log is None:
        log = [
            Record("answer", i, {"correct": 1}, Cost(0.5, 1000, 10, 0.25, 0.001), user=name)
            for i, name in enumerate(PEOPLE)
        ]
        log.append(Record("rounds", 0, {}, Cost(2.0, 3_000_000), party="cloud"))
    records.write(path / "records.jsonl", log)
    return path


def written(tmp_path, *folders):
    html = report.write(folders, tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert page.open == []
    return html, page


def test_the_page_shows_the_figures_of_the_run(tmp_path):
    _, page = written(tmp_path, folder(tmp_path / "run"))
    (headline,) = page.text["h1"]
    assert headline == RESULT.headline
    assert "first" in page.text["title"][0]
    cells = [cell.strip() for cell in page.text["td"]]
    for shown in ("91.790.0–93.0", "96.195.0–97.0", "24.6", "400", "3,120", "never"):
        assert shown in cells
    svg = " ".join(page.text["svg"])
    for shown in ("24.6 %", "7.6 %", "cloud only", "large − 0.3 points", "round 3, accuracy: 94.7 %"):
        assert shown in svg
    assert f"user {hashed('ann_4')}: 60.0 % before, 90.0 % after" in svg
    body = page.text["body"][0]
    assert "2 of 4 users gain, 1 lose, 1 stay. Median 75.0 % before, 87.5 % after." in body
    assert "The large model did not improve." in body
    assert "numpy2.4" in body
    assert "settings.alpha0.1" in body
    spent = [line for line in page.text["tr"] if line.startswith(("answer", "rounds"))]
    assert spent == ["answer42.000.004000.00004001.000.00400", "rounds12.003.00000"]


def test_best_is_marked_and_values_can_be_sorted(tmp_path):
    html, page = written(tmp_path, folder(tmp_path / "run"))
    best = re.findall(r'<td class="best" data-v="([^"]+)">', html)
    assert sorted(map(float, best)) == [0.0, 0.005, 0.961]
    assert [float(attrs["data-v"]) for tag, attrs in page.tags if tag == "td" and "data-v" in attrs][-1] == math.inf
    assert len(page.text["button"]) == 3 + 2


def test_the_page_fetches_nothing_and_runs_only_its_own_script(tmp_path):
    html, page = written(tmp_path, folder(tmp_path / "run"))
    assert not re.search(r"https?://|@import|url\(", html)
    for tag, attrs in page.tags:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "form", "audio", "video", "image", "use"}
        assert not {"src", "href", "srcset", "xlink:href", "action", "data", "poster"} & set(attrs)
        assert not [name for name in attrs if name.startswith("on")]
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert [attrs.get("type") for tag, attrs in page.tags if tag == "script"] == ["application/json", None]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in page.text["script"]]
    assert re.findall(r"script-src ([^;]+)", policy) == [f"'sha256-{digests[1]}' 'sha256-{digests[0]}'"]
    assert "prefers-color-scheme: dark" in html
    assert any(attrs.get("name") == "viewport" for _, attrs in page.tags)


HOSTILE = "</title></script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&${body}$body"


def test_a_hostile_name_stays_a_name(tmp_path):
    hostile = Result(
        name=HOSTILE,
        task=HOSTILE,
        seeds=(0,),
        headline=HOSTILE,
        rows=(Row(HOSTILE, {"accuracy": 0.5, HOSTILE: 1.0, "p95_seconds": 1.0}), Row("x", {"accuracy": 0.4})),
        curves=(Curve(HOSTILE, (0.0, 1.0), (0.4, 0.5)), Curve("r", (0.0, 1.0), (0.4, 0.5), reference=True)),
        points=(Point(HOSTILE, 0.5, 0.45),),
        target=Target(HOSTILE, 0.45),
        rounds=({"round": 0, f"{HOSTILE} accuracy": 0.5, "accuracy": 0.4, HOSTILE: 2.0},),
        notes=(HOSTILE,),
    )
    log = [
        Record(HOSTILE, 0, {}, Cost(1.0), user=HOSTILE),
        Record("answer", 0, {"system": HOSTILE, "by": HOSTILE}, Cost(1.0), user=HOSTILE),
    ]
    run = folder(tmp_path / "run", hostile, {HOSTILE: HOSTILE, "versions": {HOSTILE: [HOSTILE]}}, log)
    for folders in ([run], [run, run]):
        _, page = written(tmp_path, *folders)
        tags = [tag for tag, _ in page.tags]
        assert tags.count("script") == 2
        (told,) = [json.loads(text) for text in page.text["script"] if text.startswith("{")]
        assert [stream["name"] for stream in told["runs"][0]["streams"]] == [HOSTILE.replace("_", " ")]
        assert told["users"] == [hashed(HOSTILE)]
        assert "img" not in tags
        assert HOSTILE in page.text["h1"][0]
        assert page.text["title"][0].startswith(HOSTILE)


def test_no_user_is_named(tmp_path):
    config = {
        "settings": {"watched": "ann_4", "per_user": {"bob_4": 3}, "list": ["cy_4", "kept"], "deep": [{"u": "di_4"}]}
    }
    html, page = written(tmp_path, folder(tmp_path / "run", config=config))
    for name in PEOPLE:
        assert name not in html
        assert hashed(name) in html
    assert f"{hashed('cy_4')}, kept" in page.text["td"]


def test_a_run_with_little_in_it_is_shown(tmp_path):
    run = folder(tmp_path / "run", Result("bare", "digits", (0,), "Nothing yet."), {}, [])
    _, page = written(tmp_path, run)
    assert page.text["h1"] == ["Nothing yet."]
    assert "svg" not in page.text
    assert "table" not in page.text


def test_one_run_or_several_go_through_write(tmp_path):
    run = folder(tmp_path / "run")
    one = report.write(run, tmp_path / "a.html").read_bytes()
    assert report.write([str(run)], tmp_path / "b.html").read_bytes() == one
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html", "run"]


def test_two_runs_stand_side_by_side_with_paired_differences(tmp_path):
    first = folder(tmp_path / "a")
    shift = AFTER + np.array([0.02, 0.04, 0.02, 0.04])
    people = Users(np.append(BEFORE, 0.5), np.append(shift, 0.1), [*RESULT.users.names_hashed, hashed("eve")])
    rows = (
        replace(RESULT.rows[1], values={"accuracy": Interval(0.941, 0.93, 0.95), "offload_rate": 0.2}),
        *RESULT.rows[2:],
    )
    other = replace(RESULT, name="second", rows=rows, users=people, rounds=())
    second = folder(tmp_path / "b", other, {**CONFIG, "settings": {"alpha": 0.3, "steps": [1, 2]}})
    out = report.compare([first, second], tmp_path / "report.html")
    html = out.read_text(encoding="utf-8")
    page = Page(html)
    body = page.text["body"][0]
    assert page.text["h1"] == ["first and second, side by side"]
    assert RESULT.headline in body
    by = [users.by(values, np.array(RESULT.users.names_hashed)) for values in (AFTER, shift)]
    low, high = users.paired(users.user_mean, *by, key=("report", "paired"))
    assert f"B − A: +3.0 points, 95 % interval +{100 * low:.1f} to +{100 * high:.1f}, paired over the 4 users" in body
    cells = [cell.strip() for cell in page.text["td"]]
    assert "94.193.0–95.0−2.0" in cells
    assert '20.0<small class="good">−4.6</small>' in html  # fewer inputs asked
    assert '<small class="bad">−2.0</small>' in html
    assert re.findall(r'<tr class="differs"><th scope="row">([^<]+)</th><td>0.1</td><td>0.3</td>', html) == [
        "settings.alpha"
    ]
    assert "Not measured." in body  # the second has no rounds


def test_runs_of_other_users_are_not_paired(tmp_path):
    people = Users(BEFORE, AFTER, [hashed(name, "other") for name in PEOPLE])
    runs = [folder(tmp_path / "a"), folder(tmp_path / "b", replace(RESULT, users=people))]
    html = report.compare(runs, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "no user in common" in html


def test_what_cannot_be_reported_is_named(tmp_path):
    run = folder(tmp_path / "run")
    with pytest.raises(ConfigError, match="no run"):
        report.write([], tmp_path / "report.html")
    with pytest.raises(ConfigError, match="fewer than two"):
        report.compare([run], tmp_path / "report.html")
    for name, message in (
        ("records.jsonl", "no records"),
        ("result.json", "no result"),
        ("config.json", "no settings"),
    ):
        kept = (run / name).read_bytes()
        (run / name).unlink()
        with pytest.raises(DataError, match=message):
            report.write(run, tmp_path / "report.html")
        (run / name).write_bytes(kept)
    for text, message in (("{", "is no JSON"), ("[1]", "no JSON object")):
        (run / "config.json").write_text(text)
        with pytest.raises(DataError, match=message):
            report.write(run, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_same_run_same_page(tmp_path):
    run = folder(tmp_path / "run")
    pages = {report.write(run, tmp_path / f"{i}.html").read_bytes() for i in range(2)}
    assert len(pages) == 1


def test_the_table_of_the_page_is_that_of_the_terminal(tmp_path):
    _, page = written(tmp_path, folder(tmp_path / "run"))
    for block in table.blocks(RESULT.rows):
        for column in table.shown(block):
            assert column.label in page.text["button"]
            for row in block:
                assert "".join(table.text(column, row.values.get(column.measure))) in page.text["td"]
