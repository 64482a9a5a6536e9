"""The first law: a program gives the same decisions, bytes and models in simulation and on real machines.

The closed loop of ``examples/01_closed_loop.py``, and split learning, run in the simulator, every use of a skill by
itself, and then as one ``duetto cloud`` and several ``duetto device`` over gRPC, with no line changed. What a clock
measures is not compared.
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
from duetto.transport.kept import packed

LOOP = {"days": "2", "rounds": "4", "cohort": "2"}
SPLIT = {"kind": "splitfed1", "rounds": "2", "cut": "3", "momentum": "0.9", "batched": "false"}
U_SHAPED = {"kind": "splitfed2", "rounds": "1", "cut": "1", "last": "7", "wire": "int8"}


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


@pytest.mark.parametrize(
    ("name", "settings", "users"),
    [
        ("closed-loop", LOOP, 2),
        pytest.param("closed-loop", LOOP, 8, marks=pytest.mark.slow),
        ("split-learning", SPLIT, 2),
        pytest.param("split-learning", U_SHAPED, 3, marks=pytest.mark.slow),
    ],
)
def test_a_program_gives_the_same_on_real_processes(
    name: str, settings: dict[str, str], users: int, tmp_path: Path, port: int, start: Callable[..., Any]
) -> None:
    given = deployed(name, "digits", settings, users)
    simulated = du.simulate(
        device=given.device,
        cloud=given.cloud,
        fleet=du.fleet("phones", given.users, data=given.task.rows, memory=given.first),
        network="constant-10",
        alone=True,
    )
    program = ["--program", name, "--task", "digits", "--users", str(users), "--rehearse", "--insecure"]
    program += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]

    def kept(party: str) -> list[str]:
        return ["--records", str(tmp_path / f"{party}.jsonl"), "--memory", str(tmp_path / f"{party}.safetensors")]

    running = [start("cloud", "cloud", *program, "--listen", f"127.0.0.1:{port}", *kept("cloud"))]
    for user in given.users:
        asked = ["--cloud", f"127.0.0.1:{port}", "--name", user]
        running.append(start(user, "device", *program, *asked, *kept(user)))
    codes = [each.ended(280) for each in running]
    assert codes == [0] * (users + 1), "\n".join(each.said[-1500:] for each in running)

    there = [json.loads(log.line(record)) for record in simulated.records]
    files = [tmp_path / f"{party}.jsonl" for party in ("cloud", *given.users)]
    here = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert comparable(here) == comparable(there)
    for party in ("cloud", *given.users):
        found = dict(trees.leaves(trees.decode((tmp_path / f"{party}.safetensors").read_bytes())["memory"]))
        wanted = dict(trees.leaves(trees.decode(packed(simulated.memory[party], {}))["memory"]))
        assert found.keys() == wanted.keys()
        assert [pointer for pointer in wanted if not np.array_equal(found[pointer], wanted[pointer])] == []
