"""The models: versions, where channels point, and moving them."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from duetto.cloud.admin.access import (
    NOT_NOW,
    NOT_THERE,
    Acting,
    Administered,
    ChannelName,
    Cloud,
    ModelName,
    Viewing,
    Why,
    doing,
)
from duetto.cloud.channels import offered
from duetto.cloud.registry import CHANNELS, Move, Pause, Version
from duetto.cloud.trial import Trial
from duetto.cloud.trial import trial as found
from duetto.cloud.web import Refusal
from duetto.errors import Error

_LOG = logging.getLogger(__name__)
api = APIRouter(tags=["models"])


class Promotion(Why):
    """What a channel is to point to."""

    version: int = Field(ge=1)
    expected: int | None = Field(
        None, ge=0, description="what it points to as far as you know, 0 for nothing; refused (409) where it does not"
    )


class RollBack(Why):
    """Where a channel is to go back from."""

    expected: int | None = Field(
        None, ge=0, description="what it points to as far as you know; refused (409) where it does not"
    )


class Channel(BaseModel):
    """Where a channel of a model points."""

    channel: str
    version: int | None
    paused: bool
    why: str | None = Field(description="of the pause")
    since: float | None = Field(description="when it last moved, seconds since 1970")


class Model(BaseModel):
    """A model."""

    name: str
    newest: int = Field(description="its newest version")
    channels: list[Channel]


@dataclass(frozen=True)
class Moved(Move):
    """One step of a channel, and what its devices are offered for it.

    Attributes:
        releases: numbers that were signed just now.
        pending: why devices are not offered it yet; whoever holds the keys, or teaches, does so then.
    """

    releases: list[int]
    pending: str | None


class Measured(BaseModel):
    """A version, where it comes from, and how good it is."""

    version: Version
    metrics: dict[str, Any] = Field(description="the newest of each name; by user where it was measured so")
    children: list[tuple[str, int]] = Field(description="versions of this model that were made from it")


class Offered(BaseModel):
    """What devices of a channel are offered, signed."""

    model: str
    channel: str
    version: int
    sha256: str
    length: int = Field(description="bytes")
    told: dict[str, Any]


class Releases(BaseModel):
    """The signed releases, and until when what each role has signed holds (seconds since 1970)."""

    releases: list[Offered]
    expires: dict[str, float]


@api.get("/models")
def models(cloud: Cloud, who: Viewing) -> list[Model]:
    """The models, and where their channels point."""
    registry = cloud.site.registry
    return [
        Model(name=name, newest=registry.versions(name)[-1].number, channels=_channels(cloud, name))
        for name in registry.models()
    ]


@api.get("/models/{model}", responses=NOT_THERE)
def model(cloud: Cloud, who: Viewing, model: ModelName) -> list[Version]:
    """All versions of a model, with artefacts, parents and what they were trained from; the first one first."""
    found = cloud.site.registry.versions(model)
    if not found:
        raise Refusal(404, f"no model {model}", "see the list of models")
    return found


@api.get("/models/{model}/versions/{version}", responses=NOT_THERE)
def version(cloud: Cloud, who: Viewing, model: ModelName, version: Annotated[int, Path(ge=1)]) -> Measured:
    """A version, with what was measured of it, by user too, and what was made from it."""
    registry = cloud.site.registry
    found = registry.version(model, version)
    children = [(each.model, each.number) for each in registry.versions(model) if (model, version) in each.parents]
    return Measured(version=found, metrics=registry.metrics(model, version), children=children)


@api.get("/models/{model}/channels/{channel}")
def history(cloud: Cloud, who: Viewing, model: ModelName, channel: ChannelName) -> list[Move]:
    """All moves of a channel, the first one first."""
    return cloud.site.registry.history(model, channel)


@api.post("/models/{model}/channels/{channel}/promote", responses=NOT_THERE | NOT_NOW)
def promote(cloud: Cloud, who: Acting, model: ModelName, channel: ChannelName, body: Promotion) -> Moved:
    """Point a channel to a version, and offer it to the channel's devices."""
    about = {"model": model, "channel": channel, **body.model_dump()}
    with doing(cloud, who, "promote", **about):
        move = cloud.site.registry.promote(
            model, body.version, channel, by=who.name, why=body.why, expected=body.expected
        )
    return _offered(cloud, move)


@api.post("/models/{model}/channels/{channel}/roll-back", responses=NOT_NOW)
def roll_back(cloud: Cloud, who: Acting, model: ModelName, channel: ChannelName, body: RollBack) -> Moved:
    """Point a channel to where it pointed before its last promotion, again to before the one before that; and offer it
    to the channel's devices, under a higher number."""
    with doing(cloud, who, "roll back", model=model, channel=channel, **body.model_dump()):
        move = cloud.site.registry.roll_back(model, channel, by=who.name, why=body.why, expected=body.expected)
    return _offered(cloud, move)


@api.post("/models/{model}/channels/{channel}/pause", responses=NOT_THERE | NOT_NOW)
def pause(cloud: Cloud, who: Acting, model: ModelName, channel: ChannelName, body: Why) -> Pause:
    """Let nobody promote to a channel, no rule either; it can still be rolled back."""
    with doing(cloud, who, "pause", model=model, channel=channel, why=body.why):
        return cloud.site.registry.pause(model, channel, by=who.name, why=body.why)


@api.post("/models/{model}/channels/{channel}/go-on", responses=NOT_THERE | NOT_NOW)
def go_on(cloud: Cloud, who: Acting, model: ModelName, channel: ChannelName, body: Why) -> Pause:
    """End a pause."""
    with doing(cloud, who, "go on", model=model, channel=channel, why=body.why):
        return cloud.site.registry.go_on(model, channel, by=who.name, why=body.why)


@api.get("/releases", responses=NOT_THERE)
def releases(cloud: Cloud, who: Viewing) -> Releases:
    """What is offered to devices, signed."""
    found = cloud.site.releases
    expires = {role: when.timestamp() for role, when in found.expiries().items()}
    return Releases(releases=[Offered(**asdict(each)) for each in found.releases()], expires=expires)


@api.get("/models/{model}/trial", responses=NOT_THERE)
def trial(cloud: Cloud, who: Viewing, model: ModelName) -> Trial | None:
    """The version that the canary tries beside the stable one, and what the rule says of it; null where none is."""
    return found(cloud.site, model, cloud.rule)


def _offered(cloud: Administered, move: Move) -> Moved:
    """What was decided stands, whether or not it can be signed from here."""
    try:
        made = offered(cloud.site, move.model)
    except Error as fault:
        _LOG.warning("%s of %s: %s", move.channel, move.model, fault)
        return Moved(**vars(move), releases=[], pending=str(fault))
    return Moved(**vars(move), releases=[each.version for each in made], pending=None)


def _channels(cloud: Administered, name: str) -> list[Channel]:
    registry, found = cloud.site.registry, []
    for channel in CHANNELS:
        moves, held = registry.history(name, channel), registry.paused(name, channel)
        found.append(
            Channel(
                channel=channel,
                version=moves[-1].version if moves else None,
                paused=held is not None,
                why=None if held is None else held.why,
                since=moves[-1].unix_seconds if moves else None,
            )
        )
    return found
