"""What a pair and its siblings say: whose rows, from whom, and what the last layer reads."""

from pathlib import Path

import numpy as np
import pytest

from duetto.errors import DataError
from duetto.programs import heard
from duetto.programs.heard import FOLDS, Heard, folds
from duetto.tasks import load, trained
from duetto.types import Seen


def nothing(what: str, done: float, of: float) -> None:
    """Hears no progress."""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Heard]]:
    folder = tmp_path_factory.mktemp("heard")
    return folder, heard.heard(load("digits"), 3, folder, nothing, folder / "cache")


def test_users_are_apart_and_rows_are_not_the_clouds(said: tuple[Path, dict[str, Heard]]) -> None:
    task, groups = load("digits"), said[1]
    assert set(groups["calibration"].user) == set(task.users["calibration"])
    assert set(groups["test"].user) <= set(task.users["device"]) | set(task.users["unseen"])
    assert len(groups["train"].truth) == len(task.public)
    total = sum(len(each.truth) for each in groups.values())
    assert total == len(task.data.y), "every row of digits, once"


def test_a_training_row_is_answered_by_a_model_that_never_saw_its_user(said: tuple[Path, dict[str, Heard]]) -> None:
    folder, groups = said
    task, train = load("digits"), groups["train"]
    fold = folds(train.user, FOLDS, 0)
    assert all(len(set(fold[train.user == user])) == 1 for user in set(train.user))
    for i in range(FOLDS):
        own = task.small.logits(heard.read(folder / f"digits-fold-{i}.safetensors"), task.public.x[fold == i])
        assert train.small[fold == i] == pytest.approx(own, abs=1e-4)
    right = [(logits.argmax(1) == train.truth).mean() for logits in (train.small, train.siblings[:, 1])]
    assert right[0] < right[1], "the sibling saw these rows"


def test_the_last_layer_on_its_features_gives_the_logits(said: tuple[Path, dict[str, Heard]]) -> None:
    task = load("digits")
    pair = trained(task, said[0] / "cache")
    last = pair.small[max(pair.small, key=int)]
    test = said[1]["test"]
    assert test.features @ last["weight"].T + last["bias"] == pytest.approx(test.siblings[:, 0], abs=1e-4)


def test_outcomes_are_what_the_models_got_right(said: tuple[Path, dict[str, Heard]]) -> None:
    test = said[1]["test"]
    told = test.outcomes(siblings=2, features=True)
    assert told.small.mean() == (test.small.argmax(1) == test.truth).mean()
    assert told.large.mean() == (test.large.argmax(1) == test.truth).mean()
    assert isinstance(told.seen, Seen)
    assert np.shape(told.seen.scores) == (len(test.truth), 2, 10)
    assert test.outcomes().seen.scores is None
    assert test.outcomes().seen.features is None


def test_what_is_there_is_read_and_what_is_damaged_is_named(said: tuple[Path, dict[str, Heard]]) -> None:
    folder, groups = said
    again = heard.heard(load("digits"), 3, folder, nothing, folder / "cache")
    assert (again["test"].siblings == groups["test"].siblings).all()
    (folder / "digits-sibling-1.safetensors").write_bytes(b"no tree")
    with pytest.raises(DataError, match="sibling-1"):
        heard.heard(load("digits"), 3, folder, nothing, folder / "cache")
