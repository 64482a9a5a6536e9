"""Personalised methods side by side: who answers what, with whose parameters, over FedAvg + fine-tuning."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from duetto import algorithms
from duetto.errors import ConfigError
from duetto.programs import federated, personal
from duetto.programs.federated import Comparison, Outcome
from duetto.programs.personal import METHODS, Settings
from duetto.training import Sequential, sequential
from duetto.types import Local

SETTINGS = Settings(partition="dirichlet:0.5", users=20, rounds=2, cohort=5, tune_epochs=1, alone_epochs=1)
NAMES = ("alone", "fedavg", "fedavg_ft", "fedper", "ifca", "knn_per")
WHAT = Comparison("digits", NAMES, (0, 1), SETTINGS, {}, Sequential())


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Outcome]]:
    folder = tmp_path_factory.mktemp("personal") / "run"
    return folder, personal.compare(WHAT, folder)


def test_the_methods_are_algorithms() -> None:
    assert set(METHODS) <= set(algorithms.__all__)


def test_unseen_users_learn_from_one_half_and_are_scored_on_the_other() -> None:
    plain, here = (program.world("digits", SETTINGS, 0) for program in (federated, personal))
    _, owners = here.unseen
    for user in set(plain.unseen[1].tolist()):
        later = here.unseen[0].x[owners == user]
        both = np.concatenate([here.joining[user].x, later])
        given = plain.unseen[0].x[plain.unseen[1] == user]
        assert len(both) == len(given)
        assert sorted(row.tobytes() for row in both) == sorted(row.tobytes() for row in given)
        assert 0 <= len(later) - len(here.joining[user]) <= 1
    assert here.train.keys() == plain.train.keys()


def test_a_device_answers_with_what_its_last_training_made(found: tuple[Path, list[Outcome]]) -> None:
    """FedAvg + fine-tuning, done again by hand for one device."""
    here = personal.world("digits", SETTINGS, 0)
    made = federated.algorithm("fedavg_ft", here, SETTINGS, {}, Sequential(), METHODS)
    log = federated.lived("fedavg_ft", here, SETTINGS, 0, made, lambda *told: None)
    params = log.memory["cloud"]["params"]
    rows, owners = here.held
    user = owners[0]
    last = replace(made.client, epochs=1)
    data = last.examples(Local(here.train[user]), params)
    own = sequential.run(last, {"params": params}, data, (0, "tuned", user)).params
    mine = owners == user
    right = here.net.logits(own, rows.x[mine]).argmax(1) == rows.y[mine]
    outcome = next(each for each in found[1] if (each.name, each.seed) == ("fedavg_ft", 0))
    assert tuple(outcome.users["held"][user]) == (int(mine.sum()), int(right.sum()))


def test_lines_compare_with_fine_tuning(found: tuple[Path, list[Outcome]]) -> None:
    lines = {line.name: line for line in personal.lines(found[1])}
    assert tuple(lines) == NAMES
    assert lines["fedavg_ft"].gain is None
    assert lines["fedavg"].gain is not None
    assert lines["fedavg"].gain[0] == pytest.approx(lines["fedavg"].held - lines["fedavg_ft"].held)
    assert lines["fedavg"].cold == lines["fedavg"].unseen == lines["fedavg_ft"].cold < lines["fedavg_ft"].unseen
    assert lines["fedper"].up_bytes < 0.8 * lines["fedavg"].up_bytes
    assert lines["ifca"].down_bytes > 1.9 * lines["fedavg"].down_bytes
    assert np.isnan(lines["alone"].cold)


def test_the_page_names_who_is_ahead(found: tuple[Path, list[Outcome]], tmp_path: Path) -> None:
    result = personal.result(WHAT, "run", found[1])
    assert [row.name for row in result.rows] == list(NAMES)
    assert "FedAvg + fine-tuning" in result.headline
    result.save(tmp_path / "result.json")
    assert json.loads((tmp_path / "result.json").read_text())


def test_what_is_done_is_not_done_again(found: tuple[Path, list[Outcome]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(personal, "world", None)
    again = personal.compare(WHAT, found[0])
    assert [json.dumps(each.users) for each in again] == [json.dumps(each.users) for each in found[1]]


def test_a_task_may_draw_its_own_people(monkeypatch: pytest.MonkeyPatch) -> None:
    few = replace(SETTINGS, users=10)
    monkeypatch.setattr(personal, "WORLDS", {"few": lambda task, settings, seed: federated.world("digits", few, seed)})
    assert len(personal.world("few", SETTINGS, 0).train) == 8


def test_senseless_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="scaffold"):
        personal.compare(replace(WHAT, names=("scaffold",)), tmp_path / "a")
    with pytest.raises(ConfigError, match="tune_epochs"):
        Settings(tune_epochs=-1)
