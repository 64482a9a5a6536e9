"""Where a device gets files from: parts of them by range, over HTTP, from a folder, or over the
cloud's own connection. None of it is believed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Protocol

import urllib3

from duetto.errors import ConfigError
from duetto.transport.channel import Lost

_CHUNK = 1 << 18  # bytes
_STALLED = 30.0  # seconds without a byte, after which a stream is given up


class Source(Protocol):
    """Whatever has the files: a server, a folder, or the cloud through the device's own stream."""

    def fetch(self, path: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes of a file from ``start`` on, up to ``length`` of them.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: it cannot be had, or not to its end; then what came before the fault counts.
        """


@dataclass(frozen=True)
class Folder:
    """Files of this machine.

    Attributes:
        path: of the folder.
    """

    path: Path

    def fetch(self, path: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """See :class:`Source`."""
        with (self.path / _inside(path)).open("rb") as file:
            file.seek(start)
            yield from _upto(iter(lambda: file.read(_CHUNK), b""), length)


@dataclass(frozen=True)
class Http:
    """Files of a web server that may honour ranges; where it does not, what is known already is skipped.

    Attributes:
        url: of the folder; ``https://``.
        authority: a file (PEM) of who is believed; the system's by default.
        certificate, key: files (PEM) that are shown, if any.
        seconds: to wait for a connection and between two parts.
        insecure: whether plain ``http://`` will do. Releases are signed; but all can see what is fetched.

    Raises:
        ConfigError: another kind of address.
    """

    url: str
    authority: str | None = None
    certificate: str | None = None
    key: str | None = None
    seconds: float = 30.0
    insecure: bool = False

    def __post_init__(self) -> None:
        if not self.url.startswith(("https://", "http://")):
            raise ConfigError(f"no address of a web server: {self.url!r}", "use https://")
        if self.url.startswith("http://") and not self.insecure:
            raise ConfigError(f"{self.url} is plain text", "use https://, or say that insecure will do")

    def fetch(self, path: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """See :class:`Source`."""
        headers = {"Accept-Encoding": "identity"}
        if start or length is not None:
            headers["Range"] = f"bytes={start}-{'' if length is None else start + length - 1}"
        url = f"{self.url.rstrip('/')}/{_inside(path)}"
        try:
            reply = self._pool.request("GET", url, headers=headers, preload_content=False, redirect=False)
        except urllib3.exceptions.HTTPError as fault:
            raise OSError(f"{url} cannot be reached ({fault})") from fault
        try:
            if reply.status in (403, 404, 410):
                raise FileNotFoundError(f"{url} ({reply.status})")
            if reply.status not in (200, 206):
                raise OSError(f"{url} ({reply.status})")
            told = reply.headers.get("Content-Range", "")
            if reply.status == 206 and not told.startswith(f"bytes {start}-"):
                raise OSError(f"{url} gave another range: {told}")
            chunks = reply.stream(_CHUNK, decode_content=False)
            yield from _upto(_after(chunks, start if reply.status == 200 else 0), length)
        except urllib3.exceptions.HTTPError as fault:
            raise OSError(f"{url} broke off ({fault})") from fault
        finally:
            reply.close()

    @cached_property
    def _pool(self) -> urllib3.PoolManager:
        return urllib3.PoolManager(
            timeout=urllib3.Timeout(self.seconds),
            retries=urllib3.Retry(2, redirect=False, status=0, backoff_factor=0.2, backoff_jitter=0.2),
            ca_certs=self.authority,
            cert_file=self.certificate,
            key_file=self.key,
        )


class Stream:
    """Files over the cloud's own connection, which lives in a loop, for a thread that waits for them.

    Args:
        pieces: of a file, from its path, a start and a length (0: to the end).
        loop: in which they come.
    """

    def __init__(
        self, pieces: Callable[[str, int, int], AsyncIterator[bytes]], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._pieces, self._loop = pieces, loop
        self._coming: Future[bytes | None] | None = None
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Nothing more is fetched, and who waits for a piece is told."""
        self._stopped.set()
        if self._coming is not None:
            self._coming.cancel()

    def fetch(self, path: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """See :class:`Source`."""
        pieces = self._pieces(path, start, length or 0)

        async def following() -> bytes | None:
            return await anext(pieces, None)

        while True:
            if self._stopped.is_set():
                raise ConnectionError("the device ends")
            self._coming = asyncio.run_coroutine_threadsafe(following(), self._loop)
            if self._stopped.is_set():
                self._coming.cancel()
            try:
                piece = self._coming.result(_STALLED)
            except Lost as lost:
                raise (FileNotFoundError if lost.final else ConnectionError)(lost.why) from lost
            except (CancelledError, TimeoutError) as fault:
                self._coming.cancel()
                raise ConnectionError(f"nothing came for {_STALLED:g} s, or the device ends") from fault
            if piece is None:
                return
            yield piece


def _inside(path: str) -> str:
    """A path that stays in its folder."""
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or "\\" in path:
        raise FileNotFoundError(path)
    return path


def _upto(chunks: Iterator[bytes], length: int | None) -> Iterator[bytes]:
    for chunk in chunks:
        if length is not None:
            chunk = chunk[:length]
            length -= len(chunk)
        if chunk:
            yield chunk
        if length == 0:
            return


def _after(chunks: Iterator[bytes], start: int) -> Iterator[bytes]:
    for chunk in chunks:
        if start < len(chunk):
            yield chunk[start:]
        start = max(0, start - len(chunk))
