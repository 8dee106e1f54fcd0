"""How sure a figure is: bootstrap intervals of a mean over users, and paired tests between two runs.

All take per-user values as `evaluate_per_user` gives them, NaN where a user has none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from llmrec_fast.arrays import ArrayLike, BoolArray, Float64Array, as_count
from llmrec_fast.errors import InvalidInput
from llmrec_fast.evaluation.columns import as_float64
from llmrec_fast.evaluation.splits import as_share

_DRAWS_AT_A_TIME = 1 << 21
_GROUP = 8  # signs that are drawn together, as one byte


@dataclass(frozen=True)
class Interval:
    """A mean over `users` users, and between which bounds it lies at the given confidence."""

    mean: float
    low: float
    high: float
    confidence: float
    users: int


@dataclass(frozen=True)
class PairedTest:
    """Whether two runs differ beyond chance on the same users.

    Attributes
    ----------
    difference : mean of the first minus mean of the second.
    statistic : of the test; see there.
    p_value : two-sided; how probable a difference at least as large is if both runs are equally good.
    users : how many have a value.
    """

    difference: float
    statistic: float
    p_value: float
    users: int


def bootstrap_interval(
    values: ArrayLike, *, confidence: float = 0.95, resamples: int = 2_000, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval of the mean: users drawn with replacement (Efron 1979).

    The bounds are the (1 - confidence) / 2 and (1 + confidence) / 2 quantiles of the resampled means, interpolated
    linearly. Equals `scipy.stats.bootstrap(method="percentile")` up to the random draws. Cost: resamples x users draws.

    Parameters
    ----------
    values : (users,) per-user values; users with NaN are left out, as they are from the mean.
    confidence : above 0 and below 1.
    resamples : how many times users are drawn.
    seed : of the draws; the same seed gives the same interval.

    Raises
    ------
    InvalidInput : no user has a value, an infinite value, arguments out of range.
    """
    confidence = as_share(confidence, "confidence")
    resamples = as_count(resamples, "resamples")
    seed = as_count(seed, "seed", minimum=0)
    given = _per_user(values, "values")
    sample = given[~np.isnan(given)]
    if len(sample) == 0:
        raise InvalidInput("values holds no number: no user has a value")
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    step = max(1, _DRAWS_AT_A_TIME // len(sample))
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        draws = generator.integers(0, len(sample), (count, len(sample)), dtype=np.int32)
        means[start : start + count] = sample[draws].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(sample.mean()), float(low), float(high), confidence, len(sample))


def t_test(first: ArrayLike, second: ArrayLike) -> PairedTest:
    """Paired t-test; the statistic is t = mean / (deviation / sqrt(n)) of the differences. Equals `scipy.stats.ttest_rel`.

    Where all differences are equal, t is not defined: p is 1 if they are 0, else 0 (t infinite).

    Parameters
    ----------
    first, second : (users,) values of the same users in the same order; NaN in both where a user has none.

    Raises
    ------
    InvalidInput : unequal lengths, a user with a value in one run alone, fewer than two users with values.
    """
    differences = _differences(first, second)
    mean, n = float(differences.mean()), len(differences)
    if np.ptp(differences) == 0:
        return PairedTest(mean, math.copysign(math.inf, mean) if mean else 0.0, 0.0 if mean else 1.0, n)
    from scipy.special import stdtr

    t = mean / (float(differences.std(ddof=1)) / math.sqrt(n))
    return PairedTest(mean, t, float(2 * stdtr(n - 1, -abs(t))), n)


def wilcoxon_test(first: ArrayLike, second: ArrayLike) -> PairedTest:
    """Wilcoxon signed-rank test, zero differences left out; the statistic is the smaller of the two rank sums.

    Equals `scipy.stats.wilcoxon` with its defaults: exact for few users, a normal approximation with the correction for
    ties for many (SciPy's release says where that begins). Where all differences are 0, p is 1. Arguments and errors are those
    of `t_test`.
    """
    differences = _differences(first, second)
    mean, n = float(differences.mean()), len(differences)
    nonzero = differences[differences != 0]
    if len(nonzero) == 0:
        return PairedTest(mean, 0.0, 1.0, n)
    from scipy.stats import wilcoxon

    found = wilcoxon(nonzero)
    return PairedTest(mean, float(found.statistic), float(found.pvalue), n)


def randomization_test(first: ArrayLike, second: ArrayLike, *, resamples: int = 10_000, seed: int = 0) -> PairedTest:
    """Paired randomisation (Fisher's sign-flip) test; the statistic is the mean difference.

    If both runs are equally good, each user's two values could as well be swapped. p is the share of sign assignments
    whose mean is at least as far from 0: of all 2^n where those are no more than `resamples`, else of random ones,
    counting the one that was observed, (1 + how many) / (1 + resamples), so that p is never 0 (Smucker et al. 2007).
    Assumes nothing of how values are distributed. Equals `scipy.stats.permutation_test(permutation_type="samples")` up
    to the random draws. Arguments and errors are those of `t_test`.
    """
    resamples = as_count(resamples, "resamples")
    seed = as_count(seed, "seed", minimum=0)
    differences = _differences(first, second)
    n = len(differences)
    # sums in another order differ in the last bits: what is so close to the observed sum is as far from 0 as it is
    wanted = abs(differences.sum()) * (1 - 1e-12) - 1e-14 * np.abs(differences).sum()
    tables = _sign_tables(differences)
    if n < 63 and 2**n <= resamples:
        assignments = np.arange(2**n)
        signs = (assignments[:, None] >> (_GROUP * np.arange(len(tables)))) & 255
        p_value = float(_as_far(tables, signs, wanted).mean())
    else:
        generator = np.random.default_rng(seed)
        found = 0
        step = max(1, _DRAWS_AT_A_TIME // len(tables))
        for start in range(0, resamples, step):
            signs = generator.integers(0, 256, (min(step, resamples - start), len(tables)), dtype=np.uint8)
            found += int(_as_far(tables, signs, wanted).sum())
        p_value = (1 + found) / (1 + resamples)
    mean = float(differences.mean())
    return PairedTest(mean, mean, p_value, n)


def _sign_tables(differences: Float64Array) -> Float64Array:
    """(groups, 256): the signed sum of eight differences for each way to choose their signs, one bit a difference."""
    padded = np.zeros(-(-len(differences) // _GROUP) * _GROUP)
    padded[: len(differences)] = differences
    bits = (np.arange(1 << _GROUP)[:, None] >> np.arange(_GROUP)) & 1
    tables: Float64Array = padded.reshape(-1, _GROUP) @ (2.0 * bits - 1.0).T
    return tables


def _as_far(tables: Float64Array, signs: np.ndarray[tuple[int, int], np.dtype[np.integer]], wanted: float) -> BoolArray:
    """For each row of `signs`, one byte a group, whether the signed sum is at least `wanted` away from 0."""
    sums = tables[np.arange(len(tables)), signs].sum(axis=1)
    far: BoolArray = np.abs(sums) >= wanted
    return far


def _per_user(values: ArrayLike, name: str) -> Float64Array:
    numbers = as_float64(values, name, finite=False)
    if np.isinf(numbers).any():
        raise InvalidInput(f"{name} holds an infinite value for user {int(np.argmax(np.isinf(numbers)))}")
    return numbers


def _differences(first: ArrayLike, second: ArrayLike) -> Float64Array:
    a, b = _per_user(first, "first"), _per_user(second, "second")
    if len(a) != len(b):
        raise InvalidInput(f"first and second must be values of the same users; got {len(a)} and {len(b)}")
    alone = np.isnan(a) != np.isnan(b)
    if alone.any():
        raise InvalidInput(f"user {int(np.argmax(alone))} has a value in one of the two runs alone")
    differences: Float64Array = (a - b)[~np.isnan(a)]
    if len(differences) < 2:
        raise InvalidInput(f"a paired test needs at least two users with values; got {len(differences)}")
    return differences
