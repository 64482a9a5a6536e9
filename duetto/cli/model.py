"""A model by its name on the command line: a network of the zoo, of a task, or anything that can be imported."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from duetto.cli import console
from duetto.errors import ConfigError, DataError

ROWS = 8  # inputs that a plan is measured with


def zoo() -> dict[str, Callable[[], Any]]:
    """The networks that a plan can be tried with, by name, each at its natural input."""
    from duetto.models import Mobile, Speech, Text
    from duetto.models.zoo import alexnet, resnet18, vgg11, vit_s16

    return {
        "alexnet": alexnet,
        "vgg11": vgg11,
        "resnet18": resnet18,
        "mobilenet-v2": lambda: Mobile((3, 224, 224), 1000),
        "vit-s16": vit_s16,
        "speech": lambda: Speech((80, 1000), 1000),
        "text": lambda: Text((128,), 2, 30_000, 768, 6, 12),
    }


@dataclass(frozen=True, eq=False)
class Named:
    """A model, and inputs of it.

    Attributes:
        name: as it was called.
        net: its description, where it has one.
        module: the module.
        inputs: ``[rows, ...]``.
        real: whether the inputs are somebody's, not noise.
    """

    name: str
    net: Any
    module: Any
    inputs: np.ndarray
    real: bool


def named(text: str, inputs: Path | None = None, shape: str | None = None, *, trained: bool = False) -> Named:
    """The model of that name.

    Args:
        text: a network of :func:`zoo`, TASK.small or TASK.large (trained where the cache has them), or MODULE:NAME of a
            ``duetto.models.Net``, a ``torch.nn.Module``, or a function that returns one.
        inputs: a ``.npy`` file of inputs ``[rows, ...]``; without it, the task's, else noise.
        shape: of one input, such as 3,224,224, where the model does not say.
        trained: train a task's pair where the cache has none; else parameters are random there, which costs the same.

    Raises:
        ConfigError: no such model, or a module without inputs or a shape; or random parameters where ``trained``.
        DataError: a file that cannot be read.
    """
    from duetto.models import Net
    from duetto.models.net import built, fitting

    given = _read(inputs) if inputs else None
    module, colon, attribute = text.partition(":")
    task, dot, role = text.rpartition(".")
    if text in zoo():
        if trained:
            raise ConfigError(f"{text} has random parameters here", "name an ONNX file, TASK.large, or MODULE:NAME")
        net = zoo()[text]()
        return Named(text, net, built(net), _inputs(net, given, shape), given is not None)
    if colon:
        found = _imported(module, attribute, text)
        if isinstance(found, Net):
            if trained:
                raise ConfigError(f"{text!r} is a description without parameters", "name a trained torch module")
            return Named(text, found, built(found), _inputs(found, given, shape), given is not None)
        return Named(text, None, found, _inputs(None, given, shape), given is not None)
    if dot and role in ("small", "large"):
        from duetto.folders import default_cache
        from duetto.tasks import load, pair

        loaded = load(task)
        net, model = getattr(loaded, role), built(getattr(loaded, role))
        kept = default_cache() / "models" / f"{task}-{pair.digest(loaded)}.safetensors"
        if trained and not kept.exists():
            console.line(f"training the pair of {task}, once; it is kept in {kept.parent}", "dim")
        if trained or kept.exists():
            model.load_state_dict(fitting(net, getattr(pair.trained(loaded), role)))
        return Named(text, net, model, loaded.public.x[:ROWS] if given is None else given, True)
    names = ", ".join(zoo())
    raise ConfigError(f"no model is called {text!r}", f"use one of {names}, TASK.small, TASK.large, or MODULE:NAME")


def imported(text: str) -> Any:
    """The module of MODULE:NAME, with the parameters that it has.

    Raises:
        ConfigError: it cannot be imported, or is a description without parameters.
    """
    from duetto.models import Net

    module, _, attribute = text.partition(":")
    found = _imported(module, attribute, text)
    if isinstance(found, Net):
        raise ConfigError(f"{text!r} is a description without parameters", "name a trained torch module")
    return found


def _imported(module: str, attribute: str, text: str) -> Any:
    """A Net or a module."""
    from duetto.models import Net
    from duetto.models.staged import Module

    if "" not in sys.path:
        sys.path.insert(0, "")  # a module beside where the command is given, as `python -m` finds it
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{text!r} cannot be imported ({error})", "name it as MODULE:NAME") from error
    if not isinstance(found, Net | Module) and callable(found):
        found = found()
    if not isinstance(found, Net | Module):
        raise ConfigError(f"{text!r} is a {type(found).__name__}", "name a Net, a module, or a function giving one")
    return found


def _inputs(net: Any, given: np.ndarray | None, shape: str | None) -> np.ndarray:
    if given is not None:
        return given
    wanted = _shape(shape) if shape else (net.shape if net is not None else None)
    if wanted is None:
        raise ConfigError("a module without inputs", "give --inputs FILE.npy, or --shape 3,224,224")
    draw = np.random.default_rng(0)
    if type(net).__name__ == "Text":
        return draw.integers(0, net.vocabulary, (ROWS, *wanted))
    return draw.standard_normal((ROWS, *wanted)).astype(np.float32)


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise ConfigError(f"a shape of {text!r}", "write whole numbers: 3,224,224")
    return shape


def _read(path: Path) -> np.ndarray:
    try:
        rows: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error})", "write it with numpy.save") from error
    if rows.ndim < 2 or not len(rows):
        raise DataError(f"{path} holds an array of shape {rows.shape}", "give inputs [rows, ...]")
    return rows[:ROWS]
