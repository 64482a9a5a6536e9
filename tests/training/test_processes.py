"""Processes of this machine: the same results as here, and nothing left behind."""

import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import duetto as du
from duetto import algorithms, protocols
from duetto import tree as trees
from duetto.errors import ConfigError, DataError
from duetto.models import Conv, Mlp
from duetto.training import SGD, Adam, Client, Cohort, CrossEntropy, Drift, Processes, Sequential
from duetto.training.executor import Task
from duetto.tree import Member, Tree
from duetto.types import Trained

POOL = Processes(2)  # equal values share two processes: all tests but the slow ones
NET = Mlp((6,), 4, (9,))
SIZES = (7, 5, 12, 1, 9, 0, 5)  # the one without rows fails
BAD = SIZES.index(0)
CLASSES = """
    import os, signal
    from dataclasses import dataclass
    from pathlib import Path
    from typing import ClassVar

    from duetto import tree as trees
    from duetto.training import Client


    @dataclass(frozen=True)
    class Controlled(Client):
        '''Like SCAFFOLD's: remembers its mean gradient, as whatever the executor keeps it, and is pulled by it.'''

        sums_gradients: ClassVar[bool] = True

        def start(self, sent, memory):
            return {"params": sent["params"], "drift": memory.get("mean", trees.zeros(sent["params"]))}

        def finish(self, sent, memory, trained):
            mean = trees.scale(trained.gradients, 1 / trained.steps)
            return {**memory, "mean": mean}, trained.delta, float(trained.examples)


    @dataclass(frozen=True)
    class Deadly:
        '''An augmentation that costs a process its life where a row begins with 666, the first time or always.'''

        path: str
        always: bool

        def __call__(self, x, generator):
            if (x[:, 0] == 666).any() and (self.always or not Path(self.path).exists()):
                Path(self.path).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return x
"""


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A module of the user's, which the processes can import."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "duetto_user_classes.py").write_text(textwrap.dedent(CLASSES))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield importlib.import_module("duetto_user_classes")


@pytest.fixture(scope="module", autouse=True)
def _pool(classes: Any) -> Iterator[None]:
    """The processes, started by one that uses more threads than they shall."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "3")
        POOL.train(Client(NET, (CrossEntropy(),), SGD(0.1), 1, 5), tasks())
        yield


def tasks(net: Any = NET, sizes: Sequence[int] = SIZES) -> list[Task]:
    """Clients of these sizes that start together, in float64."""
    random = np.random.default_rng(0)
    params = trees.map(lambda leaf: leaf.astype(np.float64), net.init(0))
    made = []
    for k, n in enumerate(sizes):
        drift = trees.map(lambda leaf: random.normal(size=leaf.shape), params)
        data = {"x": random.normal(size=(n, *net.shape)).astype(np.float32), "y": random.integers(0, net.classes, n)}
        made.append(Task({"params": params, "drift": drift}, data, ("k", k)))
    return made


def close(left: Tree, right: Tree, tolerance: float = 1e-12) -> None:
    """Equal, relative to the largest entry of the tree."""
    largest = max(float(np.abs(leaf).max()) for _, leaf in trees.leaves(right))
    trees.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * largest), left, right)


def same(client: Client, given: Sequence[Task]) -> None:
    """As one after the other, here: the changes, their sums, and who fails."""
    alone, apart = Sequential().train(client, given), POOL.train(client, given)
    kept = [i for i, each in enumerate(alone) if isinstance(each, Trained)]
    assert [i for i, each in enumerate(apart) if isinstance(each, Trained)] == kept
    for i in set(range(len(given))) - set(kept):
        assert type(apart[i]) is type(alone[i])
        assert str(apart[i]) == str(alone[i])
    names = ("delta", "gradients") if client.sums_gradients else ("delta",)
    weights = np.random.default_rng(1).random(len(kept)).tolist()
    for what in names:
        mine, theirs = ([getattr(results[i], what) for i in kept] for results in (alone, apart))
        close(trees.total(theirs, weights), trees.total(mine, weights))
        for a, b in zip(mine, theirs, strict=True):
            assert isinstance(b, Member)
            close(dict(b), a)
            assert trees.norm(b) == pytest.approx(trees.norm(a), rel=1e-9)
            assert trees.finite(b)
    for i in kept:
        a, b = alone[i], apart[i]
        assert (a.steps, a.examples) == (b.steps, b.examples)  # type: ignore[union-attr]
        assert b.loss == pytest.approx(a.loss, rel=1e-5)  # type: ignore[union-attr]
        assert b.start is given[i].start["params"]  # type: ignore[union-attr]


def test_processes_are_one_after_the_other(classes: Any) -> None:
    loss = (CrossEntropy(), Drift("drift"))
    same(classes.Controlled(NET, loss, SGD(0.1, 0.9), 2, 5), tasks())
    same(Client(Mlp((2, 3), 4, (9,), dropout=0.3), loss, SGD(0.1), 1, 5), tasks(Mlp((2, 3), 4, (9,), dropout=0.3)))
    net = Conv((1, 12, 12), 4, (4,), (10,))
    same(Client(net, loss, Adam(0.01), 1, 5), tasks(net))  # which a cohort trains one after the other


def test_large_and_odd_arrays_arrive_as_they_were() -> None:
    net = Mlp((784,), 4, (40,))
    given = tasks(net, (60, 3, 41))
    for task in given[:2]:
        task.data["x"].flags.writeable = False
    turned = np.asfortranarray(given[2].data["x"])
    given[2] = replace(given[2], data={"x": turned[::-1], "y": given[2].data["y"]})
    same(Client(net, (CrossEntropy(),), SGD(0.1), 1, 10), given)


def test_equal_values_share_their_processes() -> None:
    before = workers()
    Processes(workers=2, executor=Cohort(threads=1)).train(Client(NET, (CrossEntropy(),), SGD(0.1), 1, 5), tasks())
    assert workers() == before
    assert len(before) == 2


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc to read")
def test_processes_compute_in_one_thread_and_leave_ctrl_c_to_their_parent() -> None:
    assert os.environ["OMP_NUM_THREADS"] == "3"  # as it was when they were started
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    for pid in workers():
        assert b"OMP_NUM_THREADS=1\0" in Path(f"/proc/{pid}/environ").read_bytes()
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        deaf = int(status["SigBlk"], 16) | int(status["SigIgn"], 16)
        assert deaf >> signal.SIGINT - 1 & 1


def workers() -> set[int]:
    """The processes that are there."""
    return {child.pid for child in multiprocessing.active_children() if child.name == "duetto-worker"}  # type: ignore[misc]


def federated(client: type[Client], executor: Any) -> list[Tree]:
    """Three rounds on a simulated fleet; the parameters after each."""
    draw = np.random.default_rng(0)
    data = {
        f"user-{i}": du.Rows(draw.normal(size=(n, 6)), draw.integers(0, 4, n)) for i, n in enumerate((9, 20, 3, 14))
    }
    params = trees.map(lambda leaf: leaf.astype(np.float64), NET.init(0))
    made = algorithms.fedavg(NET, params, lr=0.1, epochs=2, batch_size=5)
    learner = client(NET, (CrossEntropy(), Drift("drift")), SGD(0.1), 2, 5, executor=executor)
    kept: list[Tree] = []

    class Keeping(type(made.server)):  # type: ignore[misc]
        def step(self, state: Any, params: Tree, collected: Tree, **more: Any) -> Any:
            state, params = super().step(state, params, collected, **more)
            kept.append(params)
            return state, params

    du.simulate(
        cloud=protocols.rounds(replace(made, client=learner, server=Keeping()), steps=3),
        device=du.Party(skills=(client,)),
        fleet=du.fleet("phones", users=sorted(data), data=data.__getitem__),
    )
    return kept


def test_rounds_on_a_simulated_fleet(classes: Any) -> None:
    alone, apart = (federated(classes.Controlled, executor) for executor in (Sequential(), POOL))
    assert len(alone) == len(apart) == 3
    for a, b in zip(alone, apart, strict=True):
        close(b, a, 1e-10)


def test_a_killed_process_is_replaced_and_what_it_kept_is_trained_again() -> None:
    client = Client(NET, (CrossEntropy(),), SGD(0.1), 1, 5)
    results = [each.delta for each in POOL.train(client, tasks()) if isinstance(each, Trained)]
    before = workers()
    os.kill(min(before), signal.SIGKILL)
    alone = [each.delta for each in Sequential().train(client, tasks()) if isinstance(each, Trained)]
    close(trees.total(results, [1.0] * 6), trees.total(alone, [1.0] * 6))
    assert len(workers() & before) == 1
    assert len(workers()) == 2


@pytest.mark.slow
@pytest.mark.parametrize("always", [False, True])
def test_who_dies_while_training(classes: Any, tmp_path: Path, always: bool) -> None:
    deadly = classes.Deadly(str(tmp_path / "died"), always)
    client = Client(NET, (CrossEntropy(),), SGD(0.1), 1, 5, augment=deadly)
    given = tasks()
    given[2].data["x"][3, 0] = 666  # alone the largest, so with few others
    results = POOL.train(client, given)
    fault = (
        "worker 0 of Processes(2) was lost twice (killed by SIGKILL): "
        "its clients may need more memory than there is: use fewer workers"
    )
    failed = {i: str(each) for i, each in enumerate(results) if not isinstance(each, Trained) and i != BAD}
    assert isinstance(results[BAD], DataError | ConfigError)
    assert set(failed.values()) == ({fault} if always else set())
    assert (2 in failed) == always
    assert len(failed) < len(given) - 1
    POOL.train(client, given[:2])


def test_what_cannot_be_sent_is_said_in_one_line_and_the_processes_go_on(classes: Any) -> None:
    class Local(Client):
        """No process could find it."""

    given = tasks()
    for one, fault in (
        (Local(NET, (CrossEntropy(),), SGD(0.1), 1, 5), "cannot be sent to another process"),
        (Client(NET, (CrossEntropy(),), SGD(0.1), 1, 5, augment=lambda x, generator: x), "cannot be sent"),
    ):
        with pytest.raises(ConfigError, match=fault) as caught:
            POOL.train(one, given)
        assert "\n" not in str(caught.value)
    module = ModuleType("duetto_user_unknown")  # as a class of a notebook: here, and in no file
    exec("from duetto.training import Client\nclass Unknown(Client): pass", module.__dict__)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "duetto_user_unknown", module)
        with pytest.raises(ConfigError, match=r"No module named 'duetto_user_unknown'.*can be imported"):
            POOL.train(module.Unknown(NET, (CrossEntropy(),), SGD(0.1), 1, 5), given)
    same(Client(NET, (CrossEntropy(),), SGD(0.1), 1, 5), given)


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="0 worker processes"):
        Processes(0)
    with pytest.raises(ConfigError, match="processes within processes"):
        Processes(2, Processes(2))


SCRIPT = """
    import signal
    from pathlib import Path
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    import numpy as np
    import torch
    from duetto.models import Mlp
    from duetto.training import SGD, Client, CrossEntropy, Processes, Sequential
    from duetto.training.executor import Task

    torch.set_num_threads(2)  # here, not in the processes

    class Own(Client):
        pass

    def alone(x, generator):
        assert torch.get_num_threads() == 1
        Path({marker!r}).touch()
        return x

    def train(epochs):
        net = Mlp((6,), 4)
        start, draw = {{"params": net.init(0)}}, np.random.default_rng(0)
        data = {{"x": draw.random((9, 6), np.float32), "y": draw.integers(0, 4, 9)}}
        tasks = [Task(start, data, (k,)) for k in range(4)]
        client = Own(net, (CrossEntropy(),), SGD(0.1), epochs, 5, augment=alone)
        return Processes(2, Sequential()).train(client, tasks)

    {guard}
        done = len(train(1))
        Path({marker!r}).unlink()
        print(done, flush=True)
        try:
            train({epochs})
        except KeyboardInterrupt:
            print("stopped", flush=True)
            print(len(train(1)), flush=True)
"""


def script(folder: Path, epochs: int, guard: str = 'if __name__ == "__main__":') -> "subprocess.Popen[str]":
    """A script in a process group of its own, as a shell would start it; whoever lives on keeps its output open."""
    path = folder / "script.py"
    path.write_text(textwrap.dedent(SCRIPT).format(epochs=epochs, guard=guard, marker=str(folder / MARKER)))
    return subprocess.Popen(
        [sys.executable, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


FOREVER = 10**7  # epochs
MARKER = "training"  # a file that whoever trains makes


def training_again(running: "subprocess.Popen[str]", folder: Path) -> None:
    """Waits until the first training is done and the second one runs in a worker."""
    assert running.stdout is not None
    assert running.stdout.readline() == "4\n"
    while not (folder / MARKER).exists() and running.poll() is None:
        time.sleep(0.01)


@pytest.mark.slow
def test_nothing_runs_on_after_the_end(tmp_path: Path) -> None:
    out, err = script(tmp_path, 1).communicate(timeout=120)
    assert (out, err) == ("4\n", "")


@pytest.mark.slow
def test_nothing_runs_on_after_ctrl_c_and_the_next_training_works(tmp_path: Path) -> None:
    running = script(tmp_path, FOREVER)
    training_again(running, tmp_path)
    os.killpg(running.pid, signal.SIGINT)
    out, err = running.communicate(timeout=120)
    assert (out, err) == ("stopped\n4\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_runs_on_after_a_kill(tmp_path: Path, how: signal.Signals) -> None:
    running = script(tmp_path, FOREVER)
    training_again(running, tmp_path)
    running.send_signal(how)
    out, err = running.communicate(timeout=60)
    assert running.returncode == -how
    assert (out, err) == ("", "")


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_so(tmp_path: Path) -> None:
    out, err = script(tmp_path, 1, "if True:").communicate(timeout=120)
    assert out == ""
    assert err.splitlines()[-1] == (
        "duetto.errors.ConfigError: a worker process could not start; what it said is above: "
        'a script that trains in processes does its work under if __name__ == "__main__":'
    )
