"""User vectors: what someone did, as one vector in the space of the items, and how much each item of the history weighs.

A user vector is `sum over history h of weight_h * item_vector_h` (divided by the sum of the weights), so that a score
`user . item` is exactly the sum of what each history item adds to it. Which vectors the items have is not decided here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from llmrec_fast.arrays import (
    ArrayLike,
    Float32Array,
    Float64Array,
    Int64Array,
    as_count,
    as_int64,
    as_matrix,
    as_vector,
)
from llmrec_fast.errors import InvalidInput


@dataclass(frozen=True)
class HistoryWeighting:
    """How much each item of a history counts.

    `weight = value * exp(-rank / decay)`, rank 0 being the most recent item.

    Attributes
    ----------
    decay : in items; None weighs old and new alike.
    last : only the most recent so many count, the others weigh 0; None for all.
    use_values : whether weights are multiplied by the values of the interactions; they must not be negative then.
    """

    decay: float | None = None
    last: int | None = None
    use_values: bool = False

    def __post_init__(self) -> None:
        if self.decay is not None and not 0 < self.decay < np.inf:
            raise InvalidInput(f"decay must be a positive number of items, or None; got {self.decay!r}")
        if self.last is not None:
            as_count(self.last, "last")

    def weights(self, indptr: ArrayLike, values: ArrayLike | None = None) -> Float32Array:
        """The weight of every position of histories that are ordered from old to new.

        Parameters
        ----------
        indptr : (users + 1,) offsets: user u has the positions indptr[u] .. indptr[u + 1].
        values : (positions,) for `use_values`; ignored otherwise.

        Returns
        -------
        (positions,) float32, not normalised: every user's most recent item weighs its value, or 1.

        Raises
        ------
        InvalidInput : `use_values` without values, or with values that are negative or not finite.
        """
        offsets = check_indptr(indptr)
        sizes = np.diff(offsets)
        rank = np.repeat(offsets[1:], sizes) - 1 - np.arange(offsets[-1])
        weights: Float64Array = np.ones(len(rank)) if self.decay is None else np.exp(-rank / self.decay)
        if self.last is not None:
            weights[rank >= self.last] = 0
        if self.use_values:
            if values is None:
                raise InvalidInput("use_values needs interactions with values")
            factors = as_vector(values, "values", length=len(rank))
            if len(factors) and factors.min() < 0:
                row = int(np.argmin(factors))
                raise InvalidInput(
                    f"values that weigh a history must not be negative; got {factors[row]:g} in row {row}"
                )
            weights = weights * factors
        return weights.astype(np.float32)


def user_vectors(
    item_vectors: ArrayLike,
    indptr: ArrayLike,
    items: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    mode: Literal["mean", "sum", "max", "last"] = "mean",
    normalize: bool = False,
    threads: int | None = None,
) -> Float32Array:
    """One vector a user from the vectors of the items in the history, by the `pool` kernel.

    Parameters
    ----------
    item_vectors : (n, d) float.
    indptr, items : histories as CSR: user u has the items `items[indptr[u] : indptr[u + 1]]`, old to new.
    weights : (positions,) float, for the modes mean and sum; see `HistoryWeighting`.
    mode : `mean` divides the weighted sum by the sum of the weights, `sum` does not (weights that can be negative
        need `sum`); `max` takes the largest component, `last` the most recent item.
    normalize : whether to divide each user vector by its norm.

    Returns
    -------
    (users, d) float32; a user without history, or whose weights are all 0, has a vector of zeros.

    Raises
    ------
    InvalidInput : vectors that are not finite, an item outside the table, offsets that do not fit the items.
    """
    from llmrec_fast.kernels.cpu import pool

    table = as_matrix(item_vectors, "item_vectors")
    codes = as_int64(items, "items")
    offsets = check_indptr(indptr, len(codes))
    if len(codes) and (int(codes.min()) < 0 or int(codes.max()) >= len(table)):
        bad = int(codes.min()) if int(codes.min()) < 0 else int(codes.max())
        raise InvalidInput(f"items holds {bad}, outside the {len(table)} rows of item_vectors")
    return pool(
        table,
        offsets[:-1],
        np.diff(offsets),
        index=codes,
        weights=weights,
        mode=mode,
        normalize=normalize,
        threads=threads,
    )


@dataclass(frozen=True)
class Centring:
    """Subtract the mean item vector, then normalise: what all items have in common says nothing about taste.

    Vectors of language models share one large component; on MovieLens removing it trebles NDCG. The mean is kept, so that
    new items and texts are moved alike.

    Attributes
    ----------
    mean : (d,) float32.
    """

    mean: Float32Array

    @classmethod
    def fit(cls, item_vectors: ArrayLike) -> Centring:
        """The centring of a catalogue: its mean row, summed in float64. Raises `InvalidInput` if there are no rows."""
        vectors = as_matrix(item_vectors, "item_vectors")
        if not len(vectors):
            raise InvalidInput("item_vectors has no rows to take the mean of")
        return cls(vectors.mean(axis=0, dtype=np.float64).astype(np.float32))

    def apply(self, vectors: ArrayLike, *, threads: int | None = None) -> Float32Array:
        """(n, d) float32: `(vectors - mean)`, each row divided by its norm. A row equal to the mean gives zeros.

        Raises `InvalidInput` for vectors of another dimension or that are not finite.
        """
        from llmrec_fast.kernels.cpu import fuse

        rows = as_matrix(vectors, "vectors", dimension=len(self.mean))
        return fuse([rows - self.mean], [1.0], threads=threads)


def check_indptr(indptr: ArrayLike, positions: int | None = None) -> Int64Array:
    """CSR offsets as int64: at least one, starting at 0, never falling, ending at `positions` if given."""
    offsets = as_int64(indptr, "indptr")
    if not len(offsets) or offsets[0] != 0 or (np.diff(offsets) < 0).any():
        raise InvalidInput("indptr must start at 0 and never fall")
    if positions is not None and offsets[-1] != positions:
        raise InvalidInput(f"indptr ends at {offsets[-1]} where there are {positions} positions")
    return offsets
