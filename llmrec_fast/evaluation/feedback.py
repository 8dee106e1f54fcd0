"""What a feedback log says of the policy that made it: click-through rate, conversion and revenue.

A row of the log is one impression: an item shown to a user once. What *another* policy would have earned is a question
for `off_policy.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmrec_fast.arrays import ArrayLike, Float64Array
from llmrec_fast.errors import InvalidInput
from llmrec_fast.evaluation.columns import as_flags, as_float64, need_rows


@dataclass(frozen=True)
class Rate:
    """A mean with its standard error, sample deviation / sqrt(rows); both NaN without a row, the latter with one row."""

    value: float
    standard_error: float


@dataclass(frozen=True)
class FeedbackSummary:
    """What one log holds.

    Attributes
    ----------
    impressions, clicks, conversions : numbers of rows; revenue : the sum, in the unit of the log. None: not logged.
    click_through_rate : clicks / impressions.
    conversion_rate : conversions / clicks, over the clicked impressions.
    conversions_per_impression : conversions / impressions.
    revenue_per_impression : revenue / impressions.
    """

    impressions: int
    clicks: int
    click_through_rate: Rate
    conversions: int | None = None
    conversion_rate: Rate | None = None
    conversions_per_impression: Rate | None = None
    revenue: float | None = None
    revenue_per_impression: Rate | None = None


def summarize_feedback(
    clicked: ArrayLike, converted: ArrayLike | None = None, revenue: ArrayLike | None = None
) -> FeedbackSummary:
    """Click-through rate, conversion and revenue per impression, each with its standard error.

    Rows are taken as independent; where users see many impressions, the true errors are larger (cluster by user: see
    `bootstrap_interval` on each user's mean).

    Parameters
    ----------
    clicked : (impressions,) booleans, or numbers that are 0 or 1.
    converted : (impressions,) the same, whether the click led to a purchase or the like; only clicks convert.
    revenue : (impressions,) what each impression earned; refunds may make it negative.

    Raises
    ------
    InvalidInput : an empty log, columns of unequal length, other values than 0 and 1, a conversion without a click.

    Examples
    --------
    >>> from llmrec_fast.evaluation import summarize_feedback
    >>> summarize_feedback([1, 0, 0, 1], converted=[1, 0, 0, 0]).conversion_rate.value
    0.5
    """
    clicks = as_flags(clicked, "clicked")
    need_rows(clicks, "clicked")
    summary = FeedbackSummary(len(clicks), int(clicks.sum()), _rate(clicks.astype(np.float64)))
    facts = dict(vars(summary))
    if converted is not None:
        conversions = as_flags(converted, "converted", length=len(clicks))
        alone = conversions & ~clicks
        if alone.any():
            raise InvalidInput(f"converted is 1 in row {int(np.argmax(alone))}, which was not clicked")
        per_row = conversions.astype(np.float64)
        facts |= {
            "conversions": int(conversions.sum()),
            "conversion_rate": _rate(per_row[clicks]),
            "conversions_per_impression": _rate(per_row),
        }
    if revenue is not None:
        earned = as_float64(revenue, "revenue", length=len(clicks))
        facts |= {"revenue": float(earned.sum()), "revenue_per_impression": _rate(earned)}
    return FeedbackSummary(**facts)


def _rate(values: Float64Array) -> Rate:
    count = len(values)
    if count < 2:
        return Rate(float(values[0]) if count else float("nan"), float("nan"))
    return Rate(float(values.mean()), float(values.std(ddof=1) / np.sqrt(count)))
