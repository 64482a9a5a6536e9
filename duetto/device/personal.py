"""A model that fits its user, without torch: a small head on the small model's logits, fitted while the device is idle.

The head adds a linear function of the log-probabilities ``h [classes]`` to them, ``h + A h + b``: vector scaling (Guo
et al., "On Calibration of Modern Neural Networks", 2017) where A is diagonal, multinomial logistic stacking (Wolpert
1992) where it is full. It is held to the identity, which is "nothing learned", by the squares of A and b; the loss is
convex.

Whether it helps is measured on what it was not fitted on: lessons are gone through in the order in which they came, and
each block is answered by the head that was fitted on all before it (progressive validation, Blum, Kalai & Langford
1999). It is used only while it is not worse: of the answers that only one of the two had right, the model's alone are
not so many that a coin brings as many with probability ``error`` at most (exact sign test). At an error of a half that
is: as soon as it has lost more than it has won, it goes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from duetto import tree as trees
from duetto.device.artefact import Artefact
from duetto.device.lessons import Taught
from duetto.errors import ConfigError, WireError
from duetto.transport.files import put
from duetto.tree import Tree
from duetto.types import Key, Local, Skill, Work

HEAD = "head"
"""The memory slot of a head that is used: ``weight [classes, classes]`` and ``bias [classes]`` float64."""


@dataclass(frozen=True)
class Fitting:
    """How a head is fitted, and when it is used.

    Attributes:
        form: "bias", one number a class; "vector", two; "matrix", one for each pair of classes more.
        pull: what the squares of A and b cost: as many lessons, about, as it takes to move the head half-way.
        trust: how much a lesson of the cloud counts beside one of the user.
        block: lessons between two fits of the validation.
        least: lessons before anything is fitted.
        error: of the test, between 0 and 1.

    Raises:
        ConfigError: a number or form that cannot be.
    """

    form: Literal["bias", "vector", "matrix"] = "matrix"
    pull: float = 2.0
    trust: float = 0.5
    block: int = 10
    least: int = 10
    error: float = 0.5

    def __post_init__(self) -> None:
        if self.form not in ("bias", "vector", "matrix"):
            raise ConfigError(f"a head of the form {self.form!r}", "use bias, vector or matrix")
        if not (self.pull > 0 and self.trust >= 0 and 0 < self.error < 1 and self.block >= 1 and self.least >= 1):
            raise ConfigError(f"{self}", "pull > 0, trust >= 0, 0 < error < 1, block >= 1, least >= 1")


@dataclass(frozen=True, eq=False)
class Head:
    """A fitted head, and what is known of it.

    Attributes:
        model: the version of the small model that it belongs to.
        weight, bias: A ``[classes, classes]`` and b ``[classes]``, float64.
        lessons: it was fitted on.
        wins, losses: how often, on lessons that were still to come, it alone was right, and the model alone.
        used: whether that is not worse.
    """

    model: int
    weight: np.ndarray
    bias: np.ndarray
    lessons: int
    wins: float
    losses: float
    used: bool

    def logits(self, logits: np.ndarray) -> np.ndarray:
        """What becomes of ``logits [n, classes]``."""
        return applied(logits, self.weight, self.bias)

    def save(self, path: Path) -> None:
        """Write it, completely or not at all."""
        about = {name: getattr(self, name) for name in ("model", "lessons", "wins", "losses", "used")}
        told = np.frombuffer(json.dumps(about).encode(), np.uint8)
        put(path, trees.encode({"about": told, "weight": self.weight, "bias": self.bias}))

    @classmethod
    def load(cls, path: Path) -> Head | None:
        """Read it; None where there is none, or it is damaged: it is fitted again."""
        try:
            told = trees.decode(path.read_bytes())
            return cls(**json.loads(told["about"].tobytes()), weight=told["weight"], bias=told["bias"])
        except (OSError, WireError, ValueError, KeyError, TypeError, AttributeError):
            return None


@dataclass(frozen=True)
class Personal(Skill):
    """An artefact's answer, corrected by the head in ``memory["head"]``, where there is one.

    Gives ``{"logits"}``, and beside them ``base``, the artefact's own ``[n, classes]``.
    """

    artefact: Artefact

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Answer, and correct."""
        return local, self._corrected(local, self.artefact(local, tree, key, sender)[1])

    def many(
        self, locals: Sequence[Local], trees: Sequence[Tree], keys: Sequence[Key], senders: Sequence[str]
    ) -> list[tuple[Local, Tree]]:
        """One run for all."""
        found = self.artefact.many(locals, trees, keys, senders)
        return [(local, self._corrected(local, given)) for local, given in found]

    def work(self, local: Local, tree: Tree) -> Work:
        """The artefact's; the head is nothing beside it."""
        return self.artefact.work(local, tree)

    def group(self, local: Local, tree: Tree) -> Any:
        """All who answer with the same file."""
        return self.artefact.group(local, tree)

    def _corrected(self, local: Local, given: Tree) -> Tree:
        base, head = given["logits"], local.memory.get(HEAD)
        if head is None or head["bias"].shape != base.shape[1:]:
            return {"logits": base, "base": base}
        return {"logits": applied(base, head["weight"], head["bias"]), "base": base}


def applied(logits: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """``h + A h + b`` of ``logits [n, classes]``, float32."""
    h = _log_softmax(np.asarray(logits, np.float64))
    corrected: np.ndarray = (h + h @ weight.T + bias).astype(np.float32)
    return corrected


def fit(logits: np.ndarray, target: np.ndarray, counts: np.ndarray, fitting: Fitting) -> tuple[np.ndarray, np.ndarray]:
    """A ``[classes, classes]`` and b ``[classes]`` of the lowest loss.

    Args:
        logits: ``[n, classes]``.
        target: ``[n, classes]`` probabilities.
        counts: ``[n]`` how much each lesson counts.
        fitting: the form, and the pull to zero.
    """
    h = _log_softmax(np.asarray(logits, np.float64))
    n, classes = h.shape
    scale = math.sqrt(float((counts @ (h * h)).sum() / max(counts.sum() * classes, 1e-12))) or 1.0
    inputs = h / scale
    rows = np.concatenate([inputs, np.ones((n, 1))], 1)
    free = np.full((classes, classes + 1), fitting.form == "matrix")
    np.fill_diagonal(free, fitting.form != "bias")
    free[:, classes] = True
    # The curvature is at most half the rows' squares, whatever the answers (Boehning 1992); steps by that descend
    bound = 0.5 * (rows * counts[:, None]).T @ rows + fitting.pull * np.eye(classes + 1)
    shared = fitting.form == "matrix"
    if shared:
        inverse = np.linalg.inv(bound)
    else:
        both = free[:, :, None] & free[:, None, :]
        inverse = np.linalg.inv(np.where(both, bound, np.eye(classes + 1)))
    at = ahead = np.zeros((classes, classes + 1))
    momentum = 1.0
    for _ in range(300):  # Nesterov's, in that metric; begun anew where it turns back (O'Donoghue & Candes 2015)
        off = np.exp(_log_softmax(h + inputs @ ahead[:, :classes].T + ahead[:, classes])) - target
        slope = ((off * counts[:, None]).T @ rows + fitting.pull * ahead) * free
        after = ahead - (slope @ inverse if shared else np.einsum("kij,kj->ki", inverse, slope))
        if float((slope * (after - at)).sum()) > 0:
            momentum = 1.0
        grown = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        ahead = after + (momentum - 1) / grown * (after - at)
        at, momentum = after, grown
        if float(np.abs(slope).max()) < 1e-5 * max(1.0, float(counts.sum())):
            break
    return at[:, :classes] / scale, at[:, classes]


def learned(taught: Taught, fitting: Fitting, version: int) -> Head | None:
    """The head of a device's lessons, and whether it may be used; None where they are too few.

    Args:
        taught: lessons whose logits are all of the small model of this version.
        fitting: how.
        version: of the small model.
    """
    n = len(taught)
    if n < fitting.least:
        return None
    counts = np.where(taught.corrected, 1.0, fitting.trust)
    wins = losses = 0.0
    for start in range(fitting.least, n, fitting.block):
        new = slice(start, start + fitting.block)
        head = fit(taught.logits[:start], taught.target[:start], counts[:start], fitting)
        right = taught.target[new].argmax(1)
        own = taught.logits[new].argmax(1) == right
        mine = applied(taught.logits[new], *head).argmax(1) == right
        wins, losses = wins + float((mine & ~own).sum()), losses + float((own & ~mine).sum())
    weight, bias = fit(taught.logits, taught.target, counts, fitting)
    return Head(version, weight, bias, n, wins, losses, not beaten(wins, losses, fitting.error))


def beaten(wins: float, losses: float, error: float) -> bool:
    """Whether a fair coin brings so many losses with probability ``error`` at most."""
    n, least = round(wins + losses), round(losses)
    return n > 0 and sum(math.comb(n, k) for k in range(least, n + 1)) / 2**n <= error


def refreshed(taught: Taught, version: int, artefact: Callable[[np.ndarray], np.ndarray]) -> Taught:
    """The lessons as the small model of this version answers them; those of older ones are answered anew."""
    old = taught.model != version
    if not old.any():
        return taught
    logits = taught.logits.copy()
    logits[old] = artefact(taught.x[old])
    return Taught(taught.x, logits, taught.target, taught.corrected, np.full(len(taught), version))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    below = logits - logits.max(1, keepdims=True)
    log: np.ndarray = below - np.log(np.exp(below).sum(1, keepdims=True))
    return log
