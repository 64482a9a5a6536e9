"""Somebody's own rows, from CSV and NPZ."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duetto.errors import DataError
from duetto.tasks.own import Own, read

TEXT = "label,b,who,a\n1,2.5,ann,1\n0,-3,bob,0\n\n1,1e-1,ann,2\n"


def csv(folder: Path, text: str, name: str = "my.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_csv_in_its_own_order_or_in_the_models(tmp_path: Path) -> None:
    path = csv(tmp_path, TEXT)
    rows = read(path, user="who")
    assert rows.names == ("b", "a")
    assert rows.x.dtype == np.float32
    np.testing.assert_array_equal(rows.x, np.array([[2.5, 1], [-3, 0], [0.1, 2]], np.float32))
    np.testing.assert_array_equal(rows.y, [1, 0, 1])
    assert rows.user.tolist() == ["ann", "bob", "ann"]
    assert rows.only(["bob"]).tolist() == [False, True, False]
    assert len(rows) == 3
    np.testing.assert_array_equal(read(path, user="who", features=("a",)).x, [[1], [0], [2]])
    unlabelled = read(path, user="who", label="", features=("a", "b"))
    assert unlabelled.y is None
    np.testing.assert_array_equal(read(path, user="who", classes=("1", "0")).y, [0, 1, 0])


def test_what_spreadsheets_write(tmp_path: Path) -> None:
    marked = csv(tmp_path, "\ufeff" + TEXT.replace("\n", "\r\n").replace("ann", '"ann, the first"'))
    assert read(marked, user="who").user.tolist() == ["ann, the first", "bob", "ann, the first"]
    packed = tmp_path / "my.csv.gz"
    packed.write_bytes(gzip.compress(TEXT.encode()))
    np.testing.assert_array_equal(read(packed, user="who").x, read(csv(tmp_path, TEXT), user="who").x)
    whole = csv(tmp_path, TEXT.replace("\n1,", "\n1.0,"))
    np.testing.assert_array_equal(read(whole, user="who").y, [1, 0, 1])


def test_an_npz_and_its_names(tmp_path: Path) -> None:
    x = np.arange(12.0).reshape(3, 2, 2)
    np.savez(tmp_path / "my.npz", x=x, y=np.array([0, 1, 1]), user=np.array([7, 7, 8]))
    rows = read(tmp_path / "my.npz")
    assert rows.user.tolist() == ["7", "7", "8"]
    np.testing.assert_array_equal(rows.x, x)
    assert rows.fitting((2, 2)) is rows
    assert read(tmp_path / "my.npz", label="").y is None
    np.savez(tmp_path / "other.npz", pixels=x, digit=np.array([0, 1, 1]), id=np.array(["a", "b", "b"]))
    other = read(tmp_path / "other.npz", user="id", label="digit", features=("pixels",))
    np.testing.assert_array_equal(other.x, x)


def test_flat_rows_are_folded_in_order() -> None:
    rows = Own(np.arange(12, dtype=np.float32).reshape(2, 6), None, np.array(["a", "b"]), tuple("abcdef"))
    np.testing.assert_array_equal(rows.fitting((1, 2, 3)).x[0], [[[0, 1, 2], [3, 4, 5]]])
    with pytest.raises(DataError, match="now they are a, b, c"):
        rows.fitting((5,))
    assert rows.within(2) is rows, "nothing is labelled"


@pytest.mark.parametrize(
    ("text", "given", "said"),
    [
        (TEXT, {}, "no column 'user'"),
        (TEXT.replace("a\n", "b\n", 1), {"user": "who", "features": ("b",)}, "2 columns 'b'"),
        (TEXT, {"user": ""}, "without a name"),
        (TEXT.replace("2.5", ""), {"user": "who"}, "line 2: b is ''"),
        (TEXT.replace("2.5", "inf"), {"user": "who"}, "row 1 has a feature that is NaN"),
        (TEXT.replace("2.5", "1e39"), {"user": "who"}, "row 1 has a feature that is NaN"),
        (TEXT.replace("\n1,2", "\n0.5,2"), {"user": "who"}, "the label '0.5' is no number of a class"),
        (TEXT.replace("\n1,2", "\nnan,2"), {"user": "who"}, "the label 'nan' is no number of a class"),
        (TEXT.replace("\n1,2", "\n,2"), {"user": "who", "classes": ("1", "0")}, "the label '' is no class"),
        ("who,label\nann,1\n", {"user": "who"}, "no feature columns"),
        ("", {}, "no column 'user'"),
    ],
)
def test_a_csv_that_does_not_do(text: str, given: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        read(csv(tmp_path, text), **given)


def test_other_files_that_do_not_do(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes("label,user,größe\n1,ann,2\n".encode("latin-1"))
    with pytest.raises(DataError, match="no text in UTF-8"):
        read(tmp_path / "latin.csv")
    (tmp_path / "text.npz").write_text("no zip")
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "text.npz")
    x = np.zeros((3, 2))
    for given, said in (
        ({"x": x, "y": np.zeros(2), "user": np.zeros(3)}, "y of shape"),
        ({"x": x[0], "y": np.zeros(2), "user": np.zeros(2)}, "x of shape"),
        ({"x": x.astype(str), "y": np.zeros(3), "user": np.zeros(3)}, "dtype <U"),
        ({"x": x, "y": np.array([0, 1, 5]), "user": np.zeros(3)}, "row 3 has label 5"),
    ):
        np.savez(tmp_path / "bad.npz", **given)
        with pytest.raises(DataError, match=said):
            read(tmp_path / "bad.npz").within(3)
