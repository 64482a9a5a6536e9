"""The fleet: who is online, with what; who may come, and who not any longer."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from duetto.cloud.admin.access import NOT_THERE, Acting, Cloud, DeviceName, Viewing, Why, doing
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
    version: int | None = Field(description="of the model that it had when it connected, if it said so")


class Fleet(BaseModel):
    """A page of the fleet, by name."""

    devices: list[FleetDevice]
    online: int = Field(description="devices that are connected, in the whole fleet")
    admitted: int
    revoked: int
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


@api.get("/fleet")
def fleet(
    cloud: Cloud,
    who: Viewing,
    state: Literal["all", "online", "offline", "admitted", "revoked"] = "all",
    prefix: Annotated[str, Query(pattern=r"^[^\x00]{0,63}$", description="with which names begin")] = "",
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> Fleet:
    """The devices: who is online, with what, when last seen, and who is revoked."""
    enrolment, present = cloud.site.enrolment, cloud.presence.all()
    admitted, revoked = enrolment.counts()
    if state in {"online", "offline"}:  # who is here is another table's, and the keys of many names are few
        known = enrolment.devices(prefix, revoked=False)
    else:
        known = enrolment.devices(
            prefix, revoked=None if state == "all" else state == "revoked", offset=offset, limit=limit + 1
        )
    rows = [_row(asdict(each), present.get(each.name) if each.revoked is None else None) for each in known]
    if state in {"online", "offline"}:
        named = {row.name for row in rows}
        strangers = [each for name, each in sorted(present.items()) if name not in named and name.startswith(prefix)]
        rows += [_row({"name": each.device}, each) for each in strangers]
        rows = [row for row in rows if row.online == (state == "online")][offset : offset + limit + 1]
    more = offset + limit if len(rows) > limit else None
    return Fleet(devices=rows[:limit], online=len(present), admitted=admitted, revoked=revoked, next=more)


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
    return FleetDevice.model_validate({**enrolled, **session, "online": here is not None})
