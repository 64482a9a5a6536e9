"""A cloud with its console, and a crowd of devices, as these tests use them."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from duetto.cloud.site import Site


@dataclass
class Fleet:
    """A cloud's folder, and the processes that serve it and ask it."""

    home: Path
    ports: tuple[int, int, int]
    operator: str = ""
    viewer: str = ""
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports[2]}"

    @property
    def state(self) -> Path:
        return self.home / "cloud"

    def site(self) -> Site:
        return Site(self.state)

    def token(self, name: str, role: str) -> str:
        site = self.site()
        try:
            return site.operators.add(name, role)
        finally:
            site.engine.dispose()

    def serve(self, *more: str) -> None:
        """Start the cloud, and wait until it listens."""
        listen, enrol, admin = (f"127.0.0.1:{port}" for port in self.ports)
        words = ["cloud", "--large", "digits.large", "--state", str(self.state), "--listen", listen]
        self._start("cloud", *words, "--enrol", enrol, "--admin", admin, *more)
        until(lambda: "listening at" in self.said("cloud"), self.said, "cloud")
        assert f"console at {self.url}, " in self.said("cloud").replace("\n", "")

    def ask(self, count: int, every: float) -> None:
        """Let a crowd come, for as long as nobody stops it."""
        words = ["crowd", "--count", str(count), "--every", str(every), "--cloud", f"localhost:{self.ports[0]}"]
        words += ["--enrol", f"localhost:{self.ports[1]}", "--cloud-state", str(self.state)]
        self._start("crowd", *words, "--state", str(self.home / "crowd"))

    def said(self, name: str) -> str:
        return (self.home / f"{name}.log").read_text()

    def stop(self, name: str, how: signal.Signals = signal.SIGINT) -> None:
        """End a process, and wait."""
        process = self.running.pop(name, None)
        if process is not None and process.poll() is None:
            process.send_signal(how)
            process.wait(120)

    def _start(self, name: str, *words: str) -> None:
        with (self.home / f"{name}.log").open("ab") as file:
            self.running[name] = subprocess.Popen([sys.executable, "-m", "duetto", *words], stdout=file, stderr=file)


def until(so: Callable[[], Any], said: Callable[[str], str], name: str, seconds: float = 120.0) -> None:
    """Wait for something outside of the page."""
    end = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < end, said(name)[-2000:]
        time.sleep(0.2)


def so(page: Any, expression: str, seconds: float = 20.0) -> None:
    """Wait until an expression holds in the page, which lets nobody evaluate any by itself."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"{expression}: {page.locator('body').inner_text()[:2000]}"
        time.sleep(0.05)


def enter(page: Any, token: str) -> None:
    """Log in, and wait for the first view."""
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_selector("#view[data-ready]")


def view(page: Any, name: str) -> None:
    """Go to a view by its link, and wait until it shows something."""
    page.get_by_role("navigation", name="Views").get_by_role("link", name=name, exact=True).click()
    shown = {"By device": "people"}.get(name, name.lower())
    page.wait_for_selector(f'#view[data-ready="{shown}"]')


def tile(page: Any, name: str) -> str:
    """What a tile of the overview says."""
    found: str = page.locator(f".tiles [data-name='{name}'] strong").inner_text()
    return found


def told(fleet: Fleet, read: Callable[[Site], Any]) -> Any:
    """What the cloud's folder says now."""
    site = fleet.site()
    try:
        return read(site)
    finally:
        site.engine.dispose()


def audited(fleet: Fleet) -> list[tuple[str, str, str]]:
    """Who did what, and why; the newest first."""
    lines = told(fleet, lambda site: site.audit.newest(50))
    return [(line.who.split(" ")[0], line.action, json.dumps(line.about)) for line in lines]
