"""Ratings in the layouts of MovieLens-100K and MovieLens-1M, as the publisher writes them."""

import gzip
from pathlib import Path

import pytest

from duetto.errors import DataError
from duetto.tasks import movielens

ROWS = [(10, 3, 5, 881250949), (2, 1, 1, 881250950), (10, 7, 4, 881250940)]


def hundred_thousand(folder: Path, rows: list[tuple[int, ...]] = ROWS, films: tuple[int, ...] = (1, 3, 5, 7)) -> None:
    """Tabs, and 24 columns of a film."""
    (folder / "u.data").write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    lines = [f"{film}|Misérables, Les (1995)|01-Jan-1995||http://x|{'|'.join('0' * 19)}\n" for film in films]
    (folder / "u.item").write_bytes("".join(lines).encode("latin-1"))


def million(folder: Path, rows: list[tuple[int, ...]] = ROWS, films: tuple[int, ...] = (1, 3, 5, 7)) -> None:
    """Double colons, also in the catalogue."""
    (folder / "ratings.dat").write_text("".join("::".join(map(str, row)) + "\n" for row in rows))
    lines = "".join(f"{film}::Misérables, Les (1995)::Drama|Musical\n" for film in films)
    (folder / "movies.dat").write_bytes(lines.encode("latin-1"))


@pytest.mark.parametrize("write", [hundred_thousand, million])
def test_both_layouts_are_read_in_the_order_of_the_file(tmp_path: Path, write: object) -> None:
    write(tmp_path)  # type: ignore[operator]
    read = movielens.read(tmp_path)
    assert read.users == ("2", "10")
    assert read.items == (1, 3, 5, 7)
    assert [read.users[user] for user in read.user] == ["10", "2", "10"]
    assert [read.items[item] for item in read.item] == [3, 1, 7]
    assert read.stars.tolist() == [5, 1, 4]
    assert read.seconds.tolist() == [881250949, 881250950, 881250940]


@pytest.mark.parametrize("write", [hundred_thousand, million])
def test_packed_files_are_the_same(tmp_path: Path, write: object) -> None:
    write(tmp_path)  # type: ignore[operator]
    for path in list(tmp_path.iterdir()):
        (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert movielens.read(tmp_path).items == (1, 3, 5, 7)


def test_without_a_catalogue_it_is_what_was_rated(tmp_path: Path) -> None:
    million(tmp_path)
    (tmp_path / "movies.dat").unlink()
    assert movielens.read(tmp_path).items == (1, 3, 7)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no ratings"),
        ("1\t2\t3\n", "line 1: 3 cells"),
        ("1\t1\t3\t9\n1\tx\t3\t9\n", "line 2: invalid literal"),
        ("1\t1\t6\t9\n", "line 1: 6 stars"),
        ("1\t-1\t5\t9\n", "line 1: a number below 0"),
        ("1\t4\t5\t9\n", "film 4, which"),
        ("1\t3\t5\t9\n2\t3\t5\t9\n1\t3\t2\t10\n", "user 1 rated film 3 twice"),
    ],
)
def test_what_is_broken_is_named(tmp_path: Path, text: str, expected: str) -> None:
    hundred_thousand(tmp_path)
    (tmp_path / "u.data").write_text(text)
    with pytest.raises(DataError, match=expected):
        movielens.read(tmp_path)


def test_another_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"u\.data"):
        movielens.read(tmp_path)


def test_the_real_ratings_are_whole(data_dir: Path) -> None:
    if not (data_dir / "ml-100k").is_dir():
        pytest.skip("no ml-100k")
    read = movielens.read(data_dir / "ml-100k")
    told = (data_dir / "ml-100k" / "u.info").read_text().splitlines()
    assert [len(read.users), len(read.items), len(read.user)] == [int(line.split()[0]) for line in told]
