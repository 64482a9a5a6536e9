"""``duetto data``: which data sets are here, fetching them, looking at them, and checking them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from duetto.cli import console, running
from duetto.errors import ConfigError, DataError
from duetto.folders import default_cache
from duetto.tasks import official

if TYPE_CHECKING:
    from duetto.tasks import ByUser
    from duetto.tasks.task import Task


@dataclass(frozen=True)
class About:
    """A set in words: what it is, and what its licence allows."""

    what: str
    licence: str


ABOUT: Mapping[str, About] = {
    "digits": About("8x8 digits, dealt to 40 invented users", "CC BY 4.0 (UCI); comes with scikit-learn"),
    "handwriting": About("28x28 digits by the person who wrote them", "CC BY-SA 3.0 (MNIST), BSD-like (QMNIST)"),
    "activity": About("activities by person, 43 features of 10 s of a phone", "research, with citation (WISDM)"),
    "sensors": About("raw phone and watch signals by person", "CC BY 4.0 (GeoTecINIT)"),
    "traces": About("bandwidth of 3G, 4G, 5G and fixed links", "research, with citation; per set: its README"),
}

app = typer.Typer(
    cls=console.Commands,
    rich_markup_mode="rich",
    epilog=console.examples(
        ("duetto data list", "what is here, and where"),
        ("duetto data get handwriting", "fetch it from its publishers into the cache (12 MB)"),
        ("duetto data show handwriting", "its users"),
        ("duetto data check", "checksums and contents of all that is here"),
    ),
)


def _sets() -> list[str]:
    return list(official.SETS)


@app.callback(invoke_without_command=True)
def data(ctx: typer.Context) -> None:
    """Data sets by user: list, get, show, check.

    They are looked for in the folder that $DUETTO_DATA names, then in the cache of what was fetched.
    """
    console.help_alone(ctx)


@app.command("list")
def list_(as_json: running.Json = False) -> None:
    """Which sets there are, where they were found, and what their licences allow."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    running.data_root()
    where = {name: _where(name) for name in ABOUT}
    if as_json:
        console.emit(
            {
                name: {"what": about.what, "licence": about.licence, "where": where[name]}
                for name, about in ABOUT.items()
            }
        )
        return
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for head in ("set", "what", "licence"):
        drawn.add_column(head, header_style="bold", no_wrap=head == "set")
    for name, about in ABOUT.items():
        drawn.add_row(Text(name, "green" if where[name] else "dim"), about.what, about.licence)
    out = console.out()
    out.print(drawn)
    out.print()
    for name, place in where.items():
        missing = f"not here: `duetto data get {name}`" if name in official.SETS else "not here: set DUETTO_DATA"
        out.print(Text.assemble((f"{name:<12}", "green" if place else "dim"), place or missing), soft_wrap=True)


@app.command(epilog=console.examples(("duetto data get handwriting", "go on where it broke off, if it did")))
def get(
    name: Annotated[str, typer.Argument(help="A set.", autocompletion=_sets, show_default=False)],
    as_json: running.Json = False,
) -> None:
    """Fetch a set from its publishers into the cache, and check it; what is there is not fetched again."""
    if name in ABOUT and name not in official.SETS:
        raise ConfigError(f"{name} cannot be fetched", f"get one of {', '.join(official.SETS)}; see `duetto data list`")
    kept = "stopped; what was fetched is kept, and the same command goes on"
    with console.stoppable(kept), console.Progressing("bytes") as progress:
        folder = official.get(name, progress=progress)
    if as_json:
        console.emit({"set": name, "folder": str(folder)})
    else:
        console.out().print(f"{name}: {folder}", soft_wrap=True, markup=False)


@app.command(epilog=console.examples(("duetto data show activity", "people, their rows, and how uneven they are")))
def show(
    task: Annotated[
        str, typer.Argument(help="A task.", autocompletion=lambda: list(running.TASKS), show_default=False)
    ],
    seed: Annotated[int, typer.Option(min=0, help="Draws who belongs to which group.")] = 0,
    as_json: running.Json = False,
) -> None:
    """The users of a task: how many in each group, their rows and classes, and how these are spread."""
    running.data_root()
    with console.stoppable("stopped"), console.Progressing() as progress:
        progress(f"reading {task}", 0, 1)
        from duetto.tasks import load

        loaded = load(task, seed)
    groups = {group: _spread(loaded, names) for group, names in loaded.users.items() if names}
    rows = loaded.data.counts()
    if as_json:
        shape = list(loaded.data.x.shape[1:])
        console.emit(
            {
                "task": task,
                "users": len(loaded.data.users),
                "rows": len(loaded.data.y),
                "shape": shape,
                "classes": list(loaded.data.classes),
                "groups": groups,
                "rows_per_user": rows.tolist(),
            }
        )
        return
    _show(task, loaded, groups)
    console.out().print("\n[bold]rows a user[/]")
    for label, count, bar in histogram(rows):
        console.out().print(f"{label}  {count:>5} [cyan]{bar}[/]")


@app.command(epilog=console.examples(("duetto data check handwriting", "checksums, then what its loader says")))
def check(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Sets; all that are here.", show_default=False)
    ] = None,
    as_json: running.Json = False,
) -> None:
    """Check what is here: the files against their checksums, and the contents by reading them."""
    running.data_root()
    for name in names or []:
        if name not in ABOUT:
            raise console.choose("set", name, list(ABOUT))
        if _where(name) is None:
            get_it = f"or run `duetto data get {name}`" if name in official.SETS else "which holds traces/"
            raise DataError(f"{name} is not here", f"set DUETTO_DATA to a folder that holds it, {get_it}")
    found: dict[str, dict[str, Any]] = {}
    with console.stoppable("stopped"), console.Progressing() as progress:
        for name in names or [name for name in ABOUT if _where(name)]:
            files = _sums(name, progress)
            progress(f"reading {name}", 0, 1)
            found[name] = {"where": _where(name), "files_with_checksum": files, **_read(name)}
            if not as_json:
                said = ", ".join(
                    f"{value:,} {what}" for what, value in found[name].items() if value and isinstance(value, int)
                )
                console.out().print(f"[green]✓[/] {name}: {said.replace('_', ' ')}", soft_wrap=True)
    if as_json:
        console.emit(found)


def histogram(values: np.ndarray, bins: int = 10, width: int = 40) -> list[tuple[str, int, str]]:
    """(range, count, bar) of each bin of whole numbers."""
    low, high = int(values.min()), int(values.max())
    step = max(1, -(-(high - low + 1) // bins))
    starts = range(low, high + 1, step)
    counts = [int(((values >= start) & (values < start + step)).sum()) for start in starts]
    digits = len(str(starts[-1] + step - 1))
    return [
        (
            f"{start:>{digits}}–{start + step - 1:<{digits}}" if step > 1 else f"{start:>{digits}}",
            count,
            "█" * round(width * count / max(counts)) or ("▏" if count else ""),
        )
        for start, count in zip(starts, counts, strict=True)
    ]


# ------------------------------------------------------------------------------------------------------------ helpers


def _where(name: str) -> str | None:
    """Where a set was found."""
    if name == "digits":
        return "with scikit-learn" if _has_sklearn() else None
    if name == "traces":
        root = running.data_root()
        return str(root / "traces") if root and (root / "traces" / "index.csv").is_file() else None
    folder = official.locate(name)
    return str(folder) if folder else None


def _has_sklearn() -> bool:
    from importlib.util import find_spec

    return find_spec("sklearn") is not None


def _sums(name: str, progress: console.Progressing) -> int:
    """How many files of a set have a checksum, and it is theirs."""
    where = _where(name)
    if name == "digits" or where is None:
        return 0
    folder = Path(where)
    checked = 0
    for source in official.SETS[name].sources if name in official.SETS else ():  # with what their publishers state
        path = (folder.parent if source.file.endswith(".tar.gz") else folder) / source.file
        if path.exists() and folder.parent == default_cache():
            official.fetch(source, path.parent, folder.parent / "SHA256SUMS")
            checked += 1
    listed = folder.parent / "SHA256SUMS"
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
    expected = {file: digest for digest, _, file in (line.partition("  ") for line in lines)}
    mine = {file: digest for file, digest in expected.items() if file.startswith(f"{folder.name}/")}
    for i, (file, digest) in enumerate(mine.items()):
        progress(f"checking {name}", i, len(mine))
        path = folder.parent / file
        if not path.is_file():
            raise DataError(f"{path} is listed in {listed} and not there", "fetch this file again")
        with path.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != digest:
                raise DataError(f"{path} has not the checksum that {listed} states", "fetch this file again")
    return checked + len(mine)


def _read(name: str) -> dict[str, int]:
    """What a set holds, read by its loader, which checks it."""
    if name == "traces":
        from duetto.simulation import link

        networks = [link.named(network) for network in link.NAMES if "<" not in network]
        return {"networks": len(networks), "links": sum(len(network.links) for network in networks)}
    if name == "digits":
        from duetto.tasks import load

        read = load(name).data
    else:
        from duetto.tasks import arff, idx, leaf, sensors

        folder = official.locate(name)
        assert folder is not None
        readers: Mapping[str, Callable[[Path], ByUser]] = {
            "mnist": idx.by_writer,
            "mnist_by_writer": leaf.read,
            "wisdm_ar_v1.1": arff.read,
            "har_spsw": sensors.read,
        }
        read = readers[folder.name](folder)
    return {"users": len(read.users), "rows": len(read.y), "classes": len(read.classes)}


def _spread(task: Task, names: tuple[str, ...]) -> dict[str, Any]:
    rows = [task.data.rows(name) for name in names]
    counts = np.array([len(own) for own in rows])
    classes = np.array([len(np.unique(task.data.y[own])) for own in rows])

    def spread(values: np.ndarray) -> dict[str, float]:
        return {"min": int(values.min()), "median": float(np.median(values)), "max": int(values.max())}

    return {
        "users": len(names),
        "rows": int(counts.sum()),
        "rows_per_user": spread(counts),
        "classes_per_user": spread(classes),
    }


def _show(task: str, loaded: Task, groups: Mapping[str, Mapping[str, Any]]) -> None:
    from rich import box
    from rich.table import Table

    shape = " x ".join(map(str, loaded.data.x.shape[1:]))
    out = console.out()
    out.print(
        f"[bold]{task}[/]: {len(loaded.data.users):,} users, {len(loaded.data.y):,} rows of {shape}, "
        f"{len(loaded.data.classes)} classes ({', '.join(loaded.data.classes)})\n"
    )
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    drawn.add_column("group", header_style="bold")
    for head in ("users", "rows", "rows a user", "classes a user"):
        drawn.add_column(head, justify="right")
    for group, of in groups.items():
        ranges = (
            f"{s['min']:,} – {s['median']:g} – {s['max']:,}" for s in (of["rows_per_user"], of["classes_per_user"])
        )
        drawn.add_row(group, f"{of['users']:,}", f"{of['rows']:,}", *ranges)
    out.print(drawn)
    out.print("[dim]least – median – most[/]")
    if loaded.train is not None:
        out.print(f"[dim]The cloud trains on {len(loaded.train):,} rows that device users gave before.[/]")
