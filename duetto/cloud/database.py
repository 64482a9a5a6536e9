"""The tables' one home: SQLite in a file by default, PostgreSQL when grown (``DUETTO_DB=postgresql://...``).

Each file that keeps something defines its own tables on :data:`metadata`; several processes may share a database.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sql

from duetto.errors import ConfigError

metadata = sql.MetaData()


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
    return engine


def _careful(connection: Any, record: Any) -> None:
    """Readers beside one writer, who waits for its turn; a commit survives the process, foreign keys hold."""
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
