"""docs/ as a site: it builds without a warning, has every page, and nothing in it is fetched from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import duetto

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)(\{[^}]*\})?")
LOADS = {"script": "src", "img": "src", "source": "src", "iframe": "src", "video": "src", "object": "data"}
SHOWN = {"stylesheet", "icon", "preload", "preconnect", "dns-prefetch", "modulepreload", "manifest"}


class Read(HTMLParser):
    """What a page loads, where it links to, and its anchors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        self.anchors |= {told[name] for name in ("id", "name") if name in told}
        if tag in LOADS and LOADS[tag] in told:
            self.loads.append(told[LOADS[tag]])
        if tag == "link" and SHOWN & set(told.get("rel", "").split()):
            self.loads.append(told["href"])
        if tag == "a" and "href" in told:
            self.links.append(told["href"])


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly."""
    pytest.importorskip("mkdocs", reason="no mkdocs here (pip install 'duetto[docs]')")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_the_navigation_names_every_page() -> None:
    told = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    nav = re.findall(r"^ +- (?:.*: )?(\S+\.md)(?:  #.*)?$", told[told.index("\nnav:") :], re.MULTILINE)
    assert len(nav) == len(set(nav))
    own = {name for name in nav if not name.startswith("source/")}
    assert own == {"names.md", *(page.relative_to(DOCS).as_posix() for page in PAGES)}
    assert all((ROOT / name.removeprefix("source/")).is_file() for name in set(nav) - own)
    assert re.search(r"^  font: false\b", told, re.MULTILINE), "a font would come from Google"


def test_every_picture_is_there_told_in_words_and_small() -> None:
    named = set()
    for page in [ROOT / "README.md", *PAGES]:
        for words, target, _ in PICTURE.findall(page.read_text(encoding="utf-8")):
            path = (page.parent / target).resolve()
            assert path.is_file(), f"{page.name}: {target} (make pictures)"
            assert len(words) > 20, f"{page.name}: {target} is not told to who cannot see it"
            assert path.stat().st_size < 100_000, f"{target} is larger than 100 kB"
            named.add(path)
    assert named == set((DOCS / "pictures").glob("*.*")), "a picture that no page shows"


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        for url in Read(page).loads:
            assert not urlsplit(url).netloc, f"{page.name} loads {url}"
    for sheet in site.rglob("*.css"):
        fetched = re.findall(r"(?:url\(|@import\s*)[\"']?((?:https?:)?//[^\"')]*)", sheet.read_text(encoding="utf-8"))
        assert fetched == [], sheet.name


def test_links_lead_somewhere_in_the_site_too(site: Path) -> None:
    """Links of code to files of the repository too, which strict building does not look at."""
    read = {page: Read(page) for page in site.rglob("*.html") if page.name != "404.html"}
    for page, told in read.items():
        for url in told.links:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            assert target.exists(), f"{page.relative_to(site)}: {url}"
            if parts.fragment and target in read:
                anchors = read[target].anchors
                assert unquote(parts.fragment) in anchors, f"{page.relative_to(site)}: {url}"


def test_files_of_the_repository_are_in_it(site: Path) -> None:
    code = (site / "source" / "duetto" / "algorithms" / "fedavg.py.html").read_text(encoding="utf-8")
    assert "language-python" in code
    assert "source/duetto/algorithms/fedavg.py.html" in (site / "algorithms.html").read_text(encoding="utf-8")
    names = (site / "names.html").read_text(encoding="utf-8")
    for name, home in duetto._HOME.items():
        assert f'href="source/{home.replace(".", "/")}.py.html"><code>du.{name}</code>' in names
    assert "du.codecs.Quantise" in names
    assert "Add a dependency" in (site / "source" / "CONTRIBUTING.html").read_text(encoding="utf-8")
