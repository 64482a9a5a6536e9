"""A program's parties by name: settings that come as texts."""

import pytest

from duetto.errors import ConfigError
from duetto.programs import deployed as programs
from duetto.programs.deployed import deployed
from duetto.programs.split_learning import Settings
from duetto.tasks import Task
from duetto.types import Party


def test_settings_are_read_as_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Settings] = []

    def make(task: Task, given: Settings) -> tuple[Party, Party, dict[str, object]]:
        heard.append(given)
        return Party(), Party(), {}

    monkeypatch.setitem(programs.PROGRAMS, "listening", (Settings, make))  # type: ignore[arg-type]
    found = programs.deployed("listening", "digits", {"batched": "False", "kind": "splitfed3", "lr": "0.5"}, users=2)
    assert heard == [Settings(batched=False, kind="splitfed3", lr=0.5)]
    assert len(found.users) == 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batched": "perhaps"}, "batched = 'perhaps': give it as True, a bool"),
        ({"rounds": "many"}, "rounds = 'many': give it as 10, a int"),
        ({"knid": "vanilla"}, "the program has no setting 'knid'"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line(settings: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        deployed("split-learning", "digits", settings)


def test_no_such_program() -> None:
    with pytest.raises(ConfigError, match="no program is called 'fly': use one of closed-loop"):
        deployed("fly", "digits", {})
