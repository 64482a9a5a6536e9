"""The skill of answering with an ONNX file, float32 or int8: what a device without torch answers with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.tree import Tree
from duetto.types import Key, Local, Skill, Work


@dataclass(frozen=True)
class Artefact(Skill):
    """Logits from the model in a file that :mod:`duetto.models.export` wrote; loaded once in a process.

    Takes ``{"x": [n, *shape]}``, gives ``{"logits": [n, classes] float32}``, as :class:`duetto.models.Predict` does.
    Artefacts are never changed: a new model is a new file.

    Attributes:
        path: of the file.
        threads: for one answer; 1 leaves the other cores to the application.

    Raises:
        ConfigError: onnxruntime is not installed.
        DataError: a file that is missing or damaged; no rows, rows of another shape, or numbers that are not finite.
    """

    path: str
    threads: int = 1

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Answer all rows at once."""
        return local, {"logits": self._logits(self._rows(tree, sender))}

    def many(
        self, locals: Sequence[Local], trees: Sequence[Tree], keys: Sequence[Key], senders: Sequence[str]
    ) -> list[tuple[Local, Tree]]:
        """One run for all."""
        rows = [self._rows(tree, sender) for tree, sender in zip(trees, senders, strict=True)]
        parts = np.split(self._logits(np.concatenate(rows)), np.cumsum([len(part) for part in rows])[:-1])
        return [(local, {"logits": part}) for local, part in zip(locals, parts, strict=True)]

    def work(self, local: Local, tree: Tree) -> Work:
        """As the file tells."""
        rows = len(tree["x"]) if isinstance(tree, Mapping) and np.ndim(tree.get("x", 0)) else 0
        told = session(self.path, self.threads).get_modelmeta().custom_metadata_map
        return Work(float(told.get("flops", 0)) * rows, float(told.get("bytes", 0)))

    def group(self, local: Local, tree: Tree) -> Any:
        """All who answer with the same file."""
        return self.path

    def _logits(self, x: np.ndarray) -> np.ndarray:
        model = session(self.path, self.threads)
        parts = [x] if isinstance(model.get_inputs()[0].shape[0], str) else np.split(x, len(x)) if len(x) else []
        logits = [model.run(["logits"], {"x": part})[0] for part in parts]
        return np.concatenate(logits) if logits else np.zeros((0, model.get_outputs()[0].shape[1]), np.float32)

    def _rows(self, tree: Tree, sender: str) -> np.ndarray:
        if not isinstance(tree, Mapping) or "x" not in tree:
            raise DataError(f"{sender} sent no rows", 'send {"x": [n, *shape]}')
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and told below
            x = np.ascontiguousarray(tree["x"], np.float32)
        shape = tuple(session(self.path, self.threads).get_inputs()[0].shape[1:])
        if x.shape[1:] != shape:
            raise DataError(f"{sender} sent rows of shape {x.shape[1:]} to a model of {shape}", "send [n, *shape]")
        if not np.isfinite(x).all():
            raise DataError(f"{sender} sent an input that is not finite", "remove the rows with NaN or infinity")
        return x


@lru_cache(maxsize=32)
def session(path: str, threads: int, providers: tuple[str, ...] = ("CPUExecutionProvider",)) -> Any:
    """The loaded model of a file, run by the first of the execution providers that can.

    Raises:
        ConfigError: onnxruntime is not installed, or has none of the providers.
        DataError: a file that is missing or damaged.
    """
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as states
    except ImportError as error:
        raise ConfigError("onnxruntime is not installed", "pip install 'duetto[onnx]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 3  # errors
    faults = (states.Fail, states.InvalidArgument, states.InvalidGraph, states.InvalidProtobuf, states.NoSuchFile)
    there = [name for name in providers if name in onnxruntime.get_available_providers()]
    if not there:
        raise ConfigError(
            f"onnxruntime without {', '.join(providers)}", f"it has {', '.join(onnxruntime.get_available_providers())}"
        )
    try:
        return onnxruntime.InferenceSession(path, options, providers=there)
    except faults as error:
        raise DataError(f"{path} is no model ({error})".replace("\n", " "), "fetch the artefact again") from error
