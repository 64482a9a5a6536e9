"""``duetto cloud`` and ``duetto device`` as processes of their own, over TLS on loopback; the device has no torch."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duetto.cloud.site import Site
from duetto.errors import DataError
from duetto.models import Mlp, export
from duetto.protocols.deliver import DROPPED

SMALL, LARGE = Mlp((4,), 3, (8,)), Mlp((4,), 3, (64,))
DEADLINE = 2.0
BARE = (
    "import sys; sys.modules.update(dict.fromkeys(('torch', 'scipy', 'sklearn', 'sqlalchemy', 'fastapi', 'onnx')));"
    "from duetto.cli import main; sys.exit(main(sys.argv[1:]))"
)


class Lines:
    """A device that answers lines."""

    def __init__(self, words: list[str], log: Path) -> None:
        self.log = log
        self._file = log.open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-c", BARE, "device", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._file,
            text=True,
        )

    def told(self, line: Any) -> dict[str, Any]:
        """Write a line, and read the next one."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()
        found: dict[str, Any] = json.loads(self.process.stdout.readline() or self.log.read_text()[-2000:])
        return found

    def until(self, wanted: Callable[[dict[str, Any]], bool], x: list[float], seconds: float = 60.0) -> dict[str, Any]:
        """Ask again and again until an answer is as wanted."""
        end = time.monotonic() + seconds
        while not wanted(answer := self.told(x)):
            assert time.monotonic() < end, (answer, self.log.read_text()[-2000:])
            time.sleep(0.05)
        return answer

    def close(self) -> int:
        """End its input, and wait for it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        code = self.process.wait(60)
        self.process.stdout.close()
        self._file.close()
        return code


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A folder with a small and a large model."""
    export.onnx(SMALL, SMALL.init(0), tmp_path / "small.onnx")
    export.onnx(LARGE, LARGE.init(1), tmp_path / "large.onnx")
    return tmp_path


def cloud_words(house: Path, port: int) -> list[str]:
    """A cloud in this folder."""
    ways = ["--listen", f"127.0.0.1:{port}", "--enrol", f"127.0.0.1:{port + 1}"]
    return ["cloud", "--large", str(house / "large.onnx"), "--state", str(house / "cloud"), *ways]


def enrolled(house: Path, port: int, name: str) -> list[str]:
    """Enrol a device as a person would; what it is started with."""
    token = Site(house / "cloud").begin().enrolment.token(name, issuer="test")
    authority = house / "cloud" / "authority" / "authority.pem"
    words = ["device", "enrol", "--cloud", f"localhost:{port + 1}", "--token", token, "--name", name]
    words += ["--authority", str(authority), "--state", str(house / name)]
    subprocess.run([sys.executable, "-c", BARE, *words], check=True, capture_output=True, timeout=60)
    again = subprocess.run(
        [sys.executable, "-c", BARE, *words], check=False, capture_output=True, timeout=60, text=True
    )
    assert again.returncode == 2
    assert "has a certificate already" in again.stderr
    return ["--cloud", f"localhost:{port}", "--state", str(house / name), "--deadline", str(DEADLINE)]


def spread(rows: np.ndarray) -> np.ndarray:
    """How sure the small model is of each row."""
    logits = SMALL.logits(SMALL.init(0), rows)
    each = np.exp(logits - logits.max(1, keepdims=True))
    found: np.ndarray = (each / each.sum(1, keepdims=True)).max(1)
    return found


def test_answers_flow_an_outage_is_a_slower_day_and_feedback_arrives_once(
    house: Path, port: int, start: Callable[..., Any]
) -> None:
    cloud = start("cloud", *cloud_words(house, port))
    cloud.until("listening")
    words = enrolled(house, port, "phone-1")
    draws = np.random.default_rng(0).standard_normal((400, 4)).astype(np.float32) * 4
    sure, unsure = draws[spread(draws).argmax()], draws[spread(draws).argmin()]
    assert spread(sure[None])[0] >= 0.9 > spread(unsure[None])[0]  # the threshold of a device without a policy
    large = int(LARGE.logits(LARGE.init(1), unsure[None]).argmax())
    small = int(SMALL.logits(SMALL.init(0), unsure[None]).argmax())
    device = Lines([*words, "--small", str(house / "small.onnx"), "--leaves", "raw"], house / "device.log")

    answer = device.until(lambda found: found["by"] == "cloud", unsure.tolist())
    assert answer["label"] == large
    assert answer["up_bytes"] > 0 < answer["down_bytes"]
    answer = device.told(sure.tolist())
    assert (answer["by"], answer["asked"], answer["up_bytes"]) == ("phone-1", False, 0)
    assert device.told({"correct": 2})["corrected"]

    cloud.kill()  # mid-day: the device goes on answering, within its deadline
    for _ in range(5):
        answer = device.told(unsure.tolist())
        assert (answer["by"], answer["label"]) == ("phone-1", small)
        assert answer["seconds"] <= DEADLINE + 0.05
        assert device.told({"correct": 1})["corrected"]
    start("cloud-2", *cloud_words(house, port)).until("listening")
    device.until(lambda found: found["by"] == "cloud", unsure.tolist())
    last = device.told({"correct": 0})["sequence"]
    assert device.close() == 0

    kept = list(Site(house / "cloud").feedback.arrivals())
    assert {each.device for each in kept} == {"phone-1"}
    assert [each.sequence for each in kept] == sorted({each.sequence for each in kept})
    feedback = [each for each in kept if each.kind == "feedback"]
    assert len(feedback) == 7
    assert feedback[-1].sequence == last
    assert not [each for each in kept if each.kind == DROPPED]
    assert Site(house / "cloud").feedback.gaps() == []


def test_a_model_arrives_signed_while_the_cloud_answers(house: Path, port: int, start: Callable[..., Any]) -> None:
    start("cloud", *cloud_words(house, port)).until("listening")
    words = enrolled(house, port, "phone-1")
    device = Lines([*words, "--leaves", "raw"], house / "device.log")  # no model yet
    draws = np.random.default_rng(0).standard_normal((400, 4)).astype(np.float32) * 4
    x = draws[spread(draws).argmax()].tolist()  # the small model keeps its answer
    answer = device.until(lambda found: found.get("by") == "cloud", x)
    assert answer["version"] == 0
    rows = house / "rows.npy"
    np.save(rows, np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32))
    published = ["cloud", "publish", str(house / "small.onnx"), "--version", "3", "--inputs", str(rows)]
    assert start("publish", *published, "--state", str(house / "cloud")).ended() == 0
    device.close()

    device = Lines([*words, "--leaves", "raw"], house / "device-2.log")
    answers = [device.told(x) for _ in range(2)]
    while answers[-1].get("by") != "phone-1":
        assert len(answers) < 2000
        time.sleep(0.02)
        answers.append(device.told(x))
    assert answers[-1]["version"] == 3
    unanswered = [answer for answer in answers if "error" in answer]
    assert all("offline" in answer["error"] or "no answer" in answer["error"] for answer in unanswered), unanswered
    assert "error" not in str(answers[len(unanswered) :]), "once connected, the switch drops no request"
    device.close()


def test_who_is_unknown_revoked_or_speaks_plain_text_is_refused(
    house: Path, port: int, start: Callable[..., Any]
) -> None:
    start("cloud", *cloud_words(house, port)).until("listening")
    words = enrolled(house, port, "phone-1")
    small = ["--small", str(house / "small.onnx"), "--leaves", "raw"]
    x = [0.1, 0.1, 0.1, 0.1]
    plain = Lines([*words, *small, "--insecure", "--name", "phone-1"], house / "plain.log")
    for _ in range(10):
        assert plain.told(x)["by"] == "phone-1"
        time.sleep(0.05)
    plain.close()
    device = Lines([*words, *small], house / "device.log")
    device.until(lambda found: found["by"] == "cloud", x)
    revoke = ["cloud", "revoke", "phone-1", "--why", "stolen", "--state", str(house / "cloud")]
    assert start("revoke", *revoke).ended() == 0
    end = time.monotonic() + 30
    while "will not connect again" not in device.log.read_text():
        assert "error" not in device.told(x)
        assert time.monotonic() < end
        time.sleep(0.1)
    assert "is not admitted" in device.log.read_text()
    assert device.told(x)["by"] == "phone-1"  # it goes on by itself
    device.close()
    with pytest.raises(DataError, match="phone-2"):
        Site(house / "cloud").enrolment.revoke("phone-2", "who is that")
