"""Recall of cold items against a count by hand."""

import numpy as np
import pytest

from llmrec_fast.errors import InvalidInput
from llmrec_fast.evaluation import bootstrap_interval, cold_item_recall, summarize_cold_items

COUNTS = [5, 0, 0, 2, 0]
LISTS = [[1, 0, 2], [3, 4, -1], [0, 3, -1], [2, 1, 4]]
RELEVANT = [[1, 2, 4, 0], [4, 3], [0, 3], []]


def test_only_cold_items_are_sought_and_users_without_one_have_no_value():
    np.testing.assert_array_equal(cold_item_recall(LISTS, RELEVANT, COUNTS, 3), [2 / 3, 1, np.nan, np.nan])
    np.testing.assert_array_equal(cold_item_recall(LISTS, RELEVANT, COUNTS, 1), [1 / 3, 0, np.nan, np.nan])


def test_ids_are_those_of_the_caller():
    names = np.array([50, 10, 20, 30, 40])
    lists = np.where(np.array(LISTS) < 0, -1, names[LISTS])
    relevant = [names[wanted].tolist() for wanted in RELEVANT]
    found = cold_item_recall(lists, relevant, COUNTS, 3, item_ids=names)
    np.testing.assert_array_equal(found, cold_item_recall(LISTS, RELEVANT, COUNTS, 3))


def test_the_summary_is_the_mean_with_its_interval():
    summary = summarize_cold_items(LISTS, RELEVANT, COUNTS, 3, resamples=50, seed=1)
    values = cold_item_recall(LISTS, RELEVANT, COUNTS, 3)
    assert (summary.k, summary.items, summary.users) == (3, 3, 2)
    assert summary.recall == bootstrap_interval(values, resamples=50, seed=1)
    assert summary.recall.mean == pytest.approx(5 / 6)


def test_nothing_cold_is_no_summary():
    assert summarize_cold_items(LISTS, RELEVANT, [1] * 5, 3) is None


def test_bad_input_is_refused():
    with pytest.raises(InvalidInput, match="item_counts"):
        cold_item_recall(LISTS, RELEVANT, None, 3)
    with pytest.raises(InvalidInput, match="relevant"):
        cold_item_recall(LISTS, [[7], [], [], []], COUNTS, 3)
