"""The page opens without its server, is never old for longer than a reload, and keeps nothing but its own files."""

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pages import ONE, ZERO, Cloud, draw, enrol, ready, text, until

from duetto.cloud.browser import FILES, keeping

pytestmark = pytest.mark.slow

Opens = Callable[..., Any]


def staying(page: Any) -> None:
    """Wait until the browser has kept the page."""
    page.wait_for_selector('#offline[data-kept="true"]', state="attached")
    page.wait_for_function("navigator.serviceWorker.controller !== null")


def test_with_its_cloud_killed_the_page_opens_answers_and_says_that_it_is_alone(cloud: Cloud, opened: Opens) -> None:
    page = opened(cloud)
    enrol(page, cloud)
    draw(page, ONE)
    until(page, "by", "by the large model")
    staying(page)
    cloud.kill()
    page.reload()
    page.wait_for_selector('#pad[data-ready="true"]')
    until(page, "network", "The cloud is gone .*this page answers by itself")
    draw(page, ZERO)
    until(page, "small-label", "0")
    assert text(page, "by") == "by the small model, in this page"
    page.get_by_role("button", name="Clear").click()
    draw(page, ONE)
    until(page, "by", "by the small model, in this page: the cloud cannot be reached")

    # nothing is kept but the files of the build: no releases, no answers, no log-in
    kept = page.evaluate(
        """async () => {
          const names = await caches.keys();
          return [names, (await (await caches.open(names[0])).keys()).map(({ url }) => new URL(url).pathname)];
        }"""
    )
    own = {f"/{path.name}" for path in FILES.iterdir() if path.suffix != ".txt"} - {"/worker.js", "/index.html"}
    assert kept[0] == ["duetto-page"]
    assert sorted(kept[1]) == sorted(own | {"/"})

    # the policy of the content holds without the server, too
    refused = """async () => {
      try { await fetch("https://example.org/"); return "let out"; } catch { return "refused"; }
    }"""
    assert page.evaluate(refused) == "refused"
    cloud.start()
    ready(page)


def test_a_newer_build_is_told_and_taken_with_one_reload(cloud: Cloud, opened: Opens) -> None:
    cloud.files = cloud.home / "page"
    shutil.copytree(FILES, cloud.files)
    cloud.kill()
    cloud.start()
    page = opened(cloud)
    enrol(page, cloud)
    staying(page)
    assert page.locator("#newer").is_hidden()

    # another script, while the page is open; the server is started anew
    script = cloud.files / "app.js"
    script.write_text(script.read_text() + "\ndocument.title = 'a newer one';\n")
    cloud.kill()
    page.wait_for_selector('#network[data-state="gone"]')
    cloud.start()
    page.wait_for_selector('#network[data-state="here"]')
    page.get_by_text("A newer version of this page is here").wait_for(timeout=60_000)
    assert page.title() == "Duetto: a device in the browser"
    page.get_by_role("button", name="Reload").click()
    ready(page)
    assert page.title() == "a newer one"
    assert page.locator("#newer").is_hidden()

    # another page while this one is closed: shown at once, since the server has it
    index = cloud.files / "index.html"
    index.write_text(index.read_text().replace("<h1>Duetto</h1>", "<h1>Duetto, newer</h1>"))
    page.reload()
    assert page.get_by_role("heading", level=1).inner_text() == "Duetto, newer"
    ready(page)

    # ... and without the server the newest that was seen
    newest = """async () => {
      const cache = await caches.open("duetto-page");
      const opening = (await cache.keys()).filter(({ url }) => new URL(url).pathname === "/");
      return opening.length === 1 && (await (await cache.match(opening[0])).text()).includes("Duetto, newer");
    }"""
    end = time.monotonic() + 60
    while not page.evaluate(newest):
        assert time.monotonic() < end
        page.wait_for_timeout(50)
    cloud.kill()
    page.reload()
    assert page.get_by_role("heading", level=1).inner_text() == "Duetto, newer"
    assert page.title() == "a newer one"
    page.wait_for_selector('#pad[data-ready="true"]')


def test_another_file_or_header_is_another_worker(tmp_path: Path) -> None:
    for name in ("index.html", "app.js", "app.js.LEGAL.txt", "worker.js"):
        (tmp_path / name).write_text(name)
    first = keeping(tmp_path, [("a", "b")])
    assert first.endswith("worker.js")
    assert re.findall(r'"(/[^"]*)"', first) == ["/app.js", "/"]
    assert keeping(tmp_path, [("a", "b")]) == first
    assert keeping(tmp_path, [("a", "c")]) != first
    (tmp_path / "app.js").write_text("other")
    assert keeping(tmp_path, [("a", "b")]) != first
