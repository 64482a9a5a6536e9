"""Whom an attacker on features knows, who is attacked, and what is known of them without any features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from duetto.attacks.release import features
from duetto.evaluation import leakage, users
from duetto.models import Staged
from duetto.tasks import Task
from duetto.types import Key, rng

GUESSES = ("mean public input", "mean of the answer's class", "a public input by chance", "nearest public input")
"""What an attacker says who has seen no features; the last one is chosen by looking at the truth."""
SHOWN = 8  # inputs in a picture


@dataclass(frozen=True, eq=False)
class People:
    """Whom the attacker knows, and who is attacked.

    Attributes:
        seed: of the task.
        public, labels: inputs of public people, and what they are.
        x, y, owner: of unseen people, some of each.
        span: between the smallest and the largest public number.
        shown: inputs of calibration people, of whom pictures may be drawn.
    """

    seed: int
    public: np.ndarray
    labels: np.ndarray
    x: np.ndarray
    y: np.ndarray
    owner: np.ndarray
    span: float
    shown: np.ndarray

    @classmethod
    def of(cls, task: Task, rows: int, scored: int) -> People:
        """Drawn by the task's seed: so many public inputs, and so many at most of each unseen user."""
        draw = rng((task.seed, "leak", "people"))
        known = draw.permutation(len(task.public))[:rows]
        public, labels = np.asarray(task.public.x[known], np.float32), np.asarray(task.public.y[known])
        unseen, owner = task.group("unseen")
        order = draw.permutation(len(unseen))
        mine = np.concatenate([order[owner[order] == user][:scored] for user in task.users["unseen"]])
        other, _ = task.group("calibration")
        shown = np.asarray(other.x[draw.permutation(len(other))[:SHOWN]], np.float32)
        span = float(public.max() - public.min()) or 1.0
        return cls(
            task.seed, public, labels, np.asarray(unseen.x[mine], np.float32), unseen.y[mine], owner[mine], span, shown
        )

    @property
    def key(self) -> Key:
        """Of everything that chance decides."""
        return (self.seed, "leak")

    def nearness(self, guess: np.ndarray) -> dict[str, list[float]]:
        """Of a guess at each of ``x``: a mean of each user."""
        image = self.x.ndim == 4 and min(self.x.shape[2:]) >= 3
        found = {"ssim": leakage.ssim(self.x, guess, self.span)} if image else {}
        found["psnr"] = leakage.psnr(self.x, guess, self.span)
        return {name: users.by(values, self.owner).mean.tolist() for name, values in found.items()}


def guessed(people: People, staged: Staged) -> dict[str, dict[str, list[float]]]:
    """:data:`GUESSES` -> measure -> mean of each user; the answers are those of the model."""
    public = people.public
    answers = features(staged[:], people.x).argmax(1)
    classes = {c: public[people.labels == c].mean(0) for c in np.unique(people.labels)}
    mean = public.mean(0)
    flat, wanted = public.reshape(len(public), -1), people.x.reshape(len(people.x), -1)
    apart = (flat**2).sum(1) - 2 * wanted @ flat.T
    said = (
        np.repeat(mean[None], len(people.x), 0),
        np.stack([classes.get(c, mean) for c in answers.tolist()]),
        public[rng((*people.key, "chance")).integers(len(public), size=len(people.x))],
        public[apart.argmin(1)],
    )
    return {name: people.nearness(guess) for name, guess in zip(GUESSES, said, strict=True)}
