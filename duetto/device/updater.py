"""New models for a device: signed, newest, tested here before they run, and gone again when they fail.

What is offered is verified by The Update Framework's own client (``tuf.ngclient``): signatures, expiry, no way back,
no mixing of states. See :mod:`duetto.device.slots` for the switch and the way back, and docs/decisions/0007-trust.md
for what all of it keeps out.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from tuf.api import exceptions
from tuf.ngclient.config import UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater as Client

from duetto import tree as trees
from duetto.device.artefact import session
from duetto.device.slots import Slot, Slots
from duetto.device.sources import Source
from duetto.errors import DataError, Error
from duetto.transport.files import alone, put, settle

Check = Callable[[Path, bytes | None, float], str | None]
Progress = Callable[[int, int], None]
Takes = Callable[[Mapping[str, Any]], str | None]
_BASE = "metadata/"
_CHUNK = 1 << 20
_WINDOW = 1 << 27  # bytes that a delta may look back over, as in duetto.cloud.releases
_ROOM = 1 << 24  # bytes that are left free on the disk


class Refused(DataError):
    """A release that this device does not run: not signed, too old, altered, or one that failed its test."""


@dataclass(frozen=True)
class Part:
    """A blob: what to ask for and how to know it.

    Attributes:
        sha256: its name, in hex.
        length: in bytes.
    """

    sha256: str
    length: int


@dataclass(frozen=True)
class Offer:
    """A release that is signed, newest and in time.

    Attributes:
        version: of the model.
        artefact: its file.
        vector: the self-test's inputs and outputs, if any.
        tolerance: of the outputs.
        deltas: what makes the artefact of an older one, by the older one's hash.
        told: what else its publisher tells.
    """

    version: int
    artefact: Part
    vector: Part | None
    tolerance: float
    deltas: Mapping[str, Part]
    told: Mapping[str, Any]


def reproduces(path: Path, vector: bytes | None, tolerance: float) -> str | None:
    """The self-test: onnxruntime loads the model, and on the vector's ``x`` its ``logits`` are within the tolerance.

    Args:
        path: of the model.
        vector: ``{"x", "logits"}`` of :func:`duetto.tree.encode`; without one, that it loads is all that is tested.
        tolerance: the largest difference.

    Returns:
        Why not, or None.
    """
    try:
        model = session.__wrapped__(str(path), 1)  # not kept in memory: it may be sent away
        if vector is None:
            return None
        told = trees.decode(vector)
        expected = np.asarray(told["logits"])
        found = np.asarray(model.run(["logits"], {"x": np.asarray(told["x"])})[0])
    except Error as fault:
        return str(fault)
    except Exception as fault:  # whatever onnxruntime raises, this model does not run here
        return f"it does not run ({fault})".replace("\n", " ")
    if found.shape != expected.shape:
        return f"it gives {found.shape}, not {expected.shape}"
    difference = float(np.max(np.abs(found - expected), initial=0.0))
    return None if difference <= tolerance else f"its outputs differ by {difference:.3g}, more than {tolerance:.3g}"


def told_of(folder: Path, version: int) -> Mapping[str, Any]:
    """What its release told of a model that is installed in an updater's folder; nothing where it told nothing."""
    try:
        told: Mapping[str, Any] = json.loads((folder / "told" / f"{version}.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return told


@dataclass(frozen=True)
class Updater:
    """Keeps a device's model up to date. One process at a time updates a folder; the others may run what is in it.

    Attributes:
        folder: of the slots, with ``metadata`` and ``partial`` beside them.
        source: of ``metadata/…`` and ``blobs/SHA256``; it is not believed.
        root: the root's metadata that the device was given when it was enrolled; it is believed.
        model: the name.
        channel: that is listened to.
        slots: where models are kept; in the folder by default.
        check: the self-test; see :func:`reproduces`.
        takes: why what a release tells beside its model cannot be used here, or None.
    """

    folder: Path
    source: Source
    root: bytes
    model: str
    channel: str = "stable"
    slots: Slots | None = None
    check: Check = reproduces
    takes: Takes = lambda told: None

    @property
    def installed(self) -> Slots:
        """Where the models are."""
        return self.slots or Slots(self.folder)

    def offered(self) -> Offer | None:
        """What the channel offers now of this model, if anything.

        Raises:
            Refused: it is not signed by whom this device believes, its time is over, it is older than what was seen
                before, or it was altered.
            DataError: it cannot be had now.
            ConfigError: another process updates this folder.
        """
        with alone(self.folder / "metadata"):
            return self._offered()

    def update(self, progress: Progress | None = None) -> Slot | None:
        """Bring the newest model here, test it, and switch to it; it runs from the next ``slots.begin`` on.

        What was fetched before a break is not fetched again.

        Args:
            progress: is told the bytes that are here, and of how many.

        Returns:
            The new slot, on trial; None where there is nothing new.

        Raises:
            Refused: as :meth:`offered`; or older than what runs; or it failed its test, and is not tried again.
            DataError: it cannot be had now, or there is no room for it.
            ConfigError: another process updates this folder.
        """
        with alone(self.folder / "metadata"):
            offer, slots = self._offered(), self.installed
            if offer is None:
                return None
            version, sha256 = offer.version, offer.artefact.sha256
            try:
                if not slots.wanted(version, sha256):
                    return None
            except DataError as fault:
                raise Refused(f"{self.model} {fault.fault}", fault.remedy) from fault
            fetched = self._brought(offer, progress)
            vector = self._whole(offer.vector).read_bytes() if offer.vector else None
            if not slots.test(version, sha256):
                raise Refused(f"{self.model} {version} killed this process in its self-test", "publish a better one")
            path = slots.path(sha256)
            path.parent.mkdir(parents=True, exist_ok=True)
            fetched.replace(path)
            settle(path.parent)
            if reason := self._failed(path, vector, offer.tolerance) or self.takes(offer.told):
                slots.condemn(version, sha256, reason)
                raise Refused(f"{self.model} {version} failed its self-test: {reason}", "publish a better one")
            put(self.folder / "told" / f"{version}.json", json.dumps(offer.told).encode())  # before it may run
            slot = slots.switch(version, sha256, offer.artefact.length)
            _forgotten(self.folder, slots)
            shutil.rmtree(self.folder / "partial", ignore_errors=True)
            return slot

    def _offered(self) -> Offer | None:
        metadata = self.folder / "metadata"
        metadata.mkdir(parents=True, exist_ok=True)
        for left in metadata.glob("tmp*"):  # by a process that was killed while tuf wrote
            left.unlink()
        try:
            config = UpdaterConfig(prefix_targets_with_hash=False)
            client = Client(str(metadata), _BASE, fetcher=_Fetcher(self.source), config=config, bootstrap=self.root)
            client.refresh()
            target = client.get_targetinfo(f"{self.channel}/{self.model}")
        except exceptions.DownloadLengthMismatchError as fault:
            raise Refused("the releases are longer than was signed", _ALTERED) from fault
        except exceptions.DownloadError as fault:
            raise DataError(f"releases cannot be fetched ({_line(fault)})", "try again later") from fault
        except exceptions.RepositoryError as fault:
            raise _refused(fault) from fault
        except OSError as fault:
            raise DataError(f"releases cannot be fetched ({_line(fault)})", "try again later") from fault
        for path in (*metadata.glob("*.json"), metadata):  # tuf replaces its files, and leaves them in the cache
            settle(path)
        if target is None:
            return None
        try:
            return _offer(target.custom or {}, target.hashes["sha256"], target.length)
        except (KeyError, TypeError, ValueError) as fault:
            raise Refused(
                f"a release of {self.model} that says too little ({fault})", "publish it with Duetto"
            ) from fault

    def _brought(self, offer: Offer, progress: Progress | None) -> Path:
        """The artefact's file, whole and verified: from a delta, if that is less to fetch."""
        here, current = self._partial(offer.artefact.sha256), self.installed.state().current
        missing = offer.artefact.length - (here.stat().st_size if here.exists() else 0)
        delta = offer.deltas.get(current.sha256) if current else None
        if current and delta and delta.length < missing and current.length + offer.artefact.length <= _WINDOW:
            try:
                return self._patched(self.installed.path(current), self._whole(delta, progress), offer.artefact)
            except Refused:  # the old file or the delta is not what it should be; the whole artefact helps
                here.unlink(missing_ok=True)
        return self._whole(offer.artefact, progress)

    def _whole(self, part: Part, progress: Progress | None = None) -> Path:
        """A blob's file, whole and verified; its beginning may be here."""
        path = self._partial(part.sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        start = path.stat().st_size if path.exists() else 0
        if start > part.length:
            path.unlink()
            start = 0
        if shutil.disk_usage(path.parent).free < part.length - start + _ROOM:
            raise DataError(f"no room for {part.length - start} bytes in {path.parent}", "free some of the disk")
        try:
            with path.open("ab") as file:
                if start < part.length:
                    for chunk in self.source.fetch(f"blobs/{part.sha256}", start, part.length - start):
                        start += len(chunk)
                        if start > part.length:
                            break
                        file.write(chunk)
                        if progress:
                            progress(start, part.length)
        except OSError as fault:
            said = f"{part.sha256[:12]}… broke off after {path.stat().st_size} of {part.length} bytes ({_line(fault)})"
            raise DataError(said, "try again; it goes on from there") from fault
        if start < part.length:
            raise DataError(f"{part.sha256[:12]}… ended after {start} of {part.length} bytes", "try again")
        return _verified(path, part)

    def _patched(self, old: Path, delta: Path, part: Part) -> Path:
        """An artefact that a delta makes of an old one; only the hash of what comes out counts."""
        path, length = self._partial(f"{part.sha256}.patched"), 0
        try:
            dictionary = zstandard.ZstdCompressionDict(old.read_bytes(), dict_type=zstandard.DICT_TYPE_RAWCONTENT)
            decoder = zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=_WINDOW)
            with delta.open("rb") as packed, decoder.stream_reader(packed) as reader, path.open("wb") as file:
                while chunk := reader.read(_CHUNK):
                    length += len(chunk)
                    if length > part.length:
                        raise Refused("a delta that makes too much", _ALTERED)
                    file.write(chunk)
        except (OSError, zstandard.ZstdError) as fault:
            raise Refused(f"a delta that does not fit ({_line(fault)})", _ALTERED) from fault
        return _verified(path, part)

    def _partial(self, name: str) -> Path:
        return self.folder / "partial" / name

    def _failed(self, path: Path, vector: bytes | None, tolerance: float) -> str | None:
        try:
            return self.check(path, vector, tolerance)
        except Exception as fault:  # the application's own test: whatever it raises is a failure
            return _line(fault)


_ALTERED = "it was altered on the way; fetch it from elsewhere"


@dataclass(frozen=True)
class _Fetcher(FetcherInterface):
    """A source, as tuf asks for it."""

    source: Source

    def _fetch(self, url: str) -> Iterator[bytes]:
        chunks = self.source.fetch(url)
        try:
            first = next(chunks, b"")
        except FileNotFoundError as fault:
            raise exceptions.DownloadHTTPError(str(fault), 404) from fault
        except OSError as fault:
            raise exceptions.DownloadError(str(fault)) from fault
        return _chained(first, chunks)


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _refused(fault: exceptions.RepositoryError) -> Refused:
    """In one line of ours."""
    said = _line(fault)
    match fault:
        case exceptions.UnsignedMetadataError():
            return Refused(f"releases that are not signed by whom this device believes ({said})", "do not use them")
        case exceptions.ExpiredMetadataError():
            return Refused(
                f"releases whose time is over ({said})", "somebody withholds newer ones, or the clock is wrong"
            )
        case exceptions.BadVersionNumberError():
            return Refused(f"releases older than were seen before ({said})", "somebody serves old ones")
        case exceptions.LengthOrHashMismatchError():
            return Refused(f"releases that are not what was signed ({said})", _ALTERED)
    return Refused(f"releases that cannot be read ({said})", _ALTERED)


def _line(fault: BaseException) -> str:
    cause = fault.__cause__ if isinstance(fault, exceptions.DownloadError) and fault.__cause__ else fault
    return " ".join(f"{cause or type(cause).__name__}".split())[:200]


def _verified(path: Path, part: Part) -> Path:
    """On the disk, and what was signed."""
    with path.open("rb+") as file:
        same = hashlib.file_digest(file, "sha256").hexdigest() == part.sha256
    if not same or path.stat().st_size != part.length:
        path.unlink()
        raise Refused(f"{part.sha256[:12]}… is not what was signed", _ALTERED)
    settle(path)
    return path


def _forgotten(folder: Path, slots: Slots) -> None:
    """Delete what releases told of models that are not here any more."""
    state = slots.state()
    there = {f"{slot.version}.json" for slot in (state.current, state.previous) if slot}
    for path in (folder / "told").glob("*.json"):
        if path.name not in there:
            path.unlink(missing_ok=True)


def _offer(told: Mapping[str, Any], sha256: str, length: int) -> Offer:
    """What a release tells, checked: it is signed, but its publisher may have another version of this."""
    vector = told.get("vector")
    version = told["version"]
    if type(version) is not int or version < 1:
        raise ValueError(f"version {version!r}")
    return Offer(
        version,
        _part({"sha256": sha256, "length": length}),
        _part(vector) if vector else None,
        float(vector["tolerance"]) if vector else 0.0,
        {old: _part(delta) for old, delta in told.get("deltas", {}).items()},
        json.loads(told.get("told", "{}")),
    )


def _part(told: Mapping[str, Any]) -> Part:
    if len(told["sha256"]) != 64 or not set(told["sha256"]) <= set("0123456789abcdef"):
        raise ValueError(f"the hash {told['sha256']!r}")
    if type(told["length"]) is not int or told["length"] < 0:
        raise ValueError(f"the length {told['length']!r}")
    return Part(told["sha256"], told["length"])
