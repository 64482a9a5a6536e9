"""A newcomer reads the site: nothing is asked of anybody else, it fits a phone, and the search finds, from disk too."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGES = sorted(path.relative_to(ROOT / "docs").with_suffix(".html").as_posix() for path in ROOT.glob("docs/**/*.md"))
PAGES += ["names.html", "source/CONTRIBUTING.html", "source/duetto/algorithms/fedavg.py.html"]  # made when it is built


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="no mkdocs here (pip install 'duetto[docs]')")
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    subprocess.run(words, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, check=True)
    return folder


@pytest.fixture(scope="module")
def served(built: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(built)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def reading(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Opens a window; in the end nobody was asked but where the site is."""
    contexts: list[Any] = []
    asked: list[str] = []
    begins: list[str] = []

    def open_at(url: str, **given: Any) -> Any:
        contexts.append(chromium.new_context(**given))
        begins.append(url)
        contexts[-1].on("request", lambda request: asked.append(request.url))
        return contexts[-1].new_page()

    yield open_at
    for context in contexts:
        context.close()
    assert asked
    assert [url for url in asked if not url.startswith((*begins, "data:", "blob:"))] == []


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_fits_and_nobody_else_is_asked(
    served: str, reading: Callable[..., Any], scheme: str, width: int
) -> None:
    page = reading(served, color_scheme=scheme, viewport={"width": width, "height": 900})
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    for name in PAGES:
        answer = page.goto(served + name)
        assert answer.status == 200, name
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is wider than the window"
        shown = page.evaluate("[...document.images].filter((each) => each.complete && !each.naturalWidth).length")
        assert shown == 0, f"{name} has a picture that is not shown"
        shade = page.locator("body").get_attribute("data-md-color-scheme")
        assert shade == {"light": "default", "dark": "slate"}[scheme]
    assert faults == []


@pytest.mark.parametrize("where", ["served", "disk"])
def test_the_search_finds(served: str, built: Path, reading: Callable[..., Any], where: str) -> None:
    home = served if where == "served" else f"{built.as_uri()}/"
    page = reading(home, viewport={"width": 1280, "height": 900})
    page.goto(home + "index.html")
    page.get_by_placeholder("Search").click()
    page.keyboard.type("trimmed mean")
    page.wait_for_selector(".md-search-result__link")
    page.locator(".md-search-result__link").first.click()
    assert page.url.startswith(home)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_kept_out(served: str, reading: Callable[..., Any], scheme: str, axe: str) -> None:
    page = reading(served, color_scheme=scheme, viewport={"width": 1280, "height": 900})
    for name in ("index.html", "start.html", "browser.html", "names.html", "protocol.html"):
        page.goto(served + name)
        page.evaluate(axe)
        bad = [
            (each["id"], each["nodes"][0]["html"][:200])
            for each in page.evaluate("axe.run()")["violations"]
            if each["impact"] in ("serious", "critical")
        ]
        assert bad == [], name
