"""A web server in the event loop of a service: what administers the cloud, and the page, stand beside it."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from typing import Any

import uvicorn

from duetto.cloud.site import Site
from duetto.errors import ConfigError


def address_of(text: str) -> tuple[str, int]:
    """Host and port of ``127.0.0.1:8080``, ``:8080`` or ``8080``; this machine's loopback where no host is named.

    Raises:
        ConfigError: it is none.
    """
    host, _, port = text.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"the address {text!r}", "use HOST:PORT, such as 127.0.0.1:8080")
    return host.strip("[]") or "127.0.0.1", int(port)


def loopback(host: str) -> bool:
    """Whether a host is this machine, seen from itself alone."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


@asynccontextmanager
async def served(
    site: Site, host: str, port: int, make: Callable[[bool], Any], on_listening: Callable[[str], None], **how: Any
) -> AsyncIterator[None]:
    """Serve for as long as the context lasts.

    On another address than the loopback it speaks TLS, with the server's own certificate.

    Args:
        site: whose certificate.
        host, port: where; port 0 is any that is free.
        make: the application, told whether it is served over TLS.
        on_listening: called with the URL.
        how: of ``uvicorn.Config``, beside what all have.

    Raises:
        ConfigError: an address that cannot be had.
    """
    tls = not loopback(host)
    listening = _bound(host, port)
    server = _Beside(
        uvicorn.Config(
            make(tls),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=3,
            ssl_certfile=site.folder / "server" / "certificate.pem" if tls else None,
            ssl_keyfile=site.folder / "server" / "key.pem" if tls else None,
            **how,
        )
    )
    task = asyncio.ensure_future(server.serve(sockets=[listening]))
    try:
        while not server.started and not task.done():
            await asyncio.sleep(0.01)
        if task.done():
            task.result()
        shown = f"[{host}]" if ":" in host else host
        on_listening(f"{'https' if tls else 'http'}://{shown}:{listening.getsockname()[1]}")
        yield
    finally:
        server.should_exit = True
        await task


class _Beside(uvicorn.Server):
    """A server that leaves the signals to the service that it stands beside."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, *_, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(where)
        except OSError:
            made.close()
            raise
    except OSError as fault:
        raise ConfigError(
            f"cannot listen at {host}:{port} ({fault.strerror})", "is the port taken, or the address another's?"
        ) from fault
    return made
