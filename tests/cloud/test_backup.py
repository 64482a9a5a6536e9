"""A back-up is of one moment, made while the cloud runs on, and is a whole cloud again where it is put back."""

import stat
import threading
from pathlib import Path

import pytest

from duetto.cloud.backup import back_up
from duetto.cloud.site import Site
from duetto.errors import ConfigError, DataError
from duetto.protocols.deliver import Entry
from duetto.transport.identity import made_key, requested


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DUETTO_DB", "DUETTO_BLOBS"):
        monkeypatch.delenv(name, raising=False)


def test_a_copy_is_a_cloud_again(tmp_path: Path) -> None:
    site = Site(tmp_path / "cloud").begin()
    token = site.enrolment.token("phone-1", issuer="test")
    site.enrolment.enrol(token, requested(made_key(), "phone-1"))
    digest = site.registry.blobs.put(b"weights")
    site.registry.add("small", {"onnx": digest}, by="test")
    site.releases.publish("small", 1, "stable", b"artefact")
    stop, kept = threading.Event(), [0]

    def deliver() -> None:
        while not stop.is_set():
            kept[0] += 1
            site.feedback.keep("phone-1", bytes(16), [Entry(kept[0], "record", b"x" * 1000)])

    writer = threading.Thread(target=deliver)
    writer.start()
    copied = back_up(site.folder, tmp_path / "copy")
    stop.set()
    writer.join()
    assert set(copied) == {"duetto.db", "authority", "server", "keys", "releases", "blobs"}
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o700

    restored = Site(tmp_path / "copy").begin()
    assert restored.authority == site.authority
    assert restored.credentials == site.credentials
    assert restored.enrolment.devices() == site.enrolment.devices()
    assert restored.registry.blobs.get(digest) == b"weights"
    assert restored.releases.releases() == site.releases.releases()
    assert restored.feedback.gaps() == [], "all up to a moment, and none after it"
    assert sum(restored.feedback.counts().get("phone-1", {}).values()) <= kept[0]
    restored.releases.publish("small", 2, "stable", b"another artefact")
    for each in (site, restored):
        each.engine.dispose()


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    with pytest.raises(ConfigError, match="there already"):
        back_up(tmp_path / "cloud", tmp_path / "copy")
    with pytest.raises(DataError, match="no cloud in"):
        back_up(tmp_path / "cloud", tmp_path / "another")
