"""How good predicted values are: ratings (RMSE, MAE, accuracy) and probabilities of a click (log loss, calibration).

Each function compares two columns of equal length, one row a prediction, and gives one float. Ranking metrics are in
`metrics.py`.
"""

from __future__ import annotations

import numpy as np

from llmrec_fast.arrays import ArrayLike, Float64Array, as_count
from llmrec_fast.errors import InvalidInput
from llmrec_fast.evaluation.columns import as_flags, as_float64, need_rows

_SMALLEST_PROBABILITY = float(np.finfo(np.float64).eps)


def rmse(predicted: ArrayLike, actual: ArrayLike) -> float:
    """Root mean squared error, sqrt(mean (predicted - actual)^2). Equals scikit-learn `root_mean_squared_error`.

    Raises
    ------
    InvalidInput : columns that are empty, of unequal length, or not finite (as in all functions here).
    """
    errors = _errors(predicted, actual)
    return float(np.sqrt(np.mean(errors * errors)))


def mae(predicted: ArrayLike, actual: ArrayLike) -> float:
    """Mean absolute error, mean |predicted - actual|. Equals scikit-learn `mean_absolute_error`."""
    return float(np.mean(np.abs(_errors(predicted, actual))))


def binary_accuracy(predicted: ArrayLike, actual: ArrayLike, *, positive_from: float) -> float:
    """Share of rows that lie on the right side of a threshold: both values at or above `positive_from`, or both below.

    For clicks `positive_from=0.5`; for ratings the value from which on an item counts as liked. Equals scikit-learn
    `accuracy_score` of the two comparisons.
    """
    predictions, values = _columns(predicted, actual)
    if isinstance(positive_from, str) or not np.isfinite(positive_from):
        raise InvalidInput(f"positive_from must be a finite number; got {positive_from!r}")
    return float(np.mean((predictions >= positive_from) == (values >= positive_from)))


def log_loss(probabilities: ArrayLike, clicked: ArrayLike) -> float:
    """Mean negative log-likelihood, - mean (c ln p + (1 - c) ln (1 - p)), in nats.

    A probability of exactly 0 or 1 is taken as 2.2e-16 away from it, so that one certain error costs 36 nats and does
    not make the mean infinite. Equals scikit-learn `log_loss` on float64.

    Parameters
    ----------
    probabilities : (n,) from 0 to 1.
    clicked : (n,) booleans, or numbers that are 0 or 1.
    """
    p, clicks = _probabilities(probabilities, clicked)
    p = np.clip(p, _SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY)
    return float(-np.mean(np.where(clicks == 1, np.log(p), np.log1p(-p))))


def calibration_error(probabilities: ArrayLike, clicked: ArrayLike, *, bins: int = 10) -> float:
    """Expected calibration error: by how much predicted probabilities miss the click rate, on average.

    Probabilities are put in `bins` bins of equal width, [b / bins, (b + 1) / bins), the last one closed; with n_b rows
    in a bin, sum_b n_b / n |mean p - mean click| (Naeini et al. 2015). 0 is perfect; a constant prediction of the right
    rate is perfect too, so read it beside `log_loss`.
    """
    bins = as_count(bins, "bins")
    p, clicks = _probabilities(probabilities, clicked)
    places = np.minimum((p * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(places, weights=p, minlength=bins) - np.bincount(places, weights=clicks, minlength=bins)
    return float(np.abs(gaps).sum() / len(p))


def _columns(predicted: ArrayLike, actual: ArrayLike) -> tuple[Float64Array, Float64Array]:
    predictions = as_float64(predicted, "predicted")
    values = as_float64(actual, "actual", length=len(predictions))
    need_rows(predictions, "predicted")
    return predictions, values


def _errors(predicted: ArrayLike, actual: ArrayLike) -> Float64Array:
    predictions, values = _columns(predicted, actual)
    errors: Float64Array = predictions - values
    return errors


def _probabilities(probabilities: ArrayLike, clicked: ArrayLike) -> tuple[Float64Array, Float64Array]:
    p = as_float64(probabilities, "probabilities")
    clicks = as_flags(clicked, "clicked", length=len(p))
    need_rows(p, "probabilities")
    wrong = (p < 0) | (p > 1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InvalidInput(f"probabilities must lie in 0 to 1; got {p[row]:g} in row {row}")
    return p, clicks.astype(np.float64)
