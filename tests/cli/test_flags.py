"""Flags from a dataclass."""

import inspect
from dataclasses import dataclass, field
from typing import Any

import pytest
import typer

from duetto.cli import flags


@dataclass(frozen=True)
class Settings:
    """What it is run with.

    Attributes:
        some_rounds: of learning; there
            may be many: a lot.
        rate, factor: both are shares.
        seed: is left out.

    Raises:
        Nothing: ever.
    """

    some_rounds: int = 3
    rate: float = 0.5
    factor: float = 1.0
    loud: bool = False
    seed: int = 0


def test_help_is_what_the_docstring_says() -> None:
    said = {"some_rounds": "Of learning; there may be many: a lot.", "seed": "Is left out."}
    assert flags.helps(Settings) == {**said, "rate": "Both are shares.", "factor": "Both are shares."}


def test_every_field_is_a_flag_of_its_type(capsys: pytest.CaptureFixture[str]) -> None:
    got: dict[str, Any] = {}

    def run(task: str = "x", **chosen: Any) -> None:
        """Do it."""
        got.update(chosen, task=task)

    app = typer.Typer(add_completion=False)
    app.command()(flags.taking(run, flags.of(Settings, but=("seed",))))
    command = typer.main.get_command(app)
    command.main([], standalone_mode=False)
    assert got == {"task": "x", "some_rounds": 3, "rate": 0.5, "factor": 1.0, "loud": False}
    command.main(["--some-rounds", "7", "--rate", "2", "--loud", "--task", "y"], standalone_mode=False)
    assert got == {"task": "y", "some_rounds": 7, "rate": 2.0, "factor": 1.0, "loud": True}
    command.main(["--help"], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "Do it." in shown
    assert "--some-rounds" in shown
    assert "Both are shares." in shown
    assert "--seed" not in shown


def test_a_field_without_a_plain_default_is_a_mistake() -> None:
    @dataclass
    class Wrong:
        names: list[str] = field(default_factory=list)

    with pytest.raises(TypeError, match=r"Wrong\.names"):
        flags.of(Wrong)


def test_the_closed_loop_s_settings_are_all_explained() -> None:
    from duetto.programs.closed_loop import Settings as Real

    named = {parameter.name for parameter in flags.of(Real)}
    assert named == set(inspect.signature(Real).parameters)
    assert named <= set(flags.helps(Real))
