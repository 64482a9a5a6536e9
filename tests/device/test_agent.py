"""The device as an application embeds it, without a network: answers, what is kept, and what is not."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.device.agent import Device, Timing
from duetto.device.consenting import Withheld
from duetto.device.settings import Settings
from duetto.device.slots import Slots
from duetto.errors import ConfigError, DataError
from duetto.models import Mlp, export
from duetto.policies import Calibrated, Threshold
from duetto.policies.artefact import Artefact, save, told
from duetto.protocols import Unanswered
from duetto.protocols.deliver import FEEDBACK
from duetto.types import Held

NET = Mlp((4,), 3, (8,))
PARAMS = NET.init(0)
X = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export.onnx(NET, PARAMS, tmp_path_factory.mktemp("model") / "small.onnx")


def run(main: Any) -> Any:
    return asyncio.run(asyncio.wait_for(main, 60))


def test_it_answers_by_itself_and_keeps_a_record(small: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with Device(tmp_path, small=small, settings=Settings("raw"), name="phone", session="s") as device:
            answers = [await device.answer(x) for x in X]
            assert [each.label for each in answers] == NET.logits(PARAMS, X).argmax(1).tolist()
            assert {each.answer.party for each in answers} == {"phone"}
            assert [each.number for each in answers] == [1, 2, 3, 4, 5, 6]
            assert not device.connected
            entries = (await device.outbox.batch()).entries
            told = [json.loads(entry.body) for entry in entries]
            assert [each["number"] for each in told] == [1, 2, 3, 4, 5, 6]
            assert [each["label"] for each in told] == [each.label for each in answers]
            assert {each["by"] for each in told} == {"phone"}

    run(main())


@pytest.mark.parametrize(("leaves", "keeps"), [("nothing", None), ("features", False), ("raw", True)])
def test_feedback_holds_the_input_only_where_the_user_lets_it_go(
    leaves: Any, keeps: bool | None, small: Path, tmp_path: Path
) -> None:
    async def main() -> None:
        async with Device(tmp_path, small=small, settings=Settings(leaves)) as device:
            answered = await device.answer(X[0])
            ticket = device.correct(answered, 2)
            if keeps is None:
                assert ticket is None
                assert (await device.outbox.batch()).entries == ()
                return
            assert ticket is not None
            sequence = await device.outbox.committed(ticket)
            (entry,) = [each for each in (await device.outbox.batch()).entries if each.kind == "feedback"]
            assert entry.sequence == sequence
            told = trees.decode(entry.body)
            assert int(told["label"]) == 2
            assert ("x" in told) == keeps
            with pytest.raises(DataError, match="a label 3 of 3 classes"):
                device.correct(answered, 3)

    run(main())


def test_no_more_inputs_leave_in_a_day_than_the_user_lets_go(small: Path, tmp_path: Path) -> None:
    settings = Settings("raw", samples_a_day=2)

    async def corrected() -> None:
        async with Device(tmp_path, small=small, settings=settings) as device:
            for _ in range(2):
                ticket = device.correct(await device.answer(X[0]), 2)
                assert ticket is not None
                await device.outbox.committed(ticket)

    async def kept() -> list[bool]:
        async with Device(tmp_path, small=small, settings=settings) as device:
            entries = (await device.outbox.batch()).entries
            return ["x" in trees.decode(entry.body) for entry in entries if entry.kind == FEEDBACK]

    run(corrected())
    run(corrected())  # as many after a restart
    assert run(kept()) == [True, True, False, False]  # what was right is told all the same


def test_an_input_that_may_not_leave_any_longer_stays(small: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with Device(tmp_path, small=small, settings=Settings("raw")) as device:
            ticket = device.correct(await device.answer(X[0]), 2)
            assert ticket is not None
            await device.outbox.committed(ticket)
            leaving = Withheld(device.outbox, lambda: device.settings)

            async def told() -> list[Any]:
                return [trees.decode(each.body) for each in (await leaving.batch()).entries if each.kind == FEEDBACK]

            assert ["x" in each for each in await told()] == [True]
            for leaves in ("redacted", "features"):  # consent is withdrawn before it was delivered
                device.settings = Settings(leaves)  # type: ignore[arg-type]
                (feedback,) = await told()
                assert set(feedback) == {"label", "logits", "number"}
            device.settings = Settings("nothing")
            assert (await leaving.batch()).entries == ()
            batch = await device.outbox.batch()
            assert await leaving.acknowledge(batch.session, [each.sequence for each in batch.entries]) == 2

    run(main())


def test_without_a_word_of_the_user_nothing_leaves(small: Path, tmp_path: Path) -> None:
    assert Device(tmp_path, small=small).settings == Settings("nothing")
    Settings("features").save(tmp_path / "settings.toml")
    assert Device(tmp_path, small=small).settings == Settings("features")


def test_without_a_model_and_a_cloud_there_is_no_answer(tmp_path: Path) -> None:
    async def main() -> None:
        async with Device(tmp_path, settings=Settings("raw")) as device:
            with pytest.raises(Unanswered, match="nobody is called cloud"):
                await device.answer(X[0])

    run(main())


def test_it_decides_by_the_policy_that_it_was_given(small: Path, tmp_path: Path) -> None:
    fitted = Held(Calibrated(), {"temperature": np.array(2.0), "threshold": np.array(0.25)})
    save(Artefact(fitted), tmp_path / "policy")

    async def why(policy: Any, folder: str) -> str:
        async with Device(tmp_path / folder, small=small, policy=policy) as device:
            return (await device.answer(X[0])).answer.why

    assert run(why(tmp_path / "policy", "a")) == "max_softmax against 0.25"
    assert run(why(Held.of(Threshold(0.0)), "b")) == "max_softmax against 0"
    assert "nobody is called cloud" in run(why(Held.of(Threshold(2.0)), "c"))


def test_an_outage_is_an_answer_at_once(small: Path, tmp_path: Path) -> None:
    async def main() -> None:
        nowhere = {"cloud": "127.0.0.1:9", "insecure": True, "name": "phone", "settings": Settings("raw")}
        policy = Held.of(Threshold(2.0))  # would always ask
        async with Device(tmp_path, small=small, policy=policy, timing=Timing(0.01, 0.01), **nowhere) as device:
            answered = [await device.answer(X[0]) for _ in range(20)]
            assert {each.answer.why for each in answered} == {"cloud is offline"}
            assert {each.answer.party for each in answered} == {"phone"}

    run(main())


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"small": "nowhere.onnx"}, "no model at nowhere.onnx"),
        ({"cloud": "127.0.0.1:9"}, "key.pem cannot be read"),
        ({"policy": "nowhere"}, "nowhere"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(given: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, DataError), match=why) as fault:
        Device(tmp_path, **given)
    assert "\n" not in str(fault.value)


def test_a_model_brings_its_policy_and_takes_it_away_again(small: Path, tmp_path: Path) -> None:
    slots, data = Slots(tmp_path / "models"), small.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    slots.path(sha256).parent.mkdir(parents=True)
    slots.path(sha256).write_bytes(data)
    fitted = Held(Calibrated(), {"temperature": np.array(2.0), "threshold": np.array(0.25)})
    (tmp_path / "models" / "told").mkdir()
    (tmp_path / "models" / "told" / "4.json").write_text(json.dumps({"policy": told(fitted)}))
    slots.switch(4, sha256, len(data))

    async def main() -> None:
        async with Device(tmp_path, policy=Held.of(Threshold(0.0)), settings=Settings("raw")) as device:
            answered = await device.answer(X[0])
            assert answered.answer.why == "max_softmax against 0.25"
            assert (answered.model, answered.answer.version) == (4, 4)
            record = json.loads((await device.outbox.batch()).entries[0].body)
            assert (record["model"], record["base"], record["own"]) == (4, answered.label, answered.label)
            device.slots.rollback("it was bad")
            device._take_up()
            assert device.policy.part == Threshold(0.0)

    run(main())
