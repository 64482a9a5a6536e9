"""A web server beside a service: its address, and what is wrong with it (that it serves, others show)."""

import asyncio
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from duetto.cloud.beside import address_of, loopback, served
from duetto.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "address"),
    [("8080", ("127.0.0.1", 8080)), (":80", ("127.0.0.1", 80)), ("[::1]:0", ("::1", 0)), ("a.b:1", ("a.b", 1))],
)
def test_an_address_is_this_machine_s_unless_it_says_more(text: str, address: tuple[str, int]) -> None:
    assert address_of(text) == address


@pytest.mark.parametrize("text", ["", "host", "host:port", "host:70000"])
def test_an_address_without_a_port_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="use HOST:PORT"):
        address_of(text)


def test_what_is_loopback() -> None:
    assert [loopback(host) for host in ("127.0.0.1", "::1", "localhost", "127.9.9.9")] == [True] * 4
    assert [loopback(host) for host in ("0.0.0.0", "::", "cloud.example", "10.0.0.1")] == [False] * 4


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    site: Any = SimpleNamespace(folder=tmp_path)

    async def serve(port: int) -> None:
        async with served(site, "127.0.0.1", port, lambda tls: None, lambda url: None):
            raise AssertionError("it serves where somebody else does")

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match=r"cannot listen at .*: is the port taken"):
            asyncio.run(serve(taken.getsockname()[1]))
