"""Signed releases, as the client of The Update Framework sees them: keys, channels, versions, rotation."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from tuf.api import exceptions
from tuf.api.metadata import Metadata
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from duetto.cloud.releases import Expiry, Releases
from duetto.errors import ConfigError, DataError

ROLES = ("root", "targets", "snapshot", "timestamp", "stable", "canary")


class Files(FetcherInterface):
    """Reads a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            return iter([(self.folder / url).read_bytes()])
        except FileNotFoundError as fault:
            raise exceptions.DownloadHTTPError(url, 404) from fault


@pytest.fixture
def releases(tmp_path: Path) -> Releases:
    """Begun, and empty."""
    made = Releases(tmp_path / "releases", tmp_path / "keys")
    made.begin()
    return made


def seen(releases: Releases, root: bytes, path: str, device: Path) -> Any:
    """What a device that believes this root sees at a path."""
    device.mkdir(exist_ok=True)
    client = Updater(str(device), "metadata/", fetcher=Files(releases.folder), bootstrap=root)
    client.refresh()
    return client.get_targetinfo(path)


def test_what_is_published_is_seen(releases: Releases, tmp_path: Path) -> None:
    root = releases.root()
    made = releases.publish("digits", 1, "stable", b"model", vector=b"vector", tolerance=0.5, told={"size": 0.5})
    target = seen(releases, root, "stable/digits", tmp_path / "device")
    assert target.hashes["sha256"] == hashlib.sha256(b"model").hexdigest() == made.sha256
    assert target.length == 5
    vector = {"sha256": hashlib.sha256(b"vector").hexdigest(), "length": 6, "tolerance": "0.5"}
    told = {
        "model": "digits",
        "version": 1,
        "channel": "stable",
        "told": '{"size": 0.5}',
        "vector": vector,
        "deltas": {},
    }
    assert target.custom == told == made.told
    for blob in (b"model", b"vector"):
        assert (releases.folder / "blobs" / hashlib.sha256(blob).hexdigest()).read_bytes() == blob
    assert seen(releases, root, "canary/digits", tmp_path / "device") is None
    assert releases.releases() == (made,)


def test_a_file_is_published_as_its_bytes_are(releases: Releases, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"model" * 1000)
    made = releases.publish("digits", 1, "canary", tmp_path / "model.onnx")
    assert made.sha256 == hashlib.sha256(b"model" * 1000).hexdigest()
    assert (releases.folder / "blobs" / made.sha256).stat().st_size == made.length == 5000
    with pytest.raises(DataError, match="cannot be published"):
        releases.publish("digits", 2, "canary", tmp_path / "missing.onnx")


def test_keys_are_their_owner_s_and_not_among_what_is_served(releases: Releases) -> None:
    keys = list(releases.keys.iterdir())
    assert len(keys) == len(ROLES)
    assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}
    assert not any(b"PRIVATE" in path.read_bytes() for path in releases.folder.rglob("*") if path.is_file())


def test_versions_only_grow_and_never_change(releases: Releases) -> None:
    releases.publish("digits", 3, "canary", b"three")
    releases.publish("digits", 3, "stable", b"three")  # promoted
    releases.publish("letters", 1, "stable", b"other")
    for version, channel, artefact, match in (
        (2, "stable", b"two", "devices never go back"),
        (3, "stable", b"three", "devices never go back"),
        (3, "canary", b"else", "devices never go back"),
        (0, "stable", b"x", "count from 1"),
        (4, "beta", b"x", "no channel 'beta'"),
    ):
        with pytest.raises(ConfigError, match=match):
            releases.publish("digits", version, channel, artefact)
    releases.publish("digits", 5, "canary", b"five")
    with pytest.raises(ConfigError, match="versions never change"):
        releases.publish("digits", 5, "stable", b"another")
    releases.publish("digits", 6, "stable", b"three")  # the way back
    assert [(each.channel, each.model, each.version) for each in releases.releases()] == [
        ("canary", "digits", 5),
        ("stable", "digits", 6),
        ("stable", "letters", 1),
    ]
    for name in ("", "../x", "a/b", "A"):
        with pytest.raises(ConfigError, match="a model named"):
            releases.publish(name, 1, "stable", b"x")


@pytest.mark.parametrize("role", ROLES)
def test_a_key_is_changed_and_no_device_is_lost(releases: Releases, tmp_path: Path, role: str) -> None:
    old, first = releases.root(), {path.name for path in releases.keys.iterdir()}
    releases.publish("digits", 1, "stable", b"one")
    assert seen(releases, old, "stable/digits", tmp_path / "known").custom["version"] == 1
    releases.rotate(role)
    after = {path.name for path in releases.keys.iterdir()}
    assert (len(first - after), len(after - first)) == (1, 1)
    # with the new key everything goes on: for who knew the old root, for who has slept, for who is new
    releases.publish("digits", 2, "stable", b"two")
    releases.refresh()
    for device, root in (("known", old), ("slept", old), ("new", releases.root())):
        assert seen(releases, root, "stable/digits", tmp_path / device).custom["version"] == 2
    if role not in ("stable", "canary"):
        assert releases.root() != old
    releases.rotate(role)
    assert seen(releases, old, "stable/digits", tmp_path / "known").custom["version"] == 2


@pytest.mark.parametrize("role", ROLES)
def test_no_moment_of_a_rotation_is_refused(
    releases: Releases, tmp_path: Path, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After every file that a rotation writes, devices see what they saw: one that knows the state, and a new one."""
    from duetto.cloud import releases as module

    root, moments, put = releases.root(), [], module.put
    releases.publish("digits", 1, "stable", b"one")

    def noted(path: Path, data: bytes, **options: Any) -> None:
        put(path, data, **options)
        for device in ("known", f"new-{len(moments)}"):
            moments.append(seen(releases, root, "stable/digits", tmp_path / device).custom["version"])

    monkeypatch.setattr(module, "put", noted)
    releases.rotate(role)
    assert len(moments) >= 4
    assert set(moments) == {1}


def test_a_stolen_channel_key_signs_for_its_channel_alone(releases: Releases, tmp_path: Path) -> None:
    """Signed by the canary's key, a stable release is not believed."""
    releases.publish("digits", 1, "stable", b"one")
    root = releases.root()
    _, snapshot, timestamp = releases._state()
    targets = Metadata.from_file(str(releases.folder / "metadata" / "1.targets.json")).signed
    stolen = targets.get_delegated_role("canary").keyids
    forged = Metadata.from_file(str(releases.folder / "metadata" / "2.stable.json")).signed
    forged.version = 3
    snapshot.meta["stable.json"] = releases._write("stable", forged, stolen, None)
    snapshot.version += 1
    timestamp.version += 1
    releases._online(releases._state()[0], snapshot, timestamp, None)
    with pytest.raises(exceptions.UnsignedMetadataError):
        seen(releases, root, "stable/digits", tmp_path / "device")


@pytest.mark.parametrize("ahead", ["timestamp", "snapshot"])
def test_devices_that_a_thief_sent_ahead_come_back_with_a_new_key(
    releases: Releases, tmp_path: Path, ahead: str
) -> None:
    """With the timestamp's key: versions so high that all that the service signs is refused as older (fast forward)."""
    root = releases.root()
    releases.publish("digits", 1, "stable", b"one")
    trusted, _, timestamp = releases._state()
    path, device = releases.folder / "metadata" / "timestamp.json", tmp_path / "device"
    honest, signed_by = path.read_bytes(), list(trusted.roles["timestamp"].keyids)
    timestamp.version = 10**6
    if ahead == "snapshot":
        timestamp.snapshot_meta.version = 10**6
    path.write_bytes(releases._bytes("timestamp", timestamp, signed_by, None))
    if ahead == "snapshot":
        with pytest.raises(exceptions.DownloadHTTPError):
            seen(releases, root, "stable/digits", device)
    else:
        assert seen(releases, root, "stable/digits", device).custom["version"] == 1
    path.write_bytes(honest)
    releases.publish("digits", 2, "stable", b"two")
    with pytest.raises(exceptions.BadVersionNumberError):
        seen(releases, root, "stable/digits", device)
    releases.rotate("timestamp")
    assert seen(releases, root, "stable/digits", device).custom["version"] == 2


def test_root_and_targets_can_be_in_a_safe(releases: Releases, tmp_path: Path) -> None:
    root, safe = releases.root(), tmp_path / "safe"
    safe.mkdir()
    signed = Metadata.from_bytes(root).signed
    targets = Metadata.from_file(str(releases.folder / "metadata" / "1.targets.json")).signed
    away = [*signed.roles["root"].keyids, *signed.roles["targets"].keyids, *targets.delegations.roles["stable"].keyids]
    for keyid in away:
        (releases.keys / f"{keyid}.pem").rename(safe / f"{keyid}.pem")
    releases.publish("digits", 1, "canary", b"one")
    assert releases.refresh() == ()
    assert seen(releases, root, "canary/digits", tmp_path / "device").custom["version"] == 1
    for impossible in (
        lambda: releases.publish("digits", 1, "stable", b"one"),
        lambda: releases.rotate("timestamp"),
        lambda: releases.rotate("canary"),
        releases.resign,
    ):
        with pytest.raises(ConfigError, match="cannot be read"):
            impossible()
    assert seen(releases, root, "canary/digits", tmp_path / "device").custom["version"] == 1


def test_time_is_renewed_before_it_is_over(tmp_path: Path) -> None:
    made = Releases(tmp_path / "r", tmp_path / "k", Expiry(root=100, targets=50, channel=40, snapshot=20, timestamp=2))
    now = datetime.now(UTC)
    made.begin(("stable",), now)
    first = made.root()

    def versions() -> tuple[int, ...]:
        root, snapshot, timestamp = made._state()
        return (root.version, snapshot.meta["targets.json"].version, snapshot.meta["stable.json"].version,
                snapshot.version, timestamp.version)  # fmt: skip

    assert versions() == (1, 1, 1, 1, 1)
    assert made.refresh(now + timedelta(days=1)) == ()
    assert versions() == (1, 1, 1, 1, 2)
    assert made.refresh(now + timedelta(days=14)) == ()
    assert versions() == (1, 1, 1, 2, 3)
    assert made.refresh(now + timedelta(days=28)) == ()
    assert versions() == (1, 1, 2, 3, 4)
    assert made.refresh(now + timedelta(days=40)) == ("targets",)
    assert made.refresh(now + timedelta(days=70)) == ("targets", "root")
    made.resign(now + timedelta(days=70))
    assert made.refresh(now + timedelta(days=71)) == ()
    assert made.root() != first
    with pytest.raises(ConfigError, match="days > 0"):
        Expiry(timestamp=0)


def test_a_crash_before_the_last_file_leaves_the_old(
    releases: Releases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from duetto.cloud import releases as module

    root, put = releases.root(), module.put
    releases.publish("digits", 1, "stable", b"one")
    for survived in range(4):
        left = iter(range(survived))

        def dies(path: Path, data: bytes, left: Any = left, **options: Any) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            put(path, data, **options)

        with monkeypatch.context() as patched:
            patched.setattr(module, "put", dies)
            with pytest.raises(KeyboardInterrupt):
                releases.publish("digits", 2, "stable", b"two, %d" % survived)
        assert seen(releases, root, "stable/digits", tmp_path / "device").custom["version"] == 1
    releases.publish("digits", 2, "stable", b"two")
    assert seen(releases, root, "stable/digits", tmp_path / "device").custom["version"] == 2


@pytest.mark.parametrize("size", [40_000, 3_000_000])
def test_a_delta_is_offered_where_it_is_smaller(releases: Releases, size: int) -> None:
    draw = np.random.default_rng(0)
    old = draw.integers(0, 256, size, dtype=np.uint8)
    tuned, other = old.copy(), draw.integers(0, 256, size, dtype=np.uint8)
    tuned[draw.integers(0, size, size // 1000)] += 1
    first = releases.publish("digits", 1, "stable", old.tobytes())
    second = releases.publish("digits", 2, "stable", tuned.tobytes(), olds=[first.sha256])
    delta = second.told["deltas"][first.sha256]
    assert delta["length"] < 0.02 * size
    dictionary = zstandard.ZstdCompressionDict(old.tobytes(), dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    packed = (releases.folder / "blobs" / delta["sha256"]).read_bytes()
    assert zstandard.ZstdDecompressor(dict_data=dictionary).decompress(packed) == tuned.tobytes()
    third = releases.publish("digits", 3, "stable", other.tobytes(), olds=[first.sha256, second.sha256])
    assert third.told["deltas"] == {}  # of other bytes there is none
    with pytest.raises(DataError, match="no blob"):
        releases.publish("digits", 4, "stable", b"four", olds=["0" * 64])


def test_blobs_that_nobody_offers_go(releases: Releases) -> None:
    old = np.random.default_rng(0).bytes(5000)
    first = releases.publish("digits", 1, "stable", old, vector=b"first")
    second = releases.publish("digits", 2, "stable", old + b"!", vector=b"second", olds=[first.sha256])
    assert releases.prune(keep=[first.sha256]) == len(b"first")
    assert releases.prune() == len(old)
    delta = second.told["deltas"][first.sha256]["sha256"]
    kept = {second.sha256, delta, hashlib.sha256(b"second").hexdigest()}
    assert {path.name for path in (releases.folder / "blobs").iterdir()} == kept


def test_repositories_that_cannot_be(releases: Releases, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there are releases"):
        releases.begin()
    empty = replace(releases, folder=tmp_path / "empty")
    for asks in (empty.releases, empty.root, empty.refresh):
        with pytest.raises(DataError, match="no releases in"):
            asks()
    for channels in ((), ("root",), ("a/b",), ("Ü",)):
        with pytest.raises(ConfigError, match="channel"):
            empty.begin(channels)
    (releases.folder / "metadata" / "timestamp.json").write_bytes(b"{}")
    with pytest.raises(DataError, match="cannot be read"):
        releases.refresh()
    fresh = Releases(tmp_path / "fresh", tmp_path / "fresh-keys")
    fresh.begin()
    with pytest.raises(ConfigError, match="no role"):
        fresh.rotate("nobody")
