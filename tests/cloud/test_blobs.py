"""Blobs come out as they went in, by their hash, from a folder, a bucket or memory; damage and absence are told."""

import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from duetto.cloud.blobs import Blobs
from duetto.errors import ConfigError, DataError

BIG = bytes(range(256)) * 5000  # more than one part


@pytest.fixture(params=["folder", "bucket", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    if request.param == "bucket":
        return Blobs(f"{request.getfixturevalue('bucket')}/models")
    return Blobs(str(tmp_path / "blobs") if request.param == "folder" else f"memory://{tmp_path.name}")


def name(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_they_come_out_as_they_went_in_under_their_hash(blobs: Blobs) -> None:
    for content in (b"", b"x", BIG):
        assert not blobs.has(name(content))
        assert blobs.put(content) == name(content)
        assert blobs.has(name(content))
        assert blobs.size(name(content)) == len(content)
        assert blobs.get(name(content)) == content
        assert b"".join(blobs.parts(name(content), part_bytes=200_000)) == content
    assert blobs.put(io.BytesIO(BIG)) == blobs.put(BIG[i : i + 999] for i in range(0, len(BIG), 999)) == name(BIG)


def test_a_range_is_what_it_says_and_a_stopped_download_goes_on(blobs: Blobs) -> None:
    digest = blobs.put(BIG)
    assert blobs.get(digest, 10, 20) == BIG[10:20]
    assert blobs.get(digest, 1_000_000) == BIG[1_000_000:]
    assert blobs.get(digest, 5, 10**9) == BIG[5:]
    assert blobs.get(digest, len(BIG)) == blobs.get(digest, 7, 7) == b""
    here = bytearray()
    for part in blobs.parts(digest, part_bytes=300_000):
        here += part
        if len(here) > 500_000:
            break
    for part in blobs.parts(digest, start=len(here), part_bytes=300_000):
        here += part
    assert bytes(here) == BIG
    assert list(blobs.parts(digest, start=len(BIG))) == []
    for start, stop in ((len(BIG) + 1, None), (-1, None), (5, 4)):
        with pytest.raises(DataError, match=f"it has {len(BIG)}"):
            blobs.get(digest, start, stop)
    with pytest.raises(DataError, match="it has"):
        list(blobs.parts(digest, start=len(BIG) + 1))


def test_what_is_not_there_or_no_name_is_told(blobs: Blobs) -> None:
    for use in (
        blobs.get,
        blobs.size,
        lambda digest: blobs.get(digest, 1, 2),
        lambda digest: list(blobs.parts(digest)),
    ):
        with pytest.raises(DataError, match=f"no blob {name(b'never')}"):
            use(name(b"never"))
        for wrong in ("", "abc", name(b"x").upper(), "../" + name(b"x"), name(b"x") + "\n"):
            with pytest.raises(DataError, match="64 hexadecimal digits"):
                use(wrong)


def test_damage_is_noticed_before_the_last_part_and_mended_by_putting_it_again(blobs: Blobs) -> None:
    digest = blobs.put(BIG)
    disk, root = blobs._place
    damaged = bytearray(BIG)
    damaged[1234] ^= 1
    disk.pipe_file(f"{root}/{digest[:2]}/{digest}", bytes(damaged))
    with pytest.raises(DataError, match="it is damaged"):
        blobs.get(digest)

    def read() -> Iterator[bytes]:
        yield from blobs.parts(digest, part_bytes=500_000)

    parts = read()
    got = [next(parts), next(parts)]
    with pytest.raises(DataError, match="it is damaged"):
        next(parts)
    assert sum(map(len, got)) < len(BIG)
    disk.pipe_file(f"{root}/{digest[:2]}/{digest}", BIG[:100])
    assert blobs.put(BIG) == digest
    assert blobs.get(digest) == BIG


def test_what_is_there_is_not_written_again(tmp_path: Path) -> None:
    blobs = Blobs(str(tmp_path))
    digest = blobs.put(BIG)
    path = tmp_path / digest[:2] / digest
    before = path.stat()
    blobs.put(BIG)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert sorted(os.listdir(tmp_path)) == [digest[:2]], "nothing is left over"


def test_a_source_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"some"
        raise RuntimeError("the line was cut")

    with pytest.raises(RuntimeError, match="the line was cut"):
        Blobs(str(tmp_path / "blobs")).put(broken())
    assert os.listdir(tmp_path / "blobs") == []


PUT = """
import hashlib, sys
from duetto.cloud.blobs import Blobs
blobs = Blobs(sys.argv[1])
for i in range(30):
    content = b"%d" % i * 50000
    assert blobs.get(blobs.put(content)) == content
"""


def test_processes_that_put_the_same_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    run = [sys.executable, "-c", PUT, str(tmp_path / "blobs")]
    for process in [subprocess.Popen(run, stderr=subprocess.PIPE, text=True) for _ in range(3)]:
        assert (process.communicate(timeout=60)[1], process.returncode) == ("", 0)
    assert sum(1 for path in (tmp_path / "blobs").rglob("*") if path.is_file()) == 30


def test_a_store_out_of_reach_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="use a folder or s3://bucket"):
        Blobs("no-such-kind://x")
    (tmp_path / "file").write_bytes(b"in the way")
    with pytest.raises(DataError, match="cannot be reached"):
        Blobs(str(tmp_path / "file")).put(b"x")


def test_a_bucket_that_is_not_there_is_told_in_one_line(bucket: str) -> None:
    missing = Blobs(f"{bucket}-not")
    with pytest.raises(DataError) as caught:
        missing.put(b"x")
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="no blob"):
        missing.get(name(b"x"))
