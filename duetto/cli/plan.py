"""``duetto plan``: where to cut a model for a device and a network, and whether to cut it at all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import typer

from duetto.cli import console, model, running
from duetto.cli import profile as profiles
from duetto.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from duetto.programs.plan import Outlook

EXAMPLES = console.examples(
    ("duetto plan resnet18 --device low-end-phone --network 4g", "each cut's latency, energy and bytes; split or not"),
    (
        "duetto plan handwriting.large --objective energy --every 2",
        "an answer every two seconds",
    ),
    ("duetto plan net.py:Net --inputs rows.npy --up 3 --rtt 60", "your module, its inputs, a link of 3 Mbit/s up"),
    ("duetto plan handwriting.small --leakage runs/leak-handwriting --max-leakage 0.6", "as private as that"),
    ("duetto plan resnet18 --network 4g --save phone-4g --open", "a page with maps over bandwidth and round trip"),
    ("duetto plan vit-s16 --device pi.json --like raspberry-pi-4", "what `duetto profile` measured on the device"),
)
_ALIAS = {"3g": "3g-commute", "4g": "4g-commute"}


def _devices() -> list[str]:
    from duetto.simulation import energy

    return list(energy.profiles())


def plan(
    name: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A network of the zoo, TASK.small, TASK.large, or MODULE:NAME.",
            autocompletion=lambda: list(model.zoo()),
        ),
    ],
    device: Annotated[
        str,
        typer.Option(
            help="A device of `duetto info --devices`, or a file of `duetto profile`.", autocompletion=_devices
        ),
    ] = "mid-phone",
    cloud: Annotated[str, typer.Option(help="What computes in the cloud.", autocompletion=_devices)] = "cloud-gpu",
    network: Annotated[str, running.Network] = "wifi",
    up: Annotated[float | None, typer.Option(help="Mbit/s up, instead of a network's median.")] = None,
    rtt: Annotated[float | None, typer.Option(help="Milliseconds of a round trip, instead of a network's.")] = None,
    queue: Annotated[float, typer.Option(min=0, help="Milliseconds that a question waits in the cloud.")] = 0.0,
    objective: Annotated[Literal["latency", "energy", "price"], typer.Option(help="What counts.")] = "latency",
    every: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds between answers, with the radio's tail. [dim]\\[default: a whole tail][/]"),
    ] = None,
    inputs: Annotated[Path | None, typer.Option(help="A .npy file of inputs, [rows, ...].")] = None,
    shape: Annotated[str | None, typer.Option(help="Of one input, such as 3,224,224.")] = None,
    codec: Annotated[
        list[str] | None,
        typer.Option(help="What may code the features; may be repeated. [dim]\\[default: float32+zstd, int8+zstd][/]"),
    ] = None,
    floor: Annotated[
        int, typer.Option(min=0, help="Stages that must be done before anything may leave the device.")
    ] = 0,
    leakage: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Folder of a run of `duetto leak` of this model.")
    ] = None,
    max_leakage: Annotated[
        float | None,
        typer.Option(help="The most that a way may leak for the worst tenth of users; unmeasured cuts are above it."),
    ] = None,
    like: Annotated[
        str, typer.Option(help="With a file as device: whose watts and overhead it has.", autocompletion=_devices)
    ] = "mid-phone",
    svg: Annotated[Path | None, typer.Option(help="Write a picture of the ways to answer.")] = None,
    save: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Keep it as a run, with a page of maps; `duetto report` compares several."),
    ] = None,
    runs_dir: running.RunsDir = Path("runs"),
    opened: Annotated[bool, typer.Option("--open/--no-open", help="Show that page in a browser.")] = False,
    as_json: running.Json = False,
) -> None:
    """Where to cut a model, beside the device alone and the cloud alone, with the verdict."""
    from duetto.evaluation import plot
    from duetto.models import stage
    from duetto.programs import leaked
    from duetto.programs import plan as planning
    from duetto.simulation import energy, link

    if (leakage is None) != (max_leakage is None):
        raise ConfigError("a leakage without a limit, or a limit without", "give --leakage RUN and --max-leakage both")
    if opened and save is None:
        raise ConfigError("a page to be opened, and none kept", "give --save RUN, too")
    into = None if save is None else running.place(runs_dir, save)
    if into is not None:
        planning.claimed(into)
    own, measured = _device(device, like)
    there = _profile(cloud)
    if up is not None and up <= 0:
        raise ConfigError(f"a link of {up:g} Mbit/s", "give a bandwidth above 0")
    net = link.named(_ALIAS.get(network, network))
    at: dict[str, Any] = dict(net.typical())
    if up is not None:
        at |= {"up_mbps": up, "down_mbps": max(up, at["down_mbps"] * up / at["up_mbps"])}
    if rtt is not None:
        at |= {"rtt_seconds": rtt / 1000}
    radio = energy.radios()[net.radio]
    gap = radio.tail_seconds if every is None else every
    with console.stoppable("stopped"), console.Progressing() as progress:
        progress(f"staging {name}", 0, 1)
        found = model.named(name, inputs, shape)
        staged = stage(found.module, found.inputs[:1], proof="stages")
        given = planning.input_of(found.net, found.inputs, found.real)
        progress("coding what crosses each cut", 0, 1)
        seconds = own if measured is None else measured.predicted(staged.stages)
        (entry,) = staged.graph.inputs
        costs = planning.costed(staged, {entry: found.inputs}, seconds, there, names=tuple(codec or planning.USUAL))
        made = planning.planned(
            costs,
            given,
            objective=objective,
            device=own,
            cloud=there,
            radio=radio,
            prices=energy.prices()["default"],
            queue_seconds=queue / 1000,
            gap_seconds=gap,
            first_cut=floor,
            max_leakage=math.inf if max_leakage is None else max_leakage,
            measured=None if leakage is None else leaked.read(leakage, name),
            **at,
        )
    told = _told(made) | {
        "model": name,
        "device": device,
        "cloud": cloud,
        "network": net.name,
        "stages": len(staged),
        "input": {"raw_bytes": given.raw_bytes, "compressed_bytes": given.compressed_bytes, "how": given.how},
        "features_of": "real inputs" if found.real else "noise: give --inputs for the bytes of your own",
    }
    if svg:
        svg.write_text(plot.ways(_bars(made), f"{name} on {device}, {net.name}: {made.verdict.why}"), encoding="utf-8")
        told["svg"] = str(svg)
    if into is not None:
        title = f"{name} on {device}, {net.name}"
        found_maps = [planning.mapped(made, radio, f"{title}, {objective}", gap_seconds=gap)]
        settings = {
            "device": device,
            "cloud": cloud,
            "network": net.name,
            **at,
            "queue_seconds": queue / 1000,
            "objective": objective,
            "gap_seconds": gap,
            "codecs": list(codec or planning.USUAL),
            "first_cut": floor,
            "input": told["input"],
        }
        settings |= {"max_leakage": max_leakage} if max_leakage is not None else {}
        page = planning.kept(into, planning.result(made, into.name, name, title, _notes(told), found_maps), settings)
        told["folder"], told["report"] = str(into), str(page)
    if as_json:
        console.emit(told)
    else:
        _show(told, made)
        if into is not None:
            console.out().print(f"\nReport: {page}", soft_wrap=True, markup=False)
    if opened:
        typer.launch(page.resolve().as_uri())


def _profile(name: str) -> Any:
    from duetto.simulation import energy

    if name not in energy.profiles():
        raise console.choose("device", name, list(energy.profiles()))
    return energy.profiles()[name]


def _device(name: str, like: str) -> tuple[Any, Any]:
    """The profile, and the regression of a file."""
    if name.endswith(".json"):
        return _profile(like), profiles.read(Path(name))
    return _profile(name), None


def _told(made: Outlook) -> dict[str, Any]:
    options, costs, verdict = made.options, made.costs, made.verdict
    return {
        "objective": made.objective,
        "link": dict(made.link),
        "verdict": {"split": verdict.split, "take": verdict.label, "gain": verdict.gain, "why": verdict.why},
        "ways": [
            {
                "way": options.label[i],
                "cut": options.cut[i],
                "codec": options.codec[i],
                "seconds": float(costs.seconds[i]),
                "joules": float(costs.joules[i]),
                "dollars": float(costs.dollars[i]),
                "up_bytes": float(options.up_bytes[i]),
                "device_seconds": float(options.device_seconds[i]),
                "cloud_seconds": float(options.cloud_seconds[i]),
            }
            for i in range(len(options))
        ],
        "plans": _plans(made),
    }


def _notes(told: Mapping[str, Any]) -> list[str]:
    """What of it is assumed."""
    notes = ["Costs are expectations by profiles and the bytes of real messages; nothing ran on a device here."]
    if not told["features_of"].startswith("real"):
        notes.append("Features are those of noise: with --inputs they are those of your own, and may code better.")
    if "estimate" in told["input"]["how"]:
        notes.append(f"The compressed input is {told['input']['how']}.")
    return notes


def _plans(made: Outlook) -> list[dict[str, Any]]:
    """What is best from which bandwidth to which, with no queue."""
    found: list[dict[str, Any]] = []
    for mbps, best in zip(made.table.up_mbps, made.table.best[:, 0], strict=True):
        label = made.table.options.label[best]
        if found and found[-1]["take"] == label:
            found[-1]["to_mbps"] = float(mbps)
        else:
            found.append({"take": label, "from_mbps": float(mbps), "to_mbps": float(mbps)})
    return found


def _bars(made: Outlook) -> list[tuple[str, tuple[float, float, float], bool]]:
    """Of every way its seconds on the device, on the link, in the cloud; and whether it is taken."""
    from duetto.programs.plan import chosen

    options, bars = made.options, []
    for i in chosen(made):
        here, there = float(options.device_seconds[i]), float(options.cloud_seconds[i])
        taken = options.label[i] == made.verdict.label
        bars.append((options.label[i], (here, max(0.0, float(made.costs.seconds[i]) - here - there), there), taken))
    return bars


def _show(told: dict[str, Any], made: Outlook) -> None:
    from rich.text import Text

    out, at = console.out(), told["link"]
    given = told["input"]
    out.print(Text(f"{told['model']} on {told['device']}, {told['cloud']} behind {told['network']}", "bold"))
    out.print(
        f"{at['up_mbps']:.3g} Mbit/s up, {at['rtt_seconds'] * 1000:.0f} ms round trip; "
        f"input {given['raw_bytes'] / 1000:.4g} kB, {given['compressed_bytes'] / 1000:.4g} kB as {given['how']}; "
        f"features of {told['features_of']}",
        highlight=False,
    )
    out.print()
    out.print(_table(made))
    out.print()
    out.print(Text("best over bandwidth: ", "bold"), end="")
    out.print(
        "; ".join(f"{each['take']} ({each['from_mbps']:.2g}–{each['to_mbps']:.2g} Mbit/s)" for each in told["plans"]),
        highlight=False,
    )
    out.print(Text(made.verdict.why, "bold green" if made.verdict.split else "bold yellow"))


def _short(label: str) -> str:
    return label.replace("input as it is", "raw").replace("input compressed", "compressed")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _table(made: Outlook) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from duetto.programs.plan import chosen

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for i, head in enumerate(("way to answer", "ms", "device, link, cloud", "mJ", "u$", "kB up")):
        drawn.add_column(head, justify="left" if i in (0, 2) else "right", no_wrap=True)
    bars = _bars(made)
    longest, width = max(sum(parts) for _, parts, _ in bars), 20
    for i, (label, parts, taken) in zip(chosen(made), bars, strict=True):
        cells = np.round(np.cumsum(parts) / longest * width).astype(int)
        bar = Text("█" * cells[0], "cyan") + Text("▒" * (cells[1] - cells[0]), "yellow")
        bar += Text("█" * (cells[2] - cells[1]), "magenta")
        drawn.add_row(
            f"{'▸ ' if taken else '  '}{_short(label)}",
            _number(1e3 * made.costs.seconds[i]),
            bar,
            _number(1e3 * made.costs.joules[i]),
            _number(1e6 * made.costs.dollars[i]),
            _number(made.options.up_bytes[i] / 1e3),
            style="bold" if taken else "",
        )
    return drawn
