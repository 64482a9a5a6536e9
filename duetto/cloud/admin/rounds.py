"""Learning together: versions that came of federated rounds, and what each round was."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from duetto.cloud.admin.access import Administered, Cloud, Viewing
from duetto.cloud.registry import ROUNDS
from duetto.protocols.channels import STABLE

api = APIRouter(tags=["models"])


class Rounds(BaseModel):
    """The rounds that a version came of, or that go on."""

    model: str
    version: int | None = Field(description="none while they go on")
    of: int = Field(description="how many there are to be")
    unix_seconds: float = Field(description="when the version was made; when the last of the rounds ended")
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
    going = [each for name in registry.models() if (each := _going(cloud, name)) is not None]
    return going + sorted(found, key=lambda each: -each.unix_seconds)


def _going(cloud: Administered, model: str) -> Rounds | None:
    """Rounds whose version is still to come; they have ended where a version has come since they began."""
    registry = cloud.site.registry
    stable = registry.channel(model, STABLE)
    told = {} if stable is None else registry.metrics(model, stable.number).get(ROUNDS, {})
    if not told or told["newest"] != registry.versions(model)[-1].number:
        return None
    replies = sum(int(each.get("cohort", 0) - each.get("failed", 0)) for each in told["log"])
    at = {"unix_seconds": told["unix_seconds"], "of": told["of"], "rounds": told["log"]}
    return Rounds(model=model, version=None, replies=replies, gain=None, **at)


def _rounds(model: str, version: int, unix_seconds: float, told: Any) -> Rounds:
    return Rounds(
        model=model,
        version=version,
        of=int(told["rounds"]),
        unix_seconds=unix_seconds,
        replies=int(told.get("replies", 0)),
        rounds=list(told.get("log", [])),
        gain=told.get("metrics", {}).get("gain"),
    )
