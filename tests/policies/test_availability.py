"""The four modes, as a table."""

import numpy as np
import pytest

from duetto.policies import MODES
from duetto.policies.availability import online
from duetto.types import Action, Seen

STOP, GO, ASK = Action.STOP, Action.GO, Action.ASK
ANSWER = np.array([[0.0, 0.0]])  # no quality at all


@pytest.mark.parametrize(
    ("mode", "before", "before_offline", "answered", "no_model"),
    [
        ("only_on_device", GO, GO, STOP, STOP),
        ("prefer_on_device", GO, GO, STOP, ASK),
        ("prefer_in_cloud", ASK, GO, STOP, ASK),
        ("only_in_cloud", ASK, ASK, ASK, ASK),
    ],
)
def test_a_mode(mode: str, before: Action, before_offline: Action, answered: Action, no_model: Action) -> None:
    offline = {"online": np.array([False])}
    table = [
        (Seen(stage=0, size=1), before),
        (Seen(stage=0, link={}, size=1), before),
        (Seen(stage=0, link={"online": np.array([True])}, size=1), before),
        (Seen(stage=0, link=offline, size=1), before_offline),
        (Seen(stage=1, answer=ANSWER, link=offline, size=1), answered),
        (Seen(stage=1, answer=ANSWER, size=1), answered),
        (Seen(stage=1, size=1), no_model),
    ]
    for seen, action in table:
        assert MODES[mode].choose({}, seen, ())[1].action.tolist() == [action]


def test_each_item_is_judged_by_its_own_link() -> None:
    seen = Seen(stage=0, link={"online": np.array([True, False, True])}, size=3)
    assert MODES["prefer_in_cloud"].choose({}, seen, ())[1].action.tolist() == [ASK, GO, ASK]


def test_who_is_online_is_a_trait_where_there_is_no_link() -> None:
    traits = {"online": np.array([True, False, True])}
    assert online(Seen(traits=traits, size=3)).tolist() == [True, False, True]
    assert online(Seen(traits=traits, link={"online": np.array([False, False, True])}, size=3)).tolist() == [0, 0, 1]
    assert online(Seen(traits={"flops": np.ones(3)}, size=3)).all()


def test_the_table_cannot_be_changed() -> None:
    assert sorted(MODES) == list(MODES)
    with pytest.raises(TypeError):
        MODES["mine"] = MODES["only_in_cloud"]
