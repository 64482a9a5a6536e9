"""Methods by which a device has parameters of its own, against their papers in numpy and against their limits."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.aggregation import Mean
from duetto.algorithms import apfl, ditto, fedavg, fedavg_ft, fedprox, knn_per, moon, per_fedavg, pfedme, reptile
from duetto.errors import ConfigError
from duetto.models.features import last_features
from duetto.types import Local, Rows, rng

HOW: Any = {"lr": 0.2, "epochs": 2, "batch_size": 4}
WHOLE: Any = {"lr": 0.2, "epochs": 1, "batch_size": 9}


def vector(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for _, leaf in trees.leaves(tree)])


def equal(algorithm: Any) -> Any:
    """The same, in which everyone counts the same."""
    return replace(algorithm, aggregator=Mean(cap=1.0))


def own(log: Any, user: str) -> np.ndarray:
    return vector(log.memory[user]["own"])


def slope(problem: Any, user: str, w: np.ndarray) -> np.ndarray:
    """The gradient on all of a user's rows."""
    return np.asarray(problem.slope(w, problem.data[user].x.astype(float), problem.data[user].y))


def test_fine_tuning_is_fedavg_and_keeps_where_a_device_ended(problem: Any, turns: Any, together: bool) -> None:
    plain = fedavg(problem.net, problem.params, cohort=turns, **HOW)
    tuned = replace(fedavg_ft(problem.net, problem.params, cohort=turns, **HOW))
    log = problem.lived(tuned, 3, together)
    np.testing.assert_array_equal(vector(log.memory["cloud"]["params"]), problem.learned(plain, 3, together))
    before = problem.learned(plain, 2, together)
    for user in problem.asked(2):
        np.testing.assert_allclose(own(log, user), problem.descend(user, before, 2, **HOW), rtol=1e-9)
    sent = {"params": log.memory["cloud"]["params"]}
    assert tuned.client.personal(sent, {}) is sent["params"], "cold"
    assert tuned.client.personal(sent, log.memory["ann"]) is log.memory["ann"]["own"]


def test_reptile_with_a_whole_step_is_fedavg_of_equal_weights(problem: Any) -> None:
    plain = equal(fedavg(problem.net, problem.params, **HOW))
    whole = reptile(problem.net, problem.params, epsilon=1.0, **HOW)
    np.testing.assert_array_equal(problem.learned(whole, 3), problem.learned(plain, 3))
    half = problem.learned(reptile(problem.net, problem.params, epsilon=0.5, **HOW), 1)
    np.testing.assert_allclose(half - problem.start, (problem.learned(plain, 1) - problem.start) / 2, rtol=1e-9)


@pytest.mark.parametrize("lam", [0.0, 0.7])
def test_ditto_is_fedavg_with_models_drawn_to_it(problem: Any, turns: Any, lam: float) -> None:
    """With lam = 0 a device's own model is what training alone makes of the first parameters it was sent."""
    plain = fedavg(problem.net, problem.params, cohort=turns, **HOW)
    w, v = problem.start, {}
    for step in range(4):
        for user in problem.asked(step):
            rows = problem.data[user]
            x, y = rows.x.astype(float), rows.y
            v.setdefault(user, w)
            for epoch in range(2):
                order = rng((3, "round", step, user, "own", "order", epoch)).permutation(len(y))
                for at in (order[i : i + 4] for i in range(0, len(y), 4)):
                    v[user] = v[user] - 0.2 * (problem.slope(v[user], x[at], y[at]) + lam * (v[user] - w))
        w = problem.learned(plain, step + 1)
    log = problem.lived(ditto(problem.net, problem.params, lam=lam, cohort=turns, **HOW), 4)
    np.testing.assert_array_equal(vector(log.memory["cloud"]["params"]), w)
    for user in problem.users:
        np.testing.assert_allclose(own(log, user), v[user], rtol=1e-8)


def test_pfedme_is_algorithm_1(problem: Any, turns: Any) -> None:
    lam, eta, w = 0.8, 0.3, problem.start
    for step in range(3):
        ends = []
        for user in problem.asked(step):
            rows, mine = problem.data[user], w
            for epoch in range(2):
                order = rng((3, "round", step, user, "order", epoch)).permutation(len(rows))
                for at in (order[i : i + 4] for i in range(0, len(rows), 4)):
                    theta = mine
                    for _ in range(5):
                        slant = problem.slope(theta, rows.x[at].astype(float), rows.y[at])
                        theta = theta - 0.2 * (slant + lam * (theta - mine))
                    mine = mine - eta * lam * (mine - theta)
            ends.append(mine)
        w = 0.5 * w + 0.5 * np.mean(ends, axis=0)
    made = pfedme(problem.net, problem.params, lam=lam, eta=eta, beta=0.5, cohort=turns, **HOW)
    log = problem.lived(made, 3)
    np.testing.assert_allclose(vector(log.memory["cloud"]["params"]), w, rtol=1e-6)
    np.testing.assert_allclose(own(log, problem.asked(2)[-1]), theta, rtol=1e-6)


def test_pfedme_in_one_batch_and_a_whole_step_is_fedprox(problem: Any) -> None:
    near = equal(fedprox(problem.net, problem.params, mu=0.8, lr=0.2, epochs=5, batch_size=9))
    made = pfedme(problem.net, problem.params, lam=0.8, eta=1 / 0.8, **WHOLE)
    np.testing.assert_allclose(problem.learned(made, 3), problem.learned(near, 3), rtol=1e-6)


@pytest.mark.parametrize("hessian", ["fo", "hf"])
def test_per_fedavg_steps_along_the_gradient_after_a_step(problem: Any, hessian: str) -> None:
    """In whole batches; the Hessian-free step against the Hessian by differences in numpy."""
    alpha, ends = 0.4, []
    for user in problem.users:
        near = problem.start - alpha * slope(problem, user, problem.start)
        g = slope(problem, user, near)
        if hessian == "hf":
            there, back = (slope(problem, user, problem.start + side * 1e-5 * g) for side in (1, -1))
            g = g - alpha * (there - back) / 2e-5
        ends.append(problem.start - 0.2 * g)
    made = per_fedavg(problem.net, problem.params, alpha=alpha, hessian=hessian, **WHOLE)
    log = problem.lived(made, 1)
    mean = np.average(ends, axis=0, weights=[len(problem.data[user]) for user in problem.users])
    np.testing.assert_allclose(vector(log.memory["cloud"]["params"]), mean, rtol=1e-5)
    np.testing.assert_allclose(own(log, "eve"), problem.start - alpha * slope(problem, "eve", problem.start), rtol=1e-6)


def test_per_fedavg_without_a_step_is_fedavg(problem: Any) -> None:
    plain = problem.learned(fedavg(problem.net, problem.params, **HOW), 3)
    for hessian in ("fo", "hf"):
        made = per_fedavg(problem.net, problem.params, alpha=0.0, hessian=hessian, **HOW)
        np.testing.assert_allclose(problem.learned(made, 3), plain, rtol=1e-9)


def test_apfl_steps_both_and_learns_the_mixture(problem: Any) -> None:
    lr, w = 0.2, problem.start
    v, alpha = dict.fromkeys(problem.users, w), dict.fromkeys(problem.users, 0.3)
    for _ in range(3):
        ends = []
        for user in problem.users:
            a, mine = alpha[user], w
            mixed = slope(problem, user, a * v[user] + (1 - a) * mine)
            turn = (v[user] - mine) @ mixed
            mine, v[user] = mine - lr * slope(problem, user, mine), v[user] - lr * a * mixed
            alpha[user] = float(np.clip(a - lr * turn, 0, 1))
            ends.append(mine)
        w = np.average(ends, axis=0, weights=[len(problem.data[user]) for user in problem.users])
    made = apfl(problem.net, problem.params, alpha=0.3, **WHOLE)
    log = problem.lived(made, 3)
    np.testing.assert_allclose(vector(log.memory["cloud"]["params"]), w, rtol=1e-9)
    for user in problem.users:
        assert float(log.memory[user]["alpha"]) == pytest.approx(alpha[user])
        mixed = vector(made.client.personal({"params": log.memory["cloud"]["params"]}, log.memory[user]))
        np.testing.assert_allclose(mixed, alpha[user] * v[user] + (1 - alpha[user]) * w, rtol=1e-9)


def test_apfl_at_its_ends_is_fedavg_and_training_alone(problem: Any) -> None:
    plain = problem.learned(fedavg(problem.net, problem.params, **HOW), 3)
    shared = apfl(problem.net, problem.params, alpha=0.0, adaptive=False, **HOW)
    log = problem.lived(shared, 3)
    np.testing.assert_allclose(vector(log.memory["cloud"]["params"]), plain, rtol=1e-9)
    alone = problem.lived(apfl(problem.net, problem.params, alpha=1.0, adaptive=False, **HOW), 3)
    for user in problem.users:
        np.testing.assert_array_equal(own(log, user), problem.start)
        v = problem.start
        for step in range(3):
            v = problem.descend(user, v, step, **HOW)
        np.testing.assert_allclose(own(alone, user), v, rtol=1e-9)


def test_knn_per_lets_near_rows_vote(problem: Any) -> None:
    made = knn_per(problem.net, problem.params, k=3, lam=0.4, scale=0.7, **HOW)
    log = problem.lived(made, 2)
    plain = problem.lived(fedavg(problem.net, problem.params, **HOW), 2)
    np.testing.assert_array_equal(vector(log.memory["cloud"]["params"]), vector(plain.memory["cloud"]["params"]))
    params = trees.map(lambda leaf: leaf.astype(np.float32), log.memory["cloud"]["params"])
    x = np.random.default_rng(2).normal(size=(5, 3)).astype(np.float32)
    rows = problem.data["eve"]
    keys, asked = (last_features(problem.net, params, each).astype(float) for each in (rows.x, x))
    logits = problem.net.logits(params, x).astype(float)
    shared = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = np.zeros((5, 2))
    for i in range(5):
        distance = np.linalg.norm(keys - asked[i], axis=1)
        nearest = np.argsort(distance)[:3]
        for j in nearest:
            expected[i, rows.y[j]] += np.exp(-distance[j] / 0.7)
        expected[i] = 0.4 * expected[i] / expected[i].sum() + 0.6 * shared[i]
    told = made.client.logits({"params": params}, log.memory["eve"], x)
    np.testing.assert_allclose(told, np.log(expected), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(made.client.logits({"params": params}, {}, x), problem.net.logits(params, x))
    without = replace(made.client, lam=0.0)
    np.testing.assert_array_equal(
        without.logits({"params": params}, log.memory["eve"], x), problem.net.logits(params, x)
    )


def test_a_device_chooses_the_share_of_its_neighbours(problem: Any) -> None:
    """The share under which its labels are likeliest, each asked of all others, in numpy."""
    made = knn_per(problem.net, problem.params, k=2, **HOW)
    log = problem.lived(made, 2)
    params = trees.map(lambda leaf: leaf.astype(np.float32), problem.lived(made, 1).memory["cloud"]["params"])
    for user in problem.users:
        rows = problem.data[user]
        keys = last_features(problem.net, params, rows.x).astype(float)
        logits = problem.net.logits(params, rows.x).astype(float)
        shared = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        likely = np.zeros(11)
        for i, label in enumerate(rows.y):
            distance = np.linalg.norm(keys - keys[i], axis=1)
            nearest = [j for j in np.argsort(distance) if j != i][:2]
            votes = np.exp(-distance[nearest])
            own = votes[rows.y[nearest] == label].sum() / votes.sum()
            likely += [np.log(max(lam * own + (1 - lam) * shared[i, label], 1e-38)) for lam in np.arange(11) / 10]
        assert float(log.memory[user]["near"]["lam"]) == pytest.approx(np.argmax(likely) / 10)
    sent = {"params": log.memory["cloud"]["params"]}
    lone = made.client(Local(Rows(rows.x[:1], rows.y[:1])), sent, (0,), "cloud")[0]
    assert lone.memory["near"]["lam"] == 0


def test_moon_without_a_contrast_is_fedavg_and_its_first_round_too(problem: Any) -> None:
    """A device without a last model takes the shared one for it: both cosines are equal, and pull nowhere."""
    plain = fedavg(problem.net, problem.params, **HOW)
    none = moon(problem.net, problem.params, mu=0.0, **HOW)
    np.testing.assert_allclose(problem.learned(none, 3), problem.learned(plain, 3), rtol=1e-9)
    log = problem.lived(none, 2)
    before = problem.learned(plain, 1)
    last = problem.descend("eve", before, 1, **HOW)
    np.testing.assert_allclose(vector(log.memory["eve"]["previous"]), last, rtol=1e-9)


@pytest.mark.parametrize(
    ("build", "wrong"),
    [
        (ditto, {"lam": -1.0}),
        (pfedme, {"lam": 0.0, "eta": 0.1}),
        (pfedme, {"lam": 1.0, "eta": 0.1, "steps": 0}),
        (per_fedavg, {"alpha": -1.0}),
        (per_fedavg, {"alpha": 0.1, "hessian": "exact"}),
        (per_fedavg, {"alpha": 0.1, "momentum": 0.9}),
        (apfl, {"alpha": 1.5}),
        (apfl, {"momentum": 0.9}),
        (knn_per, {"k": 0}),
        (knn_per, {"lam": 1.5}),
        (reptile, {"epsilon": 0.0}),
        (moon, {"mu": -1.0}),
    ],
)
def test_senseless_numbers_are_refused(problem: Any, build: Any, wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"^[^\n]+: [^\n]+$"):
        build(problem.net, problem.params, **{**HOW, **wrong})
