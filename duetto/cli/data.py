"""``duetto data``: which data sets are here, fetching them, looking at them, and checking them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from duetto.cli import console, running
from duetto.errors import ConfigError, DataError
from duetto.folders import default_cache
from duetto.tasks import official
from duetto.tasks.partition import NAMES, Partition, Skew, counts, named, skew
from duetto.types import rng

if TYPE_CHECKING:
    from duetto.tasks import ByUser
    from duetto.tasks.task import Task
    from duetto.tree import Array


@dataclass(frozen=True)
class About:
    """A set in words: what it is, and what its licence allows."""

    what: str
    licence: str


ABOUT: Mapping[str, About] = {
    "digits": About("8x8 digits, dealt to 40 invented users", "CC BY 4.0 (UCI); comes with scikit-learn"),
    "cifar": About("CIFAR-10 images, dealt to invented users", "none stated by the authors; research, with citation"),
    "handwriting": About("28x28 digits by the person who wrote them", "CC BY-SA 3.0 (MNIST), BSD-like (QMNIST)"),
    "activity": About("activities by person, 43 features of 10 s of a phone", "research, with citation (WISDM)"),
    "ratings": About("films by the person who rated them (MovieLens)", "research, with citation; do not pass on"),
    "shakespeare": About("the next character by role, 37 plays", "public domain text"),
    "tweets": About("opinions on airlines by the person who tweeted", "CC BY-NC-SA 4.0 (Kaggle)"),
    "sensors": About("raw phone and watch signals by person", "CC BY 4.0 (GeoTecINIT)"),
    "traces": About("bandwidth of 3G, 4G, 5G and fixed links", "research, with citation; per set: its README"),
}

SHADES = {0.0: "·", 0.05: "░", 0.2: "▒", 0.4: "▓", 0.7: "█"}  # from this share of a user's rows on

app = typer.Typer(
    cls=console.Commands,
    rich_markup_mode="rich",
    epilog=console.examples(
        ("duetto data list", "what is here, and where"),
        ("duetto data get handwriting", "fetch it from its publishers into the cache (12 MB)"),
        ("duetto data show handwriting", "its users"),
        ("duetto data show cifar --partition dirichlet:0.1", "other users: what they have of which class"),
        ("duetto data check", "checksums and contents of all that is here"),
    ),
)


def _sets() -> list[str]:
    return [name for name, known in official.SETS.items() if known.sources]


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
        out.print(Text.assemble((f"{name:<12}", "green" if place else "dim"), place or _missing(name)), soft_wrap=True)


@app.command(epilog=console.examples(("duetto data get handwriting", "go on where it broke off, if it did")))
def get(
    name: Annotated[str, typer.Argument(help="A set.", autocompletion=_sets, show_default=False)],
    as_json: running.Json = False,
) -> None:
    """Fetch a set from its publishers into the cache, and check it; what is there is not fetched again."""
    if name in ABOUT and name not in official.SETS:
        raise ConfigError(f"{name} cannot be fetched", f"get one of {', '.join(_sets())}; see `duetto data list`")
    kept = "stopped; what was fetched is kept, and the same command goes on"
    with console.stoppable(kept), console.Progressing("bytes") as progress:
        folder = official.get(name, progress=progress)
    if as_json:
        console.emit({"set": name, "folder": str(folder)})
    else:
        console.out().print(f"{name}: {folder}", soft_wrap=True, markup=False)


@app.command(
    epilog=console.examples(
        ("duetto data show activity", "people, their rows, and how uneven they are"),
        ("duetto data show cifar --partition shards:2 --users 50", "50 invented users, with about two classes each"),
        ("duetto data show digits --partition dirichlet:0.1 --picture skew.svg", "the same as a picture"),
    )
)
def show(
    task: Annotated[
        str, typer.Argument(help="A task.", autocompletion=lambda: list(running.TASKS), show_default=False)
    ],
    partition: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help=f"Deal the rows anew: {', '.join(NAMES)}.", autocompletion=lambda: list(NAMES)
        ),
    ] = None,
    users: Annotated[
        int | None, typer.Option(help="How many the partition invents. [dim]\\[default: as the task has][/]")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the partition as a picture (SVG), too.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws who belongs to which group, and the partition.")] = 0,
    as_json: running.Json = False,
) -> None:
    """The users of a task: how many in each group, their rows and classes, and how these are spread.

    With a partition: which user has how much of which class, and how much users differ.
    """
    running.data_root()
    if partition is None and (users is not None or picture is not None):
        raise ConfigError("no partition is named", f"name one, such as --partition {NAMES[1]}")
    if partition == "natural" and users is not None:
        raise ConfigError("a number of users for those that there are", "leave out --users, or choose a partition")
    with console.stoppable("stopped"), console.Progressing() as progress:
        progress(f"reading {task}", 0, 1)
        from duetto.tasks import load

        loaded = load(task, seed)
    if partition is not None:
        dealt = named(partition, len(loaded.data.users) if users is None else users)
        _partition(task, dealt, dealt(loaded.data, seed), seed, picture, as_json)
        return
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
            raise DataError(f"{name} is not here", _remedy(name))
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


def _missing(name: str) -> str:
    """That a set is not here, and how to get it, in a few words."""
    if name not in official.SETS:
        return "not here: set DUETTO_DATA"
    known = official.SETS[name]
    return f"not here: `duetto data get {name}`" if known.sources else f"not here: {known.page}"


def _remedy(name: str) -> str:
    """How to get a set."""
    if name in official.SETS and not official.SETS[name].sources:
        return official.by_hand(name)
    get_it = f"or run `duetto data get {name}`" if name in official.SETS else "which holds traces/"
    return f"set DUETTO_DATA to a folder that holds it, {get_it}"


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
    if name in ("digits", "cifar"):  # whose users are invented
        from duetto.tasks import load

        read = load(name).data
    else:
        from duetto.tasks import arff, idx, leaf, ratings, sensors, shakespeare, tweets

        folder = official.locate(name)
        assert folder is not None
        readers: Mapping[str, Callable[[Path], ByUser]] = {
            "mnist": idx.by_writer,
            "mnist_by_writer": leaf.read,
            "wisdm_ar_v1.1": arff.read,
            "har_spsw": sensors.read,
            "ml-100k": lambda folder: ratings.read(folder)[0],
            "ml-1m": lambda folder: ratings.read(folder)[0],
            "shakespeare": lambda folder: shakespeare.read(folder, step=8),
            "airline_sentiment": tweets.read,
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


def _partition(task: str, how: Partition, data: ByUser, seed: int, picture: Path | None, as_json: bool) -> None:
    """Who has which rows, in the terminal or as JSON, and perhaps as a picture."""
    table, found = counts(data), skew(data)
    by_chance = skew(replace(data, y=rng((seed, "by chance")).permutation(data.y)))
    if picture is not None:
        from duetto.evaluation import plot

        chosen = _arranged(table, plot.MANY)
        names = [data.users[i] for i in chosen]
        title = f"{task}: {how}" + (f"; {len(chosen)} of {len(table)}" if len(chosen) < len(table) else "")
        picture.write_text(plot.partition(table[chosen], names, data.classes, title), encoding="utf-8")
    if as_json:
        told = {"task": task, "partition": repr(how), "says": str(how), "classes": list(data.classes)}
        figures = {"skew": asdict(found), "skew_by_chance": asdict(by_chance)}
        by_user = dict(zip(data.users, table.tolist(), strict=True))
        console.emit(told | figures | {"users": by_user, "picture": str(picture) if picture else None})
        return
    out = console.out()
    out.print(f"[bold]{task}[/]: {how}\n")
    for line in _figures(found, by_chance):
        out.print(line)
    out.print()
    chosen = _arranged(table, 24)
    for line in heat(table[chosen], [data.users[i] for i in chosen], data.classes, out.width):
        out.print(line, style="cyan", markup=False, soft_wrap=True)
    if len(chosen) < len(table):
        out.print(f"[dim]{len(chosen)} of {len(table)} users, by their main class[/]")
    scale = ", ".join(f"{shade} from {least:.0%}" for least, shade in SHADES.items() if least)
    out.print(f"[dim]of a user's rows: {SHADES[0.0]} some, {scale}[/]")
    out.print("\n[bold]rows a user[/]")
    for label, count, bar in histogram(table.sum(1)):
        out.print(f"{label}  {count:>5} [cyan]{bar}[/]")
    if picture is not None:
        out.print(f"\nPicture: {picture}", soft_wrap=True, markup=False)


def _figures(found: Skew, by_chance: Skew) -> list[str]:
    return [
        f"rows a user      {found.rows_median:g} in the median, most to fewest {found.rows_ratio:,.1f}",
        f"classes a user   {found.classes:.1f} in effect ({by_chance.classes:.1f} by chance alone)",
        f"total variation  {found.distance:.2f} from the whole's classes ({by_chance.distance:.2f} by chance alone)",
    ]


def _arranged(table: Array, most: int) -> Array:
    """Indices of users by their main class, those with most of it first; evenly thinned to ``most``."""
    shares = table / table.sum(1, keepdims=True)
    order = np.lexsort((-shares.max(1), shares.argmax(1)))
    return order[np.linspace(0, len(order) - 1, min(most, len(order))).round().astype(int)]


def heat(table: Array, names: Sequence[str], classes: Sequence[str], width: int) -> list[str]:
    """A line a user, a column a class, as wide as there is room: the share of the user's rows as a shade."""
    first, rows = max(map(len, names)), len(f"{table.sum(1).max():,}")
    first, rows = min(max(first, 4), 12), max(rows, 4)
    cell = max(1, min(8, (width - first - rows - 3) // len(classes)))
    head = "".join(f"{name[: cell - 1]:<{cell}}" for name in classes) if cell > 2 else ""
    lines = [f"{'user':<{first}} {'rows':>{rows}}  {head}"]
    shares = table / table.sum(1, keepdims=True)
    shades = np.array([" ", *SHADES.values()])[(shares > 0) * np.searchsorted([*SHADES], shares, side="right")]
    for name, own, drawn in zip(names, table.sum(1), shades, strict=True):
        cells = "".join(f"{shade * max(1, cell - 1):<{cell}}" for shade in drawn)
        lines.append(f"{name[:first]:<{first}} {own:>{rows},}  {cells}".rstrip())
    return lines
