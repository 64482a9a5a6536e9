"""A part of a network for ExecuTorch, its operations handed to XNNPACK where it has them, in float32 or static int8.

ExecuTorch's portable kernels run whatever XNNPACK lacks; they are a hundred times slower at convolutions, which it has.
Needs the package ``executorch``; see :func:`duetto.models.export.stages`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from duetto.errors import ConfigError


def write(
    module: nn.Module,
    example: tuple[torch.Tensor, ...],
    path: Path,
    calibration: Sequence[tuple[torch.Tensor, ...]] = (),
) -> None:
    """Write ``module`` as a ``.pte`` file for inputs of just these shapes.

    Args:
        module: in evaluation.
        example: inputs.
        path: of the file.
        calibration: inputs whose ranges make it static int8, weights by channel (PT2E); none keeps float32.

    Raises:
        ConfigError: ExecuTorch is not installed.
    """
    exir = _package("executorch.exir")
    partitioner = _package("executorch.backends.xnnpack.partition.xnnpack_partitioner").XnnpackPartitioner
    with torch.no_grad():
        program = torch.export.export(module, example)
        if calibration:
            program = torch.export.export(_quantised(program, calibration), example)
        lowered = exir.to_edge_transform_and_lower(program, partitioner=[partitioner()]).to_executorch()
    path.write_bytes(lowered.buffer)


def _quantised(program: Any, calibration: Sequence[tuple[torch.Tensor, ...]]) -> nn.Module:
    tools = _package("torchao.quantization.pt2e.quantize_pt2e")
    kinds = _package("executorch.backends.xnnpack.quantizer.xnnpack_quantizer")
    quantizer = kinds.XNNPACKQuantizer().set_global(kinds.get_symmetric_quantization_config(is_per_channel=True))
    prepared = tools.prepare_pt2e(program.module(), quantizer)
    for inputs in calibration:
        prepared(*inputs)
    made: nn.Module = tools.convert_pt2e(prepared)
    return made


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"ExecuTorch is not installed ({error})", "see CONTRIBUTING.md, which tells what it needs"
        ) from error
