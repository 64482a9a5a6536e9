"""What the console shows as files of comma-separated values, whole: the same filters, and no pages."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.responses import Response, StreamingResponse

from duetto.cloud import quality
from duetto.cloud.admin.access import Cloud, Viewing
from duetto.cloud.admin.audit import Whose
from duetto.cloud.admin.fleet import Which, chosen, here
from duetto.cloud.admin.quality import SPANS, Asked, now

api = APIRouter(prefix="/exports", tags=["exports"])
_PAGE = 1000


@api.get("/fleet.csv", response_class=Response)
def fleet(cloud: Cloud, who: Viewing, which: Annotated[Which, Depends()]) -> Response:
    """The devices."""
    return _file("fleet", (each.model_dump() for each in chosen(cloud, which, here(cloud))))


@api.get("/quality.csv", response_class=Response)
def over_time(cloud: Cloud, who: Viewing, asked: Asked) -> Response:
    """Figures over time."""
    until = now(asked.window / SPANS)
    found = asdict(quality.over_time(asked.told(cloud, until), until - asked.window, asked.window / SPANS, SPANS))
    since, step = found.pop("since"), found.pop("step")
    columns = dict(_columns(found))
    rows = ({name: column[i] for name, column in columns.items()} for i in range(SPANS))
    return _file("quality", ({"since": since + i * step, "seconds": step, **row} for i, row in enumerate(rows)))


@api.get("/devices.csv", response_class=Response)
def devices(cloud: Cloud, who: Viewing, asked: Asked) -> Response:
    """Figures of each device."""
    return _file("devices", (dict(_flat(asdict(each))) for each in quality.by_device(asked.told(cloud, now()))))


@api.get("/audit.csv", response_class=Response)
def audit(cloud: Cloud, who: Viewing, whose: Annotated[Whose, Depends()]) -> Response:
    """The audit log, the newest line first."""

    def lines() -> Iterator[Mapping[str, Any]]:
        before: int | None = None
        while page := cloud.site.audit.newest(_PAGE, before, who=whose.by, action=whose.action):
            yield from (asdict(line) for line in page)
            before = page[-1].number

    return _file("audit", lines())


@api.get("/models.csv", response_class=Response)
def models(cloud: Cloud, who: Viewing) -> Response:
    """All versions of all models, with what was measured of them."""
    registry = cloud.site.registry

    def versions() -> Iterator[Mapping[str, Any]]:
        for name in registry.models():
            for each in registry.versions(name):
                told = {"model": name, "version": each.number, "by": each.by, "unix_seconds": each.unix_seconds}
                yield {**told, "parents": list(each.parents), "metrics": registry.metrics(name, each.number)}

    return _file("models", versions())


def _file(name: str, rows: Iterable[Mapping[str, Any]]) -> Response:
    disposition = {"content-disposition": f'attachment; filename="{name}.csv"'}
    return StreamingResponse(_lines(rows), media_type="text/csv; charset=utf-8", headers=disposition)


def _lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    told, names = io.StringIO(newline=""), None
    writer = csv.writer(told)
    for row in rows:
        if names is None:
            names = list(row)
            writer.writerow(names)
        writer.writerow(_cell(row[name]) for name in names)
        if told.tell() > 1 << 16:
            yield told.getvalue()
            told.seek(0)
            told.truncate()
    yield told.getvalue()


def _cell(value: Any) -> Any:
    """A value for a spreadsheet, which must not take a name for a formula (OWASP, CSV injection)."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _columns(found: Mapping[str, Any], over: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in found.items():
        if isinstance(value, Mapping):
            yield from _columns(value, f"{over}{name}_")
        elif isinstance(value, tuple):
            yield from zip((f"{over}{name}_p50", f"{over}{name}_p95"), value, strict=True)
        else:
            yield f"{over}{name}", value


_flat = _columns
