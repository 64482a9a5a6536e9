"""A fleet's authority follows another one without a device being shut out, in three phases that an operator begins.

*Announce*: whoever enrols from now on believes the old one and the new one. *Switch*, once all have done so (a device's
certificate holds 90 days): the new one signs, and both are believed. *Retire*, once no certificate of the old one holds
any longer: the new one alone. After each phase the server gets a certificate anew, and its processes start again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from duetto.errors import ConfigError
from duetto.transport.files import alone, put
from duetto.transport.identity import Authority, fingerprint


def announce(folder: Path) -> None:
    """Make the next authority, and have it believed beside the present one.

    Args:
        folder: of the authority.

    Raises:
        ConfigError: a succession is under way.
    """
    with alone(folder, wait=True):
        now = Authority.load(folder)
        if len(_parts(now.certificate)) > 1 and not (folder / "next" / "authority.key").exists():
            raise ConfigError("the authority before this one is still believed", "retire it first")
        if len(_parts(now.certificate)) > 1:
            raise ConfigError("the next authority is announced already", "switch to it, once all devices believe it")
        if not (folder / "next" / "authority.pem").exists():  # else a crash came between
            Authority.make(folder / "next")
        put(folder / "authority.pem", now.certificate + Authority.load(folder / "next").certificate)


def switch(folder: Path) -> None:
    """Let the next authority sign from now on; both are believed.

    Raises:
        ConfigError: none is announced.
    """
    with alone(folder, wait=True):
        if not (folder / "next" / "authority.pem").exists():
            raise ConfigError("no next authority", "announce it first, and switch once all devices believe it")
        new = Authority.load(folder / "next")
        believed = _parts((folder / "authority.pem").read_bytes())
        old = [part for part in believed if fingerprint(part) != fingerprint(new.certificate)]
        if len(old) == len(believed):
            raise ConfigError("a next authority that nobody was told of", "announce it first")
        # Whenever this is killed, it can be done again: what is needed for it goes last
        put(folder / "authority.key", new.key, secret=True)
        put(folder / "authority.pem", new.certificate + b"".join(old))
        (folder / "next" / "authority.key").unlink()
        (folder / "next" / "authority.pem").unlink()


def retire(folder: Path) -> None:
    """Believe the authority before this one no longer.

    Raises:
        ConfigError: there is none, or the next one does not sign yet.
    """
    with alone(folder, wait=True):
        now = Authority.load(folder)
        if (folder / "next" / "authority.pem").exists():
            raise ConfigError("the next authority does not sign yet", "switch to it first")
        if len(_parts(now.certificate)) == 1:
            raise ConfigError("no authority before this one is believed", "nothing is to be done")
        put(folder / "authority.pem", _parts(now.certificate)[0])


PHASES: Mapping[str, Callable[[Path], None]] = {"announce": announce, "switch": switch, "retire": retire}


def names(certificate: bytes) -> tuple[str, ...]:
    """The DNS names and IP addresses that a server's certificate (PEM) is for."""
    found = x509.load_pem_x509_certificate(certificate).extensions
    told = found.get_extension_for_class(x509.SubjectAlternativeName).value
    return (*told.get_values_for_type(x509.DNSName), *map(str, told.get_values_for_type(x509.IPAddress)))


def _parts(pem: bytes) -> list[bytes]:
    return [each.public_bytes(serialization.Encoding.PEM) for each in x509.load_pem_x509_certificates(pem)]
