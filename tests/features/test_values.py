import numpy as np
import pytest

from llmrec_fast.errors import InvalidInput
from llmrec_fast.features import centre, like_strengths, log_scale, min_max, z_scores

VALUES = np.array([1.0, 3.0, 5.0, 4.0, 4.0])
USERS = np.array([7, 7, 7, 2, 2])


def test_centre_subtracts_the_mean_of_each_group():
    np.testing.assert_allclose(centre(VALUES, USERS), [-2, 0, 2, 0, 0])
    np.testing.assert_allclose(centre(VALUES), VALUES - 3.4, rtol=1e-6)


def test_z_scores_have_unit_deviation_and_are_zero_in_a_constant_group():
    scores = z_scores(VALUES, USERS)
    np.testing.assert_allclose(scores[:3].std(), 1, rtol=1e-6)
    np.testing.assert_array_equal(scores[3:], 0)


def test_z_scores_do_not_blow_up_rounding_noise():
    np.testing.assert_array_equal(z_scores(np.full(3, 0.1)), 0)


def test_min_max_spans_the_unit_interval_and_is_one_in_a_constant_group():
    np.testing.assert_allclose(min_max(VALUES, USERS), [0, 0.5, 1, 1, 1])
    np.testing.assert_allclose(min_max(VALUES), [0, 0.5, 1, 0.75, 0.75])


def test_log_scale():
    np.testing.assert_allclose(log_scale([0, 1, 99]), np.log([1, 2, 100]), rtol=1e-6)
    with pytest.raises(InvalidInput, match=r"not negative; got -1 in row 1"):
        log_scale([0, -1])


def test_like_strengths_are_one_for_likes_and_less_for_the_rest():
    np.testing.assert_array_equal(like_strengths([5, 4, 3.5, 1], liked_from=4, others=0.5), [1, 1, 0.5, 0.5])
    with pytest.raises(InvalidInput, match="between 0 and 1"):
        like_strengths([1.0], liked_from=4, others=2)


@pytest.mark.parametrize("function", [centre, z_scores, min_max])
def test_results_are_float32_and_nothing_gives_nothing(function):
    assert function(VALUES, USERS).dtype == np.float32
    assert function([]).shape == (0,)


@pytest.mark.parametrize("function", [centre, z_scores, min_max, log_scale])
def test_values_that_are_not_finite_are_refused(function):
    with pytest.raises(InvalidInput, match="row 1"):
        function([1.0, np.nan])


def test_groups_must_fit_the_values():
    with pytest.raises(InvalidInput, match="must have 5 values; got 2"):
        centre(VALUES, [0, 1])
