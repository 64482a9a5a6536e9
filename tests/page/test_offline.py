"""The page opens without its server, is never old for longer than a reload, and keeps nothing but its own files."""

import json
import re
import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from pages import ONE, ZERO, Cloud, draw, enrol, free, ready, text, until
from websockets.sync.client import ClientConnection, connect

from duetto.cloud.browser import FILES, application, keeping
from duetto.cloud.site import Site

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


class Tab:
    """A tab of a Chromium of its own, with no debugger at its workers.

    Playwright attaches one to each, and Chromium does not always let a worker go that is debugged: then the next one
    never takes over.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._count = socket, 0

    def call(self, method: str, **params: Any) -> Any:
        self._count += 1
        self._socket.send(json.dumps({"id": self._count, "method": method, "params": params}))
        while (said := json.loads(self._socket.recv(timeout=60))).get("id") != self._count:
            pass
        return said.get("result", {})

    def find(self, expression: str) -> Any:
        how = {"awaitPromise": True, "returnByValue": True}
        return self.call("Runtime.evaluate", expression=expression, **how).get("result", {}).get("value")

    def until(self, expression: str) -> None:
        end = time.monotonic() + 60
        while not self.find(expression):
            assert time.monotonic() < end, expression
            time.sleep(0.05)


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Tab]:
    """An empty one."""
    path = shutil.which("chromium")
    if path is None or not (FILES / "index.html").is_file():
        pytest.skip("no Chromium here, or the page is not built (make page)")
    port, profile = free(), tmp_path / "profile"
    flags = ["--headless", "--no-sandbox", f"--remote-debugging-port={port}", f"--user-data-dir={profile}"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([path, *flags, "about:blank"], **quiet) as process:
        try:
            yield from _tabs(port)
        finally:
            process.kill()


def _tabs(port: int) -> Iterator[Tab]:
    end = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
                [address] = [each["webSocketDebuggerUrl"] for each in json.load(answer) if each["type"] == "page"]
            break
        except (OSError, ValueError):
            assert time.monotonic() < end
            time.sleep(0.1)
    with connect(address, max_size=None) as socket:
        yield Tab(socket)


@contextmanager
def serving(files: Path, site: Site, port: int) -> Iterator[None]:
    """The page of these files, for as long as the context lasts; nobody is enrolled."""
    app = application(site, None, files=files)  # type: ignore[arg-type]  # nobody talks
    config = uvicorn.Config(app, port=port, log_config=None, lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = server.force_exit = True
        thread.join()


def test_a_newer_build_is_told_and_taken_with_one_reload(tab: Tab, tmp_path: Path) -> None:
    files, site, port = tmp_path / "page", Site(tmp_path / "cloud").begin(), free()
    shutil.copytree(FILES, files)
    newest = "navigator.serviceWorker.getRegistration().then((kept) => kept.update()).then(() => true)"
    heading, told = "document.querySelector('h1')?.innerText", "document.getElementById('newer')?.hidden === false"
    with serving(files, site, port):
        tab.call("Page.navigate", url=f"http://127.0.0.1:{port}/")
        tab.until("document.getElementById('offline')?.dataset.kept === 'true' && !!navigator.serviceWorker.controller")
        assert not tab.find(told)

        # another script, while the page is open
        script = files / "app.js"
        script.write_text(script.read_text() + "\ndocument.title = 'a newer one';\n")
        assert tab.find(newest)
        tab.until(told)
        assert tab.find("document.title") == "Duetto: a device in the browser"
        tab.find("document.getElementById('reload').click()")
        tab.until("document.title === 'a newer one' && document.readyState === 'complete'")
        assert not tab.find(told)

        # another page: shown at once, since the server has it
        index = files / "index.html"
        index.write_text(index.read_text().replace("<h1>Duetto</h1>", "<h1>Duetto, newer</h1>"))
        tab.call("Page.reload")
        tab.until(f"{heading} === 'Duetto, newer' && document.readyState === 'complete'")
        assert tab.find(newest)
        tab.until(told)

    # ... and without the server the newest that was seen
    tab.call("Page.reload")
    tab.until("document.getElementById('newer')?.hidden && document.readyState === 'complete'")
    assert tab.find(heading) == "Duetto, newer"
    tab.until("document.title === 'a newer one'")
    site.engine.dispose()


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
