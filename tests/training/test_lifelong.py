"""The clients of a stream against their formulas, in numpy, on a linear softmax model in float64."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.models import Mlp
from duetto.training import SGD, Client, CrossEntropy, sequential
from duetto.training.ewc import Elastic, Ewc, fisher
from duetto.training.gem import Gem, projected
from duetto.training.lifelong import Lifelong, Within
from duetto.training.lwf import Kept, Lwf
from duetto.training.replay import Replay, fewest, joined, reservoir
from duetto.types import Local, Rows, rng

NET = Mlp((3,), 4, ())
PARAMS = trees.map(lambda leaf: leaf.astype(np.float64), NET.init(0))
DRAW = np.random.default_rng(1)
X, Y = DRAW.normal(size=(24, 3)).astype(np.float32), np.repeat([0, 1, 2, 3], 6)
DATA = Rows(X, Y, {"task-0": np.arange(12), "task-1": np.arange(12, 24)})
HOW: Any = {"net": NET, "optimiser": SGD(0.1), "epochs": 2, "batch_size": 4}
KEY = (0, "stream")


def client(kind: type[Lifelong], *terms: Any, **more: Any) -> Any:
    """One that trains on the first task."""
    return kind(loss=(CrossEntropy(), *terms), **{**HOW, "part": "task-0", **more})


def lived(each: Any, tasks: int = 2, memory: Any = None) -> tuple[Any, Any]:
    """Parameters and memory after so many tasks."""
    local, params = Local(DATA, memory or {}), PARAMS
    for i in range(tasks):
        local, answer = replace(each, part=f"task-{i}")(local, {"params": params}, (*KEY, i), "me")
        assert float(answer["weight"]) == 12
        params = trees.add(params, answer["delta"])
    return params, local.memory


def same(one: Any, other: Any, rtol: float = 1e-9) -> None:
    trees.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-12), one, other)


def softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def logits(params: Any, x: np.ndarray) -> np.ndarray:
    return x.astype(float) @ params["1"]["weight"].T + params["1"]["bias"]


@pytest.mark.parametrize(
    "each",
    [
        client(Lifelong),
        client(Ewc, Elastic(0.0)),
        client(Ewc, Elastic(0.0), decay=0.5),
        client(Lwf, Kept(0.0)),
        client(Gem, last=False),
        client(Replay, last=False),
    ],
    ids=["lifelong", "ewc", "online ewc", "lwf", "gem", "replay"],
)
def test_without_force_or_memory_all_are_plain_fine_tuning(each: Any) -> None:
    plain = lived(Client(loss=(CrossEntropy(),), **{**HOW, "part": "task-0"}))[0]
    same(lived(each)[0], plain)


@pytest.mark.parametrize(
    "each",
    [
        client(Ewc, Elastic(5.0)),
        client(Lwf, Kept(1.0)),
        client(Replay, capacity=6),
        client(Gem),
        client(Gem, averaged=True),
    ],
    ids=["ewc", "lwf", "replay", "gem", "a-gem"],
)
def test_the_first_task_is_plain_and_the_second_keeps_more_of_the_first(each: Any) -> None:
    plain, how = client(Lifelong), {"epochs": 20}
    same(lived(replace(each, **how), 1)[0], lived(replace(plain, **how), 1)[0])

    def surprise(params: Any) -> float:
        return float(-np.log(softmax(logits(params, X[:12]))[np.arange(12), Y[:12]]).mean())

    assert surprise(lived(replace(each, **how))[0]) < surprise(lived(replace(plain, **how))[0])


def test_several_at_once_are_each_for_itself() -> None:
    each = client(Replay, capacity=6)
    together = each.many([Local(DATA), Local(DATA)], [{"params": PARAMS}] * 2, [(0,), (1,)], ["cloud"] * 2)
    for (_, answer), key in zip(together, [(0,), (1,)], strict=True):
        same(answer["delta"], each(Local(DATA), {"params": PARAMS}, key, "cloud")[1]["delta"])


# ------------------------------------------------------------------------------------------------------- EWC


def fisher_by_hand(params: Any, x: np.ndarray, key: Any) -> np.ndarray:
    """Biases, then weights; of labels drawn from the answers."""
    shares = softmax(logits(params, x))
    drawn = [(u > np.cumsum(row)).sum() for u, row in zip(rng(key).random((len(x), 1))[:, 0], shares, strict=True)]
    error = shares - np.eye(4)[drawn]
    slopes = np.concatenate([error, (error[:, :, None] * x[:, None, :].astype(float)).reshape(len(x), -1)], axis=1)
    return (slopes**2).mean(0)


def flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for _, leaf in trees.leaves(tree)])


def test_fisher_is_the_mean_squared_slope_of_drawn_labels() -> None:
    x = DRAW.normal(size=(70, 3)).astype(np.float32)
    np.testing.assert_allclose(flat(fisher(NET, PARAMS, x, KEY)), fisher_by_hand(PARAMS, x, KEY), rtol=1e-9)


def test_springs_to_several_tasks_pull_as_kirkpatrick_s() -> None:
    """The gradients of sum_t F_t (w - w_t)^2 / 2 and of the one spring that is kept."""
    each = client(Ewc, Elastic(3.0))
    local, params, stiff, ends = Local(DATA), PARAMS, [], []
    for i in range(2):
        local, answer = replace(each, part=f"task-{i}")(local, {"params": params}, (*KEY, i), "me")
        params = trees.add(params, answer["delta"])
        ends.append(flat(params))
        stiff.append(fisher_by_hand(params, X[12 * i : 12 * i + 12], (*KEY, i, "learnt")))
    kept, w = local.memory["ewc"], np.linspace(-1, 1, len(ends[0]))
    pull = sum(f * (w - end) for f, end in zip(stiff, ends, strict=True))
    np.testing.assert_allclose(flat(kept["fisher"]) * (w - flat(kept["anchor"])), pull, rtol=1e-8)


def test_online_springs_fade() -> None:
    first, second = (lived(client(Ewc, Elastic(3.0), decay=0.25), n)[0] for n in (1, 2))
    kept = lived(client(Ewc, Elastic(3.0), decay=0.25))[1]["ewc"]
    old, new = (
        fisher_by_hand(end, X[12 * i : 12 * i + 12], (*KEY, i, "learnt")) for i, end in enumerate((first, second))
    )
    np.testing.assert_allclose(flat(kept["fisher"]), 0.25 * old + new, rtol=1e-9)
    same(kept["anchor"], second)


def test_the_elastic_term_by_hand() -> None:
    tensors = [{"w": torch.tensor(DRAW.normal(size=(2, 3)))} for _ in range(3)]
    w, stiff, anchor = (each["w"].numpy() for each in tensors)
    found = Elastic(3.0)(
        torch.zeros(5, 2, dtype=torch.float64), {}, tensors[0], {"fisher": tensors[1], "anchor": tensors[2]}
    )
    np.testing.assert_allclose(found.numpy(), np.full(5, 1.5 * (stiff * (w - anchor) ** 2).sum()), rtol=1e-12)


# ---------------------------------------------------------------------------------------------------- replay


def test_implicit_springs_by_hand_and_however_stiff() -> None:
    """One step: by the loss, then back by the share that the stiffness has; without end stiff, nothing moves."""
    before, memory = lived(client(Ewc), 1)
    stiff, anchor = (flat(memory["ewc"][name]) for name in ("fisher", "anchor"))
    start = trees.map(lambda leaf: leaf + 0.1, before)

    def stepped(strength: float | None) -> np.ndarray:
        each = replace(client(Ewc), strength=strength, part="task-1", epochs=1, batch_size=12)
        _, answer = each(Local(DATA, memory), {"params": start}, KEY, "cloud")
        return flat(trees.add(start, answer["delta"]))

    lr, plain = client(Ewc).optimiser.lr, stepped(None)
    np.testing.assert_allclose(stepped(0.0), plain, rtol=1e-12)
    k = lr * 40 * stiff
    np.testing.assert_allclose(stepped(40.0), (plain + k * anchor) / (1 + k), rtol=1e-9)
    np.testing.assert_allclose(stepped(1e12)[stiff > 1e-4], anchor[stiff > 1e-4], atol=1e-6)


def test_a_reservoir_keeps_the_smallest_tags_and_joins_in_any_order() -> None:
    parts = [{"x": X[i : i + 8], "y": Y[i : i + 8]} for i in (0, 8, 16)]
    state = None
    for i, part in enumerate(parts):
        state = reservoir(state, part, 5, (i,))
    tags = np.concatenate([rng((i,)).random(8) for i in range(3)])
    first = np.argsort(tags)[:5]
    np.testing.assert_array_equal(state["x"], X[first])
    np.testing.assert_array_equal(state["y"], Y[first])
    each = [reservoir(None, part, 5, (i,)) for i, part in enumerate(parts)]
    for order in ([0, 1, 2], [2, 0, 1]):
        together = each[order[0]]
        for i in order[1:]:
            together = fewest(joined(together, each[i]), 5)
        np.testing.assert_array_equal(together["x"], X[first])


def test_every_row_is_kept_equally_often() -> None:
    hits = np.zeros(24)
    for i in range(400):
        halves = [{"x": np.arange(n, n + 12), "y": np.arange(n, n + 12)} for n in (0, 12)]
        kept = reservoir(reservoir(None, halves[0], 6, (i, 0)), halves[1], 6, (i, 1))
        hits[kept["y"]] += 1
    assert np.abs(hits / 400 - 6 / 24).max() < 5 * np.sqrt(0.25 * 0.75 / 400)


def test_replayed_rows_are_trained_on_beside_the_new_ones() -> None:
    each = client(Replay, capacity=6, share=0.25)
    params, memory = lived(each, 1)
    kept = memory["replay"]
    again = rng((*KEY, 1, "rehearsed")).integers(6, size=4)  # a quarter of 12 + 4
    rows = {"x": np.concatenate([X[12:], kept["x"][again]]), "y": np.concatenate([Y[12:], kept["y"][again]])}
    expected = sequential.run(Client(loss=(CrossEntropy(),), **HOW), {"params": params}, rows, (*KEY, 1))
    same(lived(each)[0], expected.params)


# ------------------------------------------------------------------------------------------------------- LwF


def kept_by_hand(student: np.ndarray, teacher: np.ndarray, old: np.ndarray, t: float) -> np.ndarray:
    p, q = softmax(teacher[:, old] / t), softmax(student[:, old] / t)
    return t * t * (p * (np.log(p) - np.log(q))).sum(1)


def test_what_is_kept_is_the_answer_about_old_classes() -> None:
    student, teacher = DRAW.normal(size=(5, 4)), DRAW.normal(size=(5, 4))
    for old in (np.array([True, False, True, True]), np.ones(4, bool)):
        batch = {"teacher": torch.tensor(teacher), "old": torch.tensor(np.tile(old, (5, 1)))}
        found = Kept(0.5, 2.0)(torch.tensor(student), batch, {}, {})
        np.testing.assert_allclose(found.numpy(), 0.5 * kept_by_hand(student, teacher, old, 2.0), rtol=1e-9)
    nothing = {**batch, "old": torch.zeros(5, 4, dtype=torch.bool)}
    leaf = torch.tensor(student, requires_grad=True)
    Kept()(leaf, nothing, {}, {}).sum().backward()
    assert float(leaf.grad.abs().max()) == 0.0


def test_the_old_model_teaches_the_classes_of_parts_that_are_over() -> None:
    each = client(Lwf, Kept())
    params, memory = lived(each, 1)
    np.testing.assert_array_equal(memory["classes"], [True, True, False, False])
    rows = replace(each, part="task-1").examples(Local(DATA, memory), params)
    np.testing.assert_allclose(rows["teacher"], logits(params, X[12:]), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(rows["old"], np.tile(memory["classes"], (12, 1)))


def test_the_cloud_may_teach_all_classes() -> None:
    order = DRAW.permutation(24)
    told = {"rows": order, "logits": np.arange(24 * 4, dtype=np.float32).reshape(24, 4)}
    each = client(Lwf, Kept(), cloud="told")
    rows = replace(each, part="task-1").examples(Local(DATA, {"told": told}), PARAMS)
    expected = np.array([told["logits"][np.flatnonzero(order == row)[0]] for row in range(12, 24)])
    np.testing.assert_array_equal(rows["teacher"], expected)
    assert rows["old"].all()
    with pytest.raises(ConfigError, match=r"^12 rows that the cloud was not asked about: "):
        each.examples(Local(DATA), PARAMS)


# ------------------------------------------------------------------------------------------------------- GEM


def test_one_constraint_has_a_closed_form() -> None:
    g, r = DRAW.normal(size=7), DRAW.normal(size=7)
    g = g - (g @ r + 1) / (r @ r) * r  # now g @ r is -1
    np.testing.assert_allclose(projected(g, r[None]), g - (g @ r) / (r @ r) * r, rtol=1e-9)
    assert projected(-g, r[None]) is not None
    np.testing.assert_array_equal(projected(-g, r[None]), -g)


def test_several_constraints_are_met_by_the_nearest_vector() -> None:
    """The conditions of Karush, Kuhn and Tucker."""
    for seed in range(20):
        draw = np.random.default_rng(seed)
        g, old = draw.normal(size=6), draw.normal(size=(4, 6))
        found = projected(g, old)
        slack, multipliers = old @ found, np.linalg.lstsq(old.T, found - g, rcond=None)[0]
        assert slack.min() > -1e-9
        assert multipliers.min() > -1e-9
        np.testing.assert_allclose(old.T @ multipliers, found - g, atol=1e-9)
        assert np.abs(slack * multipliers).max() < 1e-9


def test_a_margin_leans_towards_what_is_remembered() -> None:
    g, old = np.array([1.0, 0.0]), np.array([[-1.0, 0.5]])
    found = projected(g, old, margin=2.0)
    np.testing.assert_allclose(found, g + 2.0 * old[0], rtol=1e-12)  # the least multiplier, 0.8, is below the margin


def test_each_task_leaves_rows_and_a_step_does_not_raise_their_loss() -> None:
    each = client(Gem, capacity=12, margin=0.0, epochs=1, batch_size=12, optimiser=SGD(1e-3))
    params, memory = lived(replace(each, epochs=30, optimiser=SGD(0.5)), 1)
    assert {part: len(rows["y"]) for part, rows in memory["gem"].items()} == {"000000": 12}
    _, answer = replace(each, part="task-1")(Local(DATA, memory), {"params": params}, KEY, "me")

    def slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        error = softmax(logits(params, x)) - np.eye(4)[y]
        return np.concatenate([error.mean(0), (error.T @ x / len(x)).ravel()])

    new, old = slope(X[12:], Y[12:]), slope(X[:12], Y[:12])
    assert new @ old < 0
    np.testing.assert_allclose(flat(answer["delta"]), -1e-3 * (new - (new @ old) / (old @ old) * old), rtol=1e-6)


# ---------------------------------------------------------------------------------------------------- within


def test_within_a_task_other_classes_do_not_count() -> None:
    found = Within(((0, 3), (1, 2)), 0.5)(torch.tensor(logits(PARAMS, X)), {"y": torch.tensor(Y)}, {}, {})
    for i in range(24):
        own = [0, 3] if Y[i] in (0, 3) else [1, 2]
        shares = softmax(logits(PARAMS, X[i : i + 1])[:, own])[0]
        assert float(found[i]) == pytest.approx(-0.5 * np.log(shares[own.index(Y[i])]), rel=1e-9)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Within(((0, 1), (1, 2))), "a class that is in two of the tasks"),
        (lambda: Elastic(-1.0), "strength=-1.0"),
        (lambda: client(Ewc, decay=1.5), "decay=1.5"),
        (lambda: client(Ewc, strength=-1.0), "strength=-1.0"),
        (lambda: client(Replay, capacity=0), "0 rows kept, 0.5 of the rows replayed"),
        (lambda: client(Replay, share=1.0), "50 rows kept, 1.0 of the rows replayed"),
        (lambda: client(Gem, margin=-1.0), "20 rows kept of a part, a margin of -1.0"),
        (lambda: Kept(temperature=0.0), "temperature=0.0"),
    ],
)
def test_settings_that_cannot_be_are_refused(build: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{message}.*: "):
        build()
