"""What devices remember comes back as it was, in memory or from disk, and only so much of it is in memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.simulation.engine import simulate
from duetto.simulation.fleet import fleet
from duetto.simulation.store import Left, Store
from duetto.tree import Tree
from duetto.types import Group, Key, Local, Party, Record, Skill

NOBODY = Left({}, None)


def memory(n: int, size: int = 1000) -> dict[str, Any]:
    return {"control": {"w": np.full(size, n, np.float32)}, "version": np.int64(n)}


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=40), st.sampled_from([0, 5000, 10**9]))
def test_it_is_a_mapping_whatever_fits_in_memory(moves: list[tuple[int, bool]], limit: int) -> None:
    store, model = Store(limit), dict[str, Left]()
    for step, (user, put) in enumerate(moves):
        name = f"u{user}"
        if put and name not in model:
            store[name] = model[name] = Left(memory(step), float(step) if step % 2 else None)
        else:
            found, expected = store.pop(name, NOBODY), model.pop(name, NOBODY)
            assert found.radio == expected.radio
            assert trees.encode(found.memory) == trees.encode(expected.memory)
        everybody = dict(store.items())
        assert {name: (left.radio, trees.encode(left.memory)) for name, left in everybody.items()} == {
            name: (left.radio, trees.encode(left.memory)) for name, left in model.items()
        }


def test_what_is_left_longest_goes_to_disk_first() -> None:
    store = Store(2 * 4000)
    kept = [memory(i) for i in range(3)]
    for i, each in enumerate(kept):
        store[f"u{i}"] = Left(each, None)
    assert [store.pop(f"u{i}", NOBODY).memory is each for i, each in enumerate(kept)] == [False, True, True]


def test_what_all_share_counts_once() -> None:
    store, shared = Store(4000), memory(1)
    for i in range(50):
        store[f"u{i}"] = Left(shared, None)
    assert all(store.pop(f"u{i}", NOBODY).memory is shared for i in range(50))


def test_a_negative_bound_is_refused() -> None:
    with pytest.raises(ConfigError, match="0 or more"):
        Store(-1)


class Keep(Skill):
    """Adds what is sent to what is remembered."""

    @property
    def writes(self) -> bool:
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        return local.remembering(x=local.memory.get("x", np.zeros(100)) + tree["x"]), {}


def test_a_run_is_the_same_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    async def cloud(fleet: Group) -> Any:
        for step in range(3):
            await fleet.ask(fleet.names, Keep(), lambda peer: {"x": np.arange(100.0)}, key=(step,))
            yield Record("asked", step)

    logs = [
        simulate(fleet=fleet("phones", 7), device=Party(skills=(Keep,)), cloud=cloud, memory_bytes=limit)
        for limit in (0, 1 << 30)
    ]
    assert logs[0].records == logs[1].records
    for name in ("user-0", "user-6"):
        np.testing.assert_array_equal(logs[0].memory[name]["x"], 3 * np.arange(100.0))
        np.testing.assert_array_equal(logs[1].memory[name]["x"], 3 * np.arange(100.0))
