"""Where the data sets come from, and where they are found: the user's folder, else the cache of downloads.

A file is downloaded to ``<file>.part``, taken up again where it broke off, checked, and only then renamed, so
nothing half or altered is ever read. Where the publisher states no digest, the sha256 of the first download is
kept in ``<cache>/SHA256SUMS`` (the form of ``sha256sum -c``) and holds from then on.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from duetto.errors import ConfigError, DataError
from duetto.folders import default_cache

Progress: TypeAlias = Callable[[str, int, int | None], None]
"""Called with a file's name, the bytes there, and the bytes in all (None where the server does not say)."""

_SECONDS = 30.0  # without a byte, until a connection is given up


@dataclass(frozen=True)
class Source:
    """One file that its publisher offers.

    Attributes:
        url: where.
        file: its name here.
        digest: ``"md5:..."`` or ``"sha256:..."`` as published; None where nothing is.
    """

    url: str
    file: str
    digest: str | None = None


@dataclass(frozen=True)
class Layout:
    """A folder in which a set may lie, and patterns (without ``.gz``) that each match a file of a whole one."""

    folder: str
    holds: tuple[str, ...]

    def fits(self, folder: Path) -> bool:
        """Whether ``folder`` holds the set."""
        return all(any(True for end in ("", ".gz") for _ in folder.glob(pattern + end)) for pattern in self.holds)


@dataclass(frozen=True)
class Set:
    """A data set: its layouts, preferred first, and the sources that make the last of them.

    Attributes:
        layouts: as :func:`locate` looks for them.
        sources: the files of the last layout's folder, or ``.tar.gz`` that unpack to it; none where the set cannot
            be fetched by a program.
        page: where a person finds it, if there are no sources.
    """

    layouts: tuple[Layout, ...]
    sources: tuple[Source, ...] = ()
    page: str = ""


_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_QMNIST = "https://raw.githubusercontent.com/facebookresearch/qmnist/master/"
_HANDWRITING = (  # digests as in torchvision.datasets.MNIST and QMNIST
    (_MNIST, "train-images-idx3-ubyte", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
    (_MNIST, "train-labels-idx1-ubyte", "d53e105ee54ea40749a09fcbcd1e9432"),
    (_MNIST, "t10k-images-idx3-ubyte", "9fb629c4189551a2d022fa330f9573f3"),
    (_MNIST, "t10k-labels-idx1-ubyte", "ec29112dd5afa0611ce80d1b7f02629c"),
    (_QMNIST, "qmnist-train-labels-idx2-int", "0058f8dd561b90ffdd0f734c6a30e5e4"),
    (_QMNIST, "qmnist-test-labels-idx2-int", "5b5b05890a5e13444e108efe57b788aa"),
)
_CIFAR = ("data_batch_*.bin", "test_batch.bin", "batches.meta.txt")

SETS: dict[str, Set] = {
    "handwriting": Set(
        (
            Layout("mnist_by_writer", ("t*/*.json",)),
            Layout("mnist", (*(stem for _, stem, _ in _HANDWRITING[:5]), "qmnist-t[1e]*-labels-idx2-int")),
        ),
        tuple(Source(f"{base}{stem}.gz", f"{stem}.gz", f"md5:{md5}") for base, stem, md5 in _HANDWRITING),
    ),
    "activity": Set(
        (Layout("wisdm_ar_v1.1", ("*_transformed.arff",)),),
        (
            Source(
                "https://www.cis.fordham.edu/wisdm/includes/datasets/latest/WISDM_ar_latest.tar.gz",
                "WISDM_ar_latest.tar.gz",
            ),
        ),
    ),
    "cifar": Set(
        (
            Layout("cifar10_subset", tuple(f"cifar-10-batches-bin/{file}" for file in _CIFAR)),
            Layout("cifar-10-batches-bin", _CIFAR),
        ),
        (
            Source(  # digest as on the publisher's page
                "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                "cifar-10-binary.tar.gz",
                "md5:c32a1d4ab5d03f1284b67883e8d87530",
            ),
        ),
    ),
    "ratings": Set(
        (Layout("ml-100k", ("u.data", "u.item")), Layout("ml-1m", ("ratings.dat", "movies.dat"))),
        page="https://grouplens.org/datasets/movielens",
    ),
    "shakespeare": Set((Layout("shakespeare", ("by_role.jsonl",)),), page="http://shakespeare.mit.edu"),
    "tweets": Set(
        (Layout("airline_sentiment", ("Tweets.csv",)),),
        page="https://www.kaggle.com/datasets/crowdflower/twitter-airline-sentiment",
    ),
    "sensors": Set(
        (Layout("har_spsw", ("DATA/s*/*.csv",)),),
        (
            Source(  # a commit, not a branch, so that the files cannot change under us
                "https://github.com/GeoTecINIT/sp-sw-har-dataset/archive/673a2cc426707706c8a2578951b6b61b88777d78.tar.gz",
                "sp-sw-har-dataset.tar.gz",
            ),
        ),
    ),
}


def locate(name: str, cache: Path | None = None) -> Path | None:
    """The folder that holds a set: in ``$DUETTO_DATA``, else in the cache, else None. Nothing is fetched.

    The folder's name says how to read it: ``mnist`` with :func:`duetto.tasks.idx.by_writer`, ``mnist_by_writer``
    with :mod:`duetto.tasks.leaf`, ``wisdm_ar_v1.1`` with :mod:`duetto.tasks.arff`, ``har_spsw`` with
    :mod:`duetto.tasks.sensors`, ``cifar10_subset`` and ``cifar-10-batches-bin`` with :mod:`duetto.tasks.cifar_bin`,
    ``ml-100k`` and ``ml-1m`` with :mod:`duetto.tasks.ratings`, ``shakespeare`` with :mod:`duetto.tasks.shakespeare`,
    ``airline_sentiment`` with :mod:`duetto.tasks.tweets`.

    Raises:
        ConfigError: no such set, or ``$DUETTO_DATA`` is no folder.
    """
    wanted = _set(name)
    roots = [cache or default_cache()]
    if named := os.environ.get("DUETTO_DATA"):
        if not Path(named).is_dir():
            raise ConfigError(f"DUETTO_DATA is {named!r}, which is no folder", "name the folder that holds the sets")
        roots.insert(0, Path(named))
    found = (root / layout.folder for root in roots for layout in wanted.layouts if layout.fits(root / layout.folder))
    return next(found, None)


def get(name: str, cache: Path | None = None, progress: Progress | None = None) -> Path:
    """The folder of a set in the cache, downloaded from its publishers where it is not there yet.

    Args:
        name: of :data:`SETS`.
        cache: None for :func:`default_cache`.
        progress: told as bytes come.

    Raises:
        ConfigError: no such set, or httpx is not installed.
        DataError: offline, refused, cut off, altered on the way, or no room; what is whole stays for the next time.
    """
    wanted = _set(name)
    cache = cache or default_cache()
    layout = wanted.layouts[-1]
    if not wanted.sources:
        raise ConfigError(f"{name} cannot be fetched", by_hand(name))
    folder = cache / layout.folder
    sums = cache / "SHA256SUMS"
    try:
        if layout.fits(folder):
            return folder
        for source in wanted.sources:
            if source.file.endswith(".tar.gz"):
                path = fetch(source, cache, sums, progress)
                _unpack(path, folder, layout)
            else:
                path = fetch(source, folder, sums, progress)
            if source.digest is None:  # only now, so that a page which is no archive is never what is expected
                _record(sums, path)
    except OSError as fault:
        raise DataError(f"cannot keep {name} in {cache}: {fault}", "set DUETTO_CACHE to a folder with room") from fault
    return folder


def by_hand(name: str) -> str:
    """What to do about a set that no program can fetch."""
    folders = " or ".join(layout.folder for layout in SETS[name].layouts)
    return f"get it from {SETS[name].page} and set DUETTO_DATA to the folder that holds {folders}"


def fetch(source: Source, folder: Path, sums: Path, progress: Progress | None = None) -> Path:
    """Download one file into ``folder``, unless it is there; either way it has its digest when this returns.

    Args:
        source: what.
        folder: made where needed.
        sums: the SHA256SUMS for files without a published digest; it lies in ``folder`` or above.
        progress: told as bytes come.

    Raises:
        ConfigError: httpx is not installed.
        DataError: as :func:`get`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / source.file
    expected = source.digest or _recorded(sums).get(path.relative_to(sums.parent).as_posix())
    if path.exists():
        if expected is not None and _digest(path, expected) != expected:
            raise DataError(f"{path} is not what was downloaded", "delete this file and run again")
        return path
    part = _download(source, path, progress)
    if expected is not None and _digest(part, expected) != expected:
        part.unlink()
        if source.digest is None:
            raise DataError(
                f"{source.url} gave other bytes than the first time",
                f"run again, or delete its line in {sums} if the publisher has changed the file",
            )
        raise DataError(f"{source.url} gave bytes without the published digest {source.digest}", "run again")
    os.replace(part, path)
    return path


def _download(source: Source, path: Path, progress: Progress | None) -> Path:
    try:
        import httpx  # here, so that looking for data that is there needs no network library
    except ImportError as fault:
        raise ConfigError("downloading needs httpx", "pip install 'duetto[data]'") from fault

    part = path.with_name(path.name + ".part")
    tag = path.with_name(path.name + ".etag")  # of the version that the part is a part of
    start = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"}  # the file's own bytes, also where it is gzip
    if start and tag.exists():
        headers |= {"Range": f"bytes={start}-", "If-Range": tag.read_text()}
    elif start and source.digest is not None:  # which will tell whether the pieces belong together
        headers |= {"Range": f"bytes={start}-"}
    try:
        with httpx.stream("GET", source.url, headers=headers, follow_redirects=True, timeout=_SECONDS) as response:
            if response.status_code == 416 and start:  # nothing follows the part: begin again
                part.unlink()
                return _download(source, path, progress)
            response.raise_for_status()
            start = start if response.status_code == 206 else 0  # 200: the whole file, whatever was asked for
            etag = response.headers.get("etag", "")
            if etag.startswith('"'):  # a weak one does not promise the same bytes
                tag.write_text(etag)
            else:
                tag.unlink(missing_ok=True)
            length = response.headers.get("content-length")
            total = start + int(length) if length else None
            with part.open("ab" if start else "wb") as file:
                for chunk in response.iter_raw():
                    file.write(chunk)
                    if progress is not None:
                        progress(source.file, file.tell(), total)
    except httpx.HTTPError as fault:
        status = isinstance(fault, httpx.HTTPStatusError) and f"HTTP {fault.response.status_code}"
        why = status or str(fault) or type(fault).__name__
        folders = {layout.folder for known in SETS.values() if source in known.sources for layout in known.layouts}
        raise DataError(
            f"could not download {source.url}: {why}",
            f"set DUETTO_DATA to a folder which holds {' or '.join(sorted(folders)) or source.file}, or run again "
            "when online (what was downloaded is kept)",
        ) from fault
    tag.unlink(missing_ok=True)
    return part


def _unpack(archive: Path, folder: Path, layout: Layout) -> None:
    """Unpack beside ``folder`` and move it there as a whole; the archive's one top folder, if any, is dropped."""
    if folder.exists():
        raise DataError(f"{folder} is there but does not hold the whole set", "delete this folder and run again")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpacking-") as scratch:
        root = Path(scratch) / layout.folder
        try:
            with tarfile.open(archive, "r:gz") as tar:
                tar.extractall(root, filter="data")  # refuses what would land outside, and devices
        except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as fault:
            archive.unlink()
            raise DataError(f"{archive.name} cannot be unpacked: {fault}", "run again (it was deleted)") from fault
        inside = [*root.iterdir()]
        if len(inside) == 1 and inside[0].is_dir():
            root = inside[0]
        if not layout.fits(root):
            archive.unlink()
            raise DataError(f"{archive.name} does not hold {' and '.join(layout.holds)}", "run again (it was deleted)")
        os.replace(root, folder)


def _digest(path: Path, like: str) -> str:
    """The file's digest with the algorithm that ``like`` names, in the same form."""
    algorithm = like.partition(":")[0]
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def _recorded(sums: Path) -> dict[str, str]:
    lines = sums.read_text().splitlines() if sums.exists() else []
    return {name: f"sha256:{digest}" for digest, _, name in (line.partition("  ") for line in lines)}


def _record(sums: Path, path: Path) -> None:
    known = _recorded(sums) | {path.relative_to(sums.parent).as_posix(): _digest(path, "sha256")}
    fresh = sums.with_name(sums.name + ".part")
    fresh.write_text("".join(f"{digest.partition(':')[2]}  {name}\n" for name, digest in sorted(known.items())))
    os.replace(fresh, sums)


def _set(name: str) -> Set:
    if name not in SETS:
        raise ConfigError(f"no data set {name!r}", f"choose one of {', '.join(SETS)}")
    return SETS[name]
