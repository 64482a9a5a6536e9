"""A cloud's folder: made once, taken up again, and no way out of it."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from duetto.cloud.site import Site
from duetto.errors import ConfigError
from duetto.transport.identity import made_key, name_of, requested


def test_it_is_made_once_and_taken_up_again(tmp_path: Path) -> None:
    first = Site(tmp_path).begin(("cloud.example", "10.0.0.1"))
    authority, server, root = first.authority.certificate, first.credentials.certificate, first.releases.root()
    again = Site(tmp_path).begin(("other.example",))
    assert (again.authority.certificate, again.credentials.certificate, again.releases.root()) == (
        authority,
        server,
        root,
    )
    token = first.enrolment.token("phone-1", issuer="test")
    certificate = again.enrolment.enrol(token, requested(made_key(), "phone-1"))
    assert name_of(certificate) == "phone-1"
    assert [each.name for each in first.enrolment.devices()] == ["phone-1"]
    renewed = again.certify(("other.example",))
    assert renewed.certificate != server
    assert renewed.authority == authority


def test_processes_that_begin_together_make_one(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from duetto.cloud.site import Site; s = Site(Path(sys.argv[1])).begin();"
    )
    script += "s.engine; print(s.credentials.certificate[-60:], len(s.releases.root()))"
    started = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [each.communicate(timeout=120)[0] for each in started]
    assert [each.returncode for each in started] == [0, 0, 0]
    assert len(set(said)) == 1


@pytest.mark.parametrize("days", [-1000, 1000])
def test_a_clock_that_is_wrong_ends_no_service(days: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    site = Site(tmp_path).begin()
    then = datetime.now(UTC) + timedelta(days=days)
    made = site.authority.server(("localhost",), 90, now=then)
    made.save(tmp_path / "server")
    assert site.credentials == made
    assert "mend the clock" in caplog.text


def test_only_files_of_the_releases_are_given_out(tmp_path: Path) -> None:
    site = Site(tmp_path).begin()
    assert site.file("metadata/1.root.json").read_bytes() == site.releases.root()
    (tmp_path / "releases" / "other").write_text("secret")
    for path in ("../authority/authority.key", "metadata/../../keys", "/etc/passwd", "other", "metadata", ""):
        with pytest.raises(ConfigError, match="no file"):
            site.file(path)


def test_a_database_and_a_bucket_may_be_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUETTO_DB", f"sqlite:///{tmp_path / 'elsewhere.db'}")
    monkeypatch.setenv("DUETTO_BLOBS", "memory://site")
    site = Site(tmp_path / "site").begin()
    assert site.registry.blobs.url == "memory://site"
    assert site.feedback.counts() == {}
    assert (tmp_path / "elsewhere.db").exists()
    assert not (tmp_path / "site" / "duetto.db").exists()
