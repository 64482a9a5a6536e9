"""Routers side by side: resumable, paired by user, and beside what they are measured against."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from duetto.errors import ConfigError, DataError
from duetto.evaluation import pareto, users
from duetto.policies import OPINIONS, Ensemble
from duetto.programs import routing
from duetto.programs.routing import BASELINES, ROUTERS, Comparison, Outcome, Router, Settings, areas, both, given, lines

NAMES = (*BASELINES, "margin", "max-softmax", "gain-logistic", "features-network", "ensemble-2", "ensemble-together")
WHAT = Comparison(("digits",), NAMES, (0,), Settings(siblings=3, redraws=40))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Outcome]]:
    folder = tmp_path_factory.mktemp("routing") / "run"
    return folder, routing.compare(WHAT, folder, cache=folder.parent / "cache")


def of(found: tuple[Path, list[Outcome]], name: str) -> Outcome:
    return next(each for each in found[1] if each.name == name)


def test_chance_and_the_oracle_are_the_ends(found: tuple[Path, list[Outcome]]) -> None:
    random, oracle = of(found, "random"), of(found, "oracle-gain")
    assert random.area == pytest.approx((random.small + random.large) / 2)
    assert (random.oracle, oracle.oracle) == pytest.approx((0, 1))
    for each in found[1]:
        if each.name != "ensemble-together":  # it has another small answer
            assert each.area <= oracle.area + 1e-12
            assert (each.small, each.large) == (random.small, random.large)
    assert random.apgr == pytest.approx(0.5) or math.isnan(random.apgr)


def test_the_price_of_the_device_is_in_the_row(found: tuple[Path, list[Outcome]]) -> None:
    assert {each.name: each.compute for each in found[1] if each.compute > 1} == {
        "ensemble-2": 2,
        "ensemble-together": 3,
    }
    for router in ROUTERS.values():
        assert router.siblings > 1 or not isinstance(router.policy, Ensemble)


def test_areas_are_those_of_the_curve() -> None:
    draw = np.random.default_rng(0)
    score, small, large = (draw.integers(0, 5, 60).astype(float) for _ in range(3))
    told = replace(_outcomes(60), small=small, large=large)
    drawn = list(users.redraws(told.users, key=("test",), n=5))
    for weight, area in zip(drawn, areas(score, told, drawn), strict=True):
        ask, accuracy = pareto.curve(score, small, large, told.shares * weight)
        assert area == pytest.approx(np.trapezoid(accuracy, ask))


def test_differences_are_paired_with_the_best_threshold(found: tuple[Path, list[Outcome]]) -> None:
    table = {line.name: line for line in lines(found[1])}
    best = max((of(found, name) for name in ("margin", "max-softmax")), key=lambda each: each.area)
    mine = of(found, "features-network")
    over = table["features-network"].over
    assert over is not None
    assert over[0] == pytest.approx(mine.area - best.area)
    apart = np.subtract(mine.areas, best.areas)
    assert over[1:] == pytest.approx(tuple(np.quantile(apart, [0.025, 0.975])))
    assert table["margin"].over is None
    assert table["random"].over is None
    assert lines([of(found, "random")])[0].over is None


def test_what_is_there_is_not_done_again(found: tuple[Path, list[Outcome]]) -> None:
    folder, outcomes = found
    place = folder / "digits-seed-0"
    before = {path: path.stat().st_mtime_ns for path in place.glob("*.json")}
    (place / "margin.json").unlink()
    heard: list[str] = []
    again = routing.compare(WHAT, folder, lambda what, done, of: heard.append(what), folder.parent / "cache")
    assert [each.areas for each in again] == [each.areas for each in outcomes]
    assert [what for what in heard if what.endswith(NAMES)] == ["digits, seed 0: margin"]
    assert all(path.stat().st_mtime_ns == at for path, at in before.items() if path.name != "margin.json")


def test_a_page_and_a_figure_a_task(found: tuple[Path, list[Outcome]]) -> None:
    folder, outcomes = found
    pages = routing.pictures(outcomes, folder)
    assert [page.name for page in pages] == ["report.html"]
    text = pages[0].read_text()
    assert all(name in text for name in NAMES)
    figure = (pages[0].parent / "routers.svg").read_text()
    assert all(name in figure for name in NAMES)
    drawn = [curve.label for curve in routing.result(outcomes, "x", 1).curves if not curve.reference]
    assert len(drawn) == 2
    assert set(drawn) & {"margin", "max-softmax"}, "the best threshold is always there"


def test_an_ensemble_may_answer_together() -> None:
    from duetto.programs.heard import Heard

    draw = np.random.default_rng(1)
    siblings = draw.normal(size=(50, 3, 4))
    truth = draw.integers(0, 4, 50)
    said = Heard(np.arange(50), truth, siblings[:, 0], siblings[:, 1], siblings, draw.normal(size=(50, 2)))
    p = np.exp(siblings) / np.exp(siblings).sum(2, keepdims=True)
    told = given(said, Router(Ensemble(), siblings=3, together=True))
    assert told.small.tolist() == (p.mean(1).argmax(1) == truth).tolist()
    assert np.exp(np.asarray(told.seen.answer)) == pytest.approx(p.mean(1))
    twice = both([told, told])
    assert len(twice) == 100
    assert twice.seen.features is None
    assert twice.seen.scores is not None
    assert np.shape(twice.seen.scores) == (100, 3, 4)


def test_every_measure_of_an_ensemble_has_a_name_that_is_known() -> None:
    assert {router.policy.measure for router in ROUTERS.values() if isinstance(router.policy, Ensemble)} <= set(
        OPINIONS
    )


def test_what_cannot_be_done_is_one_line(found: tuple[Path, list[Outcome]], tmp_path: Path) -> None:
    folder, _ = found
    with pytest.raises(ConfigError, match="luck"):
        routing.compare(replace(WHAT, names=("luck",)), tmp_path)
    with pytest.raises(ConfigError, match="another comparison"):
        routing.compare(replace(WHAT, settings=Settings(siblings=4)), folder)
    with pytest.raises(ConfigError, match="siblings"):
        Settings(siblings=1)
    path = tmp_path / "broken.json"
    path.write_text(json.dumps({"task": "digits"}))
    with pytest.raises(DataError, match=r"broken\.json"):
        Outcome.load(path)


def _outcomes(n: int) -> routing.Outcomes:
    from duetto.types import Outcomes, Seen

    return Outcomes(np.zeros(n), np.ones(n), Seen(stage=1, answer=np.zeros((n, 2)), size=n), np.arange(n) % 7)
