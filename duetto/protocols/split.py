"""Split learning: device and cloud train one model, each its own stages of it; features go up, their slopes come down.

Who shares which half tells the kinds apart:

===================  =========  ==========  ====================================================================
kind                 devices    cloud       paper
===================  =========  ==========  ====================================================================
split learning       passed     one         Gupta, Raskar 2018: one device after the other, the front is handed on
parallel             own        together    Jeon, Kim 2020: all devices' batches are one batch of the cloud's
SplitFed v1          averaged   each        Thapa, Chamikara, Camtepe, Sun: SplitFed, AAAI 2022
SplitFed v2          averaged   one         the same: the cloud takes the devices' batches in turn
SplitFed v3          own        each        Gawali et al.: Comparison of privacy-preserving distributed deep
                                            learning methods in healthcare, 2021
===================  =========  ==========  ====================================================================

With a ``tail`` each of them is U-shaped: the last stages and the labels stay on the device. A device that fails is left
out of the rest of its round; what the cloud has learned from it by then stays learned, where it is one half for all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from duetto import tree as trees
from duetto.protocols.coded import Coded
from duetto.protocols.collect import together
from duetto.protocols.rounds import Measure, learned, seen_of, told
from duetto.tree import Tree
from duetto.types import (
    Action,
    Aggregator,
    Chain,
    Codec,
    Cost,
    Group,
    Key,
    Local,
    Peer,
    Policy,
    Record,
    Reply,
    Role,
    Skill,
    rng,
)

COMMON = "*"
"""Whose the cloud's half is that all devices have in common."""


@dataclass(frozen=True, eq=False)
class Split:
    """Both sides of a kind of split learning; :mod:`duetto.training.split` has skills for it.

    Attributes:
        params: where all start: ``{"front", "back"[, "tail"]}``.
        enter: a device is asked first; takes ``{"params": {"front"[, "tail"]}}`` or ``{}``, gives ``{"batches"}``.
        front: takes ``{}`` or the last batch's ``{"slopes"}``, gives ``{"features"[, "y"]}``, ``{}`` in the end.
        leave: a device is asked last; gives ``{"weight"}``, and ``"params"`` of what is passed on, or the ``"delta"``
            of what is averaged.
        back: whose half, which step of how many -> the cloud's skill that takes ``{"parts"}``, gives ``{"slopes"}``.
        forth: whose half -> the skill of the cloud that takes and gives ``{"features"}``; with a tail.
        backs: which step -> the skill that takes ``{"parts", "of"}`` of devices with halves of their own, all at once;
            None asks ``back`` for one after the other.
        forths: whose half, None for each one's own -> the skill that takes and gives ``{"parts"}``, all at once.
        tail: takes ``{"features"}``, gives ``{"slopes"}``; None sends labels to the cloud.
        devices: whether their front is passed on from one to the next, averaged after a round, or their own.
        cloud: whether it has one half and takes the devices' batches in turn, or together as one, or a half for each,
            averaged after a round.
        cohort: who takes part in a round.
        aggregator: of halves that are averaged.
        up, down: codecs of features and of slopes; what the one that leads down remembers ends with the round.
    """

    params: Mapping[str, Tree]
    enter: Skill
    front: Skill
    leave: Skill
    back: Callable[[str, int, int], Skill]
    devices: Literal["passed", "averaged", "own"]
    cloud: Literal["one", "together", "each"]
    cohort: Policy[Any]
    aggregator: Aggregator[Any]
    forth: Callable[[str], Skill] | None = None
    backs: Callable[[int], Skill] | None = None
    forths: Callable[[str | None], Skill] | None = None
    tail: Skill | None = None
    up: Codec[Any] = field(default_factory=Chain)
    down: Codec[Any] = field(default_factory=Chain)


def split(
    what: Split,
    *,
    steps: int,
    seed: int = 0,
    deadline: float | None = None,
    measure: Measure | None = None,
    every: int = 1,
) -> Role:
    """The cloud's role of so many rounds of split learning; logs one record a round.

    Args:
        what: is learned, and how.
        steps: rounds in all, those before a resumed one included.
        seed: of cohorts, orders and codecs.
        deadline: seconds that a device has for each ask.
        measure: numbers about the parameters, ``{"front", "back"[, "tail"]}``; those of devices that keep their own are
            where they began.
        every: rounds between two measures.
    """

    async def role(me: Peer, fleet: Group, local: Local) -> AsyncIterator[Record]:
        if "split" not in local.memory:
            begun = {"params": dict(what.params), "round": np.int64(0), "cohort": what.cohort.init(), "given": {}}
            local.memory = {**local.memory, "split": begun, "version": np.int64(0)}
        for step in range(int(local.memory["split"]["round"]), steps):
            record = await _Round(what, me, fleet, local, (seed, "round", step), deadline).run(step)
            if measure is not None and ((step + 1) % every == 0 or step + 1 == steps):
                record = record.measuring(**measure(local.memory["split"]["params"]))
            yield record

    return role


class _Round:
    """One round: the devices' places in it, and what each has cost."""

    def __init__(self, what: Split, me: Peer, fleet: Group, local: Local, key: Key, deadline: float | None) -> None:
        self.what, self.me, self.fleet, self.local, self.key, self.deadline = what, me, fleet, local, key, deadline
        self.params: dict[str, Tree] = dict(local.memory["split"]["params"])
        self.replies: dict[str, Reply] = {}
        self.losses: list[float] = []
        self.cost = Cost()
        self.taken = 0  # steps, in a pass, of a half that takes turns
        self.owed: dict[str, Any] = {}  # what the codec down has lost, by device

    async def run(self, step: int) -> Record:
        """The round; the memory is then as it was left."""
        what, kept = self.what, self.local.memory["split"]
        seen = seen_of(self.fleet)
        chooser, move = what.cohort.choose(kept["cohort"], seen, (*self.key, "cohort"))
        names = [self.fleet.names[row] for row in np.flatnonzero(np.asarray(move.action) == Action.ASK).tolist()]
        self.replies = {name: Reply(name) for name in names}
        whose = [COMMON] if what.cloud != "each" else names
        self._halves({each: {"params": self.params["back"], "state": {}} for each in whose})
        order = [names[i] for i in rng((*self.key, "turns")).permutation(len(names))]
        left: dict[str, Reply] = {}
        for group in [[name] for name in order] if what.devices == "passed" else [names]:
            left |= await self._passed(group, kept["given"])
        self._joined({name: left[name] for name in names if name in left})
        given = {**kept["given"], **{name: np.int64(1) for name in left}} if what.devices == "own" else {}
        replies = [self.replies[name] for name in names]
        after = {
            "params": self.params,
            "round": np.int64(step + 1),
            "cohort": learned(what.cohort, chooser, seen, move, replies),
            "given": given,
        }
        self._halves(None)
        version = np.int64(int(self.local.memory["version"]) + 1)
        self.local.memory = {**self.local.memory, "split": after, "version": version}
        record = Record("split", step, told(replies), together(replies) + self.cost)
        return record.measuring(loss=float(np.mean(self.losses))) if self.losses else record

    async def _passed(self, names: Sequence[str], given: Tree) -> dict[str, Reply]:
        """One pass of some devices side by side: what those say that end it."""
        what = self.what
        mine = {slot: self.params[slot] for slot in self.params if slot != "back"}
        starts = {name: {} if what.devices == "own" and name in given else {"params": mine} for name in names}
        entered = await self._all(dict.fromkeys(names, what.enter), starts, 0)
        batches = {name: int(tree["batches"]) for name, tree in entered.items()}
        active, turn, slopes = list(entered), 0, dict[str, Tree]()
        self.taken = 0
        front = Coded(what.front, what.down, what.up, owing=True)
        while active:
            turn += 1
            sent = {name: {"slopes": slopes[name]} if name in slopes else {} for name in active}
            heard = await self._all(dict.fromkeys(active, front), sent, turn)
            parts = {name: tree for name, tree in heard.items() if "features" in tree}
            if what.tail is not None:
                parts = await self._tailed(parts, turn)
            slopes = await self._learned(parts, turn, batches)
            active = [name for name in active if name in slopes]
        ended = [name for name in names if name in batches and self.replies[name].failure is None]
        said = await self._all(dict.fromkeys(ended, what.leave), {name: {} for name in ended}, turn + 1)
        if what.devices == "passed":
            for tree in said.values():
                self.params |= tree["params"]
        return {
            name: replace(self.replies[name], tree=tree, weight=float(tree["weight"])) for name, tree in said.items()
        }

    async def _tailed(self, parts: Mapping[str, Tree], turn: int) -> dict[str, Tree]:
        """The same features with the slopes that the devices' tails ask for."""
        what = self.what
        assert what.tail is not None
        assert what.forth is not None
        further = await self._forth_together(parts, turn)
        for name, part in parts.items() if not further else ():
            said = await self._own(
                what.forth(self._whose(name)), {"features": part["features"]}, (*self.key, name, turn)
            )
            if said is not None:
                further[name] = said
        tail = Coded(what.tail, what.down, what.up, owing=True)
        heard = await self._all(dict.fromkeys(further, tail), further, turn)
        return {name: {"features": parts[name]["features"], "slopes": tree["slopes"]} for name, tree in heard.items()}

    async def _forth_together(self, parts: Mapping[str, Tree], turn: int) -> dict[str, Tree]:
        """What the cloud's halves make of all features at once; nothing, where they go one by one."""
        if self.what.forths is None or len(parts) < 2:
            return {}
        whose = None if self.what.cloud == "each" else COMMON
        tree = {"parts": {name: {"features": part["features"]} for name, part in parts.items()}}
        said = await self.me.ask(self.what.forths(whose), tree, key=(*self.key, "forth", turn))
        self.cost += said.cost
        return dict(said.tree["parts"]) if said.tree is not None else {}

    async def _back_together(
        self, parts: Mapping[str, Tree], turn: int, batches: Mapping[str, int]
    ) -> dict[str, Tree] | None:
        """The steps of halves of devices' own at once: the slopes; None, where they are taken one by one.

        Where one device's part is refused, nobody's half has moved, and one by one only that device is out.
        """
        if self.what.backs is None or self.what.cloud != "each" or len(parts) < 2:
            return None
        tree = {"parts": dict(parts), "of": {name: np.int64(batches[name]) for name in parts}}
        said = await self.me.ask(self.what.backs(turn - 1), tree, key=(*self.key, "back", turn))
        self.cost += said.cost
        if said.tree is None:
            return None
        self.losses += [float(loss) for loss in said.tree["losses"].values()]
        return dict(said.tree["slopes"])

    async def _learned(self, parts: Mapping[str, Tree], turn: int, batches: Mapping[str, int]) -> dict[str, Tree]:
        """The cloud's steps on what has come: the slopes for each device."""
        what = self.what
        if (at_once := await self._back_together(parts, turn, batches)) is not None:
            return at_once
        if what.cloud == "together":
            groups = [list(parts)] if parts else []
        else:
            groups = [[list(parts)[i]] for i in rng((*self.key, "order", turn)).permutation(len(parts))]
        found: dict[str, Tree] = {}
        for group in groups:
            whose = self._whose(group[0])
            if what.cloud == "one":
                at, of = self.taken, sum(batches.values())
                self.taken += 1
            else:
                at, of = turn - 1, max(batches[name] for name in group)
            tree = {"parts": {name: parts[name] for name in group}}
            said = await self._own(what.back(whose, at, of), tree, (*self.key, group[0], turn))
            if said is not None:
                found |= said["slopes"]
                if "loss" in said:
                    self.losses.append(float(said["loss"]))
        return found

    def _joined(self, left: Mapping[str, Reply]) -> None:
        """Average what is averaged."""
        what, halves = self.what, self.local.memory["halves"]
        if what.cloud != "each":
            self.params["back"] = halves[COMMON]["params"]
        good = []
        for name, reply in left.items():
            delta: dict[str, Tree] = dict(reply.tree["delta"]) if reply.tree and what.devices == "averaged" else {}
            if what.cloud == "each":
                delta["back"] = trees.subtract(halves[name]["params"], self.params["back"])
            if delta:
                good.append(replace(reply, tree=delta))
        if good:
            mean = what.aggregator.finish(what.aggregator.extend(what.aggregator.init(), good))[1]
            self.params |= {slot: trees.add(self.params[slot], change) for slot, change in mean.items()}

    def _whose(self, name: str) -> str:
        return name if self.what.cloud == "each" else COMMON

    def _halves(self, halves: Mapping[str, Tree] | None) -> None:
        memory = {name: value for name, value in self.local.memory.items() if name != "halves"}
        self.local.memory = memory if halves is None else {**memory, "halves": halves}

    async def _all(self, skills: Mapping[str, Skill], sent: Mapping[str, Tree], turn: int) -> dict[str, Tree]:
        """Ask several devices at once; whoever fails is out of the round."""

        async def one(name: str) -> Reply:
            skill, peer, key = skills[name], self.fleet.peer(name), (*self.key, name, turn)
            if isinstance(skill, Coded):
                return await skill.asked_of(peer, sent[name], key=key, deadline=self.deadline, owed=self.owed)
            return await skill.asked_of(peer, sent[name], key=key, deadline=self.deadline)

        heard = await asyncio.gather(*(one(name) for name in skills))
        found: dict[str, Tree] = {}
        for reply in heard:
            before = self.replies[reply.sender]
            self.replies[reply.sender] = replace(before, cost=before.cost + reply.cost, failure=reply.failure)
            if reply.tree is not None:
                found[reply.sender] = reply.tree
        return found

    async def _own(self, skill: Skill, tree: Tree, key: Key) -> Tree | None:
        """Use a skill of the cloud's; a device whose features it refuses is out of the round."""
        said = await self.me.ask(skill, tree, key=key)
        self.cost += said.cost
        if said.failure is not None:
            for name in tree.get("parts", {key[-2]: None}):
                self.replies[name] = replace(self.replies[name], failure=f"{self.me.name}: {said.failure}")
        return said.tree
