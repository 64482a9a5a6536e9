"""What a pair of models is worth: the same answers in a world and without one."""

from collections.abc import Callable

import numpy as np
import pytest

from duetto.programs import closed_loop, scoring
from duetto.programs.closed_loop import Settings
from duetto.programs.scoring import Models
from duetto.tasks import Task, pair
from duetto.types import Outcomes

SETTINGS = Settings(tolerance_points=5.0)


@pytest.fixture(scope="module")
def task(tiny_task: Callable[..., Task]) -> Task:
    """A small one."""
    return tiny_task(1)


@pytest.fixture(scope="module")
def models(task: Task) -> Models:
    """The pair; one user has a model of its own."""
    made, known = pair.train(task), task.group("calibration")[0]
    small, own, own_user = closed_loop.stored(made["small"]), task.small.init(5), task.users["unseen"][1]
    policy = SETTINGS.policy.fit(
        Outcomes.of_classifiers(task.small.logits(small, known.x), task.large.logits(made["large"], known.x), known.y)
    )
    return Models(lambda user: own if user == own_user else small, {"0": made["large"]}, policy)


def test_scores_are_every_user_s_own_model_s(task: Task, models: Models) -> None:
    for group, part in scoring.GROUPS.items():
        found = scoring.scores(task, group, models)
        rows, owner = task.group(group, part)
        assert found.truth.tolist() == rows.y.tolist()
        assert found.user.tolist() == owner.tolist()
        for user in task.users[group]:
            mine = owner == user
            np.testing.assert_allclose(
                found.small[mine], task.small.logits(models.small(user), rows.x[mine]), atol=1e-6
            )
        both = closed_loop.mixture(task)
        np.testing.assert_allclose(found.large, both.logits(models.large, rows.x), atol=1e-6)


@pytest.mark.parametrize("system", ["only_on_device", "only_in_cloud", "cascade"])
def test_the_world_gives_the_same_answers(task: Task, models: Models, system: str) -> None:
    """The cloud sees inputs in eight bits, so a close call may fall the other way there."""
    found = scoring.scores(task, "unseen", models)
    records = scoring.answers(task, SETTINGS, "unseen", models, system, "constant-10", "before")
    assert {(r.metrics["system"], r.metrics["group"], r.metrics["stage"]) for r in records} == {
        (system, "unseen", "before")
    }
    position = {
        (user, i): at for user in task.users["unseen"] for i, at in enumerate(np.flatnonzero(found.user == user))
    }
    assert sorted(position) == sorted((record.user, record.step) for record in records)
    agreed = 0
    for record in records:
        at = position[record.user, record.step]
        asked = record.metrics["by"] == "cloud"
        assert record.metrics["truth"] == found.truth[at]
        agreed += record.metrics["label"] == (found.large if asked else found.small)[at].argmax()
        assert asked or record.metrics["label"] == found.small[at].argmax()
    assert agreed >= 0.95 * len(records)
    asked_share = np.mean([float(record.metrics["asked"]) for record in records])
    assert {"only_on_device": asked_share == 0, "only_in_cloud": asked_share == 1}.get(system, 0 < asked_share < 1)


def test_the_systems_are_the_four_modes_and_the_cascade(models: Models) -> None:
    names = list(models.systems())
    assert names[-1] == "cascade"
    assert set(names) == {"only_on_device", "prefer_on_device", "prefer_in_cloud", "only_in_cloud", "cascade"}
    assert models.systems()["cascade"] is models.policy
