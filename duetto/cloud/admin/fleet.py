"""The fleet: who is online, with what; who may come, and who not any longer."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from duetto.cloud.admin.access import NOT_THERE, Acting, Administered, Cloud, DeviceName, Viewing, Why, doing
from duetto.cloud.presence import Present
from duetto.cloud.web import Refusal

api = APIRouter(tags=["fleet"])


class FleetDevice(BaseModel):
    """A device; times in seconds since 1970."""

    name: str
    fingerprint: str | None = Field(description="SHA-256 of its public key; none where the cloud runs --insecure")
    enrolled: float | None
    seen: float | None = Field(description="when it last connected, to the minute")
    revoked: float | None
    reason: str | None = Field(description="why it was revoked")
    online: bool = Field(description="connected to any process of this cloud")
    since: float | None = Field(description="when it came, while it is online")
    process: str | None = Field(description="to which process it is connected")
    software: str | None = Field(description="what it speaks with, as it says")
    profile: str | None = Field(description="what kind of device it is, if it said so")
    version: int | None = Field(description="release of its model, by its newest answer, else as it connected")


class Fleet(BaseModel):
    """A page of the fleet, by name."""

    devices: list[FleetDevice]
    online: int = Field(description="devices that are connected, in the whole fleet")
    admitted: int
    revoked: int
    versions: dict[str, int] = Field(description="devices that are connected, by the version of their model")
    profiles: dict[str, int] = Field(description="devices that are connected, by what kind they are")
    next: int | None = Field(description="the offset of the next page, if there is one")


class Asked(BaseModel):
    """For whom a token is."""

    device: str = Field(
        description="the name that may enrol, or a pattern such as phone-*",
        pattern=r"^[A-Za-z0-9*?][A-Za-z0-9._*?-]{0,62}$",
    )
    hours: float = Field(24.0, gt=0, le=24 * 365, description="for which it holds")


class Issued(BaseModel):
    """A token, which is told here and nowhere else."""

    token: str
    device: str
    hours: float
    authority: str = Field(description="PEM; the device needs it to know this cloud")


State = Literal["all", "online", "offline", "admitted", "revoked"]
Prefix = Annotated[str, Query(pattern=r"^[^\x00]{0,63}$", description="with which names begin")]


@dataclass(frozen=True)
class Which:
    """Which devices are asked about."""

    state: State = "all"
    prefix: Prefix = ""
    version: Annotated[int | None, Query(description="the release of their model")] = None
    profile: Annotated[str | None, Query(max_length=63, description="what kind of device they are")] = None


@api.get("/fleet")
def fleet(
    cloud: Cloud,
    who: Viewing,
    which: Annotated[Which, Depends()],
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> Fleet:
    """The devices: who is online, with what, when last seen, and who is revoked."""
    present = here(cloud)
    admitted, revoked = cloud.site.enrolment.counts()
    rows = chosen(cloud, which, present, offset, limit + 1)
    return Fleet(
        devices=rows[:limit],
        online=len(present),
        admitted=admitted,
        revoked=revoked,
        versions=_counted("none" if each.version is None else str(each.version) for each in present.values()),
        profiles=_counted(profile(each.software) or "not told" for each in present.values()),
        next=offset + limit if len(rows) > limit else None,
    )


def here(cloud: Administered) -> dict[str, Present]:
    """Who is connected, with the release that gave each one's newest answer."""
    known = cloud.observed.told().releases()
    return {name: replace(each, version=known.get(name, each.version)) for name, each in cloud.presence.all().items()}


def chosen(
    cloud: Administered, which: Which, present: Mapping[str, Present], offset: int = 0, limit: int | None = None
) -> list[FleetDevice]:
    """Devices by name, those that were asked about.

    Args:
        cloud: whose.
        which: they are.
        present: who is connected.
        offset, limit: leave so many out, and tell so many at most.
    """
    enrolment, state = cloud.site.enrolment, which.state
    # What only a connected device tells is another table's: the database cannot choose by it, nor count pages.
    live = state in {"online", "offline"} or which.version is not None or which.profile is not None
    gone = None if state == "all" else state == "revoked"
    if not live:
        known = enrolment.devices(which.prefix, revoked=gone, offset=offset, limit=limit)
        return [_row(asdict(each), None if each.revoked else present.get(each.name)) for each in known]
    rows = [_row(asdict(each), present.get(each.name)) for each in enrolment.devices(which.prefix, revoked=False)]
    named = {row.name for row in rows}
    strangers = [each for name, each in sorted(present.items()) if name not in named and name.startswith(which.prefix)]
    rows += [_row({"name": each.device}, each) for each in strangers]
    kept = [
        row
        for row in rows
        if (state not in {"online", "offline"} or row.online == (state == "online"))
        and which.version in (None, row.version)
        and which.profile in (None, row.profile)
        and state != "revoked"
    ]
    return kept[offset : None if limit is None else offset + limit]


def profile(software: str) -> str | None:
    """What kind of device speaks so: the comment behind its software, as in ``duetto 1 (pixel-7)``."""
    found = re.search(r"\(([^()]*)\)$", software)
    return found.group(1) if found else None


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


@api.get("/fleet/{name}", responses=NOT_THERE)
def device(cloud: Cloud, who: Viewing, name: DeviceName) -> list[FleetDevice]:
    """A device: the key that it has now, and those that it had."""
    present = cloud.presence.all().get(name)
    known = [each for each in cloud.site.enrolment.devices(name) if each.name == name]
    if not known and present is None:
        raise Refusal(404, f"no device {name}", "see the list of devices")
    rows = [_row(asdict(each), present if each.revoked is None else None) for each in known]
    return rows or [_row({"name": name}, present)]


@api.post("/fleet/{name}/revoke", responses=NOT_THERE)
async def revoke(cloud: Cloud, who: Acting, name: DeviceName, body: Why) -> FleetDevice:
    """Shut a device out; its key stays out, and its stream ends in every process within seconds."""

    def done() -> Any:
        with doing(cloud, who, "revoke", device=name, why=body.why):
            return cloud.site.enrolment.revoke(name, body.why)

    gone = await asyncio.to_thread(done)
    if cloud.service is not None:
        await cloud.service.revoke(name, f"{name} is revoked ({body.why}): enrol it anew")
    return _row(asdict(gone), None)


@api.post("/tokens", status_code=201)
def token(cloud: Cloud, who: Acting, body: Asked) -> Issued:
    """A token, by which one device can enrol, once."""
    with doing(cloud, who, "enroll", device=body.device, hours=body.hours):
        made = cloud.site.enrolment.token(body.device, issuer=who.name, hours=body.hours)
    authority = cloud.site.authority.certificate.decode()
    return Issued(token=made, device=body.device, hours=body.hours, authority=authority)


def _row(known: dict[str, Any], here: Present | None) -> FleetDevice:
    enrolled = {name: known.get(name) for name in ("name", "fingerprint", "enrolled", "seen", "revoked", "reason")}
    session = {name: getattr(here, name, None) for name in ("since", "process", "software", "version")}
    kind = None if here is None else profile(here.software)
    return FleetDevice.model_validate({**enrolled, **session, "profile": kind, "online": here is not None})
