"""A head of one's own: what is fitted, when it is used, and that it goes when it should."""

import asyncio
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duetto.device.agent import Device, Timing
from duetto.device.artefact import Artefact
from duetto.device.lessons import Lessons, Taught
from duetto.device.personal import HEAD, Fitting, Head, Personal, applied, beaten, fit, learned, refreshed
from duetto.device.settings import Settings
from duetto.errors import ConfigError, DataError
from duetto.models import Mlp, export
from duetto.policies import Threshold
from duetto.types import Held, Local

NET = Mlp((4,), 3, (8,))
PARAMS = NET.init(0)
DRAW = np.random.default_rng(0)
X = DRAW.standard_normal((120, 4)).astype(np.float32)
LOGITS = NET.logits(PARAMS, X)
SWAPPED = np.array([1, 0, 2])[LOGITS.argmax(1)]  # whose zeros are ones
FITTING = Fitting(pull=1.0)


def lessons(y: np.ndarray, logits: np.ndarray = LOGITS) -> Taught:
    """A user who says what is right."""
    n = len(y)
    return Taught(X[:n], logits[:n], np.eye(3)[y], np.ones(n, bool), np.zeros(n, np.int64))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    below = logits.astype(np.float64) - logits.max(1, keepdims=True)
    found: np.ndarray = below - np.log(np.exp(below).sum(1, keepdims=True))
    return found


@pytest.mark.parametrize("form", ["bias", "vector", "matrix"])
def test_the_fit_is_where_the_slope_is_nothing(form: Any) -> None:
    target, counts = np.eye(3)[SWAPPED], DRAW.uniform(0.5, 1, len(X))
    fitting = Fitting(form, pull=3.0)
    weight, bias = fit(LOGITS, target, counts, fitting)
    h = log_softmax(LOGITS)
    scale = np.sqrt((counts[:, None] * h * h).sum() / (counts.sum() * 3))
    off = np.exp(log_softmax(h + h @ weight.T + bias)) - target
    slope = (counts[:, None] * off).T @ (h / scale) + 3.0 * weight * scale
    free = {"bias": np.zeros((3, 3)), "vector": np.eye(3), "matrix": np.ones((3, 3))}[form]
    assert np.abs(slope * free).max() < 1e-3
    assert np.abs((counts[:, None] * off).sum(0) + 3.0 * bias).max() < 1e-3
    assert (weight * (1 - free) == 0).all()


def test_held_enough_it_changes_nothing() -> None:
    weight, bias = fit(LOGITS, np.eye(3)[SWAPPED], np.ones(len(X)), Fitting(pull=1e9))
    assert np.abs(weight).max() < 1e-6 > np.abs(bias).max()
    assert np.allclose(applied(LOGITS, weight, bias), log_softmax(LOGITS), atol=1e-5)


def test_the_sign_test_is_exact() -> None:
    def tail(n: int, least: int) -> float:
        return sum(math.comb(n, k) for k in range(least, n + 1)) / 2**n

    for wins in range(6):
        for losses in range(6):
            for error in (0.5, 0.2, 0.05):
                want = wins + losses > 0 and tail(wins + losses, losses) <= error
                assert beaten(wins, losses, error) == want
            assert beaten(wins, losses, 0.5) == (losses > wins)


def test_who_is_different_gets_a_head_and_who_is_random_gets_none() -> None:
    head = learned(lessons(SWAPPED), FITTING, 0)
    assert head is not None
    assert head.used
    assert head.wins > 2 * head.losses
    right = (head.logits(LOGITS).argmax(1) == SWAPPED).mean()
    assert right > (LOGITS.argmax(1) == SWAPPED).mean() + 0.2
    # progressive: the counts are those of heads fitted on what came before
    wins = losses = 0
    for start in range(FITTING.least, len(X), FITTING.block):
        block = slice(start, start + FITTING.block)
        before = fit(LOGITS[:start], np.eye(3)[SWAPPED[:start]], np.ones(start), FITTING)
        mine, own = applied(LOGITS[block], *before).argmax(1), LOGITS[block].argmax(1)
        wins += int(((mine == SWAPPED[block]) & (own != SWAPPED[block])).sum())
        losses += int(((mine != SWAPPED[block]) & (own == SWAPPED[block])).sum())
    assert (head.wins, head.losses) == (wins, losses)

    half = LOGITS.argmax(1).copy()  # who lied at first, and then the model is right
    half[:20] = (half[:20] + 1) % 3
    fooled = learned(lessons(half), Fitting(pull=0.1), 0)
    assert fooled is not None
    assert not fooled.used
    assert learned(lessons(SWAPPED[:9]), FITTING, 0) is None


def test_the_skill_gives_both_answers(tmp_path: Path) -> None:
    path = export.onnx(NET, PARAMS, tmp_path / "small.onnx")
    skill = Personal(Artefact(str(path)))
    plain = skill(Local(), {"x": X[:5]}, (), "me")[1]
    assert np.array_equal(plain["logits"], plain["base"])
    weight, bias = np.diag([0.5, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])
    wearing = Local(None, {HEAD: {"weight": weight, "bias": bias}})
    found = skill(wearing, {"x": X[:5]}, (), "me")[1]
    h = log_softmax(LOGITS[:5])
    assert np.allclose(found["logits"], h + h @ weight.T + bias, atol=1e-4)
    assert np.allclose(found["base"], LOGITS[:5], atol=1e-4)
    many = skill.many([wearing, Local()], [{"x": X[:2]}, {"x": X[2:5]}], [(), ()], ["a", "b"])
    assert np.allclose(many[0][1]["logits"], found["logits"][:2], atol=1e-6)
    assert np.array_equal(many[1][1]["logits"], many[1][1]["base"])
    other = Local(None, {HEAD: {"weight": np.eye(4), "bias": np.zeros(4)}})
    assert np.array_equal(skill(other, {"x": X[:1]}, (), "me")[1]["logits"], plain["base"][:1])


def test_a_head_outlives_the_process_unless_its_file_is_damaged(tmp_path: Path) -> None:
    head = learned(lessons(SWAPPED), FITTING, 7)
    assert head is not None
    head.save(tmp_path / "head.tree")
    again = Head.load(tmp_path / "head.tree")
    assert again is not None
    assert (again.model, again.lessons, again.wins, again.losses, again.used) == (7, 120, head.wins, head.losses, True)
    assert np.array_equal(again.weight, head.weight)
    (tmp_path / "head.tree").write_bytes((tmp_path / "head.tree").read_bytes()[:-5])
    assert Head.load(tmp_path / "head.tree") is None
    assert Head.load(tmp_path / "nothing") is None


def test_lessons_of_an_older_model_are_answered_anew() -> None:
    taught = Taught(X[:4], LOGITS[:4], np.eye(3)[SWAPPED[:4]], np.ones(4, bool), np.array([1, 1, 2, 2]))
    found = refreshed(taught, 2, lambda x: np.full((len(x), 3), x[:, :1]))
    assert found.model.tolist() == [2] * 4
    assert np.array_equal(found.logits[2:], LOGITS[2:4])
    assert np.array_equal(found.logits[:2], np.repeat(X[:2, :1], 3, 1))
    assert refreshed(found, 2, lambda x: x) is found


def test_lessons_are_bounded_and_the_user_has_the_last_word(tmp_path: Path) -> None:
    kept = Lessons(tmp_path / "lessons.db", most=3)
    assert kept.taught() is None
    assert kept.newest() == 0
    for i in range(5):
        kept.keep("s", i, 1, X[i], LOGITS[i], np.eye(3)[0], corrected=False)
    kept.keep("s", 3, 1, X[3], LOGITS[3], np.eye(3)[2], corrected=True)
    taught = kept.taught()
    assert taught is not None
    assert np.array_equal(taught.x, X[[2, 4, 3]])
    assert taught.target.argmax(1).tolist() == [0, 0, 2]
    assert taught.corrected.tolist() == [False, False, True]
    assert kept.newest() == 6
    kept.keep("s", 9, 2, np.zeros(7), np.zeros(2), np.zeros(2), corrected=False)  # another model, another input
    assert len(kept.taught() or ()) == 1
    kept.forget()
    assert list(tmp_path.iterdir()) == []
    assert kept.taught() is None
    (tmp_path / "lessons.db").write_bytes(b"no database" * 100)
    with pytest.raises(DataError, match="cannot be used"):
        kept.taught()
    with pytest.raises(ConfigError, match="keep one"):
        Lessons(tmp_path / "x", most=0)


@pytest.mark.parametrize("bad", [{"pull": 0.0}, {"error": 1.0}, {"block": 0}, {"trust": -1.0}, {"form": "cube"}])
def test_fittings_that_cannot_be(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Fitting(**bad)


def test_a_device_learns_its_user_while_idle_says_so_and_forgets(tmp_path: Path) -> None:
    small = export.onnx(NET, PARAMS, tmp_path / "small.onnx")
    given: dict[str, Any] = {"small": small, "policy": Held.of(Threshold(0.0)), "personal": FITTING}
    idle = Settings("nothing", only_charging=())

    async def taught() -> None:
        async with Device(tmp_path / "d", settings=idle, timing=Timing(personal=0.05), **given) as device:
            before = [await device.answer(x) for x in X]
            assert [each.label for each in before] == LOGITS.argmax(1).tolist()
            for answered, label in zip(before, SWAPPED.tolist(), strict=True):
                assert device.correct(answered, label) is None  # nothing leaves, and all the same it is learned from
            while device.head is None or device.head.lessons < len(X):
                await asyncio.sleep(0.05)
            after = [await device.answer(x) for x in X]
            expected = learned(lessons(SWAPPED, np.stack([each.answer.own["base"] for each in before])), FITTING, 0)
            assert expected is not None
            assert [each.label for each in after] == expected.logits(LOGITS).argmax(1).tolist()
            assert after[0].answer.why.endswith("corrected by 120 lessons of this device")
            assert np.allclose(after[0].answer.own["base"], LOGITS[0], atol=1e-4)

    async def again(folder: str = "small.onnx", wears: bool = True) -> Device:
        async with Device(tmp_path / "d", **{**given, "small": tmp_path / folder}) as device:
            assert (device.head is not None) == wears
            await asyncio.sleep(0.1)
        return device

    async def forgotten() -> None:
        async with Device(tmp_path / "d", **given) as device:
            device.forget()
            assert device.head is None
            assert (await device.answer(X[0])).label == LOGITS[0].argmax()
            assert not (tmp_path / "d" / "lessons.db").exists()
            assert await device.personalise() is None

    asyncio.run(asyncio.wait_for(taught(), 60))
    asyncio.run(asyncio.wait_for(again(), 60))
    export.onnx(NET, NET.init(3), tmp_path / "other.onnx")
    asyncio.run(asyncio.wait_for(again("other.onnx", wears=False), 60))  # it belonged to another model
    asyncio.run(asyncio.wait_for(forgotten(), 60))


def test_it_waits_for_what_the_user_decided(tmp_path: Path) -> None:
    small = export.onnx(NET, PARAMS, tmp_path / "small.onnx")

    async def main() -> None:
        charging = Settings("nothing")  # learns while it charges; whether it does is not known, which counts as no
        made = Device(tmp_path / "d", small=small, settings=charging, personal=FITTING, timing=Timing(personal=0.01))
        made.situation = lambda: Device.situation(made).__class__(False, 0.5, None, Device.situation(made).time)  # type: ignore[method-assign]
        async with made as device:
            for x, label in zip(X[:40], SWAPPED[:40].tolist(), strict=True):
                device.correct(await device.answer(x), label)
            await asyncio.sleep(0.2)
            assert device.head is None
            assert await device.personalise() is not None  # who says so now decides

    asyncio.run(asyncio.wait_for(main(), 60))
