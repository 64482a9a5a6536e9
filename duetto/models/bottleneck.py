"""A learned bottleneck: the device computes a few small integers, the cloud makes the frontier of a cut from them.

Off-the-shelf features are larger than a compressed input, so that splitting seldom pays. Here a light encoder replaces
the stages before a cut (BottleFit, Matsubara, Callegaro, Singh, Levorato & Restuccia 2022) or follows them, its output
is rounded to few levels, and a decoder in the cloud gives the rest of the backbone the frontier that it expects. What a
code costs is learned with it, by a prior for each channel (Entropic Student, Matsubara, Yang, Levorato & Mandt 2022,
after Ballé, Laparra & Simoncelli 2017; logistic mixtures as in Salimans et al. 2017): an entropy coder that is given
:meth:`Bottlenecked.prior` comes within its rounding of that. :mod:`duetto.training.rate` holds the terms to train with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from duetto.errors import ConfigError, DataError
from duetto.models.graph import Layout, traced
from duetto.models.net import Net, built, shared, size, to_tensors, to_tree
from duetto.models.staged import Half, Staged
from duetto.tree import Tree

MIXED = 3  # logistics in a channel's prior
FLOOR = 1e-3  # of the prior is spread evenly, so that every level can be coded
_GROUPS = 8


@dataclass(frozen=True)
class Bottlenecked(Net):
    """A backbone with a bottleneck at one of its cuts.

    In evaluation its module gives logits ``[n, classes]``, from codes that are rounded. In training it gives
    ``[n, classes + 1]``: the last column is what the row's codes cost under the prior, in bits. There gradients pass
    the rounding as if it were not there (straight through), and the prior sees the code with uniform noise instead.

    Attributes:
        backbone: the whole model; its dropout, if any, is off in training too.
        cut: stages of it (see :class:`duetto.models.Staged`) whose frontier the codes replace; one tensor crosses
            there, ``[rows, channels, height, width]`` or ``[rows, tokens, width]`` (:func:`fitting_cuts`).
        channels: of a code.
        downsampling: how many pixels (or tokens) in a row make one position of a code: of the input's with a student,
            else of the frontier's; a power of two.
        bits: a code has ``2 ** bits`` levels, 1 to 8; the entropy coder makes less of it.
        width: channels of the encoder at its largest size; they double once, where the size halves again.
        head: "student" is a light encoder in place of the stages before the cut; "kept" computes them, then narrows.

    Raises:
        ConfigError: sizes that are not such numbers, or that the backbone's frontier cannot be reached from.
    """

    backbone: Net
    cut: int
    channels: int = 8
    downsampling: int = 4
    bits: int = 3
    width: int = 32
    head: Literal["student", "kept"] = "student"

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8 or self.channels < 1 or self.width < 1:
            raise ConfigError(
                f"{self.channels} channels of {self.bits} bits from a width of {self.width}",
                "give 1 to 8 bits, one channel and a width of one at least",
            )
        if self.downsampling < 1 or self.downsampling & (self.downsampling - 1):
            raise ConfigError(f"a downsampling of {self.downsampling}", "use a power of two: 1, 2, 4 ...")
        if self.head not in ("student", "kept"):
            raise ConfigError(f"no head is called {self.head!r}", 'use "student" or "kept"')
        _ = self.grid, _ratio(self)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row of the input."""
        return tuple(self.backbone.shape)

    @property
    def classes(self) -> int:
        """Logits."""
        return int(self.backbone.classes)

    @property
    def levels(self) -> int:
        """That a code can have."""
        return 1 << self.bits

    @property
    def frontier(self) -> tuple[int, ...]:
        """The shape of what the decoder gives for one row: image-like ``(c, h, w)``, token-like ``(tokens, width)``."""
        return _frontier(self.backbone, self.cut)

    @property
    def grid(self) -> tuple[int, ...]:
        """The positions of a row's code: its shape is ``(channels, *grid)``."""
        if self.head == "student":
            if len(self.shape) != 3:
                raise ConfigError(f"a student of inputs of shape {self.shape}", 'it reads images; use head="kept"')
            sizes: tuple[int, ...] = self.shape[1:]
        else:
            sizes = _positions(self.frontier)
        if any(n % self.downsampling for n in sizes):
            raise ConfigError(
                f"{sizes} positions divided by {self.downsampling}", "use a power of two that divides them"
            )
        return tuple(n // self.downsampling for n in sizes)

    @property
    def code(self) -> tuple[int, ...]:
        """The shape of one row's code."""
        return (self.channels, *self.grid)

    @property
    def device(self) -> Encoding:
        """The device's side, a network whose parameters are ``{"encoder": params["encoder"]}``."""
        return Encoding(self)

    @property
    def cloud(self) -> Decoding:
        """The cloud's side, a network whose parameters are the branches "decoder" and "rest"."""
        return Decoding(self)

    @property
    def restoring(self) -> Restoring:
        """Both sides up to the frontier: what head distillation trains."""
        return Restoring(self)

    def module(self) -> nn.Module:
        """``encoder -> round -> decoder -> rest``, with the prior beside them."""
        return _Bottleneck(self)

    def init(self, seed: int) -> Tree:
        """Fresh parameters, the backbone's among them."""
        return self.around(self.backbone.init(seed), seed)

    def around(self, params: Tree, seed: int) -> Tree:
        """Parameters: those of a trained backbone, with a fresh encoder, decoder and prior.

        Raises:
            ConfigError: parameters of another network.
        """
        known = to_tensors(params)
        named = dict(built(self, seed).named_parameters())
        graph = _staged(self.backbone).graph
        for name, fresh in named.items():
            side, _, value = name.rpartition(".computed.")
            if side:
                own = graph.names[value]
                if own not in known or known[own].shape != fresh.shape:
                    raise ConfigError(f"parameters that are not those of {self.backbone}", "give the backbone's own")
                named[name] = nn.Parameter(known[own], requires_grad=False)
        return to_tree(named)

    def encode(self, params: Tree, x: np.ndarray) -> np.ndarray:
        """The device's side: codes ``[n, channels, *grid]`` uint8 of ``x [n, *shape]``; only "encoder" is read.

        Raises:
            ConfigError: parameters of another network.
        """
        return self.device.logits({"encoder": params["encoder"]}, x).astype(np.uint8)

    def decode(self, params: Tree, codes: np.ndarray) -> np.ndarray:
        """The cloud's side: logits ``[n, classes]`` float32; "decoder" and "rest" are read.

        Raises:
            DataError: codes of another shape or dtype, or levels that this bottleneck does not have.
            ConfigError: parameters of another network.
        """
        codes = np.asarray(codes)
        if codes.shape[1:] != self.code or codes.dtype != np.uint8:
            raise DataError(f"codes of {codes.shape[1:]} {codes.dtype}", f"send [n, {self.code}] uint8")
        if codes.size and codes.max() >= self.levels:
            raise DataError(f"a code of {codes.max()}", f"this bottleneck has {self.levels} levels")
        return self.cloud.logits({name: params[name] for name in ("decoder", "rest")}, codes)

    def prior(self, params: Tree) -> np.ndarray:
        """The probability of each level, ``[channels, levels]`` float64, for an entropy coder. Rows sum to 1.

        It is a part of the artefact: both sides must hold the very same table, so that none is computed twice.
        """
        prior = {name: torch.from_numpy(np.asarray(leaf, np.float64)) for name, leaf in params["prior"].items()}
        values = torch.arange(self.levels, dtype=torch.float64).expand(1, self.channels, -1)
        table = torch.exp(_log_chance(values, prior, self.levels))[0].numpy()
        return np.asarray(table / table.sum(1, keepdims=True))


@dataclass(frozen=True)
class Encoding(Net):
    """The device's side of a bottleneck: ``[n, *shape]`` to levels ``[n, channels, *grid]``, float32 whole numbers."""

    whole: Bottlenecked

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row of the input."""
        return self.whole.shape

    @property
    def classes(self) -> int:
        """Numbers in one row's code."""
        return size(self.whole.code)

    def module(self) -> nn.Module:
        """``encoder -> round``."""
        return _Encoding(self.whole)


@dataclass(frozen=True)
class Decoding(Net):
    """The cloud's side of a bottleneck: levels ``[n, channels, *grid]`` to logits."""

    whole: Bottlenecked

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row's code."""
        return self.whole.code

    @property
    def classes(self) -> int:
        """Logits."""
        return self.whole.classes

    def module(self) -> nn.Module:
        """``decoder -> rest``."""
        return _Decoding(self.whole)


@dataclass(frozen=True)
class Restoring(Net):
    """A bottleneck up to the frontier, flat: ``[n, size]``, and in training the bits beside it, ``[n, size + 1]``.

    Head distillation trains this against the backbone's own frontier; its parameters are the branches "encoder",
    "decoder" and "prior" of the whole.
    """

    whole: Bottlenecked

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row of the input."""
        return self.whole.shape

    @property
    def classes(self) -> int:
        """Numbers in one row's frontier."""
        return size(self.whole.frontier)

    def module(self) -> nn.Module:
        """``encoder -> round -> decoder``, with the prior beside them."""
        return _Restoring(self.whole)

    def targets(self, params: Tree, x: np.ndarray) -> np.ndarray:
        """What the backbone with these parameters has at the cut, ``[n, size]`` float32.

        Raises:
            ConfigError: parameters of another network.
        """
        return Heading(self.whole.backbone, self.whole.cut).logits(*_headed(self.whole, params), x)


@dataclass(frozen=True)
class Heading(Net):
    """The stages of a backbone before a cut where one tensor crosses, flat: ``[n, size]``."""

    backbone: Net
    cut: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row of the input."""
        return tuple(self.backbone.shape)

    @property
    def classes(self) -> int:
        """Numbers in one row's frontier."""
        return size(_frontier(self.backbone, self.cut))

    def module(self) -> nn.Module:
        """``head -> flatten``."""
        return nn.Sequential(_Part(_staged(self.backbone)[: self.cut], self.backbone), nn.Flatten())


def fitting_cuts(backbone: Net) -> dict[int, tuple[int, ...]]:
    """The cuts of a backbone at which a bottleneck can be, and the shape of what crosses there for one row."""
    net = _staged(backbone)
    return {cut: _frontier(backbone, cut) for cut in range(1, len(net)) if _lone(net, cut) is not None}


def _headed(whole: Bottlenecked, params: Tree) -> tuple[Tree]:
    """The parameters of a backbone's head, as :class:`Heading` names them."""
    known, graph = to_tensors(params), _staged(whole.backbone).graph
    wanted = dict(shared(Heading(whole.backbone, whole.cut)).named_parameters())
    values = {name: graph.names[name.rpartition(".")[2]] for name in wanted}
    if not set(values.values()) <= known.keys():
        raise ConfigError(f"parameters that are not those of {whole.backbone}", "give the backbone's own")
    return (to_tree({name: known[own] for name, own in values.items()}),)


@cache
def _staged(backbone: Net) -> Staged:
    """The backbone as stages; its own parameters are never used. What a cut changes is proven by ``stage``."""
    return Staged(traced(shared(backbone), (torch.zeros((2, *backbone.shape)),)))


@cache
def _frontier(backbone: Net, cut: int) -> tuple[int, ...]:
    """The shape of the lone tensor that crosses a cut, for one row.

    Raises:
        ConfigError: several cross, one that does not begin with its rows, or one of neither form.
    """
    net = _staged(backbone)
    crossing = _lone(net, cut)
    if crossing is None:
        fitting = ", ".join(map(str, fitting_cuts(backbone))) or "none"
        raise ConfigError(f"no image or tokens alone cross the cut after stage {cut}", f"they do after {fitting}")
    return tuple(axis[1] for axis in crossing.axes[1:])


def _lone(net: Staged, cut: int) -> Layout | None:
    """The layout of what crosses, where it is one tensor of floats that a decoder can give."""
    values = tuple(net[cut:].inputs.values())
    if len(values) != 1 or not 0 < cut < len(net) or not net.graph.free_rows:
        return None
    layout = net.graph.layouts[values[0]]
    fits = layout.axes[0] == (1, 0) and all(a == 0 for a, _ in layout.axes[1:]) and len(layout.axes) in (3, 4)
    return layout if fits and layout.dtype == "float32" else None


def _positions(frontier: tuple[int, ...]) -> tuple[int, ...]:
    return frontier[1:] if len(frontier) == 3 else frontier[:1]


def _ratio(net: Bottlenecked) -> int:
    """How much larger the frontier is than a code's grid, along each axis.

    Raises:
        ConfigError: not by one whole number.
    """
    positions = _positions(net.frontier)
    if len(positions) != len(net.grid):  # an image's code for tokens: mixed by a dense layer instead
        return 1
    ratios = {n // m for n, m in zip(positions, net.grid, strict=True) if n % m == 0}
    if len(ratios) != 1 or any(n % m for n, m in zip(positions, net.grid, strict=True)):
        raise ConfigError(
            f"a frontier of {positions} positions from codes of {net.grid}", "use a downsampling that divides it evenly"
        )
    return int(ratios.pop())


class _Part(nn.Module):
    """Stages of a backbone that can learn: ``[n, ...]`` to the lone value that leaves them."""

    def __init__(self, half: Half, backbone: Net) -> None:
        super().__init__()
        computed: Any = half.graph.part(list(half.indices), half.inputs, half.outputs)
        learned = dict(shared(backbone).named_parameters())
        for name, value in list(computed.named_buffers()):
            if half.graph.names.get(name) in learned:
                delattr(computed, name)
                computed.register_parameter(name, nn.Parameter(value.clone()))
        self.computed = computed
        ((_, value),) = half.inputs.items()
        ((self.gives, _),) = half.outputs.items()
        self.layout = half.graph.layouts[value]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.computed(x.shape[0], self.layout.restored(self.layout.stored(x)))[self.gives]
        return found


class _Encoder(nn.Module):
    """``[n, *shape]`` to a code that is not yet rounded, ``[n, channels, *grid]`` from 0 to the last level."""

    def __init__(self, net: Bottlenecked) -> None:
        super().__init__()
        self.last = net.levels - 1
        self.tokens = net.head == "kept" and len(net.frontier) == 2
        self.head = nn.Identity() if net.head == "student" else _Part(_staged(net.backbone)[: net.cut], net.backbone)
        if net.head == "student":
            before, wide, plane = net.shape[0], net.width, True
        else:
            before, plane = (net.frontier[1], False) if self.tokens else (net.frontier[0], True)
            wide = min(net.width, before)
        layers: list[nn.Module] = []
        if net.downsampling == 1:
            layers += [_convolution(plane)(before, wide, 3, padding=1), _norm(wide), nn.ReLU()]
            before = wide
        for halving in range(net.downsampling.bit_length() - 1):
            after, kernel = (wide, 5) if not halving else (2 * wide, 3)
            layers += [_convolution(plane)(before, after, kernel, 2, kernel // 2), _norm(after), nn.ReLU()]
            layers.append(_Added(after, plane))
            before = after
        self.narrowed = nn.Sequential(*layers, _convolution(plane)(before, net.channels, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.head(x)
        if self.tokens:
            x = x.transpose(1, 2)
        code: torch.Tensor = self.last * torch.sigmoid(self.narrowed(x))
        return code


class _Decoder(nn.Module):
    """Levels ``[n, channels, *grid]`` to the frontier."""

    def __init__(self, net: Bottlenecked) -> None:
        super().__init__()
        self.middle = (net.levels - 1) / 2
        self.tokens = len(net.frontier) == 2
        plane, wide, ratio = len(net.grid) == 2, 2 * net.width, _ratio(net)
        gives = net.frontier[1] if self.tokens else net.frontier[0]
        transposed: type[nn.Module] = nn.ConvTranspose2d if plane else nn.ConvTranspose1d
        self.widened = nn.Sequential(
            _convolution(plane)(net.channels, wide, 3, padding=1),
            _norm(wide),
            nn.ReLU(),
            _Added(wide, plane),
            transposed(wide, gives, ratio, ratio),
        )
        mixes = self.tokens and plane
        self.mixed = nn.Linear(math.prod(net.grid), net.frontier[0]) if mixes else nn.Identity()

    def forward(self, code: torch.Tensor) -> torch.Tensor:
        code = code.contiguous()  # one layout, whoever made the code: another gives other bits
        found: torch.Tensor = self.widened((code - self.middle) / max(self.middle, 1))
        if self.tokens:
            found = self.mixed(found.flatten(2)).transpose(1, 2)
        return found


class _Added(nn.Module):
    """``ReLU(x + Norm(Conv(x)))``."""

    def __init__(self, width: int, plane: bool) -> None:
        super().__init__()
        self.inner = nn.Sequential(_convolution(plane)(width, width, 3, padding=1), _norm(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(x + self.inner(x))


class _Prior(nn.Module):
    """For each channel a mixture of logistics, cut off at the ends, on the levels of its code."""

    def __init__(self, net: Bottlenecked) -> None:
        super().__init__()
        self.levels = net.levels
        middles = torch.linspace(0, net.levels - 1, MIXED + 2)[1:-1]
        self.means = nn.Parameter(middles.repeat(net.channels, 1))
        self.log_scales = nn.Parameter(torch.full((net.channels, MIXED), math.log(net.levels / 8)))
        self.log_weights = nn.Parameter(torch.zeros((net.channels, MIXED)))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Bits of each row of ``[n, channels, *grid]``."""
        rows = values.flatten(2)
        return -_log_chance(rows, dict(self.named_parameters()), self.levels).sum((1, 2)) / math.log(2)


def _log_chance(values: torch.Tensor, prior: Mapping[str, torch.Tensor], levels: int) -> torch.Tensor:
    """Log-probability of ``values [n, channels, positions]``, each between 0 and the last level; whole or not."""
    means, scales = prior["means"][:, None], torch.exp(prior["log_scales"])[:, None]
    weights = torch.softmax(prior["log_weights"], 1)[:, None]

    def below(at: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid((at[..., None] - means) / scales)

    at = values.clamp(0, levels - 1)
    inside = below(torch.full_like(at[:1, :, :1], levels - 0.5)) - below(torch.full_like(at[:1, :, :1], -0.5))
    chance = (weights * (below(at + 0.5) - below(at - 0.5)) / inside.clamp(min=1e-9)).sum(-1)
    return torch.log((1 - FLOOR) * chance + FLOOR / levels)


class _Encoding(nn.Module):
    def __init__(self, net: Bottlenecked) -> None:
        super().__init__()
        self.encoder = _Encoder(net)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.round(self.encoder(x))


class _Decoding(nn.Module):
    def __init__(self, net: Bottlenecked) -> None:
        super().__init__()
        self.decoder = _Decoder(net)
        self.rest = _Part(_staged(net.backbone)[net.cut :], net.backbone)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.rest(self.decoder(codes))
        return logits


class _Restoring(nn.Module):
    def __init__(self, net: Bottlenecked) -> None:
        super().__init__()
        self.encoder = _Encoder(net)
        self.decoder = _Decoder(net)
        self.prior = _Prior(net)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.beside(x, lambda frontier: frontier.flatten(1))

    def beside(self, x: torch.Tensor, then: Any) -> torch.Tensor:
        """What ``then`` makes of the frontier, and in training the bits."""
        code = self.encoder(x)
        rounded = code + (torch.round(code) - code).detach()
        found: torch.Tensor = then(self.decoder(rounded))
        if not self.training:
            return found
        noisy = code + torch.rand_like(code) - 0.5
        return torch.cat([found, self.prior(noisy)[:, None]], 1)


class _Bottleneck(_Restoring):
    def __init__(self, net: Bottlenecked) -> None:
        super().__init__(net)
        self.rest = _Part(_staged(net.backbone)[net.cut :], net.backbone)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.beside(x, self.rest)


def _convolution(plane: bool) -> type[nn.Conv2d] | type[nn.Conv1d]:
    return nn.Conv2d if plane else nn.Conv1d


def _norm(width: int) -> nn.Module:
    return nn.GroupNorm(math.gcd(_GROUPS, width), width)
