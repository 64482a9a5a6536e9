"""Steps of compression that train: distillation into another or the same network, and training that feels rounding.

A student learns from the teacher's answers to the very inputs that it sees itself, augmented (Beyer et al., Knowledge
distillation: A good teacher is patient and consistent, CVPR 2022): :func:`prepared` asks it once for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from duetto.errors import ConfigError
from duetto.models.compress import Material, Model, Rounded, Shown
from duetto.models.features import last_features
from duetto.models.net import Net, to_tensor
from duetto.training import sequential
from duetto.training.client import Client
from duetto.training.hints import Hint, OfLogits
from duetto.training.losses import CrossEntropy, Distil, Term
from duetto.training.optimisers import Adam, Optimiser
from duetto.training.relational import Relational
from duetto.tree import Tree
from duetto.types import Key

Augment = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


@dataclass(frozen=True)
class Distilled:
    """Train on the material: ``(1 - share) * CE + share * Distil`` (Hinton, Vinyals, Dean 2015), and more.

    Attributes:
        net: the student, which begins anew; None goes on with the model as it is (to heal it after pruning).
        epochs, batch_size, lr: of Adam with a cosine schedule.
        share: of the teacher's answers in the loss, 0 to 1; 0 learns from labels alone.
        temperature: of the teacher's answers.
        hint: weight of the teacher's features (FitNets); 0 leaves them out.
        distance, angle: weights of the relations between rows (RKD).
        sparse: whether weights that are zero stay zero.

    Raises:
        ConfigError: a share outside 0..1, or both hints and relations.
    """

    net: Net | None = None
    epochs: int = 1
    batch_size: int = 64
    lr: float = 3e-3
    share: float = 0.9
    temperature: float = 2.0
    hint: float = 0.0
    distance: float = 0.0
    angle: float = 0.0
    sparse: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ConfigError(f"share={self.share}", "use 0 (labels only) to 1 (the teacher only)")
        if self.hint and (self.distance or self.angle):
            raise ConfigError("hints and relations at once", "they read features of other widths: take one of them")

    @property
    def looks(self) -> bool:
        """Whether it looks at the teacher's features."""
        return bool(self.hint or self.distance or self.angle)

    def __call__(self, model: Model, material: Material, key: Key) -> Model:
        """The taught model.

        Raises:
            ConfigError: a step that imitates features, and material without.
        """
        net = self.net or model.net
        params = net.init(sequential.seed((*key, "init"))) if self.net else model.params
        terms = _terms(self.share, self.temperature)
        rule: Optimiser = Adam(self.lr, schedule="cosine")
        if self.sparse:
            rule = Sparse(rule)
        if not self.looks:
            client = Client(net, terms, rule, self.epochs, self.batch_size)
            return replace(model, net=net, params=_trained(client, params, material, key))
        if material.features is None:
            raise ConfigError("no features to imitate", "prepare the material with features=True")
        whole = Shown(net, material.features.shape[1] if self.hint else 0)
        more: Term = Hint(self.hint, net.classes) if self.hint else Relational(self.distance, self.angle, net.classes)
        started = {**whole.init(sequential.seed((*key, "regressor"))), "net": params}
        shown = tuple(OfLogits(term, net.classes) for term in terms)
        client = Client(whole, (*shown, more), rule, self.epochs, self.batch_size)
        return replace(model, net=net, params=_trained(client, started, material, key)["net"])


@dataclass(frozen=True)
class QuantisationAware:
    """Go on training with weights and activations rounded as the int8 file will round them (Jacob et al. 2018).

    Attributes:
        epochs, batch_size, lr, share, temperature: as :class:`Distilled`.
        bits: that are felt; the file has 8.
    """

    epochs: int = 1
    batch_size: int = 64
    lr: float = 3e-4
    share: float = 0.9
    temperature: float = 2.0
    bits: int = 8

    def __call__(self, model: Model, material: Material, key: Key) -> Model:
        """The model, to be kept as static int8."""
        rule = Adam(self.lr, schedule="cosine")
        terms = _terms(self.share, self.temperature)
        client = Client(Rounded(model.net, bits=self.bits), terms, rule, self.epochs, self.batch_size)
        return replace(model, params=_trained(client, model.params, material, key), form="int8")


@dataclass(frozen=True)
class Sparse:
    """An optimiser under which weights (not biases) that are zero at the start stay zero."""

    optimiser: Optimiser

    def start(self, params: Iterable[torch.Tensor]) -> torch.optim.Optimizer:
        """The optimiser, followed by a mask after every step."""
        leaves = list(params)
        masks = [(leaf, (leaf != 0).detach()) for leaf in leaves if leaf.ndim > 1]
        made = self.optimiser.start(leaves)

        def masked(*told: Any) -> None:
            with torch.no_grad():
                for leaf, mask in masks:
                    leaf *= mask

        made.register_step_post_hook(masked)
        return made

    def rate(self, step: int, steps: int) -> float:
        """The optimiser's."""
        return self.optimiser.rate(step, steps)


def prepared(
    teacher: Net,
    params: Tree,
    x: np.ndarray,
    y: np.ndarray,
    calibration: np.ndarray,
    key: Key,
    *,
    augment: Augment | None = None,
    copies: int = 1,
    features: bool = False,
) -> Material:
    """The material: every input so many times, each time augmented anew, with what the teacher says of it.

    Args:
        teacher: who is imitated.
        params: its parameters.
        x: inputs ``[n, *shape]``.
        y: their labels ``[n]``.
        calibration: inputs that show ranges.
        key: draws the augmentation.
        augment: None takes the inputs as they are.
        copies: of every input.
        features: whether the teacher shows what its last layer reads, too.

    Raises:
        ConfigError: fewer than one copy, or copies without an augmentation.
    """
    if copies < 1 or (copies > 1 and augment is None):
        raise ConfigError(f"{copies} copies of each input", "use 1 without an augmentation, at least 1 with one")
    x = np.asarray(x, np.float32)
    if augment is not None:
        generator = torch.Generator().manual_seed(sequential.seed((*key, "augment")))
        parts = [augment(part, generator).numpy() for _ in range(copies) for part in torch.split(to_tensor(x), 1024)]
        x, y = np.concatenate(parts), np.tile(y, copies)
    shown = last_features(teacher, params, x) if features else None
    return Material(x, np.asarray(y, np.int64), teacher.logits(params, x), np.asarray(calibration, np.float32), shown)


def _terms(share: float, temperature: float) -> tuple[Term, ...]:
    terms: list[Term] = [CrossEntropy(1 - share)] if share < 1 else []
    return (*terms, Distil(share, temperature)) if share else tuple(terms)


def _trained(client: Client, params: Tree, material: Material, key: Key) -> Tree:
    data = {"x": material.x, "y": material.y, "teacher": material.teacher}
    if material.features is not None:
        data["features"] = material.features
    return sequential.run(client, {"params": params}, data, key).params
