"""Columns of float64 numbers, for values that must not be rounded to float32: gains, rewards, predictions, scores."""

from __future__ import annotations

import numpy as np

from llmrec_fast.arrays import ArrayLike, BoolArray, Float64Array, check_finite
from llmrec_fast.errors import InvalidInput


def as_float64(values: ArrayLike, name: str, *, length: int | None = None, finite: bool = True) -> Float64Array:
    """`values` as a C-contiguous float64 vector.

    Raises
    ------
    InvalidInput : not one-dimensional, not real numbers, another length than `length`, or (with `finite`) a NaN or an
        infinity, whose row the message names.
    """
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"{name} must be one array of numbers: {error}") from error
    if array.size == 0:
        array = array.astype(np.float64)  # an empty list has no meaningful dtype
    if array.ndim != 1:
        raise InvalidInput(f"{name} must have one dimension; got shape {array.shape}")
    if array.dtype.kind not in "fiub":
        raise InvalidInput(f"{name} must be real numbers; got dtype {array.dtype}")
    if length is not None and len(array) != length:
        raise InvalidInput(f"{name} must have {length} values; got {len(array)}")
    result = np.ascontiguousarray(array, dtype=np.float64)
    if finite:
        check_finite(result, name)
    return result


def as_flags(values: ArrayLike, name: str, *, length: int | None = None) -> BoolArray:
    """`values`, booleans or numbers that are 0 or 1, as a bool vector; raises `InvalidInput` as `as_float64`."""
    numbers = as_float64(values, name, length=length)
    wrong = (numbers != 0) & (numbers != 1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InvalidInput(f"{name} must be 0 or 1; got {numbers[row]:g} in row {row}")
    flags: BoolArray = numbers == 1
    return flags


def need_rows(values: Float64Array | BoolArray, name: str) -> None:
    """Raise `InvalidInput` if there is nothing to take a mean of."""
    if len(values) == 0:
        raise InvalidInput(f"{name} is empty; at least one row is needed")
