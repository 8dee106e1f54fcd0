"""Read the two filters of a search, `exclude` and `allow`, from the forms callers have them in. Knows nothing of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from llmrec_fast.arrays import ArrayLike, BoolArray, Int64Array, as_int64, refuse_device
from llmrec_fast.errors import InvalidInput

Exclusions: TypeAlias = "tuple[ArrayLike, ArrayLike] | Sequence[ArrayLike]"


def read_exclusions(exclude: Exclusions, queries: int) -> tuple[Int64Array, Int64Array]:
    """`exclude` as CSR: query j excludes ids[indptr[j] : indptr[j + 1]].

    Parameters
    ----------
    exclude : a tuple (indptr, ids), or a list with one array of ids a query.
    queries : the number of queries.

    Raises
    ------
    InvalidInput : a list of another length, an indptr that does not start at 0, descends, or does not end at len(ids).
    """
    if isinstance(exclude, tuple):
        if len(exclude) != 2:
            raise InvalidInput(f"exclude as a tuple must be (indptr, ids); got {len(exclude)} parts")
        indptr, ids = as_int64(exclude[0], "exclude indptr"), as_int64(exclude[1], "exclude ids")
        if len(indptr) != queries + 1 or indptr[0] != 0 or indptr[-1] != len(ids) or (np.diff(indptr) < 0).any():
            raise InvalidInput(
                f"exclude indptr must have {queries + 1} values that rise from 0 to {len(ids)} (the number of ids); "
                f"got {len(indptr)} values"
            )
        return indptr.copy(), ids  # Numba would compile every kernel again for a read-only array
    parts = [as_int64(ids, f"exclude[{query}]") for query, ids in enumerate(exclude)]
    if len(parts) != queries:
        raise InvalidInput(f"exclude must have one array of ids for each of the {queries} queries; got {len(parts)}")
    indptr = np.zeros(queries + 1, np.int64)
    np.cumsum([len(ids) for ids in parts], out=indptr[1:])
    return indptr, np.concatenate(parts) if parts else np.zeros(0, np.int64)


def read_allowed(allow: ArrayLike, positions: int) -> BoolArray | Int64Array:
    """`allow` as a boolean mask over positions, or as ids."""
    refuse_device(allow, "allow")
    array = np.asarray(allow)
    if array.dtype != np.bool_:
        return as_int64(array, "allow")
    if array.shape != (positions,):
        raise InvalidInput(f"allow as a mask must have shape ({positions},), one value a position; got {array.shape}")
    return array
