"""Signed releases of models, as The Update Framework has them, over blobs that are named by their SHA-256.

Samuel, Mathewson, Cappos & Dingledine, "Survivable Key Compromise in Software Update Systems" (CCS 2010);
https://theupdateframework.github.io/specification. In the folder::

    metadata/1.root.json …      who signs what; 1.targets.json … which channels there are (both: keys offline)
    metadata/1.stable.json …    a channel's releases: path ``stable/MODEL``, its blob, and what a device must know
    metadata/1.snapshot.json …  timestamp.json: what is newest, and that it still is (keys online)
    blobs/SHA256                artefacts, self-test vectors, deltas

What is new becomes so with the last file that is written, ``timestamp.json``: a crash before leaves the old.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import zstandard
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (  # type: ignore[attr-defined]  # tuf tells mypy of no export
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from duetto.errors import ConfigError, DataError
from duetto.transport.files import alone, put, settle

T = TypeVar("T", Root, Timestamp, Snapshot, Targets)
_OFFLINE = ("root", "targets")
SHOWS = "shows"
"""What a release tells of its model's inputs and classes, see :func:`shows`."""
_NAME = re.compile(r"[a-z0-9][A-Za-z0-9._-]{0,62}")
_WINDOW = 27  # log2 of the bytes that a decoder with zstd's defaults looks back over: old and new must fit together


@dataclass(frozen=True)
class Expiry:
    """For how many days a signature holds: how long a device can be kept from hearing of anything newer.

    Attributes:
        root, targets: signed by hand.
        channel: a channel's releases.
        snapshot, timestamp: signed by the service; the last is how old "nothing new" may be.
    """

    root: float = 730.0
    targets: float = 365.0
    channel: float = 90.0
    snapshot: float = 30.0
    timestamp: float = 2.0

    def __post_init__(self) -> None:
        if not all(days > 0 for days in (self.root, self.targets, self.channel, self.snapshot, self.timestamp)):
            raise ConfigError(f"{self}", "days > 0")

    def of(self, role: str) -> float:
        """A role's days; whatever is none of the four is a channel."""
        return float(getattr(self, role) if role in ("root", "targets", "snapshot", "timestamp") else self.channel)


@dataclass(frozen=True)
class Release:
    """What a channel offers of a model.

    Attributes:
        model, channel: names.
        version: of the model, counted over all its channels.
        sha256: of the artefact, in hex.
        length: of the artefact, in bytes.
        told: all that a device is told (``custom`` in the metadata).
    """

    model: str
    channel: str
    version: int
    sha256: str
    length: int
    told: Mapping[str, Any]


@dataclass(frozen=True)
class Releases:
    """A repository in a folder, which any server of files can serve but for the keys; processes take turns.

    Attributes:
        folder: with ``metadata`` and ``blobs``.
        keys: the folder of private keys (mode 0600), one file a key. Those of ``root`` and ``targets`` may lie
            elsewhere, in a safe: only :meth:`begin` and :meth:`rotate` need them; :meth:`publish` needs the channel's
            and both online ones, :meth:`refresh` these two.
        expiry: of what is signed from now on.
    """

    folder: Path
    keys: Path
    expiry: Expiry = Expiry()

    def begin(self, channels: Sequence[str] = ("stable", "canary"), now: datetime | None = None) -> bytes:
        """Make keys and the first metadata.

        Args:
            channels: each with a key of its own, so that who may publish to one may not to another.
            now: the time; the clock's by default.

        Returns:
            The root's metadata, which a device gets when it is enrolled and believes from then on.

        Raises:
            ConfigError: there is a repository already, or no such channel can be.
        """
        for channel in channels:
            if not _NAME.fullmatch(channel) or channel in (*_OFFLINE, "snapshot", "timestamp"):
                raise ConfigError(f"a channel named {channel!r}", "use small letters and digits, as in stable")
        if not channels:
            raise ConfigError("no channels", "name one, such as stable")
        with self._turn():
            if (self.folder / "metadata" / "timestamp.json").exists():
                raise ConfigError(f"there are releases in {self.folder}", "publish to them, or name another folder")
            root, targets, snapshot = Root(consistent_snapshot=True), Targets(), Snapshot()
            for role in ("root", "targets", "snapshot", "timestamp"):
                root.add_key(self._made().public_key, role)
            targets.delegations = Delegations({}, {})
            assert targets.delegations.roles is not None
            for channel in channels:
                targets.delegations.roles[channel] = DelegatedRole(channel, [], 1, False, [f"{channel}/*"])
                targets.add_key(self._made().public_key, channel)
                snapshot.meta[f"{channel}.json"] = self._write(channel, Targets(), _allowed(targets, channel), now)
            snapshot.meta["targets.json"] = self._write("targets", targets, _allowed(root, "targets"), now)
            data = self._bytes("root", root, _allowed(root, "root"), now)
            put(self.folder / "metadata" / "1.root.json", data)
            self._online(root, snapshot, Timestamp(), now)
        return data

    def root(self) -> bytes:
        """The newest root's metadata, for a device that is enrolled now.

        Raises:
            DataError: there is no repository here.
        """
        return self._root_path().read_bytes()

    def releases(self) -> tuple[Release, ...]:
        """All that is offered now.

        Raises:
            DataError: there is no repository here, or it is damaged.
        """
        _, snapshot, _ = self._state()
        return tuple(
            _release(path, file)
            for role in _channels(snapshot)
            for path, file in sorted(self._read(role, snapshot.meta[f"{role}.json"].version, Targets).targets.items())
        )

    def expiries(self) -> dict[str, datetime]:
        """Until when what each role has signed holds.

        Raises:
            DataError: there is no repository here, or it is damaged.
        """
        root, snapshot, timestamp = self._state()
        found: dict[str, datetime] = {"root": root.expires, "timestamp": timestamp.expires}
        found["snapshot"] = snapshot.expires
        for role in ("targets", *_channels(snapshot)):
            found[role] = self._read(role, snapshot.meta[f"{role}.json"].version, Targets).expires
        return found

    def publish(
        self,
        model: str,
        version: int,
        channel: str,
        artefact: bytes | Path,
        *,
        vector: bytes | None = None,
        tolerance: float = 1e-3,
        olds: Sequence[str] = (),
        told: Mapping[str, Any] | None = None,
        now: datetime | None = None,
    ) -> Release:
        """Offer a model to the devices of a channel, in place of its older version.

        An older model is offered again by publishing its artefact under a new version: devices never go back.

        Args:
            model: its name.
            version: above the one that the channel offers; that of another channel if it is the same (promotion).
            channel: one of those begun with.
            artefact: the bytes, or a file of them.
            vector: the self-test: ``{"x": inputs, "logits": what is to come out}``, of :func:`duetto.tree.encode`.
            tolerance: by which logits may differ on a device.
            olds: the SHA-256 of artefacts among the blobs that devices have now; a delta from each is offered where it
                is smaller than nine tenths of the whole.
            told: more to tell devices, in JSON. What it :data:`SHOWS` is told on where it is not told anew.
            now: the time; the clock's by default.

        Raises:
            ConfigError: no such model, version or channel; a key is not here.
            DataError: there is no repository, it is damaged, or an old artefact is not among its blobs.
        """
        if not _NAME.fullmatch(model):
            raise ConfigError(f"a model named {model!r}", "use small letters, digits, '.', '-' and '_'")
        if isinstance(version, bool) or not 0 < version < 2**53:
            raise ConfigError(f"version {version}", "count from 1")
        if not tolerance >= 0:
            raise ConfigError(f"tolerance={tolerance}", "tolerance >= 0")
        with self._turn():
            root, snapshot, timestamp = self._state()
            if channel not in _channels(snapshot):
                raise ConfigError(f"no channel {channel!r}", f"one of {', '.join(_channels(snapshot))}")
            sha256, length = self._kept(artefact)
            for other in self.releases():
                if other.model == model:
                    _above(other, version, channel, sha256)
            # What is signed is canonical JSON, which has no fractions: numbers with them travel as text
            more = json.dumps({**self._shown(model), **dict(told or {})}, allow_nan=False)
            custom: dict[str, Any] = {"model": model, "version": version, "channel": channel, "told": more}
            if vector is not None:
                digest, size = self._kept(vector)
                custom["vector"] = {"sha256": digest, "length": size, "tolerance": repr(float(tolerance))}
            custom["deltas"] = {old: delta for old in olds if old != sha256 and (delta := self._delta(old, sha256))}
            offered = self._read(channel, snapshot.meta[f"{channel}.json"].version, Targets)
            path = f"{channel}/{model}"
            offered.targets[path] = TargetFile(length, {"sha256": sha256}, path, {"custom": custom})
            offered.version += 1
            targets = self._read("targets", snapshot.meta["targets.json"].version, Targets)
            snapshot.meta[f"{channel}.json"] = self._write(channel, offered, _allowed(targets, channel), now)
            snapshot.version += 1
            timestamp.version += 1
            self._online(root, snapshot, timestamp, now)
            return _release(path, offered.targets[path])

    def _shown(self, model: str) -> dict[str, Any]:
        """What the newest release of a model shows, in all channels."""
        newest = max(
            (each for each in self.releases() if each.model == model), key=lambda each: each.version, default=None
        )
        told = {} if newest is None else json.loads(newest.told.get("told", "{}"))
        return {SHOWS: told[SHOWS]} if SHOWS in told else {}

    def refresh(self, now: datetime | None = None) -> tuple[str, ...]:
        """Say that what is offered still holds; to be called several times within the timestamp's days.

        Signs the timestamp, and where two thirds of their time are over the snapshot and the channels whose keys are
        here.

        Returns:
            The roles whose time is running out all the same: their keys are elsewhere (see :meth:`rotate` and
            :meth:`resign`).

        Raises:
            ConfigError: the online keys are not here.
            DataError: there is no repository here, or it is damaged.
        """
        with self._turn():
            root, snapshot, timestamp = self._state()
            targets = self._read("targets", snapshot.meta["targets.json"].version, Targets)
            changed, wanting = self._due(snapshot, "snapshot", now), []
            for role, by in ((name, targets) for name in _channels(snapshot)):
                signed = self._read(role, snapshot.meta[f"{role}.json"].version, Targets)
                if not self._due(signed, role, now):
                    continue
                if self._has(_allowed(by, role)):
                    signed.version += 1
                    snapshot.meta[f"{role}.json"] = self._write(role, signed, _allowed(by, role), now)
                    changed = True
                else:
                    wanting.append(role)
            wanting += [role for role, signed in (("targets", targets), ("root", root)) if self._due(signed, role, now)]
            if changed:
                snapshot.version += 1
            timestamp.version += 1
            self._online(root, snapshot, timestamp, now)
            return tuple(wanting)

    def resign(self, now: datetime | None = None) -> None:
        """Sign root and targets anew, before their time is over.

        Raises:
            ConfigError: a key is not here.
            DataError: there is no repository here, or it is damaged.
        """
        with self._turn():
            root, snapshot, timestamp = self._state()
            self._retarget(root, snapshot, timestamp, {}, now)
            self._reroot(root, [], now)

    def rotate(self, role: str, now: datetime | None = None) -> None:
        """Give a role a new key, and forget the one before it; devices follow by themselves, at no moment refused.

        Args:
            role: ``root``, ``targets``, ``snapshot``, ``timestamp``, or a channel.
            now: the time; the clock's by default.

        Raises:
            ConfigError: no such role; a key is not here (root's is needed but for a channel, then targets').
            DataError: there is no repository here, or it is damaged.
        """
        with self._turn():
            root, snapshot, timestamp = self._state()
            targets = self._read("targets", snapshot.meta["targets.json"].version, Targets)
            by = root if role in root.roles else targets
            if role not in root.roles and role not in _channels(snapshot):
                raise ConfigError(f"no role {role!r}", f"one of {', '.join((*root.roles, *_channels(snapshot)))}")
            old = _allowed(by, role)
            self._signers(_allowed(root, "root" if by is root else "targets"))
            new = self._made()
            here = [keyid for keyid in old if self._has([keyid])]  # it may be lost, and that the reason
            both = {role: [*here, new.public_key.keyid]}  # signed by both, it holds under the old root and the new
            for keyid in old:
                by.revoke_key(keyid, role)
            by.add_key(new.public_key, role)
            if role == "root":
                self._reroot(root, old, now)
            elif by is targets:
                signed = self._read(role, snapshot.meta[f"{role}.json"].version, Targets)
                signed.version += 1
                snapshot.meta[f"{role}.json"] = self._write(role, signed, [new.public_key.keyid], now)
                self._retarget(root, snapshot, timestamp, {}, now, targets)
            else:
                if role == "targets":
                    self._retarget(root, snapshot, timestamp, both, now)
                else:
                    snapshot.version += 1
                    timestamp.version += 1
                    self._online(root, snapshot, timestamp, now, both)
                self._reroot(root, [], now)
            for keyid in old:
                self._key_path(keyid).unlink(missing_ok=True)

    def prune(self, keep: Sequence[str] = ()) -> int:
        """Delete blobs that no channel offers, but for some; the bytes gained.

        Args:
            keep: SHA-256 of further blobs, such as the artefacts before, from which deltas are made.
        """
        with self._turn():
            wanted = set(keep)
            for release in self.releases():
                parts = [release.told.get("vector"), *release.told.get("deltas", {}).values()]
                wanted |= {release.sha256, *(part["sha256"] for part in parts if part)}
            gained = 0
            for path in (self.folder / "blobs").iterdir():
                if path.name not in wanted:
                    gained += path.stat().st_size
                    path.unlink()
        return gained

    @contextmanager
    def _turn(self) -> Iterator[None]:
        with alone(self.folder, wait=True):
            yield

    def _state(self) -> tuple[Root, Snapshot, Timestamp]:
        path = self.folder / "metadata" / "timestamp.json"
        if not path.exists():
            raise DataError(f"no releases in {self.folder}", "begin them")
        timestamp = _parsed(path, Timestamp)
        snapshot = self._read("snapshot", timestamp.snapshot_meta.version, Snapshot)
        return _parsed(self._root_path(), Root), snapshot, timestamp

    def _root_path(self) -> Path:
        found = {int(path.name.split(".")[0]): path for path in (self.folder / "metadata").glob("*.root.json")}
        if not found:
            raise DataError(f"no releases in {self.folder}", "begin them")
        return found[max(found)]

    def _read(self, role: str, version: int, kind: type[T]) -> T:
        return _parsed(self.folder / "metadata" / f"{version}.{role}.json", kind)

    def _due(self, signed: Signed, role: str, now: datetime | None) -> bool:
        """Whether less than a third of its days is left."""
        return signed.expires - (now or datetime.now(UTC)) < timedelta(days=self.expiry.of(role)) / 3

    def _bytes(self, role: str, signed: T, keyids: Sequence[str], now: datetime | None) -> bytes:
        signed.expires = ((now or datetime.now(UTC)) + timedelta(days=self.expiry.of(role))).replace(microsecond=0)
        metadata = Metadata(signed)
        for signer in self._signers(keyids):
            metadata.sign(signer, append=True)
        return metadata.to_bytes(JSONSerializer())

    def _write(self, role: str, signed: T, keyids: Sequence[str], now: datetime | None) -> MetaFile:
        data = self._bytes(role, signed, keyids, now)
        put(self.folder / "metadata" / f"{signed.version}.{role}.json", data)
        return MetaFile.from_data(signed.version, data, ["sha256"])

    def _online(
        self,
        root: Root,
        snapshot: Snapshot,
        timestamp: Timestamp,
        now: datetime | None,
        keyids: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Write the snapshot, if it is another, and the timestamp: with this the new state begins."""
        keyids = keyids or {}
        if not timestamp.snapshot_meta.hashes or timestamp.snapshot_meta.version != snapshot.version:
            allowed = keyids.get("snapshot", _allowed(root, "snapshot"))
            timestamp.snapshot_meta = self._write("snapshot", snapshot, allowed, now)
        allowed = keyids.get("timestamp", _allowed(root, "timestamp"))
        put(self.folder / "metadata" / "timestamp.json", self._bytes("timestamp", timestamp, allowed, now))

    def _retarget(
        self,
        root: Root,
        snapshot: Snapshot,
        timestamp: Timestamp,
        keyids: Mapping[str, Sequence[str]],
        now: datetime | None,
        targets: Targets | None = None,
    ) -> None:
        targets = targets or self._read("targets", snapshot.meta["targets.json"].version, Targets)
        targets.version += 1
        allowed = keyids.get("targets", _allowed(root, "targets"))
        snapshot.meta["targets.json"] = self._write("targets", targets, allowed, now)
        snapshot.version += 1
        timestamp.version += 1
        self._online(root, snapshot, timestamp, now)

    def _reroot(self, root: Root, before: Sequence[str], now: datetime | None) -> None:
        """The next root, signed by its keys and by those of the one before."""
        root.version += 1
        data = self._bytes("root", root, [*_allowed(root, "root"), *before], now)
        put(self.folder / "metadata" / f"{root.version}.root.json", data)

    def _key_path(self, keyid: str) -> Path:
        return self.keys / f"{keyid}.pem"

    def _made(self) -> CryptoSigner:
        signer = CryptoSigner.generate_ed25519()
        put(self._key_path(signer.public_key.keyid), signer.private_bytes, secret=True)
        return signer

    def _has(self, keyids: Sequence[str]) -> bool:
        return all(self._key_path(keyid).exists() for keyid in keyids)

    def _signers(self, keyids: Sequence[str]) -> list[CryptoSigner]:
        signers = []
        for keyid in keyids:
            path = self._key_path(keyid)
            try:
                signers.append(CryptoSigner(cast(Any, load_pem_private_key(path.read_bytes(), None))))
            except (OSError, ValueError) as fault:
                raise ConfigError(f"the key {path} cannot be read", "bring it here, or publish where it is") from fault
            if signers[-1].public_key.keyid != keyid:
                raise ConfigError(f"{path} holds another key", "bring the right one")
        return signers

    def _kept(self, blob: bytes | Path) -> tuple[str, int]:
        """A blob's SHA-256 and length, once it lies under its name."""
        blobs = self.folder / "blobs"
        if isinstance(blob, bytes):
            sha256 = hashlib.sha256(blob).hexdigest()
            if not (blobs / sha256).exists():
                put(blobs / sha256, blob)
            return sha256, len(blob)
        try:
            with blob.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            if not (blobs / sha256).exists():
                blobs.mkdir(parents=True, exist_ok=True)
                part = blobs / f".{sha256}"
                shutil.copyfile(blob, part)
                with part.open("rb+") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                        raise DataError(f"{blob} changed while it was read", "publish it again")
                    settle(part)
                part.replace(blobs / sha256)
                settle(blobs)
            return sha256, (blobs / sha256).stat().st_size
        except OSError as fault:
            raise DataError(f"{blob} cannot be published ({fault.strerror})", "name a file") from fault

    def _delta(self, old: str, new: str) -> dict[str, Any] | None:
        """What makes the new artefact of an old one, if that is smaller; zstd, with the old one for its dictionary."""
        try:
            before, after = ((self.folder / "blobs" / name).read_bytes() for name in (old, new))
        except OSError as fault:
            raise DataError(f"no blob {old}", "deltas are made from artefacts that were published") from fault
        if len(before) + len(after) > 1 << _WINDOW:
            return None
        window = max(10, (len(before) + len(after)).bit_length())
        window = min(window, _WINDOW)
        # A table as long as the window: with those of zstd's levels most of a large dictionary is never found again
        parameters = zstandard.ZstdCompressionParameters(
            window_log=window,
            hash_log=min(window, 26),
            chain_log=min(window, 26),
            search_log=3,
            min_match=6,
            strategy=zstandard.STRATEGY_LAZY,
        )
        dictionary = zstandard.ZstdCompressionDict(before, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        delta = zstandard.ZstdCompressor(dict_data=dictionary, compression_params=parameters).compress(after)
        if len(delta) >= 0.9 * len(after):
            return None
        sha256, length = self._kept(delta)
        return {"sha256": sha256, "length": length}


def _parsed(path: Path, kind: type[T]) -> T:
    try:
        signed = Metadata.from_file(str(path)).signed
    except (OSError, RepositoryError) as fault:
        raise DataError(f"{path} cannot be read ({fault})", "restore the folder from its back-up") from fault
    if not isinstance(signed, kind):
        raise DataError(f"{path} is no {kind.type}", "restore the folder from its back-up")
    return signed


def _allowed(by: Root | Targets, role: str) -> list[str]:
    """The keys of a role."""
    return list(by.get_delegated_role(role).keyids)


def _channels(snapshot: Snapshot) -> list[str]:
    return sorted(name.removesuffix(".json") for name in snapshot.meta if name != "targets.json")


def shows(
    labels: Sequence[str] = (),
    kind: str | None = None,
    channels: Sequence[str] = (),
    rate: float | None = None,
    standard: Sequence[Sequence[float]] | None = None,
) -> dict[str, Any]:
    """What a person is shown of a model, and how its inputs come about: ``told[SHOWS]`` of a release.

    Args:
        labels: the classes' names, in the order of the logits.
        kind: "drawing" (a grey square that is drawn) or "window" (features, or signals of a sensor).
        channels: a window's signals by name; ``x_acc`` to ``z_acc`` (m/s^2, with gravity) and ``x_gyro`` to ``z_gyro``
            (rad/s) can be recorded where there is a sensor.
        rate: samples a second.
        standard: mean and scale, each of all values, by signal or by value: a window is ``(raw - mean) / scale``.

    Raises:
        ConfigError: names that are empty or twice there, no such kind, a rate or a scale that is not above 0.
    """
    for what, names in (("labels", labels), ("channels", channels)):
        if len(set(names)) != len(names) or not all(name.strip() for name in names):
            raise ConfigError(f"the {what} {', '.join(names)}", "give each a name of its own")
    if kind not in (None, "drawing", "window"):
        raise ConfigError(f"an input {kind!r}", "drawing, or window")
    if rate is not None and not 0 < rate < math.inf:
        raise ConfigError(f"{rate} samples a second", "rate > 0")
    found: dict[str, Any] = {"labels": list(labels), "input": kind, "channels": list(channels), "rate": rate}
    if standard is not None:
        mean, scale = ([float(each) for each in values] for values in standard)
        if not all(map(math.isfinite, (*mean, *scale))) or not all(each > 0 for each in scale):
            raise ConfigError("a mean or scale that is not finite, or a scale that is not above 0", "scale > 0")
        found |= {"mean": mean, "scale": scale}
    return {name: value for name, value in found.items() if value}


def _release(path: str, file: TargetFile) -> Release:
    told = file.custom or {}
    channel, _, model = path.partition("/")
    return Release(model, channel, int(told["version"]), file.hashes["sha256"], file.length, told)


def _above(other: Release, version: int, channel: str, sha256: str) -> None:
    """A version is above the one before it in its channel, and is the same artefact in all channels."""
    if channel == other.channel and version <= other.version:
        raise ConfigError(
            f"version {version} after {other.version} of {other.model} in {channel}",
            "devices never go back: publish its artefact under a higher version",
        )
    if version == other.version and sha256 != other.sha256:
        raise ConfigError(
            f"version {version} of {other.model} is another artefact in {other.channel}", "versions never change"
        )
