"""A cloud that serves the page, and Debian's Chromium to open it; every request that the page makes is kept."""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from duetto.cloud.browser import FILES

sys.path.insert(0, str(Path(__file__).parent))
from pages import Cloud, free, publish


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
    made = Cloud(tmp_path, (free(), free()))
    made.start()
    yield made
    if made.process is not None:
        made.send(signal.SIGCONT)
    made.kill()


@pytest.fixture(scope="module")  # Playwright's loop runs for as long: other modules start loops of their own
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


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core, which finds what keeps people out."""
    path = Path(__file__).parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
    if not path.is_file():
        pytest.skip("no axe-core here (make page)")
    return path.read_text()
