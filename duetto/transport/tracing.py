"""Spans over device and cloud, in OpenTelemetry's words: an answer, the ask in it, and what the cloud did for it.

The context travels in each ask as W3C ``traceparent`` (https://www.w3.org/TR/trace-context), so that the cloud's span
is the child of the device's. Without the package ``opentelemetry`` nothing happens here; with it, an application's own
provider gets the spans, or the one that :func:`started` makes from the standard ``OTEL_...`` variables.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, lru_cache
from typing import Any

from duetto.errors import ConfigError
from duetto.transport.session import Question, Said, Serve
from duetto.tree import Tree
from duetto.types import Key, Peer, Reply, Skill

_LOG = logging.getLogger(__name__)
_HEADER = "traceparent"


class Traced(Peer):
    """A peer, each ask of which is a span.

    Args:
        peer: the one that is asked.
    """

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    @property
    def name(self) -> str:  # type: ignore[override]
        """The peer's."""
        return self._peer.name

    @property
    def traits(self) -> Any:  # type: ignore[override]
        """The peer's."""
        return self._peer.traits

    async def ask(self, skill: Skill, tree: Tree, *, key: Key, deadline: float | None = None) -> Reply:
        """Ask it."""
        with span(f"ask {skill.name}", "client", peer=self.name) as told:
            reply = await self._peer.ask(skill, tree, key=key, deadline=deadline)
            told(up_bytes=reply.cost.up_bytes, down_bytes=reply.cost.down_bytes)
            if reply.failure is not None:
                told(failure=reply.failure)
            return reply


def answering(serve: Serve) -> Serve:
    """What answers asks, each answer a span: a child of the asker's, whichever machine that is on."""

    async def answer(sender: str, question: Question) -> Said:
        with span(f"answer {_called(question.description)}", "server", question.traceparent, sender=sender) as told:
            said = await serve(sender, question)
            told(received_bytes=len(question.body), sent_bytes=len(said.body), version=said.version)
            told(**dict(said.metrics))
            if said.failure:
                told(failure=said.failure)
            return said

    return answer


def span(
    name: str, kind: str = "internal", parent: str = "", **attributes: Any
) -> AbstractContextManager[Callable[..., None]]:
    """A span around what is done inside; gives what adds attributes to it, ``failure`` among them.

    Args:
        name: of the span; few different ones.
        kind: internal, client or server.
        parent: a traceparent from elsewhere; by default whatever span runs here is the parent.
        attributes: of the span, under ``duetto.``.
    """
    found = _found()
    return _NOWHERE if found is None else _span(*found, name, kind, parent, attributes)


@contextmanager
def _span(
    trace: Any, propagator: Any, name: str, kind: str, parent: str, attributes: Mapping[str, Any]
) -> Iterator[Callable[..., None]]:
    context = propagator.extract({_HEADER: parent}) if parent else None
    own = {f"duetto.{word}": value for word, value in attributes.items()}
    with trace.get_tracer("duetto").start_as_current_span(
        name, context, trace.SpanKind[kind.upper()], own, record_exception=False
    ) as current:

        def told(failure: str = "", **more: Any) -> None:
            for word, value in more.items():
                current.set_attribute(f"duetto.{word}", value)
            if failure:
                current.set_status(trace.StatusCode.ERROR, failure)

        yield told


def traceparent() -> str:
    """The context of the span that runs here, as W3C writes it; "" where none does."""
    found = _found()
    carrier: dict[str, str] = {}
    if found is not None:
        found[1].inject(carrier)
    return carrier.get(_HEADER, "")


def started(service: str) -> bool:
    """Send spans where the ``OTEL_...`` variables say; whether they say so at all.

    ``OTEL_TRACES_EXPORTER`` is ``otlp``, ``console`` or ``none``; it is ``otlp`` where only an endpoint is named. OTLP
    needs the package ``opentelemetry-exporter-otlp-proto-http``, without which spans go to the standard error.

    Args:
        service: what this process is called, unless ``OTEL_SERVICE_NAME`` says so.

    Raises:
        ConfigError: an unknown exporter, or one is wanted and the SDK is not installed.
    """
    endpoint = any(os.environ.get(f"OTEL_EXPORTER_OTLP_{name}ENDPOINT") for name in ("", "TRACES_"))
    wanted = os.environ.get("OTEL_TRACES_EXPORTER", "otlp" if endpoint else "none").strip()
    if wanted == "none" or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if wanted not in {"otlp", "console"}:
        raise ConfigError(f"OTEL_TRACES_EXPORTER={wanted}", "use otlp, console or none")
    try:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
    except ImportError as fault:
        raise ConfigError(f"OTEL_TRACES_EXPORTER={wanted} without its SDK", "pip install opentelemetry-sdk") from fault
    exporter: SpanExporter = ConsoleSpanExporter(out=sys.stderr)  # a device's answers go to the standard output
    if wanted == "otlp":
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # type: ignore[import-not-found,unused-ignore]
                OTLPSpanExporter,
            )
        except ImportError:
            _LOG.warning("spans go here: pip install opentelemetry-exporter-otlp-proto-http sends them elsewhere")
        else:
            exporter = OTLPSpanExporter()
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": service}
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return True


def _found() -> tuple[Any, Any] | None:
    """OpenTelemetry, if somebody wants spans: a span that goes nowhere costs as much as one that does."""
    found = _installed()
    if found is None or isinstance(found[0].get_tracer_provider(), found[0].ProxyTracerProvider):
        return None
    return found


@cache
def _installed() -> tuple[Any, Any] | None:
    try:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    except ImportError:
        return None
    return trace, TraceContextTextMapPropagator()


@lru_cache(1024)
def _called(description: str) -> str:
    """The skill that a description describes, as far as it says so."""
    try:
        name = str(json.loads(description)["class"]).rpartition(":")[2]
    except (ValueError, TypeError, KeyError, RecursionError):
        return "skill"
    return name if name.isidentifier() and len(name) <= 80 else "skill"


def _ignored(**attributes: Any) -> None:
    """Nobody listens."""


_NOWHERE = nullcontext(_ignored)
