"""What devices tell becomes their next model: a few try it first; a kill on the way teaches nothing twice."""

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.cloud.site import Site
from duetto.device.enrolling import enrolled
from duetto.models import Mlp, export
from duetto.protocols.channels import tries
from duetto.protocols.deliver import Entry
from duetto.training import Adam, Client, CrossEntropy, sequential

SMALL, LARGE = Mlp((4,), 3, (8,)), Mlp((4,), 3, (64,))
FIRST, TRUTH = SMALL.init(0), LARGE.init(1)
TRUTH = {**TRUTH, "3": trees.scale(TRUTH["3"], 20.0)}  # sure of what it says, so that its students can be
SHARE = 0.5
CANARY, STABLE = (
    [f"phone-{i}" for i in range(40) if tries(f"phone-{i}", "small", SHARE) == so][:2] for so in (True, False)
)


PAIR = """
from duetto.models import Mlp
from duetto.training import Adam, Client, CrossEntropy, Distil
SMALL = Client(Mlp((4,), 3, (8,)), (CrossEntropy(0.5), Distil(0.5, 2.0)), Adam(1e-2), 40, 16)
"""


class Phone:
    """A device that answers lines."""

    def __init__(self, name: str, started: Any) -> None:
        self.name, self._process, self._log = name, started.process, started.log

    def told(self, line: Any) -> dict[str, Any]:
        """Write a line, and read the next one."""
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline() or self._log.read_text()[-2000:])
        return found

    def version(self) -> int:
        """Of its small model; 0 while it has none."""
        return int(self.told([0.1, 0.2, 0.3, 0.4]).get("model", 0))

    def until(self, version: int, seconds: float = 60.0) -> None:
        """Wait for a model."""
        end = time.monotonic() + seconds
        while (found := self.version()) != version:
            assert time.monotonic() < end, (self.name, found, self._log.read_text()[-2000:])
            time.sleep(0.1)

    def asks(self, count: int, draw: np.random.Generator) -> None:
        """Answer inputs until the cloud was asked so often."""
        while count:
            count -= self.told((draw.standard_normal(4) * 0.5).tolist())["by"] == "cloud"


def right(x: np.ndarray) -> int:
    return int(LARGE.logits(TRUTH, x[None].astype(np.float32)).argmax())


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A folder with a pair."""
    (tmp_path / "pair.py").write_text(PAIR)
    (tmp_path / "small.safetensors").write_bytes(trees.encode(FIRST))
    export.onnx(LARGE, TRUTH, tmp_path / "large.onnx")
    return tmp_path


def cloud(house: Path, port: int, *more: str) -> tuple[list[str], dict[str, Any]]:
    """A cloud that teaches."""
    words = ["cloud", "--large", str(house / "large.onnx"), "--state", str(house / "cloud"), "--share", str(SHARE)]
    words += ["--listen", f"127.0.0.1:{port}", "--enrol", f"127.0.0.1:{port + 1}", "--every", "0.2"]
    words += ["--teach", "pair:SMALL", "--params", str(house / "small.safetensors"), *more]
    return words, {"env": {"PYTHONPATH": os.pathsep.join([str(house), os.environ.get("PYTHONPATH", "")])}}


@pytest.mark.slow
@pytest.mark.timeout(540)
def test_what_devices_tell_becomes_their_model_and_a_bad_one_goes_back(
    house: Path, port: int, start: Callable[..., Any]
) -> None:
    rule = ["window=40", "margin=0.3", "asking=0.5", "failing=0.3", "looks=2", "devices=2"]
    flags = [word for each in rule for word in ("--rule", each)]
    flags += ["--lesson", "least=100", "--lesson", "fitting=100000"]
    words, given = cloud(house, port, *flags)
    served = start("cloud", *words, **given)
    served.until("release 1 is offered to canary", 120)
    site = Site(house / "cloud")
    authority = site.authority.certificate
    phones = {}
    for name in CANARY + STABLE:
        token = site.enrolment.token(name, issuer="test")
        where = {"cloud": f"localhost:{port + 1}", "token": token, "name": name, "authority": authority}
        asyncio.run(enrolled(house / name, **where))
        words = ["device", "--cloud", f"localhost:{port}", "--state", str(house / name), "--leaves", "raw"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        phones[name] = Phone(name, start(name, *words, "--update-every", "0.3", **pipes))
    for phone in phones.values():
        phone.until(1)
    draw = np.random.default_rng(0)

    # feedback flows in, and a model comes out, which two of four try
    for phone in phones.values():
        for _ in range(40):
            x = draw.standard_normal(4)
            phone.told(x.tolist())
            assert phone.told({"correct": right(x)})["corrected"]
    served.until("version 2 is tried", 120)
    for name in CANARY:
        phones[name].until(2)
    assert [phones[name].version() for name in STABLE] == [1, 1]
    for phone in phones.values():
        phone.asks(25, draw)
    served.until("version 2 goes to all", 60)
    for name in STABLE:
        phones[name].until(2)

    rows = (draw.standard_normal((40, 4)) * 2).tolist()
    before = [phones[CANARY[0]].told(row) for row in rows]

    # one that was trained on labels in which the classes were shuffled
    x = draw.standard_normal((400, 4)).astype(np.float32)
    shuffled = (LARGE.logits(TRUTH, x).argmax(1) + 1) % 3  # every class is taken for another one
    client = Client(SMALL, (CrossEntropy(),), Adam(1e-2), 20, 32)
    bad = sequential.run(client, {"params": FIRST}, {"x": x, "y": shuffled}, ("bad",)).params
    path = export.onnx(SMALL, bad, house / "bad.onnx")
    put = site.registry.blobs.put
    kinds = {"device": put(path.read_bytes()), "safetensors": put(trees.encode(bad))}
    good = site.registry.channel("small", "stable")
    site.registry.add(
        "small", kinds, by="test", parents=[("small", 2)], trained_from={"upto": good.trained_from["upto"]}
    )  # type: ignore[union-attr]
    promoted = ["cloud", "promote", "3", "--channel", "canary", "--state", str(house / "cloud"), "--json"]
    assert start("promote", *promoted).ended() == 0
    for name in CANARY:
        phones[name].until(3)
    assert [phones[name].version() for name in STABLE] == [2, 2]
    for phone in phones.values():
        phone.asks(25, draw)
    served.until("version 3 goes back: agreement", 60)
    for name in CANARY:
        phones[name].until(4)  # what they had before, under a higher number
    assert [phones[name].version() for name in STABLE] == [2, 2]
    after = [phones[CANARY[0]].told(row) for row in rows]
    same = [(a["label"], b["label"]) for a, b in zip(before, after, strict=True) if a["asked"] == b["asked"] is False]
    assert same
    assert all(a == b for a, b in same)


@pytest.mark.slow
@pytest.mark.timeout(540)
def test_a_cloud_that_is_killed_while_it_teaches_teaches_nothing_twice(
    house: Path, port: int, start: Callable[..., Any]
) -> None:
    site, draw = Site(house / "cloud").begin(), np.random.default_rng(1)
    words, given = cloud(house, port, "--lesson", "least=200")
    first = start("cloud", *words, **given)
    first.until("release 1 is offered to canary", 120)
    first.kill()
    for i in range(4):
        x = draw.standard_normal((75, 4)).astype(np.float32)
        bodies = [trees.encode({"x": row, "label": np.int64(right(row))}) for row in x]
        entries = [Entry(n + 1, "feedback", body) for n, body in enumerate(bodies)]
        site.feedback.keep(f"phone-{i}", bytes(15) + bytes([i]), entries)
    for turn, seconds in enumerate(np.random.default_rng(2).uniform(0.0, 4.0, 4)):
        words, given = cloud(house, port, "--lesson", "least=200")
        served = start(f"cloud-{turn}", *words, **given)
        served.until("listening", 120)
        end = time.monotonic() + 30
        while "a lesson of" not in served.said and len(site.registry.versions("small")) < 2 and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(seconds)
        served.kill()
    words, given = cloud(house, port, "--lesson", "least=200")
    start("cloud-last", *words, **given).until("listening", 120)
    end = time.monotonic() + 120
    while not [each for each in site.releases.releases() if each.channel == "canary" and each.version > 1]:
        assert time.monotonic() < end
        time.sleep(0.1)
    learned = [(each.trained_from["after"], each.trained_from["upto"]) for each in site.registry.versions("small")]
    assert learned == [(0, 0), (0, 300)]
    assert "gain" in site.registry.metrics("small", 2)
