"""What algorithms have in common: all are federated averaging but for a few parts, and say which.

An algorithm declares what a client adds to its loss, how it optimises, what it sends and remembers, and how the server
steps. Its builder takes its own numbers by name, and ``**common`` for all others, which :func:`spelled_out` shows to
whoever asks for the signature.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Required, TypedDict, TypeVar

from duetto import aggregation, policies, training
from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.models import Net
from duetto.protocols.collect import Plain
from duetto.training.client import Client
from duetto.training.losses import Term
from duetto.tree import Tree
from duetto.types import Algorithm, Peer, Policy, ServerUpdate, rng

Build = TypeVar("Build", bound=Callable[..., Algorithm])


class Common(TypedDict, total=False):
    """What every builder takes beside ``net``, the first ``params`` and its own numbers.

    Attributes:
        lr: learning rate of a client.
        epochs: passes over a client's data in a round.
        batch_size: rows of a client's step.
        momentum: of a client's steps within a round.
        cohort: who takes part in a round; None is everyone online.
    """

    lr: Required[float]
    epochs: Required[int]
    batch_size: int
    momentum: float
    cohort: Policy[Any] | None


def variant(
    net: Net,
    params: Tree,
    server: ServerUpdate[Any],
    client: Callable[..., Client] = Client,
    terms: tuple[Term, ...] = (),
    *,
    lr: float,
    epochs: int,
    batch_size: int = 16,
    momentum: float = 0.0,
    cohort: Policy[Any] | None = None,
) -> Algorithm:
    """Learning from labelled data by SGD, in the clear: replies averaged by weight, then ``server``'s step.

    Args:
        net: what is trained.
        params: what the first round starts from.
        server: the cloud's side.
        client: the device's side, a class of clients.
        terms: what the device's loss has beside the cross-entropy.
        lr, epochs, batch_size, momentum, cohort: see :class:`Common`.
    """
    return Algorithm(
        client=client(net, (training.CrossEntropy(), *terms), training.SGD(lr, momentum), epochs, batch_size),
        params=params,
        server=server,
        aggregator=aggregation.Mean(),
        cohort=cohort or policies.Everyone(),
        gate=aggregation.Gate(norm=None),
        collect=Plain(),
    )


def spelled_out(build: Build) -> Build:
    """The builder, with what its ``**common`` stands for in its signature: for help, and for flags."""
    own = inspect.signature(build, eval_str=True)
    named = [each for each in own.parameters.values() if each.kind != each.VAR_KEYWORD]
    of_all = inspect.signature(variant, eval_str=True).parameters.values()
    common = [each for each in of_all if each.kind == each.KEYWORD_ONLY]
    build.__signature__ = own.replace(parameters=[*named, *common])  # type: ignore[attr-defined]
    return build


def declared(client: Client, net: Net, **changed: Any) -> Client:
    """The plain training that ``client`` declares, of another network: for a client that trains what it makes of it."""
    own = {each.name: getattr(client, each.name) for each in fields(Client)}
    return Client(**{**own, "net": net, **changed})


def alike(nets: Sequence[Net]) -> tuple[Net, ...]:
    """The networks, where all take the same inputs and give the same classes.

    Raises:
        ConfigError: they do not, or there are none.
    """
    if len({(net.shape, net.classes) for net in nets}) != 1:
        raise ConfigError(f"{len(nets)} kinds of network", "name some, all of the same shape and classes")
    return tuple(nets)


def kind_of(peer: Peer | None, kinds: int) -> int:
    """Which of several kinds of network a device has: its trait ``kind``, or drawn by its name; the first for nobody.

    Raises:
        ConfigError: a trait that names none.
    """
    if peer is None:
        return 0
    kind = int(peer.traits.get("kind", rng(("kind", peer.name)).integers(kinds)))
    if not 0 <= kind < kinds:
        raise ConfigError(f"{peer.name} has a network of kind {kind}", f"kinds are 0 to {kinds - 1}")
    return kind


def positive(**numbers: float) -> None:
    """Nothing where all are.

    Raises:
        ConfigError: the first that is not positive and finite.
    """
    for name, value in numbers.items():
        if not 0 < value < math.inf:
            raise ConfigError(f"{name}={value}", "use a positive number")


def below_one(**numbers: float) -> None:
    """Nothing where all are from 0, below 1.

    Raises:
        ConfigError: the first that is not.
    """
    for name, value in numbers.items():
        if not 0 <= value < 1:
            raise ConfigError(f"{name}={value}", "use a number from 0, below 1")


def remembered(memory: Mapping[str, Any], slot: str, params: Tree, first: Tree | None = None) -> Tree:
    """The tree that a client keeps in a slot of its memory, shaped as ``params``; before that ``first``, or zeros.

    Raises:
        ConfigError: it is of another network.
    """
    if slot not in memory:
        return trees.zeros(params) if first is None else first
    if trees.spec(memory[slot]) != trees.spec(params):
        raise ConfigError(f"what a client remembers as {slot!r} is of another network", "let it forget that")
    return memory[slot]
