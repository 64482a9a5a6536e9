"""Where a cloud keeps what it must not lose: one folder, or a database and a bucket that several processes share."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import sqlalchemy as sql

from duetto.cloud.audit import Audit
from duetto.cloud.blobs import Blobs
from duetto.cloud.database import opened, upgraded
from duetto.cloud.enrolment import Enrolment
from duetto.cloud.feedback import Feedback
from duetto.cloud.operators import Operators
from duetto.cloud.registry import Registry
from duetto.cloud.releases import Releases
from duetto.errors import ConfigError
from duetto.transport.files import alone
from duetto.transport.identity import Authority, Credentials

_LOG = logging.getLogger(__name__)
DAYS = 90.0  # that a server's certificate holds


@dataclass(frozen=True)
class Site:
    """A cloud's folder.

    ``authority/`` (who names devices and servers), ``server/`` (this server's key and certificate), ``releases/`` and
    ``keys/`` (signed models, and what signs them), ``duetto.db``, ``blobs/``.

    Attributes:
        folder: of all that.
        database: a URL such as ``postgresql://...``; None is ``$DUETTO_DB``, else SQLite in the folder.
        blobs: a URL such as ``s3://bucket/prefix``; None is ``$DUETTO_BLOBS``, else the folder's.
    """

    folder: Path
    database: str | None = None
    blobs: str | None = None

    def begin(self, names: Sequence[str] = ("localhost", "127.0.0.1")) -> Site:
        """Make whatever is not there yet; ``names`` are those by which devices reach the server."""
        with alone(self.folder, wait=True):
            if not (self.folder / "authority" / "authority.pem").exists():
                Authority.make(self.folder / "authority")
            if not (self.folder / "server" / "certificate.pem").exists():
                self.certify(names)
            if not (self.folder / "releases" / "metadata").exists():
                self.releases.begin()
        return self

    def certify(self, names: Sequence[str], days: float = DAYS) -> Credentials:
        """A new certificate for the server, by the authority of this folder."""
        made = self.authority.server(names, days)
        made.save(self.folder / "server")
        return made

    @property
    def authority(self) -> Authority:
        """Who names devices and servers."""
        return Authority.load(self.folder / "authority")

    @property
    def credentials(self) -> Credentials:
        """The server's. A certificate that does not hold by this machine's clock is told, and shown all the same:
        devices judge it by theirs, and a clock that jumps must not end a service."""
        try:
            return Credentials.load(self.folder / "server")
        except ConfigError as fault:
            held = Credentials.load(self.folder / "server", current=False)
            _LOG.warning("%s", fault)
            return held

    @cached_property
    def engine(self) -> sql.Engine:
        """The database, brought up to date."""
        self.folder.mkdir(parents=True, exist_ok=True)
        url = self.database or os.environ.get("DUETTO_DB") or f"sqlite:///{self.folder / 'duetto.db'}"
        return upgraded(opened(url))

    @cached_property
    def enrolment(self) -> Enrolment:
        """Who may come."""
        return Enrolment(self.engine, self.authority)

    @cached_property
    def operators(self) -> Operators:
        """Who may look at this cloud, and who may act on it."""
        return Operators(self.engine)

    @cached_property
    def audit(self) -> Audit:
        """Who did what."""
        return Audit(self.engine)

    @cached_property
    def feedback(self) -> Feedback:
        """What devices have sent."""
        return Feedback(self.engine)

    @cached_property
    def registry(self) -> Registry:
        """The models that there are."""
        where = self.blobs or os.environ.get("DUETTO_BLOBS") or str(self.folder / "blobs")
        return Registry(self.engine, Blobs(where))

    @property
    def releases(self) -> Releases:
        """The signed models that devices fetch."""
        return Releases(self.folder / "releases", self.folder / "keys")

    def file(self, path: str) -> Path:
        """A file of the releases, by its path.

        Raises:
            ConfigError: there is none, or the path leads elsewhere.
        """
        root = (self.folder / "releases").resolve()
        found = (root / path).resolve()
        if not found.is_relative_to(root) or not found.is_file() or not path.startswith(("metadata/", "blobs/")):
            raise ConfigError(f"no file {path[:100]!r}", "ask for what the releases name")
        return found
