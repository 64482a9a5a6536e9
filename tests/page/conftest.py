"""A cloud that serves the page, and Debian's Chromium to open it; every request that the page makes is kept."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from duetto.cloud.browser import FILES
from duetto.cloud.site import Site


def _missing() -> str | None:
    """What these tests need and is not here."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "no playwright here (pip install 'duetto[dev]')"
    if shutil.which("chromium") is None:
        return "no Chromium here (apt install chromium)"
    if not (FILES / "index.html").is_file():
        return "the page is not built (make page)"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without any of it, what opens the page is skipped, saying so."""
    here = [item for item in items if "chromium" in getattr(item, "fixturenames", ())]
    if here and (why := _missing()) is not None:
        for item in here:
            item.add_marker(pytest.mark.skip(reason=why))


@dataclass
class Cloud:
    """A cloud's folder, and the process that serves it."""

    home: Path
    ports: tuple[int, int]
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports[1]}"

    @property
    def site(self) -> Site:
        return Site(self.home / "cloud")

    def run(self, *words: str) -> str:
        """A command that ends."""
        done = subprocess.run([sys.executable, "-m", "duetto", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def token(self, device: str = "page-*") -> str:
        site = self.site
        try:
            return site.enrolment.token(device, issuer="test")
        finally:
            site.engine.dispose()

    def devices(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(
            self.run("cloud", "devices", "--json", "--state", str(self.home / "cloud"))
        )
        return found

    def start(self) -> None:
        words = ["cloud", "--large", str(self.home / "large.onnx"), "--state", str(self.home / "cloud")]
        words += ["--listen", f"127.0.0.1:{self.ports[0]}", "--enrol", "", "--page", f"127.0.0.1:{self.ports[1]}"]
        log = self.home / "log"
        with log.open("wb") as file:
            self.process = subprocess.Popen([sys.executable, "-m", "duetto", *words], stdout=file, stderr=file)
        end = time.monotonic() + 60
        while "listening at" not in log.read_text():
            assert self.process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        assert f"page at {self.url}, " in log.read_text().replace("\n", "")

    def signal(self, which: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(which)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def _free() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the trained pair of `digits` in ONNX, and a policy that was fitted for it."""
    import duetto as du
    from duetto.models import export
    from duetto.policies import Calibrated, artefact
    from duetto.tasks.pair import train
    from duetto.types import Outcomes

    home = tmp_path_factory.mktemp("pair")
    task = du.tasks.load("digits", seed=0)
    params = train(task)
    export.onnx(task.small, params["small"], home / "small.onnx")
    export.onnx(task.large, params["large"], home / "large.onnx")
    rows, users = task.group("calibration")
    logits = [net.logits(params[name], rows.x) for name, net in (("small", task.small), ("large", task.large))]
    held = Calibrated(tolerance_points=0.0).fit(Outcomes.of_classifiers(*logits, rows.y, users))
    artefact.save(artefact.Artefact(held), home / "policy")
    publish(Cloud(home, (0, 0)), 1)
    return home


@pytest.fixture
def cloud(pair: Path, tmp_path: Path) -> Iterator[Cloud]:
    """A cloud of one's own, with a signed model, that runs."""
    shutil.copytree(pair, tmp_path, dirs_exist_ok=True)
    made = Cloud(tmp_path, (_free(), _free()))
    made.start()
    yield made
    if made.process is not None:
        made.signal(signal.SIGCONT)
    made.kill()


def publish(cloud: Cloud, version: int, *more: str) -> None:
    words = ["cloud", "publish", str(cloud.home / "small.onnx"), "--version", str(version)]
    cloud.run(*words, "--policy", str(cloud.home / "policy"), "--state", str(cloud.home / "cloud"), *more)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser, without any page."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox"] if os.name == "posix" and os.getuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Opens the page of a cloud in a browser of its own; in the end no request has left that cloud."""
    contexts, asked = [], []

    def open_page(cloud: Cloud, **given: Any) -> Any:
        context = chromium.new_context(**given)
        contexts.append(context)
        context.set_default_timeout(20_000)
        own = urlsplit(cloud.url).netloc
        context.on("request", lambda request: asked.append((own, request.url)))
        page = context.new_page()
        page.on("websocket", lambda socket: asked.append((own, socket.url)))
        page.goto(cloud.url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert asked
    for own, url in asked:
        told = urlsplit(url)
        assert told.netloc == own or told.scheme in {"data", "blob"}, f"a request left the origin: {url}"


def enrol(page: Any, cloud: Cloud) -> None:
    """Type a token in, and wait until the page can answer and the cloud is there."""
    page.get_by_label("Token").fill(cloud.token())
    page.get_by_role("button", name="Enrol").click()
    ready(page)


def ready(page: Any) -> None:
    page.wait_for_selector('#pad[data-ready="true"]')
    page.wait_for_selector('#network[data-state="here"]')


def draw(page: Any, *strokes: list[tuple[float, float]]) -> None:
    """With the mouse, in shares of the canvas."""
    page.locator("#pad").scroll_into_view_if_needed()
    box = page.locator("#pad").bounding_box()
    for stroke in strokes:
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*place, steps=4)
        page.mouse.up()


def text(page: Any, name: str) -> str:
    """What an element says."""
    return str(page.locator(f"#{name}").inner_text())


def until(page: Any, name: str, pattern: str) -> None:
    """Wait until an element says so."""
    from playwright.sync_api import expect

    expect(page.locator(f"#{name}")).to_have_text(re.compile(pattern), timeout=20_000)


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core, which finds what keeps people out."""
    path = Path(__file__).parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
    if not path.is_file():
        pytest.skip("no axe-core here (make page)")
    return path.read_text()


ONE = [(0.5, 0.12), (0.5, 0.88)]
ZERO = [(0.5, 0.13), (0.32, 0.25), (0.27, 0.5), (0.32, 0.75), (0.5, 0.87), (0.68, 0.75), (0.73, 0.5), (0.68, 0.25)]
ZERO = [*ZERO, ZERO[0]]
SCRIBBLE = [(0.2, 0.3), (0.8, 0.3), (0.3, 0.8), (0.7, 0.2), (0.75, 0.75), (0.25, 0.6)]
