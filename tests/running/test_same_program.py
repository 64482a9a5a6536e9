"""The first law: a program gives the same decisions, bytes and models in simulation and on real machines.

The closed loop of ``examples/01_closed_loop.py`` runs in the simulator, every use of a skill by itself, and then as one
``duetto cloud`` and several ``duetto device`` over gRPC, with no line changed. What a clock measures is not compared.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import duetto as du
from duetto import tree as trees
from duetto.evaluation import records as log
from duetto.programs.deployed import deployed

SETTINGS = {"days": "2", "rounds": "4", "cohort": "2"}


def comparable(records: list[Mapping[str, Any]]) -> list[Any]:
    """Records without what a clock says."""
    return sorted(
        json.dumps(
            [
                record["protocol"],
                record["party"],
                record["step"],
                {name: value for name, value in record["metrics"].items() if name != "compute_seconds"},
                record["cost"]["up_bytes"],
                record["cost"]["down_bytes"],
            ],
            sort_keys=True,
        )
        for record in records
    )


@pytest.mark.parametrize("users", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_a_program_gives_the_same_on_real_processes(
    users: int, tmp_path: Path, port: int, start: Callable[..., Any]
) -> None:
    given = deployed("closed-loop", "digits", SETTINGS, users)
    simulated = du.simulate(
        device=given.device,
        cloud=given.cloud,
        fleet=du.fleet("phones", given.users, data=given.task.rows, memory=given.first),
        network="constant-10",
        alone=True,
    )
    program = ["--program", "closed-loop", "--task", "digits", "--users", str(users), "--rehearse", "--insecure"]
    program += [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]

    def kept(name: str) -> list[str]:
        return ["--records", str(tmp_path / f"{name}.jsonl"), "--memory", str(tmp_path / f"{name}.safetensors")]

    running = [start("cloud", "cloud", *program, "--listen", f"127.0.0.1:{port}", *kept("cloud"))]
    for name in given.users:
        asked = ["--cloud", f"127.0.0.1:{port}", "--name", name]
        running.append(start(name, "device", *program, *asked, *kept(name)))
    codes = [each.ended(280) for each in running]
    assert codes == [0] * (users + 1), "\n".join(each.said[-1500:] for each in running)

    there = [json.loads(log.line(record)) for record in simulated.records]
    files = [tmp_path / f"{name}.jsonl" for name in ("cloud", *given.users)]
    here = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert comparable(here) == comparable(there)
    for name in ("cloud", *given.users):
        found = dict(trees.leaves(trees.decode((tmp_path / f"{name}.safetensors").read_bytes())["memory"]))
        wanted = dict(trees.leaves(dict(simulated.memory[name])))
        assert found.keys() == wanted.keys()
        assert [pointer for pointer in wanted if not np.array_equal(found[pointer], wanted[pointer])] == []
