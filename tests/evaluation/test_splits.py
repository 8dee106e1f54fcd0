"""Splits against a plain loop over users, their rules on ties and on users with few interactions, and what is refused."""

import math
from fractions import Fraction

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrec_fast.errors import InvalidInput
from llmrec_fast.evaluation import (
    group_items,
    group_items_of,
    leave_one_out,
    split_at_time,
    split_by_global_time,
    split_by_time,
)

INTERACTIONS = st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 6), st.integers(0, 3)), max_size=40)


def columns(rows):
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2]


def expected(rows, training_size):
    """The set of positions that train, user by user."""
    train = set()
    for user in {row[0] for row in rows}:
        own = sorted((time, item, position) for position, (u, item, time) in enumerate(rows) if u == user)
        train |= {position for _, _, position in own[: training_size(len(own))]}
    return [position in train for position in range(len(rows))]


@given(
    INTERACTIONS, st.sampled_from([Fraction(1, 2), Fraction(4, 5), Fraction(29, 100), Fraction(1, 3), Fraction(9, 10)])
)
def test_the_first_share_of_each_users_interactions_trains(rows, ratio):
    split = split_by_time(*columns(rows), ratio=float(ratio))
    assert split.train.tolist() == expected(rows, lambda count: math.floor(ratio * count))
    np.testing.assert_array_equal(split.test, ~split.train)


@given(INTERACTIONS, st.integers(1, 3))
def test_the_last_of_each_users_interactions_tests(rows, last):
    split = leave_one_out(*columns(rows), last=last)
    assert split.train.tolist() == expected(rows, lambda count: count - last if count > last else count)
    np.testing.assert_array_equal(split.test, ~split.train)


def test_the_share_is_exact_where_the_product_is_not():
    """0.29 * 100 is 28.999999999999996 in float64."""
    split = split_by_time(np.zeros(100, int), np.arange(100), np.arange(100), ratio=0.29)
    assert split.train.sum() == 29


def test_ties_of_time_are_broken_by_item_and_then_by_place():
    split = split_by_time([1, 1, 1, 1], [7, 3, 3, 9], [5, 5, 5, 5], ratio=0.5)
    assert split.train.tolist() == [False, True, True, False]
    split = split_by_time([1, 1], [3, 3], [5, 5], ratio=0.5)
    assert split.train.tolist() == [True, False]


def test_a_single_interaction_tests_in_one_split_and_trains_in_the_other():
    assert split_by_time([4], [1], [0]).test.tolist() == [True]
    assert leave_one_out([4], [1], [0]).test.tolist() == [False]


def test_ids_and_times_of_any_kind_that_sorts():
    users = ["b", "a", "b", "a", "b"]
    items = ["x", "y", "z", "x", "y"]
    times = pd.to_datetime(["2024-03-01", "2024-01-01", "2024-01-01", "2024-02-01", "2024-02-01"])
    want = [False, True, True, False, True]
    assert leave_one_out(users, items, times).train.tolist() == want
    assert leave_one_out(np.array(users, dtype=object), np.array(items, dtype=object), times).train.tolist() == want
    frame = pd.DataFrame({"user": users, "item": items, "time": times})
    assert leave_one_out(frame["user"], frame["item"], frame["time"]).train.tolist() == want
    frame = pl.from_pandas(frame)
    assert leave_one_out(frame["user"], frame["item"], frame["time"]).train.tolist() == want


def test_splitting_the_training_part_again_gives_a_validation_part():
    users, items, times = np.repeat([0, 1], 10), np.tile(np.arange(10), 2), np.tile(np.arange(10), 2)
    outer = split_by_time(users, items, times)
    inner = split_by_time(users[outer.train], items[outer.train], times[outer.train], ratio=0.75)
    assert times[outer.train][inner.test].tolist() == [6, 7] * 2
    assert times[outer.test].tolist() == [8, 9] * 2


def test_no_interactions_split_to_none():
    assert split_by_time([], [], []).train.tolist() == []
    assert leave_one_out([], [], []).test.tolist() == []


@pytest.mark.parametrize("ratio", [0, 1, -0.5, 1.5, math.nan, "half", None, True])
def test_a_ratio_is_a_share(ratio):
    with pytest.raises(InvalidInput, match="ratio must be a number above 0 and below 1"):
        split_by_time([1], [1], [1], ratio=ratio)


@pytest.mark.parametrize("last", [0, -1, 1.5, True])
def test_last_is_a_count(last):
    with pytest.raises(InvalidInput, match="last must be"):
        leave_one_out([1], [1], [1], last=last)


@pytest.mark.parametrize(
    ("users", "items", "times", "message"),
    [
        ([1, 2], [1], [1, 2], "equal length"),
        ([[1], [2]], [1, 2], [1, 2], "users must have one dimension"),
        ([1, 2], [1, 2], [1.0, math.nan], "timestamps has no value in row 1"),
        (["a", None], [1, 2], [1, 2], "users has no value in row 1"),
        (np.array([math.nan, "a"], dtype=object), [1, 2], [1, 2], "users has no value in row 0"),
        ([1, 2], pd.array([1, None], dtype="Int64"), [1, 2], "items has no value in row 1"),
        ([1, 2], [1, 2], np.array(["2024-01-01", "NaT"], dtype="datetime64[s]"), "timestamps has no value in row 1"),
        (np.array(["a", 3], dtype=object), [1, 2], [1, 2], "users must be values that can be sorted"),
    ],
)
def test_columns_are_checked(users, items, times, message):
    for split in (split_by_time, leave_one_out):
        with pytest.raises(InvalidInput, match=message):
            split(users, items, times)


class TestGlobalTime:
    @given(INTERACTIONS, st.integers(-1, 4))
    def test_what_is_before_the_cut_trains(self, rows, cut):
        times = columns(rows)[2]
        split = split_at_time(times, cut)
        assert split.train.tolist() == [time < cut for time in times]
        np.testing.assert_array_equal(split.test, ~split.train)

    @given(INTERACTIONS, st.sampled_from([Fraction(1, 2), Fraction(4, 5), Fraction(29, 100)]))
    def test_a_share_trains_and_no_moment_is_parted(self, rows, ratio):
        times = columns(rows)[2]
        split = split_by_global_time(times, ratio=float(ratio))
        wanted = math.floor(ratio * len(times))
        if len(times):
            cut = sorted(times)[wanted]
            assert split.train.tolist() == [time < cut for time in times]
        assert split.train.sum() <= wanted
        assert not set(times[split.train]) & set(times[split.test])

    def test_datetimes_and_their_texts(self):
        times = pd.to_datetime(["2024-03-01", "2024-01-01", "2024-02-01"])
        want = [False, True, False]
        for cut in ("2024-02-01", np.datetime64("2024-02-01"), pd.Timestamp("2024-02-01")):
            assert split_at_time(times, cut).train.tolist() == want
        assert split_by_global_time(times, ratio=0.34).train.tolist() == want
        assert split_by_global_time(["b", "a", "c"], ratio=0.34).train.tolist() == [False, True, False]
        assert split_by_global_time([]).train.tolist() == []

    @pytest.mark.parametrize("cut", [math.nan, None, "soon", [1, 2], np.datetime64("NaT")])
    def test_a_cut_is_one_time(self, cut):
        with pytest.raises(InvalidInput, match="cut"):
            split_at_time([1, 2, 3], cut)
        with pytest.raises(InvalidInput, match="cut"):
            split_at_time(np.array(["2024-01-01"] * 3, dtype="datetime64[s]"), cut)

    def test_missing_times_and_shares_out_of_range(self):
        for split in (lambda times: split_at_time(times, 1), split_by_global_time):
            with pytest.raises(InvalidInput, match="timestamps has no value in row 1"):
                split([1.0, math.nan])
        with pytest.raises(InvalidInput, match="ratio must be a number above 0 and below 1"):
            split_by_global_time([1, 2], ratio=1.0)


class TestGroupItems:
    def test_each_user_has_its_items_in_the_order_they_come(self):
        indptr, ids = group_items([2, 0, 2, 2], [9, 5, 7, 9], users=4)
        assert indptr.tolist() == [0, 1, 1, 4, 4]
        assert ids.tolist() == [5, 9, 7, 9]

    def test_of_chosen_users_alone(self):
        indptr, ids = group_items_of([7, 0], [0, 3, 7, 0, 9], [4, 5, 6, 8, 2])
        assert indptr.tolist() == [0, 1, 3]
        assert ids.tolist() == [6, 4, 8]
        assert group_items_of([5], [], [])[0].tolist() == [0, 0]

    @given(st.lists(st.tuples(st.integers(0, 5), st.integers(-9, 9)), max_size=30))
    def test_against_a_loop(self, pairs):
        users, items = [user for user, _ in pairs], [item for _, item in pairs]
        indptr, ids = group_items(users, items, users=6)
        for user in range(6):
            assert ids[indptr[user] : indptr[user + 1]].tolist() == [item for owner, item in pairs if owner == user]

    @pytest.mark.parametrize(
        ("users", "items", "count", "message"),
        [
            ([0, 3], [1, 2], 3, "0 to 2; got 0 to 3"),
            ([-1, 2], [1, 2], 3, "0 to 2; got -1 to 2"),
            ([0, 1], [1], 3, "item_ids must have 2 values"),
            ([0.5], [1], 3, "user_positions must be integers"),
            ([0], [1], -1, "users must be at least 0"),
        ],
    )
    def test_arguments_are_checked(self, users, items, count, message):
        with pytest.raises(InvalidInput, match=message):
            group_items(users, items, users=count)
