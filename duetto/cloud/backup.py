"""A copy of a cloud's folder that was right at one moment, made while the cloud runs on.

The database goes first: whatever it names among the blobs is there already, and blobs are only added. A PostgreSQL and
a bucket have back-ups of their own, which are to be taken in the same order.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing, nullcontext
from pathlib import Path

from duetto.errors import ConfigError, DataError
from duetto.transport.files import alone

_FOLDERS = ("authority", "server", "keys", "releases", "blobs")
_PARTS = shutil.ignore_patterns(".part-*", ".lock")


def back_up(folder: Path, target: Path) -> tuple[str, ...]:
    """Copy what is in a cloud's folder; to restore it, copy it back while no process of the cloud runs.

    Args:
        folder: the cloud's.
        target: a folder that is not there yet; it will hold secret keys, for its owner alone (mode 0700).

    Returns:
        What was copied.

    Raises:
        ConfigError: the target is there.
        DataError: there is no cloud in the folder, or its database is damaged.
    """
    if target.exists():
        raise ConfigError(f"{target} is there already", "name a folder that is not")
    if not (folder / "authority" / "authority.pem").exists():
        raise DataError(f"no cloud in {folder}", "name its folder with --state")
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True, mode=0o700)
    copied = []
    if (folder / "duetto.db").exists():
        _database(folder / "duetto.db", part / "duetto.db")
        copied.append("duetto.db")
    for name in _FOLDERS:
        if (folder / name).is_dir():
            with alone(folder / name, wait=True) if name in {"authority", "releases"} else nullcontext():
                shutil.copytree(folder / name, part / name, ignore=_PARTS)
            copied.append(name)
    part.rename(target)
    return tuple(copied)


def _database(source: Path, target: Path) -> None:
    """SQLite's own online back-up: writers go on, and the copy is of one moment."""
    with (
        closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as here,
        closing(sqlite3.connect(target)) as there,
    ):
        here.backup(there)
        (found,) = there.execute("PRAGMA integrity_check").fetchone()
    if found != "ok":
        raise DataError(f"{source} is damaged ({found})", "restore the back-up before this one")
