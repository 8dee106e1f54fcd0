"""Trees that rank: they learn an order, explain it without remainder, survive a round trip, and refuse what makes no sense."""

import builtins
import dataclasses

import numpy as np
import pytest

from llmrec_fast.errors import CorruptFile, InvalidInput, MissingDependency
from llmrec_fast.ranking.trees import TreeRanker, TreeSettings

from .some_groups import NAMES, some_groups

pytest.importorskip("lightgbm", exc_type=(ImportError, OSError))

SMALL = TreeSettings(rounds=20, least_in_leaf=5)


@pytest.fixture(scope="module", params=["binary", "lambdarank", "both"])
def settings(request):
    return dataclasses.replace(SMALL, objective=request.param)


@pytest.fixture(scope="module")
def ranker(settings):
    return TreeRanker.fit(*some_groups(), NAMES, settings)


def test_relevant_rows_come_first_in_groups_never_seen(ranker):
    features, relevant, sizes = some_groups(seed=1)
    scores = ranker.scores(features).reshape(len(sizes), -1)
    rank = (scores > scores.ravel()[relevant > 0][:, None]).sum(axis=1)
    assert rank.mean() < 1.0  # by chance 4.5


def test_contributions_add_up_to_the_score_and_name_the_signal(ranker):
    features, _, _ = some_groups(seed=2)
    shares = ranker.contributions(features)
    assert shares.shape == (len(features), 3)
    np.testing.assert_allclose(shares.sum(axis=1), ranker.scores(features), atol=1e-9)
    assert np.abs(shares[:, 0]).mean() > 2 * np.abs(shares[:, 1]).mean()


def test_a_round_trip_through_text_keeps_the_scores(ranker):
    features, _, _ = some_groups(seed=3)
    np.testing.assert_array_equal(
        TreeRanker.from_text(ranker.to_text(), NAMES).scores(features), ranker.scores(features)
    )
    with pytest.raises(CorruptFile, match="cannot be read"):
        TreeRanker.from_text("no trees", NAMES)
    with pytest.raises(CorruptFile, match="cannot be read"):
        TreeRanker.from_text('[[1.0, "no trees"]]', NAMES)


def test_both_objectives_count_alike():
    features, _, _ = some_groups(seed=5)
    training = some_groups()
    single = [
        TreeRanker.fit(*training, NAMES, dataclasses.replace(SMALL, objective=objective))
        for objective in ("binary", "lambdarank")
    ]
    expected = sum(ranker.scores(features) / ranker.scores(training[0]).std() for ranker in single)
    both = TreeRanker.fit(*training, NAMES, dataclasses.replace(SMALL, objective="both"))
    np.testing.assert_allclose(both.scores(features), expected, rtol=1e-12)


def test_the_seed_decides(ranker, settings):
    features, _, _ = some_groups(seed=4)
    again = TreeRanker.fit(*some_groups(), NAMES, settings)
    other = TreeRanker.fit(*some_groups(), NAMES, dataclasses.replace(settings, seed=1))
    np.testing.assert_array_equal(again.scores(features), ranker.scores(features))
    assert (other.scores(features) != ranker.scores(features)).any()


def test_nonsense_is_refused(ranker):
    features, relevant, sizes = some_groups()
    with pytest.raises(InvalidInput, match="add up"):
        TreeRanker.fit(features, relevant, sizes[1:], NAMES)
    with pytest.raises(InvalidInput, match="no row is relevant"):
        TreeRanker.fit(features, np.zeros(len(features)), sizes, NAMES)
    with pytest.raises(InvalidInput, match="grades from 0"):
        TreeRanker.fit(features, relevant - 1, sizes, NAMES)
    with pytest.raises(InvalidInput, match="objective must be"):
        TreeRanker.fit(features, relevant, sizes, NAMES, TreeSettings(objective="pairwise"))
    with pytest.raises(InvalidInput, match="2 columns"):
        ranker.scores(np.zeros((3, 5)))
    assert ranker.scores(np.zeros((0, 2))).shape == (0,)


def test_without_lightgbm_the_message_says_how_to_get_it(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **options):
        if name == "lightgbm":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependency, match=r"pip install 'llmrec-fast\[trees\]'"):
        TreeRanker.fit(*some_groups(), NAMES, SMALL)
