"""How good answers are, how much is asked, how long it takes and what it costs: over time, by device, by release."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel

from duetto.cloud import quality
from duetto.cloud.admin.access import Administered, Cloud, Viewing
from duetto.cloud.admin.fleet import Prefix
from duetto.cloud.observed import Told
from duetto.cloud.quality import OfDevice, OfRelease, Quality

api = APIRouter(tags=["quality"])
SPANS = 60  # that a window is divided into, unless told otherwise


@dataclass(frozen=True)
class Window:
    """Of which time, of which devices, and of which release."""

    window: Annotated[float, Query(gt=0, le=366 * 86400, description="seconds, up to now")] = 3600.0
    prefix: Prefix = ""
    release: Annotated[int | None, Query(description="of the small model")] = None
    device: Annotated[str | None, Query(pattern=r"^[^\x00]{1,200}$", description="a whole name")] = None

    def told(self, cloud: Administered, until: float) -> Told:
        """What was told of it."""
        return quality.chosen(cloud.observed.told(), until - self.window, until, self.prefix, self.release, self.device)


Asked = Annotated[Window, Depends()]


class OverTime(BaseModel):
    """Figures for spans of a time, and for all of it in one."""

    spans: Quality
    whole: Quality
    releases: list[OfRelease]


class Devices(BaseModel):
    """Figures of devices, in the order that was asked for, which may be a part of them."""

    devices: list[OfDevice]
    all: int


By = Literal["device", "answers", "asked", "agreed", "right", "failed", "seconds", "bytes", "dollars", "last"]


@api.get("/quality")
def over_time(cloud: Cloud, who: Viewing, asked: Asked, spans: Annotated[int, Query(ge=1, le=500)] = SPANS) -> OverTime:
    """Figures over time, with quantiles over devices."""
    until = now(asked.window / spans)
    told = asked.told(cloud, until)
    return OverTime(
        spans=quality.over_time(told, until - asked.window, asked.window / spans, spans),
        whole=quality.over_time(told, until - asked.window, asked.window, 1),
        releases=quality.by_release(told),
    )


@api.get("/quality/devices")
def devices(
    cloud: Cloud,
    who: Viewing,
    asked: Asked,
    by: By = "agreed",
    falling: Annotated[bool, Query(description="the largest first")] = False,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
) -> Devices:
    """Figures of each device, the smallest first; those of which nothing is known come last."""
    found = quality.by_device(asked.told(cloud, now()))
    return Devices(devices=ordered(found, by, falling)[:limit], all=len(found))


def ordered(found: list[OfDevice], by: By, falling: bool) -> list[OfDevice]:
    """In the order of a figure; devices of which it is not known come last."""
    known = [each for each in found if getattr(each, by) is not None]
    return sorted(known, key=lambda each: getattr(each, by), reverse=falling) + [
        each for each in found if getattr(each, by) is None
    ]


def now(step: float = 1.0) -> float:
    """The end of the span that it is now: so that spans stay where they are from look to look."""
    return (time.time() // step + 1) * step
