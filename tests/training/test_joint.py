"""The losses of networks with exits, against their formulas by numpy; and training one."""

import numpy as np
import pytest
import torch

from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.models import Branched, Mlp
from duetto.training import SGD, Client, Cohort, CrossEntropy, Distil, EveryExit, SelfDistil, sequential
from duetto.training.cohort.executor import why_not
from duetto.training.executor import Task
from duetto.types import Trained

DRAW = np.random.default_rng(0)
LOGITS = DRAW.normal(size=(5, 3, 4)) * 2
LABELS = np.array([0, 3, 1, 1, 2])
BATCH = {"y": torch.tensor(LABELS)}
NET = Branched(Mlp((6,), 3, (8, 8)), (2, 4))
X = DRAW.normal(size=(90, 6)).astype(np.float32)
DATA = {"x": X, "y": (X[:, :3].argmax(1)).astype(np.int64)}
LOSS = (EveryExit(CrossEntropy(), (1.0, 1.0, 1.0)), SelfDistil(0.3, 2.0))


def log_shares(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_joint_training_adds_up_over_the_exits() -> None:
    weights = (0.5, 0.0, 2.0)
    surprise = -log_shares(LOGITS)[np.arange(5), :, LABELS]
    found = EveryExit(CrossEntropy(3.0), weights)(torch.tensor(LOGITS), BATCH, {}, {})
    np.testing.assert_allclose(found, 3 * surprise @ np.array(weights), rtol=1e-12)


def test_self_distillation_follows_the_final_exit_which_learns_nothing() -> None:
    t, logits = 2.0, torch.tensor(LOGITS, requires_grad=True)
    log = log_shares(LOGITS / t)
    kl = (np.exp(log[:, -1:]) * (log[:, -1:] - log[:, :-1])).sum((1, 2))
    found = SelfDistil(0.3, t)(logits, BATCH, {}, {})
    np.testing.assert_allclose(found.detach(), 0.3 * t**2 * kl, rtol=1e-12)
    found.sum().backward()
    assert logits.grad is not None
    assert (logits.grad[:, -1] == 0).all()
    np.testing.assert_allclose(logits.grad[:, 0], 0.3 * t * (np.exp(log[:, 0]) - np.exp(log[:, -1])), atol=1e-12)


def test_rows_are_read_one_by_one_where_the_term_does() -> None:
    assert EveryExit(CrossEntropy(), (1.0,)).by_row
    assert EveryExit(Distil(1.0, 2.0), (1.0,)).by_row
    assert not EveryExit(lambda logits, batch, params, start: logits.sum(1), (1.0,)).by_row


def test_what_is_wrong_is_told() -> None:
    for weights in ((), (-1.0,), (float("nan"),)):
        with pytest.raises(ConfigError, match="weights"):
            EveryExit(CrossEntropy(), weights)
    with pytest.raises(ConfigError, match="temperature"):
        SelfDistil(1.0, 0.0)
    flat = torch.tensor(LOGITS[:, 0])
    for term in (EveryExit(CrossEntropy(), (1.0, 1.0)), SelfDistil(1.0, 1.0)):
        with pytest.raises(ConfigError, match="train a Branched network"):
            term(flat, BATCH, {}, {})


def test_the_sequential_executor_trains_all_exits() -> None:
    client = Client(NET, LOSS, SGD(0.1), epochs=30, batch_size=16)
    start = NET.init(0)
    trained = sequential.run(client, {"params": start}, DATA, (0,))
    before, after = ((NET.logits(p, X).argmax(2) == DATA["y"][:, None]).mean(0) for p in (start, trained.params))
    assert (after > 0.8).all()
    assert (after > before).all()
    assert trained.loss < np.log(3) * 3


def test_a_cohort_trains_the_same() -> None:
    """The heads for all at once, the backbone in turn."""
    client = Client(NET, LOSS, SGD(0.1), epochs=2, batch_size=16)
    tasks = [
        Task({"params": NET.init(0)}, {name: column[i::3] for name, column in DATA.items()}, (i,)) for i in range(3)
    ]
    assert why_not(client, tasks) is None
    for task, together in zip(tasks, Cohort().train(client, tasks), strict=True):
        alone = sequential.run(client, task.start, task.data, task.key)
        assert isinstance(together, Trained)
        assert together.loss == pytest.approx(alone.loss, rel=1e-4)
        for pointer, leaf in trees.leaves(alone.params):
            np.testing.assert_allclose(dict(trees.leaves(together.params))[pointer], leaf, atol=1e-5)
