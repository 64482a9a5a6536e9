"""The page of algorithms: every builder is in it, and the committed page is the one that is generated."""

import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from duetto import algorithms
from duetto import tree as trees
from duetto.programs import catalogue, two_rounds

DOCS = Path(__file__).parents[2] / "docs"
LOG = (DOCS / "log.md").read_text(encoding="utf-8")


def test_every_algorithm_is_on_the_page_and_the_committed_one_is_generated() -> None:
    entries = catalogue.catalogue()
    assert sorted(entry.name for entry in entries) == sorted(algorithms.__all__)
    for entry in entries:
        assert all(paper.authors and paper.title and 1990 < paper.year < 2100 for paper in entry.said.papers)
        assert entry.said.up, f"{entry.module}: its docstring has no line 'Up: ... Down: ... Stays: ...'"
        assert entry.said.down
        assert entry.said.stays
    made = catalogue.page(entries, LOG)
    assert re.findall(r"^### (.+)", made, re.M) == [entry.title for entry in entries]
    same = made == (DOCS / "algorithms.md").read_text(encoding="utf-8")
    assert same, "docs/algorithms.md is out of date: python -m duetto.programs.catalogue --write docs/algorithms.md"


def test_groups_name_what_exists_once() -> None:
    named = [name for members in catalogue.GROUPS.values() for name in members]
    assert len(named) == len(set(named))
    assert set(named) <= set(algorithms.__all__)


def test_the_bytes_of_fedavg_are_those_of_its_parameters() -> None:
    """Names, shapes and numbers, as safetensors writes them; an answer has a weight and the loss beside."""
    net = two_rounds.network("fedavg")
    params = {pointer: np.zeros_like(leaf) for pointer, leaf in trees.leaves(net.init(0))}
    assert 4 * net.parameters == sum(leaf.nbytes for leaf in params.values())
    down = {f"/params{pointer}": leaf for pointer, leaf in params.items()}
    up = {f"/delta{pointer}": leaf for pointer, leaf in params.items()}
    up |= {"/weight": np.array(0.0), "/metrics/loss": np.array(0.0)}
    spent = two_rounds.spent("fedavg", net)
    assert spent.down_bytes == len(safetensors.numpy.save(down))
    assert spent.up_bytes == len(safetensors.numpy.save(up))
    assert (spent.kept_bytes, spent.cloud_flops, spent.before_flops, spent.varies) == (0, 0, 0, False)


TEXT = """# Log
## 2026-01-02 · one table
| | accuracy |
|---|---|
| FedAvg + fine-tuning | 1 |
| **FedDF** (5 passes) | 2 |
## 2026-01-01 · gossip, and another
| | accuracy |
|---|---|
| FedAvg, all equal | 3 |
| FedAvgM | 4 |
FedDyn was not run.
"""


def test_the_log_is_searched_for_rows_of_that_very_name() -> None:
    one, other = "2026-01-02 · one table", "2026-01-01 · gossip, and another"
    expected = {"FedAvg": [other], "FedAvg + fine-tuning": [one], "FedDF": [one], "FedAvgM": [other], "FedDyn": []}
    assert {name: catalogue.rows(TEXT, name) for name in expected} == expected
    assert catalogue.rows(TEXT, "gossip") == []
    assert catalogue.rows(TEXT, "gossip", headings=True) == [other]


def test_links_into_the_log_and_into_the_page_lead_somewhere() -> None:
    made = (DOCS / "algorithms.md").read_text(encoding="utf-8")
    for text, found in ((LOG, re.findall(r"\]\(log\.md#([^)]+)\)", made)), (made, re.findall(r"\]\(#([^)]+)\)", made))):
        anchors = {
            "".join(c for c in heading.lower().replace(" ", "-") if c.isalnum() or c in "-_")
            for heading in re.findall(r"^#+ (.+)", text, re.M)
        }
        assert found
        assert set(found) <= anchors


def test_an_algorithm_in_no_group_stands_among_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "GROUPS", {"Classic": ["fedavg"]})
    entries = catalogue.catalogue(("fedper", "fedavg"))
    assert [(entry.name, entry.group) for entry in entries] == [("fedavg", "Classic"), ("fedper", catalogue.OTHERS)]
    made = catalogue.page(entries)
    assert made.index("## Classic") < made.index("### FedAvg") < made.index("## Others") < made.index("### FedPer")
    assert "log.md#" not in made


def test_the_program_prints_or_writes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(catalogue, "catalogue", list)
    (tmp_path / "log.md").write_text(TEXT, encoding="utf-8")
    for more in ([], ["--write", str(tmp_path / "page.md")]):
        monkeypatch.setattr("sys.argv", ["catalogue", "--log", str(tmp_path / "log.md"), *more])
        catalogue.main()
    printed = capsys.readouterr().out
    assert "(log.md#2026-01-01--gossip-and-another)" in printed
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == printed
