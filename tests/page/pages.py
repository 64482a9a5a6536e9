"""The page, and the cloud that serves it, as these tests use them."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from duetto.cloud.site import Site

ONE = [(0.5, 0.12), (0.5, 0.88)]
ZERO = [(0.5, 0.13), (0.32, 0.25), (0.27, 0.5), (0.32, 0.75), (0.5, 0.87), (0.68, 0.75), (0.73, 0.5), (0.68, 0.25)]
ZERO = [*ZERO, ZERO[0]]
SCRIBBLE = [(0.2, 0.3), (0.8, 0.3), (0.3, 0.8), (0.7, 0.2), (0.75, 0.75), (0.25, 0.6)]


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

    def send(self, which: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(which)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def free() -> int:
    """A port that nobody listens at now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def publish(cloud: Cloud, version: int, *more: str) -> None:
    """Offer the small model, with its policy."""
    words = ["cloud", "publish", str(cloud.home / "small.onnx"), "--version", str(version)]
    cloud.run(*words, "--policy", str(cloud.home / "policy"), "--state", str(cloud.home / "cloud"), *more)


def enrol(page: Any, cloud: Cloud) -> None:
    """Type a token in, and wait."""
    page.get_by_label("Token").fill(cloud.token())
    page.get_by_role("button", name="Enrol").click()
    ready(page)


def ready(page: Any) -> None:
    """Wait until the page can answer, and the cloud is there."""
    page.wait_for_selector('#pad[data-ready="true"]', state="attached")
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
