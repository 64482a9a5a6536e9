"""Large things by the hash of their bytes: models, releases. A folder by default, a bucket (``s3://...``) when grown.

A blob is named by the SHA-256 of its bytes, so it is never changed, comes out as it went in or not at all, and is
there once however often it is put. ``<root>/ab/abcd...`` holds the blob ``abcd...``.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from duetto.errors import ConfigError, DataError
from duetto.transport.files import settle

CHUNK_BYTES = 1 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TOLD = ("botocore", "aiohttp", "aiobotocore")  # whose exceptions mean that the store does not answer


@dataclass(frozen=True)
class Blobs:
    """A store of blobs; processes may share it.

    Attributes:
        url: a folder, or what fsspec knows: ``s3://bucket/prefix``, ``memory://name``.
        options: of that file system; keys and addresses of S3 are better set in the environment (``AWS_...``).

    Raises:
        ConfigError: fsspec does not know it, or lacks its driver.
    """

    url: str
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        _ = self._place

    def put(self, source: bytes | IO[bytes] | Iterable[bytes]) -> str:
        """Keep what these bytes, this open file or these parts hold; its SHA-256 in hexadecimal.

        It is there whole when this returns, and not at all before; what is there is not written again.

        Raises:
            DataError: the store cannot be reached or written.
        """
        disk, root = self._place
        here = _local(disk, root)
        with self._reached():
            if here is not None:
                here.mkdir(parents=True, exist_ok=True)
            # Written beside its place, so that moving it there is one step; for a bucket only to know its name first.
            with tempfile.NamedTemporaryFile(dir=here, prefix=".part-", delete=False) as part:
                try:
                    digest, size = _copied(source, part)
                    target = self._at(digest)
                    if not self._whole(target, size):
                        if here is None:
                            part.flush()
                            disk.put_file(part.name, target)
                        else:
                            _move(part, Path(target))
                finally:
                    part.close()
                    Path(part.name).unlink(missing_ok=True)
        return digest

    def has(self, digest: str) -> bool:
        """Whether it is there.

        Raises:
            DataError: no name of a blob, or the store cannot be reached.
        """
        with self._reached():
            return bool(self._place[0].exists(self._at(digest)))

    def size(self, digest: str) -> int:
        """Its bytes.

        Raises:
            DataError: it is not there, is no name of a blob, or the store cannot be reached.
        """
        with self._reached(digest):
            return int(self._place[0].size(self._at(digest)))

    def get(self, digest: str, start: int = 0, stop: int | None = None) -> bytes:
        """All of it, verified; or the bytes from ``start`` to before ``stop``, which whoever joins them must verify.

        Raises:
            DataError: it is not there, not what its name says, or ``start`` lies behind its end.
        """
        if start == 0 and stop is None:
            return b"".join(self.parts(digest))
        size = self.size(digest)
        stop = size if stop is None else min(stop, size)
        if not 0 <= start <= stop:
            raise DataError(f"bytes {start} to {stop} of blob {digest}", f"it has {size}")
        with self._reached(digest):
            found = self._place[0].cat_file(self._at(digest), start=start, end=stop) if start < stop else b""
        if len(found) != stop - start:
            raise DataError(f"blob {digest} gave {len(found)} of {stop - start} bytes", "try again")
        return bytes(found)

    def parts(self, digest: str, start: int = 0, part_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        """Its bytes from ``start`` on, part by part; read from 0 they are verified, and the last part comes only then.

        Raises:
            DataError: it is not there, not what its name says, or ``start`` lies behind its end.
        """
        whole, held = hashlib.sha256(), b""
        size = self.size(digest)
        if not 0 <= start <= size:
            raise DataError(f"bytes from {start} of blob {digest}", f"it has {size}")
        with self._reached(digest), self._place[0].open(self._at(digest), "rb", cache_type="none") as file:
            file.seek(start)
            while part := file.read(part_bytes):
                if held:
                    yield held
                whole.update(part)
                held = bytes(part)
        if start == 0 and whole.hexdigest() != digest:
            raise DataError(f"blob {digest} holds {whole.hexdigest()}: it is damaged", "put it again from its source")
        if held:
            yield held

    @cached_property
    def _place(self) -> tuple[Any, str]:
        """The file system, and the root in it."""
        from fsspec.core import url_to_fs

        try:
            disk, root = url_to_fs(self.url, **{"use_listings_cache": False, **self.options})
        except (ImportError, ValueError) as fault:
            remedy = "use a folder or s3://bucket (pip install 'duetto[s3]')"
            raise ConfigError(f"no blobs at {self.url!r} ({fault})", remedy) from fault
        return disk, root.rstrip("/")

    def _at(self, digest: str) -> str:
        if not _DIGEST.fullmatch(digest):
            raise DataError(f"a blob named {digest!r}", "name it by its SHA-256, 64 hexadecimal digits")
        return f"{self._place[1]}/{digest[:2]}/{digest}"

    def _whole(self, target: str, size: int) -> bool:
        """Whether it is there; a size that differs shows damage, which is mended by writing it again."""
        disk = self._place[0]
        return bool(disk.exists(target)) and int(disk.size(target)) == size

    @contextmanager
    def _reached(self, digest: str = "") -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as fault:
            raise DataError(f"no blob {digest} in {self.url}", "put it there first") from fault
        except Exception as fault:
            if not isinstance(fault, OSError) and type(fault).__module__.partition(".")[0] not in _TOLD:
                raise
            why = str(fault).replace("\n", " ")
            raise DataError(f"the blobs in {self.url} cannot be reached ({why})", "check it, and try again") from fault


def _local(disk: Any, root: str) -> Path | None:
    protocols = disk.protocol if isinstance(disk.protocol, tuple) else (disk.protocol,)
    return Path(root) if "file" in protocols else None


def _copied(source: bytes | IO[bytes] | Iterable[bytes], part: IO[bytes]) -> tuple[str, int]:
    """Write it, and its digest and size."""
    whole, size = hashlib.sha256(), 0
    for piece in _pieces(source):
        whole.update(piece)
        size += part.write(piece)
    return whole.hexdigest(), size


def _pieces(source: bytes | IO[bytes] | Iterable[bytes]) -> Iterable[bytes]:
    if isinstance(source, bytes):
        return (source,)
    if hasattr(source, "read"):
        read = source.read
        return iter(lambda: read(CHUNK_BYTES), b"")
    return source


def _move(part: Any, target: Path) -> None:
    """To its place, for good: what is there after a power cut is whole."""
    part.flush()
    os.fsync(part.fileno())
    part.close()
    new = not target.parent.exists()
    target.parent.mkdir(exist_ok=True)
    shutil.move(part.name, target) if os.name == "nt" else os.replace(part.name, target)
    for folder in (target.parent, target.parent.parent)[: 2 if new else 1]:
        settle(folder)
