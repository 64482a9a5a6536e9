"""Where to cut now: a plan table, a forecast with its spread, and a rescue where the link does not keep to it.

Planners of split inference (Neurosurgeon, Kang et al. 2017; DADS, Hu et al. 2019) take the plan that is best at an
estimated bandwidth. What costs more than a wrong plan are stalls: a transfer of which nothing comes. So every option is
weighed over the whole forecast (:mod:`duetto.policies.forecast`) and with the *patience* that suits it, after which the
device goes on by itself. For latency the transfer goes on beside it and the first answer wins; for energy the radio is
given up. Without a forecast that patience would be the ski rental's, the time in which the radio wastes what the rest
costs (Karlin et al. 1988), which is never worse than twice the best; with one it is what is cheapest on average.

A probe, two kilobytes, is worth it where knowing the bandwidth would change plans enough: the difference between the
best plan on average and the average of the best plans, for the requests that it informs, against what it costs.
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


@dataclass(frozen=True)
class Planned(Policy[Tree]):
    """Take the option that is cheapest over the forecast, with the patience that suits it.

    ``seen.link``: ``up_mbps``, ``down_mbps``, ``rtt_seconds``, each ``[n]`` where somebody monitors the link; what is
    not there is believed from :meth:`learn`. ``seen.queue``, seconds of work in the cloud; ``seen.traits["time"]``,
    seconds on any clock. Before the first stage it asks with a plan, or goes on where the device alone is best; at later
    stages it stops. A move holds one plan: where the items of an array want different ones, the plan is that of the first
    that asks, and :meth:`wanted` tells all.

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
        informs: requests that a probe informs.
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
    trust: float = 0.5
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
            codecs: by the names in the options; needed only by who carries the plans out.

        Raises:
            ConfigError: a codec that has no such name here.
        """
        named = options if codecs is not None else None
        plans = tuple(Plan(cut, None, exit) for cut, exit in zip(options.cut, options.exit, strict=True))
        part = replace(self, plans=plans if named is None else named.plans(codecs or {}))
        return Held(part, {**self.init(), "table": tabled(options), "radio": figures(radio)})

    def choose(self, state: Tree, seen: Seen, key: Key) -> tuple[Tree, Move]:
        """Ask with a plan or go on, item by item; it remembers nothing, :meth:`learn` does."""
        if seen.stage or "table" not in state:
            return state, unanswered(seen) or Move.sure(np.full(seen.size, Action.STOP), "answered here")
        rows, patience, _ = self._weighed(state, seen)
        asks = state["table"]["up_bytes"][rows] > 0
        move = np.where(asks, Action.ASK, Action.GO).astype(np.int8)
        at = int(asks.argmax()) if seen.size else 0
        if not seen.size:
            return state, Move.sure(move, "nothing to plan")
        plan = self.plans[int(rows[at])]
        waited = float(patience[at])
        plan = Plan(plan.cut, plan.codec, plan.exit, waited if asks[at] else math.inf)
        return state, Move(move, np.ones(seen.size), f"least {self.objective} of {len(self.plans)} plans", plan=plan)

    def wanted(self, state: Tree, seen: Seen) -> np.ndarray:
        """The row of the best option of every item, ``[n]``."""
        return self._weighed(state, seen)[0]

    def probe(self, state: Tree, seen: Seen) -> np.ndarray:
        """Whether a probe of :data:`PROBE_BYTES` is worth sending after these requests, ``[n]`` bool."""
        rates, _ = self._forecast(state, seen)
        best, worth = self._weighed(state, seen)[2]
        return self.probes(worth, best, rates[..., 1], state["radio"])

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
        if seen.size and "table" in state and (row := self._row(state, move)) is not None:
            after["last"] = np.array(row)
        return {name: value if isinstance(value, Mapping) else np.asarray(value) for name, value in after.items()}

    def weighed(
        self, table: Mapping[str, Array], radio: Array, rates: Array, chances: Array, waits: Array, last: Array
    ) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """The core, over links and devices of any shape ``[...]``.

        Args:
            table: columns ``[..., rows]``.
            radio: ``[..., 4]`` or ``[4]``, as of :func:`figures`.
            rates, chances: ``[..., nodes]`` forecast: Mbit/s and probabilities.
            waits: ``[...]`` round trip and queue, seconds.
            last: ``[...]`` the row last used; -1 none.

        Returns:
            rows ``[...]``; patience ``[...]`` seconds from the first bit on; (the cost of the chosen row, and what knowing
            the bandwidth is worth) each ``[...]``.
        """
        weights, rates = chances[..., None, :], rates[..., None, :]
        sends = table["up_bytes"] > 0
        # In an outage nothing passes, however little it is.
        stalls = self.stall_seconds * (rates <= 1.001 * PLACES[0])
        up = np.minimum(table["up_bytes"][..., None] * 8e-6 / rates + sends[..., None] * stalls, LONGEST_SECONDS)
        wait = (sends * (waits[..., None] + table["cloud_seconds"]))[..., None]
        took = up + wait
        energy = self.objective == "energy"
        if energy:
            up_watts, _, tail_watts, tail_seconds = (radio[..., i, None, None] for i in range(4))
            tail = tail_watts * (np.minimum(wait, tail_seconds) + np.minimum(self.gap_seconds, tail_seconds))
            cost = up * up_watts + sends[..., None] * tail
        else:
            cost = took
        if self.objective == "price":
            cost = np.broadcast_to(table["dollars"][..., None] + 1e-12 * took, took.shape)
        patience = np.full(cost.shape[:-1], math.inf)
        mean = (cost * weights).sum(-1)
        if self.rescue and self.objective != "price":
            rest = table["rest_joules" if energy else "rest_seconds"][..., None]
            for times in _WAITS[energy:]:
                limit = times * up[..., SLOW, None] + (_JITTER * wait if times else 0.0)
                if energy:
                    rental = rest / np.maximum(up_watts, 1e-9)
                    limit = np.clip(limit, self.trust * rental + _JITTER * wait, rental / self.trust + _JITTER * wait)
                if energy:
                    late = np.minimum(up, limit) * up_watts + tail + rest
                else:
                    spent = np.minimum(np.maximum(took - limit, 0.0), rest)
                    late = limit + (1 + self.waste) * spent
                each = (np.where(took > limit, late, cost) * weights).sum(-1)
                better = sends & (each < mean)
                mean = np.where(better, each, mean)
                patience = np.where(better, limit[..., 0], patience)
        own, early = ("device_joules", "early_joules") if energy else ("device_seconds", "early_seconds")
        share = table["early_share"]
        if self.objective == "price":
            base, first = 0.0, 0.0
        else:
            base, first = table[own], share * table[early]
        total = first + (1 - share) * (base + mean)
        rows = total.argmin(-1)
        best = np.take_along_axis(total, rows[..., None], -1)[..., 0]
        held = np.take_along_axis(total, np.maximum(last, 0)[..., None], -1)[..., 0]
        keep = (last >= 0) & (held <= (1 + self.stay) * best)
        rows = np.where(keep, last, rows)
        if self.objective == "price":
            worth = np.zeros_like(best)
        else:
            exact = first[..., None] + (1 - share[..., None]) * (base[..., None] + cost)
            worth = np.maximum(best - (exact.min(-2) * chances).sum(-1), 0.0)
        return rows, np.take_along_axis(patience, rows[..., None], -1)[..., 0], (best, worth)

    def probes(self, worth: Array, best: Array, mbps: Array, radio: Array) -> np.ndarray:
        """Whether a probe pays, ``[...]`` bool; where only time counts it must be worth a hundredth of a request."""
        if self.objective != "energy":
            return np.asarray(self.informs * worth > 0.03 * best)
        seconds = PROBE_BYTES * 8e-6 / mbps
        joules = seconds * radio[..., 0] + radio[..., 2] * np.minimum(radio[..., 3], self.gap_seconds)
        return np.asarray(self.informs * worth > joules)

    def _forecast(self, state: Tree, seen: Seen) -> tuple[np.ndarray, np.ndarray]:
        """Mbit/s and probabilities, each ``[n, nodes]``."""
        time = column((seen.traits or {}).get("time"), seen.size)
        time = np.where(np.isnan(time), state["time"], time)
        link = seen.link or {}
        if "up_mbps" in link:
            state = self.forecast.heard(state, time, column(link["up_mbps"], seen.size))
        rates, chances = self.forecast.ahead(state, time)
        return rates, chances

    def _weighed(self, state: Tree, seen: Seen) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
        rates, chances = self._forecast(state, seen)
        link = seen.link or {}
        waits = column(link.get("rtt_seconds"), seen.size) if "rtt_seconds" in link else np.full(seen.size, state["rtt"])
        if seen.queue is not None:
            waits = waits + column(seen.queue, seen.size)
        last = np.broadcast_to(state["last"], (seen.size,))
        return self.weighed(state["table"], state["radio"], rates, chances, waits, last)

    def _row(self, state: Tree, move: Move) -> int | None:
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
