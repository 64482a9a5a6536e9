"""Who may ask the administration, and what all of its requests are about."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from fastapi import Depends, Path, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from duetto.cloud.metrics import Metrics
from duetto.cloud.observed import Observed
from duetto.cloud.operators import OPERATOR, Operator
from duetto.cloud.presence import Presence
from duetto.cloud.promotion import Promotion
from duetto.cloud.registry import CHANNELS
from duetto.cloud.service import Service
from duetto.cloud.site import Site
from duetto.cloud.web import FAILURES, Refusal, Throttle, own

_LOG = logging.getLogger(__name__)
COOKIE = "duetto_console"


class Fault(BaseModel):
    """What went wrong, in one line."""

    fault: str
    remedy: str = ""


class Why(BaseModel):
    """A reason, for the record."""

    model_config = ConfigDict(str_strip_whitespace=True)

    why: str = Field(min_length=1, max_length=500, pattern=r"^[^\x00]*$")


@dataclass(frozen=True, eq=False)
class Administered:
    """What requests are about.

    Attributes:
        site: the cloud's.
        service: that runs in this process, if one does.
        metrics: of both.
        throttle: who has to wait.
        rule: by which versions that are tried are judged.
        observed: what devices tell of their answers.
        presence: who is connected, to any process.
    """

    site: Site
    service: Service | None
    metrics: Metrics
    rule: Promotion
    observed: Observed
    throttle: Throttle = field(default_factory=Throttle)

    @property
    def presence(self) -> Presence:
        """As all processes tell."""
        return Presence(self.site.engine)

    @property
    def counters(self) -> dict[str, float]:
        """Of this process's batcher; empty where there is none."""
        counters = getattr(None if self.service is None else self.service.uses, "counters", None)
        return {} if counters is None else dict(counters())


_BEARER = HTTPBearer(auto_error=False, description="a token of `duetto cloud admin-token`")


def _cloud(request: Request) -> Administered:
    found: Administered = request.app.state.administered
    return found


Cloud = Annotated[Administered, Depends(_cloud)]


def viewer(
    request: Request, cloud: Cloud, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
) -> Operator:
    """Whoever has a token, in the header or in the console's cookie.

    Raises:
        Refusal: nobody, or one who has tried too often; a cookie that another page's request brings.
    """
    token = request.cookies.get(COOKIE) if given is None else given.credentials
    if given is None and token is not None and request.method not in {"GET", "HEAD"}:
        own(request.headers.get("origin"), request.headers.get("host"))
    return known(request, cloud, token)


def known(request: Request, cloud: Administered, token: str | None) -> Operator:
    """Whose token this is.

    Raises:
        Refusal: nobody's, or somebody's who has tried too often.
    """
    address = request.client.host if request.client else ""
    if (wait := cloud.throttle.wait(address)) > 0:
        seconds = str(int(wait) + 1)
        raise Refusal(429, "too many wrong tokens from this address", f"wait {seconds} s", retry_after=seconds)
    if token is None:
        raise Refusal(401, "no token", "send Authorization: Bearer TOKEN", www_authenticate="Bearer")
    found = cloud.site.operators.known(token)
    if found is None:
        if cloud.throttle.failed(address) == FAILURES:
            _LOG.warning("%d wrong tokens from %s: it waits", FAILURES, address)
        remedy = "ask for another: duetto cloud admin-token"
        raise Refusal(401, "a token that is unknown, or holds no longer", remedy, www_authenticate="Bearer")
    return found


def operator(who: Annotated[Operator, Depends(viewer)]) -> Operator:
    """Whoever may act.

    Raises:
        Refusal: one who may only look.
    """
    if not who.may(OPERATOR):
        raise Refusal(403, f"{who.name} is a {who.role}", "ask an operator, or for a token of that role")
    return who


Viewing = Annotated[Operator, Depends(viewer)]
Acting = Annotated[Operator, Depends(operator)]
ModelName = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_.-]{0,99}$")]
DeviceName = Annotated[str, Path(pattern=r"^[^\x00]{1,200}$")]
ChannelName = Literal["canary", "stable"]
assert ChannelName.__args__ == CHANNELS  # type: ignore[attr-defined]
REFUSED: dict[int | str, dict[str, Any]] = {
    status: {"model": Fault, "description": says}
    for status, says in {
        401: "no token, or none that holds",
        403: "a viewer cannot do that",
        422: "a request that cannot be read",
        429: "too many wrong tokens",
        503: "the database cannot be reached",
    }.items()
}
NOT_THERE: dict[int | str, dict[str, Any]] = {404: {"model": Fault, "description": "there is none"}}
NOT_NOW: dict[int | str, dict[str, Any]] = {409: {"model": Fault, "description": "not as things stand"}}


def doing(cloud: Administered, who: Operator, action: str, **about: Any) -> AbstractContextManager[None]:
    return cloud.site.audit.doing(f"{who.name} (token {who.id})", action, about)
