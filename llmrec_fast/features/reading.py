"""Read a table from wherever it is (data frames, arrays, CSV and Parquet files) to plain columns.

Knows nothing of what the columns mean, and drops nothing: cleaning is for `interactions.py` and `items.py`. What cannot be
read at all raises `InvalidInput`, which names the file and the line.
"""

from __future__ import annotations

import csv
import gzip
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from llmrec_fast.errors import InvalidInput, MissingDependency

Column: TypeAlias = npt.NDArray[Any]
# Any: data frames of pandas, polars and pyarrow have no common type, and none of them is a dependency
Source: TypeAlias = Any

_SEPARATORS = ",\t;|"
_ROWS_AT_A_TIME = 4096
_MISSING_TYPES = frozenset({"NoneType", "NAType", "NaTType"})


@dataclass(frozen=True)
class Table:
    """Columns of equal length, by name.

    Attributes
    ----------
    columns : name -> (n,) array of any dtype.
    name : what messages call the table: the path of a file, or the kind of the source.
    lines : (n,) int64 line numbers (from 1) where the table was a text file, else None.
    """

    columns: Mapping[str, Column]
    name: str
    lines: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def where(self, row: int) -> str:
        """How to name a row in a message: `ratings.csv, line 7`, or `row 5` of a table without lines."""
        return f"{self.name}, line {self.lines[row]}" if self.lines is not None else f"row {row} of {self.name}"

    def find(self, given: str | None, candidates: Sequence[str], role: str) -> str | None:
        """The name of a column: `given` if the caller named one, else the first of `candidates` (in any case) there is.

        Raises `InvalidInput` where a column that was named does not exist.
        """
        if given is not None:
            if given not in self.columns:
                raise InvalidInput(f"{self.name} has no column {given!r} for the {role}; it has {self._listing()}")
            return given
        by_lower_case = {name.lower(): name for name in reversed(list(self.columns))}
        return next((by_lower_case[name] for name in candidates if name in by_lower_case), None)

    def require(self, given: str | None, candidates: Sequence[str], role: str) -> str:
        """`find`, but a column must be there."""
        name = self.find(given, candidates, role)
        if name is None:
            raise InvalidInput(
                f"{self.name} has no column for the {role}, none being called {' or '.join(candidates)}; it has "
                f"{self._listing()}: say which one with {role}=..."
            )
        return name

    def _listing(self) -> str:
        return ", ".join(self.columns) or "no columns"


def read_table(source: Source, kind: str) -> Table:
    """Columns of `source`.

    Parameters
    ----------
    source : a DataFrame of pandas or polars, a pyarrow Table, a mapping of names to arrays of equal length, or the path
        of a file: `.parquet` (needs pyarrow), or text with a header line (`.csv`, `.tsv`, `.txt`, each also `.gz`; UTF-8;
        separated by comma, tab, semicolon or bar, whichever the header line has most of).
    kind : what messages call a source that has no path ("interactions", "items").

    In text files an empty field is a missing value (None), and a column that holds nothing but integers as Python prints
    them becomes integers, so that "007" stays a string.

    Raises
    ------
    InvalidInput : another type, columns of unequal length, no such file, a line that cannot be read.
    MissingDependency : a Parquet file without pyarrow.
    """
    if isinstance(source, Table):
        return source
    if isinstance(source, str | os.PathLike):
        return _read_file(Path(source).expanduser())
    if isinstance(source, Mapping):
        return Table(_same_length({str(name): as_column(values) for name, values in source.items()}, kind), kind)
    library = type(source).__module__.split(".", 1)[0]
    if library == "pyarrow" and hasattr(source, "column_names"):
        return Table(_arrow_columns(source), kind)
    if library == "polars" and hasattr(source, "columns"):
        return Table({name: _polars_column(source[name]) for name in source.columns}, kind)
    if library == "pandas" and hasattr(source, "columns"):
        if not source.columns.is_unique:
            raise InvalidInput(f"{kind} has a column name twice: {', '.join(map(str, source.columns))}")
        return Table({str(name): source[name].to_numpy() for name in source.columns}, kind)
    raise InvalidInput(
        f"{kind} must be a pandas or polars DataFrame, a mapping of column names to arrays, or the path of a CSV or Parquet "
        f"file; got {type(source).__name__}"
    )


def as_column(values: Any) -> Column:
    """`values` as a one-dimensional array; values that are lists themselves stay whole, as objects."""
    if isinstance(values, np.ndarray) and values.ndim == 1:
        return values
    if isinstance(values, str | bytes) or not hasattr(values, "__iter__"):
        raise InvalidInput(f"a column must be a sequence of values; got {values!r}")
    listed = list(values)
    if any(isinstance(value, list | tuple | np.ndarray) for value in listed) or len({type(v) for v in listed}) > 1:
        return _objects(listed)
    column = np.asarray(listed)
    # a list of strings becomes fixed-width text, which drops trailing NULs and costs memory: keep the strings themselves
    return np.array(listed, object) if column.dtype.kind in "US" else column


def missing(column: Column) -> npt.NDArray[np.bool_]:
    """(n,) bool: None, NaN, NA, NaT and empty or blank strings."""
    if column.dtype.kind == "f":
        return np.isnan(column)
    if column.dtype.kind in "mM":
        return np.isnat(column)
    if column.dtype.kind in "iub":
        return np.zeros(len(column), bool)
    return np.fromiter(map(is_missing, column), bool, len(column))


def is_missing(value: object) -> bool:
    """Whether a single value is None, NaN, NA, NaT or blank text (pandas' by name: pandas is not needed here)."""
    if isinstance(value, str):
        return not value or value.isspace()
    if isinstance(value, float | np.floating):
        return bool(np.isnan(value))
    if isinstance(value, np.datetime64 | np.timedelta64):
        return bool(np.isnat(value))
    return type(value).__name__ in _MISSING_TYPES


def _same_length(columns: dict[str, Column], kind: str) -> dict[str, Column]:
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InvalidInput(f"the columns of {kind} must be of equal length; got {lengths}")
    return columns


def _read_file(path: Path) -> Table:
    if not path.is_file():
        raise InvalidInput(f"no such file: {path}")
    if path.suffix.lower() in (".parquet", ".pq"):
        return _read_parquet(path)
    return _read_text(path)


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependency("reading Parquet files needs pyarrow: pip install pyarrow") from error
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise InvalidInput(f"{path} is not a readable Parquet file: {error}") from error
    return Table(_arrow_columns(table), str(path))


def _arrow_columns(table: Any) -> dict[str, Column]:
    return {name: _arrow_column(table.column(name)) for name in table.column_names}


def _arrow_column(column: Any) -> Column:
    # with nulls NumPy would have to make integers floats, which loses digits of large ids
    if column.null_count == 0:
        values: Column = column.to_numpy()
        return values
    return as_column(column.to_pylist())


def _polars_column(series: Any) -> Column:
    if series.null_count() == 0 and series.dtype.is_numeric():
        values: Column = series.to_numpy()
        return values
    return as_column(series.to_list())


def _read_text(path: Path) -> Table:
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as stream:
            return _read_lines(stream, path)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}, line {_undecodable_line(opener, path)}: not UTF-8 text") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InvalidInput(f"{path} is a truncated or damaged gzip file: {error}") from error


def _read_lines(stream: IO[str], path: Path) -> Table:
    header_line = stream.readline()
    separator = max(_SEPARATORS, key=header_line.count)
    header = next(csv.reader([header_line], delimiter=separator), [])
    if not header:
        raise InvalidInput(f"{path}, line 1: a header line with column names was expected")
    if len(set(header)) < len(header):
        raise InvalidInput(f"{path}, line 1: a column name comes twice: {', '.join(header)}")
    reader = csv.reader(stream, delimiter=separator, strict=True)
    fields: list[list[str]] = [[] for _ in header]
    lines: list[int] = []
    block: list[list[str]] = []
    line = 2  # where the row that is being read begins; the header line went past the reader
    try:
        for row in reader:
            if len(row) == len(header):
                block.append(row)
                lines.append(line)
            elif row:
                raise InvalidInput(
                    f"{path}, line {line}: {len(row)} fields where the header has {len(header)} "
                    f"({separator.join(row)[:80]!r})"
                )
            if len(block) == _ROWS_AT_A_TIME:
                _move(block, fields)
            line = reader.line_num + 2
    except csv.Error as error:
        raise InvalidInput(f"{path}, line {line}: {error}") from error
    _move(block, fields)
    columns = {name: _typed(column) for name, column in zip(header, fields, strict=True)}
    return Table(columns, str(path), np.array(lines, np.int64))


def _move(rows: list[list[str]], columns: list[list[str]]) -> None:
    """Append `rows` to `columns` and empty them: millions of small lists at once would keep the garbage collector busy."""
    if not rows:
        return
    for column, fields in zip(columns, zip(*rows, strict=True), strict=True):
        column.extend(fields)
    rows.clear()


def _typed(fields: Sequence[str]) -> Column:
    """Integers if every field that is not empty is one as Python prints it, else strings; None for empty fields."""
    filled = [field for field in fields if field]
    try:
        numbers = list(map(int, filled))
    except ValueError:
        numbers = []
    if not filled or list(map(str, numbers)) != filled:
        return _objects([field or None for field in fields])
    if len(filled) < len(fields):
        following = iter(numbers)
        return _objects([next(following) if field else None for field in fields])
    small = min(numbers) >= -(2**63) and max(numbers) < 2**63
    return np.array(numbers, np.int64 if small else object)


def _objects(values: list[Any]) -> Column:
    column = np.empty(len(values), object)
    column[:] = values
    return column


def _undecodable_line(opener: Any, path: Path) -> int:
    with opener(path, "rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                return number
    raise InvalidInput(f"{path}: not UTF-8 text")
