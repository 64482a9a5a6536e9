"""What the builders of algorithms ask for, by the names of their parameters: so that whoever has it can build any.

A builder takes a network and parameters, or several networks, or public inputs, or rows of the cloud's, and numbers.
Its signature says which. What :class:`Given` does not have, and no default has, must be given by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from duetto import algorithms
from duetto.errors import ConfigError
from duetto.models import Net
from duetto.tree import Tree
from duetto.types import Algorithm, Rows


@dataclass(frozen=True, eq=False)
class Given:
    """What there is to learn with, and from.

    Attributes:
        net, params: the network that devices train, and where it starts.
        nets: networks of different designs.
        public: inputs that all may know ``[m, *shape]``.
        rows: labelled rows of the cloud's.
        cloud: a large network of the cloud's, and its parameters.
        control: a network that stands in for it on devices.
        more: what else builders ask for, by name.
    """

    net: Net
    params: Tree
    nets: tuple[Net, ...]
    public: np.ndarray
    rows: Rows
    cloud: tuple[Net, Tree]
    control: Net
    more: Mapping[str, Any] = field(default_factory=dict)

    def named(self, parameter: inspect.Parameter) -> Any:
        """What a builder means by a parameter, or the parameter's default where there is none."""
        if parameter.name == "public" and parameter.annotation is int:
            return len(self.public)
        return {**vars(self), "x": self.public, **self.more}.get(parameter.name, parameter.default)


def built(build: str | Callable[..., Algorithm], given: Given, **numbers: Any) -> Algorithm:
    """The algorithm of a builder, or of a name in ``duetto.algorithms``, from what is given and these numbers.

    Raises:
        ConfigError: there is no such algorithm, or it asks for something else.
    """
    if isinstance(build, str) and build not in algorithms.__all__:
        raise ConfigError(f"no algorithm is called {build!r}", f"use one of {', '.join(algorithms.__all__)}")
    call: Callable[..., Algorithm] = getattr(algorithms, build) if isinstance(build, str) else build
    wanted = inspect.signature(call).parameters
    found = {name: given.named(parameter) for name, parameter in wanted.items()} | numbers
    missing = [name for name, value in found.items() if value is inspect.Parameter.empty]
    if missing:
        raise ConfigError(f"{call.__name__} asks for {', '.join(missing)}", "give it by name")
    return call(**found)
