"""Somebody runs a fleet: they see two hundred devices live, act with a reason, and are refused what is not theirs.

The devices are whole ones in a process of their own, over TLS; the cloud is another process, and so is the browser.
"""

import csv
import io
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fleets import Fleet, audited, enter, so, tile, told, until, view
from pages import free

from duetto.cloud.admin.console import FILES
from duetto.cloud.channels import offered
from duetto.cloud.observed import Observed
from duetto.cloud.quality import over_time
from duetto.cloud.site import Site
from duetto.protocols.deliver import RECORD, Entry

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (FILES / "index.html").is_file(), reason="the console is not built (make page)"),
]
Opens = Callable[..., Any]
DEVICES = 200
VIEWS = ("Overview", "By device", "Fleet", "Models", "Rounds", "Audit")


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory, chromium: Any) -> Iterator[Fleet]:
    """A cloud with two hundred devices that go on to answer."""
    made = Fleet(tmp_path_factory.mktemp("fleet"), (free(), free(), free()))
    made.serve()
    made.ask(DEVICES, 5.0)
    until(lambda: len(told(made, _counts)) == DEVICES, made.said, "crowd", 300)
    made.operator, made.viewer = made.token("anna", "operator"), made.token("vera", "viewer")
    yield made
    for name in ("crowd", "cloud"):
        made.stop(name)


def _counts(site: Site) -> Any:
    return site.feedback.counts()


@pytest.fixture
def quiet(tmp_path: Path) -> Iterator[Fleet]:
    """A cloud of one's own, to which nobody has come."""
    made = Fleet(tmp_path, (free(), free(), free()))
    made.serve()
    yield made
    made.stop("cloud", signal.SIGKILL)


def opened_by(opened: Opens, fleet: Fleet, token: str, **given: Any) -> Any:
    page = opened(fleet, **given)
    enter(page, token)
    return page


# ------------------------------------------------------------------------------------------------------------- seeing


def test_two_hundred_devices_are_seen_live_and_the_page_stays_quick(crowded: Fleet, opened: Opens) -> None:
    page = opened(crowded)
    loaded = page.evaluate(
        "performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation'))"
        ".reduce((sum, each) => sum + each.transferSize, 0)"
    )
    assert 20_000 < loaded < 1_000_000
    page.evaluate("""() => {
        window.slowest = 0;
        new PerformanceObserver((list) => list.getEntries().forEach((each) => {
            if (each.interactionId) window.slowest = Math.max(window.slowest, each.duration);
        })).observe({ type: "event", durationThreshold: 16, buffered: true });
    }""")
    enter(page, crowded.operator)
    so(page, f"document.getElementById('live').textContent.includes('{DEVICES} online')", 120)
    before = tile(page, "Answers")
    until(lambda: tile(page, "Answers") != before, crowded.said, "crowd")

    # every view, a filter and a page of the table: from the press to what is painted next
    for name in VIEWS:
        view(page, name)
    view(page, "Fleet")
    page.get_by_label("State").select_option("online")
    page.get_by_label("Names begin with").fill("phone-1")
    so(page, "document.querySelectorAll('tbody tr').length === 100")
    page.get_by_role("link", name="phone-103").click()
    page.wait_for_selector("#view[data-ready='device phone-103']")
    time.sleep(0.5)
    slowest = page.evaluate("window.slowest")
    print(f"slowest interaction {slowest:.0f} ms, first load {loaded:,} bytes")
    assert slowest < 100  # what the issue promises


def test_the_figures_are_those_that_devices_told(crowded: Fleet, opened: Opens) -> None:
    page = opened_by(opened, crowded, crowded.viewer)
    page.get_by_label("In the last").select_option("86400")
    crowded.stop("crowd")
    time.sleep(3)  # whatever was on its way has come, and the page has looked again

    def expected(site: Site) -> Any:
        return over_time(Observed(site.feedback).told(), time.time() - 86400, 86400, 1)

    found = told(crowded, expected)
    assert found.answers[0] > DEVICES
    assert found.agreed.all[0] > 0.3, "both models are trained: of the harder inputs they agree on more than chance"
    so(page, f"document.querySelector('.tiles').textContent.includes('{found.answers[0]:,}')")
    for name, share in (("Asked", found.asked), ("Agreement", found.agreed), ("Right", found.right)):
        assert tile(page, name) == f"{100 * share.all[0]:.1f} %"

    with page.expect_download() as download:
        page.get_by_role("link", name="Export as CSV").click()
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(), newline="")))
    assert sum(int(row["answers"]) for row in rows) == found.answers[0]
    crowded.ask(DEVICES, 5.0)
    so(page, f"document.getElementById('live').textContent.includes('{DEVICES} online')", 120)


def test_filters_stand_in_the_url(crowded: Fleet, opened: Opens) -> None:
    page = opened_by(opened, crowded, crowded.viewer)
    view(page, "Fleet")
    page.get_by_label("Names begin with").fill("phone-01")
    page.get_by_label("State").select_option("admitted")
    so(page, "document.querySelectorAll('tbody tr').length === 10")
    url = page.url
    assert {"view=fleet", "state=admitted", "prefix=phone-01"} <= set(url.split("?")[1].split("&"))
    page.reload()
    so(page, "document.querySelectorAll('tbody tr').length === 10")
    assert page.get_by_label("Names begin with").input_value() == "phone-01"
    view(page, "Audit")
    page.go_back()
    so(page, "document.querySelectorAll('tbody tr').length === 10")
    assert page.url == url

    page.goto(f"{crowded.url}/?view=people&by=answers&falling=true")
    page.wait_for_selector("#view[data-ready='people']")
    answers = [int(each.replace(",", "")) for each in page.locator("tbody td:nth-child(2)").all_inner_texts()]
    assert answers == sorted(answers, reverse=True)
    assert len(answers) == DEVICES


# ------------------------------------------------------------------------------------------------------------- acting


def confirmed(page: Any, verb: str, why: str = "") -> None:
    dialog = page.get_by_role("dialog")
    if why:
        dialog.get_by_label("Why").fill(why)
    dialog.get_by_role("button", name=verb, exact=True).click()


def test_every_action_is_carried_out_with_a_reason_and_told(crowded: Fleet, opened: Opens) -> None:
    def versions(site: Site) -> None:
        small = site.registry.blobs.put((crowded.home / "crowd" / "small.onnx").read_bytes())
        for _ in range(3):
            site.registry.add("small", {"device": small}, by="test")
        for channel in ("stable", "canary"):
            site.registry.promote("small", 1, channel, by="test", why="first")
        offered(site, "small", 0.2)

    told(crowded, versions)
    page = opened_by(opened, crowded, crowded.operator)
    view(page, "Models")
    stable = page.locator("tr", has=page.locator("th", has_text="stable")).first

    # promote: signed, offered, and on the devices by themselves
    stable.get_by_role("button", name="Promote").click()
    page.get_by_role("dialog").get_by_label("Version").select_option("3")
    confirmed(page, "Promote", "better for all")
    so(page, "document.querySelector('#view [role=status]').textContent.includes('is at version 3')")
    assert "offered as release" in page.locator("#view [role=status]").inner_text()
    release = told(crowded, lambda site: {each.channel: each.version for each in site.releases.releases()})["stable"]
    view(page, "Fleet")
    page.wait_for_selector(f".chip:has-text('{release}: ')", timeout=120_000)

    # roll back: the version before, under a higher number
    view(page, "Models")
    stable.get_by_role("button", name="Roll back").click()
    confirmed(page, "Roll back", "complaints")
    so(page, "document.querySelector('#view [role=status]').textContent.includes('is at version 1')")

    # pause, and go on
    stable.get_by_role("button", name="Pause").click()
    confirmed(page, "Pause", "exams")
    page.wait_for_selector("text=paused: exams")
    stable.get_by_role("button", name="Promote").click()
    confirmed(page, "Promote", "now")
    page.wait_for_selector("dialog [role=alert]:has-text('Not done: ')")  # a pause holds for people, too
    page.get_by_role("button", name="Cancel").click()
    stable.get_by_role("button", name="Let go on").click()
    confirmed(page, "Let go on", "over")
    page.wait_for_selector("text=paused: exams", state="detached")

    # revoke: it is gone from the fleet by itself, and does not come back
    view(page, "Fleet")
    page.get_by_label("Names begin with").fill("phone-007")
    page.get_by_role("button", name="Revoke phone-007").click()
    confirmed(page, "Revoke", "stolen")
    page.wait_for_selector("text=revoked: stolen")
    so(page, f"document.getElementById('live').textContent.includes('{DEVICES - 1} online')")

    # forget what a device told
    page.goto(f"{crowded.url}/?view=device&name=phone-007")
    page.get_by_role("button", name="Forget what it told").click()
    confirmed(page, "Forget", "asked to")
    page.wait_for_selector("text=Nothing yet: its user may let nothing leave")
    assert "phone-007" not in told(crowded, _counts)

    # let one in: the token opens the door once
    view(page, "Fleet")
    page.get_by_role("button", name="Let a device in").click()
    page.get_by_role("dialog").get_by_label("Name").fill("tablet-1")
    confirmed(page, "Make a token")
    line = page.get_by_role("dialog").locator("pre").inner_text()
    assert line.startswith("duetto device enrol --cloud HOST:8444 --name tablet-1 ")
    page.get_by_role("button", name="Done").click()

    # nothing is done where somebody thinks again
    page.get_by_label("Names begin with").fill("phone-008")
    page.get_by_role("button", name="Revoke phone-008").click()
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")
    assert page.evaluate("document.activeElement.dataset.key") == "revoke phone-008", "the focus is where it was"

    said = [(who, action) for who, action, _ in audited(crowded)][::-1]
    assert said == [
        ("anna", action)
        for action in ("promote", "roll back", "pause", "promote", "refused", "go on", "revoke", "forget", "enroll")
    ]
    assert any('"better for all"' in about for _, _, about in audited(crowded))
    view(page, "Audit")
    page.get_by_label("Did").fill("refused")
    so(page, "document.querySelectorAll('tbody tr').length === 1")
    page.get_by_role("button", name="Check the chain").click()
    page.wait_for_selector("text=9 lines, each as it was written")


def test_who_may_only_look_is_refused_and_a_token_that_is_taken_back_is_out(crowded: Fleet, opened: Opens) -> None:
    before = audited(crowded)
    token = crowded.token("vito", "viewer")
    page = opened_by(opened, crowded, token)
    assert "a viewer: you look, and cannot act" in page.locator("#who").inner_text()
    view(page, "Fleet")
    page.get_by_label("Names begin with").fill("phone-009")
    page.get_by_role("button", name="Revoke phone-009").click()
    confirmed(page, "Revoke", "because")
    page.wait_for_selector("dialog [role=alert]:has-text('Not done: vito is a viewer')")
    page.get_by_role("button", name="Cancel").click()
    if page.get_by_role("link", name="Models").count():
        view(page, "Models")
        for verb in ("Promote", "Pause"):
            page.get_by_role("button", name=f"{verb}: stable of small").click()
            confirmed(page, verb, "because")
            page.wait_for_selector("dialog [role=alert]:has-text('Not done: vito is a viewer')")
            page.get_by_role("button", name="Cancel").click()
    assert audited(crowded) == before, "nothing was begun"

    told(crowded, lambda site: site.operators.revoke("vito"))
    page.wait_for_selector("#login:not([hidden])")
    assert "holds no longer" in page.locator("#alert").inner_text()

    page.get_by_label("Token").fill("duetto_wrong")
    page.get_by_role("button", name="Log in").click()
    page.wait_for_selector("#alert:has-text('Not let in: ')")


# ------------------------------------------------------------------------------------------------- nobody, and nothing


def test_an_empty_cloud_explains_itself(quiet: Fleet, opened: Opens) -> None:
    page = opened_by(opened, quiet, quiet.token("anna", "operator"))
    assert "Nothing is wrong" in page.locator("#view").inner_text()
    for name, words in (
        ("Overview", "No device has told of an answer in this time"),
        ("By device", "No device has told of an answer in this time"),
        ("Fleet", "No device has come yet"),
        ("Models", "There are no versions yet"),
        ("Rounds", "No version has come of rounds yet"),
        ("Audit", "Nobody has done anything yet"),
    ):
        view(page, name)
        assert words in page.locator("#view").inner_text()
    page.get_by_label("Who").fill("nobody")
    page.wait_for_selector("text=No line is like that")
    page.goto(f"{quiet.url}/?view=device&name=ghost")
    page.wait_for_selector("text=No key of this name was ever enrolled")


def test_a_cloud_that_goes_is_told_and_one_that_comes_back_is_seen_by_itself(quiet: Fleet, opened: Opens) -> None:
    page = opened_by(opened, quiet, quiet.token("anna", "operator"))
    page.wait_for_selector("#live[data-state='live']")
    quiet.stop("cloud", signal.SIGKILL)
    page.wait_for_selector("#live[data-state='gone']")
    assert "what is shown is from before" in page.locator("#live").inner_text()
    view(page, "Fleet")
    page.wait_for_selector("#alert:has-text('the cloud cannot be reached')")
    quiet.serve()
    page.wait_for_selector("#live[data-state='live']", timeout=60_000)
    page.wait_for_selector("#alert", state="hidden")
    assert "No device has come yet" in page.locator("#view").inner_text()


def test_a_hostile_name_stays_a_name(quiet: Fleet, opened: Opens) -> None:
    name = "<img src=x onerror=alert(1)>"
    body = b'{"by": "cloud", "asked": true, "label": 1, "own": 1, "base": 1, "model": 1}'
    told(quiet, lambda site: site.feedback.keep(name, b"n" * 16, [Entry(i, RECORD, body) for i in range(1, 9)]))
    page = opened_by(opened, quiet, quiet.token("anna", "operator"))
    page.on("dialog", lambda dialog: pytest.fail("a script ran"))
    view(page, "By device")
    page.get_by_role("link", name=name).click()
    page.wait_for_selector("text=8 of kind record")
    assert page.locator("#view h1").inner_text() == name
    assert page.locator("#view img").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_kept_out(crowded: Fleet, opened: Opens, axe: str, scheme: Any) -> None:
    page = opened(crowded, color_scheme=scheme)

    def serious() -> list[str]:
        page.evaluate(axe)
        found = page.evaluate("axe.run()")
        return [
            f"{each['id']}: {each['nodes'][0]['html']}"
            for each in found["violations"]
            if each["impact"] in {"serious", "critical"}
        ]

    page.wait_for_selector("#login:not([hidden])")
    assert serious() == []
    enter(page, crowded.operator)
    for name in VIEWS:
        view(page, name)
        assert serious() == [], name
    page.goto(f"{crowded.url}/?view=device&name=phone-003")
    page.wait_for_selector("#view[data-ready='device phone-003']")
    assert serious() == []
    view(page, "Overview")
    page.locator("summary").first.click()
    view(page, "Fleet")
    page.get_by_role("button", name="Let a device in").click()
    assert serious() == []

    # by keyboard alone: the dialog holds the focus, and gives it back
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.textContent") == "Let a device in"


def test_on_a_phone_nothing_is_wider_than_the_screen(crowded: Fleet, opened: Opens) -> None:
    page = opened_by(opened, crowded, crowded.operator, viewport={"width": 390, "height": 800})
    for name in VIEWS:
        view(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
