"""Splitting interactions in a training and a test part along time: user by user, or at one moment for all.

Splits by chance are in `random_splits.py`, checks of a split in `leaks.py`. Only masks are made: the caller keeps its
columns in whatever form they are. Nothing is filtered or cleaned here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import ArrayLike, BoolArray, Int64Array, as_count
from llmrec_fast.errors import InvalidInput

_MISSING_TYPES = {"NoneType", "NAType", "NaTType"}


@dataclass(frozen=True)
class Split:
    """Which interactions train and which test.

    Attributes
    ----------
    train, test : (n,) bool, one the opposite of the other, in the order of the interactions that were split.
    """

    train: BoolArray
    test: BoolArray


def split_by_time(users: ArrayLike, items: ArrayLike, timestamps: ArrayLike, ratio: float = 0.8) -> Split:
    """Per user, the first floor(ratio n) of n interactions train and the later ones test.

    Parameters
    ----------
    users, items : (n,) ids that can be sorted: integers, strings and so on.
    timestamps : (n,) numbers or datetimes. Interactions of the same time are ordered by item, equal items as they come.
    ratio : share of a user's interactions that train, above 0 and below 1.

    Returns
    -------
    Split. A user whose floor(ratio n) is 0 has test interactions only.

    Raises
    ------
    InvalidInput : columns of unequal length, missing values, ids that cannot be sorted, a ratio out of range.
    """
    ratio = as_share(ratio, "ratio")
    rank, size = _rank_within_user(users, items, timestamps)
    # the product is rounded (0.29 * 100 is 28.999...): what lies this close below an integer is meant to be it
    train = rank < np.floor(ratio * size + 1e-9)
    return Split(train, ~train)


def leave_one_out(users: ArrayLike, items: ArrayLike, timestamps: ArrayLike, last: int = 1) -> Split:
    """Per user, the `last` latest interactions test and the earlier ones train.

    Ids, times and their order are as in `split_by_time`. A user with no more than `last` interactions would have nothing
    to train on, so all of them train and none tests. Splitting the training part once more gives a validation part.

    Raises
    ------
    InvalidInput : as `split_by_time`; `last` below 1.
    """
    last = as_count(last, "last")
    rank, size = _rank_within_user(users, items, timestamps)
    train = (rank < size - last) | (size <= last)
    return Split(train, ~train)


def split_at_time(timestamps: ArrayLike, cut: object) -> Split:
    """What happened before `cut` trains, what happened then or later tests, whoever did it.

    The split that a service lives with: no training interaction is later than any test interaction. Users and items
    that first appear in the test part are cold there.

    Parameters
    ----------
    timestamps : (n,) numbers or datetimes.
    cut : a number, or for datetimes a datetime or a string such as "2024-03-01".

    Raises
    ------
    InvalidInput : missing times, or times that cannot be compared with `cut`.
    """
    times = np.asarray(timestamps)
    sort_key(times, "timestamps")  # refuses missing times
    try:
        moment: Any = np.datetime64(str(cut)) if times.dtype.kind == "M" and isinstance(cut, str) else cut
        train = np.asarray(times < moment)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"timestamps of dtype {times.dtype} cannot be compared with cut={cut!r}: {error}") from error
    missing = is_missing(moment) or (isinstance(moment, np.datetime64) and bool(np.isnat(moment)))
    if missing or train.dtype != np.bool_ or train.shape != times.shape:
        raise InvalidInput(f"cut must be one time, like the timestamps of dtype {times.dtype}; got {cut!r}")
    return Split(train, ~train)


def split_by_global_time(timestamps: ArrayLike, ratio: float = 0.8) -> Split:
    """`split_at_time` at the time of the interaction that follows the first floor(ratio n) of all n.

    Interactions of the same time are never parted: those of the time at the cut test, so that fewer than ratio n may
    train, and none if all have one time.

    Raises
    ------
    InvalidInput : missing times or times that cannot be sorted, a ratio out of range.
    """
    ratio = as_share(ratio, "ratio")
    key = sort_key(timestamps, "timestamps")
    if len(key) == 0:
        return Split(np.zeros(0, dtype=bool), np.zeros(0, dtype=bool))
    train: BoolArray = np.asarray(key < np.sort(key)[math.floor(ratio * len(key) + 1e-9)])
    return Split(train, ~train)


def as_share(value: float, name: str) -> float:
    """`value` as a float strictly between 0 and 1; raises `InvalidInput` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < float(value) < 1:
        raise InvalidInput(f"{name} must be a number above 0 and below 1; got {value!r}")
    return float(value)


def _rank_within_user(users: ArrayLike, items: ArrayLike, timestamps: ArrayLike) -> tuple[Int64Array, Int64Array]:
    """For each interaction, how many of the same user precede it, and how many that user has."""
    columns = {"users": users, "items": items, "timestamps": timestamps}
    keys = {name: sort_key(values, name) for name, values in columns.items()}
    lengths = {name: len(key) for name, key in keys.items()}
    if len(set(lengths.values())) > 1:
        raise InvalidInput(f"users, items and timestamps must be of equal length; got {lengths}")
    order = np.lexsort((keys["items"], keys["timestamps"], keys["users"]))
    in_order = keys["users"][order]
    starts = np.flatnonzero(np.append(True, in_order[1:] != in_order[:-1])[: len(order)])
    sizes = np.diff(np.append(starts, len(order)))
    rank, size = np.empty((2, len(order)), dtype=np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(starts, sizes)
    size[order] = np.repeat(sizes, sizes)
    return rank, size


def sort_key(values: ArrayLike, name: str) -> npt.NDArray[np.generic]:
    """The column itself where NumPy can sort by it, else integers in the order of its values."""
    column = np.asarray(values)
    if column.ndim != 1:
        raise InvalidInput(f"{name} must have one dimension; got shape {column.shape}")
    missing = np.zeros(len(column), dtype=bool)
    if column.dtype.kind == "f":
        missing = np.isnan(column)
    elif column.dtype.kind in "mM":
        missing = np.isnat(column)
    elif column.dtype.kind == "O":
        missing = np.fromiter(map(is_missing, column), dtype=bool, count=len(column))
    if missing.any():
        raise InvalidInput(f"{name} has no value in row {int(np.argmax(missing))}; drop such rows first")
    if column.dtype.kind in "biufmM":
        return column
    try:
        codes: Int64Array = np.unique(column, return_inverse=True)[1]
    except TypeError as error:
        raise InvalidInput(f"{name} must be values that can be sorted: {error}") from error
    return codes


def is_missing(value: object) -> bool:
    """None, NaN, or pandas' NA and NaT (by name: pandas is not needed here)."""
    return (isinstance(value, float) and math.isnan(value)) or type(value).__name__ in _MISSING_TYPES
