"""Adopting somebody's own pair: the figures are those of the Python API, and no answer is paid for twice."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duetto.errors import ConfigError, DataError, Error
from duetto.evaluation import report
from duetto.evaluation.result import Result
from duetto.policies import Calibrated, LearnedGain, RiskControlled, Threshold, artefact
from duetto.programs import adopt
from duetto.programs.adopt import Pair, Profile, Settings, Small
from duetto.simulation import energy
from duetto.simulation.link import named
from duetto.tasks.by_user import draw_users
from duetto.tasks.own import Own
from duetto.types import Action, Outcomes, Seen, Work

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

CLASSES, FEATURES = 3, 6


def linear(path: Path, weights: np.ndarray, body: str = "", dtype: str = "float") -> Path:
    """An ONNX file of ``x @ weights``; exact in float32 for small whole numbers."""
    rows, columns = weights.shape
    numbers = ", ".join(f"{float(each):.1f}" for each in weights.ravel())
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
        net ({dtype}[n, {rows}] x) => ({dtype}[n, {columns}] logits) <{dtype}[{rows}, {columns}] w = {{{numbers}}}>
        {{ {body or "logits = MatMul(x, w)"} }}"""
    onnx.save(onnx.parser.parse_model(text), path)
    return path


class Large:
    """A large model that counts what it is asked, and may break off."""

    def __init__(self, weights: np.ndarray, calls: float = np.inf) -> None:
        self.weights, self.left, self.rows = weights, calls, 0

    def __call__(self, tree: Any) -> Mapping[str, np.ndarray]:
        if not self.left:
            raise Error("the engine broke off", "its log says why")
        self.left -= 1
        self.rows += len(tree["x"])
        return {"logits": np.asarray(tree["x"] @ self.weights, np.float32)}


SMALL = np.array([[2, 0, 0], [0, 2, 0], [0, 0, 2], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
LARGE = SMALL + 0.5 * np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 2, 0], [0, 0, 2], [2, 0, 0]])


def rows(seed: int = 0, users: int = 16, each: int = 30) -> Own:
    """Rows whose truth is nearly the large model's answer; in eighths, so that every sum is exact."""
    draw = np.random.default_rng(seed)
    x = (draw.integers(-16, 17, (users * each, FEATURES)) / 8).astype(np.float32)
    y = (x @ LARGE + draw.normal(size=(len(x), CLASSES)) * 0.5).argmax(1)
    return Own(x, y, np.array([f"user-{i // each}" for i in range(len(x))]))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """Of the device."""
    return adopt.small_of(linear(tmp_path_factory.mktemp("small") / "small.onnx", SMALL))


def test_the_figures_are_those_of_the_python_api(small: Small, tmp_path: Path) -> None:
    data, settings = rows(), Settings(target_loss=2.0, seed=3)
    made = adopt.adopt(Pair(small, Large(LARGE), "large"), data, settings, tmp_path / "run")

    groups = draw_users(sorted(set(data.user)), {"calibration": 0.5, "held-out": 0.5}, 3)
    assert made.groups == groups
    both = Outcomes.of_classifiers(data.x @ SMALL, data.x @ LARGE, data.y, data.user)
    first, held = (both.rows(np.isin(data.user, groups[name])) for name in ("calibration", "held-out"))
    policies: dict[str, Any] = {
        "calibrated": Calibrated(tolerance_points=2.0).fit(first),
        "risk": RiskControlled(Threshold(np.inf, "margin"), "approximate", 0.02).fit(first),
    }
    assert held.users is not None
    for name, policy in policies.items():
        asked = policy.choose(held.seen, ("x",)).action == Action.ASK
        right = np.where(asked, held.large, held.small)
        per_user = np.sort([right[held.users == user].mean() for user in groups["held-out"]])
        got = made.figures[name]
        assert got["accuracy"] == pytest.approx(per_user.mean())
        assert got["worst_accuracy"] == pytest.approx(per_user[:1].mean()), "of 8 users the worst tenth is one"
        assert got["offload_rate"] == pytest.approx(asked.mean())
        assert got["up_bytes"] == pytest.approx(1000 * asked.mean() * made.profile.up_bytes)
    alone, whole = made.figures["device only"], made.figures["cloud only"]
    assert alone["accuracy"] == pytest.approx(held.small.mean())
    assert whole["accuracy"] == pytest.approx(held.large.mean()), "all have as many rows"
    chosen = made.figures["calibrated"]["offload_rate"]
    expected = held.small.mean() + chosen * held.gain.mean()
    assert made.figures["random, as often"]["accuracy"] == pytest.approx(expected)
    assert made.figures["oracle, as often"]["offload_rate"] <= chosen
    assert made.figures["oracle, as often"]["accuracy"] > made.figures["calibrated"]["accuracy"]


def test_other_splits_tell_how_much_is_luck(small: Small) -> None:
    data, settings = rows(), Settings(target_loss=2.0, policy="risk")
    both = Outcomes.of_classifiers(data.x @ SMALL, data.x @ LARGE, data.y, data.user)
    lost, asked = [], []
    for seed in (1, 2, 3):
        groups = adopt.split(data, replace(settings, seed=seed))
        first, held = (both.rows(np.isin(data.user, groups[name])) for name in ("calibration", "held-out"))
        policy = RiskControlled(Threshold(np.inf, "margin"), "approximate", 0.02).fit(first)
        asks = policy.choose(held.seen, ("x",)).action == Action.ASK
        asked.append(asks.mean())
        lost.append((held.large - np.where(asks, held.large, held.small)).mean())
    found = adopt.others(both, data, settings, 3)
    assert found.asked == pytest.approx((min(asked), max(asked)))
    assert found.loss == pytest.approx((min(lost), max(lost)))
    assert found.kept == sum(each <= 0.02 for each in lost)


def test_gain_is_fitted_on_every_second_calibration_user(small: Small) -> None:
    data = rows()
    outcomes = Outcomes.of_classifiers(data.x @ SMALL, data.x @ LARGE, data.y, data.user)
    held = adopt.fit(outcomes, Settings(target_loss=2.0))["gain"]
    names = np.unique(data.user)
    learns = np.isin(data.user, names[::2])
    heads = LearnedGain().fit(outcomes.rows(learns))
    others = outcomes.rows(~learns)
    scores = LearnedGain().scores(heads.state, others.seen)
    keeps = scores >= float(held.state["threshold"])
    assert (keeps * others.gain).mean() <= 0.02 + 1e-12
    assert float(held.state["threshold"]) in scores


def test_a_question_costs_what_link_radio_and_prices_say() -> None:
    profile = Profile((0.002,), (0.03,), 96, 84, Work(), 0, 0)
    data = rows(users=4, each=5)
    held = Outcomes.of_classifiers(data.x @ SMALL, data.x @ LARGE, data.y, data.user)
    fitted = adopt.fit(held, Settings())
    got = adopt.answered(held, fitted, profile, named("wifi"), Settings(every=1.0))
    radio, watts = energy.radios()["wifi"], energy.profiles()["mid-phone"].compute_watts
    up, down = 96 * 8e-6 / 20, 84 * 8e-6 / 50  # wifi: 20 Mbit/s up, 50 down, 25 ms
    alone, asked = got["device only"][0].cost, got["cloud only"][0].cost
    assert (alone.seconds, alone.up_bytes, alone.dollars) == (0.002, 0, 0)
    assert alone.joules == pytest.approx(0.002 * watts)
    assert asked.seconds == pytest.approx(up + 0.0125 + 0.03 + down + 0.0125)
    sending = up * radio.up_watts + min(1.0, radio.tail_seconds) * radio.tail_watts
    assert asked.joules == pytest.approx(sending + down * radio.down_watts + (0.03 + 0.025) * radio.tail_watts)
    prices = energy.prices()["default"]
    dollars = prices.per_call + 84 * prices.per_gigabyte_down / 1e9 + 0.03 * prices.per_cloud_second
    assert asked.dollars == pytest.approx(dollars)
    for record in got["calibrated"]:
        whole = alone + asked if record.metrics["asked"] else alone
        assert record.cost.seconds == pytest.approx(whole.seconds)
        assert record.cost.up_bytes == whole.up_bytes
    got = adopt.answered(held, fitted, profile, named("wifi"), Settings(price_per_call=0.5))
    assert got["cloud only"][0].cost.dollars == 0.5


def test_it_goes_on_without_asking_again(small: Small, tmp_path: Path) -> None:
    data, settings, into = rows(), Settings(timed=5, batch=16), tmp_path / "run"
    broken = Large(LARGE, calls=10)
    with pytest.raises(Error, match="broke off"):
        adopt.adopt(Pair(small, broken, "large"), data, settings, into)
    assert broken.rows == 5 + 5 * 16
    with (into / "answers.jsonl").open("a") as file:
        file.write('{"seconds": 0.1, "log')  # as a crash leaves it
    rest = Large(LARGE)
    first = adopt.adopt(Pair(small, rest, "large"), data, settings, into)
    assert broken.rows + rest.rows == len(np.unique(data.x, axis=0))
    again = Large(LARGE, calls=0)
    second = adopt.adopt(Pair(small, again, "large"), data, settings, into)
    assert second.figures == first.figures, "seconds are kept, too"
    other = adopt.adopt(Pair(small, again, "large"), data, replace(settings, target_loss=5.0, seed=1), into)
    assert other.groups != first.groups
    with pytest.raises(ConfigError, match="another large model"):
        adopt.adopt(Pair(small, again, "larger"), data, settings, into)


def test_the_folder_is_a_run_and_its_policy_decides(small: Small, tmp_path: Path) -> None:
    data, into = rows(), tmp_path / "run"
    made = adopt.adopt(Pair(small, Large(LARGE), "large"), data, Settings(target_loss=2.0), into)
    assert Result.load(into / "result.json") == made.result
    page = report.write(into, into / "report.html").read_text()
    assert made.verdict.words.split(":")[0] in page
    assert "user-1" not in page + (into / "records.jsonl").read_text(), "names are hashed"
    for name, held in made.fitted.items():
        kept = artefact.load(into / "policies" / name).held
        seen = Seen(stage=1, answer=data.x @ SMALL, size=len(data))
        np.testing.assert_array_equal(kept.choose(seen, ("x",)).action, held.fork().choose(seen, ("x",)).action)
    assert artefact.load(into / "policy").held.part == made.fitted["calibrated"].part
    assert json.loads((into / "config.json").read_text())["data"] == {"rows": 480, "users": 16, "features": 6}


def test_honest_verdicts(small: Small, tmp_path: Path) -> None:
    data = rows()

    def verdict(large: np.ndarray, settings: Settings, name: str) -> str:
        return adopt.adopt(Pair(small, Large(large), "large"), data, settings, tmp_path / name).verdict.kind

    assert verdict(SMALL, Settings(), "same") == "small"
    assert verdict(LARGE, Settings(target_loss=0.01, policy="risk"), "few") == "large"
    assert verdict(LARGE, Settings(target_loss=90.0), "any") == "small"
    assert verdict(LARGE, Settings(target_loss=20.0), "nobody") == "small"
    assert verdict(LARGE, Settings(), "pays") == "duetto"
    assert verdict(LARGE, Settings(target_loss=2.0), "few users") == "missed"
    blind = np.array([[0, 0, 0], [0, 0, 0], [0, 0, 0], [2, -1, 0], [0, 2, -1], [-1, 0, 2]])
    unseen = replace(data, y=(data.x @ blind).argmax(1))  # by what the small model hardly looks at
    made = adopt.adopt(Pair(small, Large(blind), "large"), unseen, Settings(target_loss=5.0), tmp_path / "luck")
    assert made.verdict.kind == "chance"
    unlabelled = adopt.adopt(Pair(small, Large(LARGE), "large"), replace(data, y=None), Settings(), tmp_path / "no y")
    assert unlabelled.figures["cloud only"]["accuracy"] == 1.0
    assert any("Nobody said" in note for note in unlabelled.result.notes)


def test_too_few_users_and_answers_of_another_form(small: Small, tmp_path: Path) -> None:
    data = rows(users=3)
    with pytest.raises(DataError, match="3 users are too few"):
        adopt.adopt(Pair(small, Large(LARGE), "large"), data, Settings(), tmp_path / "few")
    with pytest.raises(DataError, match="same classes"):
        adopt.adopt(Pair(small, Large(LARGE[:, :2]), "two"), rows(), Settings(), tmp_path / "two")
    with pytest.raises(DataError, match="NaN or infinite"):
        adopt.adopt(Pair(small, Large(LARGE * np.nan), "nan"), rows(), Settings(), tmp_path / "nan")
    with pytest.raises(DataError, match="no logits"):
        adopt.adopt(Pair(small, lambda tree: {"text": 1}, "text"), rows(), Settings(), tmp_path / "text")
    with pytest.raises(DataError, match="does not tell its work"):
        adopt.adopt(Pair(small, Large(LARGE), "work"), rows(), Settings(device="pixel-7"), tmp_path / "work")


def test_bad_settings() -> None:
    for wrong in (
        {"target_loss": 0.0},
        {"policy": "luck"},
        {"calibration": 1.0},
        {"every": -1.0},
        {"price_per_call": np.inf},
        {"timed": 1},
        {"device": "pager"},
    ):
        with pytest.raises(ConfigError):
            Settings(**wrong)


@pytest.mark.parametrize(
    ("weights", "body", "dtype", "said"),
    [
        (SMALL, "", "double", "tensor\\(double\\)"),
        (SMALL[:, :1], "", "float", "logits of shape"),
    ],
)
def test_a_small_model_that_no_device_could_use(
    weights: np.ndarray, body: str, dtype: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=said):
        adopt.small_of(linear(tmp_path / "small.onnx", weights, body, dtype))


def test_a_small_model_of_other_names(tmp_path: Path) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> net (float[n, 3] input) => (float[n, 3] out) { out = Relu(input) }'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "other.onnx")
    with pytest.raises(DataError, match="takes input and gives out"):
        adopt.small_of(tmp_path / "other.onnx")
    with pytest.raises(DataError, match="no file"):
        adopt.small_of(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(DataError, match="no model"):
        adopt.small_of(tmp_path / "text.onnx")
