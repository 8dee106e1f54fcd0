import numpy as np
import pandas as pd
import polars as pl
import pytest

from llmrec_fast.errors import InvalidInput
from llmrec_fast.features import Items, read_items
from llmrec_fast.ids import IdTable

MOVIES = {
    "movieId": [1, 2, 3],
    "title": ["Toy Story", "GoldenEye", "Alien"],
    "year": [1995, 1995, 1979],
    "genres": [["Animation", "Comedy"], ["Action"], ["Horror", "Sci-Fi"]],
}
TEMPLATE = "{title} ({year}). Genres: {genres}"


@pytest.mark.parametrize("make", [dict, pd.DataFrame, pl.DataFrame])
def test_texts_are_made_from_a_template(make):
    items = read_items(make(MOVIES), text=TEMPLATE)
    assert items.texts[0] == "Toy Story (1995). Genres: Animation, Comedy"
    assert items.texts[1] == "GoldenEye (1995). Genres: Action"
    assert list(items.ids) == [1, 2, 3]
    assert items.titles == ("Toy Story", "GoldenEye", "Alien")
    assert items.columns["year"].tolist() == [1995, 1995, 1979]
    assert len(items) == 3


def test_texts_from_a_file(tmp_path):
    path = tmp_path / "movies.csv"
    path.write_text("movieId,title,genres\n7,Alien,Horror|Sci-Fi\n")
    assert read_items(path, text="{title}: {genres}").texts == ("Alien: Horror|Sci-Fi",)


def test_texts_from_columns_or_from_the_usual_column():
    assert read_items(MOVIES, text=["title", "genres"]).texts[1] == "GoldenEye. Action"
    assert read_items(MOVIES, text="genres").texts[2] == "Horror, Sci-Fi"
    assert read_items(MOVIES).texts[2] == "Alien"


def test_texts_are_cleaned():
    assert read_items({"id": [1], "text": [" <b>Fish</b> &amp;\nchips "]}).texts == ("Fish & chips",)


def test_missing_cells_leave_no_brackets_and_whole_years_no_fraction():
    frame = pd.DataFrame({"id": [1, 2, 3], "title": ["A", "B", None], "year": [1999.0, None, None]})
    items = read_items(frame, text="{title} ({year}).")
    assert items.texts == ("A (1999).", "B.", "")


def test_items_without_text_are_kept_and_reported():
    items = read_items({"id": ["a", "b"], "title": ["x", " "]})
    assert items.texts == ("x", "")
    assert items.titles == ("x", "b")
    assert items.report.dropped == {}
    assert "1 kept: without text (row 1 of items: item b)" in str(items.report)


def test_missing_and_repeated_ids_are_dropped_and_reported():
    items = read_items({"id": ["a", None, "a", "b"], "title": ["first", "?", "second", "other"]})
    assert list(items.ids) == ["a", "b"]
    assert items.texts == ("first", "other")
    assert items.report.dropped == {"missing id": 1, "repeated id, the first row counts": 1}
    assert items.report.read == 4
    assert items.report.kept == 2


def test_titles_fall_back_to_ids():
    assert read_items({"id": [5], "text": ["x"]}).titles == ("5",)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ({"title": ["x"]}, {}, "no column for the item"),
        ({"id": [1]}, {}, "no column for the text"),
        (MOVIES, {"text": "{title} {plot}"}, "no column 'plot' for the text; it has movieId, title, year, genres"),
        (MOVIES, {"text": ["plot"]}, "no column 'plot'"),
        (MOVIES, {"text": "{title"}, "template '{title' is not valid"),
        (MOVIES, {"text": "{} {title}"}, "may hold column names in braces"),
        (MOVIES, {"text": "{title:>5}"}, "may hold column names in braces"),
        (MOVIES, {"title": "name"}, "no column 'name' for the title"),
        ({"id": [], "title": []}, {}, "no item is left after cleaning"),
        ({"id": [None], "title": ["x"]}, {}, "no item is left after cleaning. items: 0 of 1"),
    ],
)
def test_bad_input(source, options, message):
    with pytest.raises(InvalidInput, match=message):
        read_items(source, **options)


def test_columns_must_fit_the_ids():
    with pytest.raises(InvalidInput, match="equal length"):
        Items(IdTable([1, 2]), ("a",), ("a", "b"))
    with pytest.raises(InvalidInput, match="equal length"):
        Items(IdTable([1]), ("a",), ("a",), {"year": np.zeros(3)})
