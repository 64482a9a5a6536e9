"""A party's memory in a file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.errors import ConfigError, DataError
from duetto.transport.kept import Kept


def test_what_is_kept_comes_back_and_what_is_no_tree_does_not(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "deep" / "memory")
    assert kept.load() is None
    memory: dict[str, Any] = {
        "params": {"w": np.ones((2, 3), np.float32), "none": {}},
        "version": np.int64(3),
        "steps": 7,
        "rate": 0.5,
        "model": object(),
        "words": "text",
        "rows": [1, 2],
        "store": {"open": object()},
    }
    answered = {"ann": {"0a": {"answer": np.zeros(3, np.uint8), "version": np.int64(0), "number": np.int64(1)}}}
    kept.save(memory, answered)
    found = kept.load()
    assert found is not None
    assert found[0].keys() == {"params", "version", "steps", "rate"}
    assert (int(found[0]["version"]), int(found[0]["steps"]), float(found[0]["rate"])) == (3, 7, 0.5)
    np.testing.assert_array_equal(found[0]["params"]["w"], memory["params"]["w"])
    assert found[0]["params"]["none"] == {}
    assert trees.encode(found[1]) == trees.encode(answered)
    kept.save({}, {})
    assert kept.load() == ({}, {})


STRANGE: list[Any] = [{"memory": {}}, np.ones(2), {"memory": np.ones(1), "answered": {}}]
STRANGE += [{"memory": {}, "answered": np.ones(1)}]


@pytest.mark.parametrize("data", [b"", b"no tree", trees.encode({})[:-1], *map(trees.encode, STRANGE)])
def test_a_damaged_file_is_told(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "memory").write_bytes(data)
    with pytest.raises(DataError, match="move it away"):
        Kept(tmp_path / "memory").load()


def test_a_place_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot be written"):
        Kept(tmp_path / "file" / "memory").save({}, {})
    with pytest.raises(ConfigError, match="cannot be read"):
        Kept(tmp_path).load()


def test_a_memory_beyond_the_limit_of_messages_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(tmp_path / "memory")
    kept.save({"a": np.ones(1000)}, {})
    monkeypatch.setattr(trees.decode, "__defaults__", (100,))
    found = kept.load()
    assert found is not None
    assert found[0]["a"].sum() == 1000
