"""A model's first stages on a device without torch: ONNX files from one cut to the next, walked one by one.

Files of ExecuTorch are walked as well; its Python runtime needs torch, those of phones do not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from duetto.device.artefact import session
from duetto.errors import ConfigError, DataError
from duetto.tree import Tree
from duetto.types import Work

_PART = ("start", "stop", "file", "work", "takes", "gives")  # what stages.json says of each


@dataclass(frozen=True, eq=False)
class Part:
    """The stages between two cuts, in one file: from one frontier to the next, as :class:`duetto.models.Half`.

    Attributes:
        path: of the file.
        inputs, outputs: what crosses, by name: its tensor in the file, its axes as ``a * rows + b``, its dtype.
        cost: ``flops`` and ``bytes`` of a row.
        threads: for one answer.
        providers: execution providers of onnxruntime, the first that is there; see :class:`Stages`.
    """

    path: str
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    cost: Mapping[str, float]
    threads: int = 1
    providers: tuple[str, ...] = ("CPUExecutionProvider",)

    def __call__(self, tree: Tree) -> dict[str, np.ndarray]:
        """Compute them.

        Raises:
            ConfigError: onnxruntime is not installed, or without such a provider.
            DataError: a file that is missing or damaged, or features that do not fit.
        """
        self.rows(tree)
        feeds = {told["tensor"]: np.ascontiguousarray(tree[name]) for name, told in self.inputs.items()}
        if self.path.endswith(".pte"):
            return dict(zip(self.outputs, _executed(self.path, list(feeds.values())), strict=True))
        wanted = [told["tensor"] for told in self.outputs.values()]
        return dict(zip(self.outputs, session(self.path, self.threads, self.providers).run(wanted, feeds), strict=True))

    def rows(self, tree: Tree) -> int:
        """The number of rows in features that fit.

        Raises:
            DataError: they do not.
        """
        if not isinstance(tree, Mapping) or not set(self.inputs) <= set(tree):
            names = sorted(tree) if isinstance(tree, Mapping) else "no branch"
            raise DataError(f"features named {names}", f"these stages take {sorted(self.inputs)}")
        rows = None
        for name, told in self.inputs.items():
            array = np.asarray(tree[name])
            if rows is None:
                pairs = zip(array.shape, told["axes"], strict=False)
                rows = next(((n - b) // a for n, (a, b) in pairs if a), None)
            wanted = [a * (rows or 1) + b for a, b in told["axes"]]
            if list(array.shape) != wanted or array.dtype.name != told["dtype"]:
                raise DataError(f"{name} of {array.shape} {array.dtype}", f"give {tuple(wanted)} {told['dtype']}")
        return 1 if rows is None else rows

    def work(self, rows: int = 1) -> Work:
        """As the file tells."""
        return Work(self.cost["flops"] * rows, self.cost["bytes"] * rows)


@dataclass(frozen=True, eq=False)
class Stages:
    """What :func:`duetto.models.export.stages` wrote: ``stages[a:b]`` for two cuts next to each other, and exits.

    It stands where a :class:`duetto.models.Staged` would, as what :class:`~duetto.protocols.stages.Advance` walks.

    Attributes:
        folder: with ``stages.json``.
        threads: for one answer; 1 leaves the other cores to the application.
        providers: execution providers of onnxruntime in the order of preference, such as ``XnnpackExecutionProvider``,
            ``NnapiExecutionProvider`` or ``CoreMLExecutionProvider`` where that build of it has them.

    Raises:
        DataError: no folder that was written so.
    """

    folder: str
    threads: int = 1
    providers: tuple[str, ...] = ("CPUExecutionProvider",)

    def __post_init__(self) -> None:
        _ = self._told

    def __len__(self) -> int:
        return int(self._told["stages"])

    @property
    def cuts(self) -> tuple[int, ...]:
        """After which the device can stop."""
        return tuple(part["stop"] for part in self._told["parts"])

    @cached_property
    def exits(self) -> Mapping[int, Part]:
        """Cut -> what answers there."""
        found = {part["stop"]: self._part(part["exit"]) for part in self._told["parts"] if "exit" in part}
        return MappingProxyType(found)

    def __getitem__(self, cut: slice) -> Part:
        """The stages between two cuts next to each other.

        Raises:
            ConfigError: this device does not hold just these.
        """
        for part in self._told["parts"]:
            if (cut.start or 0, cut.stop) == (part["start"], part["stop"]):
                return self._part(part)
        raise ConfigError(f"stages {cut.start} to {cut.stop}", f"this device was given the cuts {self.cuts}")

    def _part(self, told: Mapping[str, Any]) -> Part:
        path = str(Path(self.folder) / told["file"])
        return Part(path, told["takes"], told["gives"], told["work"], self.threads, self.providers)

    @cached_property
    def _told(self) -> Mapping[str, Any]:
        path = Path(self.folder) / "stages.json"
        try:
            told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            parts: Sequence[Mapping[str, Any]] = told["parts"]
            if told["format"] != 1 or not all(set(_PART) <= set(part) for part in parts):
                raise ValueError("another format")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} cannot be read ({error})", "write it with duetto.models.export.stages") from error
        return told


def _executed(path: str, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """What the method of an ExecuTorch file gives."""
    _, method, as_tensor = _method(path)
    return [each.numpy() for each in method.execute([as_tensor(each) for each in inputs])]


@lru_cache(maxsize=32)
def _method(path: str) -> tuple[Any, Any, Any]:
    """The program of a file, its method, which dies with it, and what makes inputs.

    Raises:
        ConfigError: ExecuTorch is not installed.
        DataError: a file that is missing or damaged.
    """
    try:
        runtime = import_module("executorch.runtime").Runtime.get()
        as_tensor = import_module("torch").from_numpy
    except ImportError as error:
        raise ConfigError(f"ExecuTorch is not installed ({error})", "give this device ONNX files") from error
    try:
        program = runtime.load_program(Path(path))
        return program, program.load_method("forward"), as_tensor
    except (OSError, RuntimeError) as error:
        raise DataError(f"{path} is no program ({error})", "fetch the artefact again") from error
