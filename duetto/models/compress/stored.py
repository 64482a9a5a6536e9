"""Files that keep a model in few bytes, all of which onnxruntime opens as they are.

``int8`` computes in eight bits (:func:`duetto.models.export.quantised`). The others only *keep* weights in fewer: the
file holds the arithmetic that makes float32 of them, which the runtime does once, when it opens the file (constant
folding); so they answer as fast as float32 does, and take as much memory while they run. ``sparse8`` keeps a bit for
each weight and a byte for each that is not zero. Every form leaves out what only the exporter wants to know.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from duetto.errors import ConfigError
from duetto.models import export
from duetto.models.compress.model import Material, Model
from duetto.types import Key

LEAST = 64  # weights that a tensor must have to be worth the nodes that bring it back


@dataclass(frozen=True)
class Stored:
    """Keep the model in this form.

    Attributes:
        form: of :data:`FORMS`: float32, float16, weights8 (8 bits, float32 arithmetic), sparse8, or int8 (static).

    Raises:
        ConfigError: no such form.
    """

    form: str = "weights8"

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ConfigError(f"no form is called {self.form!r}", f"use one of {', '.join(FORMS)}")

    def __call__(self, model: Model, material: Material, key: Key) -> Model:
        """The same model, kept otherwise."""
        return replace(model, form=self.form)


def written(model: Model, path: str | Path, calibration: np.ndarray) -> Path:
    """Write the file of a model in its form.

    Args:
        model: what is written.
        path: of the file; there completely or not at all.
        calibration: inputs that show the ranges of activations ``[m, *shape]``; only ``int8`` reads them.

    Raises:
        ConfigError: the extra ``onnx`` is not installed, or parameters of another network.
        DataError: calibration inputs that do not fit.
    """
    path = Path(path)
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.13 uses its own old pytrees when it exports
        plain = export.onnx(model.net, model.params, Path(folder) / "plain.onnx")
        if model.form == "int8":
            plain = export.quantised(plain, Path(folder) / "int8.onnx", calibration)
        graphs = import_module("onnx")
        told = graphs.load(str(plain))
        if (packing := FORMS[model.form]) is not None:
            _packed(told, packing)
        slimmed(told)
        part = path.with_name(f"{path.name}.part")
        part.write_bytes(told.SerializeToString())
        part.replace(path)
    return path


def slimmed(told: Any) -> None:
    """Leave out of an ONNX model, in place, all that no runtime reads: notes, shapes within, and long names."""
    graph = told.graph
    del graph.value_info[:], graph.metadata_props[:]
    told.producer_name = told.producer_version = told.doc_string = graph.doc_string = ""
    fixed = {each.name for each in (*graph.input, *graph.output)}
    short: dict[str, str] = {name: name for name in (*fixed, "")}
    for node in graph.node:
        node.name = node.doc_string = ""
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = short.setdefault(name, _letters(len(short)))
    for tensor in graph.initializer:
        tensor.name = short[tensor.name]
        tensor.doc_string = ""


def _letters(n: int) -> str:
    digits = "abcdefghijklmnopqrstuvwyzABCDEFGHIJKLMNOPQRSTUVWXYZ"  # no x: that is the input
    return digits[n % 51] if n < 51 else _letters(n // 51 - 1) + digits[n % 51]


Packing = Callable[[np.ndarray, int, str], tuple[list[Any], list[Any]]]
"""A weight, the axis of its channels and the name it must come back by -> initialisers and nodes."""


def _packed(told: Any, packing: Packing) -> None:
    """Replace every float32 weight that is worth it by what is kept and the nodes that bring it back, in place."""
    graphs = import_module("onnx")
    graph = told.graph
    axes = {name: _axis(node) for node in graph.node for name in node.input}
    kept, nodes = [], []
    for tensor in graph.initializer:
        values = graphs.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.ndim < 2 or values.size < LEAST:
            kept.append(tensor)
            continue
        new, made = packing(values, axes[tensor.name] % values.ndim, tensor.name)
        kept += new
        nodes += made
    ahead = [*nodes, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend({each.name: each for each in kept}.values())
    graph.node.extend(ahead)


def _axis(node: Any) -> int:
    """The axis of a weight along which its channels lie."""
    if node.op_type == "Gemm":
        return 0 if any(each.name == "transB" and each.i for each in node.attribute) else 1
    return -1 if node.op_type == "MatMul" else 0


def _half(values: np.ndarray, axis: int, name: str) -> tuple[list[Any], list[Any]]:
    make = import_module("onnx").helper
    return [_tensor(values.astype(np.float16), f"{name}:kept")], [
        make.make_node("Cast", [f"{name}:kept"], [name], to=1)
    ]


def _eighth(values: np.ndarray, axis: int, name: str) -> tuple[list[Any], list[Any]]:
    make = import_module("onnx").helper
    whole, scale = rounded(values, axis)
    return [_tensor(whole, f"{name}:kept"), _tensor(scale, f"{name}:scale")], [
        make.make_node("Cast", [f"{name}:kept"], [f"{name}:wide"], to=1),
        make.make_node("Mul", [f"{name}:wide", f"{name}:scale"], [name]),
    ]


def _sparse(values: np.ndarray, axis: int, name: str) -> tuple[list[Any], list[Any]]:
    """A bit for each weight says whether it is there; their running count finds it among those that are."""
    make = import_module("onnx").helper
    whole, scale = rounded(values, axis)
    there = (whole != 0).ravel()
    bits = np.packbits(there, bitorder="little").reshape(-1, 1)
    filled = np.concatenate([np.zeros(1, np.int8), whole.ravel()[there]])  # what is not there is the zero in front

    def at(what: str) -> str:
        return f"{name}:{what}"

    common: dict[str, np.ndarray] = {
        "shared:masks": 2 ** np.arange(8, dtype=np.uint8),
        "shared:none": np.zeros((), np.uint8),
        "shared:flat": np.array([-1], np.int64),
        "shared:first": np.zeros((), np.int64),
        "shared:start": np.zeros(1, np.int64),
    }
    kept = {
        at("bits"): bits,
        at("filled"): filled,
        at("scale"): scale,
        at("shape"): np.array(values.shape, np.int64),
        at("end"): np.array([values.size], np.int64),
    }
    nodes = [
        make.make_node("BitwiseAnd", [at("bits"), "shared:masks"], [at("one")]),
        make.make_node("Greater", [at("one"), "shared:none"], [at("is")]),
        make.make_node("Reshape", [at("is"), "shared:flat"], [at("line")]),
        make.make_node("Slice", [at("line"), "shared:start", at("end")], [at("there")]),
        make.make_node("Cast", [at("there")], [at("number")], to=7),
        make.make_node("CumSum", [at("number"), "shared:first"], [at("count")]),
        make.make_node("Mul", [at("count"), at("number")], [at("place")]),
        make.make_node("Gather", [at("filled"), at("place")], [at("found")]),
        make.make_node("Reshape", [at("found"), at("shape")], [at("whole")]),
        make.make_node("Cast", [at("whole")], [at("wide")], to=1),
        make.make_node("Mul", [at("wide"), at("scale")], [name]),
    ]
    return [_tensor(value, each) for each, value in {**common, **kept}.items()], nodes


def rounded(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers in int8 and the scale of each channel, which multiplies them; zeros stay zeros."""
    others = tuple(each for each in range(values.ndim) if each != axis)
    scale = np.maximum(np.abs(values).max(others, keepdims=True), 1e-30) / np.float32(127)
    return np.rint(values / scale).astype(np.int8), scale.astype(np.float32)


def _tensor(values: np.ndarray, name: str) -> Any:
    return import_module("onnx").numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name)


FORMS: Mapping[str, Packing | None] = {
    "float32": None,
    "float16": _half,
    "weights8": _eighth,
    "sparse8": _sparse,
    "int8": None,
}
"""How a file may keep a model's weights."""
