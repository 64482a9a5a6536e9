"""The registry's channels as signed releases: what a channel points to is what its devices are offered.

A move in the registry and its release are two steps, and a process may die between them. So the release is made from
the history: whoever calls :func:`offered`, as often as they like, brings the releases to where the channels point, and
a release tells which move it was made from. Its number only grows, also where a channel goes back: the old artefact is
offered again under a higher one.
"""

from __future__ import annotations

import json
from typing import Any

from duetto.cloud.registry import CHANNELS, Move, Version
from duetto.cloud.releases import Release
from duetto.cloud.site import Site
from duetto.errors import ConfigError, DataError
from duetto.protocols.channels import CANARY, MOVE, NUMBER, POLICY, SHARE, STABLE

MODEL, VECTOR, TELLS = "device", "vector", "policy"
"""The kinds of artefacts that a release is made from: what runs on a device, its self-test, its policy as JSON."""


def offered(site: Site, model: str, share: float | None = None) -> list[Release]:
    """Publish what the channels of a model point to, as far as it is not offered yet.

    Args:
        site: the cloud's folder.
        model: its name.
        share: of the devices that listen to the canary, from 0 to 1; None keeps the one that stable tells now.

    Returns:
        The releases that were made, which may be none.

    Raises:
        ConfigError: a share that is none, a key that is not here.
        DataError: a version without an artefact for devices; the releases are damaged.
    """
    if share is not None and not 0 <= share <= 1:
        raise ConfigError(f"a share of {share} of the devices", "give one from 0 to 1")
    made = []
    for channel in reversed(CHANNELS):  # stable first: who knows of no stable release cannot know of the canary
        history = site.registry.history(model, channel)
        if not history:
            continue
        there = _offers(site, model)
        now = there.get(channel)
        wanted = _share(there.get(STABLE)) if share is None else share
        current = now is not None and _told(now).get(MOVE) == history[-1].number
        if not (current and (channel != STABLE or _share(now) == wanted)):
            version = site.registry.version(model, history[-1].version)
            made.append(_publish(site, version, history[-1], wanted, there))
    return made


def version_of(site: Site, model: str, channel: str) -> int | None:
    """The number under which a channel's devices have what it points to; None where nothing is offered."""
    found = _offers(site, model).get(channel)
    return None if found is None else found.version


def _publish(site: Site, version: Version, move: Move, share: float, there: dict[str, Release]) -> Release:
    if MODEL not in version.artefacts:
        raise DataError(f"version {version.number} of {version.model} runs on no device", f"add its {MODEL} artefact")
    blobs, artefact = site.registry.blobs, version.artefacts[MODEL]
    told: dict[str, Any] = {MOVE: move.number, NUMBER: version.number}
    if TELLS in version.artefacts:
        told[POLICY] = json.loads(blobs.get(version.artefacts[TELLS].digest))
    if move.channel == STABLE:
        told[SHARE] = share
    highest = max((each.version for each in there.values()), default=0)
    now, other = there.get(move.channel), there.get(CANARY if move.channel == STABLE else STABLE)
    number = highest + 1
    # What the canary has tried goes to all under its number: who has it already fetches nothing.
    if other is not None and _told(other).get(NUMBER) == version.number and other.version > (now.version if now else 0):
        number = other.version
    vector, tolerance = None, 1e-3
    if VECTOR in version.artefacts:
        vector = blobs.get(version.artefacts[VECTOR].digest)
        tolerance = float(version.trained_from.get("tolerance", tolerance))
    return site.releases.publish(
        version.model,
        number,
        move.channel,
        blobs.get(artefact.digest),
        vector=vector,
        tolerance=tolerance,
        olds=sorted({each.sha256 for each in there.values()}),
        told=told,
    )


def _offers(site: Site, model: str) -> dict[str, Release]:
    return {each.channel: each for each in site.releases.releases() if each.model == model}


def _told(release: Release) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(release.told.get("told", "{}"))
    return found


def _share(release: Release | None) -> float:
    from duetto.protocols.channels import share

    return 0.0 if release is None else share(_told(release))
