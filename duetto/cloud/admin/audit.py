"""Who did what, and who may."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from duetto.cloud.admin.access import Acting, Cloud, Viewing
from duetto.cloud.audit import Checked, Line
from duetto.cloud.operators import Operator

api = APIRouter(tags=["audit"])


class Said(BaseModel):
    """Lines of the audit log, the newest first."""

    lines: list[Line]
    next: int | None = Field(description="`before` of the next page, if there is one")


@api.get("/operators")
def operators(cloud: Cloud, who: Acting) -> list[Operator]:
    """Who has, or had, a token. They are given out and taken back on the command line only."""
    return list(cloud.site.operators.all())


@dataclass(frozen=True)
class Whose:
    """Which lines are asked about."""

    by: Annotated[str, Query(max_length=100, description="what is in the name of who did it")] = ""
    action: Annotated[str, Query(max_length=100, description="what was done, such as promote")] = ""


@api.get("/audit")
def audit(
    cloud: Cloud,
    who: Viewing,
    whose: Annotated[Whose, Depends()],
    before: Annotated[int | None, Query(ge=1, description="only lines below this number")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Said:
    """Who did what, and when; the newest first."""
    found = cloud.site.audit.newest(limit + 1, before, who=whose.by, action=whose.action)
    return Said(lines=found[:limit], next=found[limit - 1].number if len(found) > limit else None)


@api.get("/audit/check")
def check(
    cloud: Cloud,
    who: Viewing,
    known: Annotated[
        str | None, Query(pattern="^[0-9a-f]{64}$", description="a hash that was the newest once, kept elsewhere")
    ] = None,
) -> Checked:
    """Whether the audit log is what it was."""
    return cloud.site.audit.check(known)
