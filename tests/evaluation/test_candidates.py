"""Sampled candidates: what they hold, that they warn, and the bias that the warning is about."""

import itertools

import numpy as np
import pytest

from llmrec_fast.errors import InvalidInput
from llmrec_fast.evaluation import SampledEvaluationWarning, evaluate, sample_candidates


def rows(pair):
    indptr, ids = pair
    return [ids[start:stop].tolist() for start, stop in itertools.pairwise(indptr)]


def test_each_user_gets_its_relevant_items_and_others():
    relevant, exclude = [[3, 7], [], [0]], [[1], [2], [4, 5, 0]]
    with pytest.warns(SampledEvaluationWarning, match="biased"):
        found = rows(sample_candidates(relevant, 3, 10, negatives=5, exclude=exclude))
    assert [len(row) for row in found] == [7, 0, 6]
    for row, wanted, barred in zip(found, relevant, exclude, strict=True):
        assert row == sorted(set(row))
        if wanted:
            assert set(wanted) <= set(row)
            assert not (set(row) - set(wanted)) & set(barred)


def test_all_other_items_are_equally_probable_and_the_seed_decides():
    arguments = ([[0]] * 2_000, 2_000, 5)
    with pytest.warns(SampledEvaluationWarning):
        found = rows(sample_candidates(*arguments, negatives=2, exclude=[[1]] * 2_000))
    with pytest.warns(SampledEvaluationWarning):
        again = rows(sample_candidates(*arguments, negatives=2, exclude=[[1]] * 2_000))
    assert found == again
    counts = np.bincount(np.concatenate(found), minlength=5)
    assert counts[:2].tolist() == [2_000, 0]
    np.testing.assert_allclose(counts[2:] / 2_000, 2 / 3, atol=0.04)


def test_the_bias_is_real():
    """A relevant item at place 50 of 1,000 is in no top 10, but is in most sampled ones."""
    relevant = [[50]] * 200
    with pytest.warns(SampledEvaluationWarning):
        sampled = rows(sample_candidates(relevant, 200, 1_000, negatives=99))
    everything = np.tile(np.arange(1_000), (200, 1))  # the model ranks by position
    assert evaluate(everything, relevant, ["recall@10"])["recall@10"] == 0.0
    assert evaluate(np.array(sampled), relevant, ["recall@10"])["recall@10"] > 0.9


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([[1]], 1, 5), {"negatives": 5}, "user 0 has 4 items to draw from, fewer than negatives=5"),
        (([[1]], 1, 5), {"negatives": 3, "exclude": [[2, 3]]}, "user 0 has 2 items to draw from"),
        (([[5]], 1, 5), {"negatives": 1}, "user 0 has the position 5; positions go from 0 to 4"),
        (([[-2]], 1, 5), {"negatives": 1}, "user 0 has the position -2"),
        (([[1]], 2, 5), {"negatives": 1}, "relevant must have one array of ids for each of 2 users"),
        (([[1]], 1, 5), {"negatives": 0}, "negatives must be at least 1"),
    ],
)
def test_bad_input_is_refused(arguments, options, message):
    with pytest.raises(InvalidInput, match=message):
        sample_candidates(*arguments, **options)
