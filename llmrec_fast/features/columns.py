"""Turn columns of a table to codes, numbers and times. A cell that cannot be one raises `InvalidInput`, which names its row."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np

from llmrec_fast.arrays import BoolArray, Float64Array, Int64Array, as_int64
from llmrec_fast.errors import InvalidInput
from llmrec_fast.features.reading import Column, Table, is_missing, missing
from llmrec_fast.ids import IdTable

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# beyond this float64 no longer tells neighbouring integers apart
_LARGEST_EXACT = 2.0**53


def id_codes(
    table: Table, name: str, kept: BoolArray, kind: str, known: IdTable | Iterable[Hashable] | None
) -> tuple[Int64Array, IdTable]:
    """Codes of a column of ids.

    Parameters
    ----------
    kept : (n,) bool; other rows get no code, and their ids do not enter the table.
    kind : "user" or "item", for messages.
    known : the ids that count, in the order of their codes; None for all that occur, as they come.

    Returns
    -------
    (n,) int64 codes, -1 for rows not kept and ids not known, and the ids by code.
    """
    codes = np.full(len(table), -1, np.int64)
    values, positions = _plain_ids(table, name, kept, kind)
    if known is None:
        codes[kept] = positions
        return codes, IdTable(values, kind=kind)
    ids = known if isinstance(known, IdTable) else IdTable(known, kind=kind)
    of_value = np.array([ids.position(value) if value in ids else -1 for value in values], np.int64)
    if len(of_value):
        codes[kept] = of_value[positions]
    return codes, ids


def numbers(table: Table, name: str) -> Float64Array:
    """A column as float64, NaN where a value is missing."""
    column = table.columns[name]
    if column.dtype.kind in "fiub":
        return column.astype(np.float64)
    result = np.full(len(table), np.nan)
    present = ~missing(column)
    try:
        result[present] = column[present].astype(np.float64)
    except (ValueError, TypeError, OverflowError):
        _convert(table, name, float, result, "a number")  # one by one, to name the first that is none
    return result


def times(table: Table, name: str) -> Int64Array:
    """A column as int64 times: integers as they are, datetimes (and ISO 8601 text) as microseconds since 1970, UTC unless they
    say otherwise. Rows without a time hold some number or other: drop them.
    """
    column = table.columns[name]
    if column.dtype.kind == "M":
        stamps: Int64Array = column.astype("datetime64[us]").astype(np.int64)
        return stamps
    if column.dtype.kind in "iu":
        return as_int64(column, name)
    if column.dtype.kind == "f":
        return _whole(table, name, column)
    kinds: set[str] = set()

    def convert(value: Any) -> int:
        kind, stamp = _time(value)
        kinds.add(kind)
        return stamp

    result = np.zeros(len(table), np.int64)
    _convert(table, name, convert, result, "a time (an integer, a datetime or ISO 8601 text)")
    if len(kinds) > 1:
        raise InvalidInput(f"the times in {name!r} of {table.name} are integers in some rows and dates in others")
    return result


def _plain_ids(table: Table, name: str, kept: BoolArray, kind: str) -> tuple[list[Any], Int64Array]:
    """The distinct ids of the kept rows in order of appearance, and for each kept row which one it has."""
    column = table.columns[name]
    if column.dtype.kind == "f":
        column = _whole(table, name, np.where(kept, column, 0))
    if column.dtype.kind in "iu":
        distinct, first, inverse = np.unique(column[kept], return_index=True, return_inverse=True)
        by_appearance = np.argsort(first)
        rank = np.empty(len(distinct), np.int64)
        rank[by_appearance] = np.arange(len(distinct))
        return distinct[by_appearance].tolist(), rank[inverse]
    codes: dict[Hashable, int] = {}
    values = column[kept].tolist()
    try:
        positions = np.fromiter((codes.setdefault(value, len(codes)) for value in values), np.int64, len(values))
    except TypeError as error:
        place = next(place for place, value in enumerate(values) if not _is_hashable(value))
        row = int(np.flatnonzero(kept)[place])
        raise InvalidInput(
            f"{table.where(row)}: {type(values[place]).__name__} cannot be a {kind} id ({name!r})"
        ) from error
    return list(codes), positions


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _whole(table: Table, name: str, column: Column) -> Int64Array:
    """Floats that stand for integers, as pandas makes them where some are missing; 0 for NaN."""
    absent = np.isnan(column)
    values = np.where(absent, 0, column)
    with np.errstate(invalid="ignore"):
        bad = (values != np.floor(values)) | (np.abs(values) > _LARGEST_EXACT)
    if bad.any():
        row = int(np.argmax(bad))
        raise InvalidInput(
            f"{table.where(row)}: {name!r} holds {column[row]!r} where a whole number was expected; give ids as strings, and "
            "times in a unit in which they are whole"
        )
    return values.astype(np.int64)


def _convert(table: Table, name: str, convert: Callable[[Any], float], result: Column, expected: str) -> None:
    """Write what `convert` makes of each cell that is not missing to `result`."""
    for row, value in enumerate(table.columns[name]):
        if is_missing(value):
            continue
        try:
            result[row] = convert(value)
        except (ValueError, TypeError, OverflowError) as error:
            raise InvalidInput(f"{table.where(row)}: {name!r} holds {value!r} where {expected} was expected") from error


def _time(value: Any) -> tuple[str, int]:
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return "integer", int(value)
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return "date", (aware - _EPOCH) // timedelta(microseconds=1)
    if isinstance(value, date):
        return "date", (value - _EPOCH.date()).days * 86_400_000_000
    if isinstance(value, np.datetime64):
        return "date", int(value.astype("datetime64[us]").astype(np.int64))
    if float(value) != int(value):
        raise ValueError("not a whole number")
    return "integer", int(value)
