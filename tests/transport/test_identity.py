"""Who somebody is: certificates that a real gRPC server and client believe, and those that they do not."""

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from duetto.errors import ConfigError, DataError
from duetto.transport import identity
from duetto.transport.identity import Authority, Credentials, fingerprint, made_key, name_of, requested

grpc = pytest.importorskip("grpc")
SPOKEN = "/test/who"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Of the fleet."""
    return Authority.make(tmp_path_factory.mktemp("authority"))


def device(authority: Authority, name: str = "phone-7", **options: Any) -> Credentials:
    """Enrolled."""
    key = made_key()
    return Credentials(key, authority.sign(requested(key, name), name, **options), authority.certificate)


def pem(key: Any) -> bytes:
    """A private key's."""
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


async def who(server: Any, believed: bytes, client: Any, target: str = "localhost") -> str:
    """What a server's certificates and a client's come to: the name that the server sees, or the status."""

    async def answered(request: bytes, context: Any) -> bytes:
        certificate = context.auth_context()["x509_pem_cert"][0]
        return f"{name_of(certificate)} {fingerprint(certificate)}".encode()

    served = grpc.aio.server()
    handlers = {"who": grpc.unary_unary_rpc_method_handler(answered)}
    served.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", handlers),))
    port = served.add_secure_port("localhost:0", grpc.ssl_server_credentials([server], believed, True))
    await served.start()
    try:
        async with grpc.aio.secure_channel(f"{target}:{port}", grpc.ssl_channel_credentials(*client)) as channel:
            return (await channel.unary_unary(SPOKEN)(b"", timeout=10)).decode()
    except grpc.aio.AioRpcError as fault:
        return fault.code().name
    finally:
        await served.stop(0)


def asked(server: Credentials, client: Credentials, **options: Any) -> str:
    """The same with ours on both sides."""
    ours = (client.authority, client.key, client.certificate)
    return asyncio.run(who((server.key, server.certificate), server.authority, ours, **options))


def test_a_server_sees_which_device_speaks(authority: Authority) -> None:
    phone = device(authority)
    assert asked(authority.server(["localhost"]), phone) == f"phone-7 {fingerprint(phone.key)}"
    assert asked(authority.server(["127.0.0.1"]), phone, target="127.0.0.1").startswith("phone-7 ")


def test_who_is_not_of_the_fleet_is_not_heard(authority: Authority, tmp_path: Path) -> None:
    server, phone = authority.server(["localhost"]), device(authority)
    other = Authority.make(tmp_path)
    stranger = device(other)
    # devices of another fleet, with this server's authority; servers of another; names that are not the server's
    assert asked(server, as_shown(stranger, authority)) == "UNAVAILABLE"
    assert asked(as_shown(other.server(["localhost"]), authority), phone) == "UNAVAILABLE"
    assert asked(authority.server(["cloud.example"]), phone) == "UNAVAILABLE"
    # a device's certificate makes no server, a server's no device, and one that has expired nothing
    assert asked(phone, phone) == "UNAVAILABLE"
    assert asked(server, server) == "UNAVAILABLE"
    past = datetime.now(UTC) - timedelta(days=2)
    assert asked(server, device(authority, days=1, now=past)) == "UNAVAILABLE"
    assert asked(authority.server(["localhost"], days=1, now=past), phone) == "UNAVAILABLE"


def as_shown(own: Credentials, authority: Authority) -> Any:
    """A key and a certificate beside another's authority, which our own class refuses to hold."""
    shown = object.__new__(Credentials)
    for name, value in (("key", own.key), ("certificate", own.certificate), ("authority", authority.certificate)):
        object.__setattr__(shown, name, value)
    return shown


def test_why_keys_are_p256(authority: Authority) -> None:
    """gRPC's BoringSSL ends a handshake with Ed25519 on either side; should that change, reconsider."""
    named = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "phone")])
    alternatives = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    now, own = datetime.now(UTC), serialization.load_pem_private_key(authority.key, None)
    assert isinstance(own, ec.EllipticCurvePrivateKey)
    edwards = ed25519.Ed25519PrivateKey.generate()
    signed = (
        x509.CertificateBuilder(x509.load_pem_x509_certificate(authority.certificate).subject, named)
        .public_key(edwards.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(1))
        .not_valid_after(now + timedelta(1))
        .add_extension(alternatives, critical=False)
        .sign(own, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    phone = device(authority)
    ours = (authority.certificate, phone.key, phone.certificate)
    assert asyncio.run(who((pem(edwards), signed), authority.certificate, ours)) == "UNAVAILABLE"


def test_plain_text_is_refused(authority: Authority) -> None:
    async def spoken() -> str:
        server = authority.server(["localhost"])
        served = grpc.aio.server()
        shown = grpc.ssl_server_credentials([(server.key, server.certificate)], authority.certificate, True)
        port = served.add_secure_port("localhost:0", shown)
        await served.start()
        try:
            async with grpc.aio.insecure_channel(f"localhost:{port}") as channel:
                await channel.unary_unary(SPOKEN)(b"", timeout=10)
        except grpc.aio.AioRpcError as fault:
            return str(fault.code().name)
        finally:
            await served.stop(0)
        return "heard"

    assert asyncio.run(spoken()) == "UNAVAILABLE"


def test_a_certificate_says_what_it_is_for(authority: Authority) -> None:
    phone = device(authority, days=30)
    read = x509.load_pem_x509_certificate(phone.certificate)
    names = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["urn:duetto:device:phone-7"]
    assert read.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert phone.name == name_of(phone.certificate) == "phone-7"
    assert (
        identity.serial(phone.certificate)
        == f"{read.serial_number:x}"
        != identity.serial(device(authority).certificate)
    )
    public = read.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(public)
    expected = digest.finalize().hex()
    assert (
        fingerprint(phone.certificate) == fingerprint(phone.key) == fingerprint(requested(phone.key, "x")) == expected
    )


def test_what_else_a_request_asks_for_is_not_given(authority: Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    greedy = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "boss")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("cloud.example")]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    signed = x509.load_pem_x509_certificate(authority.sign(greedy, "phone"))
    assert not signed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    names = signed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [each.value for each in names] == ["urn:duetto:device:phone"]
    assert signed.subject.rfc4514_string() == "CN=phone"


def test_requests_that_are_none(authority: Authority) -> None:
    request = requested(made_key(), "phone")
    lines = request.splitlines()
    forged = bytearray(x509.load_pem_x509_csr(request).public_bytes(serialization.Encoding.DER))
    forged[-1] ^= 1
    unsigned = x509.load_der_x509_csr(bytes(forged)).public_bytes(serialization.Encoding.PEM)
    weak = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    others = [
        weak.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())  # type: ignore[arg-type]
        for key in (rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate())
    ]
    for bad in (
        b"",
        b"no PEM",
        b"\n".join(lines[:3]),
        unsigned,
        *(each.public_bytes(serialization.Encoding.PEM) for each in others),
    ):
        with pytest.raises(DataError) as told:
            authority.sign(bad, "phone")
        assert "\n" not in str(told.value)
    with pytest.raises(DataError, match="without one name"):
        identity.requested_name(
            weak.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        )


@pytest.mark.parametrize("name", ["", "a b", "../x", "a/b", "-a", "a" * 64, "ü", "a\n", "a:b"])
def test_names_that_cannot_be(authority: Authority, name: str) -> None:
    with pytest.raises(ConfigError, match="a device named"):
        authority.sign(requested(made_key(), "phone"), name)
    with pytest.raises(ConfigError, match="a device named"):
        requested(made_key(), name)


def test_servers_that_cannot_be(authority: Authority) -> None:
    for names in ([], ["cloud.example:8443"], ["http://cloud"], [""]):
        with pytest.raises(ConfigError, match="a server"):
            authority.server(names)
    with pytest.raises(ConfigError, match="days"):
        authority.server(["cloud"], days=0)


def test_saved_is_loaded_and_the_key_is_its_owner_s(authority: Authority, tmp_path: Path) -> None:
    phone = device(authority)
    phone.save(tmp_path)
    assert Credentials.load(tmp_path) == phone
    assert sorted(path.name for path in tmp_path.iterdir()) == ["authority.pem", "certificate.pem", "key.pem"]
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600
    assert b"PRIVATE" not in repr(phone).encode()
    made = Authority.make(tmp_path / "a")
    assert (tmp_path / "a" / "authority.key").stat().st_mode & 0o777 == 0o600
    assert Authority.load(tmp_path / "a") == made
    with pytest.raises(ConfigError, match="there is an authority"):
        Authority.make(tmp_path / "a")


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_a_key_that_others_may_read_is_refused(authority: Authority, tmp_path: Path) -> None:
    device(authority).save(tmp_path)
    (tmp_path / "key.pem").chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        Credentials.load(tmp_path)


def test_files_that_do_not_belong_together(authority: Authority, tmp_path: Path) -> None:
    phone, other = device(authority), Authority.make(tmp_path / "other")
    with pytest.raises(DataError, match="another key"):
        Credentials(made_key(), phone.certificate, phone.authority)
    with pytest.raises(DataError, match="has not signed"):
        Credentials(phone.key, phone.certificate, other.certificate)
    both = other.certificate + authority.certificate  # while one follows the other
    assert Credentials(phone.key, phone.certificate, both).name == "phone-7"
    with pytest.raises(DataError, match="names no device"):
        name_of(authority.server(["cloud"]).certificate)
    for bad in (b"", b"\xff" * 9, phone.certificate):
        with pytest.raises(DataError, match="no private key"):
            Credentials(bad, phone.certificate, phone.authority)
    with pytest.raises(DataError, match="no certificate"):
        Credentials(phone.key, b"", phone.authority)
    for missing in ("key.pem", "certificate.pem", "authority.pem"):
        phone.save(tmp_path)
        (tmp_path / missing).unlink()
        with pytest.raises(ConfigError, match=missing):
            Credentials.load(tmp_path)


def test_time(authority: Authority, tmp_path: Path) -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    aged = Authority.make(tmp_path / "aged", now=now)
    phone = device(aged, days=90, now=now)
    assert not phone.due(now + timedelta(days=59))
    assert phone.due(now + timedelta(days=61))
    phone.save(tmp_path)
    assert Credentials.load(tmp_path, now - timedelta(minutes=59)) == phone  # a slow clock
    for at, said in ((now + timedelta(days=91), "has expired on 2030-04-01"), (now - timedelta(days=1), "holds from")):
        with pytest.raises(ConfigError, match=said):
            Credentials.load(tmp_path, at)
    with pytest.raises(ConfigError, match="has expired"):
        Authority.load(tmp_path / "aged", now + timedelta(days=3651))
