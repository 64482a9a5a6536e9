"""An authority follows another one; at no moment is a device or the server shut out that was told in time."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from duetto.cloud.service import Service, named
from duetto.cloud.site import Site
from duetto.cloud.succession import announce, names, retire, switch
from duetto.device.runner import Connection
from duetto.errors import ConfigError
from duetto.transport.grpc import Client, Server
from duetto.transport.identity import Authority, Credentials, fingerprint, made_key, requested
from duetto.transport.party import Running
from duetto.transport.session import Greeting
from duetto.types import Party


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path / "cloud")
    Authority.make(made.folder / "authority")
    made.certify(("127.0.0.1",))
    return made


def device(site: Site) -> Credentials:
    """One that is enrolled now."""
    key = made_key()
    authority = site.authority
    return Credentials(key, authority.sign(requested(key, "phone-1"), "phone-1"), authority.certificate)


def met(site: Site, *devices: Credentials) -> list[bool]:
    """Which of them the server, as it is now, comes to talk with, over TLS."""

    async def connected(port: int, own: Credentials) -> bool:
        client = Client(f"127.0.0.1:{port}", credentials=own)
        connection = Connection(Greeting("phone-1"), Running(Party(), "phone-1"))
        connection.dial = lambda: client.talk(3.0)
        kept = asyncio.ensure_future(connection.keep())
        with suppress(TimeoutError):
            async with asyncio.timeout(3.0):
                while not connection.cloud.connected:
                    await asyncio.sleep(0.01)
        met = connection.cloud.connected
        kept.cancel()
        await asyncio.gather(kept, return_exceptions=True)
        await client.close()
        return met

    async def main() -> list[bool]:
        service = Service(Party(), admit=named)
        server = Server("127.0.0.1:0", service.accept, credentials=site.credentials)
        port = await server.start()
        found = [await connected(port, own) for own in devices]
        await server.stop()
        return found

    return asyncio.run(main())


def test_devices_that_were_told_are_at_no_moment_shut_out(site: Site) -> None:
    folder = site.folder / "authority"

    def next_phase(phase: Callable[[Path], None]) -> None:
        phase(folder)
        site.certify(names(site.credentials.certificate))

    first = device(site)
    assert met(site, first) == [True]
    next_phase(announce)
    told = device(site)
    assert met(site, first, told) == [True, True], "the old one signs as before"
    next_phase(switch)
    new = device(site)
    assert met(site, told, new) == [True, True]
    assert met(site, first) == [False], "it was never told of the authority that signs now"
    next_phase(retire)
    assert met(site, new) == [True]
    assert met(site, told) == [False], "its certificate is of the old one"
    assert names(site.credentials.certificate) == ("127.0.0.1",)


def test_phases_come_in_their_order(site: Site) -> None:
    folder = site.folder / "authority"
    for phase, fault in ((switch, "no next authority"), (retire, "no authority before this one")):
        with pytest.raises(ConfigError, match=fault):
            phase(folder)
    announce(folder)
    with pytest.raises(ConfigError, match="announced already"):
        announce(folder)
    with pytest.raises(ConfigError, match="does not sign yet"):
        retire(folder)
    switch(folder)
    with pytest.raises(ConfigError, match="still believed"):
        announce(folder)
    retire(folder)
    announce(folder)


def test_a_switch_that_was_killed_is_done_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = site.folder / "authority"
    announce(folder)
    coming = fingerprint((folder / "next" / "authority.pem").read_bytes())
    from duetto.cloud import succession

    real, left = succession.put, [1]

    def killed(path: Path, data: bytes, *, secret: bool = False) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        real(path, data, secret=secret)

    monkeypatch.setattr(succession, "put", killed)
    with pytest.raises(KeyboardInterrupt):
        switch(folder)
    monkeypatch.undo()
    switch(folder)
    assert fingerprint(Authority.load(folder).key) == coming
