"""Who somebody is: a key that never leaves its device, and a certificate in which the fleet's authority names it.

Keys are ECDSA on P-256. Ed25519 would be shorter, but gRPC's TLS (BoringSSL) offers no such signature and ends the
handshake (``NO_COMMON_SIGNATURE_ALGORITHMS``; tests/transport/test_identity.py tries both). A device's name stands in
its certificate as the URI ``urn:duetto:device:NAME``; what else a request asks for is not looked at.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from duetto.errors import ConfigError, DataError
from duetto.transport.files import put

_DEVICE = "urn:duetto:device:"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_LIMIT = 1 << 16  # bytes of PEM; a certificate of ours has about 700
_EARLY = timedelta(hours=1)  # so much may a device's clock be slow when it is enrolled


@dataclass(frozen=True)
class Credentials:
    """What a party shows, and whom it believes.

    Attributes:
        key: PEM (PKCS8).
        certificate: PEM, of that key.
        authority: PEM of the authority's certificate; of two, one after the other, while one follows the other.

    Raises:
        DataError: no such PEM, a certificate of another key, or one that this authority has not signed.
    """

    key: bytes = field(repr=False)
    certificate: bytes
    authority: bytes

    def __post_init__(self) -> None:
        _agree(self.key, self.certificate, self.authority)

    @property
    def name(self) -> str:
        """The device's; see :func:`name_of`."""
        return name_of(self.certificate)

    def due(self, now: datetime | None = None) -> bool:
        """Whether it is time for the next certificate: two thirds of this one's are over."""
        own = _certificate(self.certificate)
        lasts = own.not_valid_after_utc - own.not_valid_before_utc
        return (now or datetime.now(UTC)) >= own.not_valid_before_utc + lasts * 2 / 3

    def save(self, folder: Path | str) -> None:
        """Write ``key.pem`` (mode 0600), ``authority.pem`` and ``certificate.pem``."""
        put(Path(folder) / "key.pem", self.key, secret=True)
        put(Path(folder) / "authority.pem", self.authority)
        put(Path(folder) / "certificate.pem", self.certificate)

    @classmethod
    def load(cls, folder: Path | str, now: datetime | None = None, *, current: bool = True) -> Credentials:
        """Read what :meth:`save` has written.

        Args:
            folder: where.
            now: the time; the clock's by default.
            current: whether the certificate must hold now; one that does not is refused by TLS in any case.

        Raises:
            ConfigError: a file is missing, others may read the key, or the certificate does not hold now.
            DataError: the files do not belong together.
        """
        folder = Path(folder)
        read = cls(*(_read(folder / f"{name}.pem", name == "key") for name in ("key", "certificate", "authority")))
        if current:
            _current(read.certificate, folder / "certificate.pem", now)
        return read


@dataclass(frozen=True)
class Authority:
    """Who names the servers and the devices of a fleet.

    Attributes:
        key: PEM; whoever has it can be anybody in the fleet.
        certificate: PEM, signed by that key; every party has it.

    Raises:
        DataError: no such PEM, or a certificate of another key.
    """

    key: bytes = field(repr=False)
    certificate: bytes

    def __post_init__(self) -> None:
        _agree(self.key, self.certificate, self.certificate)

    @classmethod
    def make(cls, folder: Path | str, days: float = 3650, now: datetime | None = None) -> Authority:
        """A new one, in ``authority.key`` (mode 0600) and ``authority.pem``.

        Raises:
            ConfigError: there is one already.
        """
        folder = Path(folder)
        if (folder / "authority.key").exists():
            raise ConfigError(f"there is an authority in {folder}", "load it, or name another folder")
        key = made_key()
        own = _private(key)
        unsigned = _begun("duetto authority", own.public_key(), days, now)
        for extension, critical in (
            (x509.BasicConstraints(ca=True, path_length=0), True),
            (_usage(signs=True), True),
            (x509.SubjectKeyIdentifier.from_public_key(own.public_key()), False),
        ):
            unsigned = unsigned.add_extension(extension, critical)
        made = cls(key, _pem(unsigned.issuer_name(_called("duetto authority")).sign(own, hashes.SHA256())))
        put(folder / "authority.key", made.key, secret=True)
        put(folder / "authority.pem", made.certificate)
        return made

    @classmethod
    def load(cls, folder: Path | str, now: datetime | None = None) -> Authority:
        """Read what :meth:`make` has written.

        Raises:
            ConfigError: a file is missing, others may read the key, or the certificate does not hold now.
            DataError: the files do not belong together.
        """
        folder = Path(folder)
        read = cls(_read(folder / "authority.key", secret=True), _read(folder / "authority.pem"))
        _current(read.certificate, folder / "authority.pem", now)
        return read

    def server(self, names: Sequence[str], days: float = 90, now: datetime | None = None) -> Credentials:
        """A server's, who answers to these DNS names and IP addresses; its key is made here.

        Raises:
            ConfigError: no names, or one that is neither.
        """
        if not names:
            raise ConfigError("a server without names", "name what devices will connect to, such as cloud.example")
        key = made_key()
        alternatives = x509.SubjectAlternativeName([_host(name) for name in names])
        public = _private(key).public_key()
        signed = self._signed(names[0], public, alternatives, ExtendedKeyUsageOID.SERVER_AUTH, days, now)
        return Credentials(key, signed, self.certificate)

    def sign(self, request: bytes, name: str, days: float = 90, now: datetime | None = None) -> bytes:
        """A device's certificate: PEM, with a serial number drawn by the operating system (159 bits).

        Args:
            request: what :func:`requested` has made on the device. Only its key is taken from it.
            name: the device's, which the caller has made sure of.
            days: for which the certificate holds; from an hour ago, for slow clocks.
            now: the time; the clock's by default.

        Raises:
            ConfigError: no such name can be.
            DataError: no request, of another kind of key, or not signed by its key.
        """
        uri = x509.UniformResourceIdentifier(_DEVICE + checked(name))
        alternatives = x509.SubjectAlternativeName([uri])
        return self._signed(name, _asked(request), alternatives, ExtendedKeyUsageOID.CLIENT_AUTH, days, now)

    def _signed(
        self,
        name: str,
        public: ec.EllipticCurvePublicKey,
        alternatives: x509.SubjectAlternativeName,
        purpose: x509.ObjectIdentifier,
        days: float,
        now: datetime | None,
    ) -> bytes:
        own = _private(self.key)
        unsigned = _begun(name[:64], public, days, now)
        for extension, critical in (
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_usage(signs=False), True),
            (x509.ExtendedKeyUsage([purpose]), False),  # a stolen device is no server
            (alternatives, False),
            (x509.SubjectKeyIdentifier.from_public_key(public), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(own.public_key()), False),
        ):
            unsigned = unsigned.add_extension(extension, critical)
        return _pem(unsigned.issuer_name(_certificate(self.certificate).subject).sign(own, hashes.SHA256()))


def made_key() -> bytes:
    """A new P-256 key: PEM (PKCS8, not encrypted)."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def requested(key: bytes, name: str) -> bytes:
    """A request for a certificate (PKCS10, PEM) by a device of this name, signed by its key.

    Raises:
        ConfigError: no such name can be.
        DataError: no such key.
    """
    asked = x509.CertificateSigningRequestBuilder().subject_name(_called(checked(name)))
    return asked.sign(_private(key), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def checked(name: str) -> str:
    """A device's name, if it can be one: up to 63 letters, digits, dots, dashes and underscores.

    Raises:
        ConfigError: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"a device named {name[:80]!r}", "use up to 63 letters, digits, '.', '-' and '_'")
    return name


def name_of(certificate: bytes) -> str:
    """The device that a certificate (PEM) names. Whether it is to be believed, TLS has to say.

    Raises:
        DataError: no certificate, or not of one device.
    """
    try:
        names = _certificate(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        uris = []
    found = [uri.removeprefix(_DEVICE) for uri in uris if uri.startswith(_DEVICE)]
    if len(found) != 1 or not _NAME.fullmatch(found[0]):
        raise DataError("a certificate that names no device", "enrol the device")
    return found[0]


def requested_name(request: bytes) -> str:
    """The device that a request is for.

    Raises:
        ConfigError: no such name can be.
        DataError: no request, or without a name.
    """
    found = _request(request).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(found) != 1:
        raise DataError("a request without one name", "make it with duetto.transport.identity.requested")
    return checked(str(found[0].value))


def fingerprint(pem: bytes) -> str:
    """The SHA-256 (hex) of the public key in a certificate, a request or a private key: the same for all three.

    Raises:
        DataError: none of these, or a request that its key has not signed.
    """
    if b"CERTIFICATE REQUEST" in pem[:64]:
        public = _asked(pem)
    elif b"PRIVATE KEY" in pem[:64]:
        public = _private(pem).public_key()
    else:
        public = _public(_certificate(pem))
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(public.public_bytes(serialization.Encoding.DER, form)).hexdigest()


def serial(certificate: bytes) -> str:
    """A certificate's serial number, in hex.

    Raises:
        DataError: no certificate.
    """
    return f"{_certificate(certificate).serial_number:x}"


def _agree(key: bytes, certificate: bytes, authority: bytes) -> None:
    """A key, its certificate and who has signed it belong together."""
    own, signed = _private(key), _certificate(certificate)
    if _public(signed) != own.public_key():
        raise DataError("a certificate of another key", "keep key and certificate together; enrol again if one is lost")
    for each in _parts(authority):
        try:
            signed.verify_directly_issued_by(each)
        except (InvalidSignature, ValueError, TypeError):
            continue
        return
    raise DataError("a certificate that this authority has not signed", "take the authority.pem of its own fleet")


def _current(certificate: bytes, path: Path, now: datetime | None) -> None:
    """It holds now."""
    own, now = _certificate(certificate), now or datetime.now(UTC)
    if now > own.not_valid_after_utc:
        raise ConfigError(f"{path} has expired on {own.not_valid_after_utc:%Y-%m-%d}", "enrol again, or mend the clock")
    if now < own.not_valid_before_utc:
        raise ConfigError(f"{path} holds from {own.not_valid_before_utc:%Y-%m-%d} on", "mend the clock of this machine")


def _read(path: Path, secret: bool = False) -> bytes:
    """What is in a file; a secret one must be its owner's alone."""
    try:
        with path.open("rb") as file:
            if secret and os.name == "posix" and stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise ConfigError(f"others may read the key {path}", f"chmod 600 {path}; replace it if others have")
            return file.read(_LIMIT)
    except OSError as fault:
        raise ConfigError(
            f"{path} cannot be read ({fault.strerror})", "enrol this device, or name its folder"
        ) from fault


def _parts(pem: bytes) -> list[x509.Certificate]:
    """All the certificates of a file."""
    try:
        return x509.load_pem_x509_certificates(pem[:_LIMIT])
    except ValueError as fault:
        raise DataError("no certificate", "give PEM: -----BEGIN CERTIFICATE-----") from fault


def _certificate(pem: bytes) -> x509.Certificate:
    return _parts(pem)[0]


def _request(pem: bytes) -> x509.CertificateSigningRequest:
    try:
        return x509.load_pem_x509_csr(pem[:_LIMIT])
    except ValueError as fault:
        raise DataError("no request for a certificate", "make it with duetto.transport.identity.requested") from fault


def _asked(pem: bytes) -> ec.EllipticCurvePublicKey:
    """The key of a request, which has signed it: whoever asks has it."""
    request = _request(pem)
    public = _public(request)
    if not request.is_signature_valid:
        raise DataError("a request that its key has not signed", "make it on the device that has the key")
    return public


def _public(signed: x509.Certificate | x509.CertificateSigningRequest) -> ec.EllipticCurvePublicKey:
    try:
        return _p256(signed.public_key())
    except (ValueError, UnsupportedAlgorithm) as fault:
        raise DataError("a key of an unknown kind", "use ECDSA on P-256") from fault


def _private(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem[:_LIMIT], None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as fault:
        raise DataError("no private key", "give PEM (PKCS8), not encrypted") from fault
    _p256(key)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _p256(key: object) -> ec.EllipticCurvePublicKey:
    """Its public part, if that is what it is."""
    public = key.public_key() if isinstance(key, ec.EllipticCurvePrivateKey) else key
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise DataError(f"a key of another kind ({type(key).__name__})", "use ECDSA on P-256")
    return public


def _begun(name: str, key: ec.EllipticCurvePublicKey, days: float, now: datetime | None) -> x509.CertificateBuilder:
    if not 0 < days <= 36500:
        raise ConfigError(f"a certificate for {days} days", "use up to 36500")
    start = (now or datetime.now(UTC)) - _EARLY
    return (
        x509.CertificateBuilder()
        .subject_name(_called(name))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + _EARLY + timedelta(days=days))
    )


def _called(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(signs: bool) -> x509.KeyUsage:
    """For signatures in a handshake, or on certificates."""
    return x509.KeyUsage(not signs, False, False, False, False, signs, signs, False, False)


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    if not re.fullmatch(r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]{0,250}[A-Za-z0-9])?", name):
        raise ConfigError(f"a server named {name[:80]!r}", "use DNS names or IP addresses, without a port")
    return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
