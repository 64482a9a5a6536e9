"""A person opens the page: it answers at once, asks when it should, says what that cost, and goes on without a cloud.

Whatever these tests do, no request leaves the cloud's origin: the fixture that opens a page asserts it.
"""

import json
import re
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pages import ONE, SCRIBBLE, ZERO, Cloud, draw, enrol, publish, ready, text, until
from tuf.api.metadata import MetaFile

from duetto import tree as trees
from duetto.cloud.browser import FILES

pytestmark = pytest.mark.slow

Opens = Callable[..., Any]


def test_a_digit_is_answered_at_once_and_a_hard_one_reaches_the_cloud(cloud: Cloud, opened: Opens) -> None:
    page = opened(cloud)
    enrol(page, cloud)

    # sure enough: answered here, for nothing
    draw(page, ZERO)
    until(page, "small-label", "0")
    assert "Answer here: confidence" in text(page, "decision")
    assert "reaches the threshold" in text(page, "decision")
    assert "0 bytes" in text(page, "small-cost")
    assert float(page.locator("#small-label").get_attribute("data-ms")) < 50  # what the issue promises
    assert text(page, "by") == "by the small model, in this page"

    # not sure: the cloud answers, and what that cost is shown
    page.get_by_role("button", name="Clear").click()
    assert text(page, "answer") == "–"
    draw(page, ONE)
    until(page, "decision", "Ask the cloud: confidence .* is below the threshold")
    until(page, "cloud-cost", r"\d+ ms, \d+ bytes up, \d+ bytes down")
    assert text(page, "answer") == text(page, "cloud-label")
    assert text(page, "by") == "by the large model, in the cloud"
    up, down = (int(each) for each in re.findall(r"(\d+) bytes", text(page, "cloud-cost")))
    assert text(page, "totals") == f"2 answers, 1 asked (50.0 %), {up + down} bytes over the network"

    # a call that costs more than it can bring is not made
    page.get_by_label("What a call may cost").fill("1")
    until(
        page, "decision", "Answer here: .* is below the threshold .*, but asking can bring .* at most, and costs 1.000"
    )
    assert text(page, "by") == "by the small model, in this page"


def test_the_certificate_is_the_devices_and_a_revoked_page_is_let_go_of(cloud: Cloud, opened: Opens) -> None:
    page = opened(cloud)
    page.get_by_label("Name of this device").fill("page-anna")
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Enrol").click()
    until(page, "alert", "Not enrolled: an unknown token")
    enrol(page, cloud)
    assert [line["name"] for line in cloud.devices()] == ["page-anna"]
    cloud.run("cloud", "revoke", "page-anna", "--state", str(cloud.home / "cloud"))
    page.wait_for_selector('#network[data-state="refused"]')
    draw(page, ZERO)
    until(page, "small-label", "0")  # what is here goes on answering


def test_without_its_cloud_it_answers_within_the_deadline_and_comes_back(cloud: Cloud, opened: Opens) -> None:
    page = opened(cloud)
    enrol(page, cloud)

    # the user cuts the network
    cut = page.get_by_role("switch", name="Cut the network")
    cut.click()
    page.wait_for_selector('#network[data-state="cut"]')
    draw(page, ONE)
    until(page, "by", "by the small model, in this page: the cloud cannot be reached")
    cut.click()
    page.wait_for_selector('#network[data-state="here"]')
    page.get_by_role("button", name="Clear").click()
    draw(page, ONE)
    until(page, "by", "by the large model")

    # a cloud that hangs: an answer within the deadline
    cloud.send(signal.SIGSTOP)
    page.get_by_role("button", name="Clear").click()
    begin = time.monotonic()
    draw(page, ONE)
    until(page, "answer", r"\d")
    until(page, "by", "by the small model, in this page: no answer within 2 s")
    assert time.monotonic() - begin < 10  # two seconds, and what a busy machine adds
    cloud.send(signal.SIGCONT)

    # a cloud that is killed, and comes back: so does the page, by itself
    cloud.kill()
    page.wait_for_selector('#network[data-state="gone"]')
    page.get_by_role("button", name="Clear").click()
    draw(page, ONE)
    until(page, "by", "by the small model, in this page: the cloud cannot be reached")
    cloud.start()
    page.wait_for_selector('#network[data-state="here"]')
    page.get_by_role("button", name="Clear").click()
    draw(page, ONE)
    until(page, "by", "by the large model")


def test_corrections_make_it_the_users_own_and_a_reload_keeps_that(cloud: Cloud, opened: Opens) -> None:
    page = opened(cloud)
    enrol(page, cloud)
    page.get_by_label("What a call may cost").fill("1")  # only the user teaches
    for count in range(1, 8):
        page.get_by_role("button", name="Clear").click()
        draw(page, SCRIBBLE)
        until(page, "small-label", r"\d")
        page.get_by_role("button", name="It was 5").click()
        page.wait_for_selector(f'#personal[data-count="{count}"]')
    told = text(page, "personal")
    right = re.search(r"7 corrections of yours.* the model alone (\d) .* by then (\d) ", told)
    assert right is not None, told
    assert int(right[1]) == 0 < int(right[2]) <= 4  # nothing is fitted before three lessons
    page.get_by_role("button", name="Clear").click()
    draw(page, SCRIBBLE)
    until(page, "small-label", "5")

    page.reload()
    ready(page)
    assert text(page, "personal") == told
    draw(page, SCRIBBLE)
    until(page, "small-label", "5")
    page.get_by_role("button", name="Forget").click()
    until(page, "personal", "Nothing yet")
    until(page, "small-label", "[0-46-9]")


def test_a_new_model_arrives_and_a_tampered_one_is_refused(cloud: Cloud, opened: Opens) -> None:
    page = opened(cloud)
    enrol(page, cloud)
    page.locator("summary").click()
    until(page, "model", "version 1, ")

    # a newer one, while the page is open
    publish(cloud, 2)
    page.get_by_role("button", name="Look for a newer model").click()
    until(page, "model", "version 2, ")

    # its list was changed after it was signed
    publish(cloud, 3)
    changed = cloud.home / "cloud" / "releases" / "metadata" / "4.stable.json"
    good = changed.read_bytes()
    changed.write_bytes(good.replace(b'"version": 3', b'"version": 9'))
    page.get_by_role("button", name="Look for a newer model").click()
    until(page, "alert", "A model was refused: the list of stable .* Version 2 goes on")
    draw(page, ZERO)
    until(page, "small-label", "0")
    page.reload()  # the last good one is kept, over a reload too
    ready(page)
    until(page, "model", "version 2, ")
    changed.write_bytes(good)
    page.locator("summary").click()
    page.get_by_role("button", name="Look for a newer model").click()
    until(page, "model", "version 3, ")
    assert page.locator("#alert").is_hidden()

    # the model itself was changed: a page that has none yet says so, and runs nothing
    [blob] = (cloud.home / "cloud" / "releases" / "blobs").iterdir()
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    other = opened(cloud)
    other.get_by_label("Token").fill(cloud.token())
    other.get_by_role("button", name="Enrol").click()
    until(
        other, "alert", "A model was refused: the model is not the one that was signed .* none here that could answer"
    )
    assert other.locator("#pad").get_attribute("data-ready") is None


def test_who_has_the_servers_keys_alone_publishes_nothing(cloud: Cloud, opened: Opens) -> None:
    page = opened(cloud)
    enrol(page, cloud)
    releases = cloud.site.releases
    root, snapshot, timestamp = releases._state()
    listed = snapshot.meta["stable.json"].version
    path = releases.folder / "metadata" / f"{listed}.stable.json"
    forged = json.loads(path.read_bytes())
    forged["signed"]["targets"]["stable/small"]["custom"]["version"] = 9
    data = json.dumps(forged).encode()
    path.write_bytes(data)
    snapshot.meta["stable.json"] = MetaFile.from_data(listed, data, ["sha256"])
    snapshot.version += 1
    timestamp.version += 1
    releases._online(root, snapshot, timestamp, None)  # signed by those that are online, and not by the channel's
    page.locator("summary").click()
    page.get_by_role("button", name="Look for a newer model").click()
    until(page, "alert", "A model was refused: the list of stable is not signed by who may. Version 1 goes on")


def test_of_two_tabs_one_talks_and_the_other_takes_over(cloud: Cloud, opened: Opens) -> None:
    page = opened(cloud)
    enrol(page, cloud)
    other = page.context.new_page()
    other.goto(cloud.url)
    other.wait_for_selector('#network[data-state="elsewhere"]')
    draw(other, ZERO)
    until(other, "small-label", "0")
    page.close()
    other.wait_for_selector('#network[data-state="here"]')


def test_a_model_that_gives_other_answers_here_is_refused(cloud: Cloud, opened: Opens) -> None:
    page = opened(cloud)
    enrol(page, cloud)
    x, inputs = np.random.default_rng(0).random((4, 1, 8, 8), np.float32), cloud.home / "inputs.npy"
    np.save(inputs, x)
    publish(cloud, 2, "--inputs", str(inputs))
    page.locator("summary").click()
    page.get_by_role("button", name="Look for a newer model").click()
    until(page, "model", "version 2, ")  # the WASM runtime gives the same logits, to a thousandth
    wrong = trees.encode({"x": x, "logits": np.zeros((4, 10), np.float32)})
    cloud.site.releases.publish("small", 3, "stable", cloud.home / "small.onnx", vector=wrong)
    page.get_by_role("button", name="Look for a newer model").click()
    until(page, "alert", "A model was refused: its outputs differ by .* here, more than 0.001. Version 2 goes on")


def test_the_first_load_is_small() -> None:
    nbytes = sum(path.stat().st_size for path in FILES.iterdir() if path.suffix not in {".wasm", ".txt"})
    assert nbytes < 1_000_000  # the WASM runtime apart


def test_with_forced_colours_and_without_motion_nothing_is_lost(cloud: Cloud, opened: Opens, axe: str) -> None:
    page = opened(cloud, forced_colors="active", reduced_motion="reduce")
    enrol(page, cloud)
    switch = page.get_by_role("switch", name="Cut the network")
    knob = "getComputedStyle(document.querySelector('#cut .knob')).backgroundColor"
    before = page.evaluate(knob)
    switch.click()
    page.wait_for_selector('#network[data-state="cut"]')
    assert page.evaluate(knob) != before  # on and off differ without the page's own colours
    assert page.evaluate("getComputedStyle(document.querySelector('#cut .knob'), '::after').transitionDuration") == "0s"
    draw(page, ZERO)
    until(page, "small-label", "0")
    audit(page, axe)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_is_accessible(cloud: Cloud, opened: Opens, scheme: str, width: int, axe: str) -> None:
    page = opened(cloud, color_scheme=scheme, viewport={"width": width, "height": 800})
    audit(page, axe)
    enrol(page, cloud)
    audit(page, axe)

    # without a mouse: Shift and the arrows draw, Tab reaches what there is
    page.locator("#pad").focus()
    for key in ["Shift+ArrowDown"] * 10:
        page.keyboard.press(key)
    until(page, "small-label", r"\d")
    until(page, "decision", "(Answer here|Ask the cloud): confidence")
    audit(page, axe)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "clear"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def audit(page: Any, axe: str) -> None:
    """No serious violation of what axe-core knows of WCAG 2."""
    page.evaluate(axe)
    found = page.evaluate("axe.run()")["violations"]
    bad = [(each["id"], [node["html"] for node in each["nodes"]]) for each in found]
    assert not bad
