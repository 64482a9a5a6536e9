"""A version that the canary tries, beside the one that all others have, and what the rule says of it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from duetto.cloud.channels import version_of
from duetto.cloud.promotion import Compared, Promotion, Verdict, record
from duetto.cloud.registry import Version
from duetto.cloud.site import Site
from duetto.protocols.channels import CANARY, STABLE
from duetto.protocols.deliver import RECORD


@dataclass(frozen=True)
class Trial:
    """A trial that goes on.

    Attributes:
        model: whose.
        canary, stable: the versions that are compared.
        releases: the numbers under which devices have them.
        since: when the canary got its version, seconds since 1970.
        heard: answers of the cloud to devices that try it, as far as they count.
        devices: that were heard, which try it.
        shares: those that decide, as they stand.
        verdict: of the rule.
    """

    model: str
    canary: int
    stable: int
    releases: tuple[int, int]
    since: float
    heard: int
    devices: int
    shares: list[Compared]
    verdict: Verdict


def tried(site: Site, model: str) -> Version | None:
    """The version that the canary has, and stable not; None where they have the same, or one has none."""
    canary, stable = (site.registry.channel(model, channel) for channel in (CANARY, STABLE))
    return canary if canary is not None and stable is not None and canary.number != stable.number else None


def trial(site: Site, model: str, rule: Promotion) -> Trial | None:
    """The trial of a model; None where nothing is tried, or it is not offered to devices yet.

    Args:
        site: the cloud's.
        model: its name.
        rule: by which it is judged.

    Raises:
        DataError: the database cannot be reached, or the releases are damaged.
    """
    found, stable = tried(site, model), site.registry.channel(model, STABLE)
    if found is None or stable is None:
        return None
    canary_release, stable_release = (version_of(site, model, channel) for channel in (CANARY, STABLE))
    if canary_release is None or stable_release is None:
        return None
    since = site.registry.history(model, CANARY)[-1].unix_seconds
    records = site.feedback.arrivals(int(found.trained_from.get("upto", 0)), (RECORD,))
    said = [each for kept in records if (each := record(kept.device, kept.body)) is not None]
    counted = [each for each in rule.counted(said, canary_release) if each.agreed is not None]
    return Trial(
        model=model,
        canary=found.number,
        stable=stable.number,
        releases=(canary_release, stable_release),
        since=since,
        heard=len(counted),
        devices=len({each.device for each in counted}),
        shares=rule.compared(said, canary_release, stable_release),
        verdict=rule.judged(said, canary_release, stable_release, time.time() - since),
    )
