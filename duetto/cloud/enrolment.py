"""Who may connect: a one-time token makes a device's key known, and a revoked key stays out for ever.

Only the SHA-256 of a token is kept. A name is bound to the key that it was enrolled with; another key takes its place
only by a token that names just this device, and the key before it is then revoked. Rows are never deleted.
"""

from __future__ import annotations

import fnmatch
import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sql

from duetto.cloud.database import metadata, reading, writing
from duetto.errors import ConfigError, DataError
from duetto.transport.identity import Authority, checked, fingerprint, requested_name, serial

tokens = sql.Table(
    "tokens",
    metadata,
    sql.Column("hash", sql.String(64), primary_key=True, comment="SHA-256 of the token, in hex"),
    sql.Column("device", sql.String(63), nullable=False, comment="the name that may enrol, or a pattern: phone-*"),
    sql.Column("issuer", sql.Text, nullable=False),
    sql.Column("issued", sql.Double, nullable=False, comment="seconds since 1970, as all times"),
    sql.Column("expires", sql.Double, nullable=False),
    sql.Column("used", sql.Double),
    sql.Column("fingerprint", sql.String(64), comment="of the key that used it"),
)
devices = sql.Table(
    "devices",
    metadata,
    sql.Column("fingerprint", sql.String(64), primary_key=True, comment="SHA-256 of the public key, in hex"),
    sql.Column("name", sql.String(63), nullable=False),
    sql.Column("serial", sql.String(40), nullable=False, comment="of the certificate, in hex"),
    sql.Column("certificate", sql.Text, nullable=False, comment="PEM"),
    sql.Column("enrolled", sql.Double, nullable=False),
    sql.Column("revoked", sql.Double),
    sql.Column("reason", sql.Text),
    sql.Column("seen", sql.Double),
)
sql.Index(
    "one_key_a_name",
    devices.c.name,
    unique=True,
    sqlite_where=devices.c.revoked.is_(None),
    postgresql_where=devices.c.revoked.is_(None),
)
_BEAT = 60.0  # seconds between two notes of having seen a device


@dataclass(frozen=True)
class Device:
    """A key that has been enrolled; times in seconds since 1970.

    Attributes:
        name: the device's.
        fingerprint: SHA-256 of its public key, in hex.
        serial: of its certificate, in hex.
        enrolled: when.
        revoked, reason: when and why, if so.
        seen: when it was last connected, to the minute, if ever.
    """

    name: str
    fingerprint: str
    serial: str
    enrolled: float
    revoked: float | None = None
    reason: str | None = None
    seen: float | None = None


@dataclass(frozen=True)
class Enrolment:
    """The devices of a fleet, in a database that several processes may share.

    Attributes:
        engine: of :func:`duetto.cloud.database.opened`.
        authority: signs their certificates.
        days: for which a certificate holds; a device renews it after two thirds.
        memory: seconds for which :meth:`admitted` believes what it has read: a revocation by another process is
            heeded after so long at the latest, one by this process at once.
        clock: seconds since 1970.

    Raises:
        ConfigError: no time to hold.
    """

    engine: sql.Engine
    authority: Authority
    days: float = 90.0
    memory: float = 2.0
    clock: Callable[[], float] = time.time
    _known: dict[tuple[str, str], None] = field(default_factory=dict, init=False, repr=False)
    _looked: dict[str, tuple[float, Any]] = field(default_factory=dict, init=False, repr=False)
    _noted: dict[str, float] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not (self.days > 0 and self.memory >= 0):
            raise ConfigError(f"days={self.days}, memory={self.memory}", "days > 0 and memory >= 0")

    def token(self, device: str = "*", *, issuer: str, hours: float = 24.0) -> str:
        """A token for one device, once; it is told here and nowhere else.

        Args:
            device: the name that may enrol with it, or a pattern of names (``phone-*``). Only a token without a
                pattern lets a name that is bound already have another key.
            issuer: who asks for it, for the records.
            hours: for which it holds.

        Raises:
            ConfigError: no such pattern or time can be.
        """
        checked(device.replace("*", "a").replace("?", "a"))
        if not 0 < hours <= 24 * 365:
            raise ConfigError(f"a token for {hours} hours", "use up to a year")
        token, now = secrets.token_urlsafe(32), self.clock()
        row = {"hash": _hash(token), "device": device, "issuer": issuer, "issued": now, "expires": now + hours * 3600}
        with writing(self.engine) as connection:
            connection.execute(tokens.insert(), row)
        return token

    def enrol(self, token: str, request: bytes) -> bytes:
        """Use a token up and get the certificate (PEM) of the key in a request.

        All of it happens or nothing does, whoever else tries the same at the same time. A device whose certificate
        was lost on the way may ask again with the same token and the same key, and gets the same certificate.

        Args:
            token: from :meth:`token`.
            request: PEM, of :func:`duetto.transport.identity.requested`.

        Raises:
            DataError: the token is unknown, used, expired or of another device; the key was revoked or is another's;
                the name is bound to another key; or no request.
            ConfigError: no such name can be.
        """
        name, key, now, hashed = requested_name(request), fingerprint(request), self.clock(), _hash(token)
        unused = (tokens.c.hash == hashed) & tokens.c.used.is_(None) & (tokens.c.expires > now)
        try:
            with writing(self.engine) as connection:
                # This takes the row: of two with one token the second waits here (with SQLite one line above)
                taken = connection.execute(tokens.update().where(unused).values(used=now, fingerprint=key)).rowcount
                told = connection.execute(tokens.select().where(tokens.c.hash == hashed)).first()
                before = connection.execute(devices.select().where(devices.c.fingerprint == key)).first()
                if not taken:
                    return self._again(told, before, name, key)
                assert told is not None
                if not fnmatch.fnmatchcase(name, told.device):
                    raise DataError(f"a token of {told.device}, used by {name}", "ask for a token of this device")
                if before is not None:
                    raise _taken(before)
                self._unbind(connection, name, told.device, now)
                certificate = self.authority.sign(request, name, self.days, datetime.fromtimestamp(now, UTC))
                row = {"fingerprint": key, "name": name, "enrolled": now, **_signed(certificate)}
                connection.execute(devices.insert(), row)
        except sql.exc.IntegrityError as fault:
            raise DataError(
                f"{name} was enrolled by another at this moment", "see who it was, then enrol again"
            ) from fault
        self._known.clear()
        return certificate

    def renew(self, name: str, request: bytes) -> bytes:
        """The next certificate (PEM) of a device that has shown its last one, for the same key.

        Args:
            name: as its last certificate says, and TLS has made sure of.
            request: of the same key and name.

        Raises:
            DataError: it has been revoked, or is of another key or name.
            ConfigError: no such name can be.
        """
        key, now = fingerprint(request), self.clock()
        if requested_name(request) != name:
            raise DataError(f"{name} asked for a certificate of {requested_name(request)}", "ask under its own name")
        certificate = self.authority.sign(request, name, self.days, datetime.fromtimestamp(now, UTC))
        own = (devices.c.fingerprint == key) & (devices.c.name == name) & devices.c.revoked.is_(None)
        with writing(self.engine) as connection:
            if not connection.execute(devices.update().where(own).values(**_signed(certificate))).rowcount:
                raise DataError(f"{name} is not enrolled with this key", f"ask for a token of {name} and enrol again")
        return certificate

    def admitted(self, name: str, fingerprint: str) -> bool:
        """Whether a device may be served: enrolled with this key, not revoked. Open streams are to ask this as well.

        Args:
            name: as its certificate says.
            fingerprint: of the key that TLS has seen.
        """
        now = self.clock()
        looked, revoked = self._looked.get("", (-float("inf"), None))
        if not 0 <= now - looked < self.memory:  # one look for all: whom it admits changes only by a revocation
            with reading(self.engine) as connection:
                mark = connection.execute(
                    sql.select(sql.func.count(devices.c.revoked), sql.func.max(devices.c.revoked))
                )
                found = tuple(mark.one())
            if found != revoked:
                self._known.clear()
            self._looked[""] = now, found
        if (name, fingerprint) not in self._known:
            own = sql.select(devices.c.revoked).where(devices.c.fingerprint == fingerprint, devices.c.name == name)
            with reading(self.engine) as connection:
                row = connection.execute(own).first()
            if row is None or row.revoked is not None:
                return False
            self._known[name, fingerprint] = None
        return True

    def seen(self, *fingerprints: str) -> None:
        """Note that devices are connected; of each at most once a minute."""
        now = self.clock()
        due = [each for each in fingerprints if abs(now - self._noted.get(each, -float("inf"))) >= _BEAT]
        if not due:
            return
        with writing(self.engine) as connection:
            known = connection.execute(sql.select(devices.c.fingerprint).where(devices.c.fingerprint.in_(due)))
            here = [row.fingerprint for row in known]
            connection.execute(devices.update().where(devices.c.fingerprint.in_(here)).values(seen=now))
        self._noted.update(dict.fromkeys(here, now))

    def revoke(self, name: str, reason: str) -> Device:
        """Shut a device out. Its key stays out; its name comes back only by a token that names it.

        Raises:
            DataError: no such device, or revoked before.
        """
        own = (devices.c.name == name) & devices.c.revoked.is_(None)
        with writing(self.engine) as connection:
            changed = connection.execute(devices.update().where(own).values(revoked=self.clock(), reason=reason))
            rows = connection.execute(devices.select().where(devices.c.name == name).order_by(devices.c.revoked.desc()))
            row = rows.first()
        self._known.clear()
        if row is None or not changed.rowcount:
            raise DataError(f"no device {name} to revoke", "revoked already" if row else "see the list of devices")
        return _device(row)

    def devices(
        self, prefix: str = "", *, revoked: bool | None = None, offset: int = 0, limit: int | None = None
    ) -> tuple[Device, ...]:
        """Keys that were ever enrolled, by name and time.

        Args:
            prefix: with which their names begin.
            revoked: only those that are, or only those that are not; None is both.
            offset, limit: leave so many out, and tell so many at most.
        """
        chosen = sql.select(*(devices.c[name] for name in Device.__dataclass_fields__))
        if prefix:
            chosen = chosen.where(devices.c.name.startswith(prefix, autoescape=True))
        if revoked is not None:
            chosen = chosen.where(devices.c.revoked.is_not(None) if revoked else devices.c.revoked.is_(None))
        order = (devices.c.name, devices.c.enrolled, devices.c.revoked.is_(None), devices.c.fingerprint)
        with reading(self.engine) as connection:
            rows = connection.execute(chosen.order_by(*order).offset(offset).limit(limit))
            return tuple(_device(row) for row in rows)

    def counts(self) -> tuple[int, int]:
        """How many keys are admitted, and how many were revoked."""
        told = sql.select(sql.func.count(), sql.func.count(devices.c.revoked)).select_from(devices)
        with reading(self.engine) as connection:
            both, gone = connection.execute(told).one()
        return both - gone, gone

    def _again(self, told: Any, before: Any, name: str, key: str) -> bytes:
        """A token that could not be taken: why; or the certificate again, to whom it was made out."""
        if told is None:
            raise DataError("an unknown token", "ask for a new one")
        if told.used is None:
            raise DataError("a token that has expired", "ask for a new one")
        if told.fingerprint != key or before is None or before.name != name:
            raise DataError("a token that was used before", "if not by this device, revoke who used it")
        if before.revoked is not None:
            raise _taken(before)
        return str(before.certificate).encode()

    def _unbind(self, connection: sql.Connection, name: str, granted: str, now: float) -> None:
        """Make way for a new key under a name, if that has been granted."""
        if connection.execute(sql.select(devices.c.name).where(devices.c.name == name).limit(1)).first() is None:
            return
        if granted != name:
            raise DataError(f"{name} is bound to another key", f"ask for a token of just {name}, if this is still it")
        bound = (devices.c.name == name) & devices.c.revoked.is_(None)
        connection.execute(devices.update().where(bound).values(revoked=now, reason="enrolled with another key"))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()  # of 256 random bits: no salt is needed


def _signed(certificate: bytes) -> dict[str, str]:
    return {"certificate": certificate.decode(), "serial": serial(certificate)}


def _taken(row: Any) -> DataError:
    if row.revoked is not None:
        return DataError(f"a key of {row.name} that was revoked ({row.reason})", "make a new key on the device")
    return DataError(f"the key of {row.name}", "it is enrolled; to move it to another name make a new key")


def _device(row: Any) -> Device:
    told = row._mapping
    return Device(**{name: told[name] for name in Device.__dataclass_fields__})
