"""The cloud as one runs it: a large model, who may ask it, what devices tell, and the models they fetch."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import sqlalchemy as sql

from duetto.cloud.batcher import Batcher
from duetto.cloud.presence import Presence, watching
from duetto.cloud.service import Left, Service, serve
from duetto.cloud.site import Site
from duetto.errors import ConfigError, Error
from duetto.protocols.deliver import Deliver
from duetto.protocols.probe import Echo
from duetto.protocols.stages import Finish
from duetto.transport.envelope import Limits
from duetto.transport.grpc import Calls, Server
from duetto.transport.identity import fingerprint, name_of
from duetto.types import Local, Party

_LOG = logging.getLogger(__name__)
_PIECE = 256 << 10
_SEEN_SECONDS = 5.0  # between two looks at who is connected
_REFRESH_SECONDS = 6 * 3600.0  # of the two days that a time stamp holds
LARGE = "large"


@lru_cache(100_000)
def _who(certificate: bytes) -> tuple[str, str]:
    """The name and the key in a certificate."""
    return name_of(certificate), fingerprint(certificate)


@dataclass(frozen=True)
class App:
    """A cloud.

    Attributes:
        site: its folder.
        large: the large model, as :class:`~duetto.protocols.stages.Finish` asks it: a staged model, a
            :class:`~duetto.cloud.onnx.Whole`; None answers nothing.
        listen: the address for devices.
        enrol: the address for those that have no certificate yet; None enrols nobody.
        insecure: speak plain text, which is for one machine only.
        limits: what is taken from a device.
        batcher: of the large model.
        more: what else runs as long as the service does: from the service to an asynchronous context.
    """

    site: Site
    large: Any = None
    listen: str = "0.0.0.0:8443"
    enrol: str | None = "0.0.0.0:8444"
    insecure: bool = False
    limits: Limits = Limits()
    batcher: Mapping[str, Any] = field(default_factory=dict)
    more: Sequence[Any] = ()

    @property
    def party(self) -> Party:
        """What devices can ask for."""
        memory: dict[str, Any] = {"feedback": self.site.feedback}
        skills: list[Any] = [Deliver("feedback"), Echo]
        if self.large is not None:
            memory[LARGE] = self.large
            skills.append(Finish(LARGE))
        return Party(skills=tuple(skills), local=Local(None, memory))

    def run(self, on_listening: Any = lambda port, enrol: None) -> Left:
        """Serve until this process is asked to stop; ``on_listening`` is called with both ports."""
        if self.large is None and not self.more:
            raise ConfigError("a cloud without a large model", "name one with --large")
        batcher = Batcher(**self.batcher)
        ports = [0, 0]

        @asynccontextmanager
        async def beside(service: Service) -> AsyncIterator[None]:
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(batcher)
                if self.enrol is not None and not self.insecure:
                    server = Server(
                        self.enrol, calls=Calls(enrol=self._enrol), credentials=self.site.credentials, devices=False
                    )
                    ports[1] = await server.start()
                    stack.push_async_callback(server.stop)
                for each in (self._fresh, self._seen, self._present, *self.more):
                    await stack.enter_async_context(each(service))
                yield

        return serve(
            self.party,
            listen=self.listen,
            credentials=None if self.insecure else self.site.credentials,
            admit=None if self.insecure else self._admitted,
            limits=self.limits,
            uses=batcher,
            beside=beside,
            calls=Calls(fetch=self._fetch, enrol=None if self.insecure else self._renew),
            on_listening=lambda port: on_listening(port, ports[1]),
        )

    def _admitted(self, certificate: bytes | None) -> str:
        if certificate is None:
            raise ConfigError("a device without a certificate", "enrol it")
        name, key = _who(certificate)
        if not self.site.enrolment.admitted(name, key):
            raise ConfigError(f"{name} is not admitted", "its key is unknown or revoked; enrol it anew")
        return name

    @asynccontextmanager
    async def _seen(self, service: Service) -> AsyncIterator[None]:
        """Note who is connected, now and then."""

        async def noting() -> None:
            while True:
                await asyncio.sleep(_SEEN_SECONDS)
                keys = [_who(each)[1] for each in service.certificates.values() if each is not None]
                with suppress(Error, sql.exc.OperationalError):  # a full disk keeps nobody out
                    await asyncio.to_thread(self.site.enrolment.seen, *keys)

        task = asyncio.ensure_future(noting())
        try:
            yield
        finally:
            task.cancel()

    async def _enrol(self, token: str, request: bytes, shown: bytes | None) -> tuple[bytes, bytes, bytes]:
        return await self._signed(self.site.enrolment.enrol, token, request)

    async def _renew(self, token: str, request: bytes, shown: bytes | None) -> tuple[bytes, bytes, bytes]:
        return await self._signed(self.site.enrolment.renew, self._admitted(shown), request)

    async def _signed(
        self, sign: Callable[[str, bytes], bytes], said: str, request: bytes
    ) -> tuple[bytes, bytes, bytes]:
        certificate = await asyncio.to_thread(sign, said, request)
        return certificate, self.site.authority.certificate, self.site.releases.root()

    @asynccontextmanager
    async def _fresh(self, service: Service) -> AsyncIterator[None]:
        """Sign the releases anew, now and then."""

        async def refreshing() -> None:
            while True:
                try:
                    wanting = await asyncio.to_thread(self.site.releases.refresh)
                    if wanting:
                        _LOG.warning("releases: the time of %s is running out; sign with their keys", wanting)
                except Error as fault:
                    _LOG.error("releases: %s", fault)
                await asyncio.sleep(_REFRESH_SECONDS)

        task = asyncio.ensure_future(refreshing())
        try:
            yield
        finally:
            task.cancel()

    def _present(self, service: Service) -> AbstractAsyncContextManager[None]:
        """Tell who is connected, so that every process knows."""
        return watching(service, Presence(self.site.engine))

    async def _fetch(self, path: str, start: int, length: int) -> AsyncIterator[bytes]:
        found = self.site.file(path)
        with found.open("rb") as file:
            file.seek(start)
            left = length or found.stat().st_size
            while left > 0 and (data := await asyncio.to_thread(file.read, min(left, _PIECE))):
                left -= len(data)
                yield data
