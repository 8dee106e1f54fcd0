"""MovieLens in each of its layouts: the same content must give the same arrays, and a bad line must be named."""

import zipfile

import numpy as np
import pytest

from llmrec_fast import datasets
from llmrec_fast.datasets import load
from llmrec_fast.errors import CorruptFile, InvalidInput

RATINGS = [(196, 242, 3, 881250949), (186, 2, 4, 891717742), (196, 1, 5, 881250000), (22, 1412, 1, 878887116)]
# id, title, year, genres: as every layout should come out
ITEMS = [
    (1, "Toy Story", 1995, ("Animation", "Children's", "Comedy")),
    (2, "GoldenEye", 1995, ("Action", "Adventure", "Thriller")),
    (242, "Cérémonie, La (Ceremony, The)", 1996, ("Drama",)),
    (267, "unknown", 0, ("unknown",)),
    (1412, "Land Before Time III: The Time of the Great Giving", 1995, ("Animation", "Children's")),
]
# the positions of these names' flags in a line of u.item
FLAGS = {
    "unknown": 0,
    "Action": 1,
    "Adventure": 2,
    "Animation": 3,
    "Children's": 4,
    "Comedy": 5,
    "Drama": 8,
    "Thriller": 16,
}
TITLES_IN_RECBOLE = {
    267: ("unkonwn", "unkonwn"),
    1412: ("Land Before Time III: The Time of the Great Giving (1995)", "V"),
}


def with_year(title, year):
    video = " (V)" if title.startswith("Land") else ""
    return f"{title} ({year}){video}" if year else title


def write_grouplens(folder, prefix=""):
    lines = []
    for number, title, year, genres in ITEMS:
        flags = "|".join(str(int(flag in {FLAGS[name] for name in genres})) for flag in range(19))
        lines.append(f"{number}|{with_year(title, year)}|01-Jan-1995||http://address|{flags}\n")
    (folder / "u.item").write_bytes("".join(lines).encode("latin-1"))
    (folder / "u.data").write_text("".join("\t".join(map(str, row)) + "\n" for row in RATINGS))


def write_archive(folder):
    write_grouplens(folder)
    with zipfile.ZipFile(folder / "ml-100k.zip", "w") as archive:
        for name in ("u.item", "u.data"):
            archive.write(folder / name, f"ml-100k/{name}")
            (folder / name).unlink()


def write_recbole(folder):
    lines = ["item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"]
    for number, title, year, genres in ITEMS:
        columns = TITLES_IN_RECBOLE.get(number, (title, year))
        lines.append("\t".join(map(str, (number, *columns, " ".join(genres)))) + "\n")
    (folder / "ml-100k.item").write_text("".join(lines), encoding="utf-8")
    rows = "".join("\t".join(map(str, row)) + "\n" for row in RATINGS)
    (folder / "ml-100k.inter").write_text("user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + rows)


def write_csv(folder):
    rows = [f'{number},"{with_year(title, year)}",{"|".join(genres)}\r\n' for number, title, year, genres in ITEMS]
    (folder / "movies.csv").write_text("movieId,title,genres\r\n" + "".join(rows), encoding="utf-8", newline="")
    rows = [",".join(map(str, row)) + "\r\n" for row in RATINGS]
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\r\n" + "".join(rows), newline="")


LAYOUTS = {"grouplens": write_grouplens, "archive": write_archive, "recbole": write_recbole, "csv": write_csv}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_arrays(tmp_path, layout):
    LAYOUTS[layout](tmp_path)
    data = load(tmp_path)
    rows = np.array(RATINGS)
    np.testing.assert_array_equal(data.users, rows[:, 0])
    np.testing.assert_array_equal(data.items, rows[:, 1])
    np.testing.assert_array_equal(data.ratings, rows[:, 2])
    np.testing.assert_array_equal(data.timestamps, rows[:, 3])
    assert (data.users.dtype, data.ratings.dtype) == (np.int64, np.float32)
    table = list(zip(data.item_ids.tolist(), data.titles, data.years.tolist(), data.genres, strict=True))
    assert table == ITEMS


def test_positions_point_into_the_item_table(tmp_path):
    write_csv(tmp_path)
    data = load(tmp_path)
    np.testing.assert_array_equal(data.item_positions(), [2, 1, 0, 4])


def test_item_text_leaves_out_what_is_not_known(tmp_path):
    write_csv(tmp_path)
    with (tmp_path / "movies.csv").open("a") as stream:
        stream.write("300,Babylon 5,(no genres listed)\n301,Alone (2001),(no genres listed)\n")
    texts = load(str(tmp_path)).item_text()
    assert texts[0] == "Toy Story (1995). Genres: Animation, Children's, Comedy"
    assert texts[3] == "unknown. Genres: unknown"
    assert texts[5:] == ["Babylon 5.", "Alone (2001)."]


def test_half_stars_and_quoted_titles_are_read(tmp_path):
    write_csv(tmp_path)
    with (tmp_path / "movies.csv").open("a") as stream:
        stream.write('400,"Wizard of Oz, ""The"" (1939)",Musical\n')
    with (tmp_path / "ratings.csv").open("a") as stream:
        stream.write("1,400,0.5,1\n")
    data = load(tmp_path)
    assert data.titles[-1] == 'Wizard of Oz, "The"'
    assert data.ratings[-1] == np.float32(0.5)


@pytest.mark.parametrize(
    "line", ["1\t2\tfour\t5", "1\t2\t3", "1\t2\t3\t4\t5", "a\t2\t3\t4", "1\t2\tnan\t4", "1\t2.5\t3\t4"]
)
@pytest.mark.parametrize("layout", ["grouplens", "recbole"])
def test_a_bad_rating_is_named_by_its_line(tmp_path, layout, line):
    LAYOUTS[layout](tmp_path)
    path = tmp_path / {"grouplens": "u.data", "recbole": "ml-100k.inter"}[layout]
    lines = path.read_text().splitlines()
    lines.insert(3, line)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(CorruptFile, match=rf"{path.name}, line 4"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("layout", "name", "line"),
    [
        ("grouplens", "u.item", "x|y"),
        ("recbole", "ml-100k.item", "7\tonly a title"),
        ("csv", "movies.csv", "seven,a,b"),
    ],
)
def test_a_bad_item_is_named_by_its_line(tmp_path, layout, name, line):
    LAYOUTS[layout](tmp_path)
    path = tmp_path / name
    lines = path.read_text(encoding="latin-1").splitlines()
    path.write_text("\n".join([*lines[:2], line, *lines[2:]]) + "\n", encoding="latin-1")
    with pytest.raises(CorruptFile, match=rf"{name}, line 3"):
        load(tmp_path)


@pytest.mark.parametrize("layout", ["grouplens", "recbole", "csv"])
def test_blank_lines_are_no_rows(tmp_path, layout):
    LAYOUTS[layout](tmp_path)
    for path in list(tmp_path.iterdir()):
        path.write_bytes(path.read_bytes() + b"\n\n")
    data = load(tmp_path)
    assert (len(data.users), len(data.item_ids)) == (len(RATINGS), len(ITEMS))


def test_a_rating_of_an_item_that_is_not_listed(tmp_path):
    write_csv(tmp_path)
    with (tmp_path / "ratings.csv").open("a") as stream:
        stream.write("1,77,3,4\n")
    with pytest.raises(CorruptFile, match="rates item 77"):
        load(tmp_path)


def test_an_item_listed_twice(tmp_path):
    write_csv(tmp_path)
    with (tmp_path / "movies.csv").open("a") as stream:
        stream.write("2,Again (1995),Drama\n")
    with pytest.raises(CorruptFile, match="twice"):
        load(tmp_path)


@pytest.mark.parametrize("missing", ["u.item", "movies.csv"])
def test_half_a_layout_names_the_missing_file(tmp_path, missing):
    {"u.item": write_grouplens, "movies.csv": write_csv}[missing](tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(CorruptFile, match=f"{missing} is missing"):
        load(tmp_path)


def test_no_ratings_and_a_broken_archive(tmp_path):
    write_csv(tmp_path)
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n")
    with pytest.raises(CorruptFile, match="holds no ratings"):
        load(tmp_path)
    (tmp_path / "ratings.csv").unlink()
    (tmp_path / "ml-100k.zip").write_bytes(b"no zip")
    with pytest.raises(CorruptFile, match=r"ml-100k\.zip"):
        load(tmp_path)


def test_what_is_neither_a_name_nor_a_folder(tmp_path):
    with pytest.raises(InvalidInput, match=r"'ml-1b' is neither a known data set \(ml-100k\) nor a folder"):
        load("ml-1b")
    with pytest.raises(InvalidInput, match="none of the known layouts"):
        load(tmp_path)


def test_a_known_name_is_fetched_in_whichever_form_is_found(tmp_path, monkeypatch):
    asked = []

    def stand_in(*forms, progress):
        asked.append(([form.name for form in forms], progress))
        return tmp_path

    write_archive(tmp_path)
    monkeypatch.setattr(datasets, "fetch", stand_in)
    assert len(load("ml-100k", progress=False).users) == len(RATINGS)
    assert asked == [(["ml-100k", "ml-100k-grouplens"], False)]


@pytest.mark.real
def test_ml_100k_is_fetched_whole():
    data = load("ml-100k", progress=False)
    assert len(data.users) == 100_000
    assert len(np.unique(data.users)) == 943
    np.testing.assert_array_equal(data.item_ids, np.arange(1, 1683))
    np.testing.assert_array_equal(data.item_ids[data.item_positions()], data.items)
    assert data.item_text()[0] == "Toy Story (1995). Genres: Animation, Children's, Comedy"
    assert (data.years == 0).sum() == 1
    assert sorted(set(data.ratings.tolist())) == [1, 2, 3, 4, 5]
