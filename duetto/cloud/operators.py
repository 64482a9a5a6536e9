"""Who may look at a cloud, and who may act on it: tokens with a role, of which only the SHA-256 is kept."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sql

from duetto.cloud.database import metadata, reading, writing
from duetto.errors import ConfigError, DataError

VIEWER, OPERATOR = "viewer", "operator"
ROLES = (VIEWER, OPERATOR)
"""The latter may do all that the former may."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._-]{0,62}")
_TOKEN = re.compile(r"duetto_([0-9a-f]{16})_([0-9a-f]{64})")  # a prefix that scanners for leaked secrets can know

operators = sql.Table(
    "operators",
    metadata,
    sql.Column("id", sql.String(16), primary_key=True, comment="the token's public part"),
    sql.Column("name", sql.String(63), nullable=False),
    sql.Column("role", sql.String(16), nullable=False),
    sql.Column("hash", sql.String(64), nullable=False, comment="SHA-256 of the token's secret part, in hex"),
    sql.Column("issued", sql.Double, nullable=False, comment="seconds since 1970, as all times"),
    sql.Column("expires", sql.Double, nullable=False),
    sql.Column("revoked", sql.Double),
)


@dataclass(frozen=True)
class Operator:
    """Somebody with a token; times in seconds since 1970.

    Attributes:
        id: of the token, which is no secret.
        name: whose.
        role: ``viewer`` or ``operator``.
        issued, expires: from when to when it holds.
        revoked: when it was taken back, if so.
    """

    id: str
    name: str
    role: str
    issued: float
    expires: float
    revoked: float | None = None

    def may(self, role: str) -> bool:
        """Whether this role includes that one."""
        return ROLES.index(self.role) >= ROLES.index(role)


@dataclass(frozen=True)
class Operators:
    """Tokens, in the table ``operators``; processes may share it.

    Attributes:
        engine: of a database that is :func:`~duetto.cloud.database.upgraded`.
        clock: seconds since 1970.
    """

    engine: sql.Engine
    clock: Callable[[], float] = time.time

    def add(self, name: str, role: str, days: float = 90.0) -> str:
        """A new token, which is told here and nowhere else; those before it go on to hold.

        Args:
            name: whose.
            role: ``viewer`` or ``operator``.
            days: for which it holds.

        Raises:
            ConfigError: no such name, role or time can be.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(f"an operator named {name[:80]!r}", "use up to 63 letters, digits, '@', '.', '-' and '_'")
        if role not in ROLES:
            raise ConfigError(f"no role {role!r}", f"one of {', '.join(ROLES)}")
        if not 0 < days <= 3650:
            raise ConfigError(f"a token for {days} days", "use up to 3650")
        number, secret, now = secrets.token_hex(8), secrets.token_hex(32), self.clock()
        row = {"id": number, "name": name, "role": role, "hash": _hash(secret)}
        with writing(self.engine) as connection:
            connection.execute(operators.insert(), {**row, "issued": now, "expires": now + days * 86400})
        return f"duetto_{number}_{secret}"

    def known(self, token: str) -> Operator | None:
        """Whose token this is; None where it is nobody's, or holds no longer."""
        parts = _TOKEN.fullmatch(token)
        number, secret = parts.groups() if parts else ("", "")
        with reading(self.engine) as connection:
            row = connection.execute(operators.select().where(operators.c.id == number)).first()
        # Compared in the same time whatever is there, also where nothing is
        same = hmac.compare_digest(_hash(secret), "" if row is None else row.hash)
        if row is None or not same or row.revoked is not None or row.expires <= self.clock():
            return None
        return _operator(row)

    def holds(self, id: str) -> bool:
        """Whether the token of this id, which was known once, still is."""
        with reading(self.engine) as connection:
            row = connection.execute(operators.select().where(operators.c.id == id)).first()
        return row is not None and row.revoked is None and row.expires > self.clock()

    def revoke(self, name: str) -> int:
        """Take all tokens of a name back; how many.

        Raises:
            DataError: nobody of this name has one.
        """
        own = (operators.c.name == name) & operators.c.revoked.is_(None)
        with writing(self.engine) as connection:
            count = connection.execute(operators.update().where(own).values(revoked=self.clock())).rowcount
        if not count:
            raise DataError(f"no token of {name} to take back", "see the list of operators")
        return count

    def all(self) -> tuple[Operator, ...]:
        """All tokens that were ever given out, by name and time."""
        with reading(self.engine) as connection:
            rows = connection.execute(operators.select().order_by(operators.c.name, operators.c.issued))
            return tuple(_operator(row) for row in rows)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()  # of 256 random bits: no salt is needed


def _operator(row: Any) -> Operator:
    return Operator(row.id, row.name, row.role, row.issued, row.expires, row.revoked)
