"""The tables' one home: SQLite in a file by default, PostgreSQL when grown (``DUETTO_DB=postgresql://...``).

Each file that keeps something defines its own tables on :data:`metadata`; several processes may share a database.
What they read and then write goes in one :func:`writing`, so that no other process comes in between; the tables
themselves are made and brought up to date by :func:`upgraded`, from the steps in ``duetto/cloud/migrations``.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sql
from sqlalchemy.dialects import postgresql, sqlite

from duetto.errors import ConfigError, DataError

metadata = sql.MetaData(
    # Names that do not depend on the database, so that a later step can change what an earlier one made.
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Number = sql.BigInteger().with_variant(sql.Integer(), "sqlite")
"""The type of a key that counts by itself; SQLite counts none but INTEGER."""


def opened(url: str) -> sql.Engine:
    """The engine of a database, such as ``sqlite:///duetto.db`` or ``postgresql://user@host/name``.

    Raises:
        ConfigError: no such kind of database, or its driver is not installed.
    """
    if url.startswith("postgresql://"):
        url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    try:
        engine = sql.create_engine(url, pool_pre_ping=True)
    except (sql.exc.ArgumentError, sql.exc.NoSuchModuleError, ImportError) as fault:
        raise ConfigError(f"no database at {url!r} ({fault})", "use sqlite:///FILE or postgresql://...") from fault
    if engine.dialect.name == "sqlite":
        sql.event.listen(engine, "connect", _careful)
        sql.event.listen(engine, "begin", _begin)
    return engine


def upgraded(engine: sql.Engine) -> sql.Engine:
    """Bring any database, a new one too, to the newest tables; processes that start together wait for one another.

    Raises:
        ConfigError: a newer Duetto has written it.
        DataError: it cannot be reached.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", "duetto.cloud:migrations")
    with writing(engine) as connection:
        alone(connection, "migrations")
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as fault:
            where = engine.url.render_as_string()
            raise ConfigError(f"{where} is not of this Duetto ({fault})", "upgrade this one too") from fault
    return engine


@contextmanager
def writing(engine: sql.Engine) -> Iterator[sql.Connection]:
    """A transaction that will write: on SQLite it waits for its turn before it reads, so that none has to be repeated.

    Raises:
        DataError: the database cannot be reached, or somebody else keeps it busy.
    """
    with _reached(engine), engine.connect() as connection:
        connection = connection.execution_options(duetto_writes=True)
        with connection.begin():
            yield connection


@contextmanager
def reading(engine: sql.Engine) -> Iterator[sql.Connection]:
    """A connection to read with.

    Raises:
        DataError: the database cannot be reached.
    """
    with _reached(engine), engine.connect() as connection:
        yield connection


def alone(connection: sql.Connection, purpose: str) -> None:
    """Until the end of this transaction nobody else is alone for the same purpose; SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(sql.select(sql.func.pg_advisory_xact_lock(zlib.crc32(f"duetto {purpose}".encode()))))


def ignoring(connection: sql.Connection, table: sql.Table) -> Any:
    """An insert which leaves out rows whose key is there."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    return dialect.insert(table).on_conflict_do_nothing()


@contextmanager
def _reached(engine: sql.Engine) -> Iterator[None]:
    try:
        yield
    except sql.exc.OperationalError as fault:
        why = str(fault.orig).strip().replace("\n", " ")
        where = engine.url.render_as_string()
        raise DataError(
            f"the database {where} cannot be used ({why})", "check that it is there, and try again"
        ) from fault


def _careful(connection: Any, record: Any) -> None:
    """Readers beside one writer, who waits for its turn; a commit survives a power cut, foreign keys hold."""
    connection.isolation_level = None  # Python's own transactions begin too late, and not before tables are made
    for pragma in ("busy_timeout=10000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: sql.Connection) -> None:
    writes = connection.get_execution_options().get("duetto_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
