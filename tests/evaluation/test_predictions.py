"""Measures of predicted values: figures of scikit-learn, plain definitions, and what is refused."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrec_fast.errors import InvalidInput
from llmrec_fast.evaluation import binary_accuracy, calibration_error, log_loss, mae, rmse

RATINGS = [4, 3.5, 1, 5, 2.5], [5, 3, 1.5, 4, 2]
PROBABILITIES, CLICKS = [0.1, 0.9, 0.35, 0.8, 0.0, 1.0, 0.55], [0, 1, 1, 0, 0, 1, 0]
NUMBERS = st.integers(-(10**6), 10**6).map(lambda number: number / 64)  # squares of the tiniest floats are 0
ROWS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30)


def test_figures_of_scikit_learn():
    """scikit-learn: root_mean_squared_error, mean_absolute_error, accuracy_score of `>= 3.5`, log_loss."""
    assert rmse(*RATINGS) == pytest.approx(0.7416198487095663, abs=1e-12)
    assert mae(*RATINGS) == pytest.approx(0.7, abs=1e-12)
    assert binary_accuracy(*RATINGS, positive_from=3.5) == pytest.approx(0.8, abs=1e-12)
    assert log_loss(PROBABILITIES, CLICKS) == pytest.approx(0.524069823495172, abs=1e-12)
    assert log_loss([0.0, 0.5, 0.2], [1, 1, 0]) == pytest.approx(12.31998137366377, abs=1e-9)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=20))
def test_errors_against_loops(rows):
    predicted, actual = zip(*rows, strict=True)
    n = len(rows)
    assert rmse(predicted, actual) == pytest.approx(math.sqrt(sum((p - a) ** 2 for p, a in rows) / n), rel=1e-9)
    assert mae(predicted, actual) == pytest.approx(sum(abs(p - a) for p, a in rows) / n, rel=1e-9)
    assert mae(predicted, actual) <= rmse(predicted, actual) * (1 + 1e-12)
    assert rmse(actual, actual) == 0.0


@given(ROWS, st.integers(1, 12))
def test_calibration_error_against_a_loop(rows, bins):
    total = 0.0
    for b in range(bins):
        inside = [(p, c) for p, c in rows if min(int(p * bins), bins - 1) == b]
        if inside:
            gap = sum(p for p, _ in inside) / len(inside) - sum(c for _, c in inside) / len(inside)
            total += len(inside) / len(rows) * abs(gap)
    probabilities, clicks = zip(*rows, strict=True)
    found = calibration_error(probabilities, clicks, bins=bins)
    assert found == pytest.approx(total, abs=1e-12)
    assert 0 <= found <= 1


@given(ROWS)
def test_no_constant_has_a_smaller_log_loss_than_the_click_rate(rows):
    clicks = [clicked for _, clicked in rows]
    rate = float(np.mean(clicks))
    best = log_loss([rate] * len(rows), clicks)
    for other in (rate / 2, (1 + rate) / 2):
        assert best <= log_loss([other] * len(rows), clicks) + 1e-12
    assert calibration_error([rate] * len(rows), clicks) == pytest.approx(0.0, abs=1e-12)


def test_a_certain_error_costs_36_nats():
    assert log_loss([0.0], [True]) == pytest.approx(-math.log(np.finfo(float).eps))
    assert log_loss([1.0, 0.0], [True, False]) == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rmse([], []), "predicted is empty"),
        (lambda: rmse([1, 2], [1]), "actual must have 2 values; got 1"),
        (lambda: mae([1, math.nan], [1, 2]), "predicted holds NaN in row 1"),
        (lambda: mae([1, 2], [1, math.inf]), "actual holds an infinite value in row 1"),
        (lambda: mae([[1]], [1]), "predicted must have one dimension"),
        (lambda: mae(["a"], [1]), "predicted must be real numbers"),
        (lambda: binary_accuracy([1], [1], positive_from=math.nan), "positive_from must be a finite number"),
        (lambda: log_loss([], []), "probabilities is empty"),
        (lambda: log_loss([0.5, 1.5], [0, 1]), "0 to 1; got 1.5 in row 1"),
        (lambda: log_loss([0.5, 0.5], [0, 2]), "clicked must be 0 or 1; got 2 in row 1"),
        (lambda: calibration_error([0.5], [1], bins=0), "bins must be at least 1"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(InvalidInput, match=message):
        call()
