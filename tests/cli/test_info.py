"""`duetto info`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from duetto.cli import info
from duetto.simulation import energy, link


def test_here(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DUETTO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "models").mkdir(parents=True)
    (tmp_path / "cache" / "models" / "a.safetensors").write_bytes(b"12345")
    found = json.loads(run("info", "--json").out)
    assert found["cache"] == {"folder": str(tmp_path / "cache"), "bytes": 5, "models": 1}
    assert {"duetto", "python", "torch", "numpy"} <= set(found["versions"])
    assert found["machine"]["threads"] == "1"
    assert found["data"]["handwriting"] is None
    shown = run("info").out
    for words in ("versions", "extras", "machine", "data", "cache", "not here", "installed"):
        assert words in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_extras_name_what_they_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [
        "numpy>=1",
        'numpy>=1; extra == "some"',
        'no.such-thing<2,>=1; extra == "some"',
        "duetto[some]; extra == 'all'",
    ]
    monkeypatch.setattr(info.metadata, "requires", lambda name: wanted)
    assert info.extras() == {"some": ["no.such-thing"]}
    monkeypatch.setattr(info.metadata, "requires", lambda name: None)
    assert info.extras() == {}


def test_devices_and_networks(run: Callable[..., Any]) -> None:
    found = json.loads(run("info", "--devices", "--networks", "--json").out)
    assert set(found["devices"]) == set(energy.profiles())
    assert set(found["networks"]) == set(link.NAMES)
    assert found["networks"]["wifi"]["rtt_seconds"] == 0.025
    assert "DUETTO_DATA" in found["networks"]["5g"]["missing"]
    shown = run("info", "--devices", "--networks").out
    assert "with the traces that DUETTO_DATA would name: 3g-commute, 4g-commute" in shown
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_networks_with_the_traces(run: Callable[..., Any], data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUETTO_DATA", str(data_dir))
    found = json.loads(run("info", "--networks", "--json").out)["networks"]
    assert all(of["links"] for of in found.values())
    assert "would name" not in run("info", "--networks").out


def test_a_pair(run: Callable[..., Any]) -> None:
    pair = json.loads(run("info", "--task", "digits", "--json").out)["pair"]
    small, large = pair["small"], pair["large"]
    assert small["parameters"] < 30_000
    assert large["parameters"] > 1_000_000
    assert small["parameters"] < small["stored_bytes"] < 40_000, "one byte a parameter, and their scales and names"
    for device, profile in energy.profiles().items():
        at_least = profile.overhead_seconds + small["flops"] / profile.flops
        assert small["seconds"][device] >= at_least
        assert large["seconds"][device] > small["seconds"][device]
    shown = run("info", "--task", "digits").out
    assert "kB at eight bits" in shown
    assert "not trained yet" in shown
    assert "no task is called 'x'" in run("info", "--task", "x").error


def test_how_a_model_is_trained_for_many(run: Callable[..., Any]) -> None:
    found = json.loads(run("info", "--model", "digits.small", "--json").out)["model"]
    assert found["parameters"] > 0
    assert "all clients at once, kept as factors" in found["layers"].values()
    shown = run("info", "--model", "digits.small").out
    assert "kept as factors" in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("name", ["digits", "digits.middle", "no.such:NET", "json:loads", "duetto.models:Mlp"])
def test_what_is_no_model_is_refused(run: Callable[..., Any], name: str) -> None:
    assert run("info", "--model", name).code == 2
