"""Whatever happens between a device and its cloud: nothing acknowledged is lost or doubled, every answer comes.

Fifty schedules, three of them in ``make test``; ``make test-nightly`` runs a thousand.
"""

import asyncio
from pathlib import Path

import pytest
from schedules import FAULTS, drawn
from world import Template, Violated, World, clock, mounts

QUICK = (2, 6, 24)
SCHEDULES = [pytest.param(seed, marks=() if seed in QUICK else pytest.mark.slow) for seed in range(50)]


@pytest.mark.parametrize("seed", SCHEDULES)
def test_what_must_hold_does(seed: int, template: Template, tmp_path: Path) -> None:
    try:
        seen = asyncio.run(World(drawn(seed), template, tmp_path).run())
    except Violated as fault:
        again = f"python tests/faults/nightly.py --seed {seed} --schedules 1"
        pytest.fail(f"seed {seed}: {fault}\n{drawn(seed)}\nagain: {again}")
    assert seen.answers > 0


def test_a_seed_draws_the_same_schedule_again() -> None:
    assert drawn(7) == drawn(7)
    assert drawn(7) != drawn(8)


def test_the_schedules_of_ci_hold_every_fault() -> None:
    assert {action.kind for seed in range(50) for action in drawn(seed).actions} == set(FAULTS)


def test_this_machine_can_do_all_faults(template: Template) -> None:
    missing = []
    if clock(template.folder) is None:
        missing.append("clock jumps (Linux, cc)")
    if not mounts():
        missing.append("file systems that are full (mount); files are limited instead")
    if missing:
        pytest.skip(f"NOT TESTED HERE: {', '.join(missing)}")
