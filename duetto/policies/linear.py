"""What the linear bandits share: the two arms' ridge regressions over numbers that describe a decision.

The arms are to stop (0) and to ask (1). An item is described by numbers of a fixed ``dimension``, whatever the number
of classes or features (:func:`described`), and an arm's reward is taken to be linear in them. All that is kept of what
was heard is, for every arm, ``A = ridge * I + sum of x x'`` and ``b = ridge * prior + sum of reward * x`` (Li, Chu,
Langford, Schapire: A Contextual-Bandit Approach to Personalized News Article Recommendation, WWW 2010, disjoint arms).

Who tells what: an answer from the cloud can be compared with the device's own, so that asking teaches about both
arms. Where the device stopped, nobody says whether it was right, unless an audit or the user does. A reward is
therefore told for the arm that was chosen or for both, and NaN is what was not heard.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.policies.scores import confidence
from duetto.policies.threshold import unanswered
from duetto.tree import Array, Tree
from duetto.types import Action, Move, Seen, rng

STATISTICS = ("constant", "first", "second", "margin", "entropy", "nines")
"""What is read off an answer: 1, the two largest probabilities, their margin, 1 - entropy, and the first's nines."""

STOP, ASK = 0, 1
_NINES = 6  # 0.999999 and what is surer are alike


def checked(dimension: int, ridge: float, price: float) -> None:
    """Raises ConfigError where a bandit's numbers are out of range."""
    if dimension < len(STATISTICS):
        raise ConfigError(f"a dimension of {dimension}", f"use at least {len(STATISTICS)}, one a statistic")
    if not 0 < ridge < math.inf:
        raise ConfigError(f"a ridge of {ridge}", "use a number above 0")
    if not 0 <= price < math.inf:
        raise ConfigError(f"a price of {price}", "use a number from 0, in the unit of the quality")


def described(seen: Seen, dimension: int) -> np.ndarray | None:
    """What a bandit decides by, ``[n, dimension]`` float64; None where there is neither answer nor features.

    First come :data:`STATISTICS` of the answer, each within 0..1, where there is none the constant alone; then the
    features: as they are where they fit, else a fixed random projection of them (Johnson, Lindenstrauss 1984), and
    nothing of them where no dimension is left. Rows of features longer than 1 are scaled to 1.

    Raises:
        DataError: features that are texts, of another shape, or not finite; an answer that is none.
    """
    if seen.answer is None and seen.features is None:
        return None
    found = np.zeros((seen.size, dimension))
    found[:, 0] = 1.0
    if seen.answer is not None:
        found[:, 1 : len(STATISTICS)] = _statistics(seen.answer)
    if seen.features is not None and (rest := dimension - len(STATISTICS)):
        features = _columns(seen.features, seen.size)
        if (width := features.shape[1]) > rest:
            features = np.einsum("nw,wr->nr", features, _projection(width, rest))
        length = np.sqrt((features**2).sum(axis=1, keepdims=True))
        found[:, len(STATISTICS) : len(STATISTICS) + features.shape[1]] = features / np.maximum(1.0, length)
    return found


def begun(dimension: int, ridge: float, price: float) -> Tree:
    """The prior: stopping is worth the largest probability, asking 1 less its price, each as if heard ``ridge`` times.

    ``A`` ``[2, d, d]``, ``b`` ``[2, d]``, and ``seen``, the number of decisions (int64 scalar).
    """
    prior = np.zeros((2, dimension))
    prior[STOP, 1], prior[ASK, 0] = 1.0, 1.0 - price
    return {"A": np.stack([ridge * np.eye(dimension)] * 2), "b": ridge * prior, "seen": np.array(0)}


def estimated(state: Tree, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of both arms the expected reward and its standard width ``sqrt(x' A^-1 x)``, each ``[n, 2]``.

    Raises:
        DataError: the state is that of another dimension.
    """
    if state["b"].shape != (2, x.shape[1]):
        raise DataError(f"a state of dimension {state['b'].shape[-1]} for {x.shape[1]}", "start afresh")
    inverse = np.linalg.inv(state["A"])
    # Sums row by row, so that an array is decided exactly as its items one by one.
    means = np.einsum("ni,aij,aj->na", x, inverse, state["b"])
    widths = np.einsum("ni,aij,nj->na", x, inverse, x)
    return means, np.sqrt(np.maximum(widths, 0.0))


def surplus(state: Tree, seen: Seen, dimension: int) -> np.ndarray:
    """How much more stopping is worth than asking, ``[n]``: a score by which a budget can rank.

    Raises:
        DataError: neither an answer nor features.
    """
    x = described(seen, dimension)
    if x is None:
        raise DataError("neither an answer nor features to judge", "let the small model answer first")
    means, _ = estimated(state, x)
    return np.asarray(means[:, STOP] - means[:, ASK])


def unjudged(seen: Seen) -> Move:
    """The move where there is neither answer nor features: go on before stage 0, ask later."""
    move = unanswered(seen)
    assert move is not None
    return move


def passed(state: Tree, items: int) -> Tree:
    """The state after so many decisions."""
    return {**state, "seen": state["seen"] + items}


def heard(state: Tree, seen: Seen, move: Move, reward: Array, dimension: int, full: bool, price: float) -> Tree:
    """The state after learning.

    Args:
        state: as of :func:`begun`.
        seen: what was decided on; ``traits["agreed"]`` ``[n]``, once the cloud was heard: 1 where its answer was the
            device's, 0 where not, NaN where not known.
        move: what was chosen.
        reward: ``[n]`` of the chosen arms, or ``[n, 2]`` of stopping and asking; quality less price, NaN: not heard.
        dimension: of the numbers that describe a decision.
        full: learn both arms where the cloud was asked: from the second column, or from ``agreed``. Without it the
            other arm's reward is not read. Who agreed with the cloud was as right as it; who did not earned nothing,
            as the cloud's answer is the best truth there is.
        price: of asking.

    Raises:
        DataError: a reward of another shape, or infinite.
    """
    x = described(seen, dimension)
    reward = np.asarray(reward, np.float64)
    if reward.shape not in ((seen.size,), (seen.size, 2)):
        raise DataError(f"rewards of shape {reward.shape} for {seen.size} items", "give [items] or [items, 2]")
    if np.isinf(reward).any():
        raise DataError("a reward that is infinite", "give a finite number, NaN where nothing was heard")
    if x is None:
        return state
    action = np.asarray(move.action)
    chosen = np.stack([action == Action.STOP, action == Action.ASK], axis=1)
    told = np.where(chosen, reward if reward.ndim == 2 else reward[:, None], np.nan)
    if full:
        told[:, STOP] = np.where(chosen[:, ASK], _of_stopping(seen, reward, price), told[:, STOP])
    a, b = state["A"].copy(), state["b"].copy()
    for arm in (STOP, ASK):
        rows = x[~np.isnan(told[:, arm])]
        a[arm] += rows.T @ rows
        b[arm] += rows.T @ told[~np.isnan(told[:, arm]), arm]
    return {**state, "A": a, "b": b}


def _of_stopping(seen: Seen, reward: np.ndarray, price: float) -> np.ndarray:
    """What stopping would have earned where the cloud was asked, ``[n]``, NaN where not known."""
    if reward.ndim == 2:
        return reward[:, STOP]
    agreed = (seen.traits or {}).get("agreed")
    if agreed is None:
        return np.full(seen.size, np.nan)
    return np.where(np.isnan(reward), np.nan, np.asarray(agreed, np.float64) * (reward + price))


def _statistics(answer: Array) -> np.ndarray:
    first, margin, entropy = (confidence(answer, kind) for kind in ("max_softmax", "margin", "entropy"))
    nines = -np.log10(np.maximum(1 - first, 10.0**-_NINES)) / _NINES
    return np.stack([first, first - margin, margin, entropy, nines], axis=1)


def _columns(features: Array | Mapping[str, Array], items: int) -> np.ndarray:
    if isinstance(features, Mapping):
        columns = [np.asarray(features[name]) for name in sorted(features)]
        if any(column.dtype.kind not in "biuf" or column.shape != (items,) for column in columns):
            raise DataError("features that are no columns of numbers", "embed texts first: [items, d]")
        features = np.stack(columns, axis=1) if columns else np.zeros((items, 0))
    array = np.asarray(features)
    if array.ndim != 2 or len(array) != items or array.dtype.kind not in "biuf":
        raise DataError(f"features of shape {array.shape} and dtype {array.dtype}", f"give numbers [{items}, d]")
    if not np.isfinite(array).all():
        raise DataError("features that are NaN or infinite", "leave these items out, or fill them in")
    return array.astype(np.float64)


@lru_cache(maxsize=16)
def _projection(width: int, rest: int) -> np.ndarray:
    return rng(("projection", width, rest)).normal(size=(width, rest)) / math.sqrt(rest)
