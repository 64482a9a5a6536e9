"""What a run found: the schema of ``runs/<name>/result.json``, which the report shows.

::

    {"name": str, "task": str, "seeds": [int], "headline": str,
     "rows":   [{"name": str, "values": {measure: number | {"value", "low", "high"}}}],    # table.to_json
     "curves": [{"label": str, "ask_share": [k], "accuracy": [k], "reference": bool}],     # pareto.curve
     "points": [{"label": str, "ask_share": x, "accuracy": y, "curve": str}],
     "target": {"label": str, "accuracy": y} | null,
     "rounds": [{"round": int, "accuracy": y, ...}],
     "users":  {"before": [u], "after": [u], "names_hashed": [u]} | null,
     "notes":  [str],
     "maps":   [{"title": str, "unit": str, "up_mbps": [m], "rtt_seconds": [n], "plans": [str], "kinds": [str],
                 "best": [n][m], "gain": [n][m], "at": [up_mbps, rtt_seconds]}]}

Whatever has a default in :class:`Result` may be missing, so that older files stay what they were. Accuracies and shares
are 0..1. ``curves`` come in the order in which they are coloured (before, after); ``reference`` marks those that are no
system (chance, oracle). A point's ``curve`` is the label of the curve whose colour it takes, "" for a baseline. In
``rounds`` every key that ends in ``accuracy`` is a series of the learning curve (``<key>_low`` and ``<key>_high`` its
band); other keys get small charts, their unit read off the name's end (``_share``, ``_bytes``, ``_seconds``,
``_joules``, ``_dollars``). ``notes`` are the findings that speak against it. ``maps`` say which plan a planner takes
over which link.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from duetto.errors import DataError
from duetto.evaluation import table

_HASHED = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True)
class Curve:
    """A cascade at every threshold: ``ask_share`` [k] against ``accuracy`` [k]; a ``reference`` is no system."""

    label: str
    ask_share: Sequence[float]
    accuracy: Sequence[float]
    reference: bool = False


@dataclass(frozen=True)
class Point:
    """An operating point; it takes the colour of the curve of that label, a baseline ("") none."""

    label: str
    ask_share: float
    accuracy: float
    curve: str = ""


@dataclass(frozen=True)
class Target:
    """The accuracy that a cascade is to reach, and what it is called."""

    label: str
    accuracy: float


@dataclass(frozen=True)
class Users:
    """Accuracy per user before and after learning, [u] each; names only as :func:`hashed` gives them."""

    before: Sequence[float]
    after: Sequence[float]
    names_hashed: Sequence[str]

    def __post_init__(self) -> None:
        if not len(self.before) == len(self.after) == len(self.names_hashed):
            raise DataError("users with a value before, after or a name missing", "give one of each per user")
        for name in self.names_hashed:
            if not _HASHED.fullmatch(name):
                raise DataError("a user's name that is not hashed", "pass it through result.hashed first")


KINDS = ("device", "cloud", "split")


@dataclass(frozen=True)
class Map:
    """Which plan is best over which link, and what it gains.

    Attributes:
        title: what is planned for.
        unit: of what is gained: "s", "J" or "$".
        up_mbps, rtt_seconds: [m] and [n] of the links, above 0 and rising.
        plans: names of those that are best somewhere.
        kinds: of each plan, one of :data:`KINDS`: who computes.
        best: [n][m] places in ``plans``.
        gain: [n][m] what it costs less than the better of the device alone and the cloud with a compressed input; 0
            where that one is the best.
        at: Mbit/s up and round trip of the link that was asked about.

    Raises:
        DataError: parts that do not fit together, or values that are not finite.
    """

    title: str
    unit: str
    up_mbps: Sequence[float]
    rtt_seconds: Sequence[float]
    plans: Sequence[str]
    kinds: Sequence[str]
    best: Sequence[Sequence[int]]
    gain: Sequence[Sequence[float]]
    at: Sequence[float]

    def __post_init__(self) -> None:
        what, wide = f"the map {self.title!r}", len(self.up_mbps)
        grids = (self.best, self.gain)
        if any(len(grid) != len(self.rtt_seconds) or any(len(row) != wide for row in grid) for grid in grids):
            raise DataError(f"{what} has tables of other sizes than its axes", "give a row each round trip")
        if len(self.kinds) != len(self.plans) or not set(self.kinds) <= set(KINDS) or len(self.at) != 2:
            raise DataError(f"{what} has a plan without a kind, or no link", f"kinds are {', '.join(KINDS)}")
        if any(not 0 <= i < len(self.plans) for row in self.best for i in row):
            raise DataError(f"{what} names a plan that it does not have", "give places in its plans")
        for axis in (self.up_mbps, self.rtt_seconds):
            if len(axis) < 2 or axis[0] <= 0 or any(a >= b for a, b in pairwise(axis)):
                raise DataError(f"{what} has an axis that does not rise from above 0", "give at least two links")
        _finite(what, [value for row in self.gain for value in row])
        _finite(what, [*self.up_mbps, *self.rtt_seconds, *self.at])


@dataclass(frozen=True)
class Result:
    """Everything a run found that its report shows; see this module's schema."""

    name: str
    task: str
    seeds: Sequence[int]
    headline: str
    rows: Sequence[table.Row] = ()
    curves: Sequence[Curve] = ()
    points: Sequence[Point] = ()
    target: Target | None = None
    rounds: Sequence[Mapping[str, float]] = ()
    users: Users | None = None
    notes: Sequence[str] = ()
    maps: Sequence[Map] = ()

    def __post_init__(self) -> None:
        for curve in self.curves:
            if len(curve.ask_share) != len(curve.accuracy) or not len(curve.ask_share):
                raise DataError(f"the curve {curve.label!r} has other lengths along x and y", "give as many of both")
            _finite(f"the curve {curve.label!r}", (*curve.ask_share, *curve.accuracy))
        for point in self.points:
            _finite(f"the point {point.label!r}", (point.ask_share, point.accuracy))
        for entry in self.rounds:
            if "round" not in entry:
                raise DataError("a round without its number", "give every entry of rounds a 'round'")
            _finite(f"round {entry['round']}", entry.values())
        if self.users:
            _finite("users", (*self.users.before, *self.users.after))
        if self.target:
            _finite("the target", (self.target.accuracy,))

    def save(self, path: str | Path) -> None:
        """Write ``result.json``; there completely or not at all."""
        path = Path(path)
        part = path.with_name(f"{path.name}.part")
        entry = {**asdict(self), "rows": table.to_json(self.rows)}
        part.write_text(json.dumps(entry, indent=1, allow_nan=False, default=_listed) + "\n", encoding="utf-8")
        part.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read ``result.json``.

        Raises:
            DataError: it is missing, is no JSON, or does not follow the schema.
        """
        try:
            entry = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"no result at {path} ({error.strerror})", "let the run finish first") from error
        except ValueError as error:
            raise DataError(f"{path} is no JSON ({error})", "let the run finish again") from error
        try:
            return cls(
                name=_text(entry["name"]),
                task=_text(entry["task"]),
                seeds=tuple(int(seed) for seed in entry["seeds"]),
                headline=_text(entry["headline"]),
                rows=table.from_json(entry.get("rows", ())),
                curves=tuple(
                    Curve(
                        _text(each["label"]),
                        _numbers(each["ask_share"]),
                        _numbers(each["accuracy"]),
                        bool(each.get("reference", False)),
                    )
                    for each in entry.get("curves", ())
                ),
                points=tuple(
                    Point(
                        _text(each["label"]),
                        float(each["ask_share"]),
                        float(each["accuracy"]),
                        _text(each.get("curve", "")),
                    )
                    for each in entry.get("points", ())
                ),
                target=Target(_text(entry["target"]["label"]), float(entry["target"]["accuracy"]))
                if entry.get("target")
                else None,
                rounds=tuple({name: float(each[name]) for name in each} for each in entry.get("rounds", ())),
                users=Users(
                    _numbers(entry["users"]["before"]),
                    _numbers(entry["users"]["after"]),
                    tuple(_text(name) for name in entry["users"]["names_hashed"]),
                )
                if entry.get("users")
                else None,
                notes=tuple(_text(note) for note in entry.get("notes", ())),
                maps=tuple(
                    Map(
                        _text(each["title"]),
                        _text(each["unit"]),
                        _numbers(each["up_mbps"]),
                        _numbers(each["rtt_seconds"]),
                        tuple(_text(name) for name in each["plans"]),
                        tuple(_text(kind) for kind in each["kinds"]),
                        tuple(tuple(int(i) for i in row) for row in each["best"]),
                        tuple(map(_numbers, each["gain"])),
                        _numbers(each["at"]),
                    )
                    for each in entry.get("maps", ())
                ),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path} does not follow the schema ({error!r})", "see duetto.evaluation.result") from error


def hashed(name: str, salt: str = "") -> str:
    """A user's name as 12 hex digits; the same salt gives the same digits, so two runs can be compared by user."""
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=6, key=salt.encode()[:64]).hexdigest()


def _finite(what: str, values: Any) -> None:
    if not all(math.isfinite(value) for value in values):
        raise DataError(f"{what} has a value that is not finite", "leave out what is not known")


def _listed(value: Any) -> Any:
    """numpy's arrays and scalars as JSON knows them."""
    return value.tolist()


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
