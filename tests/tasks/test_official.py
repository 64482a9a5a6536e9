"""Downloads, against a server on this machine that cuts, changes, refuses and lies."""

import gzip
import hashlib
import io
import re
import socket
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from duetto.errors import ConfigError, DataError
from duetto.tasks import official
from duetto.tasks.official import Layout, Set, Source

BYTES = bytes(range(256)) * 4000
OTHER = BYTES[::-1]


class Publisher:
    """What the server offers, how it behaves, and what it was asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cut: int | None = None  # close the connection after so many bytes
        self.ranges = True
        self.etags = False
        self.missing = 404  # what it says of a file that it does not have
        self.headers: dict[str, str] = {}
        self.asked: list[tuple[str, str | None]] = []  # path, Range
        self.encodings: set[str | None] = set()  # every Accept-Encoding
        self.url = ""


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    state = Publisher()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            wanted = self.headers["Range"]
            state.asked.append((self.path, wanted))
            state.encodings.add(self.headers["Accept-Encoding"])
            if self.path not in state.files:
                return self.send_error(state.missing)
            body, start = state.files[self.path], 0
            etag = f'"{hashlib.sha1(body).hexdigest()}"'
            current = self.headers["If-Range"] in (None, etag)
            if wanted and state.ranges and current:
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                if start >= len(body):
                    return self.send_error(416)
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            else:
                self.send_response(200)
            if state.etags:
                self.send_header("ETag", etag)
            for name, value in state.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            stop = len(body) if state.cut is None else start + state.cut
            self.wfile.write(body[start:stop])
            self.close_connection = state.cut is not None
            return None

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}/"
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("DUETTO_DATA", raising=False)
    return tmp_path / "cache"


def md5(data: bytes) -> str:
    return f"md5:{hashlib.md5(data).hexdigest()}"


def offered(monkeypatch: pytest.MonkeyPatch, publisher: Publisher, digest: str | None, file: str = "big.bin") -> None:
    """Make "handwriting" one file of that publisher."""
    source = Source(publisher.url + file, file, digest)
    holds = ("whole.txt",) if file.endswith(".tar.gz") else (file,)
    monkeypatch.setitem(official.SETS, "handwriting", Set((Layout("digits", holds),), (source,)))
    publisher.files.setdefault(f"/{file}", BYTES)


def kept(cache: Path) -> dict[str, bytes]:
    return {path.relative_to(cache).as_posix(): path.read_bytes() for path in cache.rglob("*") if path.is_file()}


def cut_once(publisher: Publisher, cache: Path) -> None:
    publisher.cut = 300_000
    with pytest.raises(DataError, match=r"could not download .*big\.bin") as caught:
        official.get("handwriting", cache)
    assert "DUETTO_DATA" in caught.value.remedy
    assert "digits" in caught.value.remedy
    assert kept(cache)["digits/big.bin.part"] == BYTES[:300_000]
    assert official.locate("handwriting", cache) is None
    publisher.cut = None


def test_all_files_come_and_come_once(monkeypatch: pytest.MonkeyPatch, publisher: Publisher, cache: Path) -> None:
    publisher.files = {"/a.gz": BYTES, "/b": OTHER}
    sources = (
        Source(publisher.url + "a.gz", "a.gz", md5(BYTES)),
        Source(publisher.url + "b", "b", f"sha256:{hashlib.sha256(OTHER).hexdigest()}"),
    )
    monkeypatch.setitem(official.SETS, "handwriting", Set((Layout("digits", ("a", "b")),), sources))
    told: list[tuple[str, int, int | None]] = []
    folder = official.get("handwriting", cache, lambda *step: told.append(step))
    assert folder == cache / "digits" == official.locate("handwriting", cache)
    assert kept(cache) == {"digits/a.gz": BYTES, "digits/b": OTHER}
    for name in ("a.gz", "b"):
        done = [bytes_ for file, bytes_, _ in told if file == name]
        assert done == sorted(done)
        assert (done[-1], {total for file, _, total in told if file == name}) == (len(BYTES), {len(BYTES)})
    assert official.get("handwriting", cache) == folder
    assert len(publisher.asked) == 2


@pytest.mark.parametrize("status", [403, 404, 416, 503])
def test_only_what_is_missing_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, publisher: Publisher, cache: Path, status: int
) -> None:
    publisher.files, publisher.missing = {"/a": BYTES}, status
    sources = tuple(Source(publisher.url + name, name, md5(BYTES)) for name in "ab")
    monkeypatch.setitem(official.SETS, "handwriting", Set((Layout("digits", ("a", "b")),), sources))
    with pytest.raises(DataError, match=f"HTTP {status}"):
        official.get("handwriting", cache)
    publisher.files["/b"] = BYTES
    official.get("handwriting", cache)
    assert [path for path, _ in publisher.asked] == ["/a", "/b", "/b"]


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("etags", [True, False])
def test_a_broken_download_goes_on(
    monkeypatch: pytest.MonkeyPatch, publisher: Publisher, cache: Path, ranges: bool, etags: bool
) -> None:
    publisher.ranges, publisher.etags = ranges, etags
    offered(monkeypatch, publisher, md5(BYTES))
    cut_once(publisher, cache)
    told: list[int] = []
    official.get("handwriting", cache, lambda _, done, total: told.append(done))
    assert kept(cache) == {"digits/big.bin": BYTES}
    assert publisher.asked == [("/big.bin", None), ("/big.bin", "bytes=300000-")]
    assert (told[0] > 300_000) == ranges


def test_a_file_changed_between_two_parts_is_noticed(
    monkeypatch: pytest.MonkeyPatch, publisher: Publisher, cache: Path
) -> None:
    offered(monkeypatch, publisher, md5(BYTES))
    cut_once(publisher, cache)
    publisher.files["/big.bin"] = OTHER
    with pytest.raises(DataError, match="without the published digest md5:"):
        official.get("handwriting", cache)
    assert kept(cache) == {}
    publisher.files["/big.bin"] = BYTES
    official.get("handwriting", cache)
    assert kept(cache) == {"digits/big.bin": BYTES}


def test_without_a_digest_a_tag_tells_whether_parts_belong_together(
    monkeypatch: pytest.MonkeyPatch, publisher: Publisher, cache: Path
) -> None:
    publisher.etags = True
    offered(monkeypatch, publisher, None)
    cut_once(publisher, cache)
    publisher.files["/big.bin"] = OTHER
    official.get("handwriting", cache)
    assert publisher.asked[1] == ("/big.bin", "bytes=300000-")
    assert kept(cache)["digits/big.bin"] == OTHER


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"weak"'}], ids=["none", "weak"])
def test_without_digest_and_tag_a_download_begins_again(
    monkeypatch: pytest.MonkeyPatch, publisher: Publisher, cache: Path, headers: dict[str, str]
) -> None:
    publisher.headers = headers
    offered(monkeypatch, publisher, None)
    cut_once(publisher, cache)
    publisher.files["/big.bin"] = OTHER
    official.get("handwriting", cache)
    assert publisher.asked[1] == ("/big.bin", None)
    assert kept(cache)["digits/big.bin"] == OTHER


@pytest.mark.parametrize("part", [BYTES, BYTES + b"too long"])
def test_a_part_after_which_nothing_follows_begins_again(
    monkeypatch: pytest.MonkeyPatch, publisher: Publisher, cache: Path, part: bytes
) -> None:
    offered(monkeypatch, publisher, md5(BYTES))
    (cache / "digits").mkdir(parents=True)
    (cache / "digits" / "big.bin.part").write_bytes(part)
    official.get("handwriting", cache)
    assert kept(cache) == {"digits/big.bin": BYTES}
    assert [wanted for _, wanted in publisher.asked] == [f"bytes={len(part)}-", None]


def test_a_server_that_refuses(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    with socket.socket() as taken:  # bound but not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        publisher = Publisher()
        publisher.url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        offered(monkeypatch, publisher, md5(BYTES))
        with pytest.raises(DataError, match="could not download") as caught:
            official.get("handwriting", cache)
    assert "DUETTO_DATA" in caught.value.remedy
    assert kept(cache) == {}


def test_gzip_is_kept_as_it_is_even_if_the_server_calls_it_an_encoding(
    monkeypatch: pytest.MonkeyPatch, publisher: Publisher, cache: Path
) -> None:
    packed = gzip.compress(b"hello")
    publisher.files["/a.gz"] = packed
    publisher.headers["Content-Encoding"] = "gzip"
    offered(monkeypatch, publisher, md5(packed), "a.gz")
    official.get("handwriting", cache)
    assert kept(cache) == {"digits/a.gz": packed}
    assert publisher.encodings == {"identity"}


def test_the_first_digest_holds_from_then_on(
    monkeypatch: pytest.MonkeyPatch, publisher: Publisher, cache: Path
) -> None:
    offered(monkeypatch, publisher, None)
    folder = official.get("handwriting", cache)
    sums = cache / "SHA256SUMS"
    assert sums.read_text() == f"{hashlib.sha256(BYTES).hexdigest()}  digits/big.bin\n"
    (folder / "big.bin").unlink()
    publisher.files["/big.bin"] = OTHER
    with pytest.raises(DataError, match="other bytes than the first time") as caught:
        official.get("handwriting", cache)
    assert str(sums) in caught.value.remedy
    assert list(kept(cache)) == ["SHA256SUMS"]
    sums.write_text("0" * 64 + "  another/file\n")
    official.get("handwriting", cache)
    assert sums.read_text().splitlines() == [
        "0" * 64 + "  another/file",
        f"{hashlib.sha256(OTHER).hexdigest()}  digits/big.bin",
    ]


def test_a_file_altered_in_the_cache_is_noticed(
    monkeypatch: pytest.MonkeyPatch, publisher: Publisher, cache: Path
) -> None:
    source = Source(publisher.url + "big.bin", "big.bin", md5(BYTES))
    publisher.files["/big.bin"] = BYTES
    path = official.fetch(source, cache, cache / "SHA256SUMS")
    assert official.fetch(source, cache, cache / "SHA256SUMS") == path
    assert len(publisher.asked) == 1
    path.write_bytes(OTHER)
    with pytest.raises(DataError, match="is not what was downloaded") as caught:
        official.fetch(source, cache, cache / "SHA256SUMS")
    assert "delete this file" in caught.value.remedy


def tar_gz(members: dict[str, bytes], link: str | None = None) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        if link is not None:
            info = tarfile.TarInfo("link")
            info.type, info.linkname = tarfile.SYMTYPE, link
            tar.addfile(info)
    return packed.getvalue()


@pytest.mark.parametrize("top", ["", "release-1.0/"])
def test_an_archive_is_unpacked_without_its_top_folder(
    monkeypatch: pytest.MonkeyPatch, publisher: Publisher, cache: Path, top: str
) -> None:
    packed = tar_gz({f"{top}whole.txt": b"yes", f"{top}sub/more.txt": b"more"})
    publisher.files["/set.tar.gz"] = packed
    offered(monkeypatch, publisher, None, "set.tar.gz")
    assert official.get("handwriting", cache) == cache / "digits"
    assert kept(cache) == {
        "set.tar.gz": packed,
        "digits/whole.txt": b"yes",
        "digits/sub/more.txt": b"more",
        "SHA256SUMS": f"{hashlib.sha256(packed).hexdigest()}  set.tar.gz\n".encode(),
    }
    for path in (cache / "digits").rglob("*.txt"):
        path.unlink()
    with pytest.raises(DataError, match="digits is there but does not hold the whole set"):
        official.get("handwriting", cache)


@pytest.mark.parametrize(
    "archive",
    [
        b"<html>please log in</html>",
        tar_gz({"whole.txt": BYTES})[:-40],
        tar_gz({"wrong.txt": b"no"}),
        tar_gz({"whole.txt": b"yes", "../evil.txt": b"boo"}),
        tar_gz({"whole.txt": b"yes"}, link="/etc/passwd"),
    ],
    ids=["page", "truncated", "another set", "escape", "link"],
)
def test_a_bad_archive_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, publisher: Publisher, cache: Path, archive: bytes
) -> None:
    publisher.files["/set.tar.gz"] = archive
    offered(monkeypatch, publisher, None, "set.tar.gz")
    with pytest.raises(DataError, match=r"set\.tar\.gz"):
        official.get("handwriting", cache)
    assert kept(cache.parent) == {}
    publisher.files["/set.tar.gz"] = tar_gz({"whole.txt": b"yes"})
    official.get("handwriting", cache)
    assert (cache / "digits" / "whole.txt").read_bytes() == b"yes"


def test_a_cache_that_cannot_be_written_is_named(
    monkeypatch: pytest.MonkeyPatch, publisher: Publisher, tmp_path: Path
) -> None:
    offered(monkeypatch, publisher, md5(BYTES))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot keep handwriting in .*file") as caught:
        official.get("handwriting", tmp_path / "file")
    assert "DUETTO_CACHE" in caught.value.remedy


def test_downloading_says_that_it_needs_httpx(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    assert official.locate("activity", cache) is None
    with pytest.raises(ConfigError, match=r"pip install 'duetto\[data\]'"):
        official.get("activity", cache)


def test_an_unknown_set_is_an_error(cache: Path) -> None:
    for ask in (official.get, official.locate):
        with pytest.raises(ConfigError, match="'femnist': choose one of handwriting, activity, cifar, ratings, "):
            ask("femnist", cache)


def test_locate_looks_in_the_users_folder_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    data = tmp_path / "data"

    def put(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    put(cache / "wisdm_ar_v1.1" / "x_transformed.arff")
    assert official.locate("activity", cache) == cache / "wisdm_ar_v1.1"
    monkeypatch.setenv("DUETTO_DATA", str(data))
    with pytest.raises(ConfigError, match=r"DUETTO_DATA is .*data', which is no folder"):
        official.locate("activity", cache)
    data.mkdir()
    assert official.locate("activity", cache) == cache / "wisdm_ar_v1.1"
    put(data / "wisdm_ar_v1.1" / "x_transformed.arff.gz")
    assert official.locate("activity", cache) == data / "wisdm_ar_v1.1"

    names = [source.file for source in official.SETS["handwriting"].sources]
    for name in names:
        assert official.locate("handwriting", cache) is None
        put(data / "mnist" / f"{name}.part")  # not whole
        put(data / "mnist" / name)
    assert official.locate("handwriting", cache) == data / "mnist"
    put(data / "mnist_by_writer" / "test" / "all.json.gz")
    assert official.locate("handwriting", cache) == data / "mnist_by_writer"

    put(data / "har_spsw" / "DATA" / "s01" / "s01_01_sp.csv")
    assert official.locate("sensors", cache) == data / "har_spsw"


def test_the_cache_is_where_it_is_said_to_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DUETTO_CACHE", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert official.default_cache() == tmp_path / ".cache" / "duetto"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert official.default_cache() == tmp_path / "xdg" / "duetto"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert official.default_cache() == tmp_path / "Library" / "Caches" / "duetto"
    monkeypatch.setenv("DUETTO_CACHE", str(tmp_path / "mine"))
    assert official.default_cache() == tmp_path / "mine"


def test_what_no_program_can_fetch_names_its_page(cache: Path) -> None:
    with pytest.raises(ConfigError, match=r"ratings cannot be fetched: get it from .*ml-100k or ml-1m"):
        official.get("ratings", cache)


def test_the_table_of_sources_is_well_formed() -> None:
    for known in official.SETS.values():
        assert bool(known.sources) != known.page.startswith("http")
        for source in known.sources:
            assert source.url.startswith("https://")
            assert "/" not in source.file
            assert source.digest is None or re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", source.digest)
    assert len({source.digest for source in official.SETS["handwriting"].sources}) == 6


@pytest.mark.data
def test_the_real_sets_are_found(data_dir: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setenv("DUETTO_DATA", str(data_dir))
    found = {name: official.locate(name, cache) for name in official.SETS}
    assert found == {
        "handwriting": data_dir / "mnist_by_writer",
        "activity": data_dir / "wisdm_ar_v1.1",
        "cifar": data_dir / "cifar10_subset",
        "ratings": data_dir / "ml-100k",
        "shakespeare": data_dir / "shakespeare",
        "tweets": data_dir / "airline_sentiment",
        "sensors": data_dir / "har_spsw",
    }
