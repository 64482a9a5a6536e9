"""A device becomes one of a fleet: its key is made here and never leaves, the cloud signs whose it is."""

from __future__ import annotations

from pathlib import Path

from duetto.device.updater import Refused
from duetto.errors import ConfigError
from duetto.transport.channel import Lost
from duetto.transport.grpc import Client
from duetto.transport.identity import Credentials, made_key, requested


async def enrolled(state: str | Path, *, cloud: str, token: str, name: str, authority: bytes) -> Credentials:
    """Make a key in the folder, and have the cloud sign that it is this device's; the key stays here.

    Args:
        state: the device's folder.
        cloud: the address where the cloud enrols, such as ``cloud.example:8444``.
        token: what ``duetto cloud enroll`` printed; it can be used once.
        name: of the device.
        authority: PEM of the fleet's authority, by which the cloud is known.

    Raises:
        Refused: the cloud does not take the token.
        ConfigError: there is a certificate here already.
    """
    folder = Path(state)
    if (folder / "certificate.pem").exists():
        raise ConfigError(f"{folder} has a certificate already", "name another folder, or move the old one away")
    key = made_key()
    asked = Client(cloud, credentials=authority)
    try:
        certificate, signed_by, root = await asked.enrol(token, requested(key, name))
    except Lost as lost:
        remedy = "ask for a new token: duetto cloud enroll" if lost.final else f"does a cloud enrol at {cloud}?"
        raise Refused(f"not enrolled: {lost.why}", remedy) from lost
    finally:
        await asked.close()
    made = Credentials(key, certificate, signed_by)
    made.save(folder)
    if root:
        (folder / "root.json").write_bytes(root)
    return made
