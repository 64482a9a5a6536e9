"""The teacher: what devices tell becomes the next small model, which a few try before all have it.

A turn does what is due, and leaves the rest to the next one:

1. the releases are brought to where the registry's channels point;
2. a model that is tried is promoted or goes back, as the rule says (:mod:`duetto.cloud.promotion`);
3. where none is tried and enough feedback has come, there is a *lesson*: the large model answers the inputs that
devices
   sent, the small one is distilled from it (Hinton, Vinyals, Dean 2015) and trained on what users said, and measured by
   user on what each device sent last, which nothing was trained on; the policy is fitted anew to the two.

A lesson's version tells in its row up to which arrival it has read, so that the cursor and the version are one
transaction: a teacher that is killed at any moment learns the same again from its last version on, and nothing twice;
of two that teach at once one is heard. What a lesson leaves that does not help is a version, too, and nobody gets it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from duetto import tree as trees
from duetto.cloud.channels import MODEL, TELLS, VECTOR, offered
from duetto.cloud.feedback import Feedback
from duetto.cloud.onnx import Whole
from duetto.cloud.promotion import Promotion, Verdict
from duetto.cloud.registry import ROUNDS, Version
from duetto.cloud.service import Service
from duetto.cloud.site import Site
from duetto.cloud.trial import trial, tried
from duetto.errors import ConfigError, DataError, Error, WireError
from duetto.evaluation import users
from duetto.models import Net, export
from duetto.policies import Calibrated
from duetto.policies.artefact import told as policy_told
from duetto.protocols.channels import CANARY, STABLE
from duetto.protocols.deliver import FEEDBACK
from duetto.protocols.rounds import begun, one_round
from duetto.training import Adam, Client, CrossEntropy, Distil, sequential
from duetto.tree import Tree
from duetto.types import Algorithm, Held, Outcomes, Policy, Record, rng

_LOG = logging.getLogger(__name__)
BY = "teacher"
PARAMS = "safetensors"
_ROWS = 256  # of a pass of the large model: others wait for the same cores
_SHOWN = (0.1, 0.5, 0.9)


class Stopped(Exception):
    """The service ends; what was under way is begun again by the next one."""


@dataclass(frozen=True)
class Lesson:
    """What makes a lesson.

    Attributes:
        client: what is trained, and how; None is :func:`usual` of the network.
        least: new inputs before there is a lesson.
        held: the share of each device's new inputs, its last ones, that is held back to measure by.
        most: inputs of one device in a lesson, its last ones.
        replay: earlier lessons whose inputs are trained on again.
        policy: is fitted to what is held back; None leaves devices theirs.
        fitting: held-back inputs before it is.
        loss: points (hundredths) of accuracy that eight bits a weight may cost, with 95 % confidence over users.
        seed: of everything that is drawn.

    Raises:
        ConfigError: a number that cannot be.
    """

    client: Client | None = None
    least: int = 200
    held: float = 0.25
    most: int = 500
    replay: int = 3
    policy: Policy[Any] | None = field(default_factory=Calibrated)
    fitting: int = 50
    loss: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.least >= 1 and 0 < self.held < 1 and self.most >= 4 and self.replay >= 0 and self.loss >= 0):
            raise ConfigError(f"{self}", "least >= 1, 0 < held < 1, most >= 4, replay >= 0, loss >= 0")


def usual(net: Net) -> Client:
    """How a small model learns, unless told otherwise: half from the large model, half from what users said."""
    return Client(net, (CrossEntropy(0.5), Distil(0.5, 2.0)), Adam(1e-3, schedule="cosine"), 5, 32)


@dataclass(frozen=True, eq=False)
class Inputs:
    """Inputs that devices sent, as columns, in the order in which they came.

    Attributes:
        x: [n, *shape] float32.
        y: [n] what users said; -1 where nobody did.
        device: [n] whose.
        mark: [n] digests; the same input of the same device has the same.
    """

    x: np.ndarray
    y: np.ndarray
    device: np.ndarray
    mark: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    def rows(self, which: np.ndarray) -> Inputs:
        """Some of them."""
        return Inputs(self.x[which], self.y[which], self.device[which], self.mark[which])


def sent(feedback: Feedback, after: int, upto: int, shape: Sequence[int], classes: int) -> tuple[Inputs, int]:
    """The inputs among the feedback, and how many entries were none.

    Of an input that a device sent twice the last one stays. An entry of other shapes, with numbers that are not finite
    or a label that is no class is left out: devices send what they like.

    Args:
        feedback: the store.
        after, upto: arrivals; the first is not among them, the last one is.
        shape: of an input.
        classes: labels count from 0 to below it.
    """
    found: dict[tuple[str, bytes], tuple[np.ndarray, int]] = {}
    refused = 0
    for kept in feedback.arrivals(after, (FEEDBACK,)):
        if kept.arrival > upto:
            break
        try:
            told = trees.decode(kept.body)
            label = int(told["label"]) if "label" in told else -1
            if "x" not in told:
                continue
            x = np.asarray(told["x"], np.float32)
            if x.shape != tuple(shape) or not np.isfinite(x).all() or not -1 <= label < classes:
                raise ValueError("another shape, or no class")
        except (WireError, ValueError, TypeError, KeyError):
            refused += 1
            continue
        key = kept.device, hashlib.blake2b(x.tobytes(), digest_size=16).digest()
        if label < 0:
            label = found.pop(key, (x, -1))[1]  # what a user has said stands
        found.pop(key, None)
        found[key] = x, label
    x = np.stack([each for each, _ in found.values()]) if found else np.zeros((0, *shape), np.float32)
    y = np.array([label for _, label in found.values()], np.int64)
    device, mark = (np.array([key[i] for key in found]) for i in (0, 1))
    return Inputs(x, y, device, mark), refused


def parted(new: Inputs, before: Inputs, held: float, most: int) -> tuple[Inputs, Inputs]:
    """What is trained on, and what is held back: of each device's new inputs the last share, by time.

    Args:
        new: of this lesson; of each device its last ``most`` count.
        before: of earlier lessons, which are trained on again; what comes again in ``new`` is not held back.
        held: the share.
        most: of a device, of both.
    """
    back, on, due = np.zeros(len(new), bool), np.zeros(len(new), bool), 0.0
    seen = {(str(device), bytes(mark)) for device, mark in zip(before.device, before.mark, strict=True)}
    for device in np.unique(new.device):
        own = np.flatnonzero(new.device == device)[-most:]
        due += held * len(own)  # what is no whole input of one device is held back at the next ones
        last = own[len(own) - min(int(due), len(own)) :]
        due -= len(last)
        on[own] = True
        back[[i for i in last if (str(device), bytes(new.mark[i])) not in seen]] = True
    again = np.zeros(len(before), bool)
    for device in np.unique(before.device):
        again[np.flatnonzero(before.device == device)[-most:]] = True
    old, fresh = before.rows(again), new.rows(on & ~back)
    joined = Inputs(
        *(np.concatenate([getattr(old, name), getattr(fresh, name)]) for name in ("x", "y", "device", "mark"))
    )
    return joined, new.rows(back)


@dataclass(eq=False)
class Teacher:
    """Teaches a small model; one of what a service runs beside itself (``App.more``).

    Attributes:
        site: the cloud's folder.
        large: the large model, as the service has it.
        net: the small model.
        params: its first parameters; they are version 1, where the registry has none.
        model: its name there.
        lesson: what makes a lesson.
        rule: when a model goes to all.
        share: of the devices that try it first.
        every: seconds between two turns.
        policy: that goes with the first version; None leaves devices theirs.
        algorithm: from a network and parameters to what federated rounds run; None holds none.
        rounds: of learning together over the devices that are there, before a version.
        deadline: seconds for a round.
    """

    site: Site
    large: Any
    net: Net
    params: Tree
    model: str = "small"
    lesson: Lesson = Lesson()
    rule: Promotion = field(default_factory=Promotion)
    share: float = 0.1
    every: float = 60.0
    policy: Held[Any] | None = None
    algorithm: Callable[[Net, Tree], Algorithm] | None = None
    rounds: int = 10
    deadline: float = 600.0
    _over: threading.Event = field(default_factory=threading.Event, repr=False)

    # -------------------------------------------------------------------------------------------------- turns

    @asynccontextmanager
    async def __call__(self, service: Service) -> AsyncIterator[None]:
        """Teach beside a service, in a thread of its own, until it ends."""
        with ThreadPoolExecutor(1, "duetto-teacher") as thread:
            task = asyncio.ensure_future(self._teach(service, thread))
            try:
                yield
            finally:
                self._over.set()
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def _teach(self, service: Service, thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                for line in await loop.run_in_executor(thread, self.turn):
                    _LOG.info("%s: %s", self.model, line)
                if self.algorithm is not None and service.fleet.online:
                    await self.together(service, thread)
            except Stopped:
                return
            except Error as fault:
                _LOG.error("%s: %s", self.model, fault)
            await asyncio.sleep(self.every)

    def turn(self) -> list[str]:
        """Do what is due; what was done, a line each.

        Raises:
            Error: what could not be done now; the next turn tries it again.
        """
        done = self._begin()
        done += self._try()
        done += self._offer()
        verdict = self.verdict()
        if verdict is not None and verdict.move != "wait":
            done += self._follow(verdict)
        if tried(self.site, self.model) is None and (made := self._learn()) is not None:
            done += [made, *self._try(), *self._offer()]
        return done

    def verdict(self) -> Verdict | None:
        """What the rule says of the version that is tried; None where none is."""
        found = trial(self.site, self.model, self.rule)
        return None if found is None else found.verdict

    def _begin(self) -> list[str]:
        registry = self.site.registry
        versions = registry.versions(self.model)
        if not versions:
            kinds = self._artefacts(self.params, self.policy, np.zeros((0, *self.net.shape), np.float32), None)
            told = {"net": repr(self.net), "upto": 0, "after": 0, "tolerance": _TOLERANCE}
            versions = [registry.add(self.model, kinds, by=BY, trained_from=told, expected=0)]
        done = []
        for channel in (STABLE, CANARY):
            if registry.channel(self.model, channel) is None:
                first = registry.channel(self.model, STABLE) or versions[0]
                registry.promote(self.model, first.number, channel, by=BY, why="the first version", expected=0)
                done.append(f"version {first.number} is the first of {channel}")
        return done

    def _try(self) -> list[str]:
        """Let the canary try the newest version, where it helps: an earlier turn may have ended on the way."""
        registry = self.site.registry
        made, stable = registry.versions(self.model)[-1], self._stable()
        metrics = made.trained_from.get("metrics")
        if made.by != BY or metrics is None:
            return []
        if not registry.metrics(self.model, made.number):
            registry.measure(self.model, made.number, metrics, by=BY)
        known = {each.version for each in registry.history(self.model, CANARY)}
        fresh = (self.model, stable.number) in made.parents and made.number not in known
        if not fresh or metrics["gain"]["user_mean"] < 0 or tried(self.site, self.model) is not None:
            return []
        why = f"{100 * metrics['gain']['user_mean']:+.2f} points on held-back inputs"
        registry.promote(self.model, made.number, CANARY, by=BY, why=why, expected=stable.number)
        return [f"version {made.number} is tried: {why}"]

    def _offer(self) -> list[str]:
        made = offered(self.site, self.model, self.share)
        return [f"release {each.version} is offered to {each.channel}" for each in made]

    def _follow(self, verdict: Verdict) -> list[str]:
        registry = self.site.registry
        canary, stable = (registry.channel(self.model, channel) for channel in (CANARY, STABLE))
        assert canary is not None
        assert stable is not None
        if verdict.move == "promote":
            registry.promote(self.model, canary.number, STABLE, by=BY, why=verdict.why, expected=stable.number)
        elif self._back(verdict.why, canary.number) != stable.number:
            registry.promote(self.model, stable.number, CANARY, by=BY, why="to what is stable")
        registry.measure(self.model, canary.number, {"verdict": verdict.move, "why": verdict.why}, by=BY)
        did = "goes to all" if verdict.move == "promote" else "goes back"
        return [f"version {canary.number} {did}: {verdict.why}", *self._offer()]

    def _back(self, why: str, expected: int) -> int:
        return self.site.registry.roll_back(self.model, CANARY, by=BY, why=why, expected=expected).version

    # ------------------------------------------------------------------------------------------------ lessons

    def _learn(self) -> str | None:
        """A lesson, where one is due."""
        feedback, lesson = self.site.feedback, self.lesson
        stable, versions = self._stable(), self.site.registry.versions(self.model)
        after, upto = max(_read(each) for each in versions), 0
        for kept in feedback.arrivals(after, (FEEDBACK,)):
            upto = kept.arrival
        if not upto:
            return None
        new, refused = sent(feedback, after, upto, self.net.shape, self.net.classes)
        if len(new) < lesson.least:
            return None
        start = self._from(versions)
        before, _ = sent(feedback, start, after, self.net.shape, self.net.classes)
        trained, held = parted(new, before, lesson.held, lesson.most)
        if not len(trained) or not len(held):
            return None
        _LOG.info("%s: a lesson of %d inputs, arrivals %d to %d", self.model, len(trained), after + 1, upto)
        key = (lesson.seed, self.model, "lesson", after, upto)
        client = lesson.client or usual(self.net)
        params = trees.decode(self.site.registry.blobs.get(stable.artefacts[PARAMS].digest))
        teacher = self._large(trained.x)
        data = {"x": trained.x, "y": _labels(trained.y, teacher), "teacher": teacher}
        learned = sequential.run(client, {"params": params}, data, key, self._step).params
        told = {
            "after": after,
            "upto": upto,
            "replayed_from": start,
            "inputs": len(trained),
            "labelled": int((trained.y >= 0).sum()),
            "held": len(held),
            "devices": len(np.unique(new.device)),
            "refused": refused,
            "client": repr(client),
        }
        return self._made(learned, params, stable, held, trained.x, told)

    def _made(
        self, learned: Tree, before: Tree, stable: Version, held: Inputs, shown: np.ndarray, told: Mapping[str, Any]
    ) -> str:
        """Measure what was learned, and keep it as a version; the row says all, so that nothing is left to be done."""
        registry = self.site.registry
        newest = registry.versions(self.model)[-1].number
        large = self._large(held.x)
        truth = _labels(held.y, large)
        small = self.net.logits(learned, held.x)
        policy = self._policy(small, large, truth, held)
        self._step()
        kinds = self._artefacts(learned, policy, shown, (held, truth))
        correct = {"small": small, "before": self.net.logits(before, held.x), "large": large}
        scores = {name: users.by(logits.argmax(1) == truth, held.device) for name, logits in correct.items()}
        gain = float(users.user_mean(scores["small"]) - users.user_mean(scores["before"]))
        metrics: dict[str, Any] = {name: _measured(each) for name, each in scores.items()}
        low, high = users.paired(users.user_mean, scores["before"], scores["small"], key=(self.lesson.seed, "gain"))
        metrics["gain"] = {"user_mean": gain, "low": low, "high": high}
        about = {**told, "net": repr(self.net), "tolerance": _TOLERANCE, "metrics": metrics}
        parents = [(self.model, stable.number)]
        made = registry.add(self.model, kinds, by=BY, parents=parents, trained_from=about, expected=newest)
        line = f"{100 * gain:+.2f} points on {len(held)} held-back inputs of {len(scores['small'])} devices"
        return f"version {made.number}: {line}"

    def _policy(self, small: np.ndarray, large: np.ndarray, truth: np.ndarray, held: Inputs) -> Held[Any] | None:
        fit = getattr(self.lesson.policy, "fit", None)
        if fit is None or len(held) < self.lesson.fitting:
            return None
        fitted: Held[Any] = fit(Outcomes.of_classifiers(small, large, truth, held.device))
        return fitted

    def _artefacts(
        self, params: Tree, policy: Held[Any] | None, shown: np.ndarray, held: tuple[Inputs, np.ndarray] | None
    ) -> dict[str, str]:
        """Blobs: parameters, ONNX, what runs on devices (int8 where that loses nothing), its self-test, its policy."""
        put = self.site.registry.blobs.put
        with tempfile.TemporaryDirectory() as folder:
            path = export.onnx(self.net, params, Path(folder) / "small.onnx")
            kinds = {PARAMS: put(trees.encode(params)), "onnx": put(path.read_bytes())}
            runs = path
            if held is not None and len(shown):
                eight = export.quantised(path, Path(folder) / "int8.onnx", shown[: 4 * 64])
                kinds["onnx-int8"] = put(eight.read_bytes())
                if self._loses_nothing(path, eight, *held):
                    runs = eight
            kinds[MODEL] = put(runs.read_bytes())
            # Noise, for every device gets it: an input that somebody sent must not be among them.
            x = rng(("vector", self.model)).standard_normal((8, *self.net.shape)).astype(np.float32)
            kinds[VECTOR] = put(trees.encode({"x": x, "logits": Whole(runs, 1)({"x": x})["logits"]}))
        if policy is not None:
            kinds[TELLS] = put(json.dumps(policy_told(policy), sort_keys=True).encode())
        return kinds

    def _loses_nothing(self, path: Path, eight: Path, held: Inputs, truth: np.ndarray) -> bool:
        """Whether eight bits cost no more than what is allowed, with 95 % confidence over users."""
        scores = [
            users.by(Whole(each, 1)({"x": held.x})["logits"].argmax(1) == truth, held.device) for each in (path, eight)
        ]
        low, _ = users.paired(users.user_mean, *scores, key=(self.lesson.seed, "int8"))
        return low >= -self.lesson.loss / 100

    def _stable(self) -> Version:
        found = self.site.registry.channel(self.model, STABLE)
        if found is None or PARAMS not in found.artefacts:
            raise DataError(f"stable of {self.model} has no parameters", "promote a version that the teacher made")
        return found

    def _from(self, versions: Sequence[Version]) -> int:
        """The arrival after which inputs are trained on again."""
        lessons = [each for each in versions if _read(each) > each.trained_from.get("after", 0)]
        again = lessons[len(lessons) - self.lesson.replay :] if self.lesson.replay else []
        return min((int(each.trained_from["after"]) for each in again), default=max(map(_read, versions)))

    def _large(self, x: np.ndarray) -> np.ndarray:
        """What the large model says, ``[n, classes]``."""
        parts = []
        for start in range(0, len(x), _ROWS):
            self._step()
            parts.append(np.asarray(self.large[0:]({"x": x[start : start + _ROWS]})["logits"], np.float32))
        logits = np.concatenate(parts) if parts else np.zeros((0, self.net.classes), np.float32)
        if logits.shape[1] != self.net.classes:
            raise ConfigError(
                f"a large model of {logits.shape[1]} classes for a small one of {self.net.classes}", "name a pair"
            )
        return logits

    def _step(self, step: int = 0, steps: int = 0) -> None:
        if self._over.is_set():
            raise Stopped

    # ------------------------------------------------------------------------------------------------ together

    async def together(self, service: Service, thread: ThreadPoolExecutor) -> list[str]:
        """Federated rounds over the devices that are there, from stable on; their mean is a version like any other.

        It is measured on what the last lesson has held back, so there is none before the first lesson; and none while
        another version is tried. A service that ends in between has lost these rounds, and nothing else.

        Raises:
            Error: what could not be done now.
        """
        loop = asyncio.get_running_loop()
        assert self.algorithm is not None
        held = await loop.run_in_executor(thread, self._held)
        if held is None:
            return []
        stable = self._stable()
        params = trees.decode(self.site.registry.blobs.get(stable.artefacts[PARAMS].digest))
        algorithm = self.algorithm(self.net, params)
        memory = begun(algorithm, {})
        log: list[dict[str, float]] = []
        seen, number = 0, self.site.registry.versions(self.model)[-1].number
        for step in range(self.rounds):
            key = (self.lesson.seed, self.model, "round", number, step)
            memory, told = await one_round(algorithm, service.fleet, memory, key, self.deadline)
            seen += int(told.metrics.get("cohort", 0)) - int(told.metrics.get("failed", 0))
            log.append(_round(told))
            going = {"of": self.rounds, "log": log, "newest": number, "unix_seconds": time.time()}
            registry = self.site.registry
            await loop.run_in_executor(
                thread, partial(registry.measure, self.model, stable.number, {ROUNDS: going}, by=BY)
            )
        if not seen:
            return []
        about = {
            "after": 0,
            "upto": 0,
            "rounds": self.rounds,
            "replies": seen,
            "log": log,
            "client": repr(algorithm.client),
        }
        made = partial(self._made, memory["params"], params, stable, held, held.x, about)
        line = await loop.run_in_executor(thread, made)
        _LOG.info("%s: %s, by %d rounds with %d replies", self.model, line, self.rounds, seen)
        return [line]

    def _held(self) -> Inputs | None:
        """What the last lesson has held back; None where a version is tried, or the newest is of no lesson."""
        versions = self.site.registry.versions(self.model)
        if tried(self.site, self.model) is not None or not versions or "held" not in versions[-1].trained_from:
            return None
        told = versions[-1].trained_from
        shape = self.net.shape
        new, _ = sent(self.site.feedback, told["after"], told["upto"], shape, self.net.classes)
        before, _ = sent(self.site.feedback, told["replayed_from"], told["after"], shape, self.net.classes)
        held = parted(new, before, self.lesson.held, self.lesson.most)[1]
        return held if len(held) else None


_TOLERANCE = 1e-2


def _round(told: Record) -> dict[str, float]:
    """A round in numbers: who was asked, who failed, what was measured, and what it cost."""
    metrics = {name: value for name, value in told.metrics.items() if isinstance(value, int | float)}
    costs = {name: getattr(told.cost, name) for name in ("seconds", "up_bytes", "down_bytes")}
    return {name: float(value) for name, value in (metrics | costs).items() if math.isfinite(value)}


def _read(version: Version) -> int:
    """Up to which arrival a version has read."""
    return int(version.trained_from.get("upto", 0))


def _labels(y: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    """What users said; where nobody did, what the large model says."""
    return np.where(y >= 0, y, teacher.argmax(1)).astype(np.int64)


def _measured(scores: users.PerUser) -> dict[str, Any]:
    """Accuracy as users meet it."""
    quantiles = {str(at): float(np.quantile(scores.mean, at)) for at in _SHOWN}
    return {
        "user_mean": float(users.user_mean(scores)),
        "worst_tenth": float(users.worst(scores)),
        "by_user": quantiles,
        "users": len(scores),
    }
