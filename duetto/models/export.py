"""What a device answers with: a network as an ONNX file, or its first stages as several, in float32 or static int8.

The int8 file follows Jacob et al. 2018: weights with one scale a channel, activations with a scale read off
calibration rows, as pairs of QuantizeLinear and DequantizeLinear that every runtime understands. Each file tells what
one row costs (``flops``, ``bytes``), so that a device's :class:`~duetto.device.artefact.Artefact` has the work that
the network has. Needs the extra ``onnx``.
"""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from duetto.errors import ConfigError, DataError
from duetto.models import lowered
from duetto.models.net import Net, built, fitting
from duetto.models.staged import Half, Staged
from duetto.tree import Tree

_BATCH = 64  # calibration rows that are looked at together


def onnx(net: Net, params: Tree, path: str | Path, *, batch_dynamic: bool = True) -> Path:
    """Write the network as ONNX, float32: ``x [n, *shape]`` to ``logits [n, classes]``.

    Args:
        net: the network.
        params: its parameters.
        path: of the file; there completely or not at all.
        batch_dynamic: any number of rows at once; else one.

    Raises:
        ConfigError: the extra is not installed, or parameters of another network.
    """
    graphs = _extra("onnx")
    _extra("onnxscript")
    module = built(net).eval()
    module.load_state_dict(fitting(net, params))
    example = torch.zeros((2 if batch_dynamic else 1, *net.shape))
    with _quiet(), _whole(Path(path)) as part:
        torch.onnx.export(
            module,
            (example,),
            part,
            dynamo=True,
            verbose=False,
            external_data=False,
            input_names=["x"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("n")},) if batch_dynamic else None,
        )
        _tell(graphs, part, {"flops": net.work(1).flops, "bytes": net.work(1).bytes})
    return Path(path)


def quantised(path_in: str | Path, path_out: str | Path, calibration: np.ndarray) -> Path:
    """Write a float32 file of :func:`onnx` in static int8, with the ranges that ``calibration [n, *shape]`` shows.

    Raises:
        ConfigError: the extra is not installed.
        DataError: calibration rows that are none, of another shape, or not finite; or a file that is no model.
    """
    graphs, runtime = _extra("onnx"), _extra("onnxruntime")
    rows = np.ascontiguousarray(calibration, np.float32)
    faults: tuple[type[Exception], ...] = (OSError, KeyError, ValueError, RuntimeError, *_faults())
    try:
        with _quiet():
            wants = runtime.InferenceSession(str(path_in), providers=["CPUExecutionProvider"]).get_inputs()[0]
        told = {entry.key: float(entry.value) for entry in graphs.load(str(path_in)).metadata_props}
        flops, nbytes = told["flops"], told["bytes"]
    except faults as error:
        raise DataError(f"{path_in} is no model to quantise", "write it with duetto.models.export.onnx") from error
    if not len(rows) or list(rows.shape[1:]) != wants.shape[1:] or not np.isfinite(rows).all():
        raise DataError(
            f"calibration rows of shape {rows.shape} for a model of {wants.shape}", "give finite rows [n, *shape]"
        )
    step = _BATCH if isinstance(wants.shape[0], str) else 1
    batches = [{wants.name: rows[i : i + step]} for i in range(0, len(rows), step)]
    _quantise(Path(path_in), Path(path_out), batches, {"flops": flops, "bytes": nbytes / 4})
    return Path(path_out)


def stages(
    net: Staged,
    folder: str | Path,
    cuts: Sequence[int],
    calibration: Tree | None = None,
    runtime: Literal["onnx", "executorch"] = "onnx",
) -> Path:
    """Write the stages up to the last of ``cuts``, a file from each cut to the next, and ``stages.json``.

    A device walks them with :class:`duetto.device.Stages`, which needs no torch where they are ONNX. Exits behind the
    cuts are written, too.

    Args:
        net: the staged model.
        folder: to write to; made where it is not there.
        cuts: after which the device may stop and send, or answer from an exit; ``len(net)`` for the whole model.
        calibration: inputs of some rows, whose ranges make the files static int8; None keeps float32.
        runtime: "executorch" writes ``.pte`` files for one row at a time (:mod:`duetto.models.lowered`).

    Raises:
        ConfigError: the runtime's packages are not installed, or cuts that do not grow.
        DataError: calibration inputs that do not fit.
    """
    if not cuts or any(after <= before for before, after in pairwise((0, *cuts))):
        raise ConfigError(f"cuts {list(cuts)}", "give numbers of stages that grow")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    parts: list[dict[str, Any]] = []
    features = calibration
    for start, stop in pairwise((0, *cuts)):
        half = net[start:stop]
        part = _onnx if runtime == "onnx" else _lowered
        told = {"start": start, "stop": stop, **part(half, folder / f"stages-{start}-{stop}", features)}
        features = None if features is None else half(features)
        if (leaving := net.exits.get(stop)) is not None:
            head = leaving if isinstance(leaving, Half) else leaving.half()
            told["exit"] = part(head, folder / f"exit-{stop}", features)
        parts.append(told)
    with _whole(folder / "stages.json") as whole:
        whole.write_text(json.dumps({"format": 1, "stages": len(net), "parts": parts}, indent=1), encoding="utf-8")
    return folder


def _onnx(half: Half, path: Path, calibration: Tree | None) -> dict[str, Any]:
    """Write one ONNX file; what ``stages.json`` says of it."""
    _extra("onnx")
    _extra("onnxscript")
    path, free = path.with_suffix(".onnx"), half.graph.free_rows
    takes, gives = _tensors(half)
    axes = {name: told["axes"] for name, told in takes.items()}
    dynamic = tuple({i: torch.export.Dim.AUTO for i, (a, _) in enumerate(axes[name]) if a} for name in takes)
    example = _example(half, 2 if free else half.graph.example_rows)
    with _quiet(), _whole(path) as part:
        torch.onnx.export(
            half.module().eval(),
            example,
            part,
            dynamo=True,
            verbose=False,
            external_data=False,
            input_names=[told["tensor"] for told in takes.values()],
            output_names=[told["tensor"] for told in gives.values()],
            dynamic_shapes=(dynamic,) if free else None,
        )
    batches = _batches(half, calibration, _BATCH)
    if batches:
        _quantise(path, path, [{takes[name]["tensor"]: batch[name] for name in takes} for batch in batches], {})
    work = _work(half, bool(batches))
    _tell(_extra("onnx"), path, work)
    return {"file": path.name, "work": work, "takes": takes, "gives": gives}


def _lowered(half: Half, path: Path, calibration: Tree | None) -> dict[str, Any]:
    """Write one ExecuTorch file, for one row; what ``stages.json`` says of it."""
    path, rows = path.with_suffix(".pte"), 1 if half.graph.free_rows else half.graph.example_rows
    takes, gives = _tensors(half)
    for told in (*takes.values(), *gives.values()):
        told["axes"] = [(0, a * rows + b) for a, b in told["axes"]]
    batches = _batches(half, calibration, 1)
    given = [tuple(torch.as_tensor(np.ascontiguousarray(batch[name])) for name in takes) for batch in batches]
    with _quiet(), _whole(path) as part:
        lowered.write(half.module().eval(), _example(half, rows), part, given)
    return {"file": path.name, "work": _work(half, bool(batches)), "takes": takes, "gives": gives}


def _tensors(half: Half) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a half takes and gives: each with its name in the file, its axes in memory order, and its dtype."""
    found = []
    for prefix, values in (("in", half.inputs), ("out", half.outputs)):
        layouts = {name: half.graph.layouts[value] for name, value in values.items()}
        found.append(
            {
                name: {"tensor": f"{prefix}_{i}", "axes": [each.axes[axis] for axis in each.order], "dtype": each.dtype}
                for i, (name, each) in enumerate(layouts.items())
            }
        )
    return found[0], found[1]


def _example(half: Half, rows: int) -> tuple[torch.Tensor, ...]:
    return tuple(torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype)) for spec in half.takes(rows).values())


def _batches(half: Half, calibration: Tree | None, most: int) -> list[dict[str, Any]]:
    """The calibration inputs of a half in batches; none where there are none, or nothing to quantise."""
    if calibration is None or not any(stage.work.flops for stage in half.stages):
        return []
    inputs = {name: calibration[name] for name in half.inputs}
    half.rows(inputs)
    return half.batches(inputs, most) if half.joinable else [inputs]


def _work(half: Half, quantised: bool) -> dict[str, float]:
    work = half.work()
    return {"flops": work.flops, "bytes": work.bytes / 4 if quantised else work.bytes}


def _quantise(path_in: Path, path_out: Path, batches: Sequence[dict[str, Any]], work: dict[str, float]) -> None:
    """Write a file in static int8, with the ranges that the batches show."""
    graphs, tools = _extra("onnx"), import_module("onnxruntime.quantization")

    class Reader(tools.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.batches: Iterator[Any] = iter(batches)

        def get_next(self) -> Any:
            return next(self.batches, None)

    with _quiet(), _whole(path_out) as part, tempfile.TemporaryDirectory() as folder:
        folded = Path(folder) / "folded.onnx"
        shapes = import_module("onnxruntime.quantization.shape_inference")
        shapes.quant_pre_process(str(path_in), str(folded), skip_symbolic_shape=True)
        tools.quantize_static(
            str(folded),
            str(part),
            Reader(),
            quant_format=tools.QuantFormat.QDQ,
            per_channel=True,
            activation_type=tools.QuantType.QUInt8,
            weight_type=tools.QuantType.QInt8,
        )
        _tell(graphs, part, work)


def _tell(graphs: Any, path: Path, work: dict[str, float]) -> None:
    """Write what one row costs into the file, and leave out what only its exporter wants to know."""
    model = graphs.load(str(path))
    del model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    graphs.helper.set_model_props(model, {name: repr(value) for name, value in work.items()})
    graphs.save(model, str(path))


def runtime() -> Any:
    """ONNX Runtime, the package.

    Raises:
        ConfigError: the extra is not installed.
    """
    return _extra("onnxruntime")


def _extra(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(f"{name} is not installed", "pip install 'duetto[onnx]'") from error


def _faults() -> tuple[type[Exception], ...]:
    """What onnxruntime and protobuf raise for a file that is no model."""
    states = import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    messages = import_module("google.protobuf.message")
    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile")
    return (*(getattr(states, name) for name in names), messages.DecodeError)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A path to write to that becomes ``path`` at the end, if nothing goes wrong."""
    part = path.with_name(f"{path.stem}.part{path.suffix}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says (it misses torchvision, torch misses itself) and the quantiser (it praises)."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.disable(before)
