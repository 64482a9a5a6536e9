"""What a model's features give away: the run, its folder, its findings and its page."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duetto.attacks.release import Release
from duetto.errors import ConfigError, DataError
from duetto.evaluation import users
from duetto.programs import leak, leak_page, leaked
from duetto.programs.leak import PLAIN, Attack, Found, Settings, attacked
from duetto.programs.leak_people import GUESSES
from duetto.programs.plan import CODECS

QUICK = Settings(cuts=4, rows=120, scored=4, steps=40, width=4, redraws=50)
WHAT = Attack("pictures", "small", (PLAIN, "int4+zstd"), (0, 1), QUICK)


@pytest.fixture
def pictures(tiny_task: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A task of 8x8 images of three classes, whatever it is called."""
    from duetto.models import Conv

    def load(name: str, seed: int) -> Any:
        task = tiny_task(seed, name=name)
        at = np.arange(8)
        wave = np.sin(at[:, None] * (1 + task.data.y[:, None, None]) / 2 + at) / 4 + 0.5
        image = wave[:, None] + 0.1 * np.clip(task.data.x[:, :1, None, None], -2, 2)
        data = replace(task.data, x=np.clip(image, 0, 1).astype(np.float32))
        small, large = Conv((1, 8, 8), 3, (3, 4)), Conv((1, 8, 8), 3, (6,))
        teach = {
            "teach_small": replace(task.teach_small, net=small),
            "teach_large": replace(task.teach_large, net=large),
        }
        return replace(task, data=data, small=small, large=large, **teach)

    monkeypatch.setattr(leak, "load", load)


@pytest.fixture
def vectors(tiny_task: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A task of four numbers."""
    monkeypatch.setattr(leak, "load", lambda name, seed: tiny_task(seed, name=name))


def test_a_run_goes_on_and_says_the_same(pictures: None, tmp_path: Path) -> None:
    into = tmp_path / "run"
    found = attacked(WHAT, into)
    assert [each.codec for each in found[:4]] == list(GUESSES)
    points = [each for each in found if each.cut >= 0]
    assert {each.seed for each in points} == {0, 1}
    assert {each.codec for each in points} == {PLAIN, "int4+zstd"}
    for each in points:
        assert len(each.accuracy) == len(each.nearness["ssim"]) == len(each.naive["psnr"]) == 3, "unseen users"
        assert each.up_bytes > 0
        if each.codec == PLAIN:
            assert each.nearness == each.naive, "there is no defence to know"
    some = next(into.glob("seed-1/cut-*int4*.json"))
    before = some.read_text()
    some.unlink()
    told: list[str] = []
    assert attacked(WHAT, into, lambda what, done, of: told.append(what)) == found
    assert some.read_text() == before
    assert any("int4" in words for words in told)
    with pytest.raises(ConfigError, match="another attack"):
        attacked(replace(WHAT, model="large"), into)


def test_the_page_says_where_a_defence_fails(pictures: None, tmp_path: Path) -> None:
    what = leaked.told(attacked(WHAT, tmp_path / "run"), 50)
    drawn = leak.pictures(WHAT, tmp_path / "run")
    assert all(images.min() >= 0 and images.max() <= 1 for images in drawn.values())
    page = leak_page.page(what, "small of pictures", drawn)
    assert "<script></script>" in page
    assert "http" not in page.replace("http-equiv", "")
    for words in (*what.notes, *GUESSES, "int4+zstd", "lower bounds"):
        assert words.replace("'", "&#x27;") in page
    leaked.save(what, tmp_path / "run" / "leakage.json")
    assert leaked.read(tmp_path / "run", "pictures.small") == leaked.measured(what.lines)
    with pytest.raises(DataError, match=r"what pictures\.small leaks"):
        leaked.read(tmp_path / "run", "pictures.large")
    (tmp_path / "run" / "leakage.json").write_text("{}")
    with pytest.raises(DataError, match="no leakage"):
        leaked.read(tmp_path / "run", "pictures.small")


def test_vectors_have_no_structure_and_no_pictures(vectors: None, tmp_path: Path) -> None:
    what = replace(WHAT, seeds=(0,), settings=replace(QUICK, cuts=3))
    made = leaked.told(attacked(what, tmp_path / "run"), 50)
    assert {line.measure for line in made.lines} == {"psnr"}
    assert leak.pictures(what, tmp_path / "run") == {}
    assert "PSNR" in leak_page.page(made, "vectors")


def test_a_module_of_ones_own(vectors: None, tmp_path: Path) -> None:
    from torch import nn

    own = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    what = replace(WHAT, model="mine:net", seeds=(0,), codecs=(PLAIN,))
    assert {each.cut for each in attacked(what, tmp_path / "run", module=own)} >= {-1, 1}


def found(cut: int, codec: str, adaptive: list[float], naive: list[float]) -> Found:
    return Found(0, cut, codec, "conv", 0.5, [1.0] * 4, 10.0, {"ssim": adaptive}, {"ssim": naive})


def test_what_is_kept_and_what_is_said_of_it() -> None:
    guesses = [Found(0, -1, name, "", 0.0, [], 0.0, {"ssim": [0.2] * 4}, {}) for name in GUESSES]
    plain, same, less = [0.5, 0.6, 0.7, 0.8], [0.45, 0.6, 0.7, 0.8], [0.2, 0.25, 0.3, 0.25]
    points = [
        found(1, PLAIN, plain, plain),
        found(1, "int8+zstd", same, [0.1] * 4),
        found(1, "int4+zstd", less, [0.3] * 4),
        found(2, PLAIN, [0.21] * 4, [0.21] * 4),
        found(2, "int8+zstd", [0.2] * 4, [0.2] * 4),
    ]
    points = [replace(each, nearness={**each.nearness, "psnr": [9.0] * 4}) for each in points]
    points = [replace(each, naive={**each.naive, "psnr": [9.0] * 4}) for each in points]
    made = leaked.told([*guesses, *points], 50)
    lines = {(line.cut, line.codec): line for line in made.lines}
    assert lines[1, "int8+zstd"].kept == pytest.approx((np.mean(same) - 0.2) / (np.mean(plain) - 0.2))
    assert lines[1, "int8+zstd"].verdict == "fails"
    assert lines[1, "int4+zstd"].nearness.value == pytest.approx(0.3), "an attacker takes the better decoder"
    assert lines[1, "int4+zstd"].verdict == "hides most"
    assert lines[2, "int8+zstd"].verdict == "as answer"
    assert lines[2, "int8+zstd"].kept is None
    assert lines[1, PLAIN].most.value == pytest.approx(0.8), "a tenth of four users is one"
    assert any(note.startswith("int8+zstd fails as a defence at cut 1") for note in made.notes)
    assert any("only looks private" in note and "int8" in note for note in made.notes)
    assert any("Depth alone" in note and "cut 2" in note for note in made.notes)
    per = users.by(np.array(plain), np.arange(4))
    assert lines[1, PLAIN].nearness.value == pytest.approx(float(users.user_mean(per)))
    with pytest.raises(DataError, match="nothing was attacked"):
        leaked.told([])


def test_every_codec_of_a_plan_has_its_release() -> None:
    assert leak.RELEASES.keys() == CODECS.keys()
    x = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    for name, codec in CODECS.items():
        alone = [codec.decode(codec.encode(codec.init(), {"f": row}, (0,))[1])["f"] for row in x]  # type: ignore[index]
        np.testing.assert_array_equal(leak.RELEASES[name](x, (0,)), np.stack(alone))
    assert leak.RELEASES[PLAIN] == Release()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Attack("digits", "medium"), "small"),
        (lambda: Attack("digits", codecs=("int3",)), "int3"),
        (lambda: Attack("digits", seeds=()), "seeds"),
        (lambda: Settings(cuts=2), "three cuts"),
    ],
)
def test_bad_settings_are_one_clear_line(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


def test_damaged_files_are_named(vectors: None, tmp_path: Path) -> None:
    what = replace(WHAT, seeds=(0,), codecs=(PLAIN,))
    attacked(what, tmp_path / "run")
    (tmp_path / "run" / "seed-0" / "guesses.json").write_text("[")
    with pytest.raises(DataError, match=r"guesses\.json"):
        attacked(what, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["program"] == "leak"
