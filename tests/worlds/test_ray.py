"""A Ray cluster of two machines (two raylets on this one): the same results as here, and nothing left behind."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest

import duetto as du
from duetto import algorithms, protocols
from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.models import Mlp
from duetto.training import SGD, Client, CrossEntropy, Drift, Sequential
from duetto.training.executor import Task
from duetto.tree import Member, Tree
from duetto.types import Trained
from duetto.worlds import Ray

ray = pytest.importorskip("ray")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # ray 2.55: files and processes of its own
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # the same, where they are collected
]
NET = Mlp((6,), 4, (9,))
SIZES = (7, 5, 12, 1, 9, 0, 5)  # the one without rows fails
BAD = SIZES.index(0)
MEMORY = 80 << 20  # bytes of a machine's object store


@dataclass(frozen=True)
class Summing(Client):
    """Asks for the sum of the gradients."""

    sums_gradients: ClassVar[bool] = True


CLIENT = Summing(NET, (CrossEntropy(), Drift("drift")), SGD(0.1, 0.9), 2, 5)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a cluster of two machines with one processor each."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        own = {"num_cpus": 1, "object_store_memory": MEMORY, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=own)
        cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the machines have no tests
        yield cluster.address
        ray.shutdown()
        cluster.shutdown()


def tasks(sizes: Sequence[int] = SIZES) -> list[Task]:
    """Clients of these sizes that start together, in float64."""
    random = np.random.default_rng(0)
    params = trees.map(lambda leaf: leaf.astype(np.float64), NET.init(0))
    made = []
    for k, n in enumerate(sizes):
        drift = trees.map(lambda leaf: random.normal(size=leaf.shape), params)
        data = {"x": random.normal(size=(n, 6)).astype(np.float32), "y": random.integers(0, 4, n)}
        made.append(Task({"params": params, "drift": drift}, data, ("k", k)))
    return made


def close(left: Tree, right: Tree, tolerance: float = 1e-12) -> None:
    """Equal, relative to the largest entry of the tree."""
    largest = max(float(np.abs(leaf).max()) for _, leaf in trees.leaves(right))
    trees.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * largest), left, right)


def whole(results: Sequence[Any]) -> list[Trained]:
    """Those that did not fail."""
    return [each for each in results if isinstance(each, Trained)]


def test_a_cluster_is_one_after_the_other(address: str) -> None:
    given = tasks()
    alone, apart = Sequential().train(CLIENT, given), Ray(address).train(CLIENT, given)
    assert str(apart[BAD]) == str(alone[BAD])
    assert len(whole(apart)) == len(whole(alone)) == 6
    weights = np.random.default_rng(1).random(6).tolist()
    for what in ("delta", "gradients"):
        mine, theirs = ([getattr(each, what) for each in whole(results)] for results in (alone, apart))
        close(trees.total(theirs, weights), trees.total(mine, weights))
        for a, b in zip(mine, theirs, strict=True):
            assert isinstance(b, Member)
            close(dict(b), a)
            assert trees.norm(b) == pytest.approx(trees.norm(a), rel=1e-9)
            assert trees.finite(b)
    for a, b in zip(whole(alone), whole(apart), strict=True):
        assert (a.steps, a.examples) == (b.steps, b.examples)
        assert b.loss == pytest.approx(a.loss, rel=1e-5)
        assert b.start is given[0].start["params"]


def test_both_machines_work_and_what_many_start_from_is_stored_once(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, stored = ray.put, []

    def counted(value: Any) -> Any:
        stored.append(value)
        return put(value)

    given = tasks()
    monkeypatch.setattr(ray, "put", counted)
    assert len(whole(Ray(address).train(CLIENT, given))) == 6
    assert len(stored) == 1
    assert stored[0] is given[0].start["params"]
    nodes = {actor["Address"]["NodeID"] for actor in alive()}
    assert len(nodes) == 2


def alive() -> list[dict[str, Any]]:
    """The actors that are there."""
    return [actor for actor in ray._private.state.actors().values() if actor["State"] == "ALIVE"]


def test_rounds_on_a_simulated_fleet(address: str) -> None:
    def federated(executor: Any) -> list[Tree]:
        draw = np.random.default_rng(0)
        data = {f"user-{n}": du.Rows(draw.normal(size=(n, 6)), draw.integers(0, 4, n)) for n in (9, 20, 3, 14)}
        params = trees.map(lambda leaf: leaf.astype(np.float64), NET.init(0))
        made = algorithms.fedavg(NET, params, lr=0.1, epochs=2, batch_size=5)
        kept: list[Tree] = []

        class Keeping(type(made.server)):  # type: ignore[misc]
            def step(self, state: Any, params: Tree, collected: Tree, **more: Any) -> Any:
                state, params = super().step(state, params, collected, **more)
                kept.append(params)
                return state, params

        learning = replace(made, client=replace(made.client, executor=executor), server=Keeping())
        du.simulate(
            cloud=protocols.rounds(learning, steps=3),
            device=du.Party(skills=(Client,)),
            fleet=du.fleet("phones", users=sorted(data), data=data.__getitem__),
        )
        return kept

    alone, apart = federated(Sequential()), federated(Ray(address, 2))
    assert len(alone) == len(apart) == 3
    for a, b in zip(alone, apart, strict=True):
        close(b, a, 1e-10)


def test_a_killed_actor_is_replaced_and_what_it_kept_is_trained_again(address: str) -> None:
    results = [each.delta for each in whole(Ray(address).train(CLIENT, tasks()))]
    os.kill(alive()[0]["Pid"], signal.SIGKILL)
    alone = [each.delta for each in whole(Sequential().train(CLIENT, tasks()))]
    close(trees.total(results, [1.0] * 6), trees.total(alone, [1.0] * 6))


@dataclass(frozen=True)
class Deadly:
    """Costs an actor its life where a row begins with 666."""

    def __call__(self, x: Any, generator: Any) -> Any:
        if (x[:, 0] == 666).any():
            os.kill(os.getpid(), signal.SIGKILL)
        return x


def test_who_dies_while_training(address: str) -> None:
    given = tasks()
    given[2].data["x"][3, 0] = 666
    results = Ray(address).train(replace(CLIENT, augment=Deadly()), given)
    faults = {str(each) for i, each in enumerate(results) if not isinstance(each, Trained) and i != BAD}
    assert faults == {
        "worker 0 of Ray(2) was lost twice (The actor died unexpectedly before finishing this task.): "
        "its clients may need more memory than there is: use fewer workers"
    }
    assert whole(results)


class Unreadable:
    """Pickled, it asks for a module that no machine has."""

    def __reduce__(self) -> Any:
        return __import__, ("duetto_user_unknown",)


def test_what_cannot_be_sent_is_said_in_one_line_and_the_actors_go_on(address: str) -> None:
    for augment, fault in (
        (socket.socket(), "this client cannot be sent to another process"),
        (Unreadable(), "a Ray worker cannot read what it was sent .*No module named 'duetto_user_unknown'"),
    ):
        with pytest.raises(ConfigError, match=fault) as caught:
            Ray(address).train(replace(CLIENT, augment=augment), tasks())  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
    assert len(whole(Ray(address).train(CLIENT, tasks()))) == 6


def test_what_a_cluster_cannot_do_is_said_in_one_line(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="3 workers on a Ray cluster with 2 processors: use fewer, or add machines"):
        Ray(address, 3).train(CLIENT, tasks())
    with pytest.raises(ConfigError, match=r"is part of the Ray cluster at .* already, not of 127\.0\.0\.1:1"):
        Ray("127.0.0.1:1").train(CLIENT, tasks())
    Ray(address, 1).train(CLIENT, tasks())  # others give their processors back
    held = ray.remote(num_cpus=1)(Held).remote()
    ray.get(held.here.remote())
    monkeypatch.setattr("duetto.worlds.ray._PATIENCE", 5.0)
    with pytest.raises(ConfigError, match=r"no processor of the Ray cluster was free for 5\.0 s: others hold them"):
        Ray(address, 2).train(CLIENT, tasks())
    ray.kill(held)


class Held:
    """Holds a processor."""

    def here(self) -> None:
        """It does."""


SCRIPT = """
    import numpy as np
    from duetto import tree as trees
    from duetto.errors import ConfigError
    from duetto.models import Mlp
    from duetto.training import SGD, Client, CrossEntropy
    from duetto.training.executor import Task
    from duetto.worlds import Ray

    class Own(Client):
        pass

    net = Mlp((6,), 4)
    start, draw = {"params": net.init(0)}, np.random.default_rng(0)
    data = {"x": draw.random((9, 6), np.float32), "y": draw.integers(0, 4, 9)}
    tasks = [Task(start, data, (k,)) for k in range(4)]
    client = Own(net, (CrossEntropy(),), SGD(0.1), 1, 5)
    for address in ("127.0.0.1:1", "nowhere", "auto"):
        try:
            Ray(address).train(client, tasks)
        except ConfigError as error:
            print(error)
    results = Ray(workers=1).train(client, tasks)
    print(len(results), trees.norm(trees.total([each.delta for each in results], [1.0] * 4)) > 0)
"""


def test_a_cluster_of_its_own_ends_with_the_process(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/duetto-ray-nobody")  # where "auto" finds no cluster
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(SCRIPT))
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "no Ray cluster at 127.0.0.1:1 ([Errno 111] Connection refused): start one with `ray start --head`",
        "no Ray cluster at nowhere (invalid literal for int() with base 10: 'nowhere'): "
        "start one with `ray start --head`",
        "no Ray cluster at auto (Could not find any running Ray instance. Please specify the one to connect to by "
        "setting `--address` flag or `RAY_ADDRESS` environment variable.): start one with `ray start --head`",
        "4 True",
    ]
    assert "Traceback" not in done.stderr


def test_importing_duetto_imports_no_ray() -> None:
    code = "import sys, duetto, duetto.worlds, duetto.cli.executors; sys.exit('ray' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="0 Ray workers: use at least 1"):
        Ray(workers=0)
