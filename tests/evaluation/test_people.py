"""What each user got, from records: per user, over time, and beside the quantiles of all."""

import json
from collections.abc import Sequence

import numpy as np
import pytest

from duetto.evaluation import people
from duetto.evaluation.result import Result, Users, hashed
from duetto.types import Cost, Record

DAY = 86_400.0
NAMES = [column.measure for column in people.MEASURES]


def logged(n: int = 240, users: int = 6, days: float = 4, seed: int = 0, **metrics: float | str) -> list[Record]:
    """Answers of users who differ, over some days; those who asked were answered by the cloud, but for some."""
    draw = np.random.default_rng(seed)
    log = []
    for i in range(n):
        user = f"user-{int(draw.integers(users))}"
        asked, own, label = int(draw.random() < 0.4), int(draw.integers(3)), int(draw.integers(3))
        by = user if not asked or draw.random() < 0.2 else "cloud"
        told = {"asked": asked, "own": own, "label": label, "by": by, "correct": int(draw.random() < 0.7), **metrics}
        cost = Cost(float(draw.exponential()), int(draw.integers(900)), 7, float(draw.random()), float(draw.random()))
        log.append(Record("answer", i, told, cost, float(draw.random() * days * DAY), user, user))
    return log


def expected(log: Sequence[Record]) -> list[float]:
    """The measures of these records, one after the other."""
    heard = [r.metrics["own"] == r.metrics["label"] for r in log if r.metrics["by"] == "cloud"]
    seconds = [r.cost.seconds for r in log]
    return [
        float(np.mean([r.metrics["correct"] for r in log])),
        float(np.mean([r.metrics["asked"] for r in log])),
        float(np.mean(heard)) if heard else np.nan,
        *np.percentile(seconds, (50, 95)),
        1000 * float(np.mean([r.cost.up_bytes + r.cost.down_bytes for r in log])),
        1000 * float(np.mean([r.cost.joules for r in log])),
        1000 * float(np.mean([r.cost.dollars for r in log])),
        float(len(log)),
    ]


def result(**given: object) -> Result:
    return Result("run", "digits", (0,), "Found.", **given)  # type: ignore[arg-type]


def test_each_user_and_all_of_them() -> None:
    log = logged()
    found = people.of(log, result())
    assert list(found.streams) == [people.LIFE]
    stream = found.streams[people.LIFE]
    assert stream.users.tolist() == sorted(hashed(f"user-{i}") for i in range(6))
    for i in range(6):
        mine = [record for record in log if record.user == f"user-{i}"]
        at = stream.users.tolist().index(hashed(f"user-{i}"))
        np.testing.assert_allclose(stream.values[at], expected(mine))
    np.testing.assert_allclose(stream.quantiles, np.quantile(stream.values, (0.1, 0.5, 0.9), axis=0).T)


def test_over_time_in_round_parts() -> None:
    log = logged()
    stream = people.of(log, result()).streams[people.LIFE]
    assert (stream.edges.tolist(), stream.unit) == ([0, 1, 2, 3, 4], "days")
    mine = [record for record in log if record.user == "user-2"]
    own = stream.over[stream.users.tolist().index(hashed("user-2"))]
    for b in range(4):
        those = [record for record in mine if b * DAY <= record.time < (b + 1) * DAY]
        np.testing.assert_allclose(own[:, b], expected(those))
    np.testing.assert_allclose(stream.over_quantiles[0, 1], np.quantile(stream.over[:, 0, 1], (0.1, 0.5, 0.9)))


@pytest.mark.parametrize(
    ("days", "unit", "most"), [(1e-4, "seconds", 12), (0.05, "minutes", 12), (0.9, "hours", 12), (400, "days", 12)]
)
def test_parts_are_few_at_any_length(days: float, unit: str, most: int) -> None:
    stream = people.of(logged(days=days), result()).streams[people.LIFE]
    assert stream.unit == unit
    assert 4 <= len(stream.edges) - 1 <= most
    answered = np.nansum(stream.over[:, NAMES.index("answers")])
    assert answered == 240


def test_a_log_without_a_clock_or_truth_says_so() -> None:
    log = [Record("answer", i, {"asked": i % 2}, Cost(0.1 * i), user="ann") for i in range(4)]
    stream = people.of(log, result()).streams[people.LIFE]
    assert not len(stream.edges)
    told = dict(zip(NAMES, stream.values[0], strict=True))
    assert np.isnan(told["accuracy"])
    assert np.isnan(told["agreement"])
    assert told["offload_rate"] == 0.5
    shown = people.data(["run"], [people.of(log, result())], [hashed("ann")])
    (entry,) = shown["runs"][0]["streams"]
    assert not entry["clock"]
    assert entry["got"][hashed("ann")][0] is None
    assert people.of([Record("rounds", 0, party="cloud", user="cloud")], result()).names == set()
    assert people.chosen([people.of([], result())]) == ([], "All 0 users are here.")


def test_the_systems_that_were_scored_stand_beside_the_run() -> None:
    log = logged(40)
    for stage in ("before", "after"):
        for i, system in enumerate(("only_on_device", "cascade")):
            log += [
                record.measuring(system=system, stage=stage, asked=record.metrics["asked"] * i)
                for record in logged(40, seed=i)
            ]
    found = people.of(log, result())
    assert list(found.streams) == [
        "while it ran",
        "cascade, after learning",
        "only on device, after learning",
        "cascade, before learning",
        "only on device, before learning",
    ]


def test_many_streams_are_bounded() -> None:
    log = [Record("answer", 0, {"system": f"s{i}", "asked": 0}, Cost(), user="ann") for i in range(people.STREAMS + 3)]
    found = people.of(log, result())
    assert (len(found.streams), found.left_out) == (people.STREAMS, 3)


def test_users_are_those_of_the_result() -> None:
    log = logged(60, users=2)
    learning = [Record("teach", 0, {"calls": 3}, Cost(1.0, 10, 5, 2.0, 0.5), user="user-1")] * 2
    by_name = [hashed("user-0"), hashed("user-1")]
    by_seed = [hashed("0:user-0"), hashed("0:user-1")]
    for names in (by_name, by_seed):
        found = people.of([*log, *learning], result(users=Users((0.5, 0.6), (0.7, 0.8), names)))
        assert found.names == set(names)
        assert found.learned[names[1]] == (0.6, 0.8)
        assert found.beside == {names[1]: (2, Cost(2.0, 20, 10, 4.0, 1.0))}
    already = [Record("answer", 0, {"asked": 0}, Cost(), user=name) for name in by_name]
    assert people.of(already, result(users=Users((0.5, 0.6), (0.7, 0.8), by_name))).names == set(by_name)


def test_a_life_is_of_the_seed_that_is_scored_next() -> None:
    log = []
    for seed in (3, 4):
        log += [Record("answer", 0, {"asked": 0, "correct": seed - 3}, Cost(), user="ann")]
        log += [Record("answer", 0, {"asked": 0, "correct": 1, "system": "s", "seed": seed}, Cost(), user="ann")]
    names = [hashed("3:ann"), hashed("4:ann")]
    found = people.of(log, result(users=Users((0.5, 0.6), (0.7, 0.8), names)))
    life = found.streams[people.LIFE]
    assert {str(name): value[0] for name, value in zip(life.users, life.values, strict=True)} == {
        names[0]: 0.0,
        names[1]: 1.0,
    }


def fleet(users: int, seed: int = 0) -> people.People:
    draw = np.random.default_rng(seed)
    log = [
        Record(
            "answer", step, {"asked": 1, "correct": int(draw.random() < i / users)}, Cost(0.1), 60.0 * step, user=f"{i}"
        )
        for i in range(users)
        for step in range(5)
    ]
    return people.of(log, result())


def test_of_many_users_those_that_say_most() -> None:
    found = fleet(3000)
    stream = found.streams[people.LIFE]
    score = dict(zip(stream.users.tolist(), stream.values[:, 0].tolist(), strict=True))
    users, words = people.chosen([found])
    assert len(users) == len(set(users)) == people.SHOWN
    assert "Of 3,000 users 200 are here" in words
    rank = sorted(score, key=lambda name: (score[name], name))
    assert users == [name for name in rank if name in set(users)]
    assert set(users) >= {*rank[:50], *rank[-50:], *rank[1475:1525]}
    assert users == people.chosen([fleet(3000)])[0]
    text = people.embedded(people.data(["run"], [found], users))
    assert len(text) < 200_000
    every = people.data(["run"], [found], users)["runs"][0]["streams"][0]
    assert every["users"] == 3000
    np.testing.assert_allclose(every["all"][0], np.quantile(stream.values[:, 0], (0.1, 0.5, 0.9)), rtol=1e-5)


def test_users_whom_all_runs_have_come_first() -> None:
    both, one = fleet(4), fleet(8, seed=1)
    users, words = people.chosen([both, one])
    assert set(users[:4]) == both.names
    assert words == "All 8 users are here."
    users, words = people.chosen([fleet(150), fleet(3000, seed=1)])
    assert set(users[:150]) == {hashed(f"{i}") for i in range(150)}
    assert "Those that all runs have (150) come first." in words


def test_no_name_ends_the_element_that_holds_it() -> None:
    hostile = "</script><script>alert(1)</script><!--&"
    text = people.embedded({hostile: hostile})
    assert not set("<>&") & set(text)
    assert json.loads(text) == {hostile: hostile}
