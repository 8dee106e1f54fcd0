import gzip

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec_fast.errors import InvalidInput
from llmrec_fast.features.reading import missing, read_table

COLUMNS = {"user": ["u1", "u2", "u1"], "item": [3, 1, 2], "value": [1.5, 2.0, 4.0]}


def as_lists(table):
    return {name: column.tolist() for name, column in table.columns.items()}


@pytest.mark.parametrize(
    "make",
    [
        dict,
        pd.DataFrame,
        pl.DataFrame,
        pa.table,
        lambda columns: {name: np.array(values) for name, values in columns.items()},
        lambda columns: {name: pd.Series(values, index=[9, 8, 7]) for name, values in columns.items()},
    ],
)
def test_every_kind_of_table_gives_the_same_columns(make):
    table = read_table(make(COLUMNS), "interactions")
    assert as_lists(table) == COLUMNS
    assert table.where(1) == "row 1 of interactions"


@pytest.mark.parametrize("suffix", ["csv", "tsv", "csv.gz", "parquet"])
def test_every_kind_of_file_gives_the_same_columns(tmp_path, suffix):
    path = tmp_path / f"table.{suffix}"
    frame = pd.DataFrame(COLUMNS)
    if suffix == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if suffix == "tsv" else ",")
    table = read_table(path, "interactions")
    assert as_lists(table)["user"] == COLUMNS["user"]
    assert as_lists(table)["item"] == COLUMNS["item"]
    assert [float(value) for value in table.columns["value"]] == COLUMNS["value"]
    assert table.name == str(path)
    assert read_table(str(path), "interactions").name == str(path)


@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
def test_the_separator_is_the_one_of_the_header(tmp_path, separator):
    path = tmp_path / "table.csv"
    path.write_text(f'a{separator}b\n1{separator}"x, y; z"\n')
    assert as_lists(read_table(path, "items")) == {"a": [1], "b": ["x, y; z"]}


def test_columns_of_a_text_file_become_integers_only_if_nothing_is_lost(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("plain,zeros,signed,mixed,gaps,huge\n1,007,-5,1,1,99999999999999999999\n20,010,+5,x,,1\n")
    assert as_lists(read_table(path, "items")) == {
        "plain": [1, 20],
        "zeros": ["007", "010"],
        "signed": ["-5", "+5"],
        "mixed": ["1", "x"],
        "gaps": [1, None],
        "huge": [99999999999999999999, 1],
    }


def test_a_byte_order_mark_blank_lines_and_quoted_line_breaks_are_understood(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes('\ufeffid,text\r\n1,"two\r\nlines"\r\n\r\n2,é\r\n'.encode())
    table = read_table(path, "items")
    assert as_lists(table) == {"id": [1, 2], "text": ["two\r\nlines", "é"]}
    assert [table.where(row) for row in (0, 1)] == [f"{path}, line 2", f"{path}, line 5"]


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (b"a,b\n1,2\n3\n", 3, "1 fields where the header has 2"),
        (b"a,b\n1,2\n3,4,5\n", 3, "3 fields where the header has 2"),
        (b'a,b\n1,2\n3,"open\n5,6\n', 3, "unexpected end of data"),
        (b'a,b\n1,"x"y\n', 2, "expected after"),
        (b"a,b\n1,2\n\xff,4\n", 3, "not UTF-8"),
        (b"", 1, "header"),
        (b"a,a\n1,2\n", 1, "comes twice"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path, content, line, message):
    path = tmp_path / "broken.csv"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=message) as caught:
        read_table(path, "items")
    assert f"{path}, line {line}:" in str(caught.value)


def test_long_files_are_read_whole_and_their_last_line_is_named(tmp_path):
    path = tmp_path / "long.csv"
    path.write_text("a,b\n" + "".join(f"{number},x{number}\n" for number in range(10_000)))
    table = read_table(path, "items")
    assert table.columns["a"].tolist() == list(range(10_000))
    assert table.columns["b"][-1] == "x9999"
    assert table.where(9_999) == f"{path}, line 10001"
    with path.open("a") as stream:
        stream.write("1,2,3\n")
    with pytest.raises(InvalidInput, match="line 10002: 3 fields"):
        read_table(path, "items")


def test_files_that_are_not_what_they_say(tmp_path):
    with pytest.raises(InvalidInput, match="no such file"):
        read_table(tmp_path / "absent.csv", "items")
    parquet = tmp_path / "broken.parquet"
    parquet.write_bytes(b"PAR1 not really")
    with pytest.raises(InvalidInput, match="not a readable Parquet file"):
        read_table(parquet, "items")
    zipped = tmp_path / "broken.csv.gz"
    zipped.write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 1000)[:-9])
    with pytest.raises(InvalidInput, match="truncated or damaged gzip"):
        read_table(zipped, "items")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (7, "must be a pandas or polars DataFrame.* got int"),
        ({"a": [1, 2], "b": [1]}, "equal length; got {'a': 2, 'b': 1}"),
        ({"a": "text"}, "sequence of values; got 'text'"),
        ({"a": 5}, "sequence of values; got 5"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "column name twice"),
    ],
)
def test_other_sources_are_refused(source, message):
    with pytest.raises(InvalidInput, match=message):
        read_table(source, "items")


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(["x", None, "y", "z"]),
        pd.Series([1, pd.NA, 3, 4], dtype="Int64"),
        pd.Series([1.0, np.nan, 3.0, 4.0]),
        pd.Series(pd.to_datetime(["2020-01-01", None, "2020-01-02", "2020-01-03"])),
        pl.Series([1, None, 2**60 + 1, 4]),
        pl.Series(["x", None, "y", "z"]),
        pa.chunked_array([[1, None, 3, 4]]),
        np.array(["x", " ", "y", "z"]),
    ],
    ids=lambda column: f"{type(column).__module__.split('.')[0]}-{getattr(column, 'dtype', 'int64')}",
)
def test_missing_values_of_every_library_are_seen(column):
    frames = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "pyarrow": pa.table, "numpy": dict}
    table = read_table(frames[type(column).__module__.split(".")[0]]({"c": column}), "items")
    assert missing(table.columns["c"]).tolist() == [False, True, False, False]


def test_large_integers_survive_nulls():
    table = read_table(pl.DataFrame({"id": [2**60 + 1, None]}), "items")
    assert table.columns["id"][0] == 2**60 + 1


def test_lists_in_cells_stay_whole():
    table = read_table({"genres": [["a", "b"], ["c", "d"]]}, "items")
    assert table.columns["genres"].tolist() == [["a", "b"], ["c", "d"]]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.integers(-(2**63), 2**63 - 1), st.text(st.characters(codec="utf-8", exclude_characters="\0")))
    )
)
def test_csv_written_by_pandas_comes_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "table.csv"
    frame = pd.DataFrame(rows, columns=["number", "text"])
    with path.open("w", encoding="utf-8", newline="") as stream:
        frame.to_csv(stream, index=False, quoting=1, lineterminator="\n")
    back = as_lists(read_table(path, "items"))
    assert [str(number) for number in back["number"]] == [str(number) for number, _ in rows]
    assert [str(text or "") for text in back["text"]] == [text for _, text in rows]
