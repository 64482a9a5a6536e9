"""An LSTM layer for small batches: the whole sequence in one compiled call a pass, which holds no lock of Python.

Where every client has weights of its own, a cohort cannot share the layer's matrix products, and torch's layer pays
for its generality at 8 rows. ``lstm.cpp`` does the sums of Hochreiter and Schmidhuber, "Long Short-Term Memory", Neural
Computation 9(8), 1997, in the form that ``torch.nn.LSTM`` documents.

It is built once, by ``$CXX`` or the compiler that is found, into ``kernels`` in ``$DUETTO_CACHE`` or the platform's
folder for caches. Without a compiler, or with ``DUETTO_KERNELS=0``, :func:`available` is False and callers use torch.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from duetto.errors import ConfigError
from duetto.folders import default_cache

SOURCE = Path(__file__).with_name("lstm.cpp")
FLAGS = ("-std=c++17", "-O3", "-shared", "-fPIC", "-ffp-contract=fast", "-fno-math-errno")
NATIVE = (("-march=native",), ("-mcpu=native",), ())  # the first that the compiler knows
SUFFIXES = {torch.float32: "float32", torch.float64: "float64"}

_libraries: dict[str, ctypes.CDLL | str] = {}  # by the compiler named; a library, or why there is none
_building = Lock()


def available() -> bool:
    """Whether :func:`lstm` can run here; builds the kernel if need be, which takes seconds, and never raises."""
    return not why_not()


def why_not() -> str:
    """Why :func:`lstm` cannot run here, in one clause; empty where it can."""
    library = _library()
    return library if isinstance(library, str) else ""


def lstm(x: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``torch.nn.LSTM(D, H, batch_first=True)`` from the zero state, one layer in one direction.

    Differentiable once, in everything it takes. Any number of threads may call at once; it uses the caller's only.

    Args:
        x: [b, T, D] float32 or float64, on the CPU, as are the parameters.
        w_ih: [4H, D] gates i, f, g, o, as torch orders them.
        w_hh: [4H, H].
        b_ih: [4H].
        b_hh: [4H].

    Returns:
        The output [b, T, H], and the last step's state [b, H] and cell [b, H]. The state is a copy of the last output:
        a loss that reads it alone spares the backward pass the gradient of the others.

    Raises:
        ConfigError: the kernel is not :func:`available`, or a tensor is not as above.
    """
    library = _library()
    if isinstance(library, str):
        raise ConfigError(f"the LSTM kernel cannot run: {library}", "use torch.nn.LSTM")
    size, given = w_hh.shape[-1], (x, w_ih, w_hh, b_ih, b_hh)
    shapes = [(4 * size, x.shape[-1]), (4 * size, size), (4 * size,), (4 * size,)]
    if (
        x.ndim != 3
        or not x.numel()
        or not size
        or [tuple(param.shape) for param in given[1:]] != shapes
        or any(each.dtype != x.dtype or each.device.type != "cpu" for each in given)
        or x.dtype not in SUFFIXES
    ):
        found = ", ".join(f"{str(each.dtype)[6:]} {list(each.shape)} on {each.device}" for each in given)
        raise ConfigError(
            f"the LSTM kernel takes x [b, T, D] and parameters [4H, D], [4H, H], [4H] and [4H], none empty, all "
            f"float32 or all float64, on the CPU, not {found}",
            "use torch.nn.LSTM",
        )
    return _Lstm.apply(library, *given)  # type: ignore[no-untyped-call, no-any-return]


class _Lstm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, library: ctypes.CDLL, *given: Tensor) -> tuple[Tensor, ...]:
        x, w_ih, w_hh, b_ih, b_hh = map(_dense, given)
        (b, steps, inputs), size = x.shape, w_hh.shape[1]
        ctx.library, ctx.shape = library, (b, steps, inputs, size)
        kept, scratch, ctx.scratch = _sizes(library, x.dtype, ctx.shape)
        results = x.new_empty(b, steps, size), x.new_empty(b, size), x.new_empty(b, size), x.new_empty(kept)
        _call(library, "forward", ctx.shape, x, w_ih, w_hh, b_ih, b_hh, *results, x.new_empty(scratch))
        ctx.save_for_backward(w_ih, w_hh, results[3])
        ctx.set_materialize_grads(False)
        return results[:3]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *given: Tensor | None) -> tuple[Tensor | None, ...]:
        w_ih, w_hh, kept = ctx.saved_tensors
        b, steps, inputs, _ = ctx.shape
        sent = [None if each is None else _dense(each) for each in given]
        _, for_x, *for_params = ctx.needs_input_grad
        d_x = kept.new_empty(b, steps, inputs) if for_x else None
        d_ih, d_hh = (torch.empty_like(w_ih), torch.empty_like(w_hh)) if any(for_params) else (None, None)
        d_b, scratch = kept.new_empty(len(w_ih)), kept.new_empty(ctx.scratch)
        _call(ctx.library, "backward", ctx.shape, *sent, w_ih, w_hh, kept, d_x, d_ih, d_hh, d_b, scratch)
        return None, d_x, d_ih, d_hh, d_b, d_b.clone()


def _dense(x: Tensor) -> Tensor:
    return x if x.is_contiguous() else x.contiguous()  # each call into torch gives other threads of Python their turn


def _call(library: ctypes.CDLL, name: str, shape: tuple[int, ...], *tensors: Tensor | None) -> None:
    last = tensors[-1]
    assert last is not None
    at = [None if each is None else each.data_ptr() for each in tensors]
    getattr(library, f"{name}_{SUFFIXES[last.dtype]}")(*shape, *at)


@cache
def _sizes(library: ctypes.CDLL, dtype: torch.dtype, shape: tuple[int, ...]) -> tuple[int, ...]:
    """How many numbers the forward pass keeps, and how many each pass needs beside them."""
    sizes = (ctypes.c_int64 * 3)()
    getattr(library, f"sizes_{SUFFIXES[dtype]}")(*shape, sizes)
    return tuple(sizes)


# ------------------------------------------------------------------------------------------------------ the library


def _library() -> ctypes.CDLL | str:
    """The library, or why there is none."""
    if os.environ.get("DUETTO_KERNELS") == "0":
        return "DUETTO_KERNELS is 0"
    compiler = os.environ.get("CXX") or ""
    if compiler not in _libraries:
        with _building:
            if compiler not in _libraries:  # nobody built it while we waited
                _libraries[compiler] = _load(compiler)
    return _libraries[compiler]


def _load(compiler: str) -> ctypes.CDLL | str:
    """The library as built by this compiler (empty: the one that is found), or why there is none."""
    try:
        named = shlex.split(compiler) if compiler else [next(filter(shutil.which, ("g++", "clang++", "c++")), "g++")]
        library = ctypes.CDLL(str(_built(named)))
    except (OSError, ValueError, RuntimeError, subprocess.SubprocessError) as fault:
        return " ".join(f"it is not built, or does not load: {fault}".split())[:300]
    for dtype in SUFFIXES.values():
        for name, pointers in {"sizes": 1, "forward": 10, "backward": 11}.items():
            function = getattr(library, f"{name}_{dtype}")
            function.argtypes = [ctypes.c_int64] * 4 + [ctypes.c_void_p] * pointers
            function.restype = None
    return library


def _built(compiler: list[str]) -> Path:
    """The library's file, in the cache; built there if need be.

    Raises:
        RuntimeError: the compiler refuses.
    """
    folder, refused = default_cache() / "kernels", ""
    source = SOURCE.read_bytes()
    for native in NATIVE:
        command = [*compiler, *FLAGS, *native]
        key = hashlib.blake2b(b"\0".join([source, repr(command).encode(), _cpu().encode()]), digest_size=16).hexdigest()
        path = folder / f"lstm-{key}.so"
        if path.exists():
            return path
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as draft:
            made = Path(draft) / path.name
            done = subprocess.run(
                [*command, "-o", str(made), str(SOURCE)], capture_output=True, text=True, timeout=300, check=False
            )
            if done.returncode == 0:
                made.replace(path)  # whole or not at all, whoever else builds it now
                return path
            refused = refused or done.stderr
    raise RuntimeError(f"{shlex.join(compiler)} refused {SOURCE.name}: {refused}")


def _cpu() -> str:
    """What a native build depends on: a folder of caches may be shared by machines."""
    told = ("model name", "flags", "CPU implementer", "CPU part", "Features")
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return "\n".join([platform.machine(), platform.processor(), *sorted({i for i in lines if i.startswith(told)})])
