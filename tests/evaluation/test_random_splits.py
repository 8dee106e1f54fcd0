"""Splits by chance: who is in which part, balance, repeatability, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrec_fast.errors import InvalidInput
from llmrec_fast.evaluation import cold_items, cold_users, find_leaks, k_fold

IDS = st.lists(st.integers(0, 6), min_size=2, max_size=40)


@given(IDS, st.integers(2, 5), st.integers(0, 9))
def test_every_interaction_tests_once_and_folds_are_balanced(users, folds, seed):
    folds = min(folds, len(users))
    splits = k_fold(users, folds, seed)
    assert len(splits) == folds
    np.testing.assert_array_equal(np.sum([split.test for split in splits], axis=0), np.ones(len(users)))
    for split in splits:
        np.testing.assert_array_equal(split.train, ~split.test)
    for part in [np.ones(len(users), dtype=bool), *(np.array(users) == user for user in set(users))]:
        sizes = [int((split.test & part).sum()) for split in splits]
        assert max(sizes) - min(sizes) <= 1


def test_the_seed_decides():
    users = np.repeat(np.arange(20), 10)
    first, again, other = (k_fold(users, 5, seed)[0].test for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (cold_items(users, 0.5, 1).test != cold_items(users, 0.5, 2).test).any()


@given(IDS.filter(lambda ids: len(set(ids)) > 1), st.sampled_from([0.01, 0.2, 0.5, 0.99]), st.integers(0, 9))
def test_cold_ids_never_train(ids, share, seed):
    split = cold_items(ids, share, seed)
    ids = np.array(ids)
    cold, warm = set(ids[split.test]), set(ids[split.train])
    assert not cold & warm
    assert len(cold) == min(max(round(share * len(cold | warm)), 1), len(cold | warm) - 1)
    np.testing.assert_array_equal(split.train, ~split.test)
    leaks = find_leaks(ids[split.train], ids[split.train], ids[split.test], ids[split.test])
    assert not (leaks.items.any())
    assert not (leaks.users.any())
    assert not (leaks.interactions.any())


def test_cold_users_are_held_out_with_all_they_did():
    split = cold_users(["a", "b", "a", "c", "d"], share=0.5)
    held = {"abacd"[row] for row in np.flatnonzero(split.test)}
    assert len(held) == 2
    assert split.test.tolist() == [user in held for user in "abacd"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: k_fold([1, 2, 3], 1), "folds must be at least 2"),
        (lambda: k_fold([1, 2, 3], 4), "at most the number of interactions, 3; got 4"),
        (lambda: k_fold([1, None], 2), "users has no value in row 1"),
        (lambda: k_fold([1, 2], 2, seed=-1), "seed must be at least 0"),
        (lambda: cold_items([3, 3, 3]), "items holds 1 different ids"),
        (lambda: cold_users([]), "users holds 0 different ids"),
        (lambda: cold_items([1, 2], share=1.0), "share must be a number above 0 and below 1"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(InvalidInput, match=message):
        call()
