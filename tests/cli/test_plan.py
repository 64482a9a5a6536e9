"""`duetto plan` and `duetto profile`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

NET = """
from torch import nn
from duetto.models import Conv
net = Conv((1, 12, 12), 4, (4, 8))
module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
def make():
    return module
broken = 7
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that can be imported."""
    (tmp_path / "some_nets.py").write_text(NET)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return "some_nets"


def test_a_plan(run: Callable[..., Any], nets: str, tmp_path: Path) -> None:
    shown = run("plan", f"{nets}:net", "--device", "low-end-phone", "--svg", "plan.svg").out
    for words in ("device", "cloud, raw", "cloud, compressed", "int8+zstd", "best over bandwidth", "split"):
        assert words in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert (tmp_path / "plan.svg").read_text().startswith("<svg")
    found = json.loads(run("plan", f"{nets}:net", "--up", "3", "--rtt", "60", "--queue", "5", "--json").out)
    assert found["link"]["up_mbps"] == 3
    assert found["link"]["rtt_seconds"] == 0.06
    assert found["link"]["queue_seconds"] == 0.005
    ways = {way["way"]: way for way in found["ways"]}
    assert {"device", "cloud, input as it is", "cloud, input compressed"} <= set(ways)
    best = min(found["ways"], key=lambda way: way["seconds"])["seconds"]
    assert ways[found["verdict"]["take"]]["seconds"] == pytest.approx(best, rel=0.3)
    assert found["features_of"].startswith("noise")


def test_plans_are_kept_and_compared(run: Callable[..., Any], nets: str, tmp_path: Path) -> None:
    for name, network in (("phone-wifi", "wifi"), ("phone-4g", "constant-5")):
        done = run("plan", f"{nets}:net", "--device", "low-end-phone", "--network", network, "--save", name)
        assert done.code == 0, done.err
        assert f"Report: runs/{name}/report.html" in done.out
    page = (tmp_path / "runs" / "phone-4g" / "report.html").read_text(encoding="utf-8")
    assert "Where to cut" in page
    assert "Features are those of noise" in page
    found = json.loads(run("plan", f"{nets}:net", "--save", "phone-4g", "--objective", "energy", "--json").out)
    assert found["report"] == "runs/phone-4g/report.html"
    done = run("report", "phone-wifi", "phone-4g")
    assert done.code == 0, done.err
    assert "mean: ms; MB, J per 1,000 answers" in done.out
    assert "accuracy" not in done.out, "nobody was asked anything"
    both = (tmp_path / "runs" / "phone-wifi-and-phone-4g.html").read_text(encoding="utf-8")
    assert both.count('<div class="map">') == 2
    assert "settings.network" in both


def test_a_floor_an_objective_and_codecs(run: Callable[..., Any], nets: str) -> None:
    asked = ("--floor", "3", "--objective", "energy", "--codec", "int4+zstd", "--every", "1", "--json")
    found = json.loads(run("plan", f"{nets}:net", *asked).out)
    assert found["objective"] == "energy"
    assert {way["codec"] for way in found["ways"]} == {"", "int4+zstd"}
    assert all(way["cut"] >= 3 for way in found["ways"])


def test_modules_and_inputs(run: Callable[..., Any], nets: str, tmp_path: Path) -> None:
    found = json.loads(run("plan", f"{nets}:make", "--shape", "6", "--json").out)
    assert found["stages"] == 3
    np.save(tmp_path / "rows.npy", np.ones((3, 6), np.float32))
    found = json.loads(run("plan", f"{nets}:module", "--inputs", "rows.npy", "--json").out)
    assert found["features_of"] == "real inputs"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nothing",), "no model is called 'nothing'"),
        (("{}:nobody",), "cannot be imported"),
        (("{}:broken",), "is a int"),
        (("{}:module",), "a module without inputs"),
        (("{}:module", "--shape", "six"), "a shape of 'six'"),
        (("{}:module", "--inputs", "some_nets.py"), "cannot be read"),
        (("{}:net", "--device", "pager"), "no device is called 'pager'"),
        (("{}:net", "--device", "none.json"), "none.json is no profile"),
        (("{}:net", "--up", "0"), "a link of 0 Mbit/s"),
        (("{}:net", "--codec", "mp3"), "no codec is called 'mp3'"),
        (("{}:net", "--network", "pigeons"), "no network is called 'pigeons'"),
        (("{}:net", "--open"), "a page to be opened, and none kept"),
        (("{}:net", "--save", "a/b"), "a run called 'a/b'"),
    ],
)
def test_bad_words(run: Callable[..., Any], nets: str, words: tuple[str, ...], said: str) -> None:
    done = run("plan", *(word.format(nets) for word in words))
    assert done.code == 2
    assert said in done.error


@pytest.mark.slow
def test_a_profile_is_what_a_plan_can_take(run: Callable[..., Any], nets: str) -> None:
    found = json.loads(run("profile", "--repeats", "1", "--check", f"{nets}:net", "--json").out)
    assert found["check"]["measured_seconds"] > 0
    assert {"other", "convolution", "dense"} <= set(found["seconds"])
    plan = json.loads(run("plan", f"{nets}:net", "--device", "profile.json", "--like", "raspberry-pi-4", "--json").out)
    device = next(way for way in plan["ways"] if way["way"] == "device")
    assert device["seconds"] >= found["check"]["predicted_seconds"]
