"""A large model that an engine elsewhere serves, as :class:`duetto.protocols.stages.Finish` asks it: from the input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from duetto.cloud.external import OpenAI, OpenInference
from duetto.errors import ConfigError, DataError
from duetto.tree import Tree
from duetto.types import Local, Work

_SCHEMES = ("openai+", "oip+")


class Elsewhere:
    """A model of one stage: ``elsewhere[0:]`` takes what the skill takes, and gives what it gives.

    Args:
        skill: of :mod:`duetto.cloud.external`.
    """

    def __init__(self, skill: OpenAI | OpenInference) -> None:
        self.skill = skill
        self.joinable = isinstance(skill, OpenInference)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, cut: slice) -> Elsewhere:
        if (cut.start or 0, cut.stop) not in {(0, None), (0, 1)}:
            raise DataError(f"stages {cut.start} to {cut.stop}", "the engine holds the whole model only")
        return self

    def __call__(self, tree: Tree) -> Tree:
        """Ask the engine."""
        return self.skill(Local(), tree, ("elsewhere",), "a device")[1]

    def rows(self, tree: Tree) -> int:
        """How many rows are asked about."""
        if not isinstance(tree, Mapping) or not tree:
            raise DataError("neither rows nor a prompt", 'send {"x": [n, *shape]} or {"prompt": bytes}')
        leaf = next(iter(tree.values()))
        return int(np.shape(leaf)[0]) if np.ndim(leaf) > 1 else 1

    def joined(self, trees: Sequence[Tree]) -> dict[str, Any]:
        """Rows after rows.

        Raises:
            DataError: rows of several shapes.
        """
        rows = [np.asarray(tree["x"]) for tree in trees]
        if len({each.shape[1:] for each in rows}) > 1:
            raise DataError(
                f"rows of shapes {sorted({each.shape[1:] for each in rows})}", "ask about one shape at once"
            )
        return {"x": np.concatenate(rows)}

    def parted(self, tree: Tree, rows: Sequence[int]) -> list[dict[str, Any]]:
        """The rows of each again."""
        return [{"logits": part} for part in np.split(tree["logits"], np.cumsum(rows)[:-1])]

    def work(self, rows: int = 1) -> Work:
        """Not known here."""
        return Work()


def elsewhere(text: str, variable: str = "") -> Elsewhere | None:
    """The engine that a text names: ``openai+http://host:8000/v1#MODEL`` or ``oip+http://host:8000#MODEL``.

    Args:
        text: None is returned where it names no engine.
        variable: the name of the environment variable with the key.

    Raises:
        ConfigError: an engine without a model.
    """
    scheme = next((each for each in _SCHEMES if text.startswith(each)), None)
    if scheme is None:
        return None
    url, _, model = text.removeprefix(scheme).partition("#")
    if not model:
        raise ConfigError(f"an engine without a model: {text!r}", "write it as oip+http://host:8000#MODEL")
    skill = (
        OpenAI(url, model, variable=variable) if scheme == "openai+" else OpenInference(url, model, variable=variable)
    )
    return Elsewhere(skill)
