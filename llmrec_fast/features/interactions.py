"""Interactions: who did what with which item, when, and how much; read from anywhere, cleaned, as plain arrays.

Cleaning never guesses: what is dropped is counted in a report with its reason. Splitting is for evaluation, and what values
mean for a model is for `values.py`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from llmrec_fast.arrays import ArrayLike, Float32Array, Float64Array, Int64Array, as_vector
from llmrec_fast.errors import InvalidInput
from llmrec_fast.features.columns import id_codes, numbers, times
from llmrec_fast.features.reading import Source, Table, missing, read_table
from llmrec_fast.features.report import CleaningReport, Sieve
from llmrec_fast.ids import IdTable

Duplicates = Literal["last", "sum"]

USER_NAMES = ("user", "user_id", "userid", "uid", "customer_id", "reviewerid")
ITEM_NAMES = ("item", "item_id", "itemid", "iid", "movie_id", "movieid", "product_id", "asin")
VALUE_NAMES = ("value", "rating", "score", "overall", "weight", "count")
TIME_NAMES = ("timestamp", "time", "unix_time", "unixreviewtime", "date", "datetime")
EVENT_NAMES = ("event", "event_type", "action")


class Histories(NamedTuple):
    """Interactions by user, each user's from old to new; equal times are ordered by item.

    Attributes
    ----------
    indptr : (users + 1,) int64; user u has the positions indptr[u] .. indptr[u + 1].
    items : (n,) int64 item codes.
    values : (n,) float32, or None.
    timestamps : (n,) int64, or None.
    """

    indptr: Int64Array
    items: Int64Array
    values: Float32Array | None
    timestamps: Int64Array | None


@dataclass(frozen=True)
class Interactions:
    """Interactions as columns of codes; equal rows do not occur.

    Attributes
    ----------
    users, items : (n,) int64 codes: positions in `user_ids` and `item_ids`.
    values : (n,) float32, or None where only the fact is known.
    timestamps : (n,) int64 in the unit of the source (datetimes: microseconds since 1970), or None.
    user_ids, item_ids : the original ids. May hold ids without interactions.
    report : what cleaning dropped; None where nothing was read.
    """

    users: Int64Array
    items: Int64Array
    values: Float32Array | None
    timestamps: Int64Array | None
    user_ids: IdTable
    item_ids: IdTable
    report: CleaningReport | None = None

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self._columns().items()}
        if len(set(lengths.values())) > 1:
            raise InvalidInput(f"the columns of interactions must be of equal length; got {lengths}")
        for name, codes, table in (("users", self.users, self.user_ids), ("items", self.items, self.item_ids)):
            if len(codes) and (codes.min() < 0 or codes.max() >= len(table)):
                raise InvalidInput(
                    f"{name} must be codes from 0 to {len(table) - 1}; got {codes.min()} to {codes.max()}"
                )

    def __len__(self) -> int:
        return len(self.users)

    def by_user(self) -> Histories:
        """Every user's history (users without interactions have an empty one). Sorted once, then kept."""
        return self._histories

    def select(self, mask: ArrayLike) -> Interactions:
        """The interactions where `mask` (n,) bool is true; the id tables stay as they are."""
        chosen = np.asarray(mask)
        if chosen.dtype != np.bool_ or chosen.shape != self.users.shape:
            raise InvalidInput(f"mask must be {len(self)} booleans; got {chosen.dtype} of shape {chosen.shape}")
        return replace(self, **{name: column[chosen] for name, column in self._columns().items()})

    def at_least(self, value: float) -> Interactions:
        """The interactions of at least `value`, such as the likes among ratings. Raises `InvalidInput` without values."""
        if self.values is None:
            raise InvalidInput("these interactions have no values to compare with")
        return self.select(self.values >= value)

    def with_values(self, values: ArrayLike | None) -> Interactions:
        """The same interactions with other values (n,), for instance normalised ones; None for none."""
        return replace(self, values=None if values is None else as_vector(values, "values", length=len(self)))

    def item_counts(self) -> Int64Array:
        """(items,) int64: number of interactions of each item."""
        return np.bincount(self.items, minlength=len(self.item_ids)).astype(np.int64)

    def to_csr(self) -> Any:
        """(users, items) scipy CSR matrix, float32, of the values (1 where there are none)."""
        from scipy.sparse import csr_matrix

        values = np.ones(len(self), np.float32) if self.values is None else self.values
        return csr_matrix((values, (self.users, self.items)), shape=(len(self.user_ids), len(self.item_ids)))

    @cached_property
    def _histories(self) -> Histories:
        if self.timestamps is None:
            order = np.argsort(self.users, kind="stable")
        else:
            order = np.lexsort((self.items, self.timestamps, self.users))
        sizes = np.bincount(self.users, minlength=len(self.user_ids))
        return Histories(
            np.concatenate(([0], np.cumsum(sizes))).astype(np.int64),
            self.items[order],
            None if self.values is None else self.values[order],
            None if self.timestamps is None else self.timestamps[order],
        )

    def _columns(self) -> dict[str, Any]:
        columns = {"users": self.users, "items": self.items, "values": self.values, "timestamps": self.timestamps}
        return {name: column for name, column in columns.items() if column is not None}


def read_interactions(
    source: Source,
    *,
    user: str | None = None,
    item: str | None = None,
    value: str | None = None,
    timestamp: str | None = None,
    event: str | None = None,
    event_values: Mapping[str, float] | None = None,
    known_items: IdTable | Iterable[Hashable] | None = None,
    value_range: tuple[float, float] | None = None,
    duplicates: Duplicates = "last",
) -> Interactions:
    """Read and clean interactions.

    Dropped and counted, in this order: rows without a user or an item; missing values, events without a value in
    `event_values`, values that are not finite or out of `value_range`; rows without a time where there is a column of
    times; items not in `known_items`; duplicates.

    Parameters
    ----------
    source : DataFrame (pandas, polars), mapping of names to arrays, or path of a CSV or Parquet file; see `read_table`.
    user, item, value, timestamp : names of the columns; by default the usual ones (`user_id`, `movieId`, `rating`, ...) are
        recognised. Values and times are optional: without values an interaction is just a fact, without times the rows
        stand for the order.
    event, event_values : name of a column of events, and what each kind is worth, such as `{"view": 1, "buy": 5}`. With a
        column that `value` names, an interaction is worth the product of both.
    known_items : the catalogue's ids; item codes are positions in it. By default all items that occur, as they come.
    value_range : least and largest value that can be true, for instance (1, 5).
    duplicates : of several interactions of one user with one item, `last` keeps the latest (of equal times, the last row);
        `sum` adds up the values (each 1 without values) at the latest time.

    Raises
    ------
    InvalidInput : a column that is not there, a value or time that is not a number (named by line), nothing left.
    MissingDependency : a Parquet file without pyarrow.
    """
    if duplicates not in get_args(Duplicates):
        raise InvalidInput(f"duplicates must be one of {', '.join(get_args(Duplicates))}; got {duplicates!r}")
    table = read_table(source, "interactions")
    user_name = table.require(user, USER_NAMES, "user")
    item_name = table.require(item, ITEM_NAMES, "item")
    time_name = table.find(timestamp, TIME_NAMES, "timestamp")
    user_column, item_column = table.columns[user_name], table.columns[item_name]
    sieve = Sieve(
        table.name, len(table), lambda row: f"{table.where(row)}: user {user_column[row]!s}, item {item_column[row]!s}"
    )
    sieve.drop(missing(user_column), "missing user")
    sieve.drop(missing(item_column), "missing item")
    values = _values(table, sieve, value, event, event_values, value_range)
    stamps = None
    if time_name is not None:
        sieve.drop(missing(table.columns[time_name]), "missing time")
        stamps = times(table, time_name)
    item_codes, item_ids = id_codes(table, item_name, sieve.kept, "item", known_items)
    sieve.drop(item_codes < 0, "unknown item")
    user_codes, user_ids = id_codes(table, user_name, sieve.kept, "user", None)

    rows, sums = _without_duplicates(sieve, user_codes, item_codes, values, stamps, duplicates)
    report = sieve.report()
    if not len(rows):
        raise InvalidInput(f"no interaction is left after cleaning. {report}")
    return Interactions(
        user_codes[rows],
        item_codes[rows],
        None if sums is None else sums.astype(np.float32),
        None if stamps is None else stamps[rows],
        user_ids,
        item_ids,
        report,
    )


def _values(
    table: Table,
    sieve: Sieve,
    value: str | None,
    event: str | None,
    event_values: Mapping[str, float] | None,
    value_range: tuple[float, float] | None,
) -> Float64Array | None:
    """The value of each row, from a column of values, of events, or both; drops the rows whose value cannot be used."""
    if event is not None and event_values is None:
        raise InvalidInput('event needs event_values, such as {"view": 1, "buy": 5}')
    # beside events, a column of values counts only if it was asked for
    value_name = table.find(value, () if event_values is not None else VALUE_NAMES, "value")
    result = None
    if value_name is not None:
        sieve.drop(missing(table.columns[value_name]), "missing value")
        result = numbers(table, value_name)
    if event_values is not None:
        event_name = table.require(event, EVENT_NAMES, "event")
        worth = np.array([event_values.get(kind, np.nan) for kind in table.columns[event_name]], np.float64)
        sieve.drop(np.isnan(worth), "event without a value in event_values")
        result = worth if result is None else result * worth
    if result is not None:
        sieve.drop(~np.isfinite(result.astype(np.float32)), "value that is not finite")
        if value_range is not None:
            low, high = value_range
            sieve.drop((result < low) | (result > high), f"value outside {low:g} to {high:g}")
    elif value_range is not None:
        raise InvalidInput(
            f"value_range needs values, and {table.name} has no column of them: say which one with value=..."
        )
    return result


def _without_duplicates(
    sieve: Sieve,
    users: Int64Array,
    items: Int64Array,
    values: Float64Array | None,
    stamps: Int64Array | None,
    duplicates: Duplicates,
) -> tuple[Int64Array, Float64Array | None]:
    """The rows that stay, in the order of the source, and their values."""
    rows = np.flatnonzero(sieve.kept)
    pairs = users[rows] * (int(items[rows].max(initial=0)) + 1) + items[rows]
    # both sorts are stable: rows of equal time stay in their order
    by_pair = np.argsort(pairs, kind="stable") if stamps is None else np.lexsort((stamps[rows], pairs))
    order, differs = rows[by_pair], np.diff(pairs[by_pair]) != 0
    latest = order[np.append(differs, True)[: len(order)]]
    if len(latest) == len(order):
        return rows, None if values is None else values[rows]
    if duplicates == "sum":
        starts = np.flatnonzero(np.append(True, differs))
        worth = np.ones(len(order)) if values is None else values[order]
        values = np.zeros(len(users))
        values[latest] = np.add.reduceat(worth, starts)
    repeated = sieve.kept.copy()
    repeated[latest] = False
    sieve.drop(repeated, "repeated, added to the latest" if duplicates == "sum" else "repeated, the latest counts")
    rows = np.flatnonzero(sieve.kept)
    return rows, None if values is None else values[rows]
