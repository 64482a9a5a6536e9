"""Who knows whom, and how much each listens to whom: graphs as mappings, ``user -> the users it knows``.

Everything here is a pure function of its arguments; every graph is undirected, and whoever is in it is reached from
everybody. Mixing weights are doubly stochastic, so that the mean of all models stays what it is when they are mixed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TypeAlias

import numpy as np

from duetto.errors import ConfigError
from duetto.types import rng

Graph: TypeAlias = Mapping[str, Sequence[str]]
"""User -> the users it knows, in the order of the graph's users; whoever one knows knows one too."""

Weights: TypeAlias = Mapping[str, Mapping[str, float]]
"""User -> what it gives to itself and to those it knows, adding up to 1."""


def ring(users: Sequence[str]) -> Graph:
    """Everyone knows the one before and the one after.

    Raises:
        ConfigError: fewer than three users.
    """
    _enough(users, 3, "a ring")
    n = len(users)
    return _graph(users, [(i, (i + 1) % n) for i in range(n)])


def torus(users: Sequence[str], width: int | None = None) -> Graph:
    """A grid of rows of ``width`` whose ends meet; everyone knows four others.

    Args:
        users: row by row.
        width: of a row; None takes the divisor of their number that is next to its root.

    Raises:
        ConfigError: users that do not fill at least three rows of at least three.
    """
    n = len(users)
    wide = max((each for each in range(1, math.isqrt(n) + 1) if n % each == 0), default=1) if width is None else width
    if wide < 3 or n % wide or n // wide < 3:
        raise ConfigError(f"{n} users are no torus with rows of {wide}", "fill at least three rows of at least three")
    across = [(i, i - i % wide + (i + 1) % wide) for i in range(n)]
    return _graph(users, across + [(i, (i + wide) % n) for i in range(n)])


def complete(users: Sequence[str]) -> Graph:
    """Everyone knows everyone.

    Raises:
        ConfigError: fewer than two users.
    """
    _enough(users, 2, "a complete graph")
    return _graph(users, list(combinations(range(len(users)), 2)))


def regular(users: Sequence[str], degree: int, seed: int) -> Graph:
    """A random connected graph in which everyone knows ``degree`` others.

    Pairs are drawn among those still open (Steger, Wormald 1999: asymptotically uniform), until none is left open.

    Raises:
        ConfigError: no such graph.
    """
    n = len(users)
    if not 2 <= degree < n or n * degree % 2:
        raise ConfigError(
            f"{n} users cannot know {degree} others each", "use a degree from 2, below the users, with an even product"
        )
    draw = rng((seed, "graph", "regular"))
    while True:
        edges = _paired(n, degree, draw)
        if edges is not None and _reached(n, edges) == n:
            return _graph(users, edges)


def metropolis(graph: Graph) -> Weights:
    """Metropolis-Hastings weights (Xiao, Boyd 2004): ``1 / (1 + the larger degree)``, the rest to oneself.

    They need no more than the degrees of those one knows. On a complete graph they are the plain mean.

    Raises:
        ConfigError: one knows another who does not know him, or himself.
    """
    weights: dict[str, dict[str, float]] = {}
    for user, known in graph.items():
        if strange := [each for each in known if each == user or user not in graph.get(each, ())]:
            raise ConfigError(f"{user!r} knows {strange[0]!r}, but not the other way round", "give both directions")
        others = {each: 1 / (1 + max(len(known), len(graph[each]))) for each in known}
        weights[user] = {user: 1 - math.fsum(others.values()), **others}
    return weights


def gap(weights: Weights) -> float:
    """The spectral gap, 0..1: how fast mixing alone makes all models one. A step leaves ``1 - gap`` of what differs."""
    row = {user: i for i, user in enumerate(weights)}
    matrix = np.zeros((len(row), len(row)))
    for user, shares in weights.items():
        for other, share in shares.items():
            matrix[row[user], row[other]] = share
    away = matrix - 1 / len(row)
    return 1 - float(np.linalg.norm(away, 2))


def _enough(users: Sequence[str], least: int, what: str) -> None:
    if len(users) < least:
        raise ConfigError(f"{len(users)} users are too few for {what}", f"give at least {least}")


def _graph(users: Sequence[str], edges: Sequence[tuple[int, int]]) -> Graph:
    known: list[set[int]] = [set() for _ in users]
    for a, b in edges:
        known[a].add(b)
        known[b].add(a)
    return {user: tuple(users[i] for i in sorted(known[row])) for row, user in enumerate(users)}


def _paired(n: int, degree: int, draw: np.random.Generator) -> list[tuple[int, int]] | None:
    """One attempt; None where those left open know each other already."""
    left, edges = np.full(n, degree), set[tuple[int, int]]()
    while left.any():
        open_ = np.flatnonzero(left)
        if not any((a, b) not in edges for a, b in combinations(open_.tolist(), 2)):
            return None
        a, b = sorted(draw.choice(n, 2, p=left / left.sum()).tolist())
        if a != b and (a, b) not in edges:
            edges.add((a, b))
            left[[a, b]] -= 1
    return sorted(edges)


def _reached(n: int, edges: Sequence[tuple[int, int]]) -> int:
    """How many are reached from the first."""
    known: list[list[int]] = [[] for _ in range(n)]
    for a, b in edges:
        known[a].append(b)
        known[b].append(a)
    seen, open_ = {0}, [0]
    while open_:
        fresh = [each for each in known[open_.pop()] if each not in seen]
        seen.update(fresh)
        open_.extend(fresh)
    return len(seen)
