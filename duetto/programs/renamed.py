"""A classifier's ONNX file of whatever names, as one from ``x`` to ``logits``, which devices and clouds know it by.

Nothing of the graph is changed: a node that copies stands in front, and one behind, which runtimes take out again.
Where the names are right already, onnxruntime alone is needed, else the package onnx too.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from duetto.device.artefact import session
from duetto.errors import ConfigError, DataError

INPUT, OUTPUT = "x", "logits"


def renamed(path: str | Path, into: str | Path) -> Path:
    """Where a file goes from ``x`` to ``logits``: the file itself, or else a copy of it, ``into``.

    Raises:
        ConfigError: onnx is not installed, where a copy is needed.
        DataError: a file that is missing or damaged, with several inputs or outputs, or other things of these names.
    """
    path, into = Path(path), Path(into)
    if not path.is_file():
        raise DataError(f"there is no file {path}", "name the model's ONNX file")
    whole = str(path.resolve())
    try:
        loaded = session.__wrapped__(whole, 1)  # not kept: a large model need not be there twice
    except DataError as fault:
        raise DataError(fault.fault.replace(whole, str(path)), "export it again") from fault
    takes, gives = ([each.name for each in tensors] for tensors in (loaded.get_inputs(), loaded.get_outputs()))
    if takes == [INPUT] and OUTPUT in gives:
        return path
    names = f"{path} takes {', '.join(takes)} and gives {', '.join(gives)}"
    if len(takes) != 1 or len(gives) != 1:
        raise DataError(names, f'export it with one input "{INPUT}" and one output "{OUTPUT}"')
    try:
        graphs: Any = import_module("onnx")
    except ImportError as error:
        raise ConfigError(
            f"{names}, and onnx is not installed", "rename them, or pip install 'duetto[onnx]'"
        ) from error
    model = graphs.load(str(path))
    graph = model.graph
    known = {name for node in graph.node for name in (*node.input, *node.output)}
    for tensors, old, name in ((graph.input, takes[0], INPUT), (graph.output, gives[0], OUTPUT)):
        if old == name:
            continue
        if name in known:
            raise DataError(f"{names}, and calls something else {name}", f"export it with {name} in the place of {old}")
        next(each for each in tensors if each.name == old).name = name
        first = name == INPUT
        node = graphs.helper.make_node("Identity", [name if first else old], [old if first else name])
        graph.node.insert(0 if first else len(graph.node), node)
    into.parent.mkdir(parents=True, exist_ok=True)
    part = into.with_name(f"{into.stem}.part{into.suffix}")
    try:
        graphs.save(model, str(part))
        part.replace(into)
    finally:
        part.unlink(missing_ok=True)
    return into
