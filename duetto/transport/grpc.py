"""Envelopes over gRPC: one bidirectional stream for each device, and the calls beside it (``wire.proto``).

HTTP/2 brings TLS, flow control and keep-alive; what gRPC would decode it hands on as bytes, so that the envelope is
read in one place, whatever carries it. Messages longer than an envelope may be are refused before they are read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from duetto.errors import ConfigError, Error, WireError
from duetto.transport import wire_pb2 as wire
from duetto.transport.channel import Channel, Lost
from duetto.transport.envelope import Limits
from duetto.transport.identity import Credentials

SERVICE = wire.DESCRIPTOR.services_by_name["Duetto"].full_name
_FAULTS = (grpc.RpcError, grpc.aio.BaseError, asyncio.InvalidStateError)
GONE = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.NOT_FOUND,
    }
)
"""With these, coming back would not help."""

Accept = Callable[[Channel, bytes | None], Awaitable[None]]
"""Talks over a channel until it ends; with the certificate (PEM) of who called, which TLS believes, or None."""


@dataclass(frozen=True)
class Calls:
    """What a server answers beside the stream; None is not served.

    Attributes:
        once: from an envelope and the caller's certificate to an envelope.
        fetch: from a path, a start and a length (0: to the end) to pieces of the file.
        enrol: from a token, a request (PEM) and the caller's certificate, if it has one, to certificate, authority and
            the releases' first root.
    """

    once: Callable[[bytes, bytes | None], Awaitable[bytes]] | None = None
    fetch: Callable[[str, int, int], AsyncIterator[bytes]] | None = None
    enrol: Callable[[str, bytes, bytes | None], Awaitable[tuple[bytes, bytes, bytes]]] | None = None


class Server:
    """Listens for devices.

    Args:
        address: such as ``0.0.0.0:8443``; port 0 is any that is free.
        accept: talks with whoever connects; None where no stream is served.
        calls: what is answered beside it.
        credentials: who the server is; None speaks plain text, which is for one machine only.
        devices: whether a certificate is asked of devices; enrolment is served where it is not.
        limits: what is taken.
    """

    def __init__(
        self,
        address: str,
        accept: Accept | None = None,
        calls: Calls | None = None,
        *,
        credentials: Credentials | None,
        devices: bool = True,
        limits: Limits = Limits(),
    ) -> None:
        self._address, self._accept, self._calls = address, accept, calls or Calls()
        self._credentials, self._devices, self._limits = credentials, devices, limits
        self._server: Any = None
        self.port = 0

    async def start(self) -> int:
        """Listen; the port.

        Raises:
            ConfigError: the address cannot be had.
        """
        self._server = grpc.aio.server(options=_options(self._limits))
        self._server.add_generic_rpc_handlers((self._handlers(),))
        await _standard(self._server)
        try:
            if self._credentials is None:
                self.port = self._server.add_insecure_port(self._address)
            else:
                own = self._credentials
                secure = grpc.ssl_server_credentials(
                    [(own.key, own.certificate)], own.authority, require_client_auth=self._devices
                )
                self.port = self._server.add_secure_port(self._address, secure)
        except RuntimeError as fault:
            raise ConfigError(
                f"cannot listen at {self._address}", "is the port taken, or the address another's?"
            ) from fault
        if not self.port:
            raise ConfigError(f"cannot listen at {self._address}", "is the port taken, or the address another's?")
        await self._server.start()
        return self.port

    async def stop(self, grace: float = 1.0) -> None:
        """Take nobody new, and let go of who is there after ``grace`` seconds."""
        if self._server is not None:
            await self._server.stop(grace)

    def _handlers(self) -> Any:
        calls, found = self._calls, {}
        if self._accept is not None:
            found["Talk"] = grpc.stream_stream_rpc_method_handler(self._talk)
        if calls.once is not None:
            found["Once"] = grpc.unary_unary_rpc_method_handler(self._once)
        if calls.fetch is not None:
            found["Fetch"] = grpc.unary_stream_rpc_method_handler(
                self._fetch, wire.Wanted.FromString, wire.Piece.SerializeToString
            )
        if calls.enrol is not None:
            found["Enrol"] = grpc.unary_unary_rpc_method_handler(
                self._enrol, wire.Enrolment.FromString, wire.Certificate.SerializeToString
            )
        return grpc.method_handlers_generic_handler(SERVICE, found)

    async def _talk(self, requests: Any, context: Any) -> None:
        assert self._accept is not None
        await self._accept(_Stream(context), _shown(context))

    async def _once(self, request: bytes, context: Any) -> bytes:
        assert self._calls.once is not None
        try:
            return await self._calls.once(request, _shown(context))
        except WireError as fault:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(fault))
        except Lost as lost:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, lost.why)
        raise AssertionError("aborted")

    async def _fetch(self, wanted: wire.Wanted, context: Any) -> AsyncIterator[wire.Piece]:
        assert self._calls.fetch is not None
        try:
            async for data in self._calls.fetch(wanted.path, wanted.start, wanted.length):
                yield wire.Piece(data=data)
        except Error as fault:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(fault))

    async def _enrol(self, enrolment: wire.Enrolment, context: Any) -> wire.Certificate:
        assert self._calls.enrol is not None
        try:
            certificate, authority, root = await self._calls.enrol(enrolment.token, enrolment.request, _shown(context))
        except Error as fault:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(fault))
            raise
        return wire.Certificate(certificate=certificate, authority=authority, root=root)


class Client:
    """The way to one server, over which streams and calls go.

    Args:
        address: such as ``cloud.example:8443``.
        credentials: who this side is, and whom it believes; PEM of an authority alone, before it is enrolled; None
            speaks plain text.
        limits: what is taken.
    """

    def __init__(self, address: str, *, credentials: Credentials | bytes | None, limits: Limits = Limits()) -> None:
        # a connection of its own for each device, where a process is several
        options = [*_options(limits), ("grpc.use_local_subchannel_pool", 1)]
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(address, options)
        else:
            own = credentials if isinstance(credentials, Credentials) else None
            secure = (
                grpc.ssl_channel_credentials(credentials)
                if own is None
                else grpc.ssl_channel_credentials(own.authority, own.key, own.certificate)
            )
            self._channel = grpc.aio.secure_channel(address, secure, options)
        self.address = address

    async def talk(self, seconds: float = 20.0) -> Channel:
        """A stream.

        Raises:
            Lost: nobody answers there within so many seconds, or TLS does not believe one side.
        """
        call = self._channel.stream_stream(f"/{SERVICE}/Talk")()
        try:
            async with asyncio.timeout(seconds):
                await call.wait_for_connection()
        except TimeoutError:
            call.cancel()
            raise Lost(f"nobody answers at {self.address}") from None
        except grpc.aio.AioRpcError as fault:
            raise Lost(f"no connection to {self.address}: {fault.details()}", fault.code() in GONE) from None
        except BaseException:
            call.cancel()
            raise
        return _Stream(call, call)

    async def once(self, envelope: bytes, seconds: float | None = None) -> bytes:
        """One envelope there, and one back.

        Raises:
            Lost: none came.
        """
        with _telling():
            answer: bytes = await self._channel.unary_unary(f"/{SERVICE}/Once")(envelope, timeout=seconds)
            return answer

    async def fetch(self, path: str, start: int = 0, length: int = 0) -> AsyncIterator[bytes]:
        """A file's bytes from ``start`` on.

        Raises:
            Lost: it ends too soon, or there is no such file.
        """
        call = self._channel.unary_stream(f"/{SERVICE}/Fetch", wire.Wanted.SerializeToString, wire.Piece.FromString)(
            wire.Wanted(path=path, start=start, length=length)
        )
        with _telling():
            async for piece in call:
                yield piece.data

    async def enrol(self, token: str, request: bytes, seconds: float = 20.0) -> tuple[bytes, bytes, bytes]:
        """Certificate, authority and the releases' first root, for a token and a request.

        A device that has a certificate renews it with an empty token.

        Raises:
            Lost: refused, or nobody there.
        """
        with _telling():
            call = self._channel.unary_unary(
                f"/{SERVICE}/Enrol", wire.Enrolment.SerializeToString, wire.Certificate.FromString
            )
            given = await call(wire.Enrolment(token=token, request=request), timeout=seconds)
            return given.certificate, given.authority, given.root

    async def close(self) -> None:
        """Let go of it."""
        await self._channel.close()


class _Stream:
    """One end of a stream; a server's context and a client's call read and write alike."""

    def __init__(self, stream: Any, call: Any = None) -> None:
        self._stream, self._call, self._sending = stream, call, asyncio.Lock()

    async def send(self, data: bytes) -> None:
        async with self._sending:  # gRPC takes one at a time
            try:
                await self._stream.write(data)
            except _FAULTS as fault:
                raise await self._lost() from fault

    async def receive(self) -> bytes:
        try:
            data = await self._stream.read()
        except _FAULTS as fault:
            raise await self._lost() from fault
        if not isinstance(data, bytes):
            raise await self._lost()
        return data

    async def close(self) -> None:
        if self._call is not None:
            self._call.cancel()

    async def _lost(self) -> Lost:
        """Why it has ended; the server's side is not told."""
        if self._call is None:
            return Lost("the device has gone")
        code = await self._call.code()
        return Lost(await self._call.details() or code.name.lower(), code in GONE)


class _telling:
    """gRPC's errors as ours."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, fault: BaseException | None, trace: object) -> None:
        if isinstance(fault, grpc.aio.AioRpcError):
            raise Lost(fault.details() or fault.code().name.lower(), fault.code() in GONE) from None


def _shown(context: Any) -> bytes | None:
    """The certificate that the caller has shown."""
    found = context.auth_context().get("x509_pem_cert")
    return bytes(found[0]) if found else None


def _options(limits: Limits) -> list[tuple[str, int]]:
    """A stream that is silent is asked after every half minute; a NAT forgets sooner than TCP."""
    return [
        ("grpc.max_receive_message_length", limits.envelope_bytes),
        ("grpc.max_send_message_length", limits.envelope_bytes),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # else the server hangs up on whom it asks to ping
        ("grpc.max_concurrent_streams", 100),
        ("grpc.initial_reconnect_backoff_ms", 200),  # how often it is tried is the choice of who calls
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.so_reuseport", 0),
    ]


async def _standard(server: Any) -> None:
    """The standard health service, for load balancers and probes, and reflection, which tells what is served."""
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection

    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    for name in ("", SERVICE):
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
