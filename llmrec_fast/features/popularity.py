"""The popularity prior: one number an item, added to every user's score as the bias of the index."""

from __future__ import annotations

import numpy as np

from llmrec_fast.arrays import ArrayLike, Float32Array, as_vector
from llmrec_fast.errors import InvalidInput


def popularity_prior(counts: ArrayLike, *, smoothing: float = 1.0) -> Float32Array:
    """`log(1 + count / smoothing) / log(1 + largest count / smoothing)`: 0 for unseen items, 1 for the most popular.

    The logarithm keeps a few blockbusters from swamping the rest, and the range makes its weight comparable to those of
    cosines. It orders items as their counts do.

    Parameters
    ----------
    counts : (n,) how often each item was chosen (or its summed weight); finite, not negative.
    smoothing : how many choices an item needs before they count for much; larger is closer to linear.

    Returns
    -------
    (n,) float32 in [0, 1]; all 0 if nothing was ever chosen.
    """
    values = as_vector(counts, "counts")
    if not 0 < smoothing < np.inf:
        raise InvalidInput(f"smoothing must be a positive number; got {smoothing!r}")
    if len(values) and values.min() < 0:
        row = int(np.argmin(values))
        raise InvalidInput(f"counts must not be negative; got {values[row]:g} in row {row}")
    logarithms = np.log1p(values.astype(np.float64) / smoothing)
    largest = logarithms.max(initial=0.0)
    return (logarithms / largest if largest > 0 else logarithms).astype(np.float32)
