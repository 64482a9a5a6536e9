"""Parts of files, from a folder and from web servers, good ones and poor ones."""

import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from duetto.device.sources import Folder, Http, Source
from duetto.errors import ConfigError

DATA = np.random.default_rng(0).bytes(700_000)


class Server(BaseHTTPRequestHandler):
    """DATA as ``good`` (ranges), ``plain`` (no ranges), ``short`` (breaks off), ``wrong`` (other range), ``moved``."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        kind, data, status = self.path.strip("/"), DATA, 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        headers = {}
        if kind not in ("good", "plain", "short", "wrong"):
            status, data = {"moved": 302, "broken": 500}.get(kind, 404), b""
            headers["Location"] = "/good"
        elif asked and kind != "plain":
            start, stop = int(asked[1]), int(asked[2]) + 1 if asked[2] else len(DATA)
            status, data = 206, DATA[start:stop]
            headers["Content-Range"] = f"bytes {start + (kind == 'wrong')}-{stop - 1}/{len(DATA)}"
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if kind == "short" else data)
        self.close_connection = kind == "short"

    def handle(self) -> None:
        with suppress(ConnectionError):  # whoever asked has enough
            super().handle()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Of the server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("name", ["folder", "good", "plain"])
@pytest.mark.parametrize(
    ("start", "length"), [(0, None), (0, 10), (5, 7), (300_000, 300_000), (699_999, 1), (699_999, None)]
)
def test_parts(url: str, tmp_path: Path, name: str, start: int, length: int | None) -> None:
    source: Source = Http(url, insecure=True)
    if name == "folder":
        (tmp_path / "folder").write_bytes(DATA)
        source = Folder(tmp_path)
    stop = None if length is None else start + length
    assert b"".join(source.fetch(name, start, length)) == DATA[start:stop]


def test_what_is_not_there(url: str, tmp_path: Path) -> None:
    for source in (Http(url, insecure=True), Folder(tmp_path)):
        for path in ("missing", "../good", "/good", "a/../../b", "a\\b"):
            with pytest.raises(FileNotFoundError):
                list(source.fetch(path))  # type: ignore[attr-defined]


def test_what_came_before_a_break_counts(url: str) -> None:
    came: list[bytes] = []
    with pytest.raises(OSError, match="broke off"):
        came.extend(Http(url, insecure=True).fetch("short", 100))
    whole = b"".join(came)
    assert len(whole) > 100_000
    assert whole == DATA[100 : 100 + len(whole)]


@pytest.mark.parametrize(("path", "match"), [("wrong", "another range"), ("broken", "500"), ("moved", "302")])
def test_servers_that_will_not_do(url: str, path: str, match: str) -> None:
    with pytest.raises(OSError, match=match):
        list(Http(url, insecure=True).fetch(path, 10, 20))


def test_nobody_there() -> None:
    with pytest.raises(OSError, match="cannot be reached"):
        list(Http("http://127.0.0.1:9", insecure=True).fetch("x"))


def test_plain_text_only_where_it_is_said_to_do() -> None:
    with pytest.raises(ConfigError, match="plain text"):
        Http("http://cloud.example")
    with pytest.raises(ConfigError, match="no address"):
        Http("ftp://cloud.example")
    assert Http("https://cloud.example").insecure is False
