"""Graphs have the degrees that they promise, and mixing keeps the mean."""

import numpy as np
import pytest

from duetto.errors import ConfigError
from duetto.protocols.graphs import complete, gap, metropolis, regular, ring, torus

USERS = [f"u{i:02d}" for i in range(20)]
GRAPHS = {
    "ring": (ring(USERS), 2),
    "torus": (torus(USERS[:12]), 4),
    "wide torus": (torus(USERS, 5), 4),
    "complete": (complete(USERS), 19),
    "regular": (regular(USERS, 4, seed=3), 4),
    "nearly complete": (regular(USERS[:8], 6, seed=0), 6),
}


def matrix(weights):
    """As an array, in the order of the users."""
    return np.array([[weights[a].get(b, 0.0) for b in weights] for a in weights])


@pytest.mark.parametrize("name", GRAPHS)
def test_everybody_knows_so_many_others_who_know_him_and_all_are_reached(name):
    graph, degree = GRAPHS[name]
    for user, known in graph.items():
        assert len(set(known)) == len(known) == degree
        assert user not in known
        assert all(user in graph[each] for each in known)
    adjacent = np.array([[b in graph[a] for b in graph] for a in graph], float)
    assert (np.linalg.matrix_power(adjacent + np.eye(len(graph)), len(graph)) > 0).all()


@pytest.mark.parametrize("name", GRAPHS)
def test_metropolis_weights_are_doubly_stochastic_and_mix_at_the_gap(name):
    weights = metropolis(GRAPHS[name][0])
    w = matrix(weights)
    np.testing.assert_allclose(w.sum(0), 1, rtol=1e-12)
    np.testing.assert_allclose(w.sum(1), 1, rtol=1e-12)
    assert (w >= 0).all()
    second = np.sort(np.abs(np.linalg.eigvalsh(w)))[-2]
    assert gap(weights) == pytest.approx(1 - second, abs=1e-12)


def test_known_weights_and_gaps():
    np.testing.assert_allclose(matrix(metropolis(complete(USERS))), np.full((20, 20), 1 / 20), rtol=1e-12)
    assert gap(metropolis(complete(USERS))) == pytest.approx(1)
    assert gap(metropolis(ring(USERS))) == pytest.approx(1 - (1 + 2 * np.cos(2 * np.pi / 20)) / 3)
    star = {"hub": ("a", "b", "c"), "a": ("hub",), "b": ("hub",), "c": ("hub",)}
    assert metropolis(star)["a"] == {"a": 0.75, "hub": 0.25}
    assert metropolis(star)["hub"] == pytest.approx({"hub": 0.25, "a": 0.25, "b": 0.25, "c": 0.25})


def test_a_random_graph_is_its_seed_s():
    assert regular(USERS, 4, 3) == regular(USERS, 4, 3) != regular(USERS, 4, 4)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ring(USERS[:2]), "2 users are too few for a ring"),
        (lambda: complete(USERS[:1]), "1 users are too few for a complete graph"),
        (lambda: torus(USERS[:8]), "8 users are no torus with rows of 2"),
        (lambda: torus(USERS, 3), "20 users are no torus with rows of 3"),
        (lambda: regular(USERS[:5], 3, 0), "5 users cannot know 3 others each"),
        (lambda: regular(USERS[:5], 5, 0), "5 users cannot know 5 others each"),
        (lambda: metropolis({"a": ("b",), "b": ()}), "'a' knows 'b', but not the other way round"),
        (lambda: metropolis({"a": ("a",)}), "'a' knows 'a', but not the other way round"),
    ],
)
def test_graphs_that_cannot_be_are_refused(build, message):
    with pytest.raises(ConfigError, match=f"^{message}: "):
        build()
