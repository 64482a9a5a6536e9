"""WISDM's ARFF file."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest

from duetto.errors import DataError
from duetto.tasks import arff

HEADER = """% a comment
@relation activity

@attribute "UNIQUE_ID" numeric
@attribute "user" {"33" , "7" , "17"}
@attribute "X0" numeric
@ATTRIBUTE 'Y PEAK' REAL
@attribute class{ "Walking" , "Standing still" }

@data
"""
ROWS = """1,33,0.25,?,Walking
2,7,-3.5e2,140,"Standing still"
% between
3, 33, 0, 100, 'Walking'
"""


def written(tmp_path: Path, text: str = HEADER + ROWS, name: str = "a_transformed.arff") -> Path:
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("name", ["a_transformed.arff", "a_transformed.arff.gz"])
def test_cells_become_columns_and_a_missing_value_0(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name=name)
    for given in (path, str(path), tmp_path):
        data = arff.read(given)
        assert data.users == ("33", "7")  # 17 is declared but has no rows
        assert data.classes == ("Walking", "Standing still")
        np.testing.assert_array_equal(data.x, np.array([[0.25, 0], [-350, 140], [0, 100]], np.float32))
        assert data.y.tolist() == [0, 1, 0]
        assert data.rows("33").tolist() == [0, 2]


def test_windows_line_ends_change_nothing(tmp_path: Path) -> None:
    plain = arff.read(written(tmp_path))
    crlf = arff.read(written(tmp_path, (HEADER + ROWS).replace("\n", "\r\n")))
    np.testing.assert_array_equal(plain.x, crlf.x)
    assert plain.classes == crlf.classes


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("1,33,0.25", "1,0.25", "line 11: 4 cells for 5 attributes"),
        ("1,33,", "1,99,", "line 11: user is '99'"),
        ("1,33,", "1,?,", "line 11: user is '\\?'"),
        ("?,Walking", "?,Flying", "line 11: class is 'Flying'"),
        ("-3.5e2", "much", "no number: .*'much'"),
        ("-3.5e2", "nan", "user '7' has 1 rows with values that are not finite"),
        ('"X0" numeric', '"X0" string', "line 6: attribute 'X0' is string"),
        ('"X0" numeric', '"X0" {a, b}', "attribute 'X0' is not numeric"),
        ("@attribute class", "@attribute klass", "lacks a nominal attribute class"),
        ('"user"', '"person"', "lacks a nominal attribute class or an attribute user"),
        ("@relation activity", "hello", "line 2: 'hello' is not ARFF"),
        (ROWS, "", "has no rows"),
        (ROWS, "{0 1, 1 33}\n", "line 11: 2 cells"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = HEADER + ROWS
    assert old in text
    with pytest.raises(DataError, match=message):
        arff.read(written(tmp_path, text.replace(old, new, 1)))


def test_users_may_be_numbers(tmp_path: Path) -> None:
    text = re.sub(r"\{\"33\".*\}", "numeric", HEADER + ROWS)
    assert arff.read(written(tmp_path, text)).users == ("33", "7")
    with pytest.raises(DataError, match=r"line 11: user is '\?'"):
        arff.read(written(tmp_path, text.replace("1,33", "1,?")))


def test_a_folder_must_hold_one_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0 files"):
        arff.read(tmp_path)
    written(tmp_path)
    written(tmp_path, name="b.arff.gz")
    with pytest.raises(DataError, match="2 files"):
        arff.read(tmp_path)
    with pytest.raises(DataError, match="absent"):
        arff.read(tmp_path / "absent.arff")


@pytest.mark.data
def test_the_real_windows(data_dir: Path) -> None:
    folder = data_dir / "wisdm_ar_v1.1"
    data = arff.read(folder)
    text = gzip.decompress((folder / "WISDM_ar_v1.1_transformed.arff.gz").read_bytes()).decode()
    cells = [line.split(",") for line in text.partition("@data\n")[2].splitlines() if line]
    expected = np.array([[0 if cell == "?" else float(cell) for cell in row[2:45]] for row in cells], np.float32)
    np.testing.assert_array_equal(data.x, expected)
    assert [data.users[i] for i in data.user] == [row[1] for row in cells]
    assert [data.classes[i] for i in data.y] == [row[45] for row in cells]
    # What arff.MISSING says: only peaks lack values, and 0 stays apart from those that are there.
    names = re.findall(r'@attribute "(\w+)" numeric', text)[1:]
    missing = np.array([[cell == "?" for cell in row[2:45]] for row in cells])
    assert {names[i] for i in np.flatnonzero(missing.any(0))} == {"XPEAK", "YPEAK", "ZPEAK"}
    assert expected[:, missing.any(0)][~missing[:, missing.any(0)]].min() == 100
