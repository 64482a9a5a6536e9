"""The closed loop on a tiny task: who learns what from whom, when, and that stopping changes nothing."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.evaluation import records as log
from duetto.models import Predict
from duetto.models.net import log_softmax
from duetto.programs import closed_loop
from duetto.programs.closed_loop import DAY, EVENING, MORNING, NIGHT, Settings, stored
from duetto.simulation.engine import Log, Saved, simulate
from duetto.simulation.fleet import fleet
from duetto.tasks import Task, pair
from duetto.tree import Tree
from duetto.types import Held, Local, Outcomes, Record

SETTINGS = Settings(days=3, rounds=9, cohort=3, tolerance_points=5.0, seed=4)


def lived(task: Task, made: dict[str, Tree], settings: Settings = SETTINGS, **world: Any) -> Log:
    """The whole program."""
    known = task.group("calibration")[0]
    small = stored(made["small"])
    policy = settings.policy.fit(
        Outcomes.of_classifiers(task.small.logits(small, known.x), task.large.logits(made["large"], known.x), known.y)
    )
    return simulate(
        fleet=fleet(
            "phones",
            task.users["device"],
            data=task.rows,
            memory=closed_loop.first(task, settings, made["small"], policy),
            seed=settings.seed,
        ),
        device=closed_loop.device(task, settings),
        cloud=closed_loop.cloud(task, settings, made["small"], made["large"]),
        seed=settings.seed,
        **world,
    )


@pytest.fixture(scope="module")
def task(tiny_task: Callable[..., Task]) -> Task:
    """A small one, whose small model has much to learn."""
    return tiny_task(1)


@pytest.fixture(scope="module")
def made(task: Task) -> dict[str, Tree]:
    """Its pair."""
    return pair.train(task)


@pytest.fixture(scope="module")
def life(task: Task, made: dict[str, Tree]) -> Log:
    """What happened."""
    return lived(task, made)


def of(records: Any, protocol: str, party: str | None = None) -> list[Record]:
    """The records of a protocol."""
    return [r for r in records if r.protocol == protocol and party in (None, r.party)]


def lines(records: Any) -> list[str]:
    """As they are written."""
    return [log.line(record) for record in records]


def remembered(life: Log) -> bytes:
    """What everybody remembers."""
    return trees.encode(life.memory)


def test_something_is_learned(task: Task, made: dict[str, Tree], life: Log) -> None:
    """Otherwise the tests below could not fail."""

    def accuracy(params: Callable[[str], Tree]) -> float:
        right = [
            task.small.logits(params(user), task.rows(user).part("stream").x).argmax(1)
            == task.rows(user).part("stream").y
            for user in task.users["device"]
        ]
        return float(np.concatenate(right).mean())

    before, after = accuracy(lambda user: stored(made["small"])), accuracy(lambda user: life.memory[user]["params"])
    assert after > before + 0.1
    answers = of(life.records, "answer")
    asked = np.mean([float(record.metrics["asked"]) for record in answers])
    assert 0.02 < asked < 0.98, "both ways of answering happen"


def test_the_same_seed_lives_the_same_life(task: Task, made: dict[str, Tree], life: Log) -> None:
    again = lived(task, made)
    assert lines(again.records) == lines(life.records)
    assert remembered(again) == remembered(life)
    assert lines(lived(task, made, replace(SETTINGS, seed=5)).records) != lines(life.records)


def test_labels_of_device_users_are_never_learned_from(
    tiny_task: Callable[..., Task], made: dict[str, Tree], life: Log
) -> None:
    """Labels by chance: whatever anybody remembers is the same, and every record but for its score."""
    garbage = tiny_task(1, device_labels=9)
    user = garbage.users["device"][0]
    assert (garbage.rows(user).y != tiny_task(1).rows(user).y).any()
    other = lived(garbage, made)
    assert remembered(other) == remembered(life)

    def unscored(record: Record) -> str:
        kept = {name: value for name, value in record.metrics.items() if name not in ("truth", "correct")}
        return log.line(replace(record, metrics=kept))

    assert [unscored(r) for r in other.records] == [unscored(r) for r in life.records]
    assert lines(other.records) != lines(life.records)


def test_every_input_of_the_stream_is_answered_and_taught_once(task: Task, life: Log) -> None:
    for user in task.users["device"]:
        stream = sorted(task.rows(user).parts["stream"].tolist())
        assert sorted(record.step for record in of(life.records, "answer", user)) == stream
        taught = life.memory[user]["lessons"]
        assert sorted(taught["rows"].tolist()) == stream
        assert taught["logits"].shape == (len(stream), 3)


def test_a_lesson_is_what_the_cloud_said(task: Task, made: dict[str, Tree], life: Log) -> None:
    """On the first day the cloud is the large model alone, and sees inputs in eight bits."""
    user = task.users["device"][0]
    data, lessons = task.rows(user), life.memory[user]["lessons"]
    first = np.array_split(data.parts["stream"], SETTINGS.days)[0]
    for row in first.tolist():
        coded = closed_loop.INPUT.encode(closed_loop.INPUT.init(), {"x": data.x[row][None]}, (0,))[1]
        seen = closed_loop.INPUT.decode(coded)["x"]
        said = log_softmax(task.large.logits(made["large"], seen))[0]
        learned = lessons["logits"][lessons["rows"].tolist().index(row)]
        np.testing.assert_allclose(learned, said, atol=0.2)  # teaching calls share a range among their rows
        assert learned.argmax() == said.argmax() or np.ptp(np.sort(said)[-2:]) < 0.2


def test_teaching_asks_about_what_was_answered_alone_and_audits_about_the_calibration_part(
    task: Task, life: Log
) -> None:
    for user in task.users["device"]:
        data = task.rows(user)
        portions = np.array_split(data.parts["stream"], SETTINGS.days)
        by_cloud = {record.step for record in of(life.records, "answer", user) if record.metrics["by"] == "cloud"}
        teaching = of(life.records, "teach", user)
        assert [record.step for record in teaching] == list(range(SETTINGS.days))
        for portion, record in zip(portions, teaching, strict=True):
            assert record.metrics == {"calls": len(set(portion.tolist()) - by_cloud)}
        (audit,) = of(life.records, "audit", user)
        assert audit.metrics == {"calls": len(data.parts["calibration"])}
        assert sorted(life.memory[user]["audited"]["rows"].tolist()) == sorted(data.parts["calibration"].tolist())
        assert "failed" not in audit.metrics


def test_days_and_nights_do_not_mix(task: Task, life: Log) -> None:
    """Answers by day, teaching in the evening, rounds and publication at night, before anybody wakes."""
    nights = np.repeat(np.arange(SETTINGS.days), np.diff(SETTINGS.nights))
    assert [record.step for record in of(life.records, "rounds")] == list(range(SETTINGS.rounds))
    for record, night in zip(of(life.records, "rounds"), nights.tolist(), strict=True):
        assert (night + NIGHT) * DAY <= record.time < (night + 1 + MORNING) * DAY
    for record in of(life.records, "publish")[:-1]:
        assert (record.step + NIGHT) * DAY <= record.time < (record.step + 1 + MORNING) * DAY
    for record in of(life.records, "teach"):
        assert (record.step + EVENING) * DAY <= record.time < (record.step + NIGHT) * DAY
    for user in task.users["device"]:
        day_of = {
            row: day
            for day, portion in enumerate(np.array_split(task.rows(user).parts["stream"], SETTINGS.days))
            for row in portion.tolist()
        }
        for record in of(life.records, "answer", user):
            day = day_of[record.step]
            assert (day + MORNING) * DAY <= record.time <= (day + EVENING) * DAY + SETTINGS.deadline
    last = (SETTINGS.days + closed_loop.AUDIT) * DAY
    assert all(r.time >= last for protocol in ("audit", "tune") for r in of(life.records, protocol))


def test_a_night_s_rounds_add_up(task: Task, life: Log) -> None:
    for record in of(life.records, "rounds"):
        assert (record.metrics["cohort"], record.metrics["failed"]) == (SETTINGS.cohort, 0)
        assert record.cost.up_bytes > 0 < record.cost.down_bytes
    assert SETTINGS.nights[0] == 0
    assert SETTINGS.nights[-1] == SETTINGS.rounds
    assert int(life.memory["cloud"]["version"]) == SETTINGS.rounds


def test_everybody_has_what_was_published(task: Task, life: Log) -> None:
    cloud = life.memory["cloud"]
    for record in of(life.records, "publish"):
        assert record.metrics["missed"] == 0
    for user in task.users["device"]:
        mine = life.memory[user]
        assert trees.encode(mine["policy"]) == trees.encode(cloud["policy"])
        assert int(mine["version"]) == SETTINGS.days
        assert trees.encode(mine["params"]) != trees.encode(cloud["fleet"]), "each has its own by now"
    assert np.isfinite(cloud["policy"]["temperature"])


def test_the_threshold_is_set_from_the_audits_alone(task: Task, life: Log) -> None:
    small, large = [], []
    for user in task.users["device"]:
        mine = life.memory[user]
        small.append(task.small.logits(mine["params"], task.rows(user).x[mine["audited"]["rows"]]))
        large.append(mine["audited"]["logits"])
    audits = [{"small": own, "large": said} for own, said in zip(small, large, strict=True)]
    cloud = life.memory["cloud"]
    expected = closed_loop.audited(task, SETTINGS, audits, cloud["fleet"], cloud["large"])
    assert trees.encode(expected.state) == trees.encode(cloud["policy"])
    kept = expected.part.scores(expected.state, _seen(np.concatenate(small))) >= float(expected.state["threshold"])
    apart = np.concatenate(small).argmax(1) != np.concatenate(large).argmax(1)
    assert 0.5 * (kept & apart).mean() <= SETTINGS.tolerance_points / 100


def _seen(logits: np.ndarray) -> Any:
    from duetto.types import Seen

    return Seen(stage=1, answer=logits, size=len(logits))


def test_a_device_s_own_model_is_eight_bits(task: Task, life: Log) -> None:
    """A fixed point of storing."""
    for user in task.users["device"]:
        params = life.memory[user]["params"]
        assert trees.encode(stored(params)) == trees.encode(params)
        for _, leaf in trees.leaves(params):
            rows = leaf if leaf.ndim > 1 else leaf[None]
            assert all(len(np.unique(row)) <= 256 for row in rows)


def test_answers_come_from_the_model_and_the_threshold_of_the_day(task: Task, made: dict[str, Tree], life: Log) -> None:
    known = task.group("calibration")[0]
    small = stored(made["small"])
    first = SETTINGS.policy.fit(
        Outcomes.of_classifiers(task.small.logits(small, known.x), task.large.logits(made["large"], known.x), known.y)
    )
    for user in task.users["device"]:
        data = task.rows(user)
        today = np.array_split(data.parts["stream"], SETTINGS.days)[0]
        own = task.small.logits(small, data.x[today])
        sure = first.part.scores(first.state, _seen(own)) >= float(first.state["threshold"])
        given = {record.step: record.metrics for record in of(life.records, "answer", user)}
        assert [given[row]["asked"] for row in today.tolist()] == (~sure).astype(int).tolist()
        assert [given[row]["own"] for row in today.tolist()] == own.argmax(1).tolist()


def test_stopping_and_going_on_changes_nothing(task: Task, made: dict[str, Tree], life: Log) -> None:
    saves: list[tuple[int, bytes]] = []
    watched = lived(task, made, on_save=lambda now: saves.append((now.records, trees.encode(now.state))))
    assert lines(watched.records) == lines(life.records)
    assert len(saves) >= SETTINGS.rounds
    for records, state in [*saves[:: max(1, len(saves) // 5)], saves[-1]]:
        rest = lived(task, made, resume=Saved(trees.decode(state), records))
        assert lines([*life.records[:records], *rest.records]) == lines(life.records), f"after {records} records"
        assert remembered(rest) == remembered(life), f"after {records} records"


def test_a_cloud_that_cannot_be_reached_is_lived_without(task: Task, made: dict[str, Tree]) -> None:
    """A deadline that nobody can meet: every answer is the device's own, and the evening teaches all."""
    life = lived(task, made, replace(SETTINGS, deadline=1e-6, days=1, rounds=2))
    for user in task.users["device"]:
        answers = of(life.records, "answer", user)
        assert {record.metrics["by"] for record in answers} == {user}
        (teaching,) = of(life.records, "teach", user)
        assert teaching.metrics["calls"] == len(answers)
    assert any("no answer within" in str(record.metrics["why"]) for record in of(life.records, "answer"))


def test_the_fleet_s_model_joins_if_it_is_a_peer_and_calibration_users_do_not_lose(
    task: Task, made: dict[str, Tree], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = trees.map(lambda leaf: -50 * leaf, made["small"])
    patient = replace(SETTINGS, tolerance_points=100.0)
    assert set(closed_loop.joined(task, SETTINGS, made["large"], wrong)) == {"0"}
    assert set(closed_loop.joined(task, patient, made["large"], wrong)) == {"0"}, "it is no peer"
    monkeypatch.setattr(closed_loop, "PEER_POINTS", 100.0)
    assert set(closed_loop.joined(task, SETTINGS, made["large"], wrong)) == {"0"}, "calibration users lose by it"
    assert set(closed_loop.joined(task, patient, made["large"], wrong)) == {"0", "1"}


def test_audits_without_inputs_leave_the_calibration_users(task: Task, made: dict[str, Tree]) -> None:
    empty = {"small": np.zeros((0, 3), np.float32), "large": np.zeros((0, 3), np.float32)}
    policy = closed_loop.audited(task, SETTINGS, [empty], made["small"], {"0": made["large"]})
    known = task.group("calibration")[0]
    said = closed_loop.mixture(task).logits({"0": made["large"]}, known.x)
    expected = SETTINGS.policy.fit(Outcomes.of_classifiers(task.small.logits(made["small"], known.x), said, known.y))
    assert trees.encode(policy.state) == trees.encode(expected.state)


def test_nobody_s_audit_leaves_them_too(task: Task, made: dict[str, Tree]) -> None:
    policy = closed_loop.audited(task, SETTINGS, [], made["small"], {"0": made["large"]})
    assert isinstance(policy, Held)


def test_an_audit_tells_answers_and_no_input(task: Task, made: dict[str, Tree]) -> None:
    user = task.users["device"][0]
    audited = {"rows": np.array([2, 0]), "logits": np.ones((2, 3), np.float32)}
    local = Local(task.rows(user), {"params": made["small"], "audited": audited})
    _, said = closed_loop.Audit(Predict(task.small))(local, {}, (0,), "cloud")
    assert sorted(said) == ["large", "small"]
    np.testing.assert_array_equal(said["small"], task.small.logits(made["small"], task.rows(user).x[[2, 0]]))
    np.testing.assert_array_equal(said["large"], audited["logits"])


@pytest.mark.parametrize("setting", [{"days": 0}, {"rounds": 2, "days": 3}, {"cohort": 0}, {"deadline": 0.0}])
def test_settings_that_cannot_be_are_told(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Settings(**setting)


@pytest.mark.parametrize(
    ("days", "rounds"),
    [
        (1, 1),
        (4, 150),
        (4, 4),
        (7, 28),
    ],
)
def test_later_nights_have_more_rounds_and_none_has_none(days: int, rounds: int) -> None:
    nights = np.diff(Settings(days=days, rounds=rounds).nights)
    assert nights.sum() == rounds
    assert (np.diff(nights) >= 0).all()
    assert nights.min() >= 1
