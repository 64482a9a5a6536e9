"""Where to cut now: a plan table, a forecast with its spread, and a rescue where the link does not keep to it.

Planners of split inference (Neurosurgeon, Kang et al. 2017; DADS, Hu et al. 2019) take the plan that is best at an
estimated bandwidth. What costs more than a wrong plan are stalls: a transfer of which nothing comes. So every option is
weighed over the whole forecast (:mod:`duetto.policies.forecast`) and with the *patience* that suits it, after which the
device goes on by itself. For latency the transfer goes on beside it and the first answer wins; for energy the radio is
given up. Without a forecast that patience would be the ski rental's, the time in which the radio wastes what the rest
costs (Karlin et al. 1988), which is never worse than twice the best; with one it is what is cheapest on average.

A probe, two kilobytes, is worth it where knowing the bandwidth would change plans enough: the difference between the
best plan on average and the average of the best plans, for the requests that it informs, against what it costs. These
are the next few where the device would stay alone, and only the next one where that is asked anyway.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.policies.cuts import COLUMNS, Objective, Options, Radio, known
from duetto.policies.forecast import PLACES, SLOW, Jumps
from duetto.policies.threshold import unanswered
from duetto.tree import Array, Tree
from duetto.types import Action, Codec, Held, Key, Move, Plan, Policy, Seen

PROBE_BYTES = 2000
LONGEST_SECONDS = 30.0  # no transfer is waited for longer
_JITTER = 1.6  # an answer may take so many times its round trip and computing before it is late
_WAITS = (0.0, 1.1, 1.6, 3.0)  # patience that is tried, times what the slowest forecast without a jump takes


@dataclass(frozen=True, eq=False)
class Weighed:
    """What options are expected to cost.

    Attributes:
        costs: ``[..., rows]`` in the objective's unit.
        patience: ``[..., rows]`` seconds from the first bit on, infinite where the device never goes on alone.
        known: ``[...]`` what the best option would cost on average if the bandwidth were known, or what it costs as it
            is where that was not asked for.
        sends: ``[..., rows]`` bool, whether an option sends something, or what broadcasts to it.
    """

    costs: np.ndarray
    patience: np.ndarray
    known: np.ndarray
    sends: np.ndarray


@dataclass(frozen=True)
class Planned(Policy[Tree]):
    """Take the option that is cheapest over the forecast, with the patience that suits it.

    ``seen.link``: ``up_mbps``, ``down_mbps``, ``rtt_seconds``, each ``[n]`` where somebody monitors the link; what is
    not there is believed from :meth:`learn`. ``seen.queue``, seconds of work in the cloud; ``seen.traits["time"]``,
    seconds on any clock. Before the first stage it asks with a plan, or goes on where the device alone is best. At
    later stages it stops, and asks where there is no answer: between cuts without exits, put it into
    :class:`~duetto.policies.ExitOrCut`. A move holds one plan: where the items of an array want different ones, the
    plan is that of the first that asks, and :meth:`wanted` tells all.

    State: the forecast's; ``last`` (int64 scalar, the row last used, -1: none); ``rtt`` (float64 scalar); once given
    options ``table``, their columns ``[rows]`` float64, and ``radio`` ``[4]``. Without options it never asks.

    Args:
        plans: one an option; :meth:`given` sets them.
        objective: "latency", "energy" or "price".
        rescue: whether the device finishes alone after the patience.
        waste: what a second or joule that a rescue computes in vain counts beside one of waiting, for latency.
        trust: for energy, the radio is given up between ``trust`` and 1 / ``trust`` times the ski rental's patience,
            wherever the forecast wants it (Purohit, Svitkina, Kumar 2018); above 0, at most 1.
        stay: share that another plan must be cheaper to be taken.
        informs: requests that a probe informs where nothing else would be sent.
        stall_seconds: that an outage is believed to last.
        gap_seconds: of the radio's tail that an answer is charged.
        forecast: of the bandwidth.

    Raises:
        ConfigError: an unknown objective, or a number out of range.
    """

    plans: tuple[Plan, ...] = ()
    objective: Objective = "latency"
    rescue: bool = True
    waste: float = 0.1
    trust: float = 0.8
    stay: float = 0.02
    informs: float = 6.0
    stall_seconds: float = 5.0
    gap_seconds: float = 0.0
    forecast: Jumps = field(default_factory=Jumps)

    def __post_init__(self) -> None:
        known(self.objective)
        for name in ("waste", "stay", "informs", "stall_seconds", "gap_seconds"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name}={getattr(self, name)}", "use a number from 0")
        if not 0 < self.trust <= 1:
            raise ConfigError(f"a trust of {self.trust}", "use a share above 0")

    def init(self) -> Tree:
        """Nothing known, and no options."""
        return {**self.forecast.begun(), "last": np.array(-1), "rtt": np.array(0.05)}

    def given(
        self, options: Options, radio: Radio | None = None, codecs: Mapping[str, Codec[Any]] | None = None
    ) -> Held[Tree]:
        """The policy that chooses among these options: best those of a :func:`duetto.policies.cuts.table`.

        Args:
            options: what a request may cost.
            radio: what sending costs.
            codecs: by the names in the options, no two alike: a plan is told by them.

        Raises:
            ConfigError: a codec that has no such name here.
        """
        part = replace(self, plans=options.plans(codecs or {}))
        return Held(part, {**self.init(), "table": tabled(options), "radio": figures(radio)})

    def choose(self, state: Tree, seen: Seen, key: Key) -> tuple[Tree, Move]:
        """Ask with a plan or go on, item by item; it remembers nothing, :meth:`learn` does."""
        if seen.stage or "table" not in state:
            return state, unanswered(seen) or Move.sure(np.full(seen.size, Action.STOP), "answered here")
        weighed = self.weigh(state, seen)
        rows = self.taken(weighed.costs, np.broadcast_to(state["last"], (seen.size,)))
        return state, self.move(state, rows, weighed.patience)

    def move(self, state: Tree, rows: np.ndarray, patience: np.ndarray) -> Move:
        """The move that carries out these rows ``[n]``, with the patience ``[n, rows]`` of each."""
        asks = state["table"]["up_bytes"][rows] > 0
        why = f"least {self.objective} of {len(self.plans)} plans"
        action = np.where(asks, Action.ASK, Action.GO).astype(np.int8)
        if not len(rows):
            return Move.sure(action, why)
        at = int(asks.argmax())
        row = int(rows[at])
        plan = self.plans[row]
        return Move.sure(action, why, plan=Plan(plan.cut, plan.codec, plan.exit, float(patience[at, row])))

    def wanted(self, state: Tree, seen: Seen) -> np.ndarray:
        """The row of the best option of every item, ``[n]``."""
        return self.taken(self.weigh(state, seen).costs, np.broadcast_to(state["last"], (seen.size,)))

    def probe(self, state: Tree, seen: Seen) -> np.ndarray:
        """Whether a probe of :data:`PROBE_BYTES` is worth sending after these requests, ``[n]`` bool."""
        rates, _ = self.foreseen(state, seen)
        return self.probes(self.weigh(state, seen, True), rates[..., 1], state["radio"], self.waits(state, seen))

    def learn(self, state: Tree, seen: Seen, move: Move, reward: Array) -> Tree:
        """Hear what transfers and probes took, one after the other.

        ``seen.traits``: ``up_mbps`` ``[n]``, bytes that passed over the seconds they took, given up or not, NaN where
        nothing was sent; ``time`` ``[n]`` at which that ended; ``rtt_seconds`` ``[n]``, NaN where not known.

        Raises:
            DataError: columns of another length.
        """
        traits = seen.traits or {}
        known_ = {name: column(traits.get(name), seen.size) for name in ("up_mbps", "time", "rtt_seconds")}
        after = dict(state)
        for i in range(seen.size):
            time = known_["time"][i]
            after = self.forecast.heard(after, after["time"] if np.isnan(time) else time, known_["up_mbps"][i])
            if not np.isnan(rtt := known_["rtt_seconds"][i]):
                after["rtt"] = 0.8 * after["rtt"] + 0.2 * rtt
        if seen.size and "table" in state and (row := self.row(state, move)) is not None:
            after["last"] = np.array(row)
        return {name: value if isinstance(value, Mapping) else np.asarray(value) for name, value in after.items()}

    def weighed(
        self,
        table: Mapping[str, Array],
        radio: Array,
        rates: Array,
        chances: Array,
        waits: Array,
        probing: bool = True,
    ) -> Weighed:
        """What every option is expected to cost, over links and devices of any shape ``[...]``.

        Args:
            table: columns ``[..., rows]``.
            radio: ``[..., 4]`` or ``[4]``, as of :func:`figures`.
            rates, chances: ``[..., nodes]`` forecast: Mbit/s and probabilities.
            waits: ``[...]`` round trip and queue, seconds.
            probing: whether what knowing the bandwidth is worth is needed, too.
        """
        energy, price = self.objective == "energy", self.objective == "price"
        rates = rates[..., None, :]
        sends = table["up_bytes"] > 0
        # In an outage nothing passes, however little it is.
        stalls = self.stall_seconds * (rates <= 1.001 * PLACES[0])
        up = np.minimum(table["up_bytes"][..., None] * 8e-6 / rates + sends[..., None] * stalls, LONGEST_SECONDS)
        wait = (sends * (waits[..., None] + table["cloud_seconds"]))[..., None]
        took = up + wait
        up_watts, _, tail_watts, tail_seconds = (radio[..., i, None, None] for i in range(4))
        cost = took
        if energy:
            tail = tail_watts * (np.minimum(wait, tail_seconds) + np.minimum(self.gap_seconds, tail_seconds))
            cost = up * up_watts + sends[..., None] * tail
        elif price:
            cost = table["dollars"][..., None] + 1e-12 * took
        patience = np.full(took.shape[:-1], math.inf)
        mean = np.einsum("...kq,...q->...k", cost, chances)
        if self.rescue and not price:
            rest = table["rest_joules" if energy else "rest_seconds"][..., None]
            slow = up[..., SLOW, None]
            for times in _WAITS[energy:]:
                limit = times * slow + _JITTER * wait if times else np.zeros_like(slow)
                if energy:
                    rental = rest / np.maximum(up_watts, 1e-9)
                    limit = np.minimum(np.maximum(times * slow, self.trust * rental), rental / self.trust)
                    limit = limit + _JITTER * wait
                    late = np.minimum(up, limit) * up_watts + (tail + rest)
                else:
                    late = limit + (1 + self.waste) * np.minimum(np.maximum(took - limit, 0.0), rest)
                each = np.einsum("...kq,...q->...k", np.where(took > limit, late, cost), chances)
                better = sends & (each < mean)
                mean, patience = np.where(better, each, mean), np.where(better, limit[..., 0], patience)
        own, early = ("device_joules", "early_joules") if energy else ("device_seconds", "early_seconds")
        share = table["early_share"]
        base, first = (0.0 * share, 0.0 * share) if price else (table[own], share * table[early])
        found = first + (1 - share) * (base + mean)
        if not probing:
            return Weighed(found, patience, found.min(-1), sends)
        exact = first[..., None] + (1 - share[..., None]) * (base[..., None] + cost)
        return Weighed(found, patience, (exact.min(-2) * chances).sum(-1), sends)

    def taken(self, costs: Array, last: Array) -> np.ndarray:
        """The row of the least cost ``[..., rows]``, or the last one where it costs hardly more."""
        rows = costs.argmin(-1)
        if not (last >= 0).any():
            return np.asarray(rows)
        flat = costs.reshape(-1, costs.shape[-1])
        held = flat[np.arange(len(flat)), np.maximum(last, 0).reshape(-1)].reshape(rows.shape)
        return np.asarray(np.where((last >= 0) & (held <= (1 + self.stay) * costs.min(-1)), last, rows))

    def probes(self, weighed: Weighed, mbps: Array, radio: Array, waits: Array) -> np.ndarray:
        """Whether a probe pays, ``[...]`` bool; where only time counts it must be worth a hundredth of a request.

        A question tells as much as a probe does: before one that is asked anyway, a probe informs that one alone.
        """
        best, row = weighed.costs.min(-1), weighed.costs.argmin(-1)[..., None]
        asks = np.take_along_axis(np.broadcast_to(weighed.sends, weighed.costs.shape), row, -1)[..., 0]
        worth = np.where(asks, min(1.0, self.informs), self.informs) * np.maximum(best - weighed.known, 0.0)
        if self.objective != "energy":
            return np.asarray((worth > 0.03 * best) & (self.objective == "latency"))
        seconds = PROBE_BYTES * 8e-6 / mbps
        tail = radio[..., 2] * np.minimum(radio[..., 3], self.gap_seconds + waits)
        return np.asarray(worth > seconds * radio[..., 0] + tail)

    def foreseen(self, state: Tree, seen: Seen) -> tuple[np.ndarray, np.ndarray]:
        """Mbit/s and probabilities, each ``[n, nodes]``."""
        time = column((seen.traits or {}).get("time"), seen.size)
        time = np.where(np.isnan(time), state["time"], time)
        link = seen.link or {}
        if "up_mbps" in link:
            state = self.forecast.heard(state, time, column(link["up_mbps"], seen.size))
        rates, chances = self.forecast.ahead(state, time)
        return rates, chances

    def weigh(self, state: Tree, seen: Seen, probing: bool = False) -> Weighed:
        """What every option is expected to cost every item, ``[n, rows]``."""
        rates, chances = self.foreseen(state, seen)
        return self.weighed(state["table"], state["radio"], rates, chances, self.waits(state, seen), probing)

    def waits(self, state: Tree, seen: Seen) -> np.ndarray:
        """Round trip and queue of every item, seconds ``[n]``."""
        link = seen.link or {}
        waits = column(link["rtt_seconds"], seen.size) if "rtt_seconds" in link else np.full(seen.size, state["rtt"])
        return waits if seen.queue is None else waits + column(seen.queue, seen.size)

    def row(self, state: Tree, move: Move) -> int | None:
        """The row of a move's plan, or that of the device alone; None where it is not of this table."""
        if (np.asarray(move.action) == Action.ASK).any():
            plan = replace(move.plan, patience=math.inf)
            return next((i for i, each in enumerate(self.plans) if each == plan), None)
        alone = np.flatnonzero(state["table"]["up_bytes"] == 0)
        return int(alone[0]) if len(alone) else None


def tabled(options: Options) -> dict[str, np.ndarray]:
    """The columns of options that are numbers, ``[rows]`` float64."""
    return {name: np.array(getattr(options, name)) for name in COLUMNS}


def figures(radio: Radio | None) -> np.ndarray:
    """``[4]``: up, down and tail watts, tail seconds; zeros without a radio."""
    if radio is None:
        return np.zeros(4)
    return np.array([radio.up_watts, radio.down_watts, radio.tail_watts, radio.tail_seconds], np.float64)


def column(values: Array | None, size: int) -> np.ndarray:
    """``[n]`` float64; NaN where there is none.

    Raises:
        DataError: another length.
    """
    if values is None:
        return np.full(size, np.nan)
    array = np.asarray(values, np.float64)
    if array.shape != (size,):
        raise DataError(f"a column of shape {array.shape}", f"give {size} numbers")
    return array
