"""What every user got, beside all users: the numbers that a report's page lets one choose from.

The answers of a log fall into *streams*: what was answered while the run went on, and what each system answered when
it was scored (metrics ``system``, ``stage``, ``group``). In each, every user has the :data:`MEASURES`, in all and over
time, and beside them stand the 10, 50 and 90 % of all users. Users are known by the hashes that the run's result uses;
many of them are bounded to those that say most (:func:`chosen`), so that a page stays small.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from duetto.evaluation import table
from duetto.evaluation.result import Result, hashed
from duetto.tree import Array
from duetto.types import Cost, Record

MEASURES = (
    table.Column("accuracy", "", "accuracy, %", 100, 1, better=1),
    table.Column("offload_rate", "", "asked, %", 100, 1, better=-1),
    table.Column("agreement", "", "agrees with cloud, %", 100, 1),
    table.Column("p50_seconds", "", "latency p50, ms", 1000, better=-1),
    table.Column("p95_seconds", "", "latency p95, ms", 1000, better=-1),
    table.Column("bytes", "", "MB / 1,000 answers", 1e-6, better=-1),
    table.Column("joules", "", "J / 1,000 answers", better=-1),
    table.Column("dollars", "", "$ / 1 M answers", 1000, better=-1),
    table.Column("answers", "", "answers", 1, 0),
)
"""``agreement`` is over what the cloud answered, where the record holds what the device's own model said."""

CHOOSER = """
<noscript><p>To choose a user, let this page run its script; it fetches nothing.</p></noscript>
<div id="drill" class="drill" hidden>
<div class="pick">
<label for="find">Find a user</label>
<input id="find" type="search" autocomplete="off" spellcheck="false" placeholder="a name’s beginning">
<p id="found" class="lead" role="status"></p>
<div class="scroll"><table id="users"><thead><tr><th scope="col">user</th></tr></thead><tbody></tbody></table></div>
</div>
<div class="got">
<p id="gone" class="bad" role="alert" hidden></p>
<h3 id="who" aria-live="polite"></h3>
<div id="facts"></div>
<p class="which"><label for="stream">Its answers</label> <select id="stream"></select> <span id="many"></span></p>
<div class="scroll" tabindex="0" role="region" aria-label="What this user got, beside all users">
<table id="got"><thead><tr><th scope="col">measure</th><th scope="col">this user</th>
<th scope="col">among all users</th><th scope="col">10 %</th><th scope="col">median</th><th scope="col">90 %</th>
<th scope="col">place</th></tr></thead></table></div>
<p class="which"><label for="measure">Over time</label> <select id="measure"></select>
<span>Line: this user; dashed: the median; shaded: from 10 to 90 % of all users.</span></p>
<div id="over" class="over-time"><svg></svg></div>
</div>
</div>
"""
"""The page's elements that its script fills."""

LIFE = "while it ran"
SHOWN = 200  # users of a page at most
STREAMS = 24  # streams of a run at most
PARTS = 12  # of the time at most
NUMBERS = 20_000  # over time in a page, beside those of each run's first stream
QUANTILES = (0.1, 0.5, 0.9)
_DAY = 86_400.0
_WIDTHS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200)
_UNITS = ((2 * _DAY, _DAY, "days"), (7200, 3600, "hours"), (120, 60, "minutes"), (0, 1, "seconds"))


@dataclass(frozen=True, eq=False)
class Stream:
    """The answers of one kind, user by user.

    Attributes:
        users: [u] hashes, sorted.
        values: [u, m] of :data:`MEASURES` over all of the time; NaN where not known.
        quantiles: [m, 3] of all users.
        edges: [b + 1] of the parts of the time, in ``unit``; empty where the log has no clock.
        unit: seconds, minutes, hours or days.
        over: [u, m, b] in each part.
        over_quantiles: [m, b, 3] of the users who have answers in it.
    """

    users: Array
    values: Array
    quantiles: Array
    edges: Array
    unit: str
    over: Array
    over_quantiles: Array


@dataclass(frozen=True, eq=False)
class People:
    """A run's users.

    Attributes:
        streams: by name; of those that a user is in, the first is shown first.
        learned: hash -> accuracy before and after learning, where the result has them.
        beside: hash -> records that are no answers, and what they cost.
        left_out: streams that are not among them, because there are more than :data:`STREAMS`.
    """

    streams: Mapping[str, Stream]
    learned: Mapping[str, tuple[float, float]]
    beside: Mapping[str, tuple[int, Cost]]
    left_out: int = 0

    @property
    def names(self) -> set[str]:
        """The hashes of everybody."""
        return {str(name) for stream in self.streams.values() for name in stream.users}


def of(log: Sequence[Record], result: Result) -> People:
    """The users of a log; nobody where it holds no answers of users."""
    names = _named(log, result)
    rows: dict[str, list[int]] = {}
    beside: dict[str, tuple[int, Cost]] = {}
    for i, record in enumerate(log):
        if record.user and record.protocol == "answer":
            rows.setdefault(_stream(record.metrics), []).append(i)
    people = {names[i] for those in rows.values() for i in those}
    for i, record in enumerate(log):
        if record.user and record.protocol != "answer" and names[i] in people:
            count, cost = beside.get(names[i], (0, Cost()))
            beside[names[i]] = count + 1, cost + record.cost
    order = _ordered(log, rows)
    streams = {
        name: _measured([log[i] for i in rows[name]], np.array([names[i] for i in rows[name]]))
        for name in order[:STREAMS]
    }
    learned = {}
    if result.users:
        told = result.users
        pairs = zip(told.before, told.after, strict=True)
        learned = {name: pair for name, pair in zip(told.names_hashed, pairs, strict=True) if name in people}
    return People(streams, learned, beside, len(order) - len(streams))


def chosen(runs: Sequence[People], most: int = SHOWN) -> tuple[list[str], str]:
    """The users that a page shows, the worst first, and in words which they are.

    Users are ranked by their accuracy (their p95 latency where no run knows accuracies), in the first stream that
    they are in, mean over the runs that have them; users whom every run has come first. Of more than ``most``, a
    quarter each: the worst, the best, those around the median, and a sample of the rest by their hashes.
    """
    named = [people.names for people in runs]
    scores: dict[str, list[float]] = {name: [] for names in named for name in names}
    columns = [column.measure for column in MEASURES]
    known = any(
        np.isfinite(each.values[:, columns.index("accuracy")]).any() for p in runs for each in p.streams.values()
    )
    at, sign = (columns.index("accuracy"), 1.0) if known else (columns.index("p95_seconds"), -1.0)
    for people in runs:
        seen: set[str] = set()
        for stream in people.streams.values():
            for name, value in zip(stream.users.tolist(), stream.values[:, at].tolist(), strict=True):
                if name not in seen and math.isfinite(value):
                    scores[name].append(sign * value)
                    seen.add(name)
    worst_first = sorted(scores, key=lambda name: (float(np.mean(scores[name])) if scores[name] else math.inf, name))
    every = [name for name in worst_first if all(name in names for names in named)]
    rest = [name for name in worst_first if not all(name in names for names in named)]
    if len(worst_first) <= most:
        return every + rest, f"All {len(worst_first):,} users are here."
    kept = _telling(every, most)
    kept |= _telling(rest, most - len(kept))
    of_each = f" Those that all runs have ({len(every):,}) come first." if len(runs) > 1 else ""
    words = (
        f"Of {len(worst_first):,} users {len(kept):,} are here, a quarter each: the worst and the best by "
        f"{'accuracy' if known else 'p95 latency'}, those around the median, and others drawn by their hashes."
        f"{of_each} The quantiles are those of all users."
    )
    return [name for name in every + rest if name in kept], words


def _telling(rank: Sequence[str], most: int) -> set[str]:
    """At most so many of a ranking: from both its ends, from its middle, and by hash."""
    n, part = len(rank), most // 4
    if n <= most:
        return set(rank)
    middle = (n - part) // 2
    kept = {*rank[:part], *rank[n - part :], *rank[middle : middle + part]}
    others = sorted((name for name in rank if name not in kept), key=lambda name: hashed(name, "sample"))
    return kept | set(others[: most - len(kept)])


def data(names: Sequence[str], runs: Sequence[People], users: Sequence[str]) -> dict[str, Any]:
    """What a page's script needs to show these ``users`` of runs called ``names``, as plain JSON; null is not known."""
    told = []
    kept = set(users)
    for people in runs:
        streams: list[dict[str, Any]] = []
        left = NUMBERS // len(runs)
        for name, stream in people.streams.items():
            here = [i for i, user in enumerate(stream.users.tolist()) if user in kept]
            parts = max(0, len(stream.edges) - 1)
            size = len(here) * len(MEASURES) * parts
            timed = size > 0 and (size <= left or not streams)
            left -= size if timed else 0
            streams.append(
                {
                    "name": name,
                    "users": len(stream.users),
                    "all": _plain(stream.quantiles, 6),
                    "got": {str(stream.users[i]): _plain(stream.values[i], 6) for i in here},
                    "edges": _plain(stream.edges, 6) if timed else [],
                    "clock": bool(parts),
                    "unit": stream.unit,
                    "over": {str(stream.users[i]): _plain(stream.over[i], 3) for i in here} if timed else {},
                    "allOver": _plain(stream.over_quantiles, 3) if timed else [],
                }
            )
        told.append(
            {
                "streams": streams,
                "learned": {
                    name: _plain(np.array(people.learned[name]), 6) for name in users if name in people.learned
                },
                "beside": {
                    name: _plain(np.array([count, cost.up_bytes + cost.down_bytes, cost.joules, cost.dollars]), 6)
                    for name, (count, cost) in people.beside.items()
                    if name in kept
                },
            }
        )
    measures = [
        {"name": each.measure, "label": each.label, "scale": each.scale, "digits": each.digits, "better": each.better}
        for each in MEASURES
    ]
    return {"names": list(names), "measures": measures, "users": list(users), "runs": told}


def embedded(value: Any) -> str:
    """JSON that may stand inside a page's ``<script type="application/json">``: no name in it can end the element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


# ---------------------------------------------------------------------------------------------------------- its parts


def _named(log: Sequence[Record], result: Result) -> list[str]:
    """Every record's user, by the hash that the result uses for that user.

    A result hashes a user's name, or the seed with it where every seed draws its own users; or its log holds hashes
    already. A record that tells no seed is of the seed of the next that does: a seed lives before it is scored.
    """
    given = set(result.users.names_hashed) if result.users else set()
    seeds: list[str] = []
    last = str(result.seeds[-1]) if result.seeds else ""
    for record in reversed(log):
        seed = record.metrics.get("seed")
        last = f"{seed:.0f}" if isinstance(seed, int | float) else last
        seeds.append(last)
    pairs = list(zip(reversed(seeds), (record.user for record in log), strict=True))
    by_seed = {pair: hashed(f"{pair[0]}:{pair[1]}") for pair in set(pairs)}
    seeded = any(name in given for name in by_seed.values())
    plain = {user: user if user in given else hashed(user) for _, user in pairs}
    return [by_seed[pair] if seeded else plain[pair[1]] for pair in pairs]


def _stream(metrics: Mapping[str, float | str]) -> str:
    system = metrics.get("system")
    if system is None:
        return LIFE
    words = [str(system).replace("_", " ")]
    words += [f"{metrics['stage']} learning"] if "stage" in metrics else []
    return ", ".join([*words, str(metrics["group"])] if "group" in metrics else words)


def _ordered(log: Sequence[Record], rows: Mapping[str, Sequence[int]]) -> list[str]:
    """The streams: the run itself, then the last stage's first, and in each those that now ask and now do not."""
    stages = [str(log[first].metrics.get("stage", "")) for first, *_ in rows.values()]
    late = {stage: -i for i, stage in enumerate(dict.fromkeys(stages))}

    def place(name: str) -> tuple[bool, int, bool]:
        asked = _column([log[i] for i in rows[name]], "asked")
        stage = str(log[rows[name][0]].metrics.get("stage", ""))
        return name != LIFE, late[stage], not 0.02 < float(np.mean(asked)) < 0.98

    return sorted(rows, key=place)


def _measured(answers: Sequence[Record], user: Array) -> Stream:
    names, which = np.unique(user, return_inverse=True)
    time = np.array([record.time for record in answers], float)
    columns = {
        "accuracy": _column(answers, "correct"),
        "offload_rate": _column(answers, "asked"),
        "agreement": np.array([_agrees(record) for record in answers]),
        "seconds": np.array([record.cost.seconds for record in answers], float),
        "bytes": np.array([record.cost.up_bytes + record.cost.down_bytes for record in answers], float),
        "joules": np.array([record.cost.joules for record in answers], float),
        "dollars": np.array([record.cost.dollars for record in answers], float),
    }
    edges, unit, size = _parts(time)
    values = _of_groups(columns, which, len(names))
    parts = max(0, len(edges) - 1)
    over = np.full((len(names), len(MEASURES), parts), np.nan)
    if parts:
        part = np.clip(np.searchsorted(edges * size, time, side="right") - 1, 0, parts - 1)
        over = _of_groups(columns, which * parts + part, len(names) * parts)
        over = over.reshape(len(names), parts, len(MEASURES)).transpose(0, 2, 1)
    spread = np.array([[_quantiles(over[:, m, b]) for b in range(parts)] for m in range(len(MEASURES))])
    return Stream(names, values, np.array([_quantiles(column) for column in values.T]), edges, unit, over, spread)


def _column(answers: Sequence[Record], name: str) -> Array:
    values = [record.metrics.get(name) for record in answers]
    return np.array([value if isinstance(value, int | float) else math.nan for value in values], float)


def _agrees(record: Record) -> float:
    """Whether the device's own model said what the cloud said; NaN where nobody knows."""
    told = record.metrics
    heard = told.get("asked") == 1 and told.get("by") not in (record.party, record.user, None)
    return float(told["own"] == told["label"]) if heard and "own" in told and "label" in told else math.nan


def _of_groups(columns: Mapping[str, Array], group: Array, n: int) -> Array:
    """[n, m]: the measures of the answers of each group; NaN where it has none."""
    count = np.bincount(group, minlength=n)
    p50, p95 = _percentiles(columns["seconds"], group, count, (0.5, 0.95))
    found = {"answers": np.where(count, count, np.nan), "p50_seconds": p50, "p95_seconds": p95}
    for name in ("accuracy", "offload_rate", "agreement"):
        found[name] = _means(columns[name], group, n)
    for name in ("bytes", "joules", "dollars"):
        found[name] = table.ANSWERS * _means(columns[name], group, n)
    return np.stack([found[column.measure] for column in MEASURES], 1)


def _means(values: Array, group: Array, n: int) -> Array:
    known = np.isfinite(values)
    count = np.bincount(group[known], minlength=n)
    total = np.bincount(group[known], values[known], minlength=n)
    return np.where(count, total / np.maximum(count, 1), np.nan)


def _percentiles(values: Array, group: Array, count: Array, at: Sequence[float]) -> list[Array]:
    """Of each group, linear between order statistics; one sort for all groups."""
    values = values[np.lexsort((values, group))]
    first = np.cumsum(count) - count
    found = []
    for share in at:
        place = first + share * np.maximum(count - 1, 0)
        low = np.minimum(place.astype(int), len(values) - 1)
        high = np.minimum(np.ceil(place).astype(int), len(values) - 1)
        between = values[low] + (place - low) * (values[high] - values[low])
        found.append(np.where(count, between, np.nan))
    return found


def _quantiles(values: Array) -> Array:
    known = values[np.isfinite(values)]
    return np.quantile(known, QUANTILES) if len(known) else np.full(len(QUANTILES), np.nan)


def _parts(time: Array) -> tuple[Array, str, float]:
    """The edges of at most :data:`PARTS` round parts of the time, in a unit, and that unit's seconds."""
    low, high = float(time.min()), float(time.max())
    if high <= low:
        return np.empty(0), "", 1.0
    days = [_DAY * 2**i for i in range(40)]
    for width in [width for width in (*_WIDTHS, *days) if width >= (_DAY if high - low >= 2 * _DAY else 0)]:
        first, last = math.floor(low / width), math.floor(high / width) + 1
        if last - first <= PARTS:
            break
    size, unit = next((size, unit) for least, size, unit in _UNITS if last * width > least)
    return np.arange(first, last + 1) * (width / size), unit, size


def _plain(values: Array, digits: int) -> Any:
    """Nested lists of numbers with so many significant digits; None for NaN."""
    if np.ndim(values):
        return [_plain(value, digits) for value in values]
    value = float(values)
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 2**53 else short
