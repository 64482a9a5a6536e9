"""What every system is given: data, first weights, who takes part in which round, and the order of their rows.

:func:`write` makes a workload as plain numpy files in a folder; :func:`load` reads them in an engine, whichever
environment it runs in. Users of a round are ascending. The rows of user ``u`` in round ``r`` come in the order

    ``duetto.types.rng((seed, "round", r, f"user-{u}", "order", 0)).permutation(n)``

which is the order that Duetto's own training draws, so that all systems take the same steps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np

Weights: TypeAlias = dict[str, np.ndarray]
"""Arrays by the name and in the layout that ``nets.py`` gives them."""

SEED = 0


@dataclass(frozen=True)
class Workload:
    """One task.

    Attributes:
        about: one line.
        shape: of one row of ``x``.
        classes: labels.
        users: of the fleet.
        rows: fewest and most rows of a user, drawn uniformly.
        cohort: users of a round.
        batch: rows of a step; the last of an epoch may be smaller.
        lr: of plain SGD, one epoch a round.
        rounds: how many, where the command line does not say.
        first_macs: multiply-adds of a row's forward pass in the layers whose input needs no gradient.
        macs: in all other layers.
        distinct: users whose rows differ; those after them hold the same rows again.
    """

    about: str
    shape: tuple[int, ...]
    classes: int
    users: int
    rows: tuple[int, int]
    cohort: int
    batch: int
    lr: float
    rounds: int
    first_macs: int
    macs: int
    distinct: int = 1000

    @property
    def flops(self) -> int:
        """Nominal floating-point operations to train on one row: forward, weight gradient, input gradient."""
        return 2 * (2 * self.first_macs + 3 * self.macs)


_LEAF = {"shape": (1, 28, 28), "classes": 62, "users": 200, "rows": (20, 100), "cohort": 50, "batch": 10}
_TINY = {"shape": (16,), "classes": 4, "rows": (8, 16), "cohort": 50, "batch": 8, "lr": 0.1, "rounds": 30}

WORKLOADS = {
    "W1": Workload(
        about="LEAF CNN (1.69 million parameters), 28x28 images, 50 clients with 20-100 rows",
        **_LEAF,
        lr=0.003,  # at 0.01 a few flipped ReLUs part float32 engines by 0.5 % of the update within 10 rounds
        rounds=12,
        first_macs=28 * 28 * 32 * 25,
        macs=14 * 14 * 64 * 32 * 25 + 3136 * 512 + 512 * 62,
    ),
    "W2": Workload(
        about="MLP 561-128-6, 1,000 users with 64 rows, 100 clients",
        shape=(561,),
        classes=6,
        users=1000,
        rows=(64, 64),
        cohort=100,
        batch=16,
        lr=0.05,
        rounds=30,
        first_macs=561 * 128,
        macs=128 * 6,
    ),
    "W3": Workload(
        about="embedding 8, LSTM 128, 80 characters, last step only, 20 clients with 32 rows",
        shape=(80,),
        classes=80,
        users=200,
        rows=(32, 32),
        cohort=20,
        batch=8,
        lr=0.5,
        rounds=12,
        first_macs=0,
        macs=80 * 4 * 128 * (8 + 128) + 128 * 80,
    ),
    "W4": Workload(
        about="logistic regression 784-62 on the data of W1",
        **_LEAF,
        lr=0.05,
        rounds=30,
        first_macs=784 * 62,
        macs=0,
    ),
    **{
        f"scale-{users}": Workload(
            about=f"MLP 16-32-4, a fleet of {users:,} users, 50 clients",
            users=users,
            **_TINY,
            first_macs=16 * 32,
            macs=32 * 4,
        )
        for users in (1_000, 10_000, 100_000)
    },
}


@dataclass(frozen=True, eq=False)
class Given:
    """A workload as an engine reads it.

    Attributes:
        name: its key in :data:`WORKLOADS`; what belongs to it is in ``workload``.
        x: ``[rows, *shape]`` float32, or int64 characters, user after user; mapped from disk, not read at once.
        y: ``[rows]`` int64.
        starts: ``[distinct + 1]``: where the rows of a user begin and end.
        cohorts: ``[rounds, cohort]`` users, ascending.
        orders: the orders of all clients of all rounds, one after the other.
        init: the first weights.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    starts: np.ndarray
    cohorts: np.ndarray
    orders: np.ndarray
    init: Weights

    @property
    def workload(self) -> Workload:
        """Its sizes."""
        return WORKLOADS[self.name]

    @property
    def rounds(self) -> int:
        """How many were written."""
        return len(self.cohorts)

    @cached_property
    def sizes(self) -> np.ndarray:
        """``[users]`` rows of every user."""
        return np.resize(np.diff(self.starts), self.workload.users)

    @cached_property
    def _places(self) -> np.ndarray:
        """``[rounds, cohort]`` where in ``orders`` a client's begins."""
        sizes = self.sizes[self.cohorts].ravel()
        return (np.cumsum(sizes) - sizes).reshape(self.cohorts.shape)

    def user(self, user: int) -> tuple[np.ndarray, np.ndarray]:
        """A user's rows as they lie."""
        holder = user % (len(self.starts) - 1)
        rows = slice(self.starts[holder], self.starts[holder + 1])
        return self.x[rows], self.y[rows]

    def client(self, step: int, position: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows of the client at ``position`` of the cohort of round ``step``, in the order of training; copies."""
        x, y = self.user(self.cohorts[step, position])
        place = self._places[step, position]
        order = self.orders[place : place + len(y)]
        return np.asarray(x)[order], np.asarray(y)[order]


def write(name: str, rounds: int, folder: Path) -> None:
    """Make a workload of so many rounds; the same every time."""
    from duetto.types import rng  # engines in other environments have no Duetto

    workload = WORKLOADS[name]
    data = "W1" if name == "W4" else name
    low, high = workload.rows
    sizes = rng((SEED, data, "sizes")).integers(low, high + 1, min(workload.users, workload.distinct))
    x, y = _characters(workload, sizes) if name == "W3" else _prototypes(workload, sizes)
    cohorts = np.stack(
        [
            np.sort(rng((SEED, name, "cohort", step)).choice(workload.users, workload.cohort, replace=False))
            for step in range(rounds)
        ]
    )
    orders = [
        rng((SEED, "round", step, f"user-{user}", "order", 0)).permutation(sizes[user % len(sizes)])
        for step, cohort in enumerate(cohorts)
        for user in cohort
    ]
    init = {
        leaf: rng((SEED, name, "init", leaf)).uniform(-bound, bound, shape).astype(np.float32)
        for leaf, (shape, bound) in _parameters(name).items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    np.save(folder / "starts.npy", np.concatenate([[0], np.cumsum(sizes)]))
    np.save(folder / "cohorts.npy", cohorts)
    np.save(folder / "orders.npy", np.concatenate(orders))
    np.savez(folder / "init.npz", **init)
    (folder / "workload.json").write_text(json.dumps({"name": name, **asdict(workload)}, indent=1))


@cache
def load(folder: Path) -> Given:
    """Read what :func:`write` made."""
    name = json.loads((folder / "workload.json").read_text())["name"]
    with np.load(folder / "init.npz") as init:
        weights = dict(init)
    arrays = {part: np.load(folder / f"{part}.npy") for part in ("y", "starts", "cohorts", "orders")}
    return Given(name=name, x=np.load(folder / "x.npy", mmap_mode="r"), init=weights, **arrays)


def _prototypes(workload: Workload, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A smooth prototype for each class, and noise; every user prefers some classes."""
    from duetto.types import rng

    size, total = math.prod(workload.shape), int(sizes.sum())
    random = rng((SEED, "prototypes", size))
    preference = random.gumbel(size=(len(sizes), workload.classes))
    owner = np.repeat(np.arange(len(sizes)), sizes)
    y = np.empty(total, np.int64)
    for part in np.array_split(np.arange(total), 1 + total // 10_000):  # few at a time: [rows, classes] can be big
        y[part] = (preference[owner[part]] + random.gumbel(size=(len(part), workload.classes))).argmax(1)
    prototypes = random.standard_normal((workload.classes, size)).astype(np.float32)
    kernel = np.ones(5, np.float32) / math.sqrt(5)
    prototypes = np.stack([np.convolve(row, kernel, "same") for row in prototypes])
    x = random.standard_normal((total, size), dtype=np.float32)
    x *= 0.5
    x += 0.5 * prototypes[y]
    return x.reshape(total, *workload.shape), y


def _characters(workload: Workload, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Characters of a chain in which each has four successors; the label is the next one."""
    from duetto.types import rng

    total, (length,) = int(sizes.sum()), workload.shape
    random = rng((SEED, "characters"))
    successors = random.integers(workload.classes, size=(workload.classes, 4))
    text = np.empty((total, length + 1), np.int64)
    text[:, 0] = random.integers(workload.classes, size=total)
    for step in range(length):
        text[:, step + 1] = successors[text[:, step], random.integers(4, size=total)]
    return text[:, :-1].copy(), text[:, -1].copy()


def _parameters(name: str) -> Mapping[str, tuple[tuple[int, ...], float]]:
    """Shape and bound of every array, as torch draws them by default: within 1 / sqrt(inputs)."""

    def dense(layer: str, inputs: int, outputs: int) -> dict[str, tuple[tuple[int, ...], float]]:
        bound = 1 / math.sqrt(inputs)
        return {f"{layer}.weight": ((outputs, inputs), bound), f"{layer}.bias": ((outputs,), bound)}

    def conv(layer: str, inputs: int, outputs: int) -> dict[str, tuple[tuple[int, ...], float]]:
        bound = 1 / math.sqrt(inputs * 25)
        return {f"{layer}.weight": ((outputs, inputs, 5, 5), bound), f"{layer}.bias": ((outputs,), bound)}

    if name == "W1":
        return conv("conv1", 1, 32) | conv("conv2", 32, 64) | dense("fc1", 3136, 512) | dense("fc2", 512, 62)
    if name == "W2":
        return dense("fc1", 561, 128) | dense("fc2", 128, 6)
    if name == "W3":
        bound = 1 / math.sqrt(128)
        return {
            "embed.weight": ((80, 8), math.sqrt(3)),  # variance 1
            "lstm.weight_ih_l0": ((512, 8), bound),
            "lstm.weight_hh_l0": ((512, 128), bound),
            "lstm.bias_ih_l0": ((512,), bound),
            "lstm.bias_hh_l0": ((512,), bound),
            **dense("fc", 128, 80),
        }
    if name == "W4":
        return dense("fc", 784, 62)
    return dense("fc1", 16, 32) | dense("fc2", 32, 4)
