"""Recall by popularity against a loop, and what its buckets hold."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec_fast.errors import InvalidInput
from llmrec_fast.evaluation import evaluate, recall_by_popularity

N_ITEMS = 9
ITEMS = st.integers(0, N_ITEMS - 1)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.lists(ITEMS, max_size=5), st.lists(ITEMS, min_size=1, max_size=5)), min_size=1, max_size=5),
    st.lists(st.integers(0, 6), min_size=N_ITEMS, max_size=N_ITEMS),
    st.integers(1, 6),
    st.integers(1, 4),
)
def test_against_a_loop(users, counts, k, buckets):
    recommended = np.array([row + [-1] * (5 - len(row)) for row, _ in users])
    relevant = [wanted for _, wanted in users]
    found = recall_by_popularity(recommended, relevant, counts, k, buckets=buckets)
    pairs = [(row[:k], item) for row, wanted in users for item in set(wanted)]
    for bucket in found:
        inside = [(row, item) for row, item in pairs if bucket.low <= counts[item] <= bucket.high]
        assert bucket.relevant == len(inside) > 0
        assert bucket.recall == pytest.approx(sum(item in row for row, item in inside) / len(inside))
        assert bucket.items == sum(bucket.low <= count <= bucket.high for count in counts)
    assert sum(bucket.relevant for bucket in found) == len(pairs)
    assert len(found) <= buckets + 1
    assert (found[0].low == found[0].high == 0) == any(counts[item] == 0 for _, item in pairs)
    assert all(second.low == first.high + 1 for first, second in itertools.pairwise(found))


def test_buckets_hold_about_as_many_relevant_items_and_the_cold_ones_stand_apart():
    counts = np.arange(100)
    found = recall_by_popularity([[0, 99]], [list(range(100))], counts, 2, buckets=3)
    assert [(bucket.low, bucket.high, bucket.relevant) for bucket in found] == [
        (0, 0, 1),
        (1, 33, 33),
        (34, 66, 33),
        (67, 99, 33),
    ]
    assert [bucket.recall for bucket in found] == [1.0, 0.0, 0.0, pytest.approx(1 / 33)]


def test_one_bucket_is_recall_over_all_pairs_and_ids_may_be_given():
    recommended, relevant, counts = [[7, 3], [4, -1]], [[3], [4, 7, 3]], [5, 2, 9]
    found = recall_by_popularity(recommended, relevant, counts, 2, buckets=1, item_ids=[3, 4, 7])
    assert [(bucket.low, bucket.high, bucket.recall) for bucket in found] == [(1, 9, 2 / 4)]
    assert evaluate(recommended, relevant, ["recall@2"])["recall@2"] == pytest.approx((1 + 1 / 3) / 2)


@pytest.mark.parametrize(
    ("relevant", "options", "message"),
    [
        ([[]], {}, "needs a user with relevant ids"),
        ([[9]], {}, "relevant holds the id 9"),
        ([[0]], {"buckets": 0}, "buckets must be at least 1"),
        ([[0]], {"item_ids": [5]}, "must be of one length"),
    ],
)
def test_bad_input_is_refused(relevant, options, message):
    with pytest.raises(InvalidInput, match=message):
        recall_by_popularity([[0]], relevant, [1, 2], 1, **options)
