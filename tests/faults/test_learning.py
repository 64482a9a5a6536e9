"""Killed while it learns, a program comes to the same model and the same records, bit for bit."""

import asyncio
from pathlib import Path

import pytest
from learning import SETTINGS, USERS, Rehearsed, disturbed
from world import Violated

from duetto.programs.deployed import deployed


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Rehearsed:
    """A run that nobody disturbs."""
    names = deployed("closed-loop", "digits", SETTINGS, USERS).users
    made = Rehearsed(tmp_path_factory.mktemp("calm"), names)
    asyncio.run(made.run())
    return made


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_killed_while_it_learns_it_comes_to_the_same_end(seed: int, calm: Rehearsed, tmp_path: Path) -> None:
    try:
        killed = asyncio.run(disturbed(seed, calm, tmp_path))
    except Violated as fault:
        again = f"python tests/faults/nightly.py --schedules 0 --learning 1 --seed {seed}"
        pytest.fail(f"seed {seed}: {fault}\nagain: {again}")
    assert killed
