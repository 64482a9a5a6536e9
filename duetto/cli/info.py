"""``duetto info``: what is installed and found here, and what a task's two models cost on a device."""

from __future__ import annotations

import os
import platform
import re
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from duetto import __version__
from duetto.cli import console, running
from duetto.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

EXAMPLES = console.examples(
    ("duetto info", "versions, extras, data and cache"),
    ("duetto info --task handwriting", "the pair: parameters, bytes, seconds an answer on each device"),
    ("duetto info --model handwriting.small", "how each of its layers is trained when many clients train at once"),
    ("duetto info --devices --networks", "what a simulation can be made of"),
)
_SHOWN = ("torch", "numpy", "scikit-learn", "zstandard", "safetensors", "onnxruntime", "httpx", "tensorboard")


def info(
    task: Annotated[
        str | None,
        typer.Option(help="The small and the large model of this task.", autocompletion=lambda: list(running.TASKS)),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="How its layers are trained for many clients: TASK.small, TASK.large, or MODULE:NAME of a Net."
        ),
    ] = None,
    devices: Annotated[bool, typer.Option("--devices", help="The devices that can be simulated.")] = False,
    networks: Annotated[bool, typer.Option("--networks", help="The networks that can be simulated.")] = False,
    as_json: running.Json = False,
) -> None:
    """What is installed and found here; with a task, what its models cost."""
    found: dict[str, Any] = {}
    if not (task or model or devices or networks):
        found |= _here()
    if devices:
        found["devices"] = _devices()
    if networks:
        found["networks"] = _networks()
    if model:
        found["model"] = _model(model)
    if task:
        running.data_root()
        with console.stoppable("stopped"), console.Progressing() as progress:
            progress(f"reading {task}", 0, 1)
            found["pair"] = _pair(task)
    if as_json:
        console.emit(found)
        return
    out = console.out()
    for i, name in enumerate(found):
        if i:
            out.print()
        out.print(_drawn(name, found[name]))


# ------------------------------------------------------------------------------------------------------ what it finds


def _here() -> dict[str, Any]:
    from duetto.folders import default_cache
    from duetto.tasks import official

    cache = default_cache()
    files = [path for path in cache.rglob("*") if path.is_file()] if cache.is_dir() else []
    root = running.data_root()
    return {
        "versions": {
            "duetto": __version__,
            "python": platform.python_version(),
            **{name: version for name in _SHOWN if (version := _version(name))},
        },
        "extras": extras(),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "threads": os.environ.get("OMP_NUM_THREADS", "1"),
        },
        "data": {
            "DUETTO_DATA": str(root) if root else None,
            **{name: str(place) if (place := official.locate(name)) else None for name in official.SETS},
            "traces": str(root / "traces") if root and (root / "traces" / "index.csv").is_file() else None,
        },
        "cache": {
            "folder": str(cache),
            "bytes": sum(path.stat().st_size for path in files),
            "models": sum(path.parent.name == "models" and path.suffix == ".safetensors" for path in files),
        },
    }


def extras() -> dict[str, list[str]]:
    """What each extra of the distribution still lacks; an empty list: it is there."""
    lacks: dict[str, list[str]] = {}
    for wanted in metadata.requires("duetto") or ():
        name, extra = re.match(r"[\w.-]+", wanted), re.search(r"extra == ['\"]([\w-]+)['\"]", wanted)
        if name and extra and name[0] != "duetto":  # an extra that is made of others says nothing new
            missing = lacks.setdefault(extra[1], [])
            if _version(name[0]) is None:
                missing.append(name[0])
    return lacks


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> dict[str, dict[str, float]]:
    from dataclasses import asdict

    from duetto.simulation import energy

    return {name: asdict(profile) for name, profile in energy.profiles().items()}


def _networks() -> dict[str, dict[str, Any]]:
    """Each network's radio, links, median bandwidths and round trip; those without their traces say what is missing."""
    from duetto.errors import DataError
    from duetto.simulation import link

    found: dict[str, dict[str, Any]] = {}
    for name in link.NAMES:
        try:
            network = link.named(name.replace("<mbps>", "10"))
        except DataError as error:
            found[name] = {"missing": str(error)}
            continue
        found[name] = {"radio": network.radio, "links": len(network.links), **network.typical()}
    return found


def _model(text: str) -> dict[str, Any]:
    """How a network's layers are trained for many clients in one call.

    Raises:
        ConfigError: no such network.
    """
    from duetto.models import Net
    from duetto.tasks import load
    from duetto.training.cohort.split import Unsplit, split

    module, colon, name = text.partition(":")
    if colon:
        try:
            net = getattr(import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(f"{text!r} cannot be imported ({error})", "name it as MODULE:NAME") from error
    else:
        task, dot, role = text.rpartition(".")
        if not dot or role not in ("small", "large"):
            raise ConfigError(f"no model is called {text!r}", "use TASK.small, TASK.large, or MODULE:NAME of a Net")
        net = getattr(load(task), role)
    if not isinstance(net, Net):
        raise ConfigError(f"{text!r} is a {type(net).__name__}", "name a duetto.models.Net, not its class")
    told = {"model": repr(net), "parameters": net.parameters}
    try:
        return told | {"layers": dict(split(net).paths)}
    except Unsplit as fault:
        return told | {"layers": {}, "one_by_one": str(fault)}


def _pair(name: str) -> dict[str, Any]:
    from duetto import tree
    from duetto.folders import default_cache
    from duetto.programs.closed_loop import MODEL
    from duetto.simulation import energy
    from duetto.tasks import load, pair

    task = load(name)
    cached = Path(default_cache() / "models" / f"{name}-{pair.digest(task)}.safetensors").exists()
    small = pair.trained(task).small if cached else task.small.init(task.seed)
    stored = len(tree.encode(MODEL.encode(MODEL.init(), small, ("info",))[1]))
    told = {}
    for role, net in (("small", task.small), ("large", task.large)):
        told[role] = {
            "model": repr(net),
            "parameters": net.parameters,
            "flops": net.work(1).flops,
            "seconds": {name: energy.compute(of, net.work(1))[0] for name, of in energy.profiles().items()},
            "joules": {name: energy.compute(of, net.work(1))[1] for name, of in energy.profiles().items()},
        }
    told["small"]["stored_bytes"] = stored
    return {"task": name, "trained": cached, **told}


# -------------------------------------------------------------------------------------------------------- how it looks


def _drawn(name: str, value: Any) -> RenderableType:
    if name == "devices":
        return _device_table(value)
    if name == "networks":
        return _network_table(value)
    if name == "pair":
        return _pair_table(value)
    if name == "model":
        return _layer_table(value)
    return _list(name, value)


def _table(*heads: str) -> Table:
    from rich import box
    from rich.table import Table

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for i, head in enumerate(heads):
        drawn.add_column(head, justify="right" if i else "left", header_style="bold" if not i else "", no_wrap=not i)
    return drawn


def _list(name: str, values: dict[str, Any]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    drawn = Table.grid(padding=(0, 2))
    drawn.add_column(no_wrap=True, min_width=14)
    drawn.add_column(overflow="fold")
    drawn.add_row(Text(name, "bold"), "")
    for key, value in values.items():
        if isinstance(value, list):  # an extra
            said = Text(f"lacks {', '.join(value)}: pip install 'duetto[{key}]'", "dim") if value else Text("installed")
        elif value is None:
            said = Text("not set" if key == "DUETTO_DATA" else "not here", "dim")
        else:
            said = Text(f"{value / 1e6:,.1f} MB" if key == "bytes" else str(value))
        drawn.add_row(Text(f"  {'size' if key == 'bytes' else key}"), said)
    return drawn


def _device_table(devices: dict[str, dict[str, float]]) -> Table:
    drawn = _table("device", "GFLOP/s", "GB/s", "W computing", "W at rest", "ms a call")
    for name, of in devices.items():
        drawn.add_row(
            name,
            f"{of['flops'] / 1e9:,.0f}",
            f"{of['memory_bandwidth'] / 1e9:,.0f}",
            f"{of['compute_watts']:g}",
            f"{of['idle_watts']:g}",
            f"{of['overhead_seconds'] * 1000:g}",
        )
    return drawn


def _network_table(networks: dict[str, dict[str, Any]]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    drawn = _table("network", "radio", "links", "Mbit/s down", "up", "round trip, ms")
    for name, of in networks.items():
        if "<" in name:
            drawn.add_row(name, of["radio"], "1", "as named", "as named", f"{1000 * of['rtt_seconds']:.0f}")
        elif "missing" not in of:
            rates = (f"{of['down_mbps']:.1f}", f"{of['up_mbps']:.1f}", f"{1000 * of['rtt_seconds']:.0f}")
            drawn.add_row(name, of["radio"], str(of["links"]), *rates)
    missing = [name for name, of in networks.items() if "missing" in of]
    if not missing:
        return drawn
    return Group(drawn, Text(f"with the traces that DUETTO_DATA would name: {', '.join(missing)}", "dim"))


def _layer_table(model: dict[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    drawn = _table("layer", "when many clients train at once")
    for path, phrase in model["layers"].items():
        drawn.add_row(path or "(its own parameters)", phrase)
    if "one_by_one" in model:
        drawn.add_row("all of it", f"one client after the other: {model['one_by_one']}")
    return Group(Text(f"{model['model']}\n{model['parameters']:,} parameters\n"), drawn)


def _pair_table(pair: dict[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    small, large = pair["small"], pair["large"]
    drawn = _table(pair["task"], "small", "large")
    drawn.add_row("parameters", f"{small['parameters']:,}", f"{large['parameters']:,}")
    drawn.add_row("kB at eight bits, as stored", f"{small['stored_bytes'] / 1e3:,.1f}", "–")
    drawn.add_row("MFLOP an answer", f"{small['flops'] / 1e6:,.3g}", f"{large['flops'] / 1e6:,.3g}")
    drawn.add_section()
    for device, seconds in small["seconds"].items():
        drawn.add_row(f"ms on {device}", f"{1000 * seconds:.3g}", f"{1000 * large['seconds'][device]:.3g}")
    if pair["trained"]:
        return drawn
    return Group(drawn, Text("not trained yet: stored bytes are those of fresh parameters", "dim"))
