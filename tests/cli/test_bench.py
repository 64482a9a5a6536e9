"""`duetto bench`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

QUICK = ("bench", "federated", "--rounds", "2", "--cohort", "3", "--seeds", "0", "--alone-epochs", "1",
         "--central-epochs", "1", "--algorithms", "start,fedavg,fedprox", "--executor", "sequential")  # fmt: skip


def test_a_table_and_json_say_the_same(run: Callable[..., Any]) -> None:
    shown = run(*QUICK).out
    assert "fedprox" in shown
    found = json.loads(run(*QUICK, "--json").out)
    assert [line["name"] for line in found["lines"]] == ["start", "fedavg", "fedprox"]
    assert f"{100 * found['lines'][1]['held']:.1f}" in shown
    assert found["settings"]["rounds"] == 2


def test_the_page_shows_every_algorithm_and_its_curve(run: Callable[..., Any]) -> None:
    page = Path(run(*QUICK).out.rpartition("Report: ")[2].strip())
    result = json.loads((page.parent / "result.json").read_text())
    assert [row["name"] for row in result["rows"]] == ["start", "fedavg", "fedprox"]
    assert [entry["round"] for entry in result["rounds"]] == [1, 2]
    held = json.loads((page.parent / "fedavg-seed-0.json").read_text())["curve"][1][1]
    assert result["rounds"][1]["fedavg_accuracy"] == held
    assert "fedprox" in page.read_text()


def test_unknown_names_are_one_line(run: Callable[..., Any]) -> None:
    for words, said in (
        (("--algorithms", "fedsgd"), "fedsgd"),
        (("--executor", "gpu"), "gpu"),
        (("--partition", "random"), "random"),
        (("--task", "chess"), "chess"),
    ):
        done = run("bench", "federated", "--name", "other", *words)
        assert done.code == 2
        assert said in done.error


def test_help_has_examples(run: Callable[..., Any]) -> None:
    assert "duetto bench federated" in run("bench", "federated", "--help").out
    assert "federated" in run("bench").out


def test_routers_in_a_table_and_json(run: Callable[..., Any]) -> None:
    quick = ("bench", "routing", "--tasks", "digits", "--siblings", "2", "--redraws", "20",
             "--routers", "random,margin,gain-logistic", "--name", "routers")  # fmt: skip
    shown = run(*quick).out
    assert "gain-logistic" in shown
    found = json.loads(run(*quick, "--json").out)
    assert [line["name"] for line in found["lines"]] == ["random", "margin", "gain-logistic"]
    assert f"{100 * found['lines'][1]['area'][0]:.2f}" in shown
    assert found["settings"]["redraws"] == 20
    for words, said in ((("--routers", "luck"), "luck"), (("--tasks", "chess"), "chess")):
        done = run("bench", "routing", "--name", "other", *words)
        assert done.code == 2
        assert said in done.error


def test_personalised_methods_in_a_table_and_json(run: Callable[..., Any]) -> None:
    quick = ("bench", "personal", "--partition", "dirichlet:0.5", "--users", "10", "--rounds", "1", "--cohort", "3",
             "--seeds", "0", "--tune-epochs", "1", "--methods", "fedavg_ft,fedper",
             "--executor", "sequential")  # fmt: skip
    shown = run(*quick).out
    assert "over fine-tuning" in shown
    found = json.loads(run(*quick, "--json").out)
    assert [line["name"] for line in found["lines"]] == ["fedavg_ft", "fedper"]
    assert f"{100 * found['lines'][1]['held']:.1f}" in shown
    assert found["settings"]["tune_epochs"] == 1
    page = Path(shown.rpartition("Report: ")[2].strip())
    assert "fedper" in page.read_text()
    done = run("bench", "personal", "--name", "other", "--methods", "fedsgd")
    assert (done.code, "fedsgd" in done.error) == (2, True)
    assert "--tune-epochs" in (told := run("bench", "personal", "--help").out)
    assert "--points" not in told
