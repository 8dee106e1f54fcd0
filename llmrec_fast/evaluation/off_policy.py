"""What a new policy would earn, estimated from the log of an old one (off-policy evaluation of contextual bandits).

A row of the log is one decision: in some context the logging policy chose an action (showed an item) with a known
probability, and a reward came of it. Where the new policy would choose the logged action with another probability, the
row's weight is the ratio of the two. Notation: rewards r_i, logging probabilities p_i, the new policy's q_i, weights
w_i = q_i / p_i, n rows.

    estimator                              bias                                         variance
    inverse_propensity                     none                                         large if some w_i are
    inverse_propensity(largest_weight=M)   towards less reward, where weights are cut   bounded by M
    self_normalized                        of order 1 / n                               smaller; never leaves the rewards' range
    doubly_robust                          none if the p_i or the reward model is right small if the model is good
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from llmrec_fast.arrays import ArrayLike, Float64Array
from llmrec_fast.errors import InvalidInput
from llmrec_fast.evaluation.columns import as_float64, need_rows


@dataclass(frozen=True)
class PolicyEstimate:
    """Reward a decision of the new policy.

    Attributes
    ----------
    value : the estimate.
    standard_error : of the estimate, rows being independent; NaN from a single row. It knows nothing of bias.
    effective_rows : (sum w)^2 / sum w^2, how many rows of equal weight would say as much (Kish 1965); 0 if the log
        holds no action that the new policy would take. Far below the number of rows, mistrust the estimate.
    """

    value: float
    standard_error: float
    effective_rows: float


def inverse_propensity(
    rewards: ArrayLike,
    logging_probabilities: ArrayLike,
    target_probabilities: ArrayLike,
    *,
    largest_weight: float = math.inf,
) -> PolicyEstimate:
    """Mean of w_i r_i, weights above `largest_weight` cut to it (Horvitz and Thompson 1952; Bottou et al. 2013).

    Standard error: sample deviation of w_i r_i over sqrt(n).

    Parameters
    ----------
    rewards : (n,) finite numbers: clicks, conversions, revenue.
    logging_probabilities : (n,) with which the logged action was chosen, above 0, at most 1.
    target_probabilities : (n,) with which the new policy would choose the logged action in that context, 0 to 1.
    largest_weight : above 0; infinite, the default, cuts nothing and is unbiased.

    Raises
    ------
    InvalidInput : an empty log, columns of unequal length, values out of range. A logging probability of 0 is refused:
        what a policy never does cannot stand in its log, so such a log is wrong, and no weight could repair it.
    """
    r = _rewards(rewards)
    weights = _weights(logging_probabilities, target_probabilities, len(r))
    if isinstance(largest_weight, bool | str) or not largest_weight > 0:
        raise InvalidInput(f"largest_weight must be above 0; got {largest_weight!r}")
    weights = np.minimum(weights, largest_weight)
    return _mean_of(weights * r, weights)


def self_normalized(
    rewards: ArrayLike, logging_probabilities: ArrayLike, target_probabilities: ArrayLike
) -> PolicyEstimate:
    """sum_i w_i r_i / sum_i w_i (Swaminathan and Joachims 2015), a weighted mean of the rewards.

    Standard error by the delta method: sqrt(sum_i w_i^2 (r_i - value)^2) / sum_i w_i. Arguments and errors are those of
    `inverse_propensity`; a log without any action that the new policy would take is refused, as it says nothing.
    """
    r = _rewards(rewards)
    weights = _weights(logging_probabilities, target_probabilities, len(r))
    if not weights.any():
        raise InvalidInput("target_probabilities are all 0: the log holds no action that the new policy would take")
    weights = weights / weights.max()  # only ratios count, and products of denormal weights would lose their digits
    total = weights.sum()
    value = float((weights * r).sum() / total)
    error = float(np.sqrt(np.square(weights * (r - value)).sum()) / total) if len(r) > 1 else math.nan
    return PolicyEstimate(value, error, _effective_rows(weights))


def doubly_robust(
    rewards: ArrayLike,
    logging_probabilities: ArrayLike,
    target_probabilities: ArrayLike,
    *,
    predicted_rewards: ArrayLike,
    predicted_values: ArrayLike,
) -> PolicyEstimate:
    """Mean of v_i + w_i (r_i - m_i): a model of the rewards, corrected by weighted residuals (Dudik et al. 2011).

    Unbiased if the logging probabilities are right or the model is. Standard error: sample deviation of the terms over
    sqrt(n), the model being taken as given (fit it on other rows). With a model that says 0 everywhere it is
    `inverse_propensity`.

    Parameters
    ----------
    predicted_rewards : (n,) m_i, the model's reward of the logged action.
    predicted_values : (n,) v_i, the model's reward of the new policy: the mean over all actions a of its probability of a
        times the model's reward of a, in that context.

    The others, and what is raised, are as in `inverse_propensity`.
    """
    r = _rewards(rewards)
    weights = _weights(logging_probabilities, target_probabilities, len(r))
    model = as_float64(predicted_rewards, "predicted_rewards", length=len(r))
    values = as_float64(predicted_values, "predicted_values", length=len(r))
    return _mean_of(values + weights * (r - model), weights)


def _rewards(rewards: ArrayLike) -> Float64Array:
    r = as_float64(rewards, "rewards")
    need_rows(r, "rewards")
    return r


def _weights(logging_probabilities: ArrayLike, target_probabilities: ArrayLike, rows: int) -> Float64Array:
    p = as_float64(logging_probabilities, "logging_probabilities", length=rows)
    q = as_float64(target_probabilities, "target_probabilities", length=rows)
    for name, values, wrong, wanted in (
        ("logging_probabilities", p, (p <= 0) | (p > 1), "above 0 and at most 1: the logged action was possible"),
        ("target_probabilities", q, (q < 0) | (q > 1), "from 0 to 1"),
    ):
        if wrong.any():
            row = int(np.argmax(wrong))
            raise InvalidInput(f"{name} must be {wanted}; got {values[row]:g} in row {row}")
    with np.errstate(over="ignore"):
        weights: Float64Array = q / p
    if not np.isfinite(weights).all():
        row = int(np.argmin(np.isfinite(weights)))
        raise InvalidInput(f"logging_probabilities are too small: {p[row]:g} in row {row} gives an infinite weight")
    return weights


def _mean_of(terms: Float64Array, weights: Float64Array) -> PolicyEstimate:
    error = float(terms.std(ddof=1) / np.sqrt(len(terms))) if len(terms) > 1 else math.nan
    return PolicyEstimate(float(terms.mean()), error, _effective_rows(weights))


def _effective_rows(weights: Float64Array) -> float:
    largest = weights.max()
    if largest == 0:
        return 0.0
    scaled = weights / largest  # the squares of huge weights would overflow
    return float(scaled.sum() ** 2 / np.square(scaled).sum())
