"""Who may connect: tokens that work once, names bound to keys, keys that stay out; also by many processes at once."""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sql

from duetto.cloud import database
from duetto.cloud.enrolment import Enrolment, devices, tokens
from duetto.errors import ConfigError, DataError
from duetto.transport.identity import Authority, Credentials, fingerprint, made_key, name_of, requested, serial

ENROLS = """
import sys, time
from pathlib import Path
from duetto.cloud import database
from duetto.cloud.enrolment import Enrolment
from duetto.errors import DataError
from duetto.transport.identity import Authority, made_key, requested
folder, start, name, given, url = sys.argv[1:]
enrolment = Enrolment(database.opened(url), Authority.load(Path(folder) / "authority"))
request = requested(made_key(), name)
Path(folder, f"ready-{given[:9]}-{name}-{hash(request)}").touch()
while not Path(start).exists():
    time.sleep(0.001)
try:
    enrolment.enrol(given, request)
    print("enrolled")
except DataError as fault:
    print(fault)
"""


class Clock:
    """Seconds that a test sets."""

    now = 1e9

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Of the fleet."""
    return Authority.make(tmp_path_factory.mktemp("fleet") / "authority")


@pytest.fixture
def enrolment(authority: Authority, url: str) -> Iterator[Enrolment]:
    """An empty one, in a database of each kind."""
    engine = database.opened(url)
    tables(engine)
    yield Enrolment(engine, authority, clock=Clock())
    engine.dispose()


def tables(engine: sql.Engine) -> None:
    """Just ours."""
    database.metadata.create_all(engine, [tokens, devices])


def later(enrolment: Enrolment, seconds: float) -> None:
    """Let time pass."""
    assert isinstance(enrolment.clock, Clock)
    enrolment.clock.now += seconds


def asked(enrolment: Enrolment, name: str, device: str = "*", key: bytes = b"") -> tuple[bytes, bytes]:
    """A device is enrolled: key and certificate."""
    key = key or made_key()
    return key, enrolment.enrol(enrolment.token(device, issuer="ops"), requested(key, name))


def test_a_token_makes_a_device_known(enrolment: Enrolment, authority: Authority) -> None:
    key, certificate = asked(enrolment, "phone-1")
    assert Credentials(key, certificate, authority.certificate).name == "phone-1"
    assert enrolment.admitted("phone-1", fingerprint(certificate))
    assert not enrolment.admitted("phone-2", fingerprint(certificate))
    assert not enrolment.admitted("phone-1", fingerprint(made_key()))
    (device,) = enrolment.devices()
    assert (device.name, device.fingerprint, device.serial) == ("phone-1", fingerprint(key), serial(certificate))
    assert (device.enrolled, device.revoked, device.seen) == (1e9, None, None)


def test_the_token_itself_is_not_kept(enrolment: Enrolment) -> None:
    token = enrolment.token("phone-*", issuer="ops")
    with enrolment.engine.connect() as connection:
        (row,) = connection.execute(tokens.select())
    assert row.hash == hashlib.sha256(token.encode()).hexdigest()
    assert token not in str(row)
    assert (row.device, row.issuer, row.expires) == ("phone-*", "ops", 1e9 + 86400)
    assert len(token) >= 43  # 256 bits


def test_tokens_that_do_not_work(enrolment: Enrolment) -> None:
    def refused(token: str, name: str, match: str) -> None:
        with pytest.raises(DataError, match=match):
            enrolment.enrol(token, requested(made_key(), name))

    for unknown in ("", "x", "é", "\ud800", "a" * 10_000):
        refused(unknown, "phone", "unknown token")
    token = enrolment.token("phone-*", issuer="ops", hours=1)
    refused(token, "laptop-1", r"a token of phone-\*")
    enrolment.enrol(token, requested(made_key(), "phone-1"))  # a mistake did not use it up
    refused(token, "phone-2", "used before")
    refused(token, "phone-1", "used before")
    late = enrolment.token(issuer="ops", hours=1)
    later(enrolment, 3600)
    refused(late, "phone-3", "has expired")
    assert [device.name for device in enrolment.devices()] == ["phone-1"]
    for bad in ("", "a/b", "../*"):
        with pytest.raises(ConfigError):
            enrolment.token(bad, issuer="ops")
    with pytest.raises(ConfigError, match="hours"):
        enrolment.token(issuer="ops", hours=0)


def test_a_certificate_that_was_lost_is_given_again_to_its_key(enrolment: Enrolment) -> None:
    token, key = enrolment.token(issuer="ops"), made_key()
    first = enrolment.enrol(token, requested(key, "phone"))
    later(enrolment, 86400 * 2)  # the device was off
    assert enrolment.enrol(token, requested(key, "phone")) == first
    with pytest.raises(DataError, match="used before"):
        enrolment.enrol(token, requested(key, "other"))
    enrolment.revoke("phone", "lost")
    with pytest.raises(DataError, match="revoked"):
        enrolment.enrol(token, requested(key, "phone"))
    assert len(enrolment.devices()) == 1


def test_a_name_is_bound_to_its_key(enrolment: Enrolment) -> None:
    old, certificate = asked(enrolment, "phone-1")
    for pattern in ("*", "phone-*", "phone-?"):
        with pytest.raises(DataError, match="bound to another key"):
            asked(enrolment, "phone-1", pattern)
    with pytest.raises(DataError, match="the key of phone-1"):
        asked(enrolment, "phone-2", key=old)
    new, _ = asked(enrolment, "phone-1", "phone-1")
    assert not enrolment.admitted("phone-1", fingerprint(certificate))
    assert enrolment.admitted("phone-1", fingerprint(new))
    assert [device.reason for device in enrolment.devices()] == ["enrolled with another key", None]
    with pytest.raises(DataError, match="was revoked"):  # it never comes back, not even by a token that names it
        asked(enrolment, "phone-1", "phone-1", key=old)


def test_revoked_is_out(enrolment: Enrolment) -> None:
    key, certificate = asked(enrolment, "phone")
    assert enrolment.admitted("phone", fingerprint(key))
    revoked = enrolment.revoke("phone", "stolen")
    assert (revoked.reason, revoked.revoked) == ("stolen", 1e9)
    assert not enrolment.admitted("phone", fingerprint(key))
    with pytest.raises(DataError, match="not enrolled with this key"):
        enrolment.renew("phone", requested(key, "phone"))
    with pytest.raises(DataError, match="bound to another key"):  # nor can a pattern take its name
        asked(enrolment, "phone")
    asked(enrolment, "phone", "phone")
    for name, match in (("nobody", "see the list"), ("gone", "revoked already")):
        if name == "gone":
            asked(enrolment, "gone")
            enrolment.revoke("gone", "x")
        with pytest.raises(DataError, match=match):
            enrolment.revoke(name, "again")
    assert name_of(certificate) == "phone"


def test_another_process_hears_of_it_soon(enrolment: Enrolment) -> None:
    other = Enrolment(enrolment.engine, enrolment.authority, memory=2.0, clock=enrolment.clock)
    key, _ = asked(enrolment, "phone")
    assert other.admitted("phone", fingerprint(key))
    enrolment.revoke("phone", "stolen")
    assert other.admitted("phone", fingerprint(key))  # believed for two seconds
    later(enrolment, 2.0)
    assert not other.admitted("phone", fingerprint(key))
    later(enrolment, -1e6)  # nor does a clock that is set back keep it in
    assert not other.admitted("phone", fingerprint(key))


def test_a_certificate_is_renewed_for_the_same_key(enrolment: Enrolment) -> None:
    key, first = asked(enrolment, "phone")
    later(enrolment, 61 * 86400)
    second = enrolment.renew("phone", requested(key, "phone"))
    assert fingerprint(second) == fingerprint(first)
    assert serial(second) != serial(first)
    assert enrolment.devices()[0].serial == serial(second)
    for request, match in ((requested(made_key(), "phone"), "with this key"), (requested(key, "other"), "asked for")):
        with pytest.raises(DataError, match=match):
            enrolment.renew("phone", request)


def test_seen_is_noted_once_a_minute(enrolment: Enrolment) -> None:
    key, _ = asked(enrolment, "phone")
    seen: list[Any] = []
    for seconds in (0, 30, 30, 59):
        later(enrolment, seconds)
        enrolment.seen(fingerprint(key))
        seen.append(enrolment.devices()[0].seen)
    assert seen == [1e9, 1e9, 1e9 + 60, 1e9 + 60]
    enrolment.seen("nobody")


def together(folder: Path, url: str, names: list[str], given: list[str]) -> list[str]:
    """What processes say that enrol at the same moment."""
    command = [sys.executable, "-c", ENROLS, str(folder), str(folder / "start")]
    started = [
        subprocess.Popen([*command, name, token, url], stdout=subprocess.PIPE, text=True)
        for name, token in zip(names, given, strict=True)
    ]
    while len(list(folder.glob("ready-*"))) < len(started):
        assert all(process.poll() is None for process in started)
    (folder / "start").touch()
    return [process.communicate(timeout=60)[0].strip() for process in started]


def test_processes_at_once(tmp_path: Path, url: str) -> None:
    engine = database.opened(url)
    tables(engine)
    enrolment = Enrolment(engine, Authority.make(tmp_path / "authority"))
    once, apart = enrolment.token(issuer="ops"), [enrolment.token(issuer="ops") for _ in range(2)]
    said = together(tmp_path, url, ["phone-1", "phone-2", "phone-3", "tablet", "tablet"], [once, once, once, *apart])
    assert sorted(each == "enrolled" for each in said[:3]) == [False, False, True], said  # one token
    assert sum("used before" in each for each in said[:3]) == 2, said
    assert sorted(each == "enrolled" for each in said[3:]) == [False, True], said  # one name
    assert sum("bound to another key" in each or "by another" in each for each in said[3:]) == 1, said
    assert len(enrolment.devices()) == 2
    engine.dispose()


def test_settings_that_cannot_be(enrolment: Enrolment) -> None:
    with pytest.raises(ConfigError, match="days"):
        Enrolment(enrolment.engine, enrolment.authority, days=0)
