"""What a cloud tells of itself in Prometheus' words; docs/operate.md explains each, and when to be alarmed.

What this process sees is read at each look. What stands in the database is the same for all processes, and read at most
every :data:`STORED_SECONDS`, since counting a long table takes its time; alarms on it can wait as long.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import sqlalchemy as sql
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from duetto.cloud.presence import Presence
from duetto.cloud.registry import CHANNELS
from duetto.cloud.service import Service
from duetto.cloud.site import Site
from duetto.errors import Error
from duetto.transport import vocabulary
from duetto.transport.session import Question, Said, Serve

VERSION = importlib.metadata.version("duetto")
STORED_SECONDS = 15.0
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BYTES = (256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216)
_USES = ("answered", "failed", "shed", "dropped", "late", "cancelled")


class Metrics(Collector):
    """The metrics of a site, and of the service that runs in this process.

    Args:
        site: whose database is told of.
        service: whose asks are measured from now on; None tells of the site alone.
    """

    def __init__(self, site: Site, service: Service | None = None) -> None:
        self._site, self._service = site, service
        self._presence = Presence(site.engine)
        self._stored: list[Metric] = []
        self._read = -float("inf")
        self._reading = asyncio.Lock()
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._asks = Counter(
            "duetto_asks",
            "Asks of devices, by skill and outcome: answered, refused, shed (too much to do) or withdrawn.",
            ("skill", "outcome"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "duetto_ask_seconds",
            "From an ask's arrival to its answer, in this process.",
            ("skill",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._bytes = Histogram(
            "duetto_ask_body_bytes",
            "Bodies of asks and of their answers.",
            ("skill", "direction"),
            buckets=_BYTES,
            registry=self._registry,
        )
        self._names: dict[int, str] = {}
        self._registry.register(self)
        if service is not None:
            service.answering = self._measured(service.answering)

    async def page(self) -> bytes:
        """All of it, in Prometheus' text format."""
        async with self._reading:
            if time.monotonic() - self._read >= STORED_SECONDS:
                self._stored = await asyncio.to_thread(lambda: list(self._from_database()))
                self._read = time.monotonic()
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """What is told beside the counted asks."""
        yield _gauge("duetto_build_info", "The version that runs.", [(1.0, {"version": VERSION})])
        if self._service is not None:
            yield from self._live(self._service)
        yield from self._stored

    # ------------------------------------------------------------------------------------------- this process

    def _measured(self, answering: Serve) -> Serve:
        async def answer(sender: str, question: Question) -> Said:
            skill, outcome, begun = self._name(question), "withdrawn", time.perf_counter()
            try:
                said = await answering(sender, question)
                outcome = ("shed" if "retry_after" in said.metrics else "refused") if said.failure else "answered"
                self._bytes.labels(skill, "received").observe(len(question.body))
                self._bytes.labels(skill, "sent").observe(len(said.body))
                return said
            except asyncio.CancelledError:
                raise
            except BaseException:
                outcome = "refused"
                raise
            finally:
                self._asks.labels(skill, outcome).inc()
                self._seconds.labels(skill).observe(time.perf_counter() - begun)

        return answer

    def _name(self, question: Question) -> str:
        """The skill's, if it is offered here: what strangers call theirs makes no new series."""
        assert self._service is not None
        if question.number not in self._names:
            party = self._service.running.party
            try:
                skill = vocabulary.read(question.description, vocabulary.classes(party.skills))
                name = skill.name if party.offers(skill) else "unknown"
            except Error:
                name = "unknown"
            if len(self._names) > 1024:
                self._names.clear()
            self._names[question.number] = name
        return self._names[question.number]

    @staticmethod
    def _live(service: Service) -> Iterator[Metric]:
        yield _gauge(
            "duetto_devices_connected", "Devices with a stream to this process.", [(len(service.sessions), {})]
        )
        yield _gauge("duetto_asks_running", "Asks of devices that are not answered yet.", [(service.running.busy, {})])
        yield _gauge(
            "duetto_device_asks_pending", "Asks to devices that they have not answered.", [(service.fleet.pending, {})]
        )
        received, sent = service.wire_bytes
        yield _counter(
            "duetto_wire_bytes",
            "Envelopes, by direction as the cloud sees it.",
            [(received, {"direction": "received"}), (sent, {"direction": "sent"})],
        )
        counters = getattr(service.uses, "counters", None)
        if counters is None:
            return
        told = counters()
        yield _counter(
            "duetto_batcher_uses",
            "Uses of skills that are over; shed at the door, dropped from the queue, late while being computed.",
            [(told[name], {"outcome": name}) for name in _USES],
        )
        yield _gauge("duetto_batcher_queue", "Uses that wait to be computed.", [(told["waiting"], {})])
        yield _gauge("duetto_batcher_computing", "Uses that are being computed.", [(told["running"], {})])
        yield _counter("duetto_batcher_calls", "Calls of models; a batch may take several.", [(told["calls"], {})])
        yield _counter("duetto_batcher_busy_seconds", "Seconds of computing.", [(told["busy_seconds"], {})])
        yield _counter(
            "duetto_batcher_waited_seconds", "Seconds in the queue, of all uses.", [(told["waited_seconds"], {})]
        )
        yield _sizes(told)

    # ------------------------------------------------------------------------------------------- what all share

    def _from_database(self) -> Iterator[Metric]:
        site = self._site
        try:
            counts, gaps = site.feedback.counts(), site.feedback.gaps()
            admitted, revoked = site.enrolment.counts()
            versions, paused = _channels(site)
            present = len(self._presence.all())
        except (Error, sql.exc.SQLAlchemyError):
            yield _gauge("duetto_database_up", "Whether the database could be read.", [(0.0, {})])
        else:
            yield _gauge("duetto_database_up", "Whether the database could be read.", [(1.0, {})])
            by_kind: dict[str, int] = {}
            for kinds in counts.values():
                for kind, n in kinds.items():
                    by_kind[kind] = by_kind.get(kind, 0) + n
            yield _gauge(
                "duetto_feedback_entries",
                "Entries kept, by kind.",
                [(n, {"kind": kind}) for kind, n in by_kind.items()],
            )
            missing = {
                told: sum(gap.last - gap.first + 1 for gap in gaps if gap.told == told) for told in (True, False)
            }
            yield _gauge(
                "duetto_feedback_missing_entries",
                "Numbers that have not come though later ones have: dropped by the device, which said so; or expected.",
                [(missing[True], {"why": "dropped"}), (missing[False], {"why": "expected"})],
            )
            yield _gauge(
                "duetto_devices_enrolled",
                "Keys that were ever enrolled.",
                [(admitted, {"state": "admitted"}), (revoked, {"state": "revoked"})],
            )
            yield _gauge("duetto_fleet_connected", "Devices connected to any process.", [(present, {})])
            yield _gauge("duetto_model_version", "The version that a channel points to.", versions)
            yield _gauge("duetto_channel_paused", "Whether nobody may promote to a channel.", paused)
        yield _gauge(
            "duetto_expires_timestamp_seconds", "When what is signed ends to hold, seconds since 1970.", expiries(site)
        )


def _channels(site: Site) -> tuple[list[tuple[float, dict[str, str]]], list[tuple[float, dict[str, str]]]]:
    versions, paused = [], []
    for model in site.registry.models():
        for channel in CHANNELS:
            labels = {"model": model, "channel": channel}
            found = site.registry.channel(model, channel)
            if found is not None:
                versions.append((float(found.number), labels))
            paused.append((float(site.registry.paused(model, channel) is not None), labels))
    return versions, paused


def expiries(site: Site) -> list[tuple[float, dict[str, str]]]:
    """When what is signed ends to hold, seconds since 1970, and what it is."""
    found = []
    for of, path in (("server certificate", "server/certificate.pem"), ("authority", "authority/authority.pem")):
        if (site.folder / path).exists():
            from cryptography import x509

            held = x509.load_pem_x509_certificate((site.folder / path).read_bytes())
            found.append((held.not_valid_after_utc.timestamp(), {"of": of}))
    with suppress(Error):  # no releases here; who promised some has the alarm on what is missing
        found += [(when.timestamp(), {"of": f"releases {role}"}) for role, when in site.releases.expiries().items()]
    return found


def _sizes(told: Any) -> Metric:
    family = HistogramMetricFamily("duetto_batch_rows", "Rows of the batches that were computed.")
    below, buckets = 0.0, []
    for name, count in told.items():
        if name.startswith("batch_rows_le_"):
            below += count
            buckets.append((f"{float(name.removeprefix('batch_rows_le_'))}", below))
    family.add_metric((), [*buckets, ("+Inf", below)], told["rows"])
    return family


def _gauge(name: str, says: str, values: list[tuple[float, dict[str, str]]]) -> Metric:
    labels = tuple(values[0][1]) if values else ()
    family = GaugeMetricFamily(name, says, labels=labels)
    for value, told in values:
        family.add_metric(tuple(told.values()), value)
    return family


def _counter(name: str, says: str, values: list[tuple[float, dict[str, str]]]) -> Metric:
    family = CounterMetricFamily(name, says, labels=tuple(values[0][1]))
    for value, told in values:
        family.add_metric(tuple(told.values()), value)
    return family
