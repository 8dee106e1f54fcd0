"""Training data of scorers that learn an order: rows in groups, some of them relevant."""

from __future__ import annotations

from collections.abc import Sequence

from llmrec_fast.arrays import ArrayLike, Float32Array, Int64Array, as_int64, as_matrix, as_vector
from llmrec_fast.errors import InvalidInput


def check_groups(
    features: ArrayLike, relevant: ArrayLike, sizes: ArrayLike, names: Sequence[str]
) -> tuple[Float32Array, Float32Array, Int64Array]:
    """Features (n, len(names)), grades (n,) and sizes (groups,) as arrays.

    Raises
    ------
    InvalidInput : sizes that do not add up, no relevant row, a negative grade, wrong shapes.
    """
    rows = as_matrix(features, "features", dimension=len(names))
    grades = as_vector(relevant, "relevant", length=len(rows))
    groups = as_int64(sizes, "sizes")
    if int(groups.sum()) != len(rows) or (len(groups) and groups.min() < 0):
        raise InvalidInput(f"sizes must add up to the {len(rows)} rows of features; they add up to {groups.sum()}")
    if not grades.any():
        raise InvalidInput("no row is relevant: there is nothing to learn from")
    if grades.min() < 0:
        raise InvalidInput(f"relevant must hold grades from 0 on; got {grades.min():g}")
    return rows, grades, groups
