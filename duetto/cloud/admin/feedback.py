"""What devices have sent: counts, gaps, and forgetting."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from duetto.cloud.admin.access import Acting, Cloud, DeviceName, Viewing, Why, doing

api = APIRouter(tags=["feedback"])


class Counts(BaseModel):
    """Entries that were kept, by device and kind."""

    devices: dict[str, dict[str, int]]


class MissingEntries(BaseModel):
    """Numbers of a session that have not come, though a later one has."""

    device: str
    session: str = Field(description="in hex")
    first: int
    last: int
    told: bool = Field(description="the device has said that it dropped them; else they are on their way, or lost")


class Forgotten(BaseModel):
    """What was deleted."""

    entries: int


@api.get("/feedback")
def feedback(cloud: Cloud, who: Viewing) -> Counts:
    """How many entries there are, by device and kind."""
    return Counts(devices=cloud.site.feedback.counts())


@api.get("/feedback/gaps")
def gaps(
    cloud: Cloud, who: Viewing, device: Annotated[str | None, Query(pattern=r"^[^\x00]{1,200}$")] = None
) -> list[MissingEntries]:
    """Entries that have not come though later ones have; those that a device dropped, apart."""
    return [
        MissingEntries(device=gap.device, session=gap.session.hex(), first=gap.first, last=gap.last, told=gap.told)
        for gap in cloud.site.feedback.gaps(device)
    ]


@api.post("/feedback/{name}/forget")
def forget(cloud: Cloud, who: Acting, name: DeviceName, body: Why) -> Forgotten:
    """Delete all that a device has sent; what it sends again of it stays forgotten."""
    with doing(cloud, who, "forget", device=name, why=body.why):
        return Forgotten(entries=cloud.site.feedback.forget(name))
