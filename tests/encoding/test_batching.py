"""Batches: every text once, within the budget, with little padding."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrec_fast.encoding.batching import pad_batch, plan_batches, plan_packed_batches, plan_work

LENGTHS = st.lists(st.integers(0, 300), max_size=200)


@given(LENGTHS, st.integers(1, 1000))
def test_every_text_with_tokens_is_in_exactly_one_batch(lengths: list[int], budget: int) -> None:
    for plan in (plan_batches, plan_packed_batches):
        places = [place for batch in plan(np.array(lengths, np.int64), budget) for place in batch.tolist()]
        assert sorted(places) == [place for place, length in enumerate(lengths) if length]


@given(LENGTHS, st.integers(1, 1000))
def test_batches_keep_to_the_budget_unless_they_are_one_text(lengths: list[int], budget: int) -> None:
    array = np.array(lengths, np.int64)
    for batch in plan_batches(array, budget):
        assert len(batch) == 1 or len(batch) * array[batch].max() <= budget
    packed = plan_packed_batches(array, budget)
    for batch in packed:
        assert len(batch) == 1 or array[batch].sum() <= budget
    for batch, following in itertools.pairwise(packed):
        assert array[batch].sum() + array[following[0]] > budget  # else it would have been in it


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
