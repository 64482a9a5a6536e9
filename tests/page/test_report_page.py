"""A person opens the report of a run from disk, chooses a user, and reads what that user got; nothing is fetched."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duetto.evaluation import people, records, report, table
from duetto.evaluation.result import Curve, Map, Point, Result, Target, Users, hashed
from duetto.types import Cost, Record

pytestmark = pytest.mark.slow

NAMES = [f"phone-{i:02}" for i in range(24)]
Opens = Callable[..., Any]


def log(seed: int, names: list[str]) -> list[Record]:
    """Three days of answers, and a night's learning, of users who differ."""
    draw = np.random.default_rng(seed)
    found = []
    for i, user in enumerate(names):
        for step in range(30):
            asked, own = int(draw.random() < 0.1 + 0.02 * i), int(draw.integers(3))
            told: dict[str, float | str] = {
                "asked": asked,
                "own": own,
                "label": own if draw.random() < 0.6 else 2,
                "by": "cloud" if asked else user,
            }
            told["correct"] = int(draw.random() < 0.6 + 0.015 * i)
            cost = Cost(
                float(0.004 + asked * draw.exponential(0.2)),
                asked * 1800,
                asked * 90,
                float(draw.random()),
                1e-6 * asked,
            )
            found.append(Record("answer", step, told, cost, float(draw.random() * 3 * 86_400), user, user))
        found.append(Record("teach", 0, {"calls": 4}, Cost(0.3, 900, 70, 12.0, 1e-6), 86_400.0, user, user))
    scored = [
        record.measuring(system="cascade", stage=stage, asked=record.metrics["asked"])
        for stage in ("before", "after")
        for record in found
        if record.protocol == "answer"
    ]
    return found + scored


def folder(place: Path, seed: int, names: list[str]) -> Path:
    """The folder of a run with all that a report shows."""
    draw = np.random.default_rng(seed)
    place.mkdir()
    before = draw.uniform(0.6, 0.9, len(names))
    rows = (
        table.Row("device only", {"accuracy": table.Interval(0.8, 0.78, 0.82), "p95_seconds": 0.004, "joules": 1.0}),
        table.Row("cascade", {"accuracy": table.Interval(0.9, 0.88, 0.92), "p95_seconds": 0.3, "joules": 30.0}),
    )
    Result(
        place.name,
        "digits",
        (seed,),
        "The device asks less often.",
        rows,
        (Curve("before", (0.0, 0.5, 1.0), (0.8, 0.9, 0.92)), Curve("after", (0.0, 0.5, 1.0), (0.85, 0.91, 0.92))),
        (Point("cloud only", 1.0, 0.92),),
        Target("large", 0.9),
        tuple({"round": i, "accuracy": 0.8 + 0.02 * i, "ask_share": 0.3 - 0.05 * i} for i in range(4)),
        Users(before.tolist(), (before + 0.05).tolist(), [hashed(name) for name in names]),
        ("The large model did not improve.",),
        (
            Map(
                "a net on a phone",
                "s",
                (1.0, 10.0, 100.0),
                (0.01, 0.1),
                ("device", "cut 3"),
                ("device", "split"),
                ((0, 1, 1), (0, 0, 1)),
                ((0.0, 0.02, 0.3), (0.0, 0.0, 0.01)),
                (20.0, 0.05),
            ),
        ),
    ).save(place / "result.json")
    (place / "config.json").write_text(json.dumps({"task": "digits", "seed": seed, "versions": {"numpy": "2"}}))
    records.write(place / "records.jsonl", log(seed, names))
    return place


@pytest.fixture
def pages(tmp_path: Path) -> tuple[Path, Path]:
    """The page of a run, and that of three, of which the last has other users too."""
    runs = [folder(tmp_path / name, i, NAMES) for i, name in enumerate(("quick", "slow"))]
    runs.append(folder(tmp_path / "others", 2, [*NAMES[:4], "someone", "else"]))
    return report.write(runs[0], tmp_path / "one.html"), report.write(runs, tmp_path / "three.html")


@pytest.fixture
def opened(chromium: Any) -> Iterator[Opens]:
    """Opens a file; in the end it has asked for nothing else, and its script had no fault."""
    contexts, asked, faults = [], [], []

    def open_page(path: Path, fragment: str = "", **given: Any) -> Any:
        context = chromium.new_context(**given)
        contexts.append(context)
        context.set_default_timeout(20_000)
        context.on("request", lambda request: asked.append((path.as_uri(), request.url)))
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text))
        page.goto(path.as_uri() + fragment)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert asked
    for own, url in asked:
        assert url.partition("#")[0] == own, f"a request left the file: {url}"
    assert not faults


def shown(page: Any, measure: str, run: str = "A") -> list[str]:
    """What the page says of a measure: this user's, and the 10, 50 and 90 % of all."""
    cells = page.locator(f'#got tr[data-measure="{measure}"][data-run="{run}"] td').all_inner_texts()
    return [cells[0], *cells[2:5]]


def expected(answers: list[Record]) -> dict[str, float]:
    """The measures of a user's answers, as the page's numbers."""
    seconds = [record.cost.seconds for record in answers]
    heard = [r.metrics["own"] == r.metrics["label"] for r in answers if r.metrics["by"] == "cloud"]
    return {
        "accuracy": 100 * float(np.mean([record.metrics["correct"] for record in answers])),
        "offload_rate": 100 * float(np.mean([record.metrics["asked"] for record in answers])),
        "agreement": 100 * float(np.mean(heard)) if heard else np.nan,
        "p50_seconds": 1000 * float(np.percentile(seconds, 50)),
        "p95_seconds": 1000 * float(np.percentile(seconds, 95)),
        "bytes": float(np.mean([r.cost.up_bytes + r.cost.down_bytes for r in answers])) / 1000,
        "joules": 1000 * float(np.mean([record.cost.joules for record in answers])),
        "dollars": 1e6 * float(np.mean([record.cost.dollars for record in answers])),
        "answers": float(len(answers)),
    }


def test_a_user_is_chosen_and_the_numbers_are_those_of_the_records(pages: tuple[Path, Path], opened: Opens) -> None:
    page = opened(pages[0])
    answers = [r for r in records.read(pages[0].parent / "quick" / "records.jsonl") if r.protocol == "answer"]
    life = [r for r in answers if "system" not in r.metrics]
    per_user = {name: expected([r for r in life if r.user == name]) for name in NAMES}
    columns = {column.measure: column for column in people.MEASURES}
    for name in ("phone-03", "phone-20"):
        page.get_by_role("searchbox", name="Find a user").fill(hashed(name)[:6])
        assert page.locator("#found").inner_text() == "1 of 24 users"
        page.get_by_role("link", name=hashed(name)).click()
        assert page.url.endswith(f"#user={hashed(name)}")
        assert page.get_by_role("heading", name=f"User {hashed(name)}").is_visible()
        for measure in per_user[name]:
            all_users = np.array([each[measure] for each in per_user.values()])
            numbers = [per_user[name][measure], *np.quantile(all_users[~np.isnan(all_users)], (0.1, 0.5, 0.9))]
            found = [float(each.replace(",", "")) for each in shown(page, measure)]
            digits = columns[measure].digits
            for here, there in zip(found, numbers, strict=True):
                assert here == pytest.approx(
                    there, **({"rel": 5.1e-3} if digits is None else {"abs": 0.51 * 10**-digits})
                )
    # its life over three days, as a picture and as numbers
    mine = [r for r in life if r.user == "phone-20"]
    assert page.locator("#over svg").count() == 1
    page.get_by_label("Over time", exact=True).select_option("answers")
    page.get_by_text("As numbers").click()
    rows = page.locator("#over tbody tr").all_inner_texts()
    counts = [int(row.split("\t")[1]) for row in rows]
    assert counts == np.histogram([r.time for r in mine], np.arange(4) * 86_400)[0].tolist()
    # the same user as it was scored, and what stood beside its answers
    page.get_by_label("Its answers", exact=True).select_option("cascade, before learning")
    assert shown(page, "answers")[0] == "30"
    assert "1 record of learning and upkeep: 0.970 kB, 12.0 J" in page.locator("#facts").inner_text()
    assert "before learning" in page.locator("#facts").inner_text()


def test_a_link_names_the_user_and_back_goes_back(pages: tuple[Path, Path], opened: Opens) -> None:
    page = opened(pages[0], f"#user={hashed('phone-11')}")
    heading = page.locator("#who")
    assert heading.inner_text() == f"User {hashed('phone-11')}"
    page.locator(f'a[href="#user={hashed("phone-02")}"]').click()
    assert heading.inner_text() == f"User {hashed('phone-02')}"
    page.go_back()
    page.wait_for_function(f"document.getElementById('who').textContent.endsWith('{hashed('phone-11')}')")
    page.evaluate("location.hash = '#user=%3Cimg src=x%3E'")
    page.wait_for_selector("#gone:not([hidden])")
    assert page.locator("#gone").inner_text() == "The user <img src=x> is not among those shown here."
    assert page.locator("img").count() == 0


def test_a_keyboard_is_enough(pages: tuple[Path, Path], opened: Opens) -> None:
    page = opened(pages[0])
    page.get_by_role("searchbox", name="Find a user").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("End")
    chosen = page.evaluate("document.activeElement.textContent")
    assert chosen == page.locator("#users tbody a").last.inner_text()
    page.keyboard.press("Enter")
    page.wait_for_selector(f"#who:text-is('User {chosen}')")  # an address that changes is told a moment later
    assert page.locator("#users [aria-current]").all_inner_texts() == [chosen]
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "stream"
    # the list can be sorted, from the keyboard too
    page.locator("#users th button").nth(1).focus()
    page.keyboard.press("Enter")
    asked = [float(each) for each in page.locator("#users tbody td:nth-child(3)").all_inner_texts()]
    assert asked == sorted(asked, reverse=True)


def test_several_runs_show_the_same_user(pages: tuple[Path, Path], opened: Opens) -> None:
    page = opened(pages[1], f"#user={hashed('phone-01')}")
    for i, name in enumerate(("quick", "slow", "others")):
        answers = [r for r in records.read(pages[1].parent / name / "records.jsonl") if r.protocol == "answer"]
        mine = expected([r for r in answers if r.user == "phone-01" and "system" not in r.metrics])
        assert float(shown(page, "accuracy", "ABC"[i])[0]) == pytest.approx(mine["accuracy"], abs=0.051)
    assert page.locator("#over svg").count() == 3
    page.evaluate(f"location.hash = '#user={hashed('someone')}'")
    page.wait_for_function(f"document.getElementById('who').textContent.endsWith('{hashed('someone')}')")
    assert page.locator('#got tr[data-run="A"]').count() == 0
    assert page.locator("#facts").inner_text().count("Not in this run.") == 2
    assert re.search(r"\d", shown(page, "accuracy", "C")[0])


@pytest.mark.parametrize(("width", "scheme"), [(400, "light"), (1280, "dark")])
def test_it_is_accessible(pages: tuple[Path, Path], opened: Opens, scheme: str, width: int, axe: str) -> None:
    for path in pages:
        page = opened(path, color_scheme=scheme, viewport={"width": width, "height": 800})
        for summary in page.locator("summary").all():
            summary.click()
        page.evaluate(axe)
        found = page.evaluate("axe.run()")["violations"]
        assert not [(each["id"], [node["html"] for node in each["nodes"]]) for each in found]
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
