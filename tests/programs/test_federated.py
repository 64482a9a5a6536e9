"""Algorithms side by side: same people, same rounds, resumable, and compared by user."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duetto.errors import ConfigError, DataError
from duetto.evaluation import users
from duetto.programs import federated
from duetto.programs.federated import Comparison, Outcome, Settings
from duetto.tasks import load
from duetto.training import Sequential

SETTINGS = Settings(partition="dirichlet:0.5", users=20, rounds=3, cohort=5, alone_epochs=1, central_epochs=1)
WHAT = Comparison("digits", ("start", "alone", "centralised", "fedavg", "scaffold"), (0, 1), SETTINGS, {}, Sequential())


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Outcome]]:
    folder = tmp_path_factory.mktemp("federated") / "run"
    return folder, federated.compare(WHAT, folder)


def test_people_are_apart(found: tuple[Path, list[Outcome]]) -> None:
    here = federated.world("digits", SETTINGS, 0)
    _, owners = here.held
    _, unseen = here.unseen
    assert not set(unseen.tolist()) & (set(owners.tolist()) | set(here.train))
    assert len(here.train) + len(set(unseen.tolist())) == 20
    rows = sum(map(len, here.train.values())) + len(owners) + len(unseen)
    assert rows == 1797, "every row of digits, once"


def test_an_outcome_is_what_its_parameters_answer(found: tuple[Path, list[Outcome]]) -> None:
    here = federated.world("digits", SETTINGS, 0)
    start = next(each for each in found[1] if (each.name, each.seed) == ("start", 0))
    rows, owners = here.held
    right = here.net.logits(here.params, rows.x).argmax(1) == rows.y
    for name, (count, correct) in start.users["held"].items():
        assert (count, correct) == (int((owners == name).sum()), int(right[owners == name].sum()))


def test_learning_learns_and_costs(found: tuple[Path, list[Outcome]]) -> None:
    lines = {line.name: line for line in federated.lines(found[1])}
    assert set(lines) == set(WHAT.names)
    assert lines["fedavg"].held > lines["start"].held
    assert lines["scaffold"].up_bytes > 1.9 * lines["fedavg"].up_bytes > 0 == lines["centralised"].up_bytes
    assert {line.seeds for line in lines.values()} == {2}


def test_differences_are_paired_by_user(found: tuple[Path, list[Outcome]]) -> None:
    of = {(each.name, each.seed): each for each in found[1]}
    line = next(line for line in federated.lines(found[1]) if line.name == "scaffold")
    per_seed = [of["scaffold", s].of("held").mean - of["fedavg", s].of("held").mean for s in (0, 1)]
    assert line.gain is not None
    assert line.gain[0] == pytest.approx(np.mean(np.concatenate(per_seed)))
    assert line.gain[1] <= line.gain[0] <= line.gain[2]
    first = next(line for line in federated.lines(found[1]) if line.name == "fedavg")
    assert first.gain is None
    assert first.held == pytest.approx(np.mean([users.user_mean(of["fedavg", s].of("held")) for s in (0, 1)]))


def test_what_is_done_is_not_done_again(found: tuple[Path, list[Outcome]], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, outcomes = found
    monkeypatch.setattr(federated, "world", None)
    again = federated.compare(WHAT, folder)
    assert [json.dumps(each.users) for each in again] == [json.dumps(each.users) for each in outcomes]


def test_another_comparison_needs_another_folder(found: tuple[Path, list[Outcome]]) -> None:
    other = replace(WHAT, settings=replace(SETTINGS, lr=0.2))
    with pytest.raises(ConfigError, match="another comparison"):
        federated.compare(other, found[0])


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "fedavg-seed-0.json").write_text("{")
    with pytest.raises(DataError, match=r"fedavg-seed-0\.json"):
        Outcome.load(tmp_path / "fedavg-seed-0.json")


def test_senseless_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fedsgd"):
        federated.compare(replace(WHAT, names=("fedsgd",)), tmp_path / "a")
    with pytest.raises(ConfigError, match="at least one"):
        Settings(rounds=0)
    with pytest.raises(ConfigError, match="no codec"):
        Settings(up="int3")
    with pytest.raises(ConfigError, match="no schedule"):
        Settings(schedule="linear")
    with pytest.raises(ConfigError, match="no model"):
        Settings(model="middle")


@pytest.mark.parametrize("model", ["small", "large"])
def test_either_model_of_the_pair_is_trained(model: str) -> None:
    assert federated.world("digits", replace(SETTINGS, model=model), 0).net == getattr(load("digits", 0), model)


def test_a_schedule_lowers_the_rate_in_ten_stairs(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []

    def rounds(algorithm: Any, **more: Any) -> Any:
        rates.extend(algorithm(step).client.optimiser.lr for step in range(20))
        return real(algorithm, **more)

    real = federated.rounds
    monkeypatch.setattr(federated, "rounds", rounds)
    settings = replace(SETTINGS, rounds=20, schedule="cosine", lr=0.5)
    here = federated.world("digits", settings, 0)
    federated.learn("fedavg", here, replace(settings, points=1), 0, {}, Sequential(), lambda *a: None)
    stairs = 0.5 * (0.02 + 0.98 * (1 + np.cos(np.pi * np.arange(10) / 9)) / 2)
    assert rates == pytest.approx(np.repeat(stairs, 2))


def test_distorted_inputs_are_for_training_only() -> None:
    plain, distorted = (federated.world("digits", replace(SETTINGS, augment=augment), 0) for augment in (False, True))
    assert plain.augment is None
    assert distorted.augment == load("digits", 0).teach_small.augment
    marked = replace(plain, augment=lambda x, generator: x * 0)
    made = federated.algorithm("fedavg", marked, SETTINGS, {}, Sequential())
    assert made.client.augment is marked.augment
