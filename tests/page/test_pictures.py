"""The pictures of docs/, each taken after what is in it was asserted. A new one: show it, assert it, `take` it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from camera import SHARP, take
from fleets import Fleet, enter, so, view
from fleets import until as waited
from pages import ONE, ZERO, Cloud, draw, enrol, free, text, until

from duetto.cloud.admin.console import FILES

pytestmark = pytest.mark.slow

Opens = Callable[..., Any]
WIDE, PHONE = {"width": 1100, "height": 800}, {"width": 390, "height": 844}


def duetto(*words: str, home: Path) -> str:
    """A command that ends."""
    done = subprocess.run(
        [sys.executable, "-m", "duetto", *words],
        cwd=home, env={**os.environ, "COLUMNS": "100"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


# ------------------------------------------------------------------------------------------------- a device in the page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_answers_here_and_asks_the_cloud(cloud: Cloud, opened: Opens, scheme: str) -> None:
    page = opened(cloud, color_scheme=scheme, viewport=WIDE, device_scale_factor=SHARP)
    page.get_by_label("Name of this device").fill("page-anna")
    enrol(page, cloud)
    draw(page, ZERO)
    until(page, "small-label", "0")
    until(page, "by", "by the small model, in this page")
    page.mouse.move(0, 0)
    if scheme == "light":
        take(page, "browser-here")
        return
    page.get_by_role("button", name="Clear").click()
    draw(page, ONE)
    until(page, "cloud-cost", r"\d+ ms, \d+ bytes up, \d+ bytes down")
    assert text(page, "by") == "by the large model, in the cloud"
    page.mouse.move(0, 0)
    page.evaluate("scrollTo(0, 0)")
    take(page, "browser-asked")


def test_the_page_on_a_phone_without_a_network(cloud: Cloud, opened: Opens) -> None:
    page = opened(cloud, viewport=PHONE, device_scale_factor=SHARP, has_touch=True)
    enrol(page, cloud)
    page.get_by_role("switch", name="Cut the network").click()
    page.wait_for_selector('#network[data-state="cut"]')
    draw(page, ONE)
    until(page, "by", "by the small model, in this page: the cloud cannot be reached")
    page.evaluate("document.getElementById('answer-title').scrollIntoView()")
    take(page, "browser-phone")


# ---------------------------------------------------------------------------------------------------------- the console


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, chromium: Any) -> Iterator[Fleet]:
    """A cloud with its console, and a crowd that asks it."""
    if not (FILES / "index.html").is_file():
        pytest.skip("the console is not built (make page)")
    made = Fleet(tmp_path_factory.mktemp("fleet"), (free(), free(), free()))
    made.serve()
    made.ask(40, 1.0)
    waited(lambda: "devices answer" in made.said("crowd"), made.said, "crowd", 300)
    yield made
    for name in ("crowd", "cloud"):
        made.stop(name)


def test_the_console(watched: Fleet, opened: Opens) -> None:
    token = watched.token("anna", "operator")
    for scheme in ("light", "dark"):
        page = opened(watched, color_scheme=scheme, viewport=WIDE, device_scale_factor=SHARP)
        enter(page, token)
        so(page, "document.getElementById('live').textContent.includes('40 online')", 120)
        if scheme == "light":
            so(page, "document.querySelectorAll('.tiles [data-name]').length > 3", 60)
            page.get_by_label("In the last").select_option("900")
            page.wait_for_timeout(60_000)  # so that there is something to see over time
            live(page)
            take(page, "console-overview")
        else:
            view(page, "Fleet")
            so(page, "document.querySelectorAll('tbody tr').length >= 20")
            live(page)
            take(page, "console-fleet")


def live(page: Any) -> None:
    """Assert that the page shows what is, not what was."""
    assert page.locator("#live").get_attribute("data-state") == "live"
    assert page.locator("#alert").is_hidden()


# ------------------------------------------------------------------------------------------------------ reports of runs


@pytest.mark.timeout(900)
def test_the_report_of_a_run_and_of_several(tmp_path: Path, chromium: Any) -> None:
    duetto("demo", home=tmp_path)
    short = ("simulate", "closed-loop", "--seeds", "0", "--rounds", "40")
    duetto(*short, "--name", "quick", home=tmp_path)
    duetto(*short, "--network", "constant-2", "--name", "slow", home=tmp_path)
    duetto("report", "quick", "slow", "--out", "both.html", home=tmp_path)
    for name, path, said in (
        ("report", tmp_path / "runs" / "demo" / "report.html", "asking"),
        ("comparison", tmp_path / "both.html", "slow"),
    ):
        asked: list[str] = []
        context = chromium.new_context(viewport=WIDE, device_scale_factor=SHARP)
        context.on("request", lambda request, asked=asked: asked.append(request.url))
        page = context.new_page()
        page.goto(path.as_uri())
        assert said in page.locator("body").inner_text()
        take(page, name)
        assert asked == [path.as_uri()], "a report is one file, and needs no network"
        context.close()


def test_the_maps_of_a_plan(tmp_path: Path, chromium: Any) -> None:
    words = ("plan", "speech", "--device", "low-end-phone", "--network", "wifi", "--codec", "int4+zstd")
    duetto(*words, "--codec", "int8+zstd", "--save", "phone", home=tmp_path)
    context = chromium.new_context(viewport=WIDE, device_scale_factor=SHARP)
    page = context.new_page()
    page.goto((tmp_path / "runs" / "phone" / "report.html").as_uri())
    maps = "section:has(h2:text-is('Where to cut'))"
    assert "no split gains" in page.locator(maps).inner_text()
    take(page, "maps", maps)
    context.close()


def test_the_plan_of_a_model(tmp_path: Path) -> None:
    """Drawn by the command itself, so it is no screenshot."""
    picture = Path(os.environ.get("DUETTO_PICTURES", tmp_path)).resolve() / "plan.svg"
    words = ("plan", "resnet18", "--device", "low-end-phone", "--network", "4g", "--svg", str(picture))
    said = duetto(*words, home=tmp_path)
    assert "do not split" in said
    assert picture.read_text(encoding="utf-8").startswith("<svg")
    assert picture.stat().st_size < 100_000
