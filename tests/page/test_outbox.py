"""What the page showed is what the cloud hears: once each, whoever dies in between, and without what was drawn."""

import asyncio
import base64
import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import ONE, SCRIBBLE, ZERO, Cloud, draw, enrol, ready, text, until

from duetto import tree as trees
from duetto.cloud.feedback import Kept
from duetto.cloud.promotion import Said, record
from duetto.cloud.teacher import sent
from duetto.device.outbox import Outbox
from duetto.protocols.deliver import DROPPED, FEEDBACK, RECORD, Batch, heard

pytestmark = pytest.mark.slow

SOURCES = Path(__file__).parents[2] / "web" / "page"
Opens = Callable[..., Any]


def kept(cloud: Cloud) -> list[Kept]:
    """What the cloud has heard."""
    site = cloud.site
    try:
        return list(site.feedback.arrivals())
    finally:
        site.engine.dispose()


def told(page: Any, cloud: Cloud, count: int) -> list[Kept]:
    """Wait until the cloud has heard so many; they are returned."""
    end = time.monotonic() + 20
    while len(found := kept(cloud)) < count and time.monotonic() < end:
        page.wait_for_timeout(50)
    assert len(found) == count
    return found


def answered(page: Any, *strokes: list[tuple[float, float]]) -> dict[str, Any]:
    """Draw anew, wait until the answer stands, and read it off the page."""
    page.get_by_role("button", name="Clear").click()
    before = int(text(page, "totals").split()[0])
    draw(page, *strokes)
    until(page, "totals", rf"^{before + 1} answer")
    asked = text(page, "decision").startswith("Ask the cloud")
    if asked:
        until(page, "by", "by the large model|cannot be reached|no answer")
    large = text(page, "by") == "by the large model, in the cloud"
    return {
        "by": "cloud" if large else "page-anna",
        "asked": asked,
        "label": int(text(page, "answer")),
        "own": int(text(page, "small-label")),
    }


def test_the_cloud_keeps_what_the_page_showed_each_once(cloud: Cloud, opened: Opens) -> None:
    page, deaf = opened(cloud), []

    def talk(socket: Any) -> None:
        server = socket.connect_to_server()
        server.on_message(lambda message: deaf or socket.send(message))

    page.route_web_socket(re.compile("/talk$"), talk)
    page.get_by_label("Name of this device").fill("page-anna")
    enrol(page, cloud)
    shown = [answered(page, ZERO), answered(page, ONE)]
    assert [each["by"] for each in shown] == ["page-anna", "cloud"]
    page.get_by_role("button", name="It was 1").click()
    told(page, cloud, 3)
    page.wait_for_selector('#outbox[data-waiting="0"]', state="attached")

    # the cloud keeps one more, is not heard to say so, and is killed
    deaf.append(True)
    shown.append(answered(page, ZERO))
    told(page, cloud, 4)
    assert page.locator("#outbox").get_attribute("data-waiting") != "0"
    cloud.kill()
    deaf.clear()
    page.wait_for_selector('#network[data-state="gone"]')

    # what is answered without it waits, over a reload too
    shown += [answered(page, ONE), answered(page, ZERO)]
    assert [each["by"] for each in shown[-2:]] == ["page-anna", "page-anna"]
    cloud.start()
    page.wait_for_selector('#network[data-state="here"]')
    page.wait_for_selector('#outbox[data-waiting="0"]', state="attached")

    found = told(page, cloud, 6)
    assert [(each.kind, each.device) for each in found] == [
        (FEEDBACK if i == 2 else RECORD, "page-anna") for i in range(6)
    ]
    assert [each.sequence for each in found] == [1, 2, 3, 4, 5, 6]
    assert len({each.session for each in found}) == 1
    records = [json.loads(each.body) for each in found if each.kind == RECORD]
    assert [{name: each[name] for name in shown[0]} for each in records] == shown
    assert len({(each["session"], each["number"]) for each in records}) == 5
    assert {each["model"] for each in records} == {1}
    assert records[1]["cost"]["up_bytes"] > 0 == records[0]["cost"]["up_bytes"]
    assert "cannot be reached" in records[3]["why"]

    # what decides about a canary reads them
    for each, said in zip(
        records, [record("page-anna", each.body) for each in found if each.kind == RECORD], strict=True
    ):
        agreed = each["base"] == each["label"] if each["by"] == "cloud" else None
        assert said == Said("page-anna", 1, each["asked"], agreed, False)

    # what the user said is about the second answer, and holds no drawing
    said = trees.decode(found[2].body)
    assert set(said) == {"label", "logits", "number"}
    assert (int(said["label"]), int(said["number"])) == (1, records[1]["number"])
    assert int(np.argmax(said["logits"])) == shown[1]["label"]


def test_a_drawing_leaves_for_learning_where_the_user_lets_it(cloud: Cloud, opened: Opens) -> None:
    page = opened(cloud)
    enrol(page, cloud)
    may = page.get_by_role("switch", name="Inputs may leave for learning")
    assert may.get_attribute("aria-checked") == "false"
    may.click()
    page.wait_for_selector('#inputs[aria-checked="true"]')
    answered(page, ZERO)
    page.get_by_role("button", name="It was 0").click()
    told(page, cloud, 2)

    # withdrawn before it could leave
    page.get_by_role("switch", name="Cut the network").click()
    answered(page, SCRIBBLE)
    page.get_by_role("button", name="It was 5").click()
    until(page, "thanks", "Learned that this is a 5")
    page.wait_for_selector('#outbox[data-waiting="2"]', state="attached")
    may.click()
    page.wait_for_selector('#inputs[aria-checked="false"]')
    page.reload()
    ready(page)
    found = told(page, cloud, 4)
    assert may.get_attribute("aria-checked") == "false"

    site = cloud.site
    try:
        inputs, refused = sent(site.feedback, 0, 1 << 40, (1, 8, 8), 10)
    finally:
        site.engine.dispose()
    assert (inputs.y.tolist(), refused) == ([0], 0)
    assert 0.5 < inputs.x.max() <= 1
    assert inputs.x[0, 0, 3:5, 3:5].max() < 0.2
    found = {int(each["label"]): each for each in (trees.decode(e.body) for e in found if e.kind == FEEDBACK)}
    assert sorted(found) == [0, 5]
    assert "x" in found[0]
    assert "x" not in found[5]


def test_of_two_tabs_the_one_that_talks_tells_for_both(cloud: Cloud, opened: Opens) -> None:
    page = opened(cloud)
    enrol(page, cloud)
    other = page.context.new_page()
    other.goto(cloud.url)
    other.wait_for_selector('#network[data-state="elsewhere"]')
    answered(other, ZERO)
    answered(page, ZERO)
    found = told(page, cloud, 2)
    assert [each.sequence for each in found] == [1, 2]
    assert len({json.loads(each.body)["session"] for each in found}) == 2  # two runs of the page, one outbox


def test_what_has_no_room_goes_by_the_devices_rule_and_is_told(cloud: Cloud, opened: Opens, tmp_path: Path) -> None:
    puts = [("feedback" if i % 4 == 0 else "record", bytes([i]) * (40 + i)) for i in range(40)]
    limit = 1500

    async def device() -> tuple[list[int | None], Batch, Batch]:
        async with Outbox(tmp_path / "outbox.db", limit_bytes=limit) as outbox:
            numbers = [await outbox.committed(outbox.put(kind, body)) for kind, body in puts]
            first = await outbox.batch()
            await outbox.acknowledge(first.session, [entry.sequence for entry in first.entries])
            return numbers, first, await outbox.batch()

    page = opened(cloud, service_workers="block")
    page.route(
        re.compile(r"/(outbox|kept|tree)\.js$"),
        lambda route: route.fulfill(
            path=SOURCES / route.request.url.rpartition("/")[2], content_type="text/javascript"
        ),
    )
    numbers, first, empty = page.evaluate(
        """async ([puts, limit]) => {
          const { Outbox } = await import("/outbox.js");
          const outbox = new Outbox(limit);
          const numbers = [];
          for (const [kind, body] of puts) numbers.push(await outbox.put(kind, Uint8Array.from(body)));
          const first = await outbox.batch();
          const sent = first.entries.map((each) => each.sequence);
          await outbox.acknowledge(crypto.getRandomValues(new Uint8Array(16)), sent); // of another session
          const again = await outbox.batch();
          const went = await outbox.acknowledge(first.session, sent);
          const same = again.entries.length === first.entries.length && went === first.entries.length;
          const shown = ({ sequence, kind, body }) => [sequence, kind, btoa(String.fromCharCode(...body))];
          const next = await outbox.put("record", new Uint8Array(8));
          return [[...numbers, next, same], first.entries.map(shown), (await outbox.batch()).entries.map(shown)];
        }""",
        [[[kind, list(body)] for kind, body in puts], limit],
    )
    with ThreadPoolExecutor(1) as thread:  # Playwright's loop runs in this one
        expected, batch, after = thread.submit(asyncio.run, device()).result()
    assert numbers == [*expected, 42, True]  # what was acknowledged does not free its number
    told_here = [(sequence, kind, base64.b64decode(body)) for sequence, kind, body in first]
    drops = [body for _, kind, body in told_here if kind == DROPPED]
    assert [heard(body) for body in drops] == [heard(each.body) for each in batch.entries if each.kind == DROPPED]
    assert [each for each in told_here if each[1] != DROPPED] == [
        (each.sequence, each.kind, each.body) for each in batch.entries if each.kind != DROPPED
    ]
    assert (len(empty), len(after.entries)) == (1, 0)
