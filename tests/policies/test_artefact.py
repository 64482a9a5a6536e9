"""Any fitted policy as a folder: it decides as before, one changed byte is told, and no foreign code is named."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duetto.errors import ConfigError, DataError
from duetto.policies import (
    Audited,
    Budgeted,
    Calibrated,
    LearnedGain,
    LinUCB,
    Neighbours,
    RiskControlled,
    Selected,
    Threshold,
    Tier,
    Tiers,
    sealed,
)
from duetto.policies.artefact import Artefact, heard, load, save, told
from duetto.types import Held, Key, Move, Outcomes, Policy, Seen

DRAW = np.random.default_rng(3)
LOGITS = DRAW.normal(size=(80, 4)) * 2
OUTCOMES = Outcomes.of_classifiers(
    LOGITS, labels=np.where(DRAW.random(80) < 0.8, LOGITS.argmax(1), 0), users=np.arange(80) % 8
)
SEEN = OUTCOMES.seen


@dataclass(frozen=True)
class Foreign(Policy[Any]):
    """Not of this package."""

    def choose(self, state: Any, seen: Seen, key: Key) -> tuple[Any, Move]:
        return state, Move.sure(np.zeros(seen.size), "foreign")


@pytest.mark.parametrize(
    "policy",
    [
        Threshold(float("inf"), "margin"),
        RiskControlled(Threshold(0.5), "approximate", 0.3, worst_user=0.2),
        Budgeted(Calibrated(), 0.3),
        Audited(RiskControlled(Threshold(0.5), "expected", 0.4), 0.1),
        LearnedGain(Neighbours(5), 0.1),
        Selected((Threshold(0.5), LearnedGain()), folds=3),
        Tiers((Tier("edge", 0.01, 0.1), Tier("cloud", 0.1, 0.5)), 0.1),
        LinUCB(),
    ],
    ids=lambda policy: type(policy).__name__,
)
def test_it_decides_as_before_it_was_saved(policy: Any, tmp_path: Path) -> None:
    held = policy.fit(OUTCOMES) if hasattr(policy, "fit") else Held.of(policy)
    again = load(save(Artefact(held, {"items": 80}, {"says": "so"}), tmp_path / "made"))
    assert again.held.part == policy
    assert again.held.save() == held.save()
    assert (again.fitted_on, again.promise) == ({"items": 80}, {"says": "so"})
    mine, other = held.choose(SEEN, (1,)), again.held.choose(SEEN, (1,))
    assert (mine.action == other.action).all()
    assert (mine.propensity == other.propensity).all()


def test_its_words_can_be_read(tmp_path: Path) -> None:
    save(Artefact(Held.of(RiskControlled(Threshold(float("inf"), "margin"), "confident", 0.01))), tmp_path)
    about = json.loads((tmp_path / sealed.ABOUT).read_text())
    assert about["policy"]["class"] == "RiskControlled"
    assert about["policy"]["settings"]["target"] == 0.01
    inner = {"class": "Threshold", "settings": {"at": "inf", "score": "margin"}}
    assert about["policy"]["settings"]["inner"] == inner


@pytest.mark.parametrize("file", [sealed.ABOUT, sealed.WEIGHTS])
def test_one_changed_byte_is_told(file: str, tmp_path: Path) -> None:
    save(Artefact(Held.of(LinUCB()), {"items": 1}), tmp_path)
    data = bytearray((tmp_path / file).read_bytes())
    at = data.index(b'"items": 1') + 9 if file == sealed.ABOUT else len(data) - 1
    data[at] ^= 1
    (tmp_path / file).write_bytes(data)
    with pytest.raises(DataError, match=r"was changed|is not what"):
        load(tmp_path)


def test_only_this_package_is_built(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Foreign"):
        save(Artefact(Held.of(Foreign())), tmp_path)
    strange = {"policy": {"class": "os.system", "settings": {}}, "fitted_on": {}, "promise": {}}
    sealed.write(tmp_path, "duetto policy", 1, strange, Held.of(Threshold(0.5)).save())
    with pytest.raises(DataError, match=r"os\.system"):
        load(tmp_path)


def test_what_is_no_artefact(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        load(tmp_path)
    (tmp_path / sealed.ABOUT).write_text("[1]")
    with pytest.raises(DataError, match="describes no duetto policy"):
        load(tmp_path)
    sealed.write(tmp_path, "duetto policy", 99, {}, b"")
    with pytest.raises(DataError, match="99"):
        load(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        save(Artefact(Held.of(Threshold(0.5))), tmp_path / "file")


def test_a_policy_travels_as_json_and_nothing_else_is_built() -> None:
    held = Held(Calibrated(), {"temperature": np.array(2.0), "threshold": np.array(0.25)})
    about = json.loads(json.dumps(told(held)))
    again = heard(about)
    assert again.part == held.part
    assert again.save() == held.save()
    for bad in (
        None,
        {},
        {**about, "state": "!"},
        {**about, "state": "AAAA"},
        {**about, "policy": {"class": "Popen", "settings": {}}},
        {**about, "policy": 3},
    ):
        with pytest.raises(DataError, match="no policy that this version can read"):
            heard(bad)
