"""Envelopes over gRPC on this machine: plain and with certificates, and every way in which somebody is refused."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc._cython import cygrpc

from duetto.errors import ConfigError, DataError, WireError
from duetto.transport import envelope as envelopes
from duetto.transport import vocabulary
from duetto.transport import wire_pb2 as wire
from duetto.transport.channel import Channel, Lost
from duetto.transport.envelope import PIECE, Limits
from duetto.transport.grpc import SERVICE, Calls, Client, Server, _options
from duetto.transport.identity import Authority, Credentials, made_key, name_of, requested
from duetto.transport.session import Greeting, Question, Said, Session

SOON = 20.0
LONG = bytes(range(256)) * 12_000  # 3 MB


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 60))


class Fleet:
    """An authority, a server and two devices."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority.make(folder / "authority")
        self.server = self.authority.server(["localhost", "127.0.0.1"])
        self.ann, self.ben = self.device("ann"), self.device("ben")

    def device(self, name: str) -> Credentials:
        key = made_key()
        return Credentials(key, self.authority.sign(requested(key, name), name), self.authority.certificate)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet(tmp_path_factory.mktemp("theirs"))


@pytest.fixture(params=["plain", "tls"])
def both(request: pytest.FixtureRequest, ours: Fleet) -> tuple[Credentials | None, Credentials | None]:
    """The server's credentials, and a device's."""
    return (None, None) if request.param == "plain" else (ours.server, ours.ann)


class Cloud:
    """A server on which everybody is talked to."""

    def __init__(self, credentials: Credentials | None, calls: Calls | None = None, **about: Any) -> None:
        self.server = Server("127.0.0.1:0", self.accept, calls, credentials=credentials, **about)
        self.sessions: list[Session] = []
        self.names: list[str] = []
        self.ended: list[Lost] = []

    async def accept(self, channel: Channel, certificate: bytes | None) -> None:
        session = Session(channel, Greeting("cloud"), self.serve)
        with contextlib.suppress(Lost):
            await session.open()
            self.sessions.append(session)
            self.names.append("" if certificate is None else name_of(certificate))
            self.ended.append(await session.run())

    async def serve(self, sender: str, question: Question) -> Said:
        return Said(question.body + sender.encode())

    async def __aenter__(self) -> "Cloud":
        self.address = f"127.0.0.1:{await self.server.start()}"
        return self

    async def __aexit__(self, *fault: object) -> None:
        await self.server.stop(0)


@contextlib.asynccontextmanager
async def talking(cloud: Cloud, credentials: Any, name: str = "ann") -> AsyncIterator[Session]:
    async def serve(sender: str, question: Question) -> Said:
        return Said(b"device:" + question.body)

    client = Client(cloud.address, credentials=credentials)
    try:
        session = Session(await client.talk(), Greeting(name), serve)
        await session.open()
        running = asyncio.ensure_future(session.run())
        yield session
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    finally:
        await client.close()


def question(body: bytes = b"body") -> Question:
    return Question(vocabulary.number("part"), "part", (1,), body)


async def until(true: Any) -> None:
    async with asyncio.timeout(SOON):
        while not true():
            await asyncio.sleep(0.005)


# ------------------------------------------------------------------------------------------------------ talking


def test_both_sides_ask_and_long_bodies_go_both_ways(both: tuple[Any, Any]) -> None:
    async def main() -> None:
        async with Cloud(both[0]) as cloud, talking(cloud, both[1]) as device:
            await until(lambda: cloud.sessions)
            asks = [device.ask(question(LONG)), *(device.ask(question(b"%d" % i)) for i in range(50))]
            back = [cloud.sessions[0].ask(question(LONG)), *(cloud.sessions[0].ask(question()) for _ in range(50))]
            said = await asyncio.gather(*asks, *back)
            assert said[0].body == LONG + b"ann"
            assert [each.body for each in said[1:51]] == [b"%dann" % i for i in range(50)]
            assert said[51].body == b"device:" + LONG
            assert cloud.names == ["" if both[1] is None else "ann"]

    run(main())


def test_a_short_ask_overtakes_a_long_one(both: tuple[Any, Any]) -> None:
    async def main() -> None:
        async with Cloud(both[0]) as cloud, talking(cloud, both[1]) as device:
            long = asyncio.ensure_future(device.ask(question(LONG * 10)))
            await asyncio.sleep(0)
            assert (await device.ask(question())).body == b"bodyann"
            assert not long.done()
            assert (await long).body == LONG * 10 + b"ann"

    run(main())


def test_a_device_that_goes_is_noticed_and_another_is_not_touched(both: tuple[Any, Any]) -> None:
    async def main() -> None:
        async with Cloud(both[0]) as cloud, talking(cloud, both[1], "ben") as other:
            async with talking(cloud, both[1]):
                await until(lambda: len(cloud.sessions) == 2)
            with pytest.raises(Lost):
                await asyncio.wait_for(cloud.sessions[1].ask(question()), SOON)
            await until(lambda: not cloud.sessions[1]._waiting)
            assert (await other.ask(question())).body == b"bodyben"
            await cloud.sessions[1].end("a last word to nobody")  # raises nothing

    run(main())


def test_a_server_that_stops_may_come_back(both: tuple[Any, Any]) -> None:
    async def main() -> None:
        cloud = Cloud(both[0])
        async with cloud:
            client = Client(cloud.address, credentials=both[1])
            session = Session(await client.talk(), Greeting("ann"), cloud.serve)
            await session.open()
            running = asyncio.ensure_future(session.run())
            await asyncio.sleep(0.01)
        ended = await asyncio.wait_for(running, SOON)
        assert not ended.final
        with pytest.raises(Lost, match="no connection to") as lost:
            await client.talk()
        assert not lost.value.final
        await client.close()

    run(main())


# ------------------------------------------------------------------------------------------------------ refused


def forged(ours: Fleet, theirs: Fleet) -> Credentials:
    """Another fleet's device that believes our cloud."""
    made = Credentials.__new__(Credentials)
    for name, value in (
        ("key", theirs.ann.key),
        ("certificate", theirs.ann.certificate),
        ("authority", ours.ann.authority),
    ):
        object.__setattr__(made, name, value)
    return made


@pytest.mark.parametrize("who", ["plain text", "no certificate", "another fleet's", "a server's", "believes others"])
def test_whom_tls_does_not_believe_is_refused_and_others_go_on(who: str, ours: Fleet, theirs: Fleet) -> None:
    credentials = {
        "plain text": None,
        "no certificate": ours.authority.certificate,
        "another fleet's": forged(ours, theirs),
        "a server's": ours.server,
        "believes others": theirs.ann,
    }[who]

    async def main() -> None:
        async with Cloud(ours.server) as cloud, talking(cloud, ours.ann) as device:
            with pytest.raises(Lost) as lost:
                async with talking(cloud, credentials) as other:
                    await other.ask(question())
            assert len(str(lost.value).splitlines()) == 1
            assert (await device.ask(question())).body == b"bodyann"
            assert cloud.names == ["ann"]

    run(main())


def test_a_servers_certificate_names_no_device(ours: Fleet) -> None:
    with pytest.raises(DataError, match="names no device"):
        name_of(ours.server.certificate)


def test_who_speaks_tls_to_a_plain_server_is_refused(ours: Fleet) -> None:
    async def main() -> None:
        async with Cloud(None) as cloud:
            with pytest.raises(Lost, match="no connection to"):
                async with talking(cloud, ours.ann):
                    pass

    run(main())


def test_a_server_that_is_called_otherwise_is_not_believed(ours: Fleet) -> None:
    elsewhere = ours.authority.server(["cloud.example"])

    async def main() -> None:
        async with Cloud(elsewhere) as cloud:
            with pytest.raises(Lost, match="no connection to"):
                async with talking(cloud, ours.ann):
                    pass

    run(main())


@pytest.mark.parametrize("what", ["too long", "a bomb", "garbage", "another call's message"])
def test_nonsense_ends_one_stream_and_nothing_else(what: str, both: tuple[Any, Any]) -> None:
    data, why = {
        "too long": (b"x" * (Limits().envelope_bytes + 1), "larger than max"),
        "a bomb": (bytes(100_000_000), "larger than max"),  # compressed on its way
        "garbage": (b"\xff\xff", "no envelope"),
        "another call's message": (wire.Wanted(path="a" * 50).SerializeToString(), "version 0"),
    }[what]

    async def main() -> None:
        async with Cloud(both[0]) as cloud, talking(cloud, both[1]) as device:
            secure = None if both[1] is None else credentials(both[1])
            channel = (
                grpc.aio.insecure_channel(cloud.address)
                if secure is None
                else grpc.aio.secure_channel(cloud.address, secure)
            )
            gzip = grpc.Compression.Gzip if what == "a bomb" else None
            call = channel.stream_stream(f"/{SERVICE}/Talk")(compression=gzip)
            await call.write(envelopes.said(wire.Envelope(hello=wire.Hello(name="eve"))))
            assert wire.Envelope.FromString(await call.read()).hello.name == "cloud"
            await call.write(data)
            try:
                said = await asyncio.wait_for(call.read(), SOON)
                told = wire.Envelope.FromString(said).bye.why
            except grpc.aio.AioRpcError as fault:
                told = str(fault.details())
            assert why in told
            assert len(told.splitlines()) == 1
            assert (await device.ask(question())).body == b"bodyann"
            await channel.close()

    run(main())


def credentials(own: Credentials) -> Any:
    return grpc.ssl_channel_credentials(own.authority, own.key, own.certificate)


def test_nobody_there_is_told_at_once() -> None:
    async def main() -> None:
        client = Client("127.0.0.1:1", credentials=None)
        with pytest.raises(Lost, match=r"no connection to 127\.0\.0\.1:1: .*") as lost:
            await client.talk()
        assert not lost.value.final
        with pytest.raises(Lost):
            await client.once(b"x")
        with pytest.raises(Lost):
            await anext(client.fetch("a"))
        await client.close()

    run(main())


def test_who_takes_no_notice_is_waited_for_so_long() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            client = Client(f"127.0.0.1:{deaf.getsockname()[1]}", credentials=None)
            with pytest.raises(Lost, match="nobody answers at"):
                await client.talk(0.05)
            await client.close()

    run(main())


def test_an_address_that_cannot_be_had_is_told() -> None:
    async def main() -> None:
        async with Cloud(None) as cloud:
            for address in (cloud.address, "203.0.113.1:1", "no.such.host.invalid:1"):
                with pytest.raises(ConfigError, match="cannot listen at"):
                    await Server(address, credentials=None).start()

    run(main())


# ------------------------------------------------------------------------------------------------ other calls


def test_one_ask_without_a_stream(both: tuple[Any, Any]) -> None:
    async def once(data: bytes, certificate: bytes | None) -> bytes:
        if data == b"odd":
            raise WireError("no ask", "send one")
        if data == b"refused":
            raise Lost("revoked", final=True)
        return data + b":" + (b"" if certificate is None else name_of(certificate).encode())

    async def main() -> None:
        async with Cloud(both[0], Calls(once=once)) as cloud:
            client = Client(cloud.address, credentials=both[1])
            assert await client.once(b"ask", SOON) == (b"ask:" if both[1] is None else b"ask:ann")
            with pytest.raises(Lost, match="no ask: send one") as lost:
                await client.once(b"odd")
            assert not lost.value.final
            with pytest.raises(Lost, match="revoked") as lost:
                await client.once(b"refused")
            assert lost.value.final
            with pytest.raises(Lost, match="larger than max"):
                await client.once(b"x" * (Limits().envelope_bytes + 1))
            await client.close()

    run(main())


def test_a_file_comes_from_a_byte_on(both: tuple[Any, Any]) -> None:
    async def fetch(path: str, start: int, length: int) -> AsyncIterator[bytes]:
        if path != "a/b":
            raise DataError(f"no file {path}")
        data = LONG[start : start + length] if length else LONG[start:]
        for at in range(0, len(data), PIECE):
            yield data[at : at + PIECE]

    async def main() -> None:
        async with Cloud(both[0], Calls(fetch=fetch)) as cloud:
            client = Client(cloud.address, credentials=both[1])
            assert b"".join([each async for each in client.fetch("a/b", 5)]) == LONG[5:]
            assert b"".join([each async for each in client.fetch("a/b", 5, 300_000)]) == LONG[5:300_005]
            with pytest.raises(Lost, match="no file c") as lost:
                await anext(client.fetch("c"))
            assert lost.value.final
            with pytest.raises(Lost) as lost:  # not served
                await client.enrol("token", b"request")
            assert lost.value.final
            await client.close()

    run(main())


def test_a_device_enrols_where_no_certificate_is_asked_of_it(ours: Fleet) -> None:
    async def enrol(token: str, request: bytes, shown: bytes | None) -> tuple[bytes, bytes, bytes]:
        if token != "right":
            raise ConfigError("a token that is not known", "ask for another")
        return ours.authority.sign(request, "new"), ours.authority.certificate, b"root"

    async def main() -> None:
        server = Server("127.0.0.1:0", None, Calls(enrol=enrol), credentials=ours.server, devices=False)
        client = Client(f"127.0.0.1:{await server.start()}", credentials=ours.authority.certificate)
        key = made_key()
        certificate, authority, root = await client.enrol("right", requested(key, "new"))
        assert (Credentials(key, certificate, authority).name, root) == ("new", b"root")
        with pytest.raises(Lost, match="a token that is not known") as lost:
            await client.enrol("wrong", requested(key, "new"))
        assert lost.value.final
        with pytest.raises(Lost):  # no stream is served here
            await (await client.talk()).receive()
        await client.close()
        await server.stop(0)

    run(main())


def test_health_and_reflection_answer(both: tuple[Any, Any]) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    async def main() -> None:
        async with Cloud(both[0], Calls()) as cloud:
            channel = (
                grpc.aio.insecure_channel(cloud.address)
                if both[1] is None
                else grpc.aio.secure_channel(cloud.address, credentials(both[1]))
            )
            health = health_pb2_grpc.HealthStub(channel)
            for name in ("", SERVICE):
                said = await health.Check(health_pb2.HealthCheckRequest(service=name))
                assert said.status == health_pb2.HealthCheckResponse.SERVING
            with pytest.raises(grpc.aio.AioRpcError, match="NOT_FOUND"):
                await health.Check(health_pb2.HealthCheckRequest(service="other"))
            reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
            wanted = [
                reflection_pb2.ServerReflectionRequest(list_services=""),
                reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
            ]
            listed, file = [each async for each in reflection.ServerReflectionInfo(iter(wanted))]
            assert SERVICE in {each.name for each in listed.list_services_response.service}
            assert wire.DESCRIPTOR.serialized_pb in file.file_descriptor_response.file_descriptor_proto
            await channel.close()

    run(main())


def test_every_option_is_one_that_grpc_knows() -> None:
    """A name that it does not know is passed over in silence: a silent device was hung up on after two minutes."""
    library = Path(cygrpc.__file__).read_bytes()
    for name, _ in _options(Limits()):
        if name != "grpc.so_reuseport":
            assert name.encode() + b"\0" in library, name
