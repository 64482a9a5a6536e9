"""The teacher: what is learned from, what is held back, one lesson once, whatever dies on the way."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.cloud.onnx import Whole
from duetto.cloud.promotion import Promotion
from duetto.cloud.site import Site
from duetto.cloud.teacher import Inputs, Lesson, Teacher, parted, sent
from duetto.errors import ConfigError
from duetto.models import Mlp, export
from duetto.protocols.channels import MOVE, NUMBER, POLICY, SHARE
from duetto.protocols.deliver import Entry
from duetto.training import Adam, Client, CrossEntropy, Distil

pytest.importorskip("onnx")
SMALL, LARGE = Mlp((4,), 3, (8,)), Mlp((4,), 3, (64,))
TRUTH = LARGE.init(1)
CLIENT = Client(SMALL, (CrossEntropy(0.5), Distil(0.5, 2.0)), Adam(1e-2), 8, 16)
RULE = Promotion(window=60, margin=0.3, asking=0.3, failing=0.3, looks=2, devices=2)
DEVICES = [f"phone-{i}" for i in range(6)]


class Right:
    """The large model, which is right by definition."""

    def __getitem__(self, cut: slice) -> "Right":
        return self

    def __call__(self, tree: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"logits": LARGE.logits(TRUTH, tree["x"])}


def written(net: Mlp, params: Any, path: Path) -> Path:
    """What the exporter writes, in milliseconds: layer after layer, with a ReLU between."""
    import onnx
    from onnx import helper, numpy_helper

    leaves = dict(trees.leaves(params))
    layers = sorted({name.rpartition("/")[0] for name in leaves})
    nodes, weights, value = [], [], "x"
    for i, layer in enumerate(layers):
        last = i + 1 == len(layers)
        weights += [numpy_helper.from_array(leaves[f"{layer}/{word}"], f"{word}{i}") for word in ("weight", "bias")]
        out = "logits" if last else f"hidden{i}"
        nodes.append(helper.make_node("Gemm", [value, f"weight{i}", f"bias{i}"], [out], transB=1))
        if not last:
            nodes.append(helper.make_node("Relu", [out], [f"active{i}"]))
            value = f"active{i}"
    ends = [
        helper.make_tensor_value_info(word, onnx.TensorProto.FLOAT, ["n", size])
        for word, size in (("x", 4), ("logits", 3))
    ]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(autouse=True)
def exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quick one; the real one is tested in tests/models, and with the teacher in tests/running."""
    monkeypatch.setattr(export, "onnx", written)
    monkeypatch.setattr(export, "quantised", lambda path, to, shown: Path(shutil.copy(path, to)))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A cloud's folder."""
    made = Site(tmp_path / "cloud", f"sqlite:///{tmp_path / 'duetto.db'}", str(tmp_path / "blobs")).begin()
    yield made
    made.engine.dispose()


def teacher(site: Site, **more: Any) -> Teacher:
    """One that is about to begin."""
    lesson = more.pop("lesson", Lesson(CLIENT, least=100, fitting=20))
    return Teacher(site, Right(), SMALL, SMALL.init(0), lesson=lesson, rule=RULE, share=0.5, **more)


def tell(site: Site, device: str, first: int, kind: str, bodies: list[bytes]) -> None:
    """Deliver as a device would."""
    entries = [Entry(first + i, kind, body) for i, body in enumerate(bodies)]
    site.feedback.keep(device, device.encode().ljust(16, b"\0"), entries)


def inputs(device: str, n: int, labelled: bool = True) -> list[bytes]:
    """Inputs with the labels that are right."""
    x = np.random.default_rng([len(device), int(device[-1]), n]).standard_normal((n, 4)).astype(np.float32) * 2
    y = LARGE.logits(TRUTH, x).argmax(1)
    told = [{"x": row, "label": np.int64(label)} for row, label in zip(x, y, strict=True)]
    return [trees.encode(each if labelled else {"x": each["x"]}) for each in told]


def records(release: int, agreed: int, n: int) -> list[bytes]:
    """Records of answers of the cloud, with which the small model agreed so often."""
    told = {"by": "cloud", "asked": True, "label": 1, "model": release}
    return [json.dumps({**told, "base": int(i < agreed)}).encode() for i in range(n)]


def offered(site: Site) -> dict[str, tuple[int, str, dict[str, Any]]]:
    """By channel: the release's number, its artefact, and what it tells."""
    return {
        each.channel: (each.version, each.sha256, json.loads(each.told["told"])) for each in site.releases.releases()
    }


def test_what_is_sent_counts_once_and_only_if_it_fits(site: Site) -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    bodies = [
        trees.encode({"x": x[0], "label": np.int64(1)}),
        trees.encode({"x": x[1]}),
        trees.encode({"x": x[0], "label": np.int64(2)}),  # the same input again: what was said last
        trees.encode({"x": x[0]}),  # and nothing said leaves it
        trees.encode({"label": np.int64(1), "logits": x[0, :3]}),  # no input: nothing to learn from
        b"no tree",
        trees.encode({"x": x[0, :3], "label": np.int64(1)}),
        trees.encode({"x": x[2] * np.float32(np.nan), "label": np.int64(1)}),
        trees.encode({"x": x[2], "label": np.int64(3)}),
    ]
    tell(site, "a", 1, "feedback", bodies)
    tell(site, "b", 1, "feedback", bodies[:1])
    found, refused = sent(site.feedback, 0, 100, (4,), 3)
    assert refused == 4
    assert found.device.tolist() == ["a", "a", "b"]
    assert found.y.tolist() == [-1, 2, 1]
    assert found.x.tolist() == [x[1].tolist(), x[0].tolist(), x[0].tolist()]
    assert len(sent(site.feedback, 2, 3, (4,), 3)[0]) == 1


def test_the_last_share_of_each_device_is_held_back_and_never_what_was_trained_on() -> None:
    def made(device: str, marks: range) -> Inputs:
        n = len(marks)
        return Inputs(np.zeros((n, 1)), np.array(marks), np.repeat(device, n), np.array([b"%d" % i for i in marks]))

    def both(*parts: Inputs) -> Inputs:
        return Inputs(*(np.concatenate([getattr(each, name) for each in parts]) for name in vars(parts[0])))

    new = both(made("a", range(20)), made("b", range(100, 103)))
    trained, held = parted(new, made("a", range(18, 19)), held=0.25, most=8)
    assert sorted(held.y.tolist()) == [19]  # of a's last eight the last two; 18 was trained on before
    assert sorted(trained.y.tolist()) == [12, 13, 14, 15, 16, 17, 18, 18, 100, 101, 102]

    few = both(*(made(f"phone-{i}", range(i, i + 1)) for i in range(8)))  # a share of one input is none
    trained, held = parted(few, few.rows(np.zeros(8, bool)), held=0.25, most=8)
    assert held.y.tolist() == [3, 7], "of eight devices two are held back whole"
    assert len(trained) == 6


def test_a_lesson_is_tried_promoted_and_one_that_disagrees_goes_back(site: Site) -> None:
    first = teacher(site)
    assert first.turn() == [
        "version 1 is the first of stable",
        "version 1 is the first of canary",
        "release 1 is offered to stable",
        "release 1 is offered to canary",
    ]
    assert first.turn() == []
    assert offered(site)["stable"][2][SHARE] == 0.5
    for device in DEVICES:
        tell(site, device, 1, "feedback", inputs(device, 40, labelled=device != DEVICES[0]))
    done = first.turn()
    made = site.registry.version("small", 2)
    told = made.trained_from
    assert (told["after"], told["upto"], told["inputs"], told["held"], told["labelled"]) == (0, 240, 180, 60, 150)
    assert made.parents == (("small", 1),)
    stable, canary = offered(site)["stable"], offered(site)["canary"]
    assert (stable[0], canary[0]) == (1, 2)
    assert stable[1] != canary[1]
    assert canary[2][NUMBER] == 2
    assert "policy" in canary[2][POLICY]
    assert any("is tried" in line for line in done)

    # by user, on what was held back: each device's last ten inputs
    params = trees.decode(site.registry.blobs.get(made.artefacts["safetensors"].digest))
    right = []
    for device in DEVICES:
        x = np.stack([trees.decode(body)["x"] for body in inputs(device, 40)])[30:]
        right.append((SMALL.logits(params, x).argmax(1) == LARGE.logits(TRUTH, x).argmax(1)).mean())
    metrics = site.registry.metrics("small", 2)
    assert metrics["small"]["user_mean"] == pytest.approx(np.mean(right), abs=1e-12)
    assert metrics["small"]["worst_tenth"] == pytest.approx(min(right), abs=1e-12)
    assert metrics["large"]["user_mean"] == 1.0
    assert metrics["gain"]["user_mean"] > 0.1
    vector = trees.decode(site.registry.blobs.get(made.artefacts["vector"].digest))
    runs = site.folder / "runs.onnx"
    runs.write_bytes(site.registry.blobs.get(made.artefacts["device"].digest))
    assert np.array_equal(Whole(runs, 1)({"x": vector["x"]})["logits"], vector["logits"])

    assert first.turn() == []  # nothing has been said of it yet
    for device in DEVICES[:3]:
        tell(site, device, 1000, "record", records(1, 20, 30))
    for device in DEVICES[3:]:
        tell(site, device, 1000, "record", records(2, 29, 30))
    done = teacher(site).turn()
    assert "version 2 goes to all: agreement" in done[0]
    assert offered(site)["stable"][:2] == canary[:2]  # under the number that the canary knows
    assert offered(site)["stable"][2][SHARE] == 0.5

    # lessons that are wrong: all devices say another class, and nobody asks the large model
    def wrong(bodies: list[bytes]) -> list[bytes]:
        told = [dict(trees.decode(body)) for body in bodies]
        return [trees.encode({"x": each["x"], "label": np.int64((each["label"] + 1) % 3)}) for each in told]

    for device in DEVICES:
        tell(site, device, 2000, "feedback", wrong(inputs(device, 44)))
    lesson = Lesson(Client(SMALL, (CrossEntropy(),), Adam(2e-2), 20, 16), least=100, replay=0, policy=None)
    bad = teacher(site, lesson=lesson)
    assert any("version 3 is tried" in line for line in bad.turn())
    assert offered(site)["canary"][0] == 3
    for device in DEVICES[:3]:
        tell(site, device, 3000, "record", records(2, 29, 30))
    for device in DEVICES[3:]:
        tell(site, device, 3000, "record", records(3, 5, 30))
    done = bad.turn()
    assert done[0].startswith("version 3 goes back: agreement")
    back = offered(site)["canary"]
    assert back[0] == 4  # forward: devices never go back
    assert back[1] == offered(site)["stable"][1]
    assert offered(site)["stable"][0] == 2
    assert site.registry.metrics("small", 3)["verdict"] == "back"
    assert site.registry.history("small", "canary")[-1].back
    ranges = [each.trained_from for each in site.registry.versions("small")[1:]]
    assert ranges[0]["upto"] <= ranges[1]["after"]


class Killed(BaseException):
    """As a kill would: nobody catches it."""


@pytest.mark.parametrize("place", ["promote", "measure", "publish", "add"])
def test_a_turn_that_dies_anywhere_is_ended_by_the_next(
    site: Site, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    whose: Any = type(site.releases) if place == "publish" else type(site.registry)
    teacher(site).turn()
    for device in DEVICES:
        tell(site, device, 1, "feedback", inputs(device, 40))

    def die(*words: Any, **more: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(whose, place, die)
        with pytest.raises(Killed):
            teacher(site).turn()
    teacher(site).turn()
    versions = site.registry.versions("small")
    assert [each.trained_from["upto"] for each in versions] == [0, 240]
    assert site.registry.metrics("small", 2)["gain"]["user_mean"] > 0
    assert offered(site)["canary"][0] == 2
    assert offered(site)["canary"][2][MOVE] == site.registry.history("small", "canary")[-1].number
    assert teacher(site).turn() == []


def test_of_two_who_teach_at_once_one_is_heard(site: Site) -> None:
    teacher(site).turn()
    digest = site.registry.version("small", 1).artefacts["device"].digest
    site.registry.add("small", {"device": digest}, by="one", expected=1)
    with pytest.raises(ConfigError, match="has version 2, not 1"):
        site.registry.add("small", {"device": digest}, by="two", expected=1)


@pytest.mark.parametrize("bad", [{"least": 0}, {"held": 0.0}, {"held": 1.0}, {"most": 3}, {"replay": -1}, {"loss": -1}])
def test_lessons_that_cannot_be(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="least >= 1"):
        Lesson(**bad)  # type: ignore[arg-type]
