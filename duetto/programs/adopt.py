"""What Duetto would save with somebody's own pair of models, before anything is deployed.

Users are split, not rows: policies are calibrated on some, and judged on the others, beside the device alone, the cloud
alone, asking by chance as often, and an oracle that asks at most as often. Latency, energy and money are those of one
question at a time: the models' seconds as measured here, the link's and the radio's of a network, bytes of real
messages. What the large model answered is kept in the run's folder, row by row, so that no row is paid for twice: not
after a stop, and not for other settings.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from duetto import tree as trees
from duetto.device.artefact import Artefact as Answering
from duetto.device.artefact import session
from duetto.errors import ConfigError, DataError
from duetto.evaluation import pareto, table, users
from duetto.evaluation import records as log
from duetto.evaluation.result import Curve, Point, Result, Target, Users, hashed
from duetto.policies import Calibrated, LearnedGain, RiskControlled, Threshold, artefact, promised
from duetto.policies.calibrated import cheapest
from duetto.simulation import energy
from duetto.simulation.link import Network, named
from duetto.tasks.by_user import draw_users
from duetto.tasks.own import Own
from duetto.tree import Tree
from duetto.types import Action, Cost, Held, Local, Outcomes, Record, Work, rng

Ask = Callable[[Tree], Tree]
"""The large model: ``{"x": [n, *shape]}`` to ``{"logits": [n, classes]}``."""

Progress = Callable[[str, float, float], None]

POLICIES = ("calibrated", "risk", "gain")
FEWEST = 4  # users: two to calibrate on, two to judge by
_RUNS = 50  # of the small model, timed
_TOGETHER = 256  # rows that the small model answers at once
_SURELY = 0.95  # a policy that asks for more is asking always; one that asks for less than the rest, never
_HERE = "here"


@dataclass(frozen=True)
class Settings:
    """How a pair is judged.

    Attributes:
        target_loss: points of accuracy that may be lost against asking the large model always.
        policy: that is recommended and saved as the run's: calibrated, risk or gain; all three are judged.
        calibration: share of the users that policies are calibrated on.
        network: between device and cloud; see `duetto info --networks`.
        device: whose seconds and watts count; here takes the seconds measured on this machine, and a mid-phone's watts.
        every: seconds between two questions, over which the radio stays on; without it, a whole tail a question.
        price_per_call: dollars of one question, all in all; without it, by the price list of duetto/profiles.toml.
        timed: questions that are asked one by one and timed.
        batch: rows in a question after these.
        seed: draws the users.
    """

    target_loss: float = 1.0
    policy: Literal["calibrated", "risk", "gain"] = "calibrated"
    calibration: float = 0.5
    network: str = "wifi"
    device: str = _HERE
    every: float | None = None
    price_per_call: float | None = None
    timed: int = 20
    batch: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.target_loss < 100:
            raise ConfigError(f"a target loss of {self.target_loss} points", "use a number above 0, below 100")
        if self.policy not in POLICIES:
            raise ConfigError(f"no policy is called {self.policy!r}", f"use one of {', '.join(POLICIES)}")
        if not 0 < self.calibration < 1:
            raise ConfigError(f"{self.calibration} of the users to calibrate on", "use a share between 0 and 1")
        for name in ("every", "price_per_call"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ConfigError(f"{name} of {value}", "use a finite number from 0")
        if self.timed < 2 or self.batch < 1:
            raise ConfigError(f"{self.timed} timed, {self.batch} in a batch", "use at least 2, and 1")
        if self.device != _HERE and self.device not in energy.profiles():
            known = ", ".join((_HERE, *energy.profiles()))
            raise ConfigError(f"no device is called {self.device!r}", f"use one of {known}")


@dataclass(frozen=True)
class Small:
    """A small model's file.

    Attributes:
        path: of the ONNX file, from the root.
        shape: of one input.
        classes: that it tells apart.
        work: of one answer, as the file tells; 0 where it does not.
    """

    path: str
    shape: tuple[int, ...]
    classes: int
    work: Work

    def logits(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """``[n, classes]``."""
        answering = Answering(self.path)
        parts = [
            answering(Local(), {"x": x[at : at + _TOGETHER]}, ("adopt",), "adopt")[1]["logits"]
            for at in range(0, len(x), _TOGETHER)
        ]
        return np.concatenate(parts)


@dataclass(frozen=True, eq=False)
class Pair:
    """Both models.

    Attributes:
        small: the device's.
        large: the cloud's.
        name: by which the large one is known; its kept answers are good for the same name only.
    """

    small: Small
    large: Ask
    name: str


@dataclass(frozen=True)
class Profile:
    """What was measured.

    Attributes:
        small_seconds, large_seconds: of answers to one row each.
        up_bytes, down_bytes: of a question, and of its answer.
        work: of the small model, as its file tells.
        calls: that were made for this, over all runs in the folder.
        rows: that the large model answered.
    """

    small_seconds: tuple[float, ...]
    large_seconds: tuple[float, ...]
    up_bytes: int
    down_bytes: int
    work: Work
    calls: int
    rows: int


@dataclass(frozen=True)
class Verdict:
    """What to do, and why.

    Attributes:
        kind: "duetto"; "small" or "large" where one model alone is as good; "chance" where the policy is not shown to
            choose better than chance; "missed" where it loses more on the held-out users than it may.
        words: for a person.
    """

    kind: Literal["duetto", "small", "large", "chance", "missed"]
    words: str


@dataclass(frozen=True)
class Splits:
    """The recommended policy on other splits of the same users: how much one split is luck.

    Attributes:
        count: of splits.
        kept: of these, those in which held-out users lose no more than they may.
        asked: share of questions, the least and the most.
        loss: accuracy lost against asking always, 0..1, the least and the most.
    """

    count: int
    kept: int
    asked: tuple[float, float]
    loss: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Adopted:
    """What was found.

    Attributes:
        result: what the report shows.
        verdict: what to do.
        profile: what was measured.
        fitted: the policies by name.
        groups: "calibration" and "held-out" users.
        figures: system -> measure -> value, as in the table.
        splits: the recommended policy on other splits.
    """

    result: Result
    verdict: Verdict
    profile: Profile
    fitted: Mapping[str, Held[Any]]
    groups: Mapping[str, tuple[str, ...]]
    figures: Mapping[str, Mapping[str, float]]
    splits: Splits


# ------------------------------------------------------------------------------------------------------- all of it


def adopt(
    pair: Pair, data: Own, settings: Settings, folder: Path, progress: Progress = lambda what, done, of: None
) -> Adopted:
    """Ask, measure, calibrate, judge, and write the run's folder: its policies, its result, its records.

    Raises:
        ConfigError: a folder that holds another large model's answers.
        DataError: rows, labels or users that do not do, or answers of another form.
    """
    # Everything that can be wrong is found before an answer is paid for.
    if settings.device != _HERE and not pair.small.work.flops:
        raise DataError(
            f"{Path(pair.small.path).name} does not tell its work, so its seconds on {settings.device} are not known",
            "leave --device out, or export it with duetto.models.export",
        )
    data = data.fitting(pair.small.shape).within(pair.small.classes)
    groups = split(data, settings)
    network = named(settings.network)
    _claim(folder, pair, settings, data)
    progress("the small model answers", 0, 1)
    small = pair.small.logits(data.x)
    large, calls = answers(pair, data.x, settings, folder / "answers.jsonl", progress)
    profile = _profiled(pair.small, data.x, calls, len(data), folder / "profile.json", pair.small.classes)
    progress("calibrating", 0, 1)
    both = Outcomes.of_classifiers(small, large, data.y, data.user)
    fitted = fit(both.rows(data.only(groups["calibration"])), settings)
    held = both.rows(data.only(groups["held-out"]))
    progress("judging", 0, 1)
    records = answered(held, fitted, profile, network, settings)
    splits = others(both, data, settings)
    result, verdict, figures = _result(folder.name, pair, held, fitted, records, settings, profile, groups, splits)
    made = Adopted(result, verdict, profile, fitted, groups, figures, splits)
    _save(made, both.rows(data.only(groups["calibration"])), records, folder, settings)
    return made


def small_of(path: str | Path) -> Small:
    """What a small model's file takes and gives.

    Raises:
        ConfigError: onnxruntime is not installed.
        DataError: a file that is missing or damaged, or that a device could not answer with.
    """
    if not Path(path).is_file():
        raise DataError(f"there is no file {path}", "name the small model's ONNX file with --small")
    whole = str(Path(path).resolve())  # a process keeps loaded models by their path
    try:
        loaded = session(whole, 1)
    except DataError as fault:
        raise DataError(fault.fault.replace(whole, str(path)), "export it with duetto.models.export") from fault
    inputs, outputs = loaded.get_inputs(), {each.name: each for each in loaded.get_outputs()}
    if [each.name for each in inputs] != ["x"] or "logits" not in outputs:
        said = f"takes {', '.join(each.name for each in inputs)} and gives {', '.join(outputs)}"
        raise DataError(
            f"{path} {said}", 'a device needs one input "x" and an output "logits": see duetto.programs.renamed'
        )
    if inputs[0].type != "tensor(float)" or outputs["logits"].type != "tensor(float)":
        said = f"takes {inputs[0].type} and gives {outputs['logits'].type}"
        raise DataError(f"{path} {said}", "export it with float32 inputs and logits")
    shape, gives = inputs[0].shape[1:], outputs["logits"].shape
    if not shape or not all(isinstance(each, int) for each in shape):
        raise DataError(f"{path} takes rows of shape {shape}", "export it with a fixed shape [n, *shape]")
    if len(gives) != 2 or not isinstance(gives[1], int) or gives[1] < 2:
        raise DataError(f"{path} gives logits of shape {gives}", "export a classifier: [n, classes]")
    told = loaded.get_modelmeta().custom_metadata_map
    return Small(whole, tuple(shape), gives[1], Work(float(told.get("flops", 0)), float(told.get("bytes", 0))))


def split(data: Own, settings: Settings) -> dict[str, tuple[str, ...]]:
    """The users of each group, "calibration" and "held-out".

    Raises:
        DataError: too few users.
    """
    names = sorted(set(data.user.tolist()))
    shares = {"calibration": settings.calibration, "held-out": 1 - settings.calibration}
    groups = draw_users(names, shares, settings.seed)
    if len(names) < FEWEST or min(map(len, groups.values())) < FEWEST // 2:
        sizes = ", ".join(f"{len(group)} {name}" for name, group in groups.items())
        raise DataError(
            f"{len(names)} users are too few ({sizes})",
            f"bring {FEWEST} at least, two of each, better 30; is --user-column the right one?",
        )
    return groups


# --------------------------------------------------------------------------------------------------------- asking


@dataclass(frozen=True)
class _Kept:
    """The large model's answers so far: row digest -> logits, seconds of calls of one row, and how many calls."""

    logits: dict[str, list[float]]
    seconds: list[float]
    calls: int


def answers(
    pair: Pair, x: NDArray[np.float32], settings: Settings, path: Path, progress: Progress
) -> tuple[NDArray[np.float32], _Kept]:
    """The large model's logits ``[n, classes]``; only rows without a kept answer are asked about, each once.

    Raises:
        DataError: logits of another form, or kept ones that are damaged.
        Error: those of the engine; what it answered before is kept.
    """
    digests = [hashlib.blake2b(row.tobytes(), digest_size=12).hexdigest() for row in np.ascontiguousarray(x)]
    kept = _read(path, pair.small.classes)
    first = {digest: i for i, digest in reversed(list(enumerate(digests)))}
    todo = [i for i, digest in enumerate(digests) if first[digest] == i and digest not in kept.logits]
    done, calls = len(first) - len(todo), kept.calls
    with path.open("a", encoding="utf-8") as file:
        while todo:
            several = 1 if len(kept.seconds) < settings.timed else settings.batch
            now, todo = todo[:several], todo[several:]
            progress("the large model answers", done, len(first))
            began = time.perf_counter()
            logits = _checked(pair.large({"x": x[now]}), len(now), pair.small.classes)
            seconds = time.perf_counter() - began
            said = {digests[i]: row for i, row in zip(now, logits.astype(np.float64).tolist(), strict=True)}
            file.write(json.dumps({"seconds": seconds, "logits": said}) + "\n")
            file.flush()
            kept.logits.update(said)
            kept.seconds.extend([seconds] if len(now) == 1 else [])
            done, calls = done + len(now), calls + 1
    logits = np.array([kept.logits[digest] for digest in digests], np.float32)
    return logits, replace(kept, calls=calls)


def _checked(tree: Any, rows: int, classes: int) -> NDArray[np.float32]:
    if not isinstance(tree, Mapping) or "logits" not in tree:
        raise DataError("the large model gives no logits", "name a classifier, which gives logits [n, classes]")
    logits = np.asarray(tree["logits"])
    if logits.ndim != 2 or len(logits) != rows or logits.shape[1] != classes:
        raise DataError(
            f"the large model gives logits of shape {logits.shape} for {rows} rows, the small one {classes} classes",
            "bring two models of the same classes, in the same order",
        )
    if not np.isfinite(logits).all():
        raise DataError("the large model's logits are NaN or infinite", "check its inputs' scale, and the model")
    return logits.astype(np.float32)


def _read(path: Path, classes: int) -> _Kept:
    kept = _Kept({}, [], 0)
    if not path.exists():
        return kept
    lines = path.read_bytes().split(b"\n")
    calls = 0
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            told = json.loads(line)
            rows = {str(digest): [float(each) for each in row] for digest, row in told["logits"].items()}
            if any(len(row) != classes for row in rows.values()):
                raise DataError(f"{path} holds answers of other classes", "choose another --name, or add --fresh")
        except (ValueError, KeyError, TypeError, AttributeError) as fault:
            if number == len(lines):  # cut by a stop: asked again, on a line of its own
                path.write_bytes(b"\n".join(lines[:-1]) + b"\n")
                break
            raise DataError(
                f"line {number} of {path} is damaged", "delete that line; its rows are asked again"
            ) from fault
        kept.logits.update(rows)
        kept.seconds.extend([float(told["seconds"])] if len(rows) == 1 else [])
        calls += 1
    return replace(kept, calls=calls)


def _profiled(small: Small, x: NDArray[np.float32], kept: _Kept, rows: int, path: Path, classes: int) -> Profile:
    """What was measured; the small model's seconds are kept, so that the same command gives the same figures."""
    digest = _sha256(Path(small.path))
    seconds: list[float] = []
    if path.exists():
        told = json.loads(path.read_text(encoding="utf-8"))
        seconds = told["small_seconds"] if told.get("small") == digest else []
    if not seconds:
        answering, own = Answering(small.path), {"x": x[:1]}
        for _ in range(5 + _RUNS):
            began = time.perf_counter()
            answering(Local(), own, ("adopt",), "adopt")
            seconds.append(time.perf_counter() - began)
        seconds = seconds[5:]
        _write(path, {"small": digest, "small_seconds": seconds})
    timed = kept.seconds[1:] or kept.seconds  # the first one opened the connection, or loaded the model
    answer = {"logits": np.zeros((1, classes), np.float32)}
    up, down = (trees.size(trees.spec(tree)) for tree in ({"x": x[:1]}, answer))
    return Profile(tuple(seconds), tuple(timed), up, down, small.work, kept.calls, rows)


# ------------------------------------------------------------------------------------------------------ calibrating


def fit(outcomes: Outcomes, settings: Settings) -> dict[str, Held[Any]]:
    """The house's policies, held to the target on calibration users: nothing else is seen.

    "calibrated" meets the target on these users; "risk" promises it of new ones, with 95 % confidence, and asks always
    where they are too few for that; "gain" learns where asking pays on every second of them, and sets its threshold on
    the rest.
    """
    return {name: fitting(outcomes) for name, fitting in _fitting(settings).items()}


def _fitting(settings: Settings) -> dict[str, Callable[[Outcomes], Held[Any]]]:
    share = settings.target_loss / 100
    return {
        "calibrated": Calibrated(tolerance_points=settings.target_loss).fit,
        "risk": RiskControlled(Threshold(math.inf, "margin"), "approximate", share).fit,
        "gain": partial(_gain, share=share),
    }


def others(both: Outcomes, data: Own, settings: Settings, count: int = 20) -> Splits:
    """The recommended policy, fitted and judged on other splits of the users."""
    asked, lost = [], []
    for seed in range(settings.seed + 1, settings.seed + 1 + count):
        groups = split(data, replace(settings, seed=seed))
        held = both.rows(data.only(groups["held-out"]))
        policy = _fitting(settings)[settings.policy](both.rows(data.only(groups["calibration"])))
        keeps = ~_asks(policy, held)
        asked.append(float(1 - keeps.mean()))
        lost.append(float((held.shares * keeps * held.gain).sum()))
    kept = sum(each <= settings.target_loss / 100 + 1e-12 for each in lost)
    return Splits(count, kept, (min(asked), max(asked)), (min(lost), max(lost)))


def _gain(outcomes: Outcomes, share: float) -> Held[Any]:
    policy = LearnedGain()
    names, which = np.unique(np.asarray(outcomes.users), return_inverse=True)
    learns = which % 2 == 0
    assert len(names) > 1, "split() leaves two"
    held = policy.fit(outcomes.rows(learns))
    others = outcomes.rows(~learns)
    at = cheapest(policy.scores(held.state, others.seen), others.shares * others.gain, share)
    return Held(policy, {**held.state, "threshold": np.array(at)})


# ---------------------------------------------------------------------------------------------------------- judging


def answered(
    held: Outcomes, fitted: Mapping[str, Held[Any]], profile: Profile, network: Network, settings: Settings
) -> dict[str, list[Record]]:
    """Every system's answers to the held-out users' rows.

    Random and oracle ask as often as the recommended policy, the oracle only where it gains. What random gets right is
    the expectation over its draws.
    """
    n, small, large = len(held), held.small, held.large
    asks = {name: _asks(policy, held) for name, policy in fitted.items()}
    count = int(asks[settings.policy].sum())
    drawn = np.zeros(n, bool)
    drawn[rng((settings.seed, "adopt", "random")).permutation(n)[:count]] = True
    best = np.zeros(n, bool)
    best[np.argsort(-held.gain, kind="stable")[:count]] = True
    best &= held.gain > 0
    cost = _Costs(profile, network, settings, n)
    systems: dict[str, tuple[NDArray[np.bool_], NDArray[np.float64], bool]] = {
        "device only": (np.zeros(n, bool), small, True),
        "cloud only": (np.ones(n, bool), large, False),
        **{name: (asked, np.where(asked, large, small), True) for name, asked in asks.items()},
        "random, as often": (drawn, small + held.gain * (count / n), True),
        "oracle, as often": (best, np.where(best, large, small), True),
    }
    assert held.users is not None
    whose = [hashed(str(user)) for user in held.users]
    return {
        name: [
            Record(
                "answer",
                i,
                {"system": name, "asked": int(asked[i]), "correct": float(correct[i])},
                cost.of(i, bool(asked[i]), here),
                user=whose[i],
            )
            for i in range(n)
        ]
        for name, (asked, correct, here) in systems.items()
    }


def _asks(policy: Held[Any], held: Outcomes) -> NDArray[np.bool_]:
    asked: NDArray[np.bool_] = np.asarray(policy.fork().choose(held.seen, ("adopt",)).action) == Action.ASK
    return asked


class _Costs:
    """Of every row, answered here or asked about, for all systems alike."""

    def __init__(self, profile: Profile, network: Network, settings: Settings, n: int) -> None:
        here = settings.device == _HERE
        device = energy.profiles()["mid-phone" if here else settings.device]
        radio, prices = energy.radios()[network.radio], energy.prices()["default"]
        draw = rng((settings.seed, "adopt", "seconds"))
        own = draw.choice(profile.small_seconds, n) if here else np.full(n, energy.compute(device, profile.work)[0])
        theirs = draw.choice(profile.large_seconds, n)
        gap = radio.tail_seconds if settings.every is None else settings.every
        up, down = profile.up_bytes, profile.down_bytes
        self._own = [Cost(float(seconds), joules=float(seconds) * device.compute_watts) for seconds in own]
        self._asked = []
        for i, seconds in enumerate(theirs.tolist()):
            link = network.link((settings.seed, "adopt", i))
            sent = link.sent(0.0, up, "up")
            there = sent + seconds
            back = link.sent(there, down, "down")
            half = link.rtt_seconds / 2
            joules = energy.transfer_joules(radio, max(0.0, sent - half), 0.0, gap)
            joules += energy.transfer_joules(radio, 0.0, max(0.0, back - there - half), seconds + 2 * half)
            dollars = prices.per_call + (up * prices.per_gigabyte_up + down * prices.per_gigabyte_down) / 1e9
            dollars += seconds * prices.per_cloud_second
            if settings.price_per_call is not None:
                dollars = settings.price_per_call
            self._asked.append(Cost(back, up, down, joules, dollars))

    def of(self, i: int, asked: bool, here: bool) -> Cost:
        """Of row i; ``here`` says whether the small model runs."""
        own = self._own[i] if here else Cost()
        return own + self._asked[i] if asked else own


def _result(
    name: str,
    pair: Pair,
    held: Outcomes,
    fitted: Mapping[str, Held[Any]],
    records: Mapping[str, Sequence[Record]],
    settings: Settings,
    profile: Profile,
    groups: Mapping[str, tuple[str, ...]],
    splits: Splits,
) -> tuple[Result, Verdict, dict[str, dict[str, float]]]:
    key = (settings.seed, "adopt")
    alone = records["device only"]
    rows = tuple(table.row(each, of, key=key, device_only=alone) for each, of in records.items())
    figures = {row.name: {measure: _number(value) for measure, value in row.values.items()} for row in rows}
    per_user = {each: _by_user(of) for each, of in records.items()}
    verdict = _verdict(per_user, figures, settings)
    curves = [_curve(each, _unsure(policy, held), held) for each, policy in fitted.items()]
    curves += [
        _thin("random", *pareto.random(held.small, held.large, held.shares), reference=True),
        _thin("oracle", *pareto.oracle_gain(held.small, held.large, held.shares), reference=True),
    ]
    points = [
        Point(
            each,
            figures[each]["offload_rate"],
            figures[each]["accuracy"],
            each if each in fitted else "",
        )
        for each in ("device only", "cloud only", *fitted)
    ]
    whole = figures["cloud only"]["accuracy"]
    before, after = per_user["device only"], per_user[settings.policy]
    result = Result(
        name=name,
        task=f"{Path(pair.small.path).name} and {pair.name}",
        seeds=(settings.seed,),
        headline=verdict.words,
        rows=rows,
        curves=tuple(curves),
        points=tuple(points),
        target=Target("cloud only, less what may be lost", whole - settings.target_loss / 100),
        users=Users(tuple(before.mean.tolist()), tuple(after.mean.tolist()), tuple(map(str, before.names))),
        notes=tuple(_notes(held, fitted, figures, settings, profile, groups, splits)),
    )
    return result, verdict, figures


def _verdict(
    per_user: Mapping[str, users.PerUser], figures: Mapping[str, Mapping[str, float]], settings: Settings
) -> Verdict:
    """In this order: is one model alone enough, is the target kept, is it better than chance."""

    def over(one: str, other: str) -> tuple[float, str, float, float]:
        low, high = users.paired(
            users.user_mean, per_user[other], per_user[one], key=(settings.seed, "adopt", "verdict")
        )
        mean = float(users.user_mean(per_user[one]) - users.user_mean(per_user[other]))
        return mean, f"{100 * mean:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})", low, high

    chosen, target = settings.policy, settings.target_loss / 100
    asked = figures[chosen]["offload_rate"]
    alone, apart, low, _ = over("device only", "cloud only")
    if low >= -target:
        return Verdict(
            "small", f"The small model alone is as good: {apart} against the large one; ask nobody, and save it all"
        )
    if alone >= -target and asked <= 1 - _SURELY:
        return Verdict(
            "small",
            f"Ask nobody, as far as so few users can tell: the policy {chosen} keeps {1 - asked:.0%} of answers on the "
            f"device, and the small model alone is at {apart} against the large one",
        )
    loss, lost, _, _ = over(chosen, "cloud only")
    if asked >= _SURELY:
        return Verdict(
            "large",
            f"Ask always: within {settings.target_loss:g} points of the large model, the policy {chosen} keeps only "
            f"{1 - asked:.0%} of answers on the device; the small model alone is at {apart}",
        )
    saved = 1 - asked
    less = {
        measure: 1 - figures[chosen][measure] / whole
        for measure in ("joules", "dollars")
        if (whole := figures["cloud only"][measure]) > 0
    }
    saves = (
        f"{saved:.0%} of questions, {less.get('joules', 0):.0%} of the device's energy, "
        f"{less.get('dollars', 0):.0%} of the money"
    )
    if -loss > target:
        return Verdict(
            "missed",
            f"Not yet: by the policy {chosen} held-out users lose more than the {settings.target_loss:g} points that "
            f"they may, {lost} against the large model, for {saves}; calibrate on more users, or try --policy risk",
        )
    _, chance, low, _ = over(chosen, "random, as often")
    if low <= 0:
        return Verdict(
            "chance",
            f"Not shown to help: asking for {asked:.0%} by the policy {chosen} gains {chance} over asking as often by "
            "chance; bring more users, or another small model",
        )
    return Verdict(
        "duetto",
        f"Duetto would save {saves} at {lost} against asking the large model always, and gains {chance} over asking as "
        "often by chance",
    )


def _notes(
    held: Outcomes,
    fitted: Mapping[str, Held[Any]],
    figures: Mapping[str, Mapping[str, float]],
    settings: Settings,
    profile: Profile,
    groups: Mapping[str, tuple[str, ...]],
    splits: Splits,
) -> list[str]:
    there = len(groups["held-out"])
    notes = [
        f"Policies were calibrated on {len(groups['calibration'])} users and judged on {there} others (seed "
        f"{settings.seed}); if the models were trained on any of them, all figures flatter",
        f"On {splits.count} other splits of the same users, {settings.policy} asks for {splits.asked[0]:.0%} to "
        f"{splits.asked[1]:.0%} and loses {100 * splits.loss[0]:.1f} to {100 * splits.loss[1]:.1f} points: it keeps to "
        f"{settings.target_loss:g} in {splits.kept} of them",
        promised(fitted["risk"].state),
    ]
    if there < 30:
        notes.append(
            f"{there} held-out users are few: intervals over users are rough below 30, and too narrow below 10"
        )
    assert held.seen.answer is not None
    if (held.seen.answer >= 0).all() and np.allclose(held.seen.answer.sum(1), 1, atol=1e-3):
        notes.append("The small model gives probabilities, not logits: export it without its softmax, thresholds gain")
    if not held.judged:
        notes.append("Nobody said what is right: the large model's answers were taken for the truth")
    floor = 1.5 / held.seen.answer.shape[1]
    for system in ("device only", "cloud only"):
        if figures[system]["accuracy"] < floor:
            notes.append(
                f"{system.capitalize()} is little better than chance: check the order and scale of the features"
            )
    if figures["cloud only"]["accuracy"] < figures["device only"]["accuracy"]:
        notes.append("The large model is worse than the small one for these users")
    own = (
        "The small model's seconds are those of this machine, its watts those of a mid-phone (an estimate)"
        if settings.device == _HERE
        else f"The small model's seconds and watts are a roofline of {settings.device}, an estimate"
    )
    tail, money = "a whole tail of the radio a question", "by duetto/profiles.toml"
    if settings.every is not None:
        tail = f"a question every {settings.every:g} s"
    if settings.price_per_call is not None:
        money = f"{settings.price_per_call:g} $ a question"
    notes += [
        f"{own}; the large model's were timed here on {len(profile.large_seconds)} questions of one row, and the link "
        f"of {settings.network} comes on top; energy is the device's, with {tail}; money {money}",
        f"To find this out the large model answered {profile.rows:,} rows in {profile.calls:,} calls; they are kept",
    ]
    return notes


def _by_user(records: Sequence[Record]) -> users.PerUser:
    columns = log.columns(records, "answer")
    return users.by(columns["correct"], columns["user"])


def _unsure(policy: Held[Any], held: Outcomes) -> NDArray[np.float64]:
    return -np.asarray(policy.part.scores(policy.state, held.seen), np.float64)  # type: ignore[attr-defined]


def _curve(label: str, score: NDArray[np.float64], held: Outcomes) -> Curve:
    return _thin(label, *pareto.curve(score, held.small, held.large, held.shares))


def _thin(label: str, share: Any, accuracy: Any, *, reference: bool = False) -> Curve:
    keep = np.unique(np.linspace(0, len(share) - 1, min(len(share), 400)).round().astype(int))
    return Curve(label, tuple(share[keep].tolist()), tuple(accuracy[keep].tolist()), reference)


def _number(value: table.Value) -> float:
    return value.value if isinstance(value, table.Interval) else float(value)


# -------------------------------------------------------------------------------------------------------- the folder


def known_as(text: str) -> str:
    """By what a large model is known: a file by its name and bytes, anything else by its text."""
    path = Path(text)
    return f"{path.name} {_sha256(path)[:12]}" if path.is_file() else text


def forget(folder: Path) -> None:
    """Delete a run and the answers that it keeps; only a folder that holds one."""
    if (folder / "config.json").exists():
        shutil.rmtree(folder)


def _claim(folder: Path, pair: Pair, settings: Settings, data: Own) -> None:
    """Make the folder this large model's, or see that it is."""
    path = folder / "config.json"
    if path.exists():
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
            same = (there["program"], there["large"]) == ("adopt", pair.name)
        except (KeyError, TypeError, ValueError) as fault:
            raise DataError(f"{path} is damaged", f"delete {folder}, or choose another --name") from fault
        if not same:
            raise ConfigError(
                f"{folder} holds another run, or another large model's answers",
                "choose another --name, or add --fresh, which forgets them",
            )
    folder.mkdir(parents=True, exist_ok=True)
    rows = {"rows": len(data), "users": len(set(data.user.tolist())), "features": math.prod(pair.small.shape)}
    config = {
        "program": "adopt",
        "large": pair.name,
        "small": known_as(pair.small.path),
        "data": rows,
        "settings": asdict(settings),
        "versions": {package: version(package) for package in ("duetto", "numpy", "onnxruntime")},
    }
    _write(path, config)


def _save(
    made: Adopted, calibration: Outcomes, records: Mapping[str, Sequence[Record]], folder: Path, settings: Settings
) -> None:
    log.write(folder / "records.jsonl", [record for of in records.values() for record in of])
    for name, held in made.fitted.items():
        asked = _asks(held, calibration)
        about = {
            "items": len(calibration),
            "users": len(made.groups["calibration"]),
            "offload_rate": float(asked.mean()),
            "small": float(calibration.small.mean()),
            "large": float(calibration.large.mean()),
        }
        says = {
            "calibrated": f"on the calibration users it loses at most {settings.target_loss:g} points",
            "risk": promised(made.fitted["risk"].state),
            "gain": f"on every second calibration user it loses at most {settings.target_loss:g} points",
        }[name]
        fitted = artefact.Artefact(held, about, {"says": says})
        artefact.save(fitted, folder / "policies" / name)
        if name == settings.policy:
            artefact.save(fitted, folder / "policy")
    made.result.save(folder / "result.json")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write(path: Path, value: Any) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    part.replace(path)
