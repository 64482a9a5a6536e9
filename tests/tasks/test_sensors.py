"""Windows of raw sensor recordings."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duetto import tasks
from duetto.errors import ConfigError, DataError
from duetto.tasks import sensors

HEADER = "x_acc,y_acc,z_acc,x_gyro,y_gyro,z_gyro,timestamp,label"


def lines(labels: list[str], first: float = 0.0) -> list[str]:
    """One sample a label; channel c of sample t is first + t + c / 10."""
    return [
        ",".join([*(repr(first + t + c / 10) for c in range(6)), str(1657533977813 + 10 * t), label])
        for t, label in enumerate(labels)
    ]


def write(root: Path, name: str, body: list[str], header: str = HEADER) -> Path:
    path = root / name.partition("_")[0] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join([header, *body]) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def test_windows_labels_and_subjects(tmp_path: Path) -> None:
    root = tmp_path / "DATA"
    write(root, "s02_01_sp.csv.gz", lines(["SEATED"] * 5 + ["WALKING"] * 5))
    write(root, "s01_01_sp.csv", lines(["TURNING"] * 4, 100))
    write(root, "s01_02_sp.csv", lines(["TURNING"] * 3, 200))  # shorter than a window
    write(root, "s01_01_sw.csv", lines(["STANDING_UP"] * 4, 300))
    (root / "executions_info.csv").write_text("execution_id\n")
    for folder in (tmp_path, root):
        data = sensors.read(folder, window=4, step=3)
        assert data.users == ("s01", "s02")
        assert data.classes[3] == "TURNING"
        assert data.x.shape == (4, 6, 4)
        walk = data.rows("s02")  # start at 0, 3, 6: labels SSSS, SSWW, WWWW
        expected = [[[start + t + c / 10 for t in range(4)] for c in range(6)] for start in (0, 3, 6)]
        np.testing.assert_array_equal(data.x[walk], np.array(expected, np.float32))
        # SSWW is a tie: the first in CLASSES
        assert [data.classes[i] for i in data.y[walk]] == ["SEATED", "SEATED", "WALKING"]
        assert data.x[data.rows("s01")][0, 0].tolist() == [100, 101, 102, 103]
    watch = sensors.read(tmp_path, window=4, device="sw")
    assert (watch.users, watch.x[0, 0, 0]) == (("s01",), 300)


def test_agreement_leaves_out_mixed_windows(tmp_path: Path) -> None:
    write(tmp_path, "s01_01_sp.csv", lines(["SEATED", "SEATED", "SEATED", "WALKING", "TURNING", "WALKING"]))
    starts = {
        agreement: sensors.read(tmp_path, 3, 1, agreement=agreement).x[:, 0, 0].tolist() for agreement in (0.5, 1)
    }
    assert starts == {0.5: [0, 1, 3], 1: [0]}  # SSS, SSW, (SWT has no half), WTW
    assert sensors.read(tmp_path, 3, 1, agreement=0).x[:, 0, 0].tolist() == [0, 1, 2, 3]
    with pytest.raises(DataError, match="no window of 5 samples"):
        sensors.read(tmp_path, 5, agreement=1)


def test_by_default_windows_share_no_samples(tmp_path: Path) -> None:
    write(tmp_path, "s01_01_sp.csv", lines(["SEATED"] * 250))
    data = sensors.read(tmp_path)
    assert data.x[:, 0, 0].tolist() == [0, 100]
    assert data.x.shape[2] == 100


def test_a_recording_there_plain_and_packed_counts_once(tmp_path: Path) -> None:
    for name in ("s01_01_sp.csv", "s01_01_sp.csv.gz"):
        write(tmp_path, name, lines(["SEATED"] * 4))
    assert len(sensors.read(tmp_path, 4).y) == 1


GOOD = lines(["SEATED"] * 4)


@pytest.mark.parametrize(
    ("body", "header", "message"),
    [
        (GOOD, HEADER.replace("y_acc", "y"), "starts with 'x_acc,y,z_acc"),
        ([], HEADER, "has no samples"),
        ([*GOOD, "1,2,3"], HEADER, "line 6: 3 cells instead of 8"),
        ([*GOOD, GOOD[0] + ",1"], HEADER, "line 6: 9 cells instead of 8"),
        (["1," + line for line in lines(["SEATED"] * 7)], HEADER, "line 2: 9 cells instead of 8"),
        ([*GOOD, ""], HEADER, "line 6: 0 cells instead of 8"),
        ([*GOOD, "1,2,3,4,5,6,1757533977813,FLYING"], HEADER, "line 6: label 'FLYING'"),
        ([*GOOD, "1,2,x,4,5,6,1757533977813,SEATED"], HEADER, "line 6: 'x' is no finite number"),
        ([*GOOD, "1,2,inf,4,5,6,1757533977813,SEATED"], HEADER, "line 6: 'inf' is no finite number"),
        ([*GOOD, "1,2,3,4,5,6,1657533977000,SEATED"], HEADER, "line 6: time runs backwards"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, body: list[str], header: str, message: str) -> None:
    write(tmp_path, "s01_01_sp.csv", body, header)
    with pytest.raises(DataError, match=message) as caught:
        sensors.read(tmp_path, 4)
    assert "s01_01_sp.csv" in caught.value.fault


def test_an_empty_file_and_an_empty_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no recording sXX/sXX_YY_sp\.csv"):
        sensors.read(tmp_path)
    write(tmp_path, "s01_01_sp.csv", GOOD).write_bytes(b"")
    with pytest.raises(DataError, match=r"s01_01_sp\.csv starts with ''"):
        sensors.read(tmp_path)


@pytest.mark.parametrize(
    "settings", [{"window": 0}, {"step": 0}, {"device": "tablet"}, {"agreement": 1.1}, {"agreement": float("nan")}]
)
def test_settings_that_make_no_sense_are_errors(tmp_path: Path, settings: dict[str, Any]) -> None:
    write(tmp_path, "s01_01_sp.csv", lines(["SEATED"] * 200))
    with pytest.raises(ConfigError, match=str(next(iter(settings.values())))):
        sensors.read(tmp_path, **settings)


@pytest.mark.data
def test_the_real_recordings(data_dir: Path) -> None:
    root = data_dir / "har_spsw" / "DATA"
    files = sorted(root.glob("s*/*_sw.csv.gz"))
    data = sensors.read(data_dir / "har_spsw", window=128, step=64, device="sw", agreement=0)
    subjects = {path.parent.name for path in files}
    assert set(data.users) == subjects
    assert len(subjects) == 18
    samples = [gzip.decompress(path.read_bytes()).count(b"\n") - 1 for path in files]
    assert abs(len(data.y) - sum((n - 128) // 64 + 1 for n in samples if n >= 128)) == 0
    # Gravity is the largest steady force: the mean length of the acceleration is near 9.81 m/s^2.
    assert abs(np.linalg.norm(data.x[:, :3], axis=1).mean() - 9.81) < 1


def test_the_task_is_standardised_by_subjects_of_the_cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUETTO_DATA", str(tmp_path))
    with pytest.raises(DataError, match="duetto data get sensors"):
        tasks.load("sensors")
    for i in range(10):
        write(
            tmp_path / "har_spsw" / "DATA", f"s{i:02d}_01_sp.csv", lines(["SEATED"] * 100 + ["WALKING"] * 100, 50.0 * i)
        )
    task = tasks.load("sensors", 0)
    assert {group: len(names) for group, names in task.users.items()} == {
        "train": 4,
        "calibration": 2,
        "device": 2,
        "unseen": 2,
    }
    np.testing.assert_allclose(task.public.x.mean((0, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(task.public.x.std((0, 2)), 1, atol=1e-4)
    for net in (task.small, task.large):
        assert net.logits(net.init(0), task.public.x).shape == (8, 5)
    assert task.large.parameters > 50 * task.small.parameters
