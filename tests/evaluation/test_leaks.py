"""Leak checks against loops, on known leaks, and what is refused."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrec_fast.errors import InvalidInput
from llmrec_fast.evaluation import find_leaks, find_sequence_leaks, leave_one_out, split_at_time

ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(-2, 4), st.integers(0, 5)), max_size=15)
SEQUENCES = st.lists(
    st.tuples(st.integers(0, 2), st.lists(st.integers(0, 6), max_size=4), st.integers(0, 6)), max_size=10
)


@given(ROWS, ROWS)
def test_against_a_loop(train, test):
    columns = [np.array([row[i] for row in rows], dtype=np.int64) for rows in (train, test) for i in range(3)]
    found = find_leaks(*columns[:2], *columns[3:5], train_timestamps=columns[2], test_timestamps=columns[5])
    assert found.interactions.tolist() == [(u, i) in {(v, j) for v, j, _ in train} for u, i, _ in test]
    assert found.items.tolist() == [i in {j for _, j, _ in train} for _, i, _ in test]
    assert found.users.tolist() == [u in {v for v, _, _ in train} for u, _, _ in test]
    assert found.user_future.tolist() == [any(v == u and s > t for v, _, s in train) for u, _, t in test]
    assert found.any_future.tolist() == [any(s > t for _, _, s in train) for _, _, t in test]


@given(SEQUENCES)
def test_sequences_against_a_loop(rows):
    users, histories, targets = ([row[i] for row in rows] for i in range(3))
    found = find_sequence_leaks(histories, targets, users)
    others = [[j for j in range(len(rows)) if j != i] for i in range(len(rows))]
    assert found.any_row.tolist() == [any(targets[i] in histories[j] for j in others[i]) for i in range(len(rows))]
    assert found.same_user.tolist() == [
        any(users[j] == users[i] and targets[i] in histories[j] for j in others[i]) for i in range(len(rows))
    ]


def test_several_rows_a_user_leak_all_answers_but_the_last():
    """Each user's sequence cut in one row a step: the next row's history ends with this row's answer."""
    sequences = {"a": [1, 2, 3, 4], "b": [9, 8, 7]}
    rows = [(user, items[:n], items[n]) for user, items in sequences.items() for n in range(1, len(items))]
    users, histories, targets = zip(*rows, strict=True)
    found = find_sequence_leaks(list(histories), targets, users)
    assert found.same_user.tolist() == [True, True, False, True, False]
    assert "3 (60.0%) have their target in the history of another row of the same user" in str(found)
    last_rows_only = find_sequence_leaks([[1, 2, 3], [9, 8]], [4, 7], ["a", "b"])
    assert not last_rows_only.any_row.any()
    assert find_sequence_leaks([[1], [2]], [2, 1]).same_user is None


def test_splits_by_user_know_the_future_of_others_and_a_global_cut_does_not():
    users, items, times = np.repeat([0, 1], 4), np.arange(8), np.array([0, 1, 2, 3, 10, 11, 12, 13])

    def leaks(split):
        return find_leaks(
            users[split.train],
            items[split.train],
            users[split.test],
            items[split.test],
            train_timestamps=times[split.train],
            test_timestamps=times[split.test],
        )

    by_user = leaks(leave_one_out(users, items, times))
    assert by_user.user_future.tolist() == [False, False]
    assert by_user.any_future.tolist() == [True, False]
    assert not leaks(split_at_time(times, 3)).any_future.any()
    assert "of 2 test interactions 0 (0.0%) are in training" in str(by_user)


def test_ids_and_times_of_other_kinds_and_empty_parts():
    found = find_leaks(
        ["a", "b"],
        ["x", "y"],
        pd.Series(["a", "c"]),
        pd.Series(["x", "y"]),
        train_timestamps=pd.to_datetime(["2024-01-01", "2024-02-01"]),
        test_timestamps=pd.to_datetime(["2024-01-15", "2024-03-01"]),
    )
    assert found.interactions.tolist() == [True, False]
    assert found.items.tolist() == [True, True]
    assert found.user_future.tolist() == [False, False]
    assert found.any_future.tolist() == [True, False]
    assert find_leaks([], [], [1], [2]).items.tolist() == [False]
    assert "of 0 test interactions" in str(find_leaks([1], [2], [], []))
    assert find_sequence_leaks([], [], []).any_row.tolist() == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: find_leaks([1], [1, 2], [1], [1]), "train_users and train_items must be of equal length; got 1, 2"),
        (lambda: find_leaks([1], [1], ["a"], [1]), "users of both parts must be of one kind"),
        (lambda: find_leaks([1], [1], [1.0], [np.nan]), "test_items has no value in row 0"),
        (lambda: find_leaks([1], [1], [1], [1], train_timestamps=[1]), "go together; got one"),
        (
            lambda: find_leaks([1], [1], [1], [1], train_timestamps=[1, 2], test_timestamps=[1]),
            "as many as interactions, 1 and 1; got 2 and 1",
        ),
        (lambda: find_sequence_leaks([[1]], [1, 2]), "histories must have one array of ids for each of 2 users; got 1"),
        (lambda: find_sequence_leaks([[1], [2]], [1, 2], ["a"]), "users must have 2 values; got 1"),
        (lambda: find_sequence_leaks([[1]], [1.5]), "targets must be integers"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(InvalidInput, match=message):
        call()
