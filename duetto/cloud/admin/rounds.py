"""Learning together: versions that came of federated rounds, and what each round was."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from duetto.cloud.admin.access import Cloud, Viewing

api = APIRouter(tags=["models"])


class Rounds(BaseModel):
    """The rounds that a version came of."""

    model: str
    version: int
    unix_seconds: float = Field(description="when it was made")
    replies: int = Field(description="of devices, in all rounds")
    rounds: list[dict[str, float]] = Field(description="of each: cohort, failed, seconds, up_bytes, metrics")
    gain: dict[str, float] | None = Field(description="on held-back inputs, of the mean over users, with its interval")


@api.get("/rounds")
def rounds(cloud: Cloud, who: Viewing) -> list[Rounds]:
    """Versions that devices made together, the newest first."""
    registry = cloud.site.registry
    found = [
        _rounds(name, each.number, each.unix_seconds, each.trained_from)
        for name in registry.models()
        for each in registry.versions(name)
        if "rounds" in each.trained_from
    ]
    return sorted(found, key=lambda each: -each.unix_seconds)


def _rounds(model: str, version: int, unix_seconds: float, told: Any) -> Rounds:
    return Rounds(
        model=model,
        version=version,
        unix_seconds=unix_seconds,
        replies=int(told.get("replies", 0)),
        rounds=list(told.get("log", [])),
        gain=told.get("metrics", {}).get("gain"),
    )
