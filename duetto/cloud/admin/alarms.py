"""What is to be looked at now."""

from __future__ import annotations

from fastapi import APIRouter

from duetto.cloud.admin.access import Cloud, Viewing
from duetto.cloud.alarms import Alarm
from duetto.cloud.alarms import alarms as told_now

api = APIRouter(tags=["alarms"])


@api.get("/alarms")
def alarms(cloud: Cloud, who: Viewing) -> list[Alarm]:
    """What is to be looked at, the worst first; nothing where all is well."""
    return told_now(cloud.site, cloud.observed.told(), cloud.counters)
