"""Batches: every text once, within the budget, with little padding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrec_fast.encoding.batching import pad_batch, plan_batches, plan_packed_batches, plan_work

LENGTHS = st.lists(st.integers(0, 300), max_size=200)


@given(LENGTHS, st.integers(1, 1000))
def test_every_text_with_tokens_is_in_exactly_one_batch(lengths: list[int], budget: int) -> None:
    array = np.array(lengths, np.int64)
    for batches in (plan_batches(array, budget), plan_packed_batches(array, 3, budget)):
        places = [place for batch in batches for place in batch.tolist()]
        assert sorted(places) == [place for place, length in enumerate(lengths) if length]


@given(LENGTHS, st.integers(1, 1000))
def test_batches_keep_to_the_budget_unless_they_are_one_text(lengths: list[int], budget: int) -> None:
    array = np.array(lengths, np.int64)
    for batch in plan_batches(array, budget):
        assert len(batch) == 1 or len(batch) * array[batch].max() <= budget


@given(LENGTHS, st.integers(1, 1000), st.integers(1, 4))
def test_packed_batches_are_equal_shares_but_for_whole_texts(lengths: list[int], budget: int, threads: int) -> None:
    array = np.array(lengths, np.int64)
    batches = plan_packed_batches(array, threads, budget)
    for batch in batches:
        assert len(batch) == 1 or array[batch].sum() <= budget + array[batch].max()
    longest_first = array[np.concatenate(batches)] if batches else array[:0]
    assert (np.diff(longest_first) <= 0).all()
    shares = -(-array.sum() // (budget * threads)) * threads
    assert len(batches) <= shares
    if lengths and array.max() * shares <= array.sum():  # no text is longer than a share
        assert len(batches) == shares
        for batch in batches:
            assert abs(array[batch].sum() - array.sum() / shares) <= array[batch].max()


def test_few_texts_are_shared_out_evenly() -> None:
    batches = plan_packed_batches(np.full(58, 17, np.int64), 2, 192)
    assert sorted(len(batch) for batch in batches) == [9, 9, 10, 10, 10, 10]


def test_texts_of_equal_length_fill_the_budget() -> None:
    assert [len(batch) for batch in plan_batches(np.full(100, 16, np.int64), 512)] == [32, 32, 32, 4]


def test_a_short_text_does_not_follow_long_ones_into_a_batch() -> None:
    batches = plan_batches(np.array([200, 3, 200, 3], np.int64), 1000)
    assert [batch.tolist() for batch in batches] == [[0, 2], [1, 3]]


def test_padding_is_on_the_right() -> None:
    ids, lengths = pad_batch([np.array([5, 6], np.int32), np.array([7], np.int32)], 9)
    assert ids.tolist() == [[5, 6], [7, 9]]
    assert lengths.tolist() == [2, 1]
    assert ids.dtype == lengths.dtype == np.int32


@pytest.mark.parametrize(
    ("lengths", "threads", "packed", "of_one_thread", "apart"),
    [
        ([64, 64], 2, False, 0, True),
        ([63, 63], 2, False, 0, False),  # too little for an efficient product each
        ([32, 32], 2, True, 0, True),
        ([31, 31], 2, True, 0, False),
        ([250, 20, 20, 20], 2, False, 0, False),  # whoever had the long one would be waited for
        ([17], 2, True, 17, True),
        ([17], 2, True, 16, False),
        ([500], 2, True, None, True),
        ([500], 1, False, None, True),
    ],
)
def test_who_works_on_what(
    lengths: list[int], threads: int, packed: bool, of_one_thread: int | None, apart: bool
) -> None:
    found, batches = plan_work(np.array(lengths), threads, packed=packed, tokens_of_one_thread=of_one_thread)
    assert found == apart
    assert sorted(place for batch in batches for place in batch.tolist()) == list(range(len(lengths)))
