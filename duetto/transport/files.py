"""A file that is there wholly or not at all, whenever the process is killed; and one process at a time in a folder."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from duetto.errors import ConfigError


def put(path: Path, data: bytes, *, secret: bool = False) -> None:
    """Write a file: on the disk when this returns, and until then the one before it.

    Args:
        path: of the file; its folder is made.
        data: all of it.
        secret: for its owner alone (mode 0600, from the first byte).

    Raises:
        OSError: the disk is full, or may not be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    settle(path.parent)


def settle(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk, where the system can."""
    with suppress(OSError):  # Windows opens no folders; its names are journalled
        opened = os.open(path, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


@contextmanager
def alone(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """While this lasts no other process is here; a killed one leaves at once.

    Args:
        folder: made if missing.
        wait: for the other to leave.

    Raises:
        ConfigError: another is here, and this one is not to wait.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("wb") as file:
        try:
            import fcntl
        except ImportError:  # Windows: the service that starts a device starts one
            yield
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as fault:
            raise ConfigError(f"another process works in {folder}", "stop it, or give this one its own") from fault
        yield
