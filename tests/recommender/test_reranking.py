"""The reranking stage: trained inside the training data, explained without remainder, saved, and alive with its recommender."""

import subprocess
import sys

import numpy as np
import pytest

from llmrec_fast import Recommender
from llmrec_fast.errors import CorruptFile, InvalidInput
from llmrec_fast.features import pairs
from llmrec_fast.ranking.neural import NeuralSettings
from llmrec_fast.ranking.trees import TreeSettings
from llmrec_fast.recommender import RerankerSettings

from .conftest import bag_of_words, interaction_table, item_table

SETTINGS = {
    "trees": RerankerSettings(candidates=6, trees=TreeSettings(rounds=10, least_in_leaf=2)),
    "neural": RerankerSettings(candidates=6, kind="neural", neural=NeuralSettings(members=2, hidden=8, epochs=5)),
}
TRAINED_BY = {"trees": "lightgbm", "neural": "torch"}


@pytest.fixture(scope="module", params=list(SETTINGS))
def kind(request):
    pytest.importorskip(TRAINED_BY[request.param], exc_type=(ImportError, OSError))
    return request.param


def make(reranker, **options):
    defaults = {"weights": {"text": 1, "collaborative": 0.5, "popularity": 0.1}, "decay": 5.0, "liked_from": 4}
    settings = SETTINGS[reranker] if reranker else False
    return Recommender(bag_of_words, reranker=settings, **(defaults | options)).fit(item_table(), interaction_table())


@pytest.fixture(scope="module")
def reranked(kind):
    return make(kind)


def test_candidates_are_reordered_and_stay_unseen(reranked, kind):
    by_popularity = {"weights": {"popularity": 1.0}}
    plain, ranked = make(None, **by_popularity), make(kind, **by_popularity)
    users = reranked.user_ids
    found, retrieved = ranked.recommend(users, k=6), plain.recommend(users, k=6)
    for ours, theirs, user in zip(found.items, retrieved.items, users, strict=True):
        assert set(ours) == set(theirs)
        assert not set(ours) & set(plain.history(user))
    assert (found.items != retrieved.items).any()
    assert (np.diff(found.scores, axis=1) <= 0).all()
    # fewer are the first of more
    np.testing.assert_array_equal(ranked.recommend(users, k=2).items, found.items[:, :2])


def test_other_weights_mean_no_reranking(reranked):
    users = reranked.user_ids[:4]
    weights = {"text": 1.0}
    np.testing.assert_array_equal(
        reranked.recommend(users, weights=weights).scores, make(None).recommend(users, weights=weights).scores
    )


def test_an_explanation_adds_up_to_the_score(reranked, kind):
    user = reranked.user_ids[0]
    item, score = reranked.recommend([user], k=1)[0][0]
    explanation = reranked.explain(user, item)
    assert sum(explanation.reranking.values()) == pytest.approx(score, abs=1e-9 if kind == "trees" else 1e-5)
    assert explanation.to_json()["reranking"] == explanation.reranking
    assert "EASE of likes" in explanation.reranking
    assert make(None).explain(user, item).reranking == {}


def test_a_saved_one_answers_alike_after_changes(kind, tmp_path):
    recommender = make(kind)
    recommender.upsert_items({"id": ["new"], "text": ["red wine"], "title": ["New"]})
    recommender.remove_items(["i3"])
    recommender.record("ann", "i0", 5.0)
    recommender.save(tmp_path / "saved")
    loaded = Recommender.load(tmp_path / "saved")
    users = [*recommender.user_ids[:5], "ann"]
    before, after = recommender.recommend(users, k=5), loaded.recommend(users, k=5)
    np.testing.assert_array_equal(before.items, after.items)
    np.testing.assert_allclose(before.scores, after.scores, atol=1e-9 if kind == "trees" else 1e-5)
    assert "i3" not in before.items
    item = before.items[0, 0]
    assert loaded.explain(users[0], item).reranking == pytest.approx(recommender.explain(users[0], item).reranking)


def test_one_of_other_pair_features_is_refused(kind, tmp_path, monkeypatch):
    make(kind).save(tmp_path / "saved")
    names = pairs._names
    monkeypatch.setattr(pairs, "_names", lambda vectors: (*names(vectors), "phase of the moon"))
    with pytest.raises(CorruptFile, match=r"differ in \['phase of the moon'\]; fit the reranker again"):
        Recommender.load(tmp_path / "saved", encoder=bag_of_words)


def test_an_event_moves_the_order_at_once(kind):
    recommender = make(kind)
    recommender.record("ann", "i0", 5.0)
    before = recommender.recommend(["ann"], k=6)
    recommender.record("ann", "i7", 5.0)
    recommender.record("ann", "i8", 5.0)
    after = recommender.recommend(["ann"], k=6)
    assert (before.items != after.items).any()


def test_someone_new_and_diversity_go_through_it_too(reranked):
    found = reranked.recommend_for_items(["i0", "i1"], k=3)
    assert not set(found.items[0]) & {"i0", "i1"}
    diverse = reranked.recommend(reranked.user_ids[:2], k=3, diversity=0.7)
    assert (diverse.positions >= 0).all()


def test_a_saved_neural_one_needs_no_torch(tmp_path):
    pytest.importorskip("torch")
    recommender = make("neural")
    recommender.save(tmp_path / "saved")
    users = recommender.user_ids[:5]
    script = (
        "import sys; sys.modules['torch'] = sys.modules['lightgbm'] = None\n"
        "from llmrec_fast import Recommender\n"
        f"recommender = Recommender.load({str(tmp_path / 'saved')!r})\n"
        f"found = recommender.recommend({users!r}, k=5)\n"
        f"print(found.positions.tolist(), sum(recommender.explain({users[0]!r}, found.items[0, 0]).reranking.values()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    found = recommender.recommend(users, k=5)
    positions, _, total = done.stdout.strip().rpartition(" ")
    assert positions == str(found.positions.tolist())
    assert float(total) == pytest.approx(found.scores[0, 0], abs=1e-5)


def test_a_kind_by_name_means_its_defaults():
    assert RerankerSettings.of("neural") == RerankerSettings(kind="neural")
    assert RerankerSettings.of(True) == RerankerSettings.of("trees") == RerankerSettings()
    assert RerankerSettings.of(False) is None
    with pytest.raises(InvalidInput, match="'trees' or 'neural'; got 'forest'"):
        Recommender(None, reranker="forest")


def test_it_needs_times_and_likes_to_come():
    table = interaction_table()
    del table["timestamp"]
    recommender = Recommender(bag_of_words, reranker=True, liked_from=4)
    with pytest.raises(InvalidInput, match="times"):
        recommender.fit(item_table(), table)
    with pytest.raises(InvalidInput, match="at least 1"):
        RerankerSettings(candidates=0)
