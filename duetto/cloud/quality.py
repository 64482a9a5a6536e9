"""What devices tell, over time and over users: how much is asked, how good it is, how long it takes, what it costs.

A share over users is that of each device by itself, and then the 10th, 50th and 90th percentile of the devices: half of
them have less than the middle one, whatever a few busy ones do. A device counts where it has told of :data:`LEAST`
answers at least.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from duetto.cloud.observed import Told

LEAST = 5  # answers of a device before its share counts
_SHOWN = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Share:
    """A share in each span of time: of all answers, and over devices; None where nothing is known.

    Attributes:
        n: answers that it is of.
        all: of them together.
        low, middle, high: the 10th, 50th and 90th percentile of devices.
    """

    n: list[int]
    all: list[float | None]
    low: list[float | None]
    middle: list[float | None]
    high: list[float | None]


@dataclass(frozen=True)
class Quality:
    """Figures, one for each span of time; None where there was no answer.

    Attributes:
        since, step: the first span begins there (seconds since 1970), and each lasts so long.
        answers, devices: how many, and of how many devices.
        asked: for which the cloud was asked.
        agreed: of the cloud's answers, those that the small model had agreed with.
        right: of the answers that users spoke of, those they called right.
        failed: at which the small model had no answer.
        seconds: the 50th and 95th percentile of an answer's time.
        asked_seconds: the same of the answers for which the cloud was asked.
        bytes, joules, dollars: for an answer, on average.
    """

    since: float
    step: float
    answers: list[int]
    devices: list[int]
    asked: Share
    agreed: Share
    right: Share
    failed: Share
    seconds: tuple[list[float | None], list[float | None]]
    asked_seconds: tuple[list[float | None], list[float | None]]
    bytes: list[float | None]
    joules: list[float | None]
    dollars: list[float | None]


@dataclass(frozen=True)
class OfDevice:
    """One device over the whole time; None where nothing is known.

    Attributes:
        device: its name.
        answers: how many.
        last: when it answered last, seconds since 1970.
        release: the newest of its small models.
        asked, agreed, right, failed: shares, as in :class:`Quality`; ``right`` is of ``corrections``.
        corrections: answers that its user spoke of.
        seconds: the 50th and 95th percentile.
        bytes, joules, dollars: for an answer, on average.
    """

    device: str
    answers: int
    last: float
    release: int
    asked: float
    agreed: float | None
    right: float | None
    corrections: int
    failed: float
    seconds: tuple[float, float]
    bytes: float
    joules: float
    dollars: float


@dataclass(frozen=True)
class OfRelease:
    """One release of the small model over the whole time.

    Attributes:
        release: its number; at most 0 for one that came with the device.
        answers, devices: how many, and of how many devices.
        asked, agreed: shares, as in :class:`Quality`.
    """

    release: int
    answers: int
    devices: int
    asked: float
    agreed: float | None


def chosen(
    told: Told, since: float, until: float, prefix: str = "", release: int | None = None, device: str | None = None
) -> Told:
    """What was told of a time, of devices whose names begin so, or of one, and of one release.

    Corrections tell no release: with one chosen there are none.

    Args:
        told: all.
        since, until: seconds since 1970; the first counts, the last does not.
        prefix: of names.
        release: of the small model.
        device: a whole name.
    """
    named = np.array([name.startswith(prefix) and device in (None, name) for name in told.devices], bool)

    def rows(all_rows: np.ndarray) -> np.ndarray:
        kept = (all_rows["time"] >= since) & (all_rows["time"] < until)
        return kept if named.all() else kept & named[all_rows["device"]]

    answers = told.answers[rows(told.answers)]
    corrections = told.corrections[rows(told.corrections)]
    if release is not None:
        answers, corrections = answers[answers["release"] == release], corrections[:0]
    return replace(told, answers=answers, corrections=corrections)


def over_time(told: Told, since: float, step: float, spans: int) -> Quality:
    """Figures for spans of time, all of the same length.

    Args:
        told: columns; rows of other times are left out.
        since: where the first span begins, seconds since 1970.
        step: their length in seconds.
        spans: how many.
    """
    told = chosen(told, since, since + step * spans)
    answers, corrections = told.answers, told.corrections
    at = np.minimum(((answers["time"] - since) / step).astype(np.int64), spans - 1)
    spoken = np.minimum(((corrections["time"] - since) / step).astype(np.int64), spans - 1)
    n = np.bincount(at, minlength=spans)
    heard = answers["agreed"] >= 0

    def mean(name: str) -> list[float | None]:
        return _over(np.bincount(at, answers[name].astype(np.float64), spans), n)

    def quantiles(of: np.ndarray) -> tuple[list[float | None], list[float | None]]:
        return _quantiles(answers["seconds"][of], at[of], spans)

    return Quality(
        since=since,
        step=step,
        answers=n.tolist(),
        devices=_devices(answers["device"], at, spans),
        asked=_share(answers["asked"], answers["device"], at, spans),
        agreed=_share(answers["agreed"][heard] > 0, answers["device"][heard], at[heard], spans),
        right=_share(corrections["right"], corrections["device"], spoken, spans),
        failed=_share(answers["failed"], answers["device"], at, spans),
        seconds=quantiles(np.ones(len(answers), bool)),
        asked_seconds=quantiles(answers["asked"]),
        bytes=mean("bytes"),
        joules=mean("joules"),
        dollars=mean("dollars"),
    )


def by_device(told: Told) -> list[OfDevice]:
    """Figures of each device that answered, by name."""
    answers = told.answers[np.argsort(told.answers["device"], kind="stable")]
    count = len(told.devices)
    corrections = np.bincount(told.corrections["device"], minlength=count)
    right = np.bincount(told.corrections["device"], told.corrections["right"], count)
    devices, starts = np.unique(answers["device"], return_index=True)
    found = []
    for device, rows in zip(devices, np.split(answers, starts[1:]) if len(devices) else [], strict=True):
        heard = rows["agreed"] >= 0
        low, high = np.quantile(rows["seconds"], (0.5, 0.95))
        said = int(corrections[device])
        newest = int(np.argmax(rows["time"]))
        found.append(
            OfDevice(
                device=told.devices[device],
                answers=len(rows),
                last=float(rows["time"][newest]),
                release=int(rows["release"][newest]),
                asked=float(rows["asked"].mean()),
                agreed=float((rows["agreed"][heard] > 0).mean()) if heard.any() else None,
                right=float(right[device] / said) if said else None,
                corrections=said,
                failed=float(rows["failed"].mean()),
                seconds=(float(low), float(high)),
                bytes=float(rows["bytes"].mean()),
                joules=float(rows["joules"].mean()),
                dollars=float(rows["dollars"].mean()),
            )
        )
    return sorted(found, key=lambda each: each.device)


def by_release(told: Told) -> list[OfRelease]:
    """Figures of each release of the small model, the newest first."""
    found = []
    for release in np.unique(told.answers["release"])[::-1]:
        rows = told.answers[told.answers["release"] == release]
        heard = rows["agreed"] >= 0
        found.append(
            OfRelease(
                release=int(release),
                answers=len(rows),
                devices=len(np.unique(rows["device"])),
                asked=float(rows["asked"].mean()),
                agreed=float((rows["agreed"][heard] > 0).mean()) if heard.any() else None,
            )
        )
    return found


def _share(hits: np.ndarray, device: np.ndarray, at: np.ndarray, spans: int) -> Share:
    n = np.bincount(at, minlength=spans)
    whole = _over(np.bincount(at, hits.astype(np.float64), spans), n)
    known, mine = np.unique(device, return_inverse=True)
    cell = at * max(1, len(known)) + mine
    cells = spans * max(1, len(known))
    of = np.bincount(cell, minlength=cells).reshape(spans, -1)
    hit = np.bincount(cell, hits.astype(np.float64), cells).reshape(spans, -1)
    quantiles: list[Sequence[float | None]] = []
    for counted, each in zip(of, hit, strict=True):
        enough = counted >= LEAST
        shares = each[enough] / counted[enough]
        quantiles.append([float(q) for q in np.quantile(shares, _SHOWN)] if len(shares) else [None] * len(_SHOWN))
    low, middle, high = (list(column) for column in zip(*quantiles, strict=True))
    return Share(n.tolist(), whole, low, middle, high)


def _over(sums: np.ndarray, n: np.ndarray) -> list[float | None]:
    return [float(total / count) if count else None for total, count in zip(sums, n, strict=True)]


def _devices(device: np.ndarray, at: np.ndarray, spans: int) -> list[int]:
    known = int(device.max(initial=0)) + 1
    here = np.bincount(at * known + device, minlength=spans * known).reshape(spans, known) > 0
    return [int(count) for count in here.sum(axis=1)]


def _quantiles(values: np.ndarray, at: np.ndarray, spans: int) -> tuple[list[float | None], list[float | None]]:
    order = np.argsort(at, kind="stable")
    parts = np.split(values[order], np.searchsorted(at[order], np.arange(1, spans)))
    found = [np.quantile(part, (0.5, 0.95)) if len(part) else (math.nan, math.nan) for part in parts]
    low, high = ([None if math.isnan(value[i]) else float(value[i]) for value in found] for i in (0, 1))
    return low, high
