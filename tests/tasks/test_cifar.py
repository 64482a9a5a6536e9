"""CIFAR-10 by invented users."""

from pathlib import Path

import numpy as np
import pytest

from duetto import tasks
from duetto.errors import ConfigError, DataError
from duetto.tasks import cifar_bin, pair, partition
from duetto.tasks.task import PARTS


def written(root: Path, images: int) -> Path:
    """A folder in the official layout, of noise."""
    draw = np.random.default_rng(0)
    folder = root / "cifar10_subset" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    (folder / "batches.meta.txt").write_text("\n".join(f"class {i}" for i in range(10)))
    for name, n in (("data_batch_1", images * 4 // 5), ("test_batch", images // 5)):
        whole = draw.integers(0, 256, (n, 3073), dtype=np.uint8)
        whole[:, 0] %= 10
        (folder / f"{name}.bin").write_bytes(whole.tobytes())
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder."""
    root = tmp_path / "data"
    root.mkdir()
    monkeypatch.setenv("DUETTO_DATA", str(root))
    return root


def test_users_have_a_hundred_images_each(folder: Path) -> None:
    inner = written(folder, 1000)
    task = tasks.load("cifar", 3)
    assert {group: len(names) for group, names in task.users.items()} == {
        "train": 5,
        "calibration": 1,
        "device": 2,
        "unseen": 2,
    }
    assert task.data.counts().tolist() == [100] * 10
    plain = cifar_bin.read(inner)
    dealt = partition.Dirichlet(10, 0.5)(plain, 3)
    assert np.array_equal(task.data.user, dealt.user)
    own = np.isin(np.array(task.data.users)[task.data.user], task.users["train"])
    mean, deviation = (getattr(plain.x[own].astype(np.float64), f)((0, 2, 3), keepdims=True) for f in ("mean", "std"))
    np.testing.assert_allclose(task.data.x, (plain.x - mean) / deviation, atol=1e-5)
    for user in task.users["device"]:
        rows = task.rows(user)
        assert sorted(np.concatenate([rows.parts[part] for part in PARTS]).tolist()) == list(range(100))


def test_the_pair_is_a_pair(folder: Path) -> None:
    written(folder, 1000)
    task = tasks.load("cifar")
    assert task.small.parameters < 100_000
    assert 500_000 <= task.large.parameters <= 1_500_000
    for net in (task.small, task.large):
        assert net.logits(net.init(0), task.public.x[:3]).shape == (3, 10)


def test_the_seed_draws_the_users_and_nothing_else_does(folder: Path) -> None:
    written(folder, 1000)
    one, again, other = (tasks.load("cifar", seed) for seed in (0, 0, 1))
    assert pair.digest(one) == pair.digest(again) != pair.digest(other)
    assert np.array_equal(one.data.user, again.data.user)
    assert not np.array_equal(one.data.user, other.data.user)


def test_too_few_images_are_told(folder: Path) -> None:
    written(folder, 150)
    with pytest.raises(ConfigError, match="no calibration users"):
        tasks.load("cifar")


def test_without_data_the_command_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match="duetto data get cifar"):
        tasks.load("cifar")
