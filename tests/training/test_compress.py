"""Steps of compression that train."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.models import Conv, Mlp
from duetto.models.compress import Magnitude, Material, Model, Rounded, Structured, compressed, ranges, sparsity
from duetto.models.embedding import embedded
from duetto.training import SGD, Adam, Affine, Client, CrossEntropy, Distil, sequential
from duetto.training.compress import Distilled, QuantisationAware, Sparse, prepared
from duetto.tree import Tree

NET, TEACHER = Mlp((4,), 3, (6,)), Mlp((4,), 3, (9,))
KEY = (0, "test")


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray]:
    """Three clouds of points."""
    draw = np.random.default_rng(0)
    y = draw.integers(0, 3, 240)
    return (np.eye(3, 4)[y] * 2 + draw.normal(size=(240, 4)) * 0.5).astype(np.float32), y


@pytest.fixture(scope="module")
def material(rows: tuple[np.ndarray, np.ndarray]) -> Material:
    x, y = rows
    client = Client(TEACHER, (CrossEntropy(),), Adam(1e-2), 8, 16)
    params = sequential.run(client, {"params": TEACHER.init(0)}, {"x": x, "y": y}, KEY).params
    return prepared(TEACHER, params, x, y, x[:50], KEY, features=True)


@pytest.fixture(scope="module")
def model(rows: tuple[np.ndarray, np.ndarray]) -> Model:
    x, y = rows
    client = Client(NET, (CrossEntropy(),), Adam(1e-2), 8, 16)
    return Model(NET, sequential.run(client, {"params": NET.init(1)}, {"x": x, "y": y}, KEY).params)


def right(model: Model, rows: tuple[np.ndarray, np.ndarray]) -> float:
    return float((model.net.logits(model.params, rows[0]).argmax(1) == rows[1]).mean())


def same(left: Tree, other: Tree) -> None:
    trees.map(np.testing.assert_array_equal, left, other)


def test_the_teacher_is_asked_about_the_very_inputs_that_the_student_sees() -> None:
    net = Conv((1, 8, 8), 3, (2,))
    params, x = net.init(0), np.random.default_rng(0).normal(size=(5, 1, 8, 8)).astype(np.float32)
    made = prepared(net, params, x, np.arange(5), x, KEY, augment=Affine(), copies=3, features=True)
    assert made.x.shape == (15, 1, 8, 8)
    assert not np.array_equal(made.x[:5], made.x[5:10])
    np.testing.assert_array_equal(made.y, np.tile(np.arange(5), 3))
    np.testing.assert_array_equal(made.teacher, net.logits(params, made.x))
    assert made.features is not None
    np.testing.assert_allclose(made.features, embedded(net, params, made.x), atol=1e-6)
    again = prepared(net, params, x, np.arange(5), x, KEY, augment=Affine(), copies=3)
    np.testing.assert_array_equal(made.x, again.x)
    assert again.features is None


def test_answers_are_distilled_as_the_house_distils(material: Material) -> None:
    step = Distilled(NET, epochs=2, batch_size=16, lr=1e-2, share=0.75, temperature=3.0)
    found = step(Model(TEACHER, TEACHER.init(5)), material, KEY)
    client = Client(NET, (CrossEntropy(0.25), Distil(0.75, 3.0)), Adam(1e-2, schedule="cosine"), 2, 16)
    started = {"params": NET.init(sequential.seed((*KEY, "init")))}
    data = {"x": material.x, "y": material.y, "teacher": material.teacher}
    same(found.params, sequential.run(client, started, data, KEY).params)
    assert found.net == NET


@pytest.mark.parametrize("more", [{"hint": 1.0}, {"distance": 25.0}, {"distance": 25.0, "angle": 50.0}, {"share": 0.0}])
def test_every_kind_of_distillation_learns(
    more: dict[str, float], material: Material, rows: tuple[np.ndarray, np.ndarray]
) -> None:
    step = replace(Distilled(NET, epochs=15, batch_size=16, lr=1e-2), **more)
    made = step(Model(TEACHER, TEACHER.init(5)), material, KEY)
    assert made.params.keys() == NET.init(0).keys()  # the regressor is thrown away
    assert right(made, rows) > 0.9
    same(made.params, step(Model(TEACHER, TEACHER.init(5)), material, KEY).params)


def test_a_hint_changes_what_is_learned(material: Material) -> None:
    step = Distilled(NET, epochs=1, batch_size=16)
    plain, hinted = (each(Model(NET, NET.init(0)), material, KEY).params for each in (step, replace(step, hint=1.0)))
    assert trees.norm(trees.subtract(plain, hinted)) > 1e-3


def test_what_is_zero_stays_zero(material: Material, model: Model, rows: tuple[np.ndarray, np.ndarray]) -> None:
    thin = Magnitude(0.6)(model, material, KEY)
    step = Distilled(epochs=4, batch_size=16, lr=1e-2, sparse=True)
    healed = step(thin, material, KEY)
    assert sparsity(healed.params) >= sparsity(thin.params) > 0.5
    trees.map(
        lambda before, after: np.testing.assert_array_equal(after[before == 0], 0) if before.ndim > 1 else None,
        thin.params,
        healed.params,
    )
    assert right(healed, rows) >= right(thin, rows)
    free = replace(step, sparse=False)(thin, material, KEY)
    assert sparsity(free.params) < sparsity(thin.params)


def test_without_zeros_the_sparse_optimiser_is_the_optimiser() -> None:
    ends = []
    for rule in (SGD(0.1), Sparse(SGD(0.1))):
        leaf = torch.ones(2, 2, requires_grad=True)
        made = rule.start([leaf])
        (leaf**2).sum().backward()
        made.step()
        ends.append(leaf.detach().numpy().copy())
        assert rule.rate(3, 7) == 0.1
    np.testing.assert_array_equal(*ends)


def test_training_that_feels_the_rounding_brings_back_what_rounding_lost(
    material: Material, model: Model, rows: tuple[np.ndarray, np.ndarray]
) -> None:
    """At three bits, where rounding hurts."""
    made = QuantisationAware(epochs=6, batch_size=16, lr=1e-2, bits=3)(model, material, KEY)
    assert (made.net, made.form) == (NET, "int8")

    def rounded(each: Model) -> float:
        net = Rounded(NET, ranges(NET, each.params, material.calibration), 3)
        return float(-(np.take_along_axis(log(net.logits(each.params, rows[0])), rows[1][:, None], 1)).mean())

    def log(logits: np.ndarray) -> np.ndarray:
        return np.asarray(logits - np.log(np.exp(logits).sum(1, keepdims=True)))

    assert rounded(made) < rounded(model)


def test_steps_compose(material: Material, model: Model, rows: tuple[np.ndarray, np.ndarray]) -> None:
    steps = (Structured(0.5), Distilled(epochs=4, batch_size=16, lr=1e-2), QuantisationAware(batch_size=16))
    made = compressed(steps, model, material, KEY)
    assert (made.net, made.form) == (Mlp((4,), 3, (3,)), "int8")
    assert right(made, rows) > 0.6
    assert model.net == NET  # as it was


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda material: Distilled(share=2), "share=2: use 0 (labels only) to 1 (the teacher only)"),
        (lambda material: Distilled(hint=1, distance=1), "hints and relations at once: they read features of other w"),
        (
            lambda material: Distilled(NET, hint=1)(Model(NET, NET.init(0)), replace(material, features=None), KEY),
            "no features to imitate: prepare the material with features=True",
        ),
        (
            lambda material: prepared(NET, NET.init(0), material.x, material.y, material.x, KEY, copies=2),
            "2 copies of each input: use 1 without an augmentation, at least 1 with one",
        ),
    ],
)
def test_faults_are_told_in_one_line(call: Callable[..., Any], says: str, material: Material) -> None:
    with pytest.raises(ConfigError) as caught:
        call(material)
    assert str(caught.value).startswith(says)
