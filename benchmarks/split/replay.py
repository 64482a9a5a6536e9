"""Streams of requests over traces: exact transfers of every option, and what the methods make of them.

Requests come at fixed times, each judged as if alone on its link, so that the choice at one changes no other and the
clairvoyant's sum of minima is the least that any sequence of plans can cost. Axes: N requests, T links, C cells
(network x device x cloud), K options. Arrays of C x K are padded with options that nobody takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from duetto.policies.cuts import COLUMNS, Options
from duetto.policies.learned_plan import LearnedPlan
from duetto.policies.planned import LONGEST_SECONDS, PROBE_BYTES, Planned
from duetto.simulation.link import Link
from duetto.simulation.traces import Trace
from duetto.types import rng

Floats: TypeAlias = np.ndarray
PROBE_SECONDS = 0.3  # a probe that has not passed by then tells an outage
NEVER = 1e6  # seconds and joules of padding


@dataclass(frozen=True, eq=False)
class Course:
    """A trace laid out from 0 on, long enough for all requests, so that many transfers are found at once."""

    edges: Floats
    mbps: Floats
    passed: Floats

    @classmethod
    def of(cls, trace: Trace, until: float) -> Course:
        """``trace``, repeated up to a time."""
        period = float(trace.seconds[-1])
        times = int(until // period) + 1
        edges = np.concatenate([trace.seconds[:-1] + period * i for i in range(times)] + [np.array([period * times])])
        mbps = np.tile(trace.mbps, times)
        return cls(edges, mbps, np.concatenate([[0.0], np.cumsum(np.diff(edges) * mbps)]))

    def until(self, times: Floats) -> Floats:
        """Megabits that pass from 0 to each time."""
        return np.asarray(np.interp(times, self.edges, self.passed))

    def takes(self, starts: Floats, megabits: Floats) -> Floats:
        """Seconds in which so much passes from each start on; at most :data:`LONGEST_SECONDS`."""
        goal = self.until(starts) + megabits
        at = np.clip(np.searchsorted(self.passed, goal), 1, len(self.mbps)) - 1
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = self.edges[at] + (goal - self.passed[at]) / self.mbps[at]
        took = np.where(megabits > 0, ends - starts, 0.0)
        return np.asarray(np.clip(np.nan_to_num(took, nan=LONGEST_SECONDS), 0.0, LONGEST_SECONDS))


@dataclass(frozen=True, eq=False)
class Stream:
    """Requests over one link: ``[n]`` times, round trips, and draws in 0..1 that decide which exit is sure enough."""

    name: str
    up: Course
    down: Course
    times: Floats
    rtt: Floats
    draw: Floats
    median_rtt: float


def stream(link: Link, *, interval: float, requests: int, sigma: float, seed: int) -> Stream:
    """The requests of a link: one every ``interval`` seconds while its trace lasts."""
    lasts = float(max(link.up.seconds[-1], link.down.seconds[-1]))
    times = np.arange(min(requests, max(1, int(lasts // interval)))) * interval
    until, name = float(times[-1]) + 4 * LONGEST_SECONDS + 60, link.up.name
    random = rng((seed, "replay", name))
    rtt = link.rtt_seconds * np.exp(sigma * random.standard_normal(len(times)))
    draw = random.random(len(times))
    return Stream(name, Course.of(link.up, until), Course.of(link.down, until), times, rtt, draw, link.rtt_seconds)


@dataclass(frozen=True, eq=False)
class World:
    """Everything that a method is judged on.

    Attributes:
        streams: ``[T]``.
        table: columns ``[C, K]``.
        labels: ``[C]`` of ``[K]``.
        radio: ``[T, 4]`` up, down, tail watts, tail seconds.
        gap: seconds of the tail that each answer is charged.
        alive: ``[N, T]`` bool.
        up, wait: ``[N, T, C, K]`` seconds of sending, and from then to the answer.
        seconds, joules: ``[N, T, C, K]`` of each option, without rescue.
    """

    streams: Sequence[Stream]
    table: Mapping[str, Floats]
    labels: Sequence[tuple[str, ...]]
    radio: Floats
    gap: float
    interval: float
    alive: np.ndarray
    up: Floats
    wait: Floats
    early: np.ndarray
    seconds: Floats
    joules: Floats


def padded(options: Sequence[Options]) -> tuple[dict[str, Floats], list[tuple[str, ...]]]:
    """Columns ``[C, K]``; the padding sends nothing and takes for ever."""
    most = max(map(len, options))
    fill = {name: NEVER if name in ("device_seconds", "device_joules") else 0.0 for name in COLUMNS}
    table = {
        name: np.stack(
            [np.concatenate([getattr(each, name), np.full(most - len(each), fill[name])]) for each in options]
        )
        for name in COLUMNS
    }
    return table, [each.label for each in options]


def world(streams: Sequence[Stream], options: Sequence[Options], radio: Floats, gap: float, interval: float) -> World:
    """All transfers of all options, exact."""
    table, labels = padded(options)
    longest = max(len(each.times) for each in streams)
    shape = (longest, len(streams), *table["up_bytes"].shape)
    alive = np.zeros(shape[:2], bool)
    up, down, rtt, early = np.zeros(shape), np.zeros(shape), np.zeros(shape[:2]), np.zeros(shape, bool)
    sends = table["up_bytes"] > 0
    for t, each in enumerate(streams):
        n = len(each.times)
        alive[:n, t] = True
        rtt[:n, t] = each.rtt
        begin = each.times[:, None, None] + np.minimum(table["device_seconds"], 4 * LONGEST_SECONDS)
        up[:n, t] = each.up.takes(begin, np.broadcast_to(table["up_bytes"] * 8e-6, begin.shape))
        back = begin + up[:n, t] + each.rtt[:, None, None] + table["cloud_seconds"]
        down[:n, t] = each.down.takes(back, np.broadcast_to(table["down_bytes"] * 8e-6, back.shape))
        early[:n, t] = each.draw[:, None, None] < table["early_share"]
    wait = sends * (rtt[:, :, None, None] + table["cloud_seconds"] + down)
    figures = radio[:, None, None, :]
    seconds = np.where(early, table["early_seconds"], table["device_seconds"] + up + wait)
    tail = figures[..., 2] * (np.minimum(wait, figures[..., 3]) + np.minimum(gap, figures[..., 3]))
    air = up * figures[..., 0] + down * figures[..., 1] + sends * tail
    joules = np.where(early, table["early_joules"], table["device_joules"] + air)
    return World(streams, table, labels, radio, gap, interval, alive, up, wait, early, seconds, joules)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a method brought: rows, seconds, joules, dollars, each ``[N, T, C]``; and the shares of what it did besides.

    A call whose message did not arrive in full costs no dollars; where the device alone answers, nothing does.
    """

    rows: np.ndarray
    seconds: Floats
    joules: Floats
    dollars: Floats
    rescued: float = 0.0
    probed: float = 0.0


def fixed(of: World, rows: np.ndarray) -> Outcome:
    """Rows chosen before, without rescue: anything that broadcasts to ``[N, T, C]``."""
    rows = np.broadcast_to(rows, of.seconds.shape[:3])
    at = rows[..., None]
    take = np.take_along_axis
    dollars = of.table["dollars"] * ~of.early
    return Outcome(rows, *(take(each, at, -1)[..., 0] for each in (of.seconds, of.joules, dollars)))


def cost(outcome: Outcome | World, objective: str) -> Floats:
    """Seconds or joules."""
    return outcome.joules if objective == "energy" else outcome.seconds


def clairvoyant(of: World, objective: str) -> Outcome:
    """The best option of every request."""
    return fixed(of, cost(of, objective).argmin(-1))


def static(of: World, objective: str, which: np.ndarray) -> Outcome:
    """In every cell the one option that is best over the links ``which``, in hindsight."""
    return fixed(of, by_link(of, cost(of, objective))[which].mean(0).argmin(-1))


def by_link(of: World, values: Floats) -> Floats:
    """``[T, ...]`` means over the requests of each link."""
    alive = of.alive.reshape(*of.alive.shape, *[1] * (values.ndim - 2))
    return np.asarray((values * alive).sum(0) / alive.sum(0))


def rates(of: World, offset: float, span: float) -> Floats:
    """``[N, T]`` mean Mbit/s up over ``span`` seconds from ``offset`` after each request."""
    found = np.ones(of.alive.shape)
    for t, each in enumerate(of.streams):
        start = np.maximum(each.times + offset, 0.0)
        end = np.maximum(each.times + offset + span, start + 1e-3)
        found[: len(each.times), t] = (each.up.until(end) - each.up.until(start)) / (end - start)
    return found


def foreseen(of: World, objective: str, mbps: Floats) -> Outcome:
    """What is best if the bandwidth were so, ``[N, T]``, request by request: an oracle, or a plan made at the start."""
    table, rows = of.table, np.zeros(of.seconds.shape[:3], np.int64)
    rtt = np.array([each.median_rtt for each in of.streams])[:, None, None]
    sends = table["up_bytes"] > 0
    radio = of.radio[:, None, None, :]
    for n in range(len(rows)):
        up = np.minimum(table["up_bytes"] * 8e-6 / np.maximum(mbps[n], 1e-3)[:, None, None], LONGEST_SECONDS)
        wait = sends * (rtt + table["cloud_seconds"])
        if objective == "energy":
            tail = radio[..., 2] * (np.minimum(wait, radio[..., 3]) + np.minimum(of.gap, radio[..., 3]))
            whole, early = table["device_joules"] + up * radio[..., 0] + sends * tail, table["early_joules"]
        else:
            whole, early = table["device_seconds"] + up + wait, table["early_seconds"]
        rows[n] = (table["early_share"] * early + (1 - table["early_share"]) * whole).argmin(-1)
    return fixed(of, rows)


def dynamic(
    of: World,
    policy: Planned,
    knows: Literal["own", "monitor"],
    *,
    sigma: float = 0.0,
    seed: int = 0,
    learner: LearnedPlan | None = None,
) -> Outcome:
    """A policy that lives through the streams, all links and cells side by side; its measurements are its own.

    "own": bandwidths of its own transfers and probes, as far as they have come when the next request does. "monitor":
    the true mean of the second before each request. ``learner``: chooses in place of the policy by its forecasts.
    """
    table, gather = of.table, _gather
    shape = of.seconds.shape[1:3]
    state = policy.forecast.begun(shape)
    # The handshake that opened the connection told one round trip.
    rtt = np.broadcast_to(np.array([each.rtt[0] for each in of.streams])[:, None], shape)
    last = np.full(shape, -1)
    radio = of.radio[:, None, :]
    watched = rates(of, -1.0, 1.0)
    rows_, seconds_, joules_, dollars_ = (np.zeros(of.seconds.shape[:3]) for _ in range(4))
    rescues = probes = 0.0
    random = rng((seed, "measured"))
    energy = policy.objective == "energy"

    def noise() -> Floats:
        return np.exp(sigma * random.standard_normal(shape))

    held = learner.begun(shape, table["up_bytes"].shape[-1]) if learner else {}
    for n in range(len(rows_)):
        now, alive = n * of.interval, of.alive[n][:, None]
        until = now + of.interval
        if knows == "monitor":
            told = np.where(alive, watched[n][:, None], np.nan)
            state = policy.forecast.heard(state, now, np.broadcast_to(told, shape))
        rates_, chances = policy.forecast.ahead(state, now)
        weighed = policy.weighed(table, radio, rates_, chances, rtt)
        delay, extra = np.zeros(shape), np.zeros(shape)
        if knows == "own" and energy:
            # Only time is lost by asking the link first, and only joules count.
            first = alive & policy.probes(weighed, rates_[..., 1], radio, rtt)
            state, delay, extra = _probed(of, n, first, state, policy, noise())
            probes += first.sum()
            rates_, chances = policy.forecast.ahead(state, now + delay)
            weighed = policy.weighed(table, radio, rates_, chances, rtt)
        costs, x = weighed.costs, np.zeros(0)
        if learner:
            x = learner.described(rates_, chances)
            costs = learner.corrected(held, x, costs)
        rows = policy.taken(costs, last)
        patience = gather(weighed.patience, rows)
        early = gather(of.early[n], rows)
        sends = (gather(table["up_bytes"], rows) > 0) & ~early
        before, up, wait = gather(table["device_seconds"], rows), gather(of.up[n], rows), gather(of.wait[n], rows)
        seconds, joules = gather(of.seconds[n], rows) + delay, gather(of.joules[n], rows) + extra
        if delay.any():
            later = _later(of, now + delay + before, gather(table["up_bytes"], rows) * 8e-6, up, delay > 0)
            seconds, joules = seconds + sends * (later - up), joules + sends * (later - up) * of.radio[:, 0][:, None]
            up, before = later, before + delay
        took, rest = up + wait, gather(table["rest_seconds"], rows)
        late = sends & (took > patience)
        airtime = up.copy()
        if policy.rescue:
            waited = np.minimum(patience, NEVER)
            down = of.radio[:, 0][:, None]
            if energy:
                airtime = np.where(late, np.minimum(up, waited), up)
                seconds = np.where(late, before + waited + rest, seconds)
                joules = np.where(late, joules + gather(table["rest_joules"], rows), joules)
            else:
                end = np.where(late, np.minimum(took, waited + rest), took)
                spent = np.where(late & (rest > 0), (end - waited) / np.maximum(rest, 1e-12), 0.0)
                airtime = np.minimum(up, end)
                seconds = np.where(late, before + end, seconds)
                joules = np.where(late, joules + spent * gather(table["rest_joules"], rows), joules)
            joules = joules - np.where(sends, (up - airtime) * down, 0.0)
            rescues += (late & alive).sum()
        rows_[n], seconds_[n], joules_[n] = rows, seconds, joules
        dollars_[n] = gather(table["dollars"], rows) * (sends & (airtime >= up))
        if learner:
            foretold = gather(weighed.costs, rows)
            held = learner.told(held, x, rows, np.where(alive, joules if energy else seconds, np.nan) / foretold)
        last = np.where(alive, rows, last)
        rtt = np.where(sends & ~late, 0.8 * rtt + 0.2 * (wait - gather(table["cloud_seconds"], rows)), rtt)
        if knows == "own":
            start = now + before
            stop = np.minimum(start + airtime, until)
            asks = ~sends & alive & (delay == 0) & (not energy) & policy.probes(weighed, rates_[..., 1], radio, rtt)
            begin = np.where(asks, np.minimum(now + seconds, until - 0.5), start)
            passed, lasted = np.zeros(shape), np.ones(shape)
            for t, each in enumerate(of.streams):
                if not of.alive[n, t]:
                    continue
                length = np.minimum(
                    each.up.takes(begin[t], np.where(asks[t], PROBE_BYTES * 8e-6, 0.0)), until - begin[t]
                )
                stop[t] = np.where(asks[t], begin[t] + length, stop[t])
                passed[t] = each.up.until(stop[t]) - each.up.until(begin[t])
                lasted[t] = stop[t] - begin[t]
            found = passed / np.maximum(lasted, 1e-9) * noise()
            found = np.where((sends | asks) & alive & (lasted > 1e-9), found, np.nan)
            state = policy.forecast.heard(state, stop, found)
            tail = of.radio[:, 2] * np.minimum(of.gap, of.radio[:, 3])
            joules_[n] += np.where(asks, np.maximum(lasted, 0) * of.radio[:, 0][:, None] + tail[:, None], 0.0)
            probes += asks.sum()
    count = of.alive.sum() * shape[1]
    return Outcome(rows_.astype(np.int64), seconds_, joules_, dollars_, rescues / count, probes / count)


def _probed(
    of: World, n: int, which: np.ndarray, state: Any, policy: Planned, noise: Floats
) -> tuple[Any, Floats, Floats]:
    """Probes at a request's time: the state after them, and the seconds and joules they took, ``[T, C]``."""
    delay, extra, found = np.zeros(which.shape), np.zeros(which.shape), np.full(which.shape, np.nan)
    now = n * of.interval
    for t in np.flatnonzero(which.any(1)):
        each = of.streams[t]
        begin = np.array([now])
        took = min(float(each.up.takes(begin, np.array([PROBE_BYTES * 8e-6]))[0]), PROBE_SECONDS)
        passed = float(each.up.until(begin + took)[0] - each.up.until(begin)[0])
        up_watts, _, tail_watts, tail_seconds = of.radio[t]
        tail = min(of.gap, tail_seconds) + min(each.rtt[n], tail_seconds)
        delay[t] = which[t] * (took + each.rtt[n])
        extra[t] = which[t] * (took * up_watts + tail * tail_watts)
        found[t] = np.where(which[t], passed / took * noise[t], np.nan)
    return policy.forecast.heard(state, now + delay, found), delay, extra


def _later(of: World, begin: Floats, megabits: Floats, up: Floats, which: np.ndarray) -> Floats:
    """Seconds of sending that begins later than foreseen, ``[T, C]``."""
    found = up.copy()
    for t in np.flatnonzero(which.any(1)):
        found[t] = np.where(which[t], of.streams[t].up.takes(begin[t], megabits[t]), up[t])
    return found


def _gather(values: Floats, rows: np.ndarray) -> Floats:
    """``[T, C]`` of ``[C, K]`` or ``[T, C, K]``."""
    values = np.broadcast_to(values, (*rows.shape, values.shape[-1]))
    return np.asarray(np.take_along_axis(values, rows[..., None], -1)[..., 0])
