"""UCI HAR's folders, generated: two parts, fixed columns in exponent form, nine files of signals."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from duetto.errors import ConfigError, DataError
from duetto.tasks import ucihar

DRAW = np.random.default_rng(0)
SUBJECTS = {"train": [1, 1, 11, 3], "test": [2, 2]}
LABELS = {"train": [1, 6, 3, 5], "test": [2, 4]}
X = {part: DRAW.uniform(-1, 1, (len(labels), 561)) for part, labels in LABELS.items()}
SIGNALS = {part: DRAW.normal(size=(len(labels), 9, 128)) for part, labels in LABELS.items()}


def table(rows: np.ndarray) -> str:
    """Columns of sixteen characters, as the publisher writes them."""
    return "".join("".join(f"{value:16.7e}" for value in row) + "\n" for row in rows)


def written(root: Path) -> Path:
    """Both parts."""
    for part, labels in LABELS.items():
        inner = root / part / "Inertial Signals"
        inner.mkdir(parents=True)
        (root / part / f"X_{part}.txt").write_text(table(X[part]))
        (root / part / f"y_{part}.txt").write_text("".join(f"{label}\n" for label in labels))
        (root / part / f"subject_{part}.txt").write_text("".join(f"{one}\n" for one in SUBJECTS[part]))
        for i, signal in enumerate(ucihar.SIGNALS):
            (inner / f"{signal}_{part}.txt").write_text(table(SIGNALS[part][:, i]))
    return root


def test_both_parts_are_pooled_by_subject(tmp_path: Path) -> None:
    data = ucihar.read(written(tmp_path))
    assert data.users == ("01", "02", "03", "11")
    assert [int(data.users[user]) for user in data.user] == SUBJECTS["train"] + SUBJECTS["test"]
    assert [ucihar.CLASSES[y] for y in data.y] == [
        "WALKING", "LAYING", "WALKING_DOWNSTAIRS", "STANDING", "WALKING_UPSTAIRS", "SITTING"
    ]  # fmt: skip
    np.testing.assert_allclose(data.x, np.concatenate([X["train"], X["test"]]), rtol=1e-6, atol=1e-7)


def test_signals_are_nine_channels_of_128_samples(tmp_path: Path) -> None:
    data = ucihar.read(written(tmp_path / "UCI HAR Dataset").parent, "signals")
    assert ucihar.SIGNALS[:4] == ("body_acc_x", "body_acc_y", "body_acc_z", "body_gyro_x")
    np.testing.assert_allclose(data.x, np.concatenate([SIGNALS["train"], SIGNALS["test"]]), rtol=1e-6, atol=1e-6)


def test_one_part_and_packed_files_are_enough(tmp_path: Path) -> None:
    root = written(tmp_path)
    (root / "train").rename(root / "elsewhere")
    for path in (root / "test").glob("*.txt"):
        (root / "test" / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert ucihar.read(root).users == ("02",)


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("train/y_train.txt", "1\n2\n7\n1\n", r"labels outside 1\.\.6"),
        ("train/y_train.txt", "1\n2\n", "4 windows, 2 labels"),
        ("train/subject_train.txt", "1\n2\n3\n4\n5\n", "5 subjects"),
        ("train/X_train.txt", "1 2\n", "line 1: 2 numbers instead of 561"),
        ("train/X_train.txt", " ".join(["x"] * 561), "could not convert"),
        ("train/X_train.txt", " ".join(["nan"] * 561), "not finite"),
        ("test/y_test.txt", "", "no lines"),
    ],
)
def test_what_is_broken_is_named(tmp_path: Path, file: str, text: str, expected: str) -> None:
    (written(tmp_path) / file).write_text(text)
    with pytest.raises(DataError, match=expected):
        ucihar.read(tmp_path)


def test_signals_of_another_length_are_named(tmp_path: Path) -> None:
    path = written(tmp_path) / "test" / "Inertial Signals" / "total_acc_z_test.txt"
    path.write_text(path.read_text().splitlines()[0])
    with pytest.raises(DataError, match=r"total_acc_z_test\.txt has 1 windows for 2 labels"):
        ucihar.read(tmp_path, "signals")
    path.unlink()
    with pytest.raises(DataError, match="cannot read"):
        ucihar.read(tmp_path, "signals")


def test_what_makes_no_sense_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no train"):
        ucihar.read(tmp_path)
    with pytest.raises(ConfigError, match="images"):
        ucihar.read(tmp_path, "images")  # type: ignore[arg-type]
