"""The command itself: help, global flags, completion, and how errors end."""

import json
from collections.abc import Callable
from importlib.metadata import version

import click
import pytest
import typer

from duetto.cli import _front, app, console, running
from duetto.errors import DataError

HEAVY = ("torch", "sklearn", "scipy")
MAIN = "import sys; from duetto.cli import main; sys.exit(main())"


def commands() -> list[list[str]]:
    """Every command, as its words."""

    def walk(command: click.Command, words: list[str]) -> list[list[str]]:
        found = [words]
        if isinstance(command, click.Group):
            ctx = click.Context(command)
            for name in command.list_commands(ctx):
                child = command.get_command(ctx, name)
                assert child is not None
                found += walk(child, [*words, name])
        return found

    return walk(typer.main.get_command(app), [])


def test_importing_it_is_light(python: Callable[..., object]) -> None:
    done = python(f"import sys, duetto.cli; print([name for name in {HEAVY!r} if name in sys.modules])")
    assert done.out == "[]\n", done.err


def test_info_needs_no_torch(python: Callable[..., object]) -> None:
    hidden = f"import sys; sys.modules.update(dict.fromkeys({HEAVY!r})); {MAIN.removeprefix('import sys; ')}"
    assert json.loads(python(hidden, "info", "--json").out)["versions"]["duetto"] == version("duetto")
    assert python(hidden, "data", "list").code == 0
    done = python(hidden, "demo")
    assert done.code == 2
    assert "pip install 'duetto[train]'" in done.error


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_has_help_and_examples(run: Callable[..., object], words: list[str]) -> None:
    done = run(*words, "--help")
    assert (done.code, done.err) == (0, "")
    assert "Usage: duetto" in done.out
    if not words or words[0] != "data" or words == ["data"]:
        assert "Examples" in done.out
        assert "# " in done.out
    assert max(map(len, done.out.splitlines())) <= 80


@pytest.mark.parametrize("words", [[], ["simulate"], ["data"]], ids=" ".join)
def test_a_command_of_commands_shows_its_help(run: Callable[..., object], words: list[str]) -> None:
    done = run(*words)
    assert done.code == 0
    assert "Commands" in done.out


def test_version(run: Callable[..., object]) -> None:
    assert run("--version").out == f"duetto {version('duetto')}\n"


def test_global_flags_may_stand_anywhere() -> None:
    given = ["info", "--threads", "2", "--json", "--debug", "--threads=3", "--", "--debug"]
    assert _front(given) == ["--threads", "2", "--debug", "--threads=3", "info", "--json", "--", "--debug"]
    assert _front(["info", "--threads"]) == ["--threads", "info"]


@pytest.mark.parametrize(
    ("given", "words", "threads"), [(None, (), "1"), ("", (), "1"), ("2", (), "2"), (None, ("--threads", "3"), "3")]
)
def test_threads_are_set_before_torch(
    python: Callable[..., object], given: str | None, words: tuple[str, ...], threads: str
) -> None:
    code = (
        "from duetto.cli import main, report\n"
        "import sys, os\n"
        "seen = lambda: 'torch' in sys.modules\n"
        "before = seen(); main(['info', '--json', *sys.argv[1:]])\n"
        "print(before, seen(), os.environ['OMP_NUM_THREADS'], file=sys.stderr)"
    )
    done = python(code, *words, OMP_NUM_THREADS=given)
    assert json.loads(done.out)["machine"]["threads"] == threads
    assert done.err == f"False False {threads}\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["demmo"],
            "no command is called 'demmo': choose one of demo, simulate, bench, adopt, route, plan, leak, elastic, "
            "compress, profile, cloud, device, crowd, flower, report, data, info",
        ),
        (["data", "fetch"], "no command is called 'fetch': choose one of list, get, show, check"),
        (["simulate", "open-loop"], "no program is called 'open-loop': choose one of closed-loop"),
        (["info", "--devises"], "--devises"),
        (["data", "get"], "Missing argument 'NAME': see duetto data get --help"),
        (["--threads", "0", "info"], "0 is not in the range"),
    ],
)
def test_a_wrong_call_is_one_line(run: Callable[..., object], words: list[str], expected: str) -> None:
    done = run(*words)
    assert done.code == 2
    assert done.out == ""
    assert len(done.err.splitlines()) == 1
    assert expected in done.error


def test_a_bug_is_one_line_and_a_trace_on_demand(run: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise KeyError("lost\nand found")

    monkeypatch.setattr(running, "data_root", broken)
    done = run("data", "list")
    assert done.code == 1
    assert done.error == r"error: KeyError: 'lost\nand found': this is a bug; run again with --debug"
    shown = run("data", "list", "--debug")
    assert shown.code == 1
    assert "Traceback" in shown.err
    assert "in broken" in shown.err


def test_a_fault_of_the_user_has_a_trace_on_demand_too(
    run: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise DataError("two\nlines", "mend [bold]both[/]")

    monkeypatch.setattr(running, "data_root", broken)
    assert run("data", "list").error == "error: two lines: mend [bold]both[/]"
    assert "Traceback" in run("--debug", "data", "list").err


def test_ctrl_c_ends_with_130(run: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "data_root", stopped)
    assert run("data", "list").code == 130


def test_a_file_that_cannot_be_written_is_the_users_fault() -> None:
    assert console.failed(PermissionError(13, "Permission denied", "/etc/passwd"), debug=False) == 2
    assert console.failed(ModuleNotFoundError("no", name="elsewhere"), debug=False) == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed(python: Callable[..., object], shell: str) -> None:
    done = python(MAIN, _DUETTO_COMPLETE=f"source_{shell}")
    assert done.code == 0
    assert "_DUETTO_COMPLETE=complete_" in done.out


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("duetto ", "demo"),
        ("duetto simulate ", "closed-loop"),
        ("duetto simulate closed-loop --task ", "handwriting"),
        ("duetto simulate closed-loop --network ", "4g-commute"),
        ("duetto data get ", "activity"),
    ],
)
def test_words_are_completed(python: Callable[..., object], typed: str, offered: str) -> None:
    count = str(len(typed.split()))
    done = python(MAIN, _DUETTO_COMPLETE="complete_bash", COMP_WORDS=typed, COMP_CWORD=count)
    assert offered in done.out.split()


def test_the_tasks_that_are_offered_are_those_that_there_are(run: Callable[..., object]) -> None:
    assert run("data", "show", "nope").error.endswith(f"choose one of {', '.join(running.TASKS)}")
