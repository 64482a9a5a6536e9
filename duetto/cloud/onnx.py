"""A large model in an ONNX file, as :class:`duetto.protocols.stages.Finish` asks it: from the input on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.tree import Tree
from duetto.types import Work


class Whole:
    """A model of one stage: ``whole[0:]`` takes ``{"x": [n, *shape]}`` and gives ``{"logits": [n, classes]}``.

    Args:
        path: of the file; its input is ``x`` and its output ``logits``, as :mod:`duetto.models.export` writes them.
        threads: of one pass; 0 is as many as there are cores.
        providers: execution providers, the first that is there: ``CUDAExecutionProvider`` before the CPU's.

    Raises:
        ConfigError: onnxruntime is not installed, or has none of the providers.
        DataError: a file that is missing or damaged, or of another form.
    """

    def __init__(
        self, path: str | Path, threads: int = 0, providers: Sequence[str] = ("CPUExecutionProvider",)
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ConfigError("onnxruntime is not installed", "pip install 'duetto[cloud]'") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        there = [name for name in providers if name in onnxruntime.get_available_providers()]
        if not there:
            have = ", ".join(onnxruntime.get_available_providers())
            raise ConfigError(f"onnxruntime without {', '.join(providers)}", f"it has {have}")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=there)
        except Exception as error:  # onnxruntime raises what it likes
            said = str(error).splitlines()[0]
            raise DataError(f"{path} is no model ({said})", "export it with duetto.models.export") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if [each.name for each in inputs] != ["x"] or "logits" not in {each.name for each in outputs}:
            raise DataError(f"{path} takes {[each.name for each in inputs]}", "export it with duetto.models.export")
        self._shape = tuple(inputs[0].shape[1:])
        self.joinable = isinstance(inputs[0].shape[0], str)
        told = self._session.get_modelmeta().custom_metadata_map
        self._cost = Work(float(told.get("flops", 0)), float(told.get("bytes", 0)))

    def __len__(self) -> int:
        return 1

    def __getitem__(self, cut: slice) -> Whole:
        if (cut.start or 0, cut.stop) not in {(0, None), (0, 1)}:
            raise DataError(f"stages {cut.start} to {cut.stop}", "this cloud holds the whole model only")
        return self

    def __call__(self, tree: Tree) -> dict[str, Any]:
        """Logits, float32.

        Raises:
            DataError: rows that the model does not take.
        """
        self.rows(tree)
        x = np.ascontiguousarray(tree["x"], np.float32)
        parts = [x] if self.joinable else np.split(x, len(x)) if len(x) else []
        logits = [self._session.run(["logits"], {"x": part})[0] for part in parts]
        return {"logits": np.concatenate(logits) if logits else np.zeros((0, 0), np.float32)}

    def rows(self, tree: Tree) -> int:
        """How many rows are asked about."""
        if not isinstance(tree, Mapping) or set(tree) != {"x"}:
            raise DataError("neither rows nor features of this model", 'send {"x": [n, *shape]}')
        shape = np.shape(tree["x"])
        fits = len(shape) == len(self._shape) + 1 and all(
            not isinstance(wanted, int) or wanted == got for wanted, got in zip(self._shape, shape[1:], strict=True)
        )
        if not fits:
            raise DataError(f"rows of shape {shape[1:]} to a model of {self._shape}", "send [n, *shape]")
        return int(shape[0])

    def joined(self, trees: Sequence[Tree]) -> dict[str, Any]:
        """Rows after rows."""
        return {"x": np.concatenate([np.asarray(tree["x"], np.float32) for tree in trees])}

    def parted(self, tree: Tree, rows: Sequence[int]) -> list[dict[str, Any]]:
        """The rows of each again."""
        return [{"logits": part} for part in np.split(tree["logits"], np.cumsum(rows)[:-1])]

    def work(self, rows: int = 1) -> Work:
        """As the file tells."""
        return Work(self._cost.flops * rows, self._cost.bytes)
