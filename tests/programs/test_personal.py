"""Personalised methods side by side: who answers what, with whose parameters, over FedAvg + fine-tuning."""

import inspect
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from duetto import algorithms
from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.models import Mlp
from duetto.models.net import log_softmax
from duetto.programs import federated, personal
from duetto.programs.federated import Comparison, Outcome
from duetto.programs.personal import METHODS, Settings
from duetto.tasks.by_user import ByUser
from duetto.training import Sequential, sequential
from duetto.types import Local, Rows

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


@dataclass(frozen=True)
class Given:
    """As much of a task as a world is made of."""

    data: ByUser
    small: Mlp = field(default_factory=lambda: Mlp((1,), 2))
    teach_small: Any = field(default_factory=lambda: SimpleNamespace(augment=None))


@pytest.fixture
def timely(monkeypatch: pytest.MonkeyPatch) -> ByUser:
    """Forty people with 20 to 59 rows in the order of time, two by two."""
    counts = np.arange(20, 60)
    user = np.repeat(np.arange(40), counts - counts % 2).astype(np.int32)
    x = np.arange(len(user), dtype=np.float32)[:, None]
    data = ByUser(x, np.arange(len(user)) % 2, user, tuple(f"person {i}" for i in range(40)), ("no", "yes"))
    monkeypatch.setattr(personal, "load", lambda task, seed: Given(data))
    monkeypatch.setattr(personal, "TOGETHER", {"timely": 2})
    return data


def test_where_rows_follow_time_later_ones_are_held_back(timely: ByUser) -> None:
    here = personal.world("timely", Settings(rows=31), 0)
    for user, rows in here.train.items():
        mine = timely.x[timely.rows(user)][:30]
        held = here.held[0].x[here.held[1] == user]
        np.testing.assert_array_equal(np.concatenate([rows.x, held]), mine)
        assert len(held) % 2 == 0 < len(held)
    for user, rows in here.joining.items():
        later = here.unseen[0].x[here.unseen[1] == user]
        np.testing.assert_array_equal(np.concatenate([rows.x, later]), timely.x[timely.rows(user)][:30])


def test_numbers_are_chosen_on_people_whom_no_seed_reports(timely: ByUser) -> None:
    def people(seed: int, tuning: bool, most: int = 0) -> set[str]:
        here = personal.world("timely", Settings(people=most), seed, tuning)
        return {*here.train, *here.unseen[1].tolist()}

    chosen_on = people(7, tuning=True)
    assert 4 <= len(chosen_on) <= 20
    for seed in range(3):
        assert people(seed, tuning=False) == set(timely.users) - chosen_on
    some = [people(seed, tuning=False, most=10) for seed in range(2)]
    assert [len(each) for each in some] == [10, 10]
    assert some[0] != some[1]
    assert not (some[0] | some[1]) & chosen_on


def test_what_is_set_by_hand_goes_before_what_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {"lr": 1.0, "last_epochs": 3, "lam": 0.3}
    monkeypatch.setattr(personal, "CHOSEN", {"activity": {"ditto": numbers}})
    assert personal.chosen("activity", "ditto", Settings()) == numbers
    assert personal.chosen("digits", "ditto", Settings()) == METHODS["ditto"]
    assert personal.chosen("activity", "ditto", Settings(lr=0.2)) == {"last_epochs": 3, "lam": 0.3}
    assert personal.chosen("activity", "ditto", Settings(tune_epochs=1)) == {"lr": 1.0, "lam": 0.3}
    assert personal.chosen("activity", "knn_per", Settings(tune_epochs=1))["last_epochs"] == 0


def test_every_chosen_number_is_of_its_method() -> None:
    for methods in personal.CHOSEN.values():
        assert set(methods) <= set(METHODS)
        for name, numbers in methods.items():
            known = inspect.signature(getattr(algorithms, name)).parameters
            assert set(numbers) - set(personal.LAST) <= set(known)


@pytest.mark.parametrize("name", ["fedper", "fedrep", "lg_fedavg", "apfl", "ifca", "per_fedavg"])
@pytest.mark.parametrize("keeps", [False, True])
def test_the_last_training_is_of_what_then_answers(name: str, keeps: bool) -> None:
    """Kept or not, a device's loss on its own rows falls: it answers with what it trained, and with nothing else."""
    here = personal.world("digits", replace(SETTINGS, users=5), 0)
    own = {"lr": 0.1, **METHODS[name], "last_epochs": 10, "last_lr": 0.05, "keeps": keeps}
    made = personal.built(name, here, SETTINGS, own, Sequential(), 0)
    log = federated.lived(name, here, SETTINGS, 0, made, lambda *told: None)
    devices = personal.ready(made, log, here, SETTINGS, 0, own, ("held",))["held"]
    before = personal.ready(made, log, here, SETTINGS, 0, {**own, "last_epochs": 0}, ("held",))["held"]
    for user, rows in here.train.items():
        losses = []
        for device in (before[user], devices[user]):
            logits = device.client.logits(device.sent, device.memory, rows.x)
            losses.append(-log_softmax(logits)[np.arange(len(rows)), rows.y].mean())
        if keeps or name not in ("apfl", "ifca"):
            assert losses[1] < losses[0]
        elif name == "ifca":
            assert losses[1] == losses[0], "IFCA's devices answer with the model of their cluster"


def test_what_is_a_devices_own_begins_where_the_worlds_parameters_do() -> None:
    here = personal.world("digits", SETTINGS, 3)
    made = personal.built("fedper", here, SETTINGS, {"lr": 0.1}, Sequential(), 3)
    cold = made.client.personal(made.server.send({}, here.params, None), {})  # type: ignore[attr-defined]
    assert trees.encode(cold) == trees.encode(here.params)


def test_two_classes_have_an_auc_too() -> None:
    here = SimpleNamespace(
        net=SimpleNamespace(classes=2),
        held=(Rows(np.arange(5.0)[:, None], np.array([1, 0, 0, 1, 0])), np.array(["ann"] * 3 + ["bob"] * 2)),
    )
    score = {0.0: 0.4, 1.0: 0.4, 2.0: 0.1, 3.0: -1.0, 4.0: 1.0}
    client = SimpleNamespace(logits=lambda sent, memory, x: np.array([[0.0, score[float(each[0])]] for each in x]))
    device = personal.Device(client, {}, {})  # type: ignore[arg-type]
    found = personal.scored(here, {"held": {"ann": device, "bob": device}})  # type: ignore[arg-type]
    assert found["auc"].count.tolist() == [4, 2]
    assert found["auc"].total.tolist() == [3, 0], "a tie is half a pair"
    told = {group: {str(n): (int(c), int(t)) for n, c, t in zip(of.names, of.count, of.total, strict=True)}
            for group, of in found.items()}  # fmt: skip
    line = personal.lines([Outcome("fedavg_ft", 0, {**told, "unseen": {}})])[0]
    assert line.gauc == pytest.approx((3 * 0.75 + 2 * 0.0) / 5)


def test_senseless_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="scaffold"):
        personal.compare(replace(WHAT, names=("scaffold",)), tmp_path / "a")
    for name in ("tune_epochs", "people", "rows"):
        with pytest.raises(ConfigError, match=f"{name}=-1"):
            Settings(**{name: -1})
