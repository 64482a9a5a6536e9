"""Workers, and what stays with them: reached here without any process in between."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duetto import tree as trees
from duetto.errors import ConfigError, DataError, Error
from duetto.models import Mlp
from duetto.training import SGD, Client, Cohort, CrossEntropy, Sequential
from duetto.training.executor import Executor, Task
from duetto.training.workers import Crew, Line, Lost, Worker, deal, plain
from duetto.tree import Bundle, Member, Tree
from duetto.types import Trained

NET = Mlp((6,), 4, (9,))
SIZES = (7, 5, 12, 1, 9, 0, 5)  # the one without rows fails
BAD = SIZES.index(0)
EXECUTORS = [Sequential(), Cohort(threads=1)]


@dataclass(frozen=True)
class Summing(Client):
    """Asks for the sum of the gradients."""

    sums_gradients: ClassVar[bool] = True


CLIENT = Summing(NET, (CrossEntropy(),), SGD(0.1, 0.9), 2, 5)


class Here(Line):
    """The way to a worker in this process; it can be cut, ``after`` so many answers."""

    def __init__(self, executor: Executor, after: float = np.inf) -> None:
        super().__init__()
        self.worker, self.after, self.sent = Worker(executor), after, []

    def begin(self, *message: Any) -> None:
        self.sent.append(message[1])
        self.answer = self.worker.call(*message)

    def end(self) -> tuple[Any, Exception | None]:
        self.after -= 1
        if self.after < 0:
            raise Lost("the line was cut")
        return vars(self).pop("answer")  # type: ignore[no-any-return]

    def close(self) -> None:
        self.after = 0


def crew(workers: int, executor: Executor, after: Sequence[float] = ()) -> tuple[Crew, list[Here]]:
    """Workers, and the lines to them in the order of their start; the first of them last only so long."""
    lives, lines = iter(after), list[Here]()

    def start() -> Line:
        lines.append(Here(executor, next(lives, np.inf)))
        return lines[-1]

    return Crew("Here", workers, start), lines


def tasks(sizes: Sequence[int] = SIZES, dtype: type = np.float64) -> list[Task]:
    """Clients of these sizes that start together."""
    random = np.random.default_rng(0)
    start = {"params": trees.map(lambda leaf: leaf.astype(dtype), NET.init(0))}
    x = [random.normal(size=(n, 6)).astype(np.float32) for n in sizes]
    return [Task(start, {"x": x, "y": random.integers(0, 4, len(x))}, ("k", k)) for k, x in enumerate(x)]


def close(left: Tree, right: Tree, tolerance: float = 1e-12) -> None:
    """Equal, relative to the largest entry of the tree."""
    largest = max(float(np.abs(leaf).max()) for _, leaf in trees.leaves(right))
    trees.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * largest), left, right)


def whole(results: Sequence[Trained | Error]) -> list[Trained]:
    """Those that did not fail."""
    return [each for each in results if isinstance(each, Trained)]


@pytest.mark.parametrize("executor", EXECUTORS, ids=["sequential", "cohort"])
@pytest.mark.parametrize("workers", [1, 2, 5, 50])
def test_what_lies_in_workers_is_what_would_lie_here(executor: Executor, workers: int) -> None:
    given = tasks()
    alone, remote = Sequential().train(CLIENT, given), crew(workers, executor)[0].train(CLIENT, given)
    assert [isinstance(each, DataError) for each in remote] == [i == BAD for i in range(len(SIZES))]
    assert str(remote[BAD]) == str(alone[BAD])
    for a, b in zip(whole(alone), whole(remote), strict=True):
        assert b.start is given[0].start["params"]
        assert (a.steps, a.examples) == (b.steps, b.examples)
        assert b.loss == pytest.approx(a.loss, rel=1e-5)  # told in float32 by the reference
        for mine, theirs in ((a.delta, b.delta), (a.gradients, b.gradients)):
            assert isinstance(theirs, Member)
            close(dict(theirs), mine)
            close(dict(trees.scale(theirs, -0.5)), trees.scale(mine, -0.5))
            assert trees.norm(theirs) == pytest.approx(trees.norm(mine), rel=1e-9)
            assert trees.finite(theirs)
            assert trees.spec(theirs) == trees.spec(mine)


@given(st.lists(st.floats(-3, 3), min_size=6, max_size=6), st.integers(1, 8))
def test_a_weighted_sum_is_the_sum_of_the_workers_sums(weights: list[float], workers: int) -> None:
    alone, remote = trained(0), trained(workers)
    for what in ("delta", "gradients"):
        mine, theirs = ([getattr(each, what) for each in results] for results in (alone, remote))
        expected = [sum(w * leaf for w, leaf in zip(weights, leaves, strict=True)) for leaves in columns(mine)]
        scale = max(float(np.abs(leaf).max()) for leaves in columns(mine) for leaf in leaves)
        for (_, leaf), wanted in zip(trees.leaves(trees.total(theirs, weights)), expected, strict=True):
            np.testing.assert_allclose(leaf, wanted, rtol=0, atol=1e-11 * scale)


@cache
def trained(workers: int) -> list[Trained]:
    """By so many workers; by none, here."""
    return whole(crew(workers, Cohort(1))[0].train(CLIENT, tasks()) if workers else Sequential().train(CLIENT, tasks()))


def columns(many: Sequence[Tree]) -> list[tuple[np.ndarray, ...]]:
    """Leaf by leaf, that leaf of every tree."""
    return list(zip(*([leaf for _, leaf in trees.leaves(tree)] for tree in many), strict=True))


def test_of_a_sum_each_worker_sends_one_tree_and_who_has_no_share_is_not_asked() -> None:
    workers, lines = crew(2, Cohort(1))
    results = whole(workers.train(CLIENT, tasks()))
    trees.total([each.delta for each in results], [1.0] * len(results))
    assert [line.sent for line in lines] == [["train", "total"]] * 2
    first = [batch.worker == 0 for batch, _ in results[0].delta.bundle._places]  # type: ignore[union-attr]
    trees.total([each.delta for each in results], np.where(first, 1.0, 0.0).tolist())
    assert [line.sent for line in lines] == [["train", "total", "total"], ["train", "total"]]
    nothing = trees.total([each.delta for each in results], [0.0] * len(results))
    assert trees.norm(nothing) == 0
    assert nothing.keys() == results[0].delta.keys()
    assert [len(line.sent) for line in lines] == [3, 2]


def test_norms_of_all_take_one_message() -> None:
    workers, lines = crew(2, Sequential())
    results = whole(workers.train(CLIENT, tasks()))
    assert all(trees.norm(each.delta) > 0 and trees.finite(each.delta) for each in results)
    assert [line.sent for line in lines] == [["train", "norm", "finite"]] * 2


def test_what_is_not_finite_is_said_to_be_so_and_does_no_harm_at_weight_0() -> None:
    given = tasks()
    given[2].data["x"][0] = np.nan  # a client would refuse such rows; an executor trains on what it gets
    results = whole(crew(2, Sequential())[0].train(CLIENT, given))
    assert [trees.finite(each.delta) for each in results] == [i != 2 for i in range(len(results))]
    assert np.isnan(trees.norm(results[2].delta))
    weights = [float(i != 2) for i in range(len(results))]
    assert trees.finite(trees.total([each.delta for each in results], weights))


def test_factors_travel_with_their_factor() -> None:
    given = tasks()
    results = whole(crew(2, Cohort(1))[0].train(CLIENT, given))
    bundle: Bundle = results[2].delta.bundle  # type: ignore[union-attr]
    factors = bundle.factors(2)
    assert factors
    for pointer, (left, right) in factors.items():
        leaf = dict(trees.leaves(dict(results[2].delta)))[pointer]
        np.testing.assert_allclose(left.T @ right, leaf, atol=1e-12)
    plain = whole(crew(2, Sequential())[0].train(CLIENT, given))
    assert plain[2].delta.bundle.factors(2) == {}  # type: ignore[union-attr]


def test_clients_of_several_specs_come_in_as_many_bundles() -> None:
    wide, narrow = tasks((3, 4)), tasks((5, 6), np.float32)
    given = [wide[0], narrow[0], wide[1], narrow[1]]
    results = whole(crew(2, Cohort(1))[0].train(CLIENT, given))
    names = [trees.spec(each.delta)["1"]["weight"].dtype for each in results]
    assert names == ["float64", "float32", "float64", "float32"]
    for each, alone in zip(results, whole(Sequential().train(CLIENT, given)), strict=True):
        close(dict(each.delta), alone.delta, 1e-5)
    sums = trees.total([each.delta for each in results], [1.0, 0.0, 1.0, 0.0])
    close(sums, trees.add(dict(results[0].delta), dict(results[2].delta)))


def test_without_sums_of_gradients_there_are_none() -> None:
    client = Client(NET, (CrossEntropy(),), SGD(0.1), 1, 5)
    assert [each.gradients for each in whole(crew(2, Cohort(1))[0].train(client, tasks()))] == [{}] * 6


def test_a_worker_forgets_what_nobody_holds_any_longer() -> None:
    workers, lines = crew(2, Cohort(1))
    first, second = workers.train(CLIENT, tasks()), workers.train(CLIENT, tasks())
    assert [len(line.worker._kept) for line in lines] == [2, 2]
    one = whole(first)[3].gradients
    del first
    gc.collect()
    close(dict(one), whole(Sequential().train(CLIENT, tasks()))[3].gradients)  # a single member holds its batch
    del one
    gc.collect()
    trees.total([each.delta for each in whole(second)], [1.0] * 6)
    assert [len(line.worker._kept) for line in lines] == [1, 1]
    del second
    gc.collect()
    workers.train(CLIENT, tasks((3,)))  # for one worker; the other is told, too
    assert [len(line.worker._kept) for line in lines] == [1, 0]


def test_what_is_gone_is_told_though_a_message_cannot_be_sent() -> None:
    workers, lines = crew(1, Cohort(1))
    workers.train(CLIENT, tasks((3,)))
    gc.collect()
    begin = lines[0].begin
    lines[0].begin = refuse  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="cannot be sent"):
        workers.train(CLIENT, tasks((3,)))
    lines[0].begin = begin  # type: ignore[method-assign]
    workers.train(CLIENT, tasks((3,)))
    assert list(lines[0].worker._kept) == [1]


def refuse(*message: Any) -> None:
    raise ConfigError("this cannot be sent")


@pytest.mark.parametrize("after", [0, 1, 2, 3], ids=["training", "total", "norm", "tree"])
def test_what_a_lost_worker_had_is_done_again_by_a_new_one(after: int) -> None:
    workers, lines = crew(2, Cohort(1), [after])
    alone, remote = Sequential().train(CLIENT, tasks()), workers.train(CLIENT, tasks())
    assert isinstance(remote[BAD], DataError)
    mine, theirs = ([each.delta for each in whole(results)] for results in (alone, remote))
    close(trees.total(theirs, [1.0] * 6), trees.total(mine, [1.0] * 6))
    assert [trees.norm(each) for each in theirs] == pytest.approx([trees.norm(each) for each in mine], rel=1e-9)
    for a, b in zip(mine, theirs, strict=True):
        close(dict(b), a)
    assert len(lines) == 3
    assert [line.sent.count("train") for line in lines] == [1, 1, 1]


def test_who_was_lost_while_another_batch_was_asked_for_is_missed_later() -> None:
    workers, _ = crew(2, Cohort(1), [1])
    first, second = (whole(workers.train(CLIENT, tasks())) for _ in range(2))
    for results in (first, second):  # the new worker numbers its batches from 0 again
        expected = trees.total([each.delta for each in whole(Sequential().train(CLIENT, tasks()))], [1.0] * 6)
        close(trees.total([each.delta for each in results], [1.0] * 6), expected)


def test_what_costs_two_workers_their_lives_fails_and_the_others_do_not() -> None:
    workers, lines = crew(2, Cohort(1), [0, np.inf, 0])
    results = workers.train(CLIENT, tasks())
    dealt = deal(SIZES, 2)
    for i in dealt[0]:
        assert str(results[i]) == (
            "worker 0 of Here was lost twice (the line was cut): "
            "its clients may need more memory than there is: use fewer workers"
        )
    assert [isinstance(results[i], Trained) for i in dealt[1]] == [i != BAD for i in dealt[1]]
    assert len(lines) == 3
    later, _ = crew(2, Cohort(1), [1, np.inf, 1])
    deltas = [each.delta for each in whole(later.train(CLIENT, tasks()))]
    with pytest.raises(ConfigError, match=r"worker 0 of Here was lost twice \(the line was cut\)"):
        trees.total(deltas, [1.0] * 6)


@dataclass(frozen=True)
class Raising:
    """An executor with a bug, where there are few tasks."""

    def train(self, client: Client, tasks: Sequence[Task]) -> list[Trained | Error]:
        if len(tasks) == 1:
            raise ValueError("a bug")
        return Sequential().train(client, tasks)


def test_a_bug_in_one_worker_is_raised_here_and_the_others_forget_their_work() -> None:
    workers, lines = crew(2, Raising())
    with pytest.raises(RuntimeError, match=r"(?s)in a worker:.*test_workers.*ValueError: a bug"):
        workers.train(CLIENT, tasks((20, 2, 2)))
    gc.collect()
    workers.train(CLIENT, tasks((2, 2, 2, 2)))
    assert [len(line.worker._kept) for line in lines] == [1, 1]


class Interrupted(Here):
    def end(self) -> tuple[Any, Exception | None]:
        raise KeyboardInterrupt


def test_an_interrupt_ends_the_workers_that_were_asked() -> None:
    lines: list[Here] = []
    kinds: list[Callable[[Executor], Here]] = [Here, Interrupted, Here, Here]

    def start() -> Line:
        lines.append(kinds[len(lines)](Sequential()))
        return lines[-1]

    workers = Crew("Here", 2, start)
    with pytest.raises(KeyboardInterrupt):
        workers.train(CLIENT, tasks())
    assert [line.after for line in lines] == [0, 0]
    assert len(whole(workers.train(CLIENT, tasks()))) == 6
    assert len(lines) == 4


@given(st.lists(st.integers(0, 100), max_size=40), st.integers(1, 9))
def test_tasks_are_dealt_evenly_by_rows(sizes: list[int], workers: int) -> None:
    dealt = deal(sizes, workers)
    assert sorted(i for mine in dealt for i in mine) == list(range(len(sizes)))
    assert len(dealt) == min(workers, len(sizes))
    assert all(mine == sorted(mine) and mine for mine in dealt)
    rows = [sum(sizes[i] + 1 for i in mine) for mine in dealt]
    # Graham 1969: what anyone has beyond the least is less than its last task
    assert max(rows, default=0) - min(rows, default=0) <= max(sizes, default=0) + 1


def test_what_lies_in_a_bundle_travels_as_arrays_and_what_is_shared_stays_so() -> None:
    first = tasks((3, 4))
    trained = whole(Cohort(1).train(CLIENT, first))
    params = trees.total([trained[0].start, trained[0].delta], [1.0, 1.0])
    drifts = [trees.scale(each.gradients, 0.5) for each in trained]
    second = [
        Task({"params": params, "drift": drift}, task.data, ("k",)) for drift, task in zip(drifts, first, strict=True)
    ]
    flat = plain(second)
    assert not any(trees.bundled(tree) for task in flat for tree in task.start.values())
    assert all(task.start["params"] is params for task in flat)
    for task, drift in zip(flat, drifts, strict=True):
        close(task.start["drift"], dict(drift))


def test_nothing_to_do() -> None:
    assert crew(2, Cohort(1))[0].train(CLIENT, []) == []
