"""New models for a device: from real repositories, good ones and every kind of bad one, across kills and breaks."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tuf.api.metadata import Targets

from duetto import tree as trees
from duetto.cloud.releases import Releases
from duetto.device.agreement import Agreement
from duetto.device.slots import Slots
from duetto.device.sources import Folder
from duetto.device.updater import Refused, Updater, reproduces, told_of
from duetto.errors import ConfigError, DataError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(4, 8)).astype(np.float32)
ON_A_DEVICE = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "onnx", "scipy", "sqlalchemy") or name == "duetto.cloud":
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Blocked())
import os, time
from pathlib import Path
from duetto.device.slots import Slots
from duetto.device.sources import Folder
from duetto.device.updater import Updater
from duetto.errors import DataError
folder, served, root, log, kind = sys.argv[1:]
def check(path, vector, tolerance):
    if kind == "deadly":
        os.kill(os.getpid(), 9)
    from duetto.device.updater import reproduces
    return reproduces(path, vector, tolerance)
updater = Updater(Path(folder), Folder(Path(served)), Path(root).read_bytes(), "digits",
                  slots=Slots(Path(folder), tries=3 if kind == "deadly" else 1000), check=check)
told = open(log, "ab", buffering=0)
while True:
    slot = updater.installed.begin()
    told.write(f"{slot.version if slot else 0} {slot.sha256 if slot else '-'}\\n".encode())
    if slot:
        updater.installed.confirm(slot.version)
    try:
        updater.update()
    except DataError as fault:
        told.write(f"! {fault}\\n".encode())
    if kind != "forever":
        break
"""


def model(seed: int, size: int = 8) -> bytes:
    """An ONNX file: ``logits = x W``."""
    weights = np.random.default_rng(seed).normal(size=(8, size)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["logits"])],
        "net",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 8])],
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["n", size])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    opset = onnx.helper.make_opsetid("", 17)
    data: bytes = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()
    return data


def vector(seed: int, size: int = 8, off: float = 0.0) -> bytes:
    """Its self-test."""
    weights = np.random.default_rng(seed).normal(size=(8, size)).astype(np.float32)
    return trees.encode({"x": X, "logits": X @ weights + np.float32(off)})


@dataclass(frozen=True)
class Counted:
    """A source that counts what it gives, and breaks off after so many bytes."""

    folder: Path
    given: list[tuple[str, int, int]] = field(default_factory=list)
    breaks: list[int] = field(default_factory=list)

    def fetch(self, path: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        whole = b"".join(Folder(self.folder).fetch(path, start, length))
        stop = self.breaks.pop(0) if self.breaks and path.startswith("blobs/") else len(whole)
        self.given.append((path, start, min(stop, len(whole))))
        yield from (whole[:stop][i : i + 1000] for i in range(0, min(stop, len(whole)), 1000))
        if stop < len(whole):
            raise OSError("the line is cut")

    def blobs(self) -> list[tuple[int, int]]:
        """Start and length of the parts of blobs that were given."""
        return [(start, length) for path, start, length in self.given if path.startswith("blobs/")]


@pytest.fixture
def releases(tmp_path: Path) -> Releases:
    """Two channels, version 1 in stable."""
    made = Releases(tmp_path / "releases", tmp_path / "keys")
    made.begin()
    made.publish("digits", 1, "stable", model(1), vector=vector(1))
    return made


@pytest.fixture
def device(releases: Releases, tmp_path: Path) -> Updater:
    """A device that was enrolled with the first root."""
    root = (releases.folder / "metadata" / "1.root.json").read_bytes()
    return Updater(tmp_path / "device", Folder(releases.folder), root, "digits")


def current(device: Updater) -> int:
    """The version that it runs; 0 for none."""
    slot = device.installed.begin()
    return slot.version if slot else 0


def updated(device: Updater) -> int:
    """What it runs after an update that works."""
    slot = device.update()
    if slot:
        device.installed.begin()
        device.installed.confirm(slot.version)
    return current(device)


def test_a_model_arrives_is_tested_and_runs(releases: Releases, device: Updater) -> None:
    from duetto.device import Artefact
    from duetto.types import Local

    assert current(device) == 0
    told: list[tuple[int, int]] = []
    slot = device.update(lambda done, whole: told.append((done, whole)))
    assert slot is not None
    assert (slot.version, slot.state) == (1, "trying")
    assert told[-1][0] == told[-1][1]
    assert updated(device) == 1
    assert device.update() is None
    logits = Artefact(str(device.installed.path(slot)))(Local(), {"x": X}, (0,), "me")[1]["logits"]  # type: ignore[index]
    np.testing.assert_allclose(logits, trees.decode(vector(1))["logits"], atol=1e-5)  # type: ignore[index, call-overload]
    releases.publish("digits", 2, "stable", model(2), vector=vector(2), told={"note": 0.5})
    offer = device.offered()
    assert offer is not None
    assert (offer.version, offer.told) == (2, {"note": 0.5})
    assert updated(device) == 2
    assert not (device.folder / "partial").exists()


def test_a_channel_is_one_s_own(releases: Releases, device: Updater) -> None:
    canary = replace(device, channel="canary")
    assert canary.offered() is canary.update() is None
    releases.publish("digits", 2, "canary", model(2))
    assert updated(device) == 1
    assert updated(canary) == 2
    assert replace(device, model="letters").update() is None
    # back in stable, the device keeps what it has until stable is newer
    with pytest.raises(Refused, match="version 1 after version 2"):
        device.update()
    assert current(device) == 2
    releases.publish("digits", 3, "stable", model(1))
    assert updated(device) == 3


# What is refused, each really made --------------------------------------------------------------------------------


def other_keys(releases: Releases, tmp_path: Path) -> None:
    """Another repository under the same names: nothing in it is signed by whom the device believes."""
    other = Releases(tmp_path / "other", tmp_path / "other-keys")
    other.begin()
    other.publish("digits", 2, "stable", model(2))
    other.publish("digits", 3, "stable", model(3))
    replaced(releases, other.folder)


def no_signature(releases: Releases, tmp_path: Path) -> None:
    """The timestamp without its signatures."""
    releases.publish("digits", 2, "stable", model(2))
    path = releases.folder / "metadata" / "timestamp.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "signatures": []}))


def expired(releases: Releases, tmp_path: Path) -> None:
    """A service that stopped signing three days ago."""
    releases.publish("digits", 2, "stable", model(2), now=datetime.now(UTC) - timedelta(days=3))


def expired_channel(releases: Releases, tmp_path: Path) -> None:
    """A service that goes on, without the channel's key."""
    releases.publish("digits", 2, "stable", model(2), now=datetime.now(UTC) - timedelta(days=91))
    for path in releases.keys.glob("*.pem"):
        targets = json.loads((releases.folder / "metadata" / "1.targets.json").read_text())["signed"]
        if path.stem in targets["delegations"]["keys"]:
            path.unlink()
    assert releases.refresh() == ("stable",)


def expired_root(releases: Releases, tmp_path: Path) -> None:
    """Nobody renewed the root."""
    releases.resign(now=datetime.now(UTC) - timedelta(days=731))
    releases.refresh()


def rolled_back(releases: Releases, tmp_path: Path) -> None:
    """The state before the one that was seen."""
    before = tmp_path / "before"
    shutil.copytree(releases.folder, before)
    releases.publish("digits", 2, "canary", model(2))
    seen_by_device(releases, tmp_path)
    replaced(releases, before)


def mixed(releases: Releases, tmp_path: Path) -> None:
    """A new timestamp over an older snapshot, signed by a thief of the timestamp's key."""
    old = releases._state()[2].snapshot_meta
    releases.publish("digits", 2, "canary", model(2))
    seen_by_device(releases, tmp_path)
    root, _, timestamp = releases._state()
    timestamp.version += 1
    timestamp.snapshot_meta = old
    keys = list(root.roles["timestamp"].keyids)
    (releases.folder / "metadata" / "timestamp.json").write_bytes(releases._bytes("timestamp", timestamp, keys, None))


def altered_targets(releases: Releases, tmp_path: Path) -> None:
    """Another hash in the channel's metadata."""
    releases.publish("digits", 2, "stable", model(2))
    path = releases.folder / "metadata" / "3.stable.json"
    path.write_bytes(path.read_bytes().replace(hashlib.sha256(model(2)).hexdigest().encode(), b"0" * 64))


def longer_targets(releases: Releases, tmp_path: Path) -> None:
    """The channel's metadata with more behind it than was signed."""
    releases.publish("digits", 2, "stable", model(2))
    with (releases.folder / "metadata" / "3.stable.json").open("ab") as file:
        file.write(b" " * 1000)


def no_json(releases: Releases, tmp_path: Path) -> None:
    """Something else."""
    (releases.folder / "metadata" / "timestamp.json").write_bytes(b"\x00<html>")


def altered_blob(releases: Releases, tmp_path: Path) -> None:
    """A bit of the artefact."""
    made = releases.publish("digits", 2, "stable", model(2))
    path = releases.folder / "blobs" / made.sha256
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(bytes(data))


def altered_vector(releases: Releases, tmp_path: Path) -> None:
    """A bit of the self-test."""
    made = releases.publish("digits", 2, "stable", model(2), vector=vector(2))
    path = releases.folder / "blobs" / made.told["vector"]["sha256"]
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def replaced(releases: Releases, by: Path) -> None:
    """Serve another folder's files."""
    for part in ("metadata", "blobs"):
        shutil.rmtree(releases.folder / part)
        shutil.copytree(by / part, releases.folder / part)


def seen_by_device(releases: Releases, tmp_path: Path) -> None:
    """The device looks now."""
    root = (releases.folder / "metadata" / "1.root.json").read_bytes()
    Updater(tmp_path / "device", Folder(releases.folder), root, "digits").offered()


@pytest.mark.parametrize(
    ("makes", "said"),
    [
        (other_keys, "releases that are not signed by whom this device believes"),
        (no_signature, "releases that are not signed by whom this device believes"),
        (expired, "releases whose time is over (timestamp.json is expired)"),
        (expired_channel, "releases whose time is over (New stable is expired)"),
        (expired_root, "releases whose time is over (Final root.json is expired)"),
        (rolled_back, "releases older than were seen before"),
        (mixed, "releases older than were seen before"),
        (altered_targets, "releases that are not what was signed"),
        (longer_targets, "releases are longer than was signed"),
        (no_json, "releases that cannot be read"),
        (altered_blob, "is not what was signed"),
        (altered_vector, "is not what was signed"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_refused_in_one_clear_line(
    releases: Releases, device: Updater, tmp_path: Path, makes: Callable[[Releases, Path], None], said: str
) -> None:
    assert updated(device) == 1
    makes(releases, tmp_path)
    for _ in range(2):  # and again
        with pytest.raises(Refused) as told:
            device.update()
        assert said in str(told.value)
        assert "\n" not in str(told.value)
        assert current(device) == 1


def test_frozen_is_noticed_when_the_timestamp_s_time_is_over(
    releases: Releases, device: Updater, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody serves the same old state, once good, while newer ones are made: for the timestamp's days at most."""
    from tuf.ngclient._internal import trusted_metadata_set as clients

    class Ahead(datetime):
        days = 0.0

        @classmethod
        def now(cls, zone: tzinfo | None = None) -> datetime:
            return datetime.now(zone) + timedelta(days=cls.days)

    monkeypatch.setattr(clients, "datetime", SimpleNamespace(datetime=Ahead, timezone=timezone))
    frozen = releases.folder.parent / "frozen"
    shutil.copytree(releases.folder, frozen)
    kept = replace(device, source=Folder(frozen))
    assert updated(kept) == 1
    Ahead.days = 1.9
    assert kept.update() is None  # it cannot know yet
    Ahead.days = 2.1
    releases.publish("digits", 2, "stable", model(2), now=datetime.now(UTC) + timedelta(days=2))
    with pytest.raises(Refused, match="somebody withholds newer ones"):
        kept.update()
    assert updated(device) == 2


def test_nobody_there_is_no_refusal(device: Updater, tmp_path: Path) -> None:
    assert updated(device) == 1
    gone = replace(device, source=Folder(tmp_path / "gone"))
    with pytest.raises(DataError, match="cannot be fetched") as told:
        gone.update()
    assert not isinstance(told.value, Refused)
    assert current(gone) == 1


def test_an_older_release_with_new_signatures_is_refused(releases: Releases, device: Updater) -> None:
    """Whoever has the channel's key can sign anything; a device does not go back even so."""
    releases.publish("digits", 5, "stable", model(5))
    assert updated(device) == 5
    root, snapshot, timestamp = releases._state()
    targets = releases._read("targets", 1, Targets)
    offered = releases._read("stable", 3, Targets)
    offered.version = 4
    offered.targets["stable/digits"].unrecognized_fields["custom"]["version"] = 4
    keys = list(targets.get_delegated_role("stable").keyids)
    snapshot.meta["stable.json"] = releases._write("stable", offered, keys, None)
    snapshot.version += 1
    timestamp.version += 1
    releases._online(root, snapshot, timestamp, None)
    with pytest.raises(Refused, match="digits version 4 after version 5"):
        device.update()
    # nor does it take other bytes as the version that it knows, though its own record of what TUF saw is lost
    shutil.rmtree(device.folder / "metadata")
    with pytest.raises(Refused, match="digits version 4 after version 5"):
        device.update()
    assert current(device) == 5


# Bytes ------------------------------------------------------------------------------------------------------------


def test_what_was_fetched_before_a_break_is_not_fetched_again(releases: Releases, device: Updater) -> None:
    data = model(2, 5000)
    releases.publish("digits", 2, "stable", data)
    source = Counted(releases.folder, breaks=[60_000, 30_000])
    device = replace(device, source=source)
    for so_far in (60_000, 90_000):
        with pytest.raises(DataError, match=f"broke off after {so_far} of {len(data)} bytes") as told:
            device.update()
        assert not isinstance(told.value, Refused)
    assert updated(device) == 2
    assert source.blobs() == [(0, 60_000), (60_000, 30_000), (90_000, len(data) - 90_000)]


def test_a_beginning_that_is_not_this_file_s_is_thrown_away(releases: Releases, device: Updater) -> None:
    data = model(2)
    sha256 = releases.publish("digits", 2, "stable", data).sha256
    for beginning in (b"x" * 100, b"x" * (len(data) + 1), b"x" * len(data)):
        (device.folder / "partial").mkdir(parents=True, exist_ok=True)
        (device.folder / "partial" / sha256).write_bytes(beginning)
        if len(beginning) <= len(data):
            with pytest.raises(Refused, match="is not what was signed"):
                device.update()
        assert not (device.folder / "partial" / sha256).exists() or len(beginning) > len(data)
    assert updated(device) == 2


def test_a_source_that_gives_too_much_or_too_little(releases: Releases, device: Updater) -> None:
    @dataclass(frozen=True)
    class Off(Folder):
        by: int = 0

        def fetch(self, path: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
            whole = b"".join(Folder(self.path).fetch(path))
            yield (
                whole if not path.startswith("blobs/") else whole + b"x" * self.by if self.by > 0 else whole[: self.by]
            )

    with pytest.raises(Refused, match="is not what was signed"):
        replace(device, source=Off(releases.folder, 10**6)).update()
    with pytest.raises(DataError, match="ended after"):
        replace(device, source=Off(releases.folder, -10)).update()
    assert updated(device) == 1


def test_a_delta_is_fetched_where_it_is_smaller(releases: Releases, device: Updater) -> None:
    old = model(2, 5000)
    tuned = bytearray(old)
    for i in range(500, len(old) - 500, 5000):
        tuned[i] ^= 1
    first = releases.publish("digits", 2, "stable", old)
    assert updated(device) == 2
    second = releases.publish("digits", 3, "stable", bytes(tuned), olds=[first.sha256])
    source = Counted(releases.folder)
    assert updated(replace(device, source=source)) == 3
    delta = second.told["deltas"][first.sha256]["length"]
    assert source.blobs() == [(0, delta)]
    assert delta < len(old) / 20
    slot = device.installed.begin()
    assert slot is not None
    assert device.installed.path(slot).read_bytes() == bytes(tuned)


@pytest.mark.parametrize("kind", ["altered", "of other bytes", "too long"])
def test_a_delta_that_does_not_fit_is_not_needed(releases: Releases, device: Updater, kind: str) -> None:
    import zstandard

    old, new = model(2, 5000), model(2, 5001)
    first = releases.publish("digits", 2, "stable", old)
    assert updated(device) == 2
    given = releases._kept(
        {
            "altered": b"no delta",
            "of other bytes": zstandard.ZstdCompressor().compress(b"other"),
            "too long": zstandard.ZstdCompressor().compress(bytes(10**7)),
        }[kind]
    )
    told = {"sha256": given[0], "length": given[1]}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Releases, "_delta", lambda *_: told)
        releases.publish("digits", 3, "stable", new, olds=[first.sha256])
    source = Counted(releases.folder)
    assert updated(replace(device, source=source)) == 3
    assert source.blobs() == [(0, given[1]), (0, len(new))]


def test_a_full_disk_is_told(releases: Releases, device: Updater, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DataError, match="no room for"):
        device.update()


# The self-test ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("artefact", "test", "said"),
    [
        (model(2), vector(2, off=0.1), "its outputs differ by 0.1"),
        (model(2), vector(2, off=np.nan), "its outputs differ by nan"),
        (model(2), vector(2, size=7), "it gives (4, 8), not (4, 7)"),
        (model(2), trees.encode({"x": X[:, :5], "logits": X}), "it does not run"),
        (model(2), trees.encode({"y": X}), "it does not run"),
        (model(2), b"no tree", "not an encoded tree"),
        (b"no model", vector(2), "is no model"),
        (b"no model", None, "is no model"),
    ],
    ids=("differs", "is NaN", "another shape", "other inputs", "no inputs", "no vector", "no model", "untested"),
)
def test_a_model_that_fails_its_test_is_never_run(
    releases: Releases, device: Updater, artefact: bytes, test: bytes | None, said: str
) -> None:
    assert updated(device) == 1
    releases.publish("digits", 2, "stable", artefact, vector=test)
    with pytest.raises(Refused) as told:
        device.update()
    assert "digits 2 failed its self-test: " in str(told.value)
    assert said in str(told.value)
    assert "\n" not in str(told.value)
    source = Counted(releases.folder)
    assert replace(device, source=source).update() is None  # nor is it fetched again
    assert source.blobs() == []
    assert current(device) == 1
    releases.publish("digits", 3, "stable", model(3), vector=vector(3))
    assert updated(device) == 3


def test_the_test_can_be_the_application_s(releases: Releases, device: Updater) -> None:
    def check(path: Path, vector: bytes | None, tolerance: float) -> str | None:
        assert reproduces(path, vector, tolerance) is None
        raise RuntimeError("too slow here")

    with pytest.raises(Refused, match="too slow here"):
        replace(device, check=check).update()
    assert current(device) == 0


# The way back -----------------------------------------------------------------------------------------------------


def test_a_release_that_is_never_confirmed_is_left_alone(releases: Releases, device: Updater) -> None:
    assert updated(device) == 1
    releases.publish("digits", 2, "stable", model(2))
    device.update()
    assert [current(device) for _ in range(4)] == [2, 2, 2, 1]
    assert device.update() is None
    assert current(device) == 1


def test_a_release_that_agrees_less_is_left_alone(releases: Releases, device: Updater) -> None:
    rule = Agreement(window=100)
    assert updated(device) == 1
    device.installed.observe(1, 95, 100, rule)
    releases.publish("digits", 2, "stable", model(2))
    assert updated(device) == 2
    assert "version 1 in 95 of 100" in str(device.installed.observe(2, 20, 50, rule))
    assert current(device) == 1
    assert device.update() is None


def test_one_process_at_a_time(device: Updater) -> None:
    from duetto.transport.files import alone

    with alone(device.folder / "metadata"), pytest.raises(ConfigError, match="another process works in"):
        device.update()
    assert updated(device) == 1


# Kills ------------------------------------------------------------------------------------------------------------


def started(device: Updater, releases: Releases, kind: str) -> "subprocess.Popen[bytes]":
    """A process that updates this device."""
    folder = device.folder
    root, log = folder.parent / "root.json", folder.parent / "log"
    root.write_bytes(device.root)
    command = [sys.executable, "-W", "error", "-c", ON_A_DEVICE, folder, releases.folder, root, log, kind]
    return subprocess.Popen([str(each) for each in command])


def test_a_self_test_that_kills_the_process_ends_by_itself(releases: Releases, device: Updater) -> None:
    codes = [started(device, releases, "deadly").wait(60) for _ in range(4)]
    assert codes == [-signal.SIGKILL] * 3 + [0]
    log = (device.folder.parent / "log").read_text().splitlines()
    assert log[-1].startswith("! digits 1 killed this process in its self-test")
    assert current(device) == 0
    assert replace(device, slots=Slots(device.folder)).update() is None


@pytest.mark.parametrize("kills", [3, pytest.param(40, marks=pytest.mark.slow)])
def test_killed_at_any_time_a_device_runs_signed_models_and_never_an_older_one(
    releases: Releases, device: Updater, kills: int
) -> None:
    """Releases come all the time; the process is killed again and again (SIGKILL), at times drawn from a seed."""
    draw, log, number = np.random.default_rng(kills), device.folder.parent / "log", 1
    signed, before = {0: "-", 1: hashlib.sha256(model(1)).hexdigest()}, ""
    log.touch()
    for _ in range(kills):
        process = started(device, releases, "forever")
        seen, start = len(log.read_bytes()), time.monotonic()
        while len(log.read_bytes()) == seen and time.monotonic() < start + 60:
            time.sleep(0.01)
        until = time.monotonic() + draw.uniform(0.05, 0.6)
        while time.monotonic() < until:
            number += 1
            made = releases.publish("digits", number, "stable", model(number), olds=[before] if before else [])
            signed[number] = before = made.sha256
        process.kill()
        assert process.wait(60) == -signal.SIGKILL
    lines = [line.split(" ", 1) for line in log.read_text().splitlines()]
    ran = [(int(version), sha256) for version, sha256 in lines if version != "!"]
    # while the timestamp is replaced a device may see the one before, never anything that is altered
    assert all(not line[1].startswith("digits") for line in lines if line[0] == "!"), lines
    assert ran == sorted(ran, key=lambda each: each[0])
    assert all(signed[version] == sha256 for version, sha256 in ran)
    assert ran[-1][0] > 1
    assert updated(device) == number


def test_what_a_release_tells_lies_beside_its_model_as_long_as_that_is_here(
    releases: Releases, device: Updater
) -> None:
    assert told_of(device.folder, 1) == {}
    for version in (1, 2, 3, 4):
        if version > 1:
            releases.publish("digits", version, "stable", model(version), told={"policy": version})
        assert updated(device) == version
        device.installed.confirm(version)
    assert {path.name for path in (device.folder / "told").iterdir()} == {"3.json", "4.json"}  # it, and the one before
    assert [told_of(device.folder, version) for version in (3, 4)] == [{"policy": 3}, {"policy": 4}]

    releases.publish("digits", 5, "stable", model(5), told={"policy": "nonsense"})
    picky = replace(device, takes=lambda told: "no such policy" if told.get("policy") == "nonsense" else None)
    with pytest.raises(Refused, match="digits 5 failed its self-test: no such policy"):
        picky.update()
    assert current(device) == 4
    assert picky.update() is None
