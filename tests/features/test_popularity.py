import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrec_fast.errors import InvalidInput
from llmrec_fast.features import popularity_prior


def test_prior_is_the_logarithm_relative_to_the_most_popular_item():
    np.testing.assert_allclose(popularity_prior([0, 9, 99]), [0, 0.5, 1], rtol=1e-6)


@given(st.lists(st.integers(0, 10_000), min_size=1))
def test_prior_orders_items_as_their_counts_do(counts):
    prior = popularity_prior(counts)
    np.testing.assert_array_equal(np.argsort(prior, kind="stable"), np.argsort(counts, kind="stable"))
    assert prior.min() >= 0
    assert prior.max() <= 1


def test_more_smoothing_is_closer_to_linear():
    np.testing.assert_allclose(popularity_prior([25, 50, 100], smoothing=1e6), [0.25, 0.5, 1], rtol=1e-3)


def test_nothing_chosen_gives_zeros():
    np.testing.assert_array_equal(popularity_prior([0, 0]), 0)


def test_bad_input():
    with pytest.raises(InvalidInput, match="not be negative; got -2 in row 1"):
        popularity_prior([1, -2])
    with pytest.raises(InvalidInput, match="smoothing"):
        popularity_prior([1], smoothing=0)
