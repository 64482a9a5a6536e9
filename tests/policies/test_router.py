"""A router as a folder: it decides as before, and one changed byte is told."""

import hashlib
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from duetto.errors import ConfigError, DataError
from duetto.policies import OnnxEmbedding, Router, TextGain
from duetto.policies.router import digest, load, probabilities, save
from duetto.types import Outcomes, Seen


def log() -> Outcomes:
    hard = np.arange(60) % 2
    prompts = np.array([f"{'prove' if each else 'greet'} the {i % 7}th" for i, each in enumerate(hard)], object)
    return Outcomes(1.0 - hard, np.ones(60), Seen(features={"prompt": prompts}, size=60), np.arange(60) % 12)


@cache
def router() -> Router:
    held = TextGain(bits=8, price=0.5, views=("words",), explore=0.1).fit(log())
    return Router(held, {"items": 60}, {"apgr": {"value": 0.9, "low": 0.8, "high": 1.0}})


def test_it_decides_as_before_it_was_saved(tmp_path: Path) -> None:
    again = load(save(router(), tmp_path / "deep" / "router"))
    assert again.policy == router().policy
    assert (again.fitted_on, again.promise) == (router().fitted_on, router().promise)
    for prompt in ("prove it", "greet her", ""):
        for number in range(20):
            assert again.decide(prompt, key=(number,)) == router().decide(prompt, key=(number,))


def test_a_decision_says_why() -> None:
    key = next((n,) for n in range(99) if router().decide("prove the 3th", key=(n,)).propensity > 0.5)
    found = router().decide("prove the 3th", key=key)
    assert found.ask
    assert found.propensity == 0.95
    assert found.score == found.small - found.large < found.threshold
    assert found.why == f"gain {-found.score:+.3f} above 0.5"
    odd = [router().decide("greet the 3th", key=(number,)) for number in range(200)]
    explored = [each for each in odd if each.ask]
    assert 0 < len(explored) < 40
    assert all(each.propensity == 0.05 and each.why.startswith("explored") for each in explored)
    with pytest.raises(DataError):
        router().decide(None)


def test_an_unfitted_router_asks() -> None:
    from duetto.types import Held

    found = Router(Held.of(TextGain())).decide("anything")
    assert found.ask
    assert found.score is None


def test_probabilities_are_of_asking() -> None:
    found = probabilities(router(), log().seen)
    assert found == pytest.approx(np.where(np.arange(60) % 2, 0.95, 0.05))


def test_the_json_is_readable_and_hashes_the_weights(tmp_path: Path) -> None:
    folder = save(router(), tmp_path)
    about = json.loads((folder / "router.json").read_text())
    weights = (folder / "router.safetensors").read_bytes()
    assert about["policy"] == "TextGain"
    assert about["version"] == 1
    assert about["settings"]["price"] == 0.5
    assert about["weights"]["sha256"] == hashlib.sha256(weights).hexdigest()
    assert sorted(path.name for path in folder.iterdir()) == ["router.json", "router.safetensors"]


def broken(folder: Path, name: str, change: str) -> None:
    path = folder / name
    if change == "gone":
        path.unlink()
    elif change == "flipped":
        data = bytearray(path.read_bytes())
        data[-10] ^= 1
        path.write_bytes(data)
    elif change == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    else:
        about = json.loads(path.read_text())
        about.update(json.loads(change))
        path.write_text(json.dumps(about))


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("router.json", "gone", "cannot read"),
        ("router.safetensors", "gone", "cannot read"),
        ("router.safetensors", "flipped", "is not what"),
        ("router.safetensors", "cut", "is not what"),
        ("router.json", "cut", "is no JSON"),
        ("router.json", '{"promise": {}}', "was changed"),
        ("router.json", '{"format": "x"}', "describes no"),
        ("router.json", '{"version": 99}', "has format 99"),
    ],
)
def test_what_is_wrong_with_a_folder_is_told_in_a_line(tmp_path: Path, name: str, change: str, said: str) -> None:
    broken(save(router(), tmp_path), name, change)
    with pytest.raises(DataError, match=said) as told:
        load(tmp_path)
    assert "\n" not in str(told.value)


def test_embeddings_are_saved_by_their_path(tmp_path: Path) -> None:
    held = router().held
    own = TextGain(views=("words",), embed=len)
    with pytest.raises(ConfigError, match="with a path"):
        save(Router(type(held)(own, held.state)), tmp_path)
    (tmp_path / "m.onnx").write_bytes(b"")
    path = str(tmp_path / "m.onnx")
    saved = save(Router(type(held)(TextGain(embed=OnnxEmbedding(path)), held.state)), tmp_path / "r")
    assert load(saved).policy.embed == OnnxEmbedding(path)
    assert load(saved, embed=len).policy.embed is len


def test_the_digest_is_of_the_data() -> None:
    whole = log()
    assert digest(whole) == digest(log())
    assert digest(whole) != digest(whole.rows(np.arange(59)))
    changed = Outcomes(whole.large, whole.large, whole.seen, whole.users)
    assert digest(changed) != digest(whole)
