"""One cloud and one device as real processes, a bad network between them, and what must hold whatever happens.

Nothing here knows the inside of either process: they are started by the command line, asked over the device's standard
input, killed by the kernel, and judged by their answers and by what they leave on the disk.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from schedules import PATIENCE, Action, Schedule
from wire_proxy import Wire

SLACK = 0.05  # seconds beyond the deadline that an answer may take, by the device's own clock
HANG = 60.0  # seconds after which a process that says nothing is said to hang
LARGE, EVIL, CLASSES = 11, 10, 12  # the large model always answers 11; one that nobody signed 10; version v answers v
NAME = "phone"
HERE = Path(__file__).parent


class Violated(AssertionError):
    """Something that must hold did not."""


# --------------------------------------------------------------------------------------------------------- models


def model(path: Path, label: int) -> None:
    """An ONNX file ``[n, 4] -> [n, 12]`` that answers ``label``, the surer the larger ``x[0]`` is."""
    import onnx
    from onnx import helper, numpy_helper

    weights = np.zeros((4, CLASSES), np.float32)
    weights[0, label] = 1.0
    number = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["logits"])],
        "label",
        [helper.make_tensor_value_info("x", number, ["n", 4])],
        [helper.make_tensor_value_info("logits", number, ["n", CLASSES])],
        [numpy_helper.from_array(weights, "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(made, {"flops": "96", "bytes": "192"})
    onnx.save(made, path)


# ------------------------------------------------------------------------------------------- what this machine can


@lru_cache
def clock(folder: Path) -> Path | None:
    """A library that makes a process's wall clock jump; None where it cannot be built."""
    made = folder / "clock.so"
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        return None
    built = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", made, HERE / "clock.c", "-ldl"], capture_output=True, check=False
    )
    if built.returncode != 0:
        return None
    (folder / "probe").write_text("86400")
    said = subprocess.run(
        [sys.executable, "-c", "import time; print(time.time())"],
        env={**os.environ, "LD_PRELOAD": str(made), "JUMPED": str(folder / "probe")},
        capture_output=True,
        text=True,
        check=False,
    )
    return made if said.returncode == 0 and float(said.stdout) > time.time() + 80000 else None


@lru_cache
def mounts() -> bool:
    """Whether a small file system in memory can be mounted here."""
    folder = Path(tempfile.mkdtemp())
    try:
        _mount(folder, 1)
    except OSError:
        return False
    else:
        _unmount(folder)
        return True
    finally:
        folder.rmdir()


def _mount(folder: Path, megabytes: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "mount") or libc.mount(b"none", bytes(folder), b"tmpfs", 0, f"size={megabytes}m".encode()):
        raise OSError(ctypes.get_errno(), "no mount")


def _unmount(folder: Path) -> None:
    ctypes.CDLL(None).umount2(bytes(folder), 2)  # at once for new files, in the end for open ones


def port() -> int:
    """A port that nobody listens at now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def waited(pid: int) -> dict[str, float]:
    """Seconds that the kernel has kept each thread of a process waiting for a core."""
    found = {}
    for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with suppress(OSError):
            found[thread.parent.name] = int(thread.read_text().split()[1]) / 1e9
    return found


# ------------------------------------------------------------------------------------------------------ processes


class Process:
    """A command of Duetto's that runs, once after the other, under one name.

    Attributes:
        up: whether it runs and was not told to end.
        deaths: how often it was killed.
        killed: whether it was told to end, one way or the other.
        fresh: whether it has said nothing yet since it was started.
    """

    def __init__(self, words: list[str], log: Path, env: Mapping[str, str]) -> None:
        self.words, self.log, self.env = words, log, env
        self.process: asyncio.subprocess.Process | None = None
        self.up, self.deaths = asyncio.Event(), 0
        self.killed, self.fresh = False, True

    async def start(self) -> None:
        """Start it, and wait for nothing."""
        with self.log.open("ab") as file:
            file.write(f"--- {' '.join(self.words)}\n".encode())
            file.flush()
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "duetto",
                *self.words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1", **self.env},
            )
        self.killed, self.fresh = False, True
        self.up.set()

    async def kill(self) -> None:
        """As a power cut would, but for the disk."""
        if self.running:
            assert self.process is not None
            self.killed = True
            self.up.clear()
            self.deaths += 1
            self.process.kill()
            await self.process.wait()

    def freeze(self, still: bool) -> None:
        """Stop it where it is, or let it go on."""
        if self.running:
            assert self.process is not None
            self.process.send_signal(signal.SIGSTOP if still else signal.SIGCONT)

    @property
    def running(self) -> bool:
        """Whether there is such a process now."""
        return self.process is not None and self.process.returncode is None

    async def ended(self, what: str, seconds: float = HANG) -> None:
        """Wait for its end, which must be in order."""
        assert self.process is not None
        self.up.clear()
        try:
            async with asyncio.timeout(seconds):
                code = await self.process.wait()
        except TimeoutError:
            raise Violated(f"{what} did not end within {seconds:g} s\n{await self.where()}") from None
        if code != 0:
            raise Violated(f"{what} ended with {code}\n{self.tail}")

    async def said(self, seconds: float = HANG) -> str | None:
        """Its next line; None where it was killed before it came."""
        process = self.process
        assert process is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(seconds):
                line = await process.stdout.readline()
        except TimeoutError:
            raise Violated(f"{self.words[0]} said nothing for {seconds:g} s\n{await self.where()}") from None
        if line.endswith(b"\n"):
            return line.decode()
        if not self.killed and process is self.process:
            raise Violated(f"{self.words[0]} has died by itself\n{self.tail}")
        return None

    async def where(self) -> str:
        """Where it hangs: it is killed, and tells its threads' stacks."""
        if self.running:
            assert self.process is not None
            self.process.send_signal(signal.SIGABRT)
            await self.process.wait()
        return self.tail

    async def logged(self, words: str) -> None:
        """Wait until it has said so beside its answers."""
        for _ in range(int(20 * HANG)):
            if words in self.log.read_text(errors="replace"):
                return
            await asyncio.sleep(0.05)
        raise Violated(f"{self.words[0]} did not say {words!r}\n{self.tail}")

    @property
    def tail(self) -> str:
        """The last that it has logged."""
        return self.log.read_text(errors="replace")[-3000:]


# --------------------------------------------------------------------------------------------------------- before


@dataclass(frozen=True)
class Template:
    """What every run begins with, made by the command line once: two folders, and models.

    Attributes:
        folder: with ``cloud``, ``device`` (enrolled), ``foreign`` (another cloud's releases), ``small.onnx``,
            ``large.onnx``, ``evil.onnx`` and ``v1.onnx`` to ``v9.onnx``.
    """

    folder: Path

    @classmethod
    async def make(cls, folder: Path) -> Template:
        """Make it, in an empty folder."""
        names = {"small": 0, "large": LARGE, "evil": EVIL, **{f"v{n}": n for n in range(1, 10)}}
        for name, label in names.items():
            model(folder / f"{name}.onnx", label)
        state = ["--state", str(folder / "cloud")]
        foreign = ["cloud", "publish", str(folder / "evil.onnx"), "--version", "9", "--state", str(folder / "foreign")]
        await _done(foreign)
        token = json.loads(await _done(["cloud", "enroll", NAME, *state, "--json"]))["token"]
        ports = port(), port()
        words = ["cloud", "--large", str(folder / "large.onnx"), *state, "--listen", f"127.0.0.1:{ports[0]}"]
        serving = Process([*words, "--enrol", f"127.0.0.1:{ports[1]}"], folder / "cloud.log", {})
        await serving.start()
        await serving.logged("listening at")
        words = ["device", "enrol", "--cloud", f"127.0.0.1:{ports[1]}", "--token", token, "--name", NAME]
        words += ["--authority", str(folder / "cloud/authority/authority.pem"), "--state", str(folder / "device")]
        await _done(words)
        assert serving.process is not None
        serving.process.terminate()
        await serving.ended("the cloud")
        return cls(folder)


async def _done(words: list[str]) -> str:
    made = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "duetto", *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await made.communicate()
    if made.returncode != 0:
        raise Violated(f"duetto {' '.join(words)} ended with {made.returncode}\n{err.decode()[-2000:]}")
    return out.decode()


# ------------------------------------------------------------------------------------------------------- the world


@dataclass
class Seen:
    """What a run has shown.

    Attributes:
        kinds: how often each fault really happened.
        skipped: faults that this machine cannot do.
        answers, corrections: how many came, and how many were acknowledged.
        own_late: the most that an answer took beyond its deadline, by the device's clock; negative is before it.
        wall: the most that one took as the driver saw it, on this loaded machine.
        forgiven: answers that were late by no more than the kernel had kept the device waiting.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    answers: int = 0
    corrections: int = 0
    own_late: float = -PATIENCE
    wall: float = 0.0
    forgiven: int = 0


class World:
    """The run of one schedule.

    Args:
        schedule: what happens.
        template: what it begins with; copied.
        folder: an empty one, for this run.
    """

    def __init__(self, schedule: Schedule, template: Template, folder: Path) -> None:
        self.schedule, self.template, self.folder = schedule, template, folder
        self.seen = Seen()
        self.acknowledged: dict[int, tuple[int, int]] = {}  # sequence -> (number of the question, label)
        self.told: dict[int, int] = {}  # number of the question -> label, acknowledged or not
        self.signed = {0}
        self.versions: list[int] = []
        self.question = 0
        self._releases, self._disk = asyncio.Lock(), asyncio.Lock()
        self._full: set[str] = set()
        self._begun: list[asyncio.Task[None]] = []
        self._listen = port()
        self.wire = Wire(self._listen, schedule.seed)

    # ---------------------------------------------------------------------------------------------- its life

    async def run(self) -> Seen:
        """Let everything happen, heal it, and see whether what must hold does.

        Raises:
            Violated: it does not.
        """
        with self.folders():
            await self.wire.start()
            self.processes()
            try:
                await self.cloud.start()
                await self.device.start()
                await self.cloud.logged("listening at")
                faults, user = asyncio.ensure_future(self._faults()), asyncio.ensure_future(self._user())
                try:
                    await asyncio.gather(faults, user)
                finally:
                    for task in (faults, user, *self._begun):
                        task.cancel()
                    await asyncio.wait({faults, user, *self._begun})
                await self.healed()
                await self.judged()
            finally:
                await self.killed()
        return self.seen

    async def killed(self) -> None:
        """Nothing of it runs any longer."""
        for each in (self.device, self.cloud):
            if each.running and each.process is not None:
                each.process.kill()
        for each in (self.device, self.cloud):
            await each.kill()
        await self.wire.stop()

    @contextmanager
    def folders(self) -> Iterator[None]:
        """Copies of the template's, on disks of their own where the schedule says so."""
        mounted = []
        try:
            for name in ("cloud", "device"):
                (self.folder / name).mkdir()
                if self.schedule.ram and mounts():
                    _mount(self.folder / name, 40)
                    mounted.append(self.folder / name)
                shutil.copytree(self.template.folder / name, self.folder / name, dirs_exist_ok=True)
            yield
        finally:
            for folder in mounted:
                _unmount(folder)

    def processes(self) -> None:
        """What will run, and with which words; starts nothing."""
        plain = [] if self.schedule.secure else ["--insecure"]
        shim = clock(self.template.folder)
        models = self.template.folder

        def env(who: str) -> dict[str, str]:
            if shim is None:
                return {}
            (self.folder / f"{who}.clock").write_text("0")
            return {"LD_PRELOAD": str(shim), "JUMPED": str(self.folder / f"{who}.clock")}

        words = ["cloud", "--large", str(models / "large.onnx"), "--state", str(self.folder / "cloud"), *plain]
        words += ["--listen", f"127.0.0.1:{self._listen}", "--enrol", ""]
        self.cloud = Process(words, self.folder / "cloud.log", env("cloud"))
        words = ["device", "--cloud", f"127.0.0.1:{self.wire.port}", "--small", str(models / "small.onnx"), *plain]
        from duetto.device.settings import Settings

        # The judge knows a correction by its input: more of them leave in a day than a user lets go of by default.
        Settings("raw", samples_a_day=1_000_000).save(self.folder / "device" / "settings.toml")
        words += ["--state", str(self.folder / "device"), "--name", NAME]
        words += ["--deadline", f"{PATIENCE:g}", "--deliver-every", "0.3", "--update-every", "0.5"]
        self.device = Process(words, self.folder / "device.log", env("device"))

    # ------------------------------------------------------------------------------------------------ the user

    async def _user(self) -> None:
        for turn in self.schedule.turns:
            await asyncio.sleep(turn.gap)
            await self.device.up.wait()
            if await self.ask(turn.sure) is not None and turn.correct is not None:
                await self.correct(turn.correct)

    async def _told(self, line: Any) -> dict[str, Any] | None:
        process = self.device.process
        assert process is not None
        assert process.stdin is not None
        with suppress(ConnectionError):
            process.stdin.write(json.dumps(line).encode() + b"\n")
            await process.stdin.drain()
        said = await self.device.said()
        if said is None:
            return None
        found: dict[str, Any] = json.loads(said)
        if "error" in found:
            raise Violated(f"to {line} the device said {found}\n{self.device.tail}")
        return found

    async def ask(self, sure: bool) -> dict[str, Any] | None:
        """Ask the device; None where it was killed before it answered."""
        self.question += 1
        process = self.device.process
        assert process is not None
        before, begin, fresh = waited(process.pid), time.monotonic(), self.device.fresh
        x = [20.0 if sure else 0.5, float(self.question), 0.0, 0.0]
        answer = await self._told({"x": x})
        if answer is None:
            return None
        wall, after = time.monotonic() - begin, waited(process.pid)
        kept = sum(seconds - before.get(thread, 0.0) for thread, seconds in after.items())
        late = answer["seconds"] - PATIENCE
        self.seen.answers += 1
        self.device.fresh = False
        self.seen.own_late = max(self.seen.own_late, late)
        if not fresh:  # else the process had to start
            self.seen.wall = max(self.seen.wall, wall)
        if late > SLACK + kept:
            raise Violated(f"an answer took {answer['seconds']} s, the kernel kept it for {kept:.3f} s: {answer}")
        self.seen.forgiven += late > SLACK
        if answer["by"] == NAME:
            self._ran(int(answer["version"]), answer)
        elif (answer["by"], answer["label"]) != ("cloud", LARGE):
            raise Violated(f"nobody answers so: {answer}")
        return answer

    def _ran(self, version: int, answer: Mapping[str, Any]) -> None:
        """A model of the device's own has answered: it must be the signed one of this version, and no older one."""
        if answer["label"] != version or version not in self.signed:
            raise Violated(f"a model that nobody signed has answered: {answer}; signed are {sorted(self.signed)}")
        if self.versions and version < max(self.versions) and max(self.versions) not in self._sent_away():
            raise Violated(f"version {version} after {max(self.versions)}: {answer}\n{self.device.tail}")
        self.versions.append(version)

    def _sent_away(self) -> set[int]:
        """Versions that the device's rule has sent back, which makes it run the one before them."""
        slots = self.folder / "device" / "models" / "slots.json"
        return {each[0] for each in json.loads(slots.read_text())["bad"]} if slots.exists() else set()

    async def correct(self, label: int) -> None:
        """Correct the last answer, and remember it once the device has acknowledged it."""
        number = self.question
        self.told[number] = label
        found = await self._told({"correct": label})
        if found is None:
            return
        if found != {"corrected": True, "sequence": found.get("sequence")} or found["sequence"] is None:
            raise Violated(f"a correction was answered by {found}")
        if found["sequence"] in self.acknowledged:
            raise Violated(f"sequence {found['sequence']} was given out twice")
        self.acknowledged[found["sequence"]] = number, label
        self.seen.corrections += 1

    # ---------------------------------------------------------------------------------------------- the faults

    async def _faults(self) -> None:
        begin = time.monotonic()
        for action in self.schedule.actions:
            await asyncio.sleep(max(0.0, begin + action.at - time.monotonic()))
            self._begun.append(asyncio.ensure_future(self._happens(action)))
        for task in self._begun:
            await task

    async def _happens(self, action: Action) -> None:
        kind, given = action.kind, action.given
        lasts = float(given.get("lasts", 0.0))
        done = await getattr(self, "_" + kind.replace(" ", "_"))(
            lasts, **{k: v for k, v in given.items() if k != "lasts"}
        )
        (self.seen.skipped if done is False else self.seen.kinds)[kind] += 1

    async def _kill(self, who: Process, lasts: float) -> bool:
        if not who.up.is_set():
            return False
        await who.kill()
        await asyncio.sleep(lasts)
        await who.start()
        return True

    async def _kill_device(self, lasts: float) -> bool:
        return await self._kill(self.device, lasts)

    async def _kill_cloud(self, lasts: float) -> bool:
        return await self._kill(self.cloud, lasts)

    async def _freeze_cloud(self, lasts: float) -> None:
        self.cloud.freeze(True)
        await asyncio.sleep(lasts)
        self.cloud.freeze(False)

    async def _leave(self, lasts: float) -> bool:
        """The device is told to end, delivers, and is started again."""
        if not self.device.up.is_set():
            return False
        self.device.killed = True  # nobody is to be astonished that it says nothing more
        await self._ends()
        await self.device.start()
        return True

    async def _ends(self) -> None:
        assert self.device.process is not None
        assert self.device.process.stdin is not None
        self.device.up.clear()
        self.device.process.stdin.close()
        await self.device.ended("the device")

    async def _partition(self, lasts: float, way: str) -> None:
        ways = [each for name, each in self.wire.ways.items() if way in (name, "both")]
        for each in ways:
            each.open.clear()
        await asyncio.sleep(lasts)
        for each in ways:
            each.open.set()

    async def _delay(self, lasts: float, way: str, seconds: float) -> None:
        self.wire.ways[way].delay = seconds
        await asyncio.sleep(lasts)
        self.wire.ways[way].delay = 0.0

    async def _slow(self, lasts: float, way: str, rate: float) -> None:
        self.wire.ways[way].rate = rate
        await asyncio.sleep(lasts)
        self.wire.ways[way].rate = None

    async def _cut(self, lasts: float) -> None:
        self.wire.cut()

    async def _duplicate(self, lasts: float, way: str) -> None:
        self.wire.ways[way].harm = "duplicate"

    async def _corrupt(self, lasts: float, way: str) -> None:
        self.wire.ways[way].harm = "corrupt"

    async def _disk_full(self, lasts: float, who: str) -> bool:
        if self.schedule.ram and mounts():
            self._full.add(who)
            async with self._disk if who == "cloud" else nullcontext():  # who tampers needs room
                return await self._filled(self.folder / who / "ballast", lasts)
        process = getattr(self, who).process
        if not hasattr(resource, "prlimit") or process.returncode is not None:
            return False
        with suppress(ProcessLookupError):  # no file grows beyond one page: a disk that fails at the next write
            most = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)[1]
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4096, most))
            await asyncio.sleep(lasts)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, most))
        return True

    async def _filled(self, ballast: Path, lasts: float) -> bool:
        with suppress(OSError), ballast.open("ab") as file:
            for size in (1 << 20, 1 << 12, 1):
                with suppress(OSError):
                    while True:
                        os.write(file.fileno(), bytes(size))
        await asyncio.sleep(lasts)
        ballast.unlink(missing_ok=True)
        return True

    async def _clock_jump(self, lasts: float, who: str, seconds: float) -> bool:
        if clock(self.template.folder) is None:
            return False
        (self.folder / f"{who}.clock").write_text(f"{seconds:.0f}")
        await asyncio.sleep(lasts)
        (self.folder / f"{who}.clock").write_text("0")
        return True

    async def _publish(self, lasts: float, after: float | None = None) -> bool:
        """Sign the next version; the signer is killed after so many seconds, if any."""
        async with self._releases:
            version = max(self.signed) + 1
            if version > 9:
                return False
            self.signed.add(version)  # even where the signer dies or fails: a device may see it before we do
            words = ["cloud", "publish", str(self.template.folder / f"v{version}.onnx"), "--version", str(version)]
            signer = Process([*words, "--state", str(self.folder / "cloud")], self.folder / "publish.log", {})
            await signer.start()
            assert signer.process is not None
            with suppress(TimeoutError):
                async with asyncio.timeout(HANG if after is None else after):
                    await signer.process.wait()
            if signer.running and after is None:
                await signer.kill()
                raise Violated(f"publishing hangs\n{signer.tail}")
            await signer.kill()
            if signer.process.returncode not in (0, -signal.SIGKILL) and "cloud" not in self._full:
                raise Violated(f"publishing ended with {signer.process.returncode}\n{signer.tail}")
            return True

    async def _publish_killed(self, lasts: float, after: float) -> bool:
        return await self._publish(lasts, after)

    async def _tamper(self, lasts: float, what: str) -> bool:
        """Somebody who has the cloud's disk, and no keys, changes the releases."""
        async with self._releases, self._disk:
            releases = self.folder / "cloud" / "releases"
            safe = self.folder / "releases.safe"
            shutil.copytree(releases, safe)
            try:
                if what == "foreign":
                    shutil.copytree(self.template.folder / "foreign" / "releases", releases, dirs_exist_ok=True)
                elif what == "older":
                    shutil.copytree(self.template.folder / "cloud" / "releases", releases, dirs_exist_ok=True)
                elif what == "blob":
                    for each in (releases / "blobs").glob("*"):
                        shutil.copyfile(self.template.folder / "evil.onnx", each)
                else:
                    for each in (releases / "metadata").glob("*.json"):
                        data = each.read_bytes()
                        each.write_bytes(data.replace(b'"version": 1', b'"version": 2').replace(b"a", b"b", 1))
                await asyncio.sleep(lasts)
            finally:
                shutil.copytree(safe, releases, dirs_exist_ok=True)
                shutil.rmtree(safe)
        return True

    # --------------------------------------------------------------------------------------------- afterwards

    async def healed(self) -> None:
        """All is well again: both run, the network is good, and what the device keeps arrives."""
        self.wire.heal()
        for who in ("cloud", "device"):
            process: Process = getattr(self, who)
            (self.folder / who / "ballast").unlink(missing_ok=True)
            (self.folder / f"{who}.clock").write_text("0")
            process.freeze(False)
            if not process.running:
                await process.start()
        if not self.schedule.patient:
            self.wire.cut()
            self.device.killed = True
            await self._ends()
            await self.device.start()
        if await self.ask(True) is None:
            raise Violated("the device was not there in the end")
        await self.correct(5)  # the last entry: all others go before it
        await self._until(self._delivered, 150.0, "what was acknowledged has not arrived")

    async def _until(self, holds: Callable[[], Awaitable[bool]], seconds: float, else_: str) -> None:
        end = time.monotonic() + seconds
        while not await holds():
            if time.monotonic() > end:
                raise Violated(f"{else_} after {seconds:g} s\n{self.device.tail}\n{self.cloud.tail}")
            await asyncio.sleep(0.1)

    async def _delivered(self) -> bool:
        for each in (self.cloud, self.device):
            if not each.running:
                raise Violated(f"{each.words[0]} has died by itself\n{each.tail}")
        return set(self.acknowledged) <= {row[1] for row in self._rows()}

    def _rows(self) -> list[tuple[str, int, str, bytes, bytes]]:
        """What the cloud has: device, sequence, kind, body, session."""
        disk = sqlite3.connect(f"file:{self.folder / 'cloud' / 'duetto.db'}?mode=ro", uri=True, timeout=10.0)
        try:
            return disk.execute(
                "SELECT device, sequence, kind, body, session FROM feedback ORDER BY arrival"
            ).fetchall()
        finally:
            disk.close()

    async def judged(self) -> None:
        """Both end in order, and what the cloud has is what was told: all that was acknowledged, and nothing twice.

        Raises:
            Violated: it is not.
        """
        from duetto import tree as trees
        from duetto.cloud.database import opened
        from duetto.cloud.feedback import Feedback

        await self._ends()
        outbox = sqlite3.connect(f"file:{self.folder / 'device' / 'outbox.db'}?mode=ro", uri=True)
        kept = outbox.execute("SELECT count(*) FROM entry").fetchone()[0]
        session = outbox.execute("SELECT session FROM about").fetchone()[0]
        outbox.close()
        assert self.cloud.process is not None
        self.cloud.process.terminate()
        await self.cloud.ended("the cloud")
        rows = self._rows()
        if len({(row[0], row[4], row[1]) for row in rows}) != len(rows):
            raise Violated("an entry is there twice")
        if strangers := {row[0] for row in rows} - {NAME}:
            raise Violated(f"entries of devices that there are not: {strangers}")
        if others := {row[4] for row in rows} - {session}:
            raise Violated(f"entries of sessions that there are not: {others}")
        heard: Counter[int] = Counter()
        for _, sequence, kind, body, _ in rows:
            if kind != "feedback":
                continue
            said = trees.decode(body)
            number, label = int(said["x"][1]), int(said["label"])
            heard[number] += 1
            if self.told.get(number) != label:
                raise Violated(f"entry {sequence} says {label} of question {number}: told was {self.told.get(number)}")
            if self.acknowledged.get(sequence, (number, label)) != (number, label):
                raise Violated(f"entry {sequence} is not what was acknowledged")
        if twice := [number for number, count in heard.items() if count > 1]:
            raise Violated(f"corrections of {twice} are counted twice")
        if lost := set(self.acknowledged) - {row[1] for row in rows if row[2] == "feedback"}:
            raise Violated(f"acknowledged and lost: {sorted(lost)}")
        records = [json.loads(row[3]) for row in rows if row[2] == "record"]
        if len({(each["session"], each["number"]) for each in records}) != len(records):
            raise Violated("an answer's record is there twice")
        engine = opened(f"sqlite:///{self.folder / 'cloud' / 'duetto.db'}")
        gaps = [gap for gap in Feedback(engine).gaps() if not gap.told]
        engine.dispose()
        if gaps:
            raise Violated(f"numbers that nobody explains: {gaps}")
        if kept:
            raise Violated(f"{kept} entries are still in the outbox\n{self.device.tail}")
