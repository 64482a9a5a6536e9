"""For the site: a page may link to any file of the repository, as on GitHub, and the site then has that file as a page.

``mkdocs.yml`` names this file as a hook. A file ``path`` becomes the page ``source/path``: Markdown as it is, code
with its colours, a folder as the list of its files. Nothing links to a server of ours, so the site is whole from disk.
The page ``names`` lists what the package offers, by the first line of each docstring, and leads to these files.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

import duetto

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)(?=[)#])")
FENCED = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
LANGUAGES = {".proto": "protobuf", ".py": "python", ".sh": "bash", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml"}


def on_files(files: Files, config: Any) -> Files:
    """Add a page for each file that a page of ``docs/``, or a page added here, leads to."""
    named = [ROOT / name.removeprefix("source/") for name in _leaves(config.nav) if name.startswith("source/")]
    pages = [Path(file.abs_src_path) for file in files.documentation_pages() if file.abs_src_path]
    seen: set[Path] = set()
    listed = names()
    files.append(File.generated(config, "names.md", content=listed))
    named_there = [found for _, found in outside(listed, DOCS / "names.md")]
    waiting = (
        named + named_there + [found for page in pages for _, found in outside(page.read_text(encoding="utf-8"), page)]
    )
    while waiting:
        if (path := waiting.pop()) in seen or DOCS in path.parents:
            continue
        seen.add(path)
        text = told(path)
        where = InclusionLevel.INCLUDED if path in named else InclusionLevel.NOT_IN_NAV
        files.append(File.generated(config, page_of(path), content=text, inclusion=where))
        if path.suffix == ".md":
            waiting += [found for _, found in outside(text, path)]
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Let links out of ``docs/`` lead to the pages of these files."""
    name = page.file.src_uri
    path = ROOT / name.removeprefix("source/") if name.startswith("source/") else DOCS / name
    if name.startswith("source/") and path.suffix != ".md":
        return markdown
    for begin, found in reversed(list(outside(markdown, path))):
        end = LINK.match(markdown, begin).end()  # type: ignore[union-attr]
        target = page_of(found) if DOCS not in found.parents else found.relative_to(DOCS).as_posix()
        markdown = markdown[:begin] + os.path.relpath(target, os.path.dirname(name)) + markdown[end:]
    return markdown


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Give the theme's search a name, which it lacks for who hears the page."""
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"')


def outside(text: str, path: Path) -> Iterator[tuple[int, Path]]:
    """Where in a page's text there are links to files that the site has only as ``source/...``, and to which.

    A page outside of ``docs/`` may lead into it: such links are told, too, as they have to be written anew.
    """
    fences = [found.span() for found in FENCED.finditer(text)]
    for link in LINK.finditer(text):
        target = Path(os.path.normpath(path.parent / link[1]))
        moved = DOCS not in path.parents or DOCS not in target.parents
        fenced = any(begin <= link.start() < end for begin, end in fences)
        if moved and not fenced and ROOT in target.parents and target.exists():
            yield link.start(), target


def page_of(path: Path) -> str:
    """The page that a file is shown on."""
    name = f"source/{path.relative_to(ROOT).as_posix()}"
    return f"{name}/index.md" if path.is_dir() else name if path.suffix == ".md" else f"{name}.md"


def told(path: Path) -> str:
    """A file as a page."""
    name = path.relative_to(ROOT).as_posix()
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    head = f"---\nsearch: {{exclude: true}}\nhide: [navigation, toc]\n---\n# {name}\n\n"
    if path.is_dir():
        return head + "".join(f"- `{each.name}`\n" for each in sorted(path.iterdir()) if each.name != "__pycache__")
    text = path.read_text(encoding="utf-8")
    return f"{head}~~~~~~~~{LANGUAGES.get(path.suffix, 'text')}\n{text.rstrip()}\n~~~~~~~~\n"


def names() -> str:
    """The page of all public names: the package's own, then those of each room."""
    rooms = [name for name in duetto.__all__ if (ROOT / "duetto" / name).is_dir()]
    own = {name: home for name in duetto.__all__ if (home := duetto._HOME.get(name))}
    text = "# Public names\n\n`import duetto as du`; a name's file has the whole of what is said about it.\n\n"
    text += _table("du", own)
    for room in rooms:
        read = ast.parse((ROOT / "duetto" / room / "__init__.py").read_text(encoding="utf-8"))
        offered = next((ast.literal_eval(each.value) for each in read.body if isinstance(each, ast.Assign)), [])
        homes = {
            alias.asname or alias.name: each.module
            for each in read.body
            if isinstance(each, ast.ImportFrom) and each.module
            for alias in each.names
        }
        text += f"\n## {room}\n{_said(read)}\n\n" + _table(f"du.{room}", {name: homes[name] for name in offered})
    return text


def _table(before: str, homes: dict[str, str]) -> str:
    """Names with their first lines, or where they have none those of their files, which they lead to."""
    if not homes:
        return ""
    lines = ["| name | is |", "|---|---|"]
    for name, home in homes.items():
        path = ROOT.joinpath(*home.split(".")).with_suffix(".py")
        path = path if path.is_file() else path.with_suffix("") / "__init__.py"
        read = ast.parse(path.read_text(encoding="utf-8"))
        found = next((each for each in read.body if getattr(each, "name", None) == name), None)
        link = os.path.relpath(path, DOCS)
        lines.append(f"| [`{before}.{name}`]({link}) | {(found is not None and _said(found)) or _said(read)} |")
    return "\n".join(lines) + "\n"


def _said(node: Any) -> str:
    """The first line of a docstring, with Sphinx's roles as plain code."""
    first = (ast.get_docstring(node) or "").partition("\n")[0]
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", first).replace("|", "\\|")


def _leaves(nav: Any) -> Iterator[str]:
    """All pages that the navigation names."""
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, dict):
        yield from _leaves(list(nav.values()))
    else:
        for each in nav or ():
            yield from _leaves(each)
