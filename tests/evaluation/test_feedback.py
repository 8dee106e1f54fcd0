"""Rates of a feedback log, their errors, and logs that cannot be."""

import math

import numpy as np
import pytest

from llmrec_fast.errors import InvalidInput
from llmrec_fast.evaluation import Rate, summarize_feedback

CLICKED, CONVERTED = [1, 0, 1, 0, 0, 1, 0, 0], [1, 0, 0, 0, 0, 1, 0, 0]
REVENUE = [10.0, 0, 0, 0, 0, 4.0, 0, -1.0]


def test_a_small_log_by_hand():
    found = summarize_feedback(CLICKED, CONVERTED, REVENUE)
    assert (found.impressions, found.clicks, found.conversions, found.revenue) == (8, 3, 2, 13.0)
    assert found.click_through_rate.value == 3 / 8
    assert found.conversion_rate.value == pytest.approx(2 / 3)
    assert found.conversions_per_impression.value == 2 / 8
    assert found.revenue_per_impression.value == 13 / 8
    # of a share p the sample deviation is sqrt(p (1 - p) n / (n - 1))
    assert found.click_through_rate.standard_error == pytest.approx(math.sqrt(3 / 8 * 5 / 8 / 7))
    assert found.conversion_rate.standard_error == pytest.approx(math.sqrt(2 / 3 * 1 / 3 / 2))
    assert found.revenue_per_impression.standard_error == pytest.approx(np.std(REVENUE, ddof=1) / math.sqrt(8))


def test_what_was_not_logged_is_not_reported():
    found = summarize_feedback(np.array(CLICKED, dtype=bool))
    assert found.click_through_rate.value == 3 / 8
    assert (found.conversions, found.conversion_rate, found.revenue, found.revenue_per_impression) == (None,) * 4


def test_a_log_without_clicks_has_no_conversion_rate():
    found = summarize_feedback([0, 0], [0, 0])
    assert found.click_through_rate == Rate(0.0, 0.0)
    assert math.isnan(found.conversion_rate.value)
    assert math.isnan(summarize_feedback([1]).click_through_rate.standard_error)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "clicked is empty"),
        (([0, 2],), "clicked must be 0 or 1; got 2 in row 1"),
        (([0, math.nan],), "clicked holds NaN in row 1"),
        (([0, 1], [1, 1]), "converted is 1 in row 0, which was not clicked"),
        (([0, 1], [0]), "converted must have 2 values; got 1"),
        (([0, 1], None, [1.0]), "revenue must have 2 values"),
        (([0, 1], None, [1.0, math.inf]), "revenue holds an infinite value in row 1"),
    ],
)
def test_bad_logs_are_refused(arguments, message):
    with pytest.raises(InvalidInput, match=message):
        summarize_feedback(*arguments)
