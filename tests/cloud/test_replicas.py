"""Two processes of one cloud, really started, over a PostgreSQL, an S3 and a folder that they share: either will do."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from duetto.cloud.database import opened
from duetto.cloud.site import Site
from duetto.device.agent import Device
from duetto.device.enrolling import enrolled
from duetto.device.runner import Connection
from duetto.device.settings import Settings
from duetto.protocols.deliver import Batch, Deliver, Entry, packed
from duetto.transport.channel import Lost
from duetto.transport.grpc import Client
from duetto.transport.identity import Credentials
from duetto.transport.party import Running
from duetto.transport.session import Greeting
from duetto.types import Party

SESSION = bytes(range(16))


def large(path: Path) -> Path:
    """A model whose logits are its inputs doubled, as an ONNX file."""
    from onnx import TensorProto, checker, helper, save

    node = helper.make_node("Add", ["x", "x"], ["logits"])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in ("x", "logits")]
    made = helper.make_model(
        helper.make_graph([node], "double", ends[:1], ends[1:]),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    checker.check_model(made)
    save(made, str(path))
    return path


@dataclass
class Replica:
    """A process of the cloud, and where it is."""

    process: subprocess.Popen[bytes]
    log: Path
    stream: str
    enrol: str
    url: str
    token: str = ""

    def ask(self, path: str, **body: Any) -> Any:
        data = json.dumps(body).encode() if body else None
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data, headers), timeout=30) as answer:
            return json.load(answer)


def begun(log: Path, folder: Path, environment: dict[str, str]) -> Replica:
    words = ["--large", folder / "large.onnx", "--state", folder / "cloud", "--name", "127.0.0.1"]
    words += [word for name in ("listen", "enrol", "admin") for word in (f"--{name}", "127.0.0.1:0")]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "duetto", "cloud", *map(str, words)], stderr=file, stdout=file, env=environment
        )
    end = time.monotonic() + 90
    while not (said := re.search(r"listening at .*:(\d+), enrolment at port (\d+), console at (\S+),", read(log))):
        assert process.poll() is None, read(log)
        assert time.monotonic() < end, read(log)
        time.sleep(0.05)
    return Replica(process, log, f"127.0.0.1:{said[1]}", f"127.0.0.1:{said[2]}", said[3])


def read(log: Path) -> str:
    return " ".join(log.read_text().split())


@pytest.fixture
def environment(cluster: str, bucket: str) -> Iterator[dict[str, str]]:
    """Of a database and a bucket of our own."""
    name = f"test_{uuid4().hex}"
    keeper = opened(cluster.format("postgres")).execution_options(isolation_level="AUTOCOMMIT")
    with keeper.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    made = {"DUETTO_DB": cluster.format(name), "DUETTO_BLOBS": bucket, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    yield {**os.environ, **made}
    with keeper.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    keeper.dispose()


@pytest.fixture
def replicas(tmp_path: Path, environment: dict[str, str]) -> Iterator[tuple[Replica, Replica]]:
    """Two, started together; both make the folder and the tables, or wait for the other to."""
    from concurrent.futures import ThreadPoolExecutor

    large(tmp_path / "large.onnx")
    with ThreadPoolExecutor(2) as pool:
        logs = [tmp_path / f"{name}.log" for name in ("first", "second")]
        both = tuple(pool.map(lambda log: begun(log, tmp_path, environment), logs))
    words = ["cloud", "admin-token", "anna", "--role", "operator", "--state", str(tmp_path / "cloud")]
    made = subprocess.run(
        [sys.executable, "-m", "duetto", *words], env=environment, capture_output=True, text=True, check=True
    )
    for each in both:
        each.token = made.stdout.strip()
    yield both  # type: ignore[misc]
    for each in both:
        each.process.kill()
        each.process.wait()


async def until(holds: Callable[[], bool], seconds: float = 20.0) -> float:
    """Seconds until it holds."""
    begin = time.monotonic()
    while not await asyncio.to_thread(holds):
        assert time.monotonic() - begin < seconds, "it does not come to hold"
        await asyncio.sleep(0.1)
    return time.monotonic() - begin


async def sent(address: str, credentials: Credentials, batch: Batch) -> list[int]:
    """What a replica acknowledges of a batch."""
    client = Client(address, credentials=credentials)
    connection = Connection(Greeting(credentials.name), Running(Party(), credentials.name))
    connection.dial = client.talk
    kept = asyncio.ensure_future(connection.keep())
    try:
        reply = await connection.cloud.ask(Deliver("feedback"), packed(batch), key=("deliver", address))
        if reply.failure is not None:
            raise Lost(reply.failure)
        return [int(number) for number in reply.tree["sequences"]]
    finally:
        kept.cancel()
        await asyncio.gather(kept, return_exceptions=True)
        await client.close()


async def story(first: Replica, second: Replica, site: Site, folder: Path) -> None:
    state = folder / "device"

    # A token of the first, used at the second: the device is admitted by both.
    made = first.ask("/api/v1/tokens", device="phone-1")
    credentials = await enrolled(
        state, cloud=second.enrol, token=made["token"], name="phone-1", authority=made["authority"].encode()
    )

    # Feedback that the device believes lost goes to the other one, and counts once.
    entries = [Entry(n, "feedback", b"%d" % n) for n in range(1, 6)]
    assert await sent(first.stream, credentials, Batch(SESSION, entries[:4])) == [1, 2, 3, 4]
    assert await sent(second.stream, credentials, Batch(SESSION, entries)) == [1, 2, 3, 4, 5]
    for each in (first, second):
        assert each.ask("/api/v1/feedback") == {"devices": {"phone-1": {"feedback": 5}}}
        assert each.ask("/api/v1/feedback/gaps") == []

    # A model of the bucket, promoted at the first, is seen by the second, which knows where to go back to.
    for n in (1, 2):
        site.registry.add("small", {"onnx": site.registry.blobs.put(b"weights %d" % n)}, by="test")
    channel = "/api/v1/models/small/channels/stable"
    for n in (1, 2):
        first.ask(f"{channel}/promote", version=n, why="better", expected=n - 1)
    assert second.ask("/api/v1/models")[0]["channels"][1]["version"] == 2
    with pytest.raises(urllib.error.HTTPError, match="409"):
        second.ask(f"{channel}/promote", version=1, why="another rule", expected=1)
    assert second.ask(f"{channel}/roll-back", why="worse", expected=2)["version"] == 1
    assert [move["version"] for move in first.ask(channel)] == [1, 2, 1]

    # A device that is connected to the second is seen, and revoked, by the first.
    device = Device(state, cloud=second.stream, settings=Settings("raw"), deadline=20.0)
    async with device:
        assert await device.wait_connected(30)
        assert (await device.answer(np.array([0.0, 2.0, 1.0], np.float32))).label == 1

        def here() -> bool:
            (row,) = first.ask("/api/v1/fleet/phone-1")
            return bool(row["online"])

        await until(here)
        assert first.ask("/api/v1/fleet")["online"] == 1
        first.ask("/api/v1/fleet/phone-1/revoke", why="stolen")
        assert await until(lambda: not device.connected, 10.0) < 10.0
        await until(lambda: not here())
    with pytest.raises(Lost, match=r"revoked|not admitted|offline"):
        await sent(first.stream, credentials, Batch(SESSION, entries))

    # All that was done is one chain, whoever did it.
    found = second.ask("/api/v1/audit/check")
    assert (found["lines"], found["broken"]) == (8, None), second.ask("/api/v1/audit")


async def leaving(first: Replica, folder: Path) -> None:
    """A process that ends sends its devices to another one, not away."""
    made = first.ask("/api/v1/tokens", device="phone-2")
    own = await enrolled(
        folder, cloud=first.enrol, token=made["token"], name="phone-2", authority=made["authority"].encode()
    )
    client = Client(first.stream, credentials=own)
    connection = Connection(Greeting("phone-2"), Running(Party(), "phone-2"))
    connection.dial = client.talk
    kept = asyncio.ensure_future(connection.keep())
    await until(lambda: connection.cloud.connected)
    first.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(first.process.wait, 30) == 0, read(first.log)
    await until(lambda: not connection.cloud.connected)
    await asyncio.sleep(0.2)
    assert not kept.done(), "it goes on trying"
    kept.cancel()
    await asyncio.gather(kept, return_exceptions=True)
    await client.close()


def test_two_replicas_are_one_cloud(
    replicas: tuple[Replica, Replica], tmp_path: Path, environment: dict[str, str]
) -> None:
    first, second = replicas
    site = Site(tmp_path / "cloud", environment["DUETTO_DB"], environment["DUETTO_BLOBS"])
    try:
        asyncio.run(story(first, second, site, tmp_path))
        asyncio.run(leaving(first, tmp_path / "another"))
    finally:
        site.engine.dispose()
    assert second.ask("/readyz") == {"ready": True}, "one goes, the other one stays"
    for each in replicas:
        assert "Traceback" not in read(each.log), read(each.log)
