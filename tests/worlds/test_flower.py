"""Flower as a world: without processes, where a grid calls the devices' app itself; and with all of Flower's."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

import duetto as du
from duetto import algorithms, policies, protocols, tasks
from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.evaluation import records as log
from duetto.transport.identity import Authority
from duetto.types import Party
from duetto.worlds import flower

pytest.importorskip("flwr", reason="needs the flower extra")

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

RUN: dict[str, Any] = {"task": "digits", "algorithm": "fedavg", "rounds": 2, "nodes": 3, "cohort": 2, "seed": 1}


def program(run: Mapping[str, Any]) -> flower.Program:
    """What the starter's program.py makes."""
    task = tasks.load(run["task"], run["seed"])
    make = getattr(algorithms, run["algorithm"])
    own = {"lam": 0.1} if run["algorithm"] == "ditto" else {}
    common = {"lr": 0.1, "epochs": 1, "batch_size": 16, "cohort": policies.Uniform(run["cohort"]), **own}
    made = make(task.small, task.small.init(run["seed"]), **common)
    return flower.Program(
        device=Party(skills=(type(made.client),)),
        cloud=Party(roles=(protocols.rounds(made, steps=run["rounds"], seed=run["seed"]),)),
        data=task.rows,
        devices=task.users["device"][: run["nodes"]],
    )


def simulated(run: Mapping[str, Any]) -> Any:
    """The same in memory."""
    made = program(run)
    fleet = du.fleet("phones", made.devices, data=made.data)
    return du.simulate(device=made.device, cloud=made.cloud, fleet=fleet, alone=True)


def differing(found: Any, wanted: Any) -> list[str]:
    """Where two memories differ by a bit."""
    a, b = dict(trees.leaves(found)), dict(trees.leaves(wanted))
    assert a.keys() == b.keys()
    return [pointer for pointer in a if not np.array_equal(a[pointer], b[pointer])]


class Here(Grid):
    """A grid whose nodes are apps in this process; each has its context, as a SuperNode has."""

    def __init__(self, nodes: Mapping[int, Mapping[str, Any]], run: Mapping[str, Any]) -> None:
        self.app = flower.client(program)
        self.contexts = {
            node: Context(run_id=1, node_id=node, node_config=dict(about), state=RecordDict(), run_config=dict(run))
            for node, about in nodes.items()
        }
        self.replies: dict[str, Message] = {}
        self.lost: set[int] = set()
        self.asked = 0

    def set_run(self, run: Any) -> None:
        """There is one."""

    run = None  # type: ignore[assignment]

    def create_message(self, *given: Any, **named: Any) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> list[int]:
        return list(self.contexts)

    def push_messages(self, messages: Any) -> list[str]:
        marks = []
        for message in messages:
            self.asked += 1
            mark = f"m{self.asked}"
            message.metadata.__dict__["_message_id"] = mark
            node = message.metadata.dst_node_id
            if node in self.lost and message.metadata.message_type == "query.ask":
                reply = Message(Error(code=1, reason="the node is gone"), reply_to=message)
            else:
                reply = self.app(message, self.contexts[node])
            self.replies[mark] = reply
            marks.append(mark)
        return marks

    def pull_messages(self, message_ids: Any) -> list[Message]:
        return [self.replies.pop(mark) for mark in message_ids if mark in self.replies]

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Message]:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Flower tells a process that runs an app: a message cannot be made without it."""
    for name in ("run_id", "task_id", "node_id"):
        monkeypatch.setattr(TaskIdentity, f"_{name}", 1)


def played(grid: Here, run: Mapping[str, Any], folder: Path) -> tuple[Mapping[str, Any], list[Any]]:
    """What the cloud remembers after a run, and its records."""
    given = {**run, "memory": str(folder / "cloud.safetensors"), "records": str(folder / "rounds.jsonl")}
    asyncio.run(asyncio.wait_for(flower.served(program(run), grid, given), 60))
    kept = trees.decode((folder / "cloud.safetensors").read_bytes())
    return kept["memory"], log.read(folder / "rounds.jsonl")


@pytest.mark.parametrize("algorithm", ["fedavg", "scaffold", "ditto", "fedlora"])
def test_a_grid_gives_what_the_simulation_gives(algorithm: str, tmp_path: Path) -> None:
    run = {**RUN, "algorithm": algorithm}
    grid = Here({7: {"partition-id": 1}, 3: {"partition-id": 0}, 5: {"partition-id": 2}}, run)
    memory, records = played(grid, run, tmp_path)
    wanted = simulated(run)
    assert differing(memory, dict(wanted.memory["cloud"])) == []
    assert [(r.cost.up_bytes, r.cost.down_bytes) for r in records] == [
        (r.cost.up_bytes, r.cost.down_bytes) for r in wanted.records
    ]
    names = program(run).devices
    for node, at in ((7, 1), (3, 0), (5, 2)):
        state = flower._State(grid.contexts[node].state).load()
        mine = dict(wanted.memory.get(names[at], {}))
        assert differing(state[0] if state else {}, mine) == []


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    nodes = {1: {"partition-id": 0}, 2: {"partition-id": 1}, 3: {"partition-id": 2}}
    played(Here(nodes, RUN), {**RUN, "rounds": 1}, tmp_path)
    memory, records = played(Here(nodes, RUN), RUN, tmp_path)
    assert differing(memory["params"], simulated(RUN).memory["cloud"]["params"]) == []
    assert [record.step for record in records] == [0, 1]


def test_a_node_that_is_lost_is_a_failure_of_its_own(tmp_path: Path) -> None:
    run = {**RUN, "rounds": 1, "cohort": 3}
    grid = Here({1: {"partition-id": 0}, 2: {"partition-id": 1}, 3: {"partition-id": 2}}, run)
    grid.lost = {2}
    (record,) = played(grid, run, tmp_path)[1]
    assert (record.metrics["cohort"], record.metrics["failed"]) == (3, 1)
    assert "the node is gone" in str(record.metrics["failures"])


def test_nodes_that_do_not_belong_take_no_part(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = program(RUN).devices
    grid = Here({1: {"name": names[0]}, 2: {"name": "eve"}, 3: {"name": names[1]}, 4: {"name": names[1]}}, RUN)
    stranger = tasks.load("digits", 1).users["device"][5]
    grid.contexts[6] = Context(
        run_id=1, node_id=6, node_config={"name": stranger}, state=RecordDict(), run_config=dict(RUN)
    )
    grid.contexts[5] = Context(run_id=1, node_id=5, node_config={}, state=RecordDict(), run_config=dict(RUN))
    with caplog.at_level("WARNING"):
        record = played(grid, {**RUN, "nodes": 3, "rounds": 1, "wait": 2}, tmp_path)[1][0]
    assert record.metrics["failed"] == 0
    told = caplog.text
    assert "node 2 (eve) takes no part: no user 'eve' among 40" in told
    assert f"node 6 ({stranger}) takes no part: the run has no device of that name" in told
    assert f"node 4 ({names[1]}) takes no part: another node is called so, too" in told
    assert "a SuperNode of no name" in told


def test_a_device_with_a_role_is_refused() -> None:
    async def role(cloud: Any) -> Any:
        yield

    with pytest.raises(ConfigError, match="run it with duetto cloud and duetto device"):
        flower.Program(device=Party(roles=(role,)), cloud=Party())


# ------------------------------------------------------------------------------------------- all of Flower's


def free() -> int:
    """A port that nobody listens at now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Federation:
    """A SuperLink with a certificate, and two SuperNodes whose keys it knows."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.running = folder, []
        self.address = f"127.0.0.1:{free()}"
        home = folder / "home"
        home.mkdir()
        self.env = {
            **os.environ,
            "FLWR_HOME": str(home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
            "OMP_NUM_THREADS": "1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        Authority.make(folder / "authority").server(["localhost", "127.0.0.1"]).save(folder / "server")
        trust = folder / "server" / "authority.pem"
        (home / "config.toml").write_text(
            f'[superlink.here]\naddress = "{self.address}"\nroot-certificates = "{trust}"\n'
        )
        self.start(
            *("flower-superlink", "--port", self.address.rpartition(":")[2], "--enable-supernode-auth"),
            *("--ssl-certfile", str(folder / "server" / "certificate.pem")),
            *("--ssl-keyfile", str(folder / "server" / "key.pem"), "--ssl-ca-certfile", str(trust)),
            "--disable-runtime-dependency-installation",
        )
        self.until(lambda: self.call("flwr", "supernode", "list", "here").returncode == 0)
        for node in range(2):
            self.node(node, trust)

    def node(self, number: int, trust: Path) -> None:
        """Register a key, and start a SuperNode with it."""
        key, public = self.key(f"node{number}")
        done = self.call("flwr", "supernode", "register", str(public), "here")
        assert done.returncode == 0, done.stdout + done.stderr
        self.start(*self.supernode(number, key, trust))

    def supernode(self, number: int, key: Path, trust: Path) -> list[str]:
        """The words that start one."""
        return [
            *("flower-supernode", "--superlink", self.address, "--root-certificates", str(trust)),
            *("--auth-supernode-private-key", str(key), "--node-config", f"partition-id={number}"),
            *("--port", str(free())),
        ]

    def key(self, name: str) -> tuple[Path, Path]:
        """A key pair in files."""
        key = ec.generate_private_key(ec.SECP384R1())
        made = self.folder / name, self.folder / f"{name}.pub"
        pem, ssh = serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH
        made[0].write_bytes(key.private_bytes(pem, ssh, serialization.NoEncryption()))
        public = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        made[1].write_bytes(key.public_key().public_bytes(*public))
        return made

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """A process that stays, in a group of its own: Flower starts others."""
        with (self.folder / "log.txt").open("ab") as file:
            process = subprocess.Popen(
                words, env=self.env, stdin=subprocess.DEVNULL, stdout=file, stderr=file, process_group=0
            )
        self.running.append(process)
        return process

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A process that ends."""
        return subprocess.run(
            words, env=self.env, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, check=False
        )

    @property
    def said(self) -> str:
        return (self.folder / "log.txt").read_text(errors="replace")

    def until(self, done: Any, seconds: float = 200.0) -> None:
        """Wait for something."""
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, self.said[-3000:]
            time.sleep(0.5)

    def end(self) -> None:
        for process in self.running:
            try:
                os.killpg(process.pid, 9)
            except ProcessLookupError:
                continue
            process.wait()


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """All of Flower's processes, with TLS and authenticated nodes."""
    made = Federation(tmp_path_factory.mktemp("flower"))
    yield made
    made.end()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("algorithm", ["fedavg", "scaffold"])
def test_a_federation_gives_what_the_simulation_gives(algorithm: str, federation: Federation, tmp_path: Path) -> None:
    """``duetto flower new`` writes the app; a SuperLink and two SuperNodes run it."""
    app = tmp_path / "clinic"
    words = [sys.executable, "-m", "duetto", "flower", "new", str(app), "--algorithm", algorithm]
    assert federation.call(*words).returncode == 0
    run = {**RUN, "algorithm": algorithm, "nodes": 2, "cohort": 2, "seed": 3}
    memory, records = tmp_path / "cloud.safetensors", tmp_path / "rounds.jsonl"
    texts = [f"{name}={json.dumps(run[name])}" for name in ("rounds", "nodes", "cohort", "seed")]
    texts += [f'memory="{memory}"', f'records="{records}"']
    done = federation.call("flwr", "run", str(app), "here", "--run-config", " ".join(texts))
    assert done.returncode == 0, done.stdout + done.stderr
    federation.until(lambda: records.exists() and len(log.read(records)) == 2 and memory.exists())
    time.sleep(0.5)  # the last save comes after the last record
    found = trees.decode(memory.read_bytes())["memory"]
    wanted = simulated(run)
    assert differing(found, dict(wanted.memory["cloud"])) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_node_whose_key_is_unknown_is_refused(federation: Federation) -> None:
    key, _ = federation.key("stranger")
    process = federation.start(*federation.supernode(9, key, federation.folder / "server" / "authority.pem"))
    assert process.wait(60) != 0
