"""A problem small enough to be solved by hand: three users, a linear softmax model, parameters as one vector."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.models import Mlp
from duetto.protocols import rounds
from duetto.simulation.engine import Log, simulate
from duetto.simulation.fleet import fleet
from duetto.training import Cohort, Sequential
from duetto.tree import Tree
from duetto.types import Action, Algorithm, Key, Move, Party, Policy, Rows, Seen, rng

NET = Mlp((3,), 2, ())
SEED = 3
Slope = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Turns(Policy[Tree]):
    """So many clients a round, in turn."""

    size: int = 2

    def init(self) -> Tree:
        """The first turn."""
        return {"turn": np.int64(0)}

    def choose(self, state: Tree, seen: Seen, key: Key) -> tuple[Tree, Move]:
        """The next ones."""
        turn = int(state["turn"])
        chosen = np.isin(np.arange(seen.size), np.arange(turn, turn + self.size) % seen.size)
        return {"turn": np.int64(turn + 1)}, Move.sure(np.where(chosen, Action.ASK, Action.STOP), "in turn")


def vector(tree: Tree) -> np.ndarray:
    """All parameters in one, biases first."""
    return np.concatenate([np.ravel(leaf) for _, leaf in trees.leaves(tree)])


@dataclass(frozen=True)
class Problem:
    """The users, and what plain numpy makes of them.

    Attributes:
        data: by user.
        params: where everything starts, in float64, so that training is exact to rounding.
    """

    data: Mapping[str, Rows]
    net: Mlp = NET
    params: Tree = field(default_factory=lambda: trees.map(lambda leaf: leaf.astype(np.float64), NET.init(1)))

    @property
    def start(self) -> np.ndarray:
        """The first parameters as a vector."""
        return vector(self.params)

    @property
    def users(self) -> Sequence[str]:
        """Their names, in the order of the fleet."""
        return list(self.data)

    def asked(self, step: int, size: int = 2) -> Sequence[str]:
        """Whose turn it is."""
        chosen = np.arange(step, step + size) % len(self.data)
        return [user for i, user in enumerate(self.data) if i in chosen]

    def slope(self, w: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The gradient of the mean cross-entropy."""
        bias, weight = w[:2], w[2:].reshape(2, 3)
        logits = x @ weight.T + bias
        error = np.exp(logits - np.logaddexp.reduce(logits, axis=1)[:, None]) - np.eye(2)[y]
        return np.concatenate([error.mean(0), (error.T @ x / len(x)).ravel()])

    def full(self, w: np.ndarray) -> np.ndarray:
        """The mean of the users' gradients."""
        return np.mean([self.slope(w, rows.x.astype(float), rows.y) for rows in self.data.values()], axis=0)

    def steps(self, user: str, epochs: int, batch_size: int) -> int:
        """How many steps a user takes."""
        return epochs * -(-len(self.data[user].y) // batch_size)

    def descend(
        self,
        user: str,
        w: np.ndarray,
        step: int,
        *,
        lr: float,
        epochs: int,
        batch_size: int,
        momentum: float = 0.0,
        added: Slope = lambda w: np.zeros(8),
    ) -> np.ndarray:
        """SGD by hand in the rows' order of round ``step``; ``added`` is added to every gradient."""
        x, y = self.data[user].x.astype(float), self.data[user].y
        speed = np.zeros_like(w)
        for epoch in range(epochs):
            order = rng((SEED, "round", step, user, "order", epoch)).permutation(len(y))
            for at in range(0, len(y), batch_size):
                rows = order[at : at + batch_size]
                speed = momentum * speed + self.slope(w, x[rows], y[rows]) + added(w)
                w = w - lr * speed
        return w

    def lived(self, algorithm: Algorithm, steps: int, together: bool = False) -> Log:
        """Rounds in which nobody fails; clients one after the other, or ``together``."""
        client = replace(algorithm.client, executor=Cohort(1) if together else Sequential())
        log = simulate(
            fleet=fleet("phones", self.users, data=self.data.__getitem__),
            device=Party(skills=(type(client),)),
            cloud=rounds(replace(algorithm, client=client), steps=steps, seed=SEED),
        )
        assert [record.metrics["failed"] for record in log.records] == [0] * steps
        return log

    def learned(self, algorithm: Algorithm, steps: int, together: bool = False) -> np.ndarray:
        """The parameters after so many rounds."""
        return vector(self.lived(algorithm, steps, together).memory["cloud"]["params"])


@pytest.fixture
def problem() -> Problem:
    """Users who are unlike, with 4, 6 and 9 rows."""
    draw, data = np.random.default_rng(5), {}
    for i, (user, n) in enumerate({"ann": 4, "ben": 6, "eve": 9}.items()):
        x = (draw.normal(size=(n, 3)) + np.eye(3)[i]).astype(np.float32)
        y = (x @ np.roll([1.0, -1.0, 0.3], i) + draw.normal(size=n) > 0.3 * i).astype(np.int64)
        data[user] = Rows(x, np.where(np.arange(n) < 2, np.arange(n) % 2, y))
    return Problem(data)


@pytest.fixture
def turns() -> Policy[Any]:
    """Two of them a round."""
    return Turns()


@pytest.fixture(params=[False, True], ids=["sequential", "cohort"])
def together(request: pytest.FixtureRequest) -> bool:
    """Whether clients are trained in one call."""
    return bool(request.param)
