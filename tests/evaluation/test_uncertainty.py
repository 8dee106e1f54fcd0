"""Intervals and paired tests against SciPy's own, their coverage, and what is refused."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec_fast.errors import InvalidInput
from llmrec_fast.evaluation import bootstrap_interval, randomization_test, t_test, wilcoxon_test

GRID = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
PAIRS = st.lists(st.tuples(GRID, GRID), min_size=2, max_size=11)


class TestBootstrap:
    def test_equals_scipy_up_to_the_draws(self):
        values = np.random.default_rng(1).exponential(size=300)
        found = bootstrap_interval(values, resamples=8_000)
        theirs = scipy.stats.bootstrap(
            (values,), np.mean, method="percentile", n_resamples=8_000, rng=np.random.default_rng(2)
        ).confidence_interval
        assert found.mean == values.mean()
        assert found.low == pytest.approx(theirs.low, abs=0.01)
        assert found.high == pytest.approx(theirs.high, abs=0.01)

    def test_holds_the_true_mean_about_as_often_as_it_says(self):
        generator = np.random.default_rng(7)
        inside = 0
        for trial in range(150):
            interval = bootstrap_interval(generator.random(60), confidence=0.9, resamples=300, seed=trial)
            inside += interval.low <= 0.5 <= interval.high
        assert 0.82 <= inside / 150 <= 0.97

    def test_users_without_a_value_are_left_out_and_the_seed_decides(self):
        values = np.array([0.0, np.nan, 1.0, 0.5, np.nan, 0.25])
        found = bootstrap_interval(values, seed=3)
        assert found == bootstrap_interval(values[~np.isnan(values)], seed=3)
        assert (found.users, found.mean, found.confidence) == (4, 0.4375, 0.95)

    @given(st.lists(GRID, min_size=1, max_size=20), st.integers(0, 5))
    def test_bounds_lie_within_the_values_and_widen_with_confidence(self, values, seed):
        narrow = bootstrap_interval(values, confidence=0.5, resamples=50, seed=seed)
        wide = bootstrap_interval(values, confidence=0.99, resamples=50, seed=seed)
        assert min(values) <= wide.low <= narrow.low <= narrow.high <= wide.high <= max(values)

    @pytest.mark.parametrize(
        ("values", "options", "message"),
        [
            ([], {}, "no user has a value"),
            ([np.nan], {}, "no user has a value"),
            ([0.5, np.inf], {}, "infinite value for user 1"),
            ([0.5], {"confidence": 1.0}, "confidence must be"),
            ([0.5], {"confidence": True}, "confidence must be"),
            ([0.5], {"resamples": 0}, "resamples must be at least 1"),
            ([0.5], {"seed": -1}, "seed must be at least 0"),
        ],
    )
    def test_bad_input_is_refused(self, values, options, message):
        with pytest.raises(InvalidInput, match=message):
            bootstrap_interval(values, **options)


class TestPairedTests:
    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.tuples(GRID, GRID), min_size=2, max_size=7))
    def test_equal_scipy(self, pairs):
        first, second = (np.array(column) for column in zip(*pairs, strict=True))
        differences = first - second
        if np.ptp(differences) > 0:
            theirs = scipy.stats.ttest_rel(first, second)
            found = t_test(first, second)
            assert found.p_value == pytest.approx(theirs.pvalue, abs=1e-12)
            assert found.statistic == pytest.approx(theirs.statistic, rel=1e-9)
        if differences.any():
            theirs = scipy.stats.wilcoxon(first, second)
            found = wilcoxon_test(first, second)
            assert (found.statistic, found.p_value) == (theirs.statistic, pytest.approx(theirs.pvalue, abs=1e-12))

    @settings(max_examples=25, deadline=None)
    @given(PAIRS)
    def test_randomization_of_few_users_is_exact(self, pairs):
        first, second = (np.array(column) for column in zip(*pairs, strict=True))
        differences = first - second
        signs = 1.0 - 2.0 * ((np.arange(2 ** len(pairs))[:, None] >> np.arange(len(pairs))) & 1)
        # quarters add without rounding, so that ties with what was observed are exact
        expected = np.mean(np.abs(signs @ differences) >= abs(differences.sum()))
        assert randomization_test(first, second).p_value == pytest.approx(expected, abs=1e-12)

    def test_randomization_of_many_users_equals_scipy_up_to_the_draws(self):
        generator = np.random.default_rng(4)
        first, second = generator.random(101) + 0.05, generator.random(101)
        theirs = scipy.stats.permutation_test(
            (first, second),
            lambda a, b, axis: np.mean(a - b, axis=axis),
            permutation_type="samples",
            n_resamples=20_000,
            vectorized=True,
            rng=np.random.default_rng(5),
        )
        found = randomization_test(first, second, resamples=20_000)
        assert found.p_value == pytest.approx(theirs.pvalue, abs=0.015)
        assert found.statistic == found.difference == pytest.approx(theirs.statistic)

    def test_no_test_rejects_equal_runs_more_often_than_it_says(self):
        generator = np.random.default_rng(9)
        rejected = np.zeros(3)
        for trial in range(200):
            first, second = generator.random((2, 40))
            rejected += [
                t_test(first, second).p_value < 0.05,
                wilcoxon_test(first, second).p_value < 0.05,
                randomization_test(first, second, resamples=400, seed=trial).p_value < 0.05,
            ]
        assert (rejected / 200 < 0.1).all()

    @pytest.mark.parametrize("test", [t_test, wilcoxon_test, randomization_test])
    def test_rules_that_all_share(self, test):
        first = np.array([0.9, np.nan, 0.8, 0.7, 0.9, 0.8, 0.95, 0.9])
        second = np.array([0.1, np.nan, 0.2, 0.3, 0.2, 0.15, 0.1, 0.25])
        found, turned = test(first, second), test(second, first)
        assert found.users == 7
        assert found.difference == -turned.difference > 0
        assert found.p_value == pytest.approx(turned.p_value)
        assert found.p_value < 0.05
        assert test(first, first).p_value == 1.0
        for bad, message in [
            ((first, second[:-1]), "values of the same users; got 8 and 7"),
            ((first, np.nan_to_num(second)), "user 1 has a value in one of the two runs alone"),
            (([0.5], [0.5]), "at least two users with values; got 1"),
            (([0.5, np.inf], [0.5, 0.5]), "first holds an infinite value for user 1"),
        ]:
            with pytest.raises(InvalidInput, match=message):
                test(*bad)

    def test_the_same_gain_for_everyone_is_certain(self):
        found = t_test([1.0, 1.5, 2.0], [0.5, 1.0, 1.5])
        assert (found.statistic, found.p_value) == (math.inf, 0.0)
        assert t_test([0.5, 1.0], [1.0, 1.5]).statistic == -math.inf
