"""Which model learns the collaborative vectors, and how texts are pooled: served, explained, saved and kept."""

import numpy as np
import pytest
import scipy.sparse

from llmrec_fast import Encoder, Recommender
from llmrec_fast.errors import InvalidInput, MissingDependency
from llmrec_fast.features import fit_item_knn
from llmrec_fast.recommender import collaborating
from llmrec_fast.recommender.collaborating import MODELS, check_installed, is_installed

from ..encoding.tiny_models import write_model
from .conftest import WINES, bag_of_words, interaction_table, item_table

ALONE = {"collaborative": 1.0}


def fit(model, **options):
    if not is_installed(model):
        pytest.skip(f"{model} is not installed")
    options = {"liked_from": 4, "rank": 4, "threads": 1} | options
    return Recommender(bag_of_words, collaborative=model, **options).fit(item_table(), interaction_table())


@pytest.mark.parametrize("model", MODELS)
def test_every_model_serves_taste_explains_itself_and_is_saved(model, tmp_path):
    recommender = fit(model)
    assert recommender.recommend([0], k=1, weights=ALONE)[0][0][0] in {f"i{n}" for n in range(5)}
    item = recommender.recommend([0], k=1)[0][0][0]
    explanation = recommender.explain(0, item)
    added = sum(part.by_feature.get("collaborative", 0.0) for part in explanation.history)
    assert added == pytest.approx(explanation.features["collaborative"], abs=1e-5)
    recommender.save(tmp_path / "saved")
    loaded = Recommender.load(tmp_path / "saved", encoder=bag_of_words)
    for options in ({}, {"weights": ALONE}):
        np.testing.assert_array_equal(
            recommender.recommend([0, 1, 2], k=5, **options).scores, loaded.recommend([0, 1, 2], k=5, **options).scores
        )
    loaded.add_items({"id": ["new"], "text": [WINES[0]]})
    assert loaded.recommend([0], k=11, filter_seen=False).items.shape == (1, 11)


@pytest.mark.parametrize("model", ["als", "nmf", "item-knn"])
def test_scores_are_cosines_of_the_history_side_and_the_item_side(model):
    recommender = fit(model)
    state = recommender._fitted()
    items, weights = state.histories.of(state.user_ids.position(3))
    profile = weights.astype(np.float64) @ state.space.features["collaborative of histories"][items]
    vectors = state.space.features["collaborative"].astype(np.float64)
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(profile)
    answer = recommender.recommend([3], k=5, filter_seen=False, weights=ALONE)
    np.testing.assert_allclose(answer.scores[0], (vectors @ profile / norms)[answer.positions[0]], atol=1e-5)


def test_ease_is_what_it_was_without_a_model_named():
    default = Recommender(bag_of_words, liked_from=4, rank=4).fit(item_table(), interaction_table())
    named = fit("ease", regularization=500.0)
    np.testing.assert_array_equal(default.recommend([0, 1], k=5).scores, named.recommend([0, 1], k=5).scores)


def test_item_knn_as_vectors_scores_as_its_matrix_or_as_the_nearest_of_a_rank(monkeypatch):
    matrix = scipy.sparse.random(200, 40, 0.1, "csr", np.float32, rng=np.random.default_rng(0))
    knn = fit_item_knn(matrix, k=10)
    np.testing.assert_allclose(knn.to_vectors(40).scores(matrix), knn.scores(matrix), atol=1e-4)
    left, singular, right = np.linalg.svd(knn.matrix.toarray())
    for rank in (8, 20):  # by Lanczos and all at once
        expected = matrix @ (left[:, :rank] * singular[:rank]) @ right[:rank]
        np.testing.assert_allclose(knn.to_vectors(rank).scores(matrix), expected, atol=1e-4)
    monkeypatch.setattr("llmrec_fast.features.neighbours._DENSE_SIDE", 39)
    with pytest.raises(InvalidInput, match="rank must be at most 10"):
        knn.to_vectors(20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"collaborative": "word2vec"}, "collaborative must be one of ease"),
        ({"collaborative": "svd", "regularization": 1.0}, "svd has no regularization"),
        ({"regularization": 0.0}, "regularization of ease must be positive"),
        ({"collaborative": "item-knn", "regularization": -1.0}, "not negative"),
        ({"encoder": "minilm", "pooling": "median"}, "pooling must be one of"),
        ({"encoder": bag_of_words, "pooling": "mean"}, "pooling goes with a known model"),
        ({"encoder": None, "pooling": "mean"}, "pooling goes with a known model"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(InvalidInput, match=message):
        Recommender(**options)


def test_vectors_may_not_take_the_name_of_the_history_side():
    with pytest.raises(InvalidInput, match="learned from the interactions"):
        Recommender(None).fit(item_table(), vectors={"collaborative of histories": bag_of_words(item_table()["text"])})


def test_a_model_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(collaborating, "find_spec", lambda _: None)
    with pytest.raises(MissingDependency, match=r"llmrec-fast\[als\]"):
        check_installed("bpr")
    with pytest.raises(MissingDependency, match="scikit-learn"):
        check_installed("nmf")


def test_the_pooling_of_texts_is_saved_and_kept(tmp_path):
    model = write_model(tmp_path / "model", "bert")
    recommender = Recommender(model, pooling="max", liked_from=4).fit(item_table(), interaction_table())
    texts = ["a wine nobody knows"]
    recommender.save(tmp_path / "saved")
    loaded = Recommender.load(tmp_path / "saved")
    vectors = loaded.text_encoder.encode(texts)
    np.testing.assert_array_equal(vectors, Encoder(model, pooling="max").encode(texts))
    assert not np.allclose(vectors, Encoder(model).encode(texts))
    moved = Recommender.load(tmp_path / "saved", encoder=model)
    np.testing.assert_array_equal(moved.text_encoder.encode(texts), vectors)
    given = Recommender.load(tmp_path / "saved", encoder=Encoder(model))
    np.testing.assert_array_equal(given.text_encoder.encode(texts), Encoder(model).encode(texts))
    with Recommender.open(tmp_path / "saved") as opened:
        opened.add_items({"id": ["new"], "text": texts})
        opened.compact()
    again = Recommender.load(tmp_path / "saved")
    np.testing.assert_array_equal(again.text_encoder.encode(texts), vectors)
    centred = again._fitted().centrings["text"].apply(vectors)
    position = again._fitted().item_ids.positions(["new"])
    np.testing.assert_array_equal(again._fitted().space.vectors("text", position), centred)
