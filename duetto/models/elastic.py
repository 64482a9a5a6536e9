"""One set of weights, several sub-networks: narrower and shallower ones that are corners of the largest one's weights.

Yu, Yang, Xu, Yang, Huang: Slimmable Neural Networks, ICLR 2019, run a network at several widths, each of which has
the first channels of every layer; Cai, Gan, Wang, Zhang, Han: Once-for-All: Train One Network and Specialize it for
Efficient Deployment, ICLR 2020, also leave out the last blocks. A residual network keeps the first blocks of every
group and shares all its weights. A chain keeps its first layers, and what a shallower chain answers with (the dense
layers behind convolutions, else the last one) is its own: it reads other features than the largest one's does.

The slimmable networks of 2019 keep batch statistics for each width. Nothing is kept here: the networks of the zoo
normalise by groups of channels, by what each input shows, or not at all, and batch normalisation is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise, product

import numpy as np
from torch import Tensor, nn
from torch.func import functional_call

from duetto.errors import ConfigError
from duetto.models.narrow import narrowed
from duetto.models.net import Net, fitting, shared, to_tree
from duetto.models.zoo import Conv, Mlp, Residual, Signal
from duetto.tree import Tree
from duetto.types import Work


@dataclass(frozen=True)
class Sub:
    """A sub-network, by name.

    Attributes:
        width: share of the channels of every hidden layer.
        depth: blocks of each group, or layers of a chain; 0 is all of them.
    """

    width: float = 1.0
    depth: int = 0

    def __str__(self) -> str:
        return f"{self.width:g}" if not self.depth else f"{self.width:g}x{self.depth}"


@dataclass(frozen=True)
class Slimmable(Net):
    """A network with its sub-networks; as a network among others it is the largest one.

    Its parameters are those of ``net`` under that name, and beside them in ``heads`` what shallower chains answer
    with. The leaf of a sub-network is the first rows and columns of one of these.

    Attributes:
        net: the largest.
        widths: of sub-networks, rising to 1.
        depths: of sub-networks, rising, each less than all; every width has each of them, and all.

    Raises:
        ConfigError: widths or depths that do not rise, or a network that has none of them, or batch statistics.
    """

    net: Net
    widths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    depths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.widths or self.widths[-1] != 1 or any(b <= a for a, b in pairwise(self.widths)):
            raise ConfigError(f"widths {self.widths}", "name shares that rise, the last one 1")
        if any(b <= a for a, b in pairwise(self.depths)):
            raise ConfigError(f"depths {self.depths}", "name depths that rise")
        if isinstance(self.net, Conv) and self.net.norm:
            raise ConfigError(
                "batch statistics shared by several widths", "use a network without, such as Residual, or norm=''"
            )
        _ = self.subs

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        found: tuple[int, ...] = self.net.shape
        return found

    @property
    def classes(self) -> int:
        """Logits."""
        return int(self.net.classes)

    @property
    def subs(self) -> tuple[Sub, ...]:
        """All sub-networks, by what they compute; the last one is the largest."""
        return _subs(self)

    def sub(self, sub: Sub) -> Net:
        """The sub-network as a network of its own, whose parameters :meth:`cut` gives.

        Raises:
            ConfigError: one that is not among these.
        """
        if sub.width not in self.widths or sub.depth not in (*self.depths, 0):
            raise ConfigError(
                f"no sub-network {sub}", f"widths are {self.widths}, depths {self.depths or 'all layers only'}"
            )
        return narrowed(shallower(self.net, sub.depth), sub.width)

    def cut(self, params: Tree, sub: Sub) -> Tree:
        """The parameters of the sub-network. Copies.

        Raises:
            ConfigError: a sub-network that is not among these, or parameters of another network.
        """
        return to_tree(self.tensors(fitting(self, params), sub))

    def tensors(self, named: Mapping[str, Tensor], sub: Sub) -> dict[str, Tensor]:
        """The same of tensors by dotted name, with gradients; each lies as one piece, as a network's own do."""
        found = {}
        for name, leaf in shared(self.sub(sub)).named_parameters():
            whole = named[_homes(self.net, sub.depth)[name]]
            found[name] = whole[tuple(slice(size) for size in leaf.shape)].contiguous()
        return found

    def at(self, sub: Sub) -> Sized:
        """This network, answering as a sub-network: with the parameters of all, computing only what that one needs.

        Raises:
            ConfigError: one that is not among these.
        """
        return Sized(self, sub)

    def answers(self, params: Tree, x: np.ndarray, sub: Sub) -> np.ndarray:
        """Logits ``[n, classes]`` float32 of a sub-network for ``x [n, *shape]``.

        Raises:
            ConfigError: a sub-network that is not among these, or parameters of another network.
        """
        return self.at(sub).logits(params, x)

    def module(self) -> nn.Module:
        """The largest, with the heads of the others beside it."""
        made = nn.Module()
        for depth in self.depths:
            module = shallower(self.net, depth).module()
            homes = {name.rpartition(".")[0]: home for name, home in _homes(self.net, depth).items()}
            own = {name: module.get_submodule(name) for name, home in homes.items() if home.startswith("heads.")}
            if own:
                made.add_module(str(depth), nn.ModuleDict(own))
        return _Largest(self.net.module(), made)


class _Largest(nn.Module):
    def __init__(self, net: nn.Module, heads: nn.Module) -> None:
        super().__init__()
        self.net, self.heads = net, heads

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits


@dataclass(frozen=True)
class Sized(Net):
    """A slimmable network that answers as one of its sub-networks.

    Its parameters are those of all: a party that remembers them once answers in every size, by a skill for each such as
    ``Predict(net.at(sub))``. Bit for bit it answers as :meth:`Slimmable.sub` does with :meth:`Slimmable.cut`.

    Raises:
        ConfigError: a sub-network that is not among its own.
    """

    net: Slimmable
    sub: Sub = Sub()

    def __post_init__(self) -> None:
        _ = self.net.sub(self.sub)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        return self.net.shape

    @property
    def classes(self) -> int:
        """Logits."""
        return self.net.classes

    def module(self) -> nn.Module:
        """``[n, *shape]`` to ``[n, classes]``."""
        return _Corner(self.net, self.sub)

    def work(self, rows: int, bytes_per_parameter: int = 4) -> Work:
        """The sub-network's."""
        return self.net.sub(self.sub).work(rows, bytes_per_parameter)


class _Corner(nn.Module):
    def __init__(self, net: Slimmable, sub: Sub) -> None:
        super().__init__()
        made = net.module()
        self.net, self.heads = made.net, made.heads
        self._of, self._sub = net, sub
        self._alone = (net.sub(sub).module(),)  # in a tuple, so that its parameters are not this module's

    def forward(self, x: Tensor) -> Tensor:
        (alone,) = self._alone
        alone.train(self.training)
        logits: Tensor = functional_call(alone, self._of.tensors(dict(self.named_parameters()), self._sub), (x,))
        return logits


@cache
def _subs(net: Slimmable) -> tuple[Sub, ...]:
    found = [Sub(width, depth) for width, depth in product(net.widths, (*net.depths, 0))]
    return tuple(sorted(found, key=lambda sub: (net.sub(sub).work(1).flops, sub.width)))


def deepest(net: Net) -> int:
    """How deep a network is: blocks of each group, or the hidden layers of a chain (convolutions, where it has some).

    Raises:
        ConfigError: a network of which no shallower one is known.
    """
    if isinstance(net, Residual):
        return net.blocks
    if isinstance(net, Conv | Signal):
        return len(net.channels)
    if isinstance(net, Mlp):
        return len(net.hidden)
    raise ConfigError(f"no shallower {type(net).__name__} is known", "use Mlp, Conv, Signal or Residual, or depth 0")


@cache
def shallower(net: Net, depth: int) -> Net:
    """The network with so many blocks in each group, or so many of its first layers; 0 is all of them.

    Raises:
        ConfigError: a depth that is not below the network's own, or a network of which no shallower one is known.
    """
    if depth == 0:
        return net
    if not 0 < depth < deepest(net):
        known = f"1 to {deepest(net) - 1}, or 0" if deepest(net) > 1 else "0"
        raise ConfigError(f"depth={depth} of a network of depth {deepest(net)}", f"use {known} for all")
    if isinstance(net, Residual):
        return replace(net, blocks=depth)
    if isinstance(net, Conv | Signal):
        return replace(net, channels=net.channels[:depth])
    assert isinstance(net, Mlp)
    return replace(net, hidden=net.hidden[:depth])


@cache
def _homes(net: Net, depth: int) -> Mapping[str, str]:
    """The name of each leaf of the shallower network -> that of the slimmable one's leaf that it is the corner of."""
    modules = dict(shared(shallower(net, depth)).named_modules())
    names = [name for name, _ in shared(shallower(net, depth)).named_parameters()]
    if depth == 0:
        return {name: f"net.{name}" for name in names}
    if isinstance(net, Residual):
        return {name: f"net.{_longer(net, depth, name)}" for name in names}
    dense = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
    own = dense[-1:] if isinstance(net, Mlp) else dense
    return {name: f"{f'heads.{depth}' if name.rpartition('.')[0] in own else 'net'}.{name}" for name in names}


def _longer(net: Residual, depth: int, name: str) -> str:
    """What a leaf of the shallower network is called in the whole one, whose blocks are in one row."""
    index, _, leaf = name.partition(".")
    first, at = (4 if net.stem > 3 else 3), int(index)
    if at >= first:
        at += (net.blocks - depth) * min((at - first) // depth, len(net.widths))
    return f"{at}.{leaf}"
