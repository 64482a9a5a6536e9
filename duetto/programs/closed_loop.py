"""The closed loop: answer together, remember what the cloud said, learn from it, publish, recalibrate.

Two roles, one for every device and one for the cloud, that know no world: the clock is the event loop's. A day, a
device answers its share of inputs; in the evening it asks the cloud about those that it answered alone (*teaching*
calls). At night the cloud runs federated rounds of distillation over what the devices were taught, publishes the
mean of the night's late models, and sets the threshold anew on its calibration users; the fleet's model joins the
large one (a model over models), so the next day's teacher is better. After the last night every device personalises
its own copy, asks the cloud about a part of its inputs to check itself (*audit* calls), and the threshold is set once
more, from these answers alone.

Raw inputs are kept by nobody but their device; what leaves it to be learned from are updates.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from duetto import tree as trees
from duetto.algorithms import taught
from duetto.codecs import Quantise, Zstd
from duetto.errors import ConfigError
from duetto.models import Mixture, Predict
from duetto.policies import Calibrated, Uniform
from duetto.protocols import Coded, Unanswered, answer
from duetto.protocols.collect import together
from duetto.protocols.publish import Adopt, publish
from duetto.protocols.rounds import begun, one_round
from duetto.tasks import Task
from duetto.training import Client, Tune
from duetto.tree import Tree
from duetto.types import (
    Chain,
    Codec,
    Group,
    Held,
    Key,
    Local,
    Outcomes,
    Party,
    Peer,
    Record,
    Replies,
    Reply,
    Rows,
    Skill,
    rng,
)

DAY = 86400.0  # seconds
MORNING, EVENING, NIGHT = 8 / 24, 22 / 24, 26 / 24  # of a day: inputs come between morning and evening
PEER_POINTS = 1.0  # how much less accurate a model may be that still joins the large one
AUDIT, RECALIBRATION = 7 / 24, 7.5 / 24  # of the day after the last night


@dataclass(frozen=True)
class Settings:
    """What the program is run with; what is trained, and how, belongs to the task.

    Attributes:
        days: over which the stream is spread, each followed by a night of learning.
        rounds: federated rounds in all; a night gets its share by how much has been taught by then.
        cohort: devices a round.
        final_lr: a night's last learning rate as a share of its first.
        deadline: seconds that the cloud may take to answer; afterwards the device's own answer stands.
        tolerance_points: how much accuracy the cascade may lose against the large model.
        score: what the device's confidence is measured by.
        seed: of everything that is drawn here.
    """

    days: int = 2
    rounds: int = 150
    cohort: int = 6
    final_lr: float = 0.1
    deadline: float = 2.0
    tolerance_points: float = 0.3
    score: str = "max_softmax"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.days < 1 or self.rounds < self.days or self.cohort < 1 or not self.deadline > 0:
            raise ConfigError(
                f"{self.days} days with {self.rounds} rounds of {self.cohort} devices, deadline {self.deadline} s",
                "there must be a day, a round for each night, a device in a round, and time to answer",
            )

    @property
    def nights(self) -> list[int]:
        """[days + 1] the round with which each night begins, and their number."""
        taught = np.arange(1, self.days + 1)
        each = 1 + (self.rounds - self.days) * taught // taught.sum()  # one round is every night's
        each[self.days - (self.rounds - each.sum()) :] += 1  # what is left over is the last nights'
        return [0, *np.cumsum(each).tolist()]

    @property
    def policy(self) -> Calibrated:
        """The threshold policy, unfitted."""
        return Calibrated(score=self.score, tolerance_points=self.tolerance_points, by="example")


INPUT: Codec[Any] = Chain((Quantise(8), Zstd(1)))
"""How inputs cross to the cloud."""

MODEL: Codec[Any] = Chain((Quantise(8, "channel"), Zstd(1)))
"""How models and updates cross, and how a device stores its model: eight bits a weight."""


def mixture(task: Task) -> Mixture:
    """What answers in the cloud: the large model, alone or joined by what the fleet learned."""
    return Mixture((task.large, task.small))


def question(task: Task) -> Coded:
    """What a device asks the cloud."""
    return Coded(Predict(mixture(task), "large"), there=INPUT)


def stored(params: Tree) -> Tree:
    """Parameters as they are after a device has stored them."""
    return MODEL.decode(MODEL.encode(MODEL.init(), params, ("stored",))[1])


# ------------------------------------------------------------------------------------------------------- device


def device(task: Task, settings: Settings) -> Party:
    """The device's party; a fleet gives its data and first memory (:func:`first`)."""
    small, asks, seed = Predict(task.small), question(task), settings.seed

    async def living(me: Peer, cloud: Peer, local: Local) -> AsyncIterator[Record]:
        data: Rows = local.data
        for day in range(int(local.memory["day"]), settings.days):
            heard: dict[int, np.ndarray] = {}
            portion = np.array_split(data.parts["stream"], settings.days)[day]
            for row, arrival in zip(portion.tolist(), _arrivals(len(portion), (seed, me.name, day)), strict=True):
                await _until((day + arrival) * DAY)
                try:
                    given = await answer(
                        data.x[row],
                        me=me,
                        exits={0: small},
                        peers={"cloud": cloud},
                        question=asks,
                        policy=Held(settings.policy, local.memory["policy"]),
                        key=(seed, "stream", me.name, row),
                        deadline=settings.deadline,
                    )
                except Unanswered as fault:
                    yield Record("unanswered", row, {"failure": str(fault)})
                    continue
                if given.party == cloud.name:
                    heard[row] = given.tree["logits"]
                yield Record.of(given, truth=int(data.y[row]), step=row)
            await _until((day + EVENING) * DAY)
            rest = [row for row in _whole(data, portion) if row not in heard]
            reply = await _ask_about(rest, data, cloud, asks, (seed, "teach", me.name, day))
            if reply.tree is not None:
                heard.update(zip(rest, reply.tree["logits"], strict=True))
            # Answering changes nothing that is kept, so a day that is cut short is lived again from its start.
            local.memory = {**local.memory, "lessons": _more(local.memory["lessons"], heard), "day": np.int64(day + 1)}
            yield _calls("teach", day, len(rest), reply, len(portion) - len(_whole(data, portion)))
        if int(local.memory["day"]) == settings.days:
            await _until((settings.days + AUDIT) * DAY)
            tuned = await me.ask(Tune(task.tune, MODEL), {}, key=(seed, "tune", me.name))
            checked = _whole(data, data.parts["calibration"])
            reply = await _ask_about(checked, data, cloud, asks, (seed, "audit", me.name))
            audited = {} if reply.tree is None else dict(zip(checked, reply.tree["logits"], strict=True))
            after = {"audited": _more(_nothing(task), audited), "day": np.int64(settings.days + 1)}
            local.memory = {**local.memory, **after}
            broken = len(data.parts["calibration"]) - len(checked)
            yield _calls("audit", settings.days, len(checked), reply, broken)
            failed: dict[str, float | str] = {"failed": int(tuned.tree is None)}
            if tuned.failure:
                failed["failure"] = tuned.failure
            yield Record("tune", settings.days, failed, tuned.cost)

    return Party(roles=(living,), skills=(Predict, Client, Tune, Adopt, Audit))


def fitted(task: Task, settings: Settings, small: Tree, large: Tree) -> Held[Any]:
    """The threshold that devices begin with, from the calibration users."""
    known = task.group("calibration")[0]
    own = task.small.logits(stored(small), known.x)
    return settings.policy.fit(Outcomes.of_classifiers(own, task.large.logits(large, known.x), known.y))


def first(task: Task, settings: Settings, small: Tree, policy: Held[Any]) -> Mapping[str, Any]:
    """What every device remembers when it is first switched on."""
    return {
        "params": stored(small),
        "version": np.int64(0),
        "policy": policy.state,
        "lessons": _nothing(task),
        "day": np.int64(0),
    }


@dataclass(frozen=True)
class Audit(Skill):
    """What the device and the cloud said about the audited inputs: ``{"small", "large"}`` logits, no input."""

    predict: Predict

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Answer the audited inputs with the model as it is now."""
        audited = local.memory["audited"]
        own = self.predict.net.logits(local.memory[self.predict.slot], local.data.x[audited["rows"]])
        return local, {"small": own, "large": audited["logits"]}


def _arrivals(n: int, key: Key) -> list[float]:
    """When in the day each input comes, as a share of it, in order."""
    drawn = rng((*key, "arrivals")).uniform(MORNING, EVENING, n)
    return [float(at) for at in np.sort(drawn)]


def _whole(data: Rows, rows: np.ndarray) -> list[int]:
    """The rows whose inputs are finite: one that is broken must not cost the others their answers."""
    return [row for row in rows.tolist() if np.isfinite(data.x[row]).all()]


async def _until(time: float) -> None:
    await asyncio.sleep(max(0.0, time - asyncio.get_running_loop().time()))


async def _ask_about(rows: list[int], data: Rows, cloud: Peer, asks: Coded, key: Key) -> Reply:
    if not rows:
        return Reply(cloud.name, failure="nothing to ask")
    return await asks.asked_of(cloud, {"x": data.x[rows]}, key=key)


def _calls(protocol: str, day: int, calls: int, reply: Reply, broken: int) -> Record:
    metrics: dict[str, float | str] = {"calls": calls if reply.tree is not None else 0}
    failures = [f"{broken} inputs are not finite"] if broken else []
    if calls and reply.failure:
        failures.append(reply.failure)
    if failures:
        metrics["failure"] = "; ".join(failures)
    return Record(protocol, day, metrics, reply.cost)


def _nothing(task: Task) -> Tree:
    return {"rows": np.zeros(0, np.int64), "logits": np.zeros((0, task.small.classes), np.float32)}


def _more(lessons: Tree, heard: Mapping[int, np.ndarray]) -> Tree:
    if not heard:
        return lessons
    rows = np.array(sorted(heard), np.int64)
    logits = np.stack([heard[row] for row in rows.tolist()]).astype(np.float32)
    return {
        "rows": np.concatenate([lessons["rows"], rows]),
        "logits": np.concatenate([lessons["logits"], logits]),
    }


# -------------------------------------------------------------------------------------------------------- cloud


def cloud(task: Task, settings: Settings, small: Tree, large: Tree) -> Party:
    """The cloud's party: the large model, the calibration users' data, and the role that teaches by night."""
    algorithm = taught.taught(task.learn, small, cohort=Uniform(size=settings.cohort), up=MODEL, down=MODEL)
    seed, both = settings.seed, mixture(task)
    known = task.group("calibration")[0]

    async def teaching(fleet: Group, local: Local) -> AsyncIterator[Record]:
        everyone = [fleet.peer(name) for name in fleet.names]
        for night in range(int(local.memory["night"]), settings.days):
            await _until((night + NIGHT) * DAY)
            begin, end = settings.nights[night], settings.nights[night + 1]
            for step in range(int(local.memory["rounds"]["step"]), end):
                now = taught.at(algorithm, step - begin, end - begin, settings.final_lr)
                memory, record = await one_round(now, fleet, local.memory, (seed, "round", step))
                # The mean of a night's last rounds is steadier than its last one (Polyak, Juditsky 1992).
                late = step - begin + 1 - 3 * (end - begin) // 4
                mean = memory["params"] if late < 1 else _mean(memory["mean"], memory["params"], late)
                history = memory["history"]
                if (step + 1) % max(1, settings.rounds // 20) == 0:  # kept for the learning curve
                    history = {**history, str(step + 1): stored(memory["params"])}
                local.memory = {**memory, "mean": mean, "history": history}
                yield record
            learned = stored(local.memory["mean"])
            members = joined(task, settings, large, learned)
            policy = settings.policy.fit(
                Outcomes.of_classifiers(task.small.logits(learned, known.x), both.logits(members, known.x), known.y)
            )
            news = {"params": local.memory["mean"], "version": np.int64(night + 1)}
            replies = [
                *await publish(everyone, news, key=(seed, "publish", night), codec=MODEL),
                *await publish(everyone, {"policy": policy.state}, key=(seed, "policy", night)),
            ]
            local.memory = {**local.memory, "large": members, "fleet": learned, "night": np.int64(night + 1)}
            yield _published(night, replies)
        if int(local.memory["night"]) == settings.days:
            await _until((settings.days + RECALIBRATION) * DAY)
            asked = (peer.ask(Audit(Predict(task.small)), {}, key=(seed, "audited", peer.name)) for peer in everyone)
            audits = [reply.tree for reply in await asyncio.gather(*asked) if reply.tree is not None]
            policy = audited(task, settings, audits, local.memory["fleet"], local.memory["large"])
            replies = [*await publish(everyone, {"policy": policy.state}, key=(seed, "recalibrate"))]
            local.memory = {**local.memory, "policy": policy.state, "night": np.int64(settings.days + 1)}
            yield _published(settings.days, replies)

    memory = begun(algorithm, {"large": {"0": large}, "mean": small, "history": {}, "night": np.int64(0)})
    return Party(roles=(teaching,), skills=(Predict,), local=Local(None, memory))


def joined(task: Task, settings: Settings, large: Tree, learned: Tree) -> Tree:
    """The cloud's members from now on: the fleet's model joins if it is a peer, and calibration users do not lose.

    Averaging helps among models of about the same quality; a much worse one only disturbs the large model.
    """
    known = task.group("calibration")[0]

    def accuracy(members: Tree) -> float:
        return float((mixture(task).logits(members, known.x).argmax(1) == known.y).mean())

    alone, both = {"0": large}, {"0": large, "1": learned}
    peer = accuracy({"1": learned}) >= accuracy(alone) - PEER_POINTS / 100
    return both if peer and accuracy(both) >= accuracy(alone) - settings.tolerance_points / 100 else alone


def audited(task: Task, settings: Settings, audits: list[Tree], learned: Tree, large: Tree) -> Held[Any]:
    """The threshold from what devices and cloud said about the audited inputs, whose labels nobody knows.

    A disagreement costs at most one right answer; how much it costs on average is measured on the calibration
    users, whose labels the cloud knows, and never taken to be below a half.
    """
    known = task.group("calibration")[0]
    both = mixture(task)
    own, best = (logits.argmax(1) for logits in (task.small.logits(learned, known.x), both.logits(large, known.x)))
    apart = own != best
    cost = float(((best == known.y) * 1.0 - (own == known.y))[apart].mean()) if apart.any() else 1.0
    audits = [audit for audit in audits if len(audit["small"])]
    if not audits:
        return settings.policy.fit(
            Outcomes.of_classifiers(task.small.logits(learned, known.x), both.logits(large, known.x), known.y)
        )
    small, big = (np.concatenate([audit[name] for audit in audits]) for name in ("small", "large"))
    return replace(settings.policy, factor=min(1.0, max(0.5, cost))).fit(Outcomes.of_classifiers(small, big))


def _mean(mean: Tree, params: Tree, count: int) -> Tree:
    """The mean of ``count`` trees, of which ``params`` is the last."""
    return trees.add(mean, trees.scale(trees.subtract(params, mean), 1 / count))


def _published(night: int, replies: Replies) -> Record:
    missed = [reply.sender for reply in replies if reply.failure]
    return Record("publish", night, {"devices": len(replies), "missed": len(missed)}, together(replies))
