"""Which model a device runs: a new one on trial, the good one before it, and no way back to an older one.

All of it is one small file that is replaced at once, so that a device that dies at any moment finds either the state
before or the state after. A model that makes the process die before it is confirmed goes by itself, at a later start.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from duetto.device.agreement import Agreement
from duetto.errors import ConfigError, DataError
from duetto.transport.files import alone, put, settle

_REMEMBERED = 32  # models that were sent away


@dataclass(frozen=True)
class Slot:
    """A model on this device.

    Attributes:
        version: the release's; 0 for one that came with the device.
        sha256: of its file, in hex.
        length: of its file, in bytes.
        state: ``trying`` until it is confirmed, then ``good``.
        starts: how often a process has begun to try it.
        agreed, asked: how often it agreed with the cloud, of how many answers of about the last window.
        looked: how many looks at its agreement are over.
    """

    version: int
    sha256: str
    length: int
    state: str = "trying"
    starts: int = 0
    agreed: float = 0.0
    asked: float = 0.0
    looked: int = 0


@dataclass(frozen=True)
class State:
    """What is kept.

    Attributes:
        current: what runs, if anything.
        previous: the good one before it, if there is one.
        floor: the highest release that was ever installed here, and its hash; nothing below it is installed again.
        tested: a model whose self-test has begun and not ended, and how often: it may be what kills the process.
        bad: models that were sent away, with version, hash and reason, the last ones.
    """

    current: Slot | None = None
    previous: Slot | None = None
    floor: tuple[int, str] | None = None
    tested: tuple[str, int] | None = None
    bad: tuple[tuple[int, str, str], ...] = ()


@dataclass(frozen=True)
class Slots:
    """The models of a device, in a folder that its threads and processes share.

    Attributes:
        folder: with ``slots.json`` and ``models/SHA256`` and the suffix.
        tries: starts (and self-tests) that a model has to be confirmed in.
        suffix: of the files; ``.onnx``.

    Raises:
        ConfigError: no tries.
    """

    folder: Path
    tries: int = 3
    suffix: str = ".onnx"

    def __post_init__(self) -> None:
        if self.tries < 1:
            raise ConfigError(f"tries={self.tries}", "tries >= 1")

    def state(self) -> State:
        """What is kept now.

        Raises:
            DataError: it is damaged.
        """
        path = self.folder / "slots.json"
        try:
            return _parsed(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return State()
        except (OSError, ValueError, KeyError, TypeError) as fault:
            raise DataError(
                f"{path} cannot be read ({fault})", "delete its folder; models are fetched again"
            ) from fault

    def path(self, slot: Slot | str) -> Path:
        """A model's file, by its slot or its hash."""
        return self.folder / "models" / f"{slot if isinstance(slot, str) else slot.sha256}{self.suffix}"

    def begin(self) -> Slot | None:
        """What to run; to be called once by a process, when it starts.

        A start of a model on trial is counted first: one that was begun ``tries`` times and never confirmed goes. So
        does one whose file is not what it was (a power cut, a failing disk): it may be fetched again. Where the disk
        takes nothing, a model on trial, whose start cannot be counted, makes way for the good one before it.
        """
        if not (self.folder / "slots.json").exists():
            return None
        with alone(self.folder, wait=True):
            state = before = self.state()
            while (slot := state.current) is not None:
                if not self._intact(slot):
                    state = replace(state, current=state.previous, previous=None)
                elif slot.state == "trying" and slot.starts >= self.tries:
                    state = _back(state, f"died {slot.starts} times before it was confirmed")
                else:
                    if slot.state == "trying":
                        slot = replace(slot, starts=slot.starts + 1)
                        state = replace(state, current=slot)
                    break
            if state == before:
                return state.current
            try:
                self._keep(state)
            except OSError:
                good = state.previous if state.current and state.current.state == "trying" else state.current
                return good if good is not None and self._intact(good) else None
            return state.current

    def confirm(self, version: int) -> None:
        """The model on trial works: it has answered, and the process lives.

        Args:
            version: of the model that did, lest another that came meanwhile is meant.
        """
        with alone(self.folder, wait=True):
            state = self.state()
            if state.current and state.current.version == version and state.current.state == "trying":
                self._keep(replace(state, current=replace(state.current, state="good")))

    def observe(self, version: int, agreed: int, asked: int, rule: Agreement) -> str | None:
        """Count answers of the cloud, and send a new model back that agrees with them less than the one before.

        Each call brings the counts to the disk: give some dozens at once.

        Args:
            version: of the model that answered here.
            agreed: how often the cloud said the same.
            asked: of how many.
            rule: when a model is to go.

        Returns:
            Why it was sent back, if it was: then :meth:`begin` tells what runs now.

        Raises:
            ConfigError: more agreed than were asked.
        """
        if not 0 <= agreed <= asked:
            raise ConfigError(f"{agreed} of {asked} agreed", "0 <= agreed <= asked")
        with alone(self.folder, wait=True):
            state = self.state()
            if state.current is None or state.current.version != version:
                return None
            counts = state.current.agreed + agreed, state.current.asked + asked
            due, old = rule.look(counts[1]), state.previous
            if old and due > state.current.looked and rule.worse((old.agreed, old.asked), counts):
                reason = f"agreed with the cloud in {counts[0]:.0f} of {counts[1]:.0f} answers, "
                reason += f"version {old.version} in {old.agreed:.0f} of {old.asked:.0f}"
                self._keep(_back(state, reason))
                return reason
            looked = max(due, state.current.looked)
            if looked >= rule.looks:
                counts = rule.kept(*counts)
            slot = replace(state.current, agreed=counts[0], asked=counts[1], looked=looked)
            self._keep(replace(state, current=slot))
            return None

    def rollback(self, reason: str) -> Slot | None:
        """Send the current model back for good; the one before it, if any."""
        with alone(self.folder, wait=True):
            state = self.state()
            if state.current is not None:
                self._keep(state := _back(state, reason))
            return state.current

    def wanted(self, version: int, sha256: str) -> bool:
        """Whether a release that is offered is to be fetched: not what runs, nor what was sent away.

        Raises:
            DataError: it is older than what was installed before, or another of the same version.
        """
        state = self.state()
        if state.floor is not None:
            if version < state.floor[0]:
                raise DataError(f"version {version} after version {state.floor[0]}", "older models are not installed")
            if version == state.floor[0] and sha256 != state.floor[1]:
                raise DataError(f"another version {version} than before", "versions never change; publish a higher one")
        gone = any((version, sha256) == each[:2] for each in state.bad)
        return not gone and (
            state.current is None or (state.current.version, state.current.sha256) != (version, sha256)
        )

    def test(self, version: int, sha256: str) -> bool:
        """Note that a self-test begins; False if it was begun ``tries`` times before: then the model is bad."""
        with alone(self.folder, wait=True):
            state = self.state()
            times = state.tested[1] if state.tested and state.tested[0] == sha256 else 0
            if times >= self.tries:
                self._keep(_condemned(state, version, sha256, f"died {times} times in its self-test"))
                return False
            self._keep(replace(state, tested=(sha256, times + 1)))
            return True

    def condemn(self, version: int, sha256: str, reason: str) -> None:
        """Never install a release."""
        with alone(self.folder, wait=True):
            self._keep(_condemned(self.state(), version, sha256, reason))

    def switch(self, version: int, sha256: str, length: int) -> Slot:
        """Run this from the next :meth:`begin` on, on trial; its file lies at :meth:`path` and was tested.

        Raises:
            DataError: it is older than what was installed before, was sent away, or its file is not there.
        """
        with alone(self.folder, wait=True):
            state, slot = self.state(), Slot(version, sha256, length)
            if not self.wanted(version, sha256):
                raise DataError(f"version {version} runs, or was sent away", "publish a higher one")
            if not self._intact(slot):
                raise DataError(f"{self.path(slot)} is not what it should be", "fetch it again")
            settle(self.path(slot).parent)
            good = state.current if state.current and state.current.state == "good" else state.previous
            self._keep(replace(state, current=slot, previous=good, floor=(version, sha256), tested=None))
            return slot

    def _intact(self, slot: Slot) -> bool:
        try:
            with self.path(slot).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == slot.sha256
        except OSError:
            return False

    def _keep(self, state: State) -> None:
        """Write the state; then delete what it does not name: models, and parts of itself that a kill has left."""
        put(self.folder / "slots.json", json.dumps({"format": 1, **asdict(state)}).encode())
        there = {self.path(slot) for slot in (state.current, state.previous) if slot}
        if state.tested:
            there.add(self.path(state.tested[0]))
        for path in (self.folder / "models").glob(f"*{self.suffix}"):
            if path not in there:
                path.unlink(missing_ok=True)
        for part in self.folder.glob(".slots.json.*"):
            part.unlink(missing_ok=True)


def _back(state: State, reason: str) -> State:
    """The state without its current model, which was bad."""
    assert state.current is not None
    bad = _condemned(state, state.current.version, state.current.sha256, reason)
    return replace(bad, current=state.previous, previous=None)


def _condemned(state: State, version: int, sha256: str, reason: str) -> State:
    bad = (*(each for each in state.bad if each[:2] != (version, sha256)), (version, sha256, reason))
    return replace(state, tested=None, bad=bad[-_REMEMBERED:])


def _parsed(told: Mapping[str, Any]) -> State:
    if told["format"] != 1:
        raise ValueError("another format")
    current, previous = (Slot(**told[name]) if told[name] else None for name in ("current", "previous"))
    floor, tested = (tuple(told[name]) if told[name] else None for name in ("floor", "tested"))
    return State(current, previous, floor, tested, tuple((int(v), str(h), str(r)) for v, h, r in told["bad"]))
