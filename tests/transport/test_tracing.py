"""Spans over a real connection: the cloud's is the child of the device's ask, and that of the device's answer."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from duetto.cloud.service import Service
from duetto.device.agent import Device
from duetto.device.settings import Settings
from duetto.errors import DataError
from duetto.protocols.stages import Finish
from duetto.transport import tracing
from duetto.transport.grpc import Server
from duetto.types import Local, Party, Work


class Large:
    """Logits that are the rows; refuses what is negative."""

    joinable = True

    def __len__(self) -> int:
        return 1

    def __getitem__(self, cut: slice) -> "Large":
        return self

    def __call__(self, tree: Any) -> Any:
        if np.min(tree["x"]) < 0:
            raise DataError("negative rows", "send others")
        return {"logits": np.asarray(tree["x"], np.float32)}

    def rows(self, tree: Any) -> int:
        return len(tree["x"])

    def joined(self, trees: Sequence[Any]) -> Any:
        return {"x": np.concatenate([tree["x"] for tree in trees])}

    def parted(self, tree: Any, rows: Sequence[int]) -> Any:
        return [{"logits": part} for part in np.split(tree["logits"], np.cumsum(rows)[:-1])]

    def work(self, rows: int = 1) -> Work:
        return Work(rows, rows)


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    """A provider for this process, which can have one only."""
    made = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(made))
    trace.set_tracer_provider(provider)
    return made


def spans(exporter: InMemorySpanExporter, folder: Path, *inputs: Any) -> dict[str, ReadableSpan]:
    """What a device and a cloud tell of their answers, over gRPC, by name."""
    exporter.clear()

    async def main() -> None:
        service = Service(Party(skills=(Finish("large"),), local=Local(None, {"large": Large()})))
        server = Server("127.0.0.1:0", service.accept, credentials=None)
        port = await server.start()
        device = Device(
            folder, cloud=f"127.0.0.1:{port}", name="phone-1", insecure=True, settings=Settings("raw"), deadline=20.0
        )
        try:
            async with device:
                assert await device.wait_connected(20)
                for x in inputs:
                    await device.answer(np.asarray(x, np.float32))
        finally:
            await service.end()
            await server.stop()
            service.running.close()

    asyncio.run(main())
    return {span.name: span for span in exporter.get_finished_spans()}


def test_the_cloud_s_span_is_the_child_of_the_device_s(exporter: InMemorySpanExporter, tmp_path: Path) -> None:
    found = spans(exporter, tmp_path, [0.0, 2.0, 1.0])
    assert set(found) == {"answer", "ask Finish", "answer Finish"}
    answer, ask, there = found["answer"], found["ask Finish"], found["answer Finish"]
    assert answer.parent is None
    assert ask.parent is not None
    assert there.parent is not None
    assert (ask.parent.span_id, ask.parent.is_remote) == (answer.context.span_id, False)
    assert (there.parent.span_id, there.parent.is_remote) == (ask.context.span_id, True)
    assert {each.context.trace_id for each in found.values()} == {answer.context.trace_id}
    assert (ask.kind, there.kind) == (trace.SpanKind.CLIENT, trace.SpanKind.SERVER)
    assert answer.attributes is not None
    assert there.attributes is not None
    assert answer.attributes["duetto.by"] == "cloud"
    assert there.attributes["duetto.sender"] == "phone-1"
    assert there.attributes["duetto.compute_seconds"] > 0
    assert there.start_time >= ask.start_time
    assert there.end_time <= ask.end_time


def test_a_refusal_is_an_error_of_the_span(exporter: InMemorySpanExporter, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="negative rows"):
        spans(exporter, tmp_path, [-1.0, 0.0])
    found = {span.name: span for span in exporter.get_finished_spans()}
    assert found["answer Finish"].status.status_code is trace.StatusCode.ERROR
    assert "negative rows" in str(found["answer Finish"].status.description)
    assert found["ask Finish"].status.status_code is trace.StatusCode.ERROR


def test_a_traceparent_that_is_none_begins_a_trace(exporter: InMemorySpanExporter) -> None:
    exporter.clear()
    for parent in ("nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "00-" + "1" * 5000):
        with tracing.span("x", "server", parent):
            assert len(tracing.traceparent()) == 55
    assert [span.parent for span in exporter.get_finished_spans()] == [None] * 3
    assert tracing.traceparent() == ""


def run(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return subprocess.run(
        [sys.executable, "-c", code], env={**kept, **variables}, capture_output=True, text=True, check=False
    )


SPAN = "from duetto.transport import tracing; print(tracing.started('x'))\nwith tracing.span('done', n=1): pass"


def test_spans_go_where_the_environment_says() -> None:
    done = run(SPAN, OTEL_TRACES_EXPORTER="console", OTEL_SERVICE_NAME="mine")
    assert (done.returncode, done.stdout) == (0, "True\n")
    told = json.loads(done.stderr)
    assert (told["name"], told["attributes"]) == ("done", {"duetto.n": 1})
    assert told["resource"]["attributes"]["service.name"] == "mine"
    assert json.loads(run(SPAN, OTEL_TRACES_EXPORTER="console").stderr)["resource"]["attributes"]["service.name"] == "x"


@pytest.mark.parametrize("variables", [{}, {"EXPORTER": "none"}, {"EXPORTER": "console", "DISABLED": "true"}])
def test_nothing_is_sent_unless_it_says_so(variables: dict[str, str]) -> None:
    names = {"EXPORTER": "OTEL_TRACES_EXPORTER", "DISABLED": "OTEL_SDK_DISABLED"}
    done = run(SPAN, **{names[word]: value for word, value in variables.items()})
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")


def test_an_unknown_exporter_is_one_line() -> None:
    assert "OTEL_TRACES_EXPORTER=zipkin: use otlp, console or none" in run(SPAN, OTEL_TRACES_EXPORTER="zipkin").stderr


WITHOUT = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("opentelemetry"):
            raise ImportError(name)
sys.meta_path.insert(0, Hidden())
from duetto.transport import tracing
with tracing.span("x", told=1) as told:
    told(failure="y", n=2)
print(repr(tracing.traceparent()), tracing.started("x"))
"""


def test_without_opentelemetry_nothing_happens() -> None:
    done = run(WITHOUT)
    assert (done.stdout, done.stderr) == ("'' False\n", "")
    assert "without its SDK: pip install" in run(WITHOUT, OTEL_TRACES_EXPORTER="console").stderr
