"""The compiled LSTM layer against torch's, and what happens where it cannot be compiled."""

import itertools
import stat
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from duetto.errors import ConfigError
from duetto.training.kernels import lstm as kernel
from duetto.training.kernels.lstm import SUFFIXES

Layer = Callable[..., tuple[Tensor, Tensor, Tensor]]
OUT, STATE, CELL = range(3)


@pytest.fixture(scope="module")
def lstm() -> Layer:
    """The kernel, built once."""
    if why := kernel.why_not():
        pytest.skip(f"the LSTM kernel is not tested: {why}")
    return kernel.lstm


def case(b: int, steps: int, inputs: int, size: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
    """x and the four parameters, all wanting gradients."""
    draw = torch.Generator().manual_seed(seed)
    shapes = [(b, steps, inputs), (4 * size, inputs), (4 * size, size), (4 * size,), (4 * size,)]
    scales = [1.0, inputs**-0.5, size**-0.5, 0.5, 0.5]
    drawn = (torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes)
    return [(scale * each).to(dtype).requires_grad_() for scale, each in zip(scales, drawn, strict=True)]


def torch_s(x: Tensor, *params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """torch's layer."""
    module = nn.LSTM(x.shape[2], params[1].shape[1], batch_first=True, dtype=x.dtype)
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    out, (h, c) = torch.func.functional_call(module, dict(zip(names, params, strict=True)), x)
    return out, h[0], c[0]


def results(layer: Layer, tensors: Iterable[Tensor], used: Iterable[int] = (OUT, STATE, CELL)) -> list[Tensor]:
    """The outputs, and the gradients of a weighted sum of the used ones in every tensor that wants one."""
    tensors = list(tensors)
    outputs = layer(*tensors)
    draw = torch.Generator().manual_seed(1)
    sent = [torch.randn(each.shape, generator=draw, dtype=torch.float64).to(each.dtype) for each in outputs]
    wanted = [each for each in tensors if each.requires_grad]
    gradients = torch.autograd.grad([outputs[i] for i in used], wanted, [sent[i] for i in used])
    return [each.detach() for each in (*outputs, *gradients)]


def close(ours: list[Tensor], theirs: list[Tensor], tolerance: float) -> None:
    """Relative to the largest entry of each tensor."""
    assert len(ours) == len(theirs)
    for left, right in zip(ours, theirs, strict=True):
        assert left.shape == right.shape
        assert (left - right).abs().max() <= tolerance * right.abs().max(), f"{list(left.shape)}"


@pytest.mark.parametrize("steps", [1, 7, 80])
@pytest.mark.parametrize("size", [5, 16, 128])
@pytest.mark.parametrize("b", [1, 3, 8, 10])
def test_outputs_and_gradients_are_torch_s(lstm: Layer, b: int, size: int, steps: int) -> None:
    exact = case(b, steps, 8, size)
    expected = results(torch_s, exact)
    close(results(lstm, exact), expected, 1e-12)
    single = [each.detach().float().requires_grad_() for each in exact]
    ours = results(lstm, single)
    assert {each.dtype for each in ours} == {torch.float32}
    close([each.double() for each in ours], expected, 1e-5)


@given(st.integers(1, 30), st.integers(1, 5), st.integers(1, 40), st.integers(1, 40))
def test_any_shape_will_do(lstm: Layer, b: int, steps: int, inputs: int, size: int) -> None:
    tensors = case(b, steps, inputs, size)
    close(results(lstm, tensors), results(torch_s, tensors), 1e-12)


def test_a_batch_of_more_rows_than_are_gathered(lstm: Layer) -> None:
    tensors = case(150, 3, 4, 6)
    close(results(lstm, tensors), results(torch_s, tensors), 1e-12)


@pytest.mark.parametrize("used", [each for n in (1, 2) for each in itertools.combinations((OUT, STATE, CELL), n)])
def test_outputs_that_nobody_uses_send_no_gradient(lstm: Layer, used: tuple[int, ...]) -> None:
    tensors = case(3, 7, 4, 6)
    close(results(lstm, tensors, used), results(torch_s, tensors, used), 1e-12)


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (3, 4), (1, 2, 3, 4)], ids=str)
def test_gradients_only_where_they_are_wanted(lstm: Layer, wanted: tuple[int, ...]) -> None:
    tensors = [each.requires_grad_(i in wanted) for i, each in enumerate(map(torch.detach, case(3, 7, 4, 6)))]
    close(results(lstm, tensors), results(torch_s, tensors), 1e-12)


def test_what_wants_no_gradient_gets_none(lstm: Layer) -> None:
    tensors = [each.detach() for each in case(3, 7, 4, 6)]
    outputs = lstm(*tensors)
    assert not any(each.requires_grad for each in outputs)
    close(list(outputs), list(torch_s(*tensors)), 1e-12)


def test_any_strides_will_do(lstm: Layer) -> None:
    tensors = case(3, 7, 4, 6)
    turned = [each.detach().mT.contiguous().mT.requires_grad_() if each.ndim > 1 else each for each in tensors]
    assert not any(each.is_contiguous() for each in turned[:3])
    close(results(lstm, turned), results(torch_s, tensors), 1e-12)
    sums = [torch.autograd.grad([each.sum() for each in layer(*tensors)], tensors) for layer in (lstm, torch_s)]
    close(list(sums[0]), list(sums[1]), 1e-12)  # a sum sends one number back, seen from everywhere


def test_outputs_may_be_changed_in_place_and_the_graph_walked_twice(lstm: Layer) -> None:
    tensors = case(3, 7, 4, 6)
    out, state, _ = lstm(*tensors)
    assert torch.equal(out[:, -1], state)
    state.mul_(2)
    assert torch.equal(2 * out[:, -1], state)
    loss = (out.mul_(3).sum() + state.sum()) / 5
    first, second = (torch.autograd.grad(loss, tensors, retain_graph=True) for _ in range(2))
    theirs = torch_s(*tensors)
    close(list(first), list(torch.autograd.grad((3 * theirs[OUT].sum() + 2 * theirs[STATE].sum()) / 5, tensors)), 1e-12)
    close(list(first), list(second), 0)


def test_the_two_biases_gradients_are_two_tensors(lstm: Layer) -> None:
    tensors = case(3, 7, 4, 6)
    *_, left, right = torch.autograd.grad(lstm(*tensors)[STATE].sum(), tensors)
    assert torch.equal(left, right)
    assert left.data_ptr() != right.data_ptr()


def test_parameters_changed_before_the_backward_pass_are_told(lstm: Layer) -> None:
    tensors = case(3, 7, 4, 6)
    loss = lstm(*tensors)[STATE].sum()
    with torch.no_grad():
        tensors[2].add_(1)
    with pytest.raises(RuntimeError, match="inplace"):
        loss.backward()


def test_a_second_derivative_is_refused(lstm: Layer) -> None:
    tensors = case(3, 7, 4, 6)
    (first,) = torch.autograd.grad(lstm(*tensors)[STATE].square().sum(), tensors[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("function", [torch.sigmoid, torch.tanh])
def test_non_linearities_lose_no_digits(lstm: Layer, function: Callable[[Tensor], Tensor]) -> None:
    small = torch.logspace(-30, 0, 200)
    points = torch.cat([torch.linspace(-30, 30, 1001), small, -small, torch.tensor([-100.0, 100.0])])
    n = len(points)
    open_, shut = torch.full((n,), 60.0), torch.zeros(n)  # sigmoid(60) = tanh(60) = 1
    gates = (points, shut, open_, shut) if function is torch.sigmoid else (open_, shut, points, shut)
    # one step from zero at no input: the cell is sigmoid(i) tanh(g)
    cell = lstm(torch.zeros(1, 1, 1), torch.zeros(4 * n, 1), torch.zeros(4 * n, n), torch.cat(gates), shut.repeat(4))[2]
    expected = function(points.double())
    expected[points < -87] = function(torch.tensor(-87.0).double()) if function is torch.sigmoid else -1
    assert ((cell[0] - expected).abs() <= 4 * 2**-24 * expected.abs()).all()


@pytest.mark.parametrize("size", [7, 16])
@pytest.mark.parametrize("dtype", SUFFIXES)
def test_what_is_not_finite_is_torch_s(lstm: Layer, dtype: torch.dtype, size: int) -> None:
    tensors = case(4, 5, 3, size, dtype)
    with torch.no_grad():
        tensors[0][0, 2, 1], tensors[0][1, 3, 0], tensors[0][2, 0, 2] = torch.nan, torch.inf, -torch.inf
    ours, theirs = results(lstm, tensors), results(torch_s, tensors)
    for left, right in zip(ours[:4], theirs[:4], strict=True):  # outputs, and the slope of x; those of weights add rows
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5, equal_nan=True)
        assert left[0].isnan().any()
        assert not left[1:].isnan().any()


def test_threads_do_not_meet(lstm: Layer) -> None:
    cases = [case(8, 20, 8, 32, torch.float32, seed) for seed in range(8)]
    alone = [results(lstm, each) for each in cases]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda each: results(lstm, each), cases))
    for left, right in zip(together, alone, strict=True):
        close(left, right, 0)


@pytest.mark.parametrize(
    ("at", "change"),
    [
        (0, lambda x: x[0]),
        (0, lambda x: x[:, :0]),
        (0, lambda x: x[..., 1:]),
        (0, lambda x: x.float()),
        (1, lambda w: w[1:]),
        (2, lambda w: w.T),
        (2, lambda w: w[0]),
        (3, lambda b: b[1:]),
        (4, lambda b: b.half()),
        (4, lambda b: b.to("meta")),
    ],
)
def test_tensors_that_do_not_fit_are_named(lstm: Layer, at: int, change: Callable[[Tensor], Tensor]) -> None:
    tensors = case(2, 3, 4, 5)
    tensors[at] = change(tensors[at])
    with pytest.raises(ConfigError, match="not ") as caught:
        lstm(*tensors)
    assert str(list(tensors[at].shape)) in caught.value.fault
    assert "\n" not in str(caught.value)


def test_a_layer_of_no_units_is_refused(lstm: Layer) -> None:
    with pytest.raises(ConfigError, match="none empty"):
        lstm(torch.zeros(2, 3, 4), torch.zeros(0, 4), torch.zeros(0, 0), torch.zeros(0), torch.zeros(0))


def test_other_dtypes_are_refused(lstm: Layer) -> None:
    with pytest.raises(ConfigError, match="bfloat16"):
        lstm(*(each.bfloat16() for each in case(2, 3, 4, 5)))


# ------------------------------------------------------------------------------------------------------ the library


@pytest.fixture
def compiler(lstm: Layer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Names as ``$CXX`` a script that writes ``log`` and then runs some lines, where $out is what it shall make."""
    if sys.platform == "win32":
        pytest.skip("the compilers of these tests are shell scripts")
    monkeypatch.setenv("DUETTO_CACHE", str(tmp_path / "cache"))

    def build(lines: str) -> Path:
        path, log = tmp_path / "compiler", tmp_path / "log"
        find_out = 'all="$*"\nwhile [ $# -gt 0 ]; do [ "$1" = -o ] && out=$2; shift; done'
        path.write_text(f'#!/bin/sh\necho "$@" >> {log}\n{find_out}\n{lines}')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("CXX", str(path))
        kernel._libraries.pop(str(path), None)
        return log

    return build


@pytest.fixture
def built(lstm: Layer) -> str:
    """The file of the library that is loaded."""
    library = kernel._library()
    assert not isinstance(library, str)
    return library._name


def test_no_compiler_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nothing/here")
    assert not kernel.available()
    assert "'/nothing/here'" in kernel.why_not()
    with pytest.raises(ConfigError, match=r"/nothing/here.*torch\.nn\.LSTM"):
        kernel.lstm(*case(1, 1, 1, 1))


def test_none_of_the_usual_compilers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    assert "'g++'" in str(kernel._load(""))


def test_a_switch_turns_it_off(lstm: Layer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUETTO_KERNELS", "0")
    assert not kernel.available()
    assert kernel.why_not() == "DUETTO_KERNELS is 0"
    monkeypatch.setenv("DUETTO_KERNELS", "1")
    assert kernel.available()


def test_it_is_built_once_for_all_processes(
    compiler: Callable[[str], Path], built: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = compiler(f'cp "{built}" "$out"')
    assert kernel.available()
    assert kernel.available()
    (tmp_path / "compiler").unlink()
    kernel._libraries.pop(str(tmp_path / "compiler"))  # as another process would find it, which needs no compiler
    assert kernel.available()
    assert len(log.read_text().splitlines()) == 1
    (made,) = (tmp_path / "cache" / "kernels").iterdir()
    assert made.read_bytes() == Path(built).read_bytes()
    compiler(f'cp "{built}" "$out"')
    monkeypatch.setattr(kernel, "_cpu", lambda: "another machine")
    assert kernel.available()
    assert len(list(made.parent.iterdir())) == 2


def test_many_may_build_at_once(compiler: Callable[[str], Path], built: str, tmp_path: Path) -> None:
    both = f"while [ $(wc -l < {tmp_path / 'log'}) -lt 2 ]; do sleep 0.01; done"
    log = compiler(f'{both}\ncp "{built}" "$out"')
    with ThreadPoolExecutor(4) as pool:  # _load holds no lock, as if each were a process
        loaded = list(pool.map(kernel._load, [str(tmp_path / "compiler")] * 4))
    assert not any(isinstance(each, str) for each in loaded)
    assert len(log.read_text().splitlines()) > 1
    assert len(list((tmp_path / "cache" / "kernels").iterdir())) == 1


def test_threads_of_one_process_build_once(compiler: Callable[[str], Path], built: str) -> None:
    log = compiler(f'sleep 0.3; cp "{built}" "$out"')
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: kernel.available(), range(4)))
    assert len(log.read_text().splitlines()) == 1


def test_a_compiler_that_knows_no_march(compiler: Callable[[str], Path], built: str) -> None:
    log = compiler(f'case "$all" in *-march=native*) exit 1;; esac\ncp "{built}" "$out"')
    assert kernel.available()
    assert ["-mcpu=native" in line for line in log.read_text().splitlines()] == [False, True]


def test_a_compiler_that_refuses(compiler: Callable[[str], Path], tmp_path: Path) -> None:
    compiler('printf "bad\\n flag" >&2; touch "$out"; exit 1')
    assert "refused lstm.cpp: bad flag" in kernel.why_not()
    assert not list((tmp_path / "cache" / "kernels").iterdir())


def test_a_library_that_cannot_be_loaded(compiler: Callable[[str], Path]) -> None:
    compiler('echo junk > "$out"')
    assert not kernel.available()
    assert ".so" in kernel.why_not()


def test_a_cache_that_is_no_folder(
    compiler: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler("exit 0")
    (tmp_path / "cache").write_text("")
    assert "cache" in kernel.why_not()
