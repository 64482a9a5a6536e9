"""A model of windows: picked from a file, or recorded; answered, asked about, corrected and told like a drawing."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import Cloud, enrol, free, ready, text, until
from test_outbox import told
from test_page import audit

import duetto as du
from duetto import tree as trees
from duetto.cloud.onnx import Whole
from duetto.cloud.releases import SHOWS, shows
from duetto.errors import ConfigError
from duetto.models import Signal, export
from duetto.protocols.deliver import FEEDBACK, RECORD
from duetto.tasks import arff
from duetto.tasks.by_user import by_name, standardise
from duetto.tasks.official import locate
from duetto.tasks.pair import train
from duetto.tasks.task import Task
from duetto.training import SGD, Adam, Client, CrossEntropy, Distil

Opens = Callable[..., Any]
CLASSES = ("still", "walking", "shaking")
CHANNELS = "x_acc,y_acc,z_acc"
SAMPLES, RATE = 32, 50.0


def made(kind: int, draw: np.random.Generator) -> np.ndarray:
    """A window [3, 32] of a made-up activity, in m/s^2."""
    time = np.arange(SAMPLES) / RATE
    signal = 0.1 * draw.standard_normal((3, SAMPLES)) + np.array([[0.0], [0.0], [9.8]])
    if kind == 1:
        signal += 3 * np.sin(2 * np.pi * (2 * time + draw.random()))
    if kind == 2:
        signal += 8 * draw.standard_normal((3, SAMPLES))
    return signal


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pair that was trained on made-up windows, and how they are standardised."""
    home, draw = tmp_path_factory.mktemp("windows"), np.random.default_rng(0)
    y = draw.integers(0, 3, 400)
    x = np.stack([made(kind, draw) for kind in y]).astype(np.float32)
    mean, scale = standardise(x)
    data = by_name((x - mean) / scale, y, [f"user-{i % 8}" for i in range(len(y))], CLASSES)
    small, large = Signal((3, SAMPLES), 3, (8, 8)), Signal((3, SAMPLES), 3, (16, 16))
    groups = ("train", "calibration", "device", "unseen")
    task = Task(
        name="made-up",
        seed=0,
        data=data,
        users={group: (f"user-{2 * i}", f"user-{2 * i + 1}") for i, group in enumerate(groups)},
        small=small,
        large=large,
        teach_large=Client(large, (CrossEntropy(),), Adam(1e-2), 20, 16),
        teach_small=Client(small, (CrossEntropy(0.3), Distil(0.7, 2.0)), Adam(1e-2), 20, 16),
        learn=Client(small, (Distil(1.0, 1.0),), SGD(0.01, 0.9), 1, 16, lessons="lessons"),
        tune=Client(small, (Distil(1.0, 1.0),), SGD(0.01, 0.9), 1, 16, lessons="lessons"),
    )
    params = train(task)
    export.onnx(small, params["small"], home / "small.onnx")
    export.onnx(large, params["large"], home / "large.onnx")
    np.save(home / "standard.npy", [mean.ravel(), scale.ravel()])
    return home


@pytest.fixture
def cloud(pair: Path, tmp_path: Path) -> Iterator[Cloud]:
    """A cloud that serves the made-up pair."""
    for name in ("small.onnx", "large.onnx", "standard.npy"):
        (tmp_path / name).symlink_to(pair / name)
    shown = ["--labels", ",".join(CLASSES), "--input", "window", "--channels", CHANNELS, "--rate", str(RATE)]
    yield from served(tmp_path, *shown, "--standard", str(tmp_path / "standard.npy"))


def served(home: Path, *shown: str) -> Iterator[Cloud]:
    """A cloud with that release, which runs."""
    here = Cloud(home, (free(), free()))
    state = ["--state", str(home / "cloud")]
    here.run("cloud", "publish", str(home / "small.onnx"), "--version", "1", *shown, *state)
    here.start()
    yield here
    here.kill()


def pick(page: Any, name: str, content: str) -> None:
    """Choose a file."""
    page.get_by_label("A file").set_input_files({"name": name, "mimeType": "text/csv", "buffer": content.encode()})


def csv(windows: np.ndarray) -> str:
    return "\n".join(",".join(f"{value:.6g}" for value in window.ravel()) for window in windows)


@pytest.mark.slow
def test_windows_of_a_file_are_answered_and_corrected(cloud: Cloud, opened: Opens, axe: str) -> None:
    page = opened(cloud)
    enrol(page, cloud)
    assert page.get_by_role("heading", name="Pick a window").is_visible()
    assert page.locator("#drawing").is_hidden()
    assert text(page, "window-takes").startswith("A window has 96 numbers: 3 signals (x_acc, y_acc, z_acc) of 32")
    draw = np.random.default_rng(7)
    rows = np.stack([made(kind, draw) for kind in (0, 1, 2)])
    mean, scale = np.load(cloud.home / "standard.npy")
    x = ((rows - mean[:, None]) / scale[:, None]).astype(np.float32)
    names = [CLASSES[k] for k in Whole(cloud.home / "small.onnx")({"x": x})["logits"].argmax(1)]
    assert names == list(CLASSES)  # else there is nothing to see here

    # a heading, and one window a row
    heading = ",".join(f"v{i}" for i in range(96))
    pick(page, "mine.csv", f"{heading}\n{csv(rows)}\n")
    until(page, "small-label", names[0])
    until(page, "which", "Window 1 of 3")
    for name in names[1:]:
        page.get_by_role("button", name="Next").click()
        until(page, "small-label", f"^{name}$")
    label = page.locator("#signal").get_attribute("aria-label")
    assert label.startswith("Window 3, 32 samples: x_acc from ")
    assert f"{rows[2, 2].max():.3g}" in label
    assert page.locator("#signal polyline").count() == 3
    audit(page, axe)

    # the same in JSON; a call costs nothing: the policy of a release that tells none asks below 0.9
    pick(page, "mine.json", json.dumps(rows[:1].tolist()))
    until(page, "which", "Window 1 of 1")
    until(page, "small-label", names[0])

    # what it was in truth
    page.get_by_role("switch", name="Inputs may leave for learning").click()
    page.get_by_role("button", name="It was walking").click()
    until(page, "thanks", "Learned that this is walking.")
    page.wait_for_selector('#personal[data-count="1"]')
    end = [each for each in told_eventually(page, cloud) if each.kind == FEEDBACK]
    said = trees.decode(end[0].body)
    assert int(said["label"]) == 1
    np.testing.assert_allclose(said["x"], x[0], atol=1e-4)  # as the models take it

    # files that are none, each in one line
    for name, content, fault in (
        ("a.csv", "1,2,3", "a.csv, line 1: 3 numbers, and the model takes 96"),
        (
            "b.csv",
            csv(rows).replace("\n", "\n\n", 1)[:-5] + "x,",
            "b.csv, line 4: .* numbers|b.csv, line 4: .* is no number",
        ),
        ("c.csv", "", "c.csv has no windows"),
        ("d.json", "[[1, 2", "d.json begins like JSON, and is none"),
        ("e.json", json.dumps([[None] * 96]), "e.json, window 1: “null” is no number"),
    ):
        pick(page, name, content)
        until(page, "window-fault", fault)
        assert text(page, "which") == "Window 1 of 1"  # what was there stays
    pick(page, "mine.csv", csv(rows))
    until(page, "which", "Window 1 of 3")
    assert page.locator("#window-fault").is_hidden()
    page.reload()
    ready(page)
    assert page.locator("#personal").get_attribute("data-count") == "1"


def told_eventually(page: Any, cloud: Cloud) -> list[Any]:
    """What the cloud has heard, with one correction among it."""
    from test_outbox import kept

    for _ in range(400):
        found = kept(cloud)
        if any(each.kind == FEEDBACK for each in found):
            return found
        page.wait_for_timeout(50)
    raise AssertionError("nothing was told")


@pytest.mark.slow
def test_a_window_is_recorded_where_there_is_a_sensor(cloud: Cloud, opened: Opens) -> None:
    page = opened(cloud, viewport={"width": 400, "height": 800})
    enrol(page, cloud)

    # nobody answers
    page.get_by_role("button", name="Record one").click()
    until(page, "window-fault", "no motion sensor answered")

    # a sensor that walks, a hundred times a second
    page.evaluate(
        """() => {
          const begin = performance.now();
          globalThis.walks = setInterval(() => {
            const push = 3 * Math.sin((2 * Math.PI * 2 * (performance.now() - begin)) / 1000);
            const accelerationIncludingGravity = { x: push, y: push, z: 9.8 + push };
            dispatchEvent(new DeviceMotionEvent("devicemotion", { accelerationIncludingGravity, interval: 10 }));
          }, 10);
        }"""
    )
    page.get_by_role("button", name="Record one").click()
    until(page, "which", "Window 1 of 1")
    until(page, "small-label", "^walking$")
    assert page.locator("#window-fault").is_hidden()
    label = page.locator("#signal").get_attribute("aria-label")
    low, high = (float(each) for each in re.search(r"x_acc from (\S+) to ([^;]+)", label).groups())
    assert (low, high) == pytest.approx((-3, 3), abs=0.6)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.slow
def test_activity_is_answered_from_a_file(opened: Opens, tmp_path: Path) -> None:
    folder = locate("activity")
    if folder is None:
        pytest.skip("the data of activity is not here")
    task = du.tasks.load("activity", seed=0)
    pair = train(task)
    export.onnx(task.small, pair["small"], tmp_path / "small.onnx")
    export.onnx(task.large, pair["large"], tmp_path / "large.onnx")
    raw = arff.read(folder)
    mean, scale = standardise(raw.only(task.users["train"]).x)
    np.save(tmp_path / "standard.npy", [mean.ravel(), scale.ravel()])
    rows = task.group("unseen")[0].x[:3]
    logits = {name: Whole(tmp_path / f"{name}.onnx")({"x": rows})["logits"] for name in ("small", "large")}
    standard = ["--standard", str(tmp_path / "standard.npy")]
    for cloud in served(tmp_path, "--labels", ",".join(raw.classes), *standard):
        page = opened(cloud)
        enrol(page, cloud)
        assert page.get_by_role("button", name="Record one").is_hidden()  # features are no signals
        pick(page, "walk.csv", csv(rows * scale + mean))
        for i in range(3):
            if i:
                page.get_by_role("button", name="Next").click()
            until(page, "which", f"Window {i + 1} of 3")
            until(page, "small-label", f"^{raw.classes[logits['small'][i].argmax()]}$")
            until(page, "totals", f"^{i + 1} answer")
            if text(page, "decision").startswith("Ask"):
                until(page, "cloud-label", f"^{raw.classes[logits['large'][i].argmax()]}$")
        found = [json.loads(each.body) for each in told(page, cloud, 3) if each.kind == RECORD]
        assert [each["base"] for each in found] == logits["small"].argmax(1).tolist()


def test_what_a_release_shows() -> None:
    assert shows() == {}
    assert shows(["a", "b"], "window", ["x"], 50.0, [[0.0], [2.0]]) == {
        "labels": ["a", "b"],
        "input": "window",
        "channels": ["x"],
        "rate": 50.0,
        "mean": [0.0],
        "scale": [2.0],
    }
    for words in (
        {"labels": ["a", "a"]},
        {"labels": ["a", " "]},
        {"kind": "sound"},
        {"rate": 0.0},
        {"standard": [[0.0], [0.0]]},
        {"standard": [[float("nan")], [1.0]]},
    ):
        with pytest.raises(ConfigError):
            shows(**words)


def test_names_are_told_on_until_they_are_told_anew(tmp_path: Path) -> None:
    from duetto.cloud.releases import Releases

    releases = Releases(tmp_path / "releases", tmp_path / "keys")
    releases.begin()
    first = shows(["a", "b"])
    found = [
        json.loads(releases.publish("small", version, channel, bytes([version]), told=told).told["told"])
        for version, channel, told in (
            (1, "stable", {SHOWS: first}),
            (2, "canary", {"policy": 1}),
            (3, "stable", {SHOWS: {}}),
            (4, "stable", None),
        )
    ]
    assert found == [{SHOWS: first}, {SHOWS: first, "policy": 1}, {SHOWS: {}}, {SHOWS: {}}]
    other = releases.publish("other", 1, "stable", b"o")
    assert json.loads(other.told["told"]) == {}
