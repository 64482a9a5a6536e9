"""A device that learns with others: only while its user lets it, and a teacher that runs rounds over such devices."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from duetto import tree as trees
from duetto.algorithms import fedavg, scaffold
from duetto.device.learning import Learning, offers
from duetto.device.lessons import Lessons
from duetto.models import Mlp
from duetto.protocols.probe import Echo
from duetto.protocols.rounds import begun, one_round
from duetto.training import SGD, Client, CrossEntropy, sequential
from duetto.transport import vocabulary
from duetto.transport.session import Question
from duetto.tree import Tree
from duetto.types import Group, Key, Peer, Reply, Skill

NET = Mlp((4,), 3, (8,))
PARAMS = NET.init(0)
CLIENT = Client(NET, (CrossEntropy(),), SGD(0.1), 2, 8)


def taught(path: Path, seed: int, n: int = 24) -> Lessons:
    """What a device was told."""
    draw = np.random.default_rng(seed)
    kept = Lessons(path / "lessons.db")
    for i in range(n):
        x = draw.standard_normal(4).astype(np.float32)
        kept.keep("s", i, 0, x, np.zeros(3), np.eye(3)[int(x[:3].argmax())], corrected=True)
    return kept


class Direct(Peer):
    """A device without a network between."""

    def __init__(self, learning: Learning) -> None:
        self.name, self.traits, self.learning = learning.name, {}, learning

    async def ask(self, skill: Skill, tree: Tree, *, key: Key, deadline: float | None = None) -> Reply:
        said = await self.learning.answer("cloud", Question(*vocabulary.written(skill), key, trees.encode(tree)))
        return Reply(self.name, None if said.failure else trees.decode(said.body), failure=said.failure or None)


class Devices(Group):
    """Some of them."""

    def __init__(self, *peers: Direct) -> None:
        self.names, self._peers = [peer.name for peer in peers], {peer.name: peer for peer in peers}
        self.traits: Mapping[str, Any] = {"online": np.ones(len(peers))}
        self.online = list(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def peer(self, name: str) -> Peer:
        return self._peers[name]


def asked(learning: Learning, skill: Skill, tree: Tree) -> Reply:
    async def main() -> Reply:
        return await Direct(learning).ask(skill, tree, key=("k",))

    return asyncio.run(main())


def test_it_offers_the_librarys_clients() -> None:
    offered = offers()
    assert {"Client", "FedDynClient", "FedNovaClient", "ScaffoldClient"} <= {each.__name__ for each in offered}
    assert all(issubclass(each, Client) and each.__module__.startswith("duetto.") for each in offered)


def test_it_trains_on_what_it_was_taught_only_while_it_may(tmp_path: Path) -> None:
    why: list[str | None] = [None]
    learning = Learning("phone", taught(tmp_path, 0), lambda: why[0])
    reply = asked(learning, CLIENT, {"params": PARAMS})
    draw = np.random.default_rng(0)
    x = np.stack([draw.standard_normal(4).astype(np.float32) for _ in range(24)])
    data = {"x": x, "y": x[:, :3].argmax(1)}
    expected = sequential.run(CLIENT, {"params": PARAMS}, data, ("k",)).delta
    assert trees.encode(reply.tree["delta"]) == trees.encode(expected)
    assert float(reply.tree["weight"]) == 24.0
    why[0] = "it does not charge, and waits for that to learn"
    assert asked(learning, CLIENT, {"params": PARAMS}).failure == f"phone does not learn now: {why[0]}"
    assert asked(learning, Echo(), {"x": np.zeros(3)}).failure is None  # the cloud may still ask how far it is
    why[0] = None
    empty = Learning("new", Lessons(tmp_path / "none.db"), lambda: None)
    assert "without examples" in str(asked(empty, CLIENT, {"params": PARAMS}).failure)
    learning.close()
    empty.close()


def test_rounds_over_such_devices_go_on_without_those_that_may_not(tmp_path: Path) -> None:
    devices = [
        Learning(f"phone-{i}", taught(tmp_path / str(i), i), lambda i=i: "quiet" if i == 2 else None)  # type: ignore[misc]
        for i in range(3)
    ]
    fleet = Devices(*map(Direct, devices))
    for build in (fedavg, scaffold):
        algorithm = build(NET, PARAMS, lr=0.1, epochs=2, batch_size=8)

        async def main(algorithm: Any = algorithm) -> Any:
            memory = begun(algorithm, {})
            for step in range(5):
                memory, record = await one_round(algorithm, fleet, memory, ("round", step))
            return memory, record

        memory, record = asyncio.run(main())
        assert (record.metrics["cohort"], record.metrics["failed"]) == (3, 1)
        assert record.metrics["failures"] == "phone-2: phone-2 does not learn now: quiet"
        x = np.random.default_rng(9).standard_normal((300, 4)).astype(np.float32)
        right = [
            (NET.logits(params, x).argmax(1) == x[:, :3].argmax(1)).mean() for params in (PARAMS, memory["params"])
        ]
        assert right[1] > right[0] + 0.1
    for each in devices:
        each.close()


def test_a_teacher_makes_a_version_of_rounds(tmp_path: Path, monkeypatch: Any) -> None:
    from duetto.cloud import teacher as teaching
    from duetto.cloud.site import Site
    from duetto.protocols.deliver import Entry

    site = Site(tmp_path / "cloud", f"sqlite:///{tmp_path / 'd.db'}", str(tmp_path / "blobs")).begin()

    class Large:
        def __getitem__(self, cut: slice) -> "Large":
            return self

        def __call__(self, tree: Tree) -> Tree:
            return {"logits": tree["x"][:, :3]}

    kinds: list[Any] = []

    def artefacts(self: Any, params: Tree, *more: Any) -> dict[str, str]:
        kinds.append(params)
        return {word: site.registry.blobs.put(trees.encode(params)) for word in ("safetensors", "device")}

    monkeypatch.setattr(teaching.Teacher, "_artefacts", artefacts)
    draw = np.random.default_rng(7)
    for i in range(3):
        x = draw.standard_normal((40, 4)).astype(np.float32)
        told = [trees.encode({"x": row, "label": np.int64(row[:3].argmax())}) for row in x]
        site.feedback.keep(
            f"phone-{i}", bytes([i]) * 16, [Entry(n + 1, "feedback", body) for n, body in enumerate(told)]
        )
    rule = teaching.Promotion(window=12, margin=0.9, asking=0.9, failing=0.9, looks=1, devices=1)
    lesson = teaching.Lesson(CLIENT, least=50, policy=None)
    made = teaching.Teacher(site, Large(), NET, PARAMS, lesson=lesson, rule=rule, rounds=3)
    made.algorithm = lambda net, params: fedavg(net, params, lr=0.1, epochs=2, batch_size=8)
    devices = [Learning(f"phone-{i}", taught(tmp_path / str(i), i), lambda: None) for i in range(2)]

    class Service:
        fleet = Devices(*map(Direct, devices))

    async def together() -> list[str]:
        with ThreadPoolExecutor(1) as thread:
            return await made.together(Service(), thread)  # type: ignore[arg-type]

    made.turn()  # a lesson: version 2 is tried
    assert asyncio.run(together()) == []  # and nothing else meanwhile
    site.registry.promote("small", 2, "stable", by="test", why="test")
    assert asyncio.run(together())[0].startswith("version 3: ")
    told = site.registry.version("small", 3).trained_from
    assert (told["rounds"], told["replies"]) == (3, 6)
    assert [each["cohort"] - each["failed"] for each in told["log"]] == [2, 2, 2]
    assert site.registry.metrics("small", 2)["rounds"]["log"] == told["log"], "told while they went on, too"
    assert asyncio.run(together()) == []  # once after each lesson
    memory = begun(made.algorithm(NET, kinds[1]), {})

    async def expected() -> Any:
        nonlocal memory
        for step in range(3):
            key = (0, "small", "round", 2, step)
            memory, _ = await one_round(made.algorithm(NET, kinds[1]), Service.fleet, memory, key)  # type: ignore[misc]

    asyncio.run(expected())
    assert trees.encode(kinds[2]) == trees.encode(memory["params"])
    for each in devices:
        each.close()
    site.engine.dispose()
