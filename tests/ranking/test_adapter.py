"""Adapter towers: what training learns, that it repeats, and that what is served is what was trained, without torch."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from llmrec_fast.errors import CorruptFile, InvalidInput, MissingDependency
from llmrec_fast.ranking.adapter import AdapterSettings, Attention, Tower, fit_adapter
from llmrec_fast.ranking.adapter.towers import attention_model, tower_model

pytest.importorskip("onnxruntime")
# one of six interactions is held out: the partner of the one before
FAST = AdapterSettings(
    dimension=16, hidden=16, smoothing=0, epochs=15, batch=64, learning_rate=0.02, dropout=0.0, validation=0.1
)


def world(users: int = 80, seed: int = 0):
    """Items of two halves; a user who takes one of the first half takes its partner of the second half next."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(20, 12)).astype(np.float32)
    firsts = np.stack([rng.permutation(10)[:3] for _ in range(users)])
    items = np.stack([firsts, firsts + 10], axis=2).reshape(users, 6)
    indptr = np.arange(users + 1) * 6
    return {"text": vectors}, indptr, items.ravel(), np.ones(users * 6, np.float32), np.ones(users * 6, bool)


@pytest.fixture(scope="module")
def adapter():
    pytest.importorskip("torch")
    return fit_adapter(*world(), FAST, threads=1)


def test_a_linear_tower_is_its_matrix_normalised_and_a_zero_row_stays_zero():
    weight, bias = np.array([[3.0, 0], [0, 4.0]], np.float32), np.array([0, 1.0], np.float32)
    tower = Tower(tower_model([(weight, bias)]))
    np.testing.assert_allclose(tower([[1, 0.75], [0, 0]]), [[0.6, 0.8], [0, 0]], rtol=1e-6)
    assert tower(np.zeros((0, 2))).shape == (0, 2)


def test_hidden_layers_are_leaky():
    one = np.ones((1, 1), np.float32)
    tower = Tower(tower_model([(one, np.zeros(1, np.float32)), (np.array([[1.0], [0]], np.float32), one[0].repeat(2))]))
    output = tower([[-1.0]])[0]
    np.testing.assert_allclose(output, np.array([0.99, 1]) / np.hypot(0.99, 1), rtol=1e-6)


def test_attention_weighs_by_match_and_age():
    query, age = np.eye(2, dtype=np.float32), np.array([0, -1.0], np.float32)
    vectors = np.array([[1.0, 0], [0, 1], [1, 0]], np.float32)  # old to new
    weights = Attention(attention_model(query, query, age)).weights(vectors)
    expected = np.exp([1 - 1.0, 0 - 1.0, 1.0])
    np.testing.assert_allclose(weights, expected / expected.sum(), rtol=1e-6)


def test_bytes_that_are_no_model_are_refused():
    with pytest.raises(CorruptFile, match="cannot load the adapter tower"):
        Tower(b"nothing")


def test_it_learns_what_follows_what(adapter):
    scores = adapter.history_vectors[:10] @ adapter.item_vectors.T
    np.fill_diagonal(scores, -np.inf)
    assert (scores.argmax(axis=1) == np.arange(10, 20)).mean() >= 0.9


def test_served_towers_equal_trained_ones_and_a_new_item_gets_its_vector_from_its_features(adapter):
    features = world()[0]
    plain = fit_adapter(*world(), AdapterSettings(dimension=8, hidden=8, epochs=2, smoothing=0, dropout=0.0), threads=1)
    items, histories = plain.adapt(features, 20)
    np.testing.assert_allclose(items, plain.item_vectors, atol=1e-5)
    np.testing.assert_allclose(histories, plain.history_vectors, atol=1e-5)
    new, _ = adapter.adapt({"text": features["text"][:1]}, 1)
    np.testing.assert_allclose(np.linalg.norm(new), 1, rtol=1e-5)
    with pytest.raises(InvalidInput, match="shape"):
        adapter.adapt({"text": np.ones((1, 3), np.float32)}, 1)


@pytest.mark.parametrize("sequential", [False, True])
def test_the_same_seed_gives_the_same_vectors_and_leaves_torch_as_it_was(sequential):
    torch = pytest.importorskip("torch")
    settings = AdapterSettings(dimension=8, hidden=0, epochs=2, sequential=sequential, recent=4)
    before = torch.random.get_rng_state()
    first = fit_adapter(*world(), settings, threads=1)
    assert torch.equal(before, torch.random.get_rng_state())
    np.testing.assert_array_equal(first.item_vectors, fit_adapter(*world(), settings, threads=1).item_vectors)
    other = fit_adapter(*world(), AdapterSettings(dimension=8, hidden=0, epochs=2, recent=4, seed=1), threads=1)
    assert not np.allclose(first.item_vectors, other.item_vectors)


def test_attention_learns_that_the_latest_item_decides():
    pytest.importorskip("torch")
    settings = AdapterSettings(
        dimension=16,
        hidden=0,
        smoothing=0,
        epochs=15,
        batch=64,
        learning_rate=0.02,
        sequential=True,
        recent=6,
        validation=0.1,
    )
    trained = fit_adapter(*world(), settings, threads=1)
    weights = trained.attention.weights(trained.history_vectors[[3, 13, 5]])
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-5)
    assert weights.argmax() == 2


def test_training_stops_early_and_reports_the_quality(adapter):
    assert 1 <= adapter.epochs <= FAST.epochs
    assert 0 < adapter.quality <= 1


def test_items_nobody_chose_are_no_wrong_answers():
    pytest.importorskip("torch")
    features, *behaviour = world()
    doubled = {"text": np.concatenate([features["text"], features["text"]])}
    trained = fit_adapter(
        doubled, *behaviour, AdapterSettings(dimension=16, hidden=16, epochs=8, smoothing=0), threads=1
    )
    np.testing.assert_allclose(trained.item_vectors[20:], trained.item_vectors[:20], atol=1e-5)


def test_a_sample_of_candidates_trains_too():
    pytest.importorskip("torch")
    settings = replace(FAST, candidates=5)
    trained = fit_adapter(*world(), settings, threads=1)
    scores = trained.history_vectors[:10] @ trained.item_vectors.T
    np.fill_diagonal(scores, -np.inf)
    assert (scores.argmax(axis=1) == np.arange(10, 20)).mean() >= 0.7


def test_learned_inputs_are_learned_from_what_training_sees_and_help_where_text_says_nothing():
    pytest.importorskip("torch")
    features, indptr, items, strengths, liked = world()
    silent = {"text": np.tile(features["text"][:1], (20, 1))}
    seen = []

    def learn(part_indptr, part_items, part_strengths):
        assert part_indptr[-1] == len(part_items) == len(part_strengths)
        seen.append(part_items)
        return np.eye(20, dtype=np.float32)

    settings = replace(FAST, masking=0.0)
    trained = fit_adapter(silent, indptr, items, strengths, liked, settings, learned={"who": learn}, threads=1)
    early = np.arange(len(items)) % 6 < 5  # one of six interactions is held out
    np.testing.assert_array_equal(seen[0], items[early])
    np.testing.assert_array_equal(seen[1], items)
    assert dict(trained.widths) == {"text": 12, "who": 20}
    scores = trained.history_vectors[:10] @ trained.item_vectors.T
    np.fill_diagonal(scores, -np.inf)
    assert (scores.argmax(axis=1) == np.arange(10, 20)).mean() >= 0.9
    deaf = fit_adapter(silent, indptr, items, strengths, liked, settings, threads=1)
    assert np.ptp(deaf.item_vectors, axis=0).max() < 1e-5


def test_masking_teaches_towers_to_do_with_text_alone():
    pytest.importorskip("torch")
    features, *behaviour = world()
    learned = {"who": lambda *_: np.eye(20, dtype=np.float32)}

    def share_found(masking):
        trained = fit_adapter(features, *behaviour, replace(FAST, masking=masking), learned=learned, threads=1)
        items, histories = trained.adapt(features, 20)  # as if all of them were new
        scores = histories[:10] @ items.T
        np.fill_diagonal(scores, -np.inf)
        return (scores.argmax(axis=1) == np.arange(10, 20)).mean()

    assert share_found(0.5) >= 0.9
    assert share_found(0.5) >= share_found(0.0)


def test_without_torch_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependency, match=r"llmrec-fast\[train\]"):
        fit_adapter(*world(), FAST)


def test_bad_input():
    pytest.importorskip("torch")
    features, indptr, items, strengths, liked = world()
    with pytest.raises(InvalidInput, match="no liked interaction comes after"):
        fit_adapter(features, indptr, items, strengths, ~liked, FAST)
    with pytest.raises(InvalidInput, match="at least one feature"):
        fit_adapter({}, indptr, items, strengths, liked, FAST)
    with pytest.raises(InvalidInput, match="temperature must be a positive"):
        AdapterSettings(temperature=0)
    with pytest.raises(InvalidInput, match="dropout must lie"):
        AdapterSettings(dropout=1)
    with pytest.raises(InvalidInput, match="masking must lie"):
        AdapterSettings(masking=1.5)
    with pytest.raises(InvalidInput, match="'text' is both given and learned"):
        fit_adapter(features, indptr, items, strengths, liked, FAST, learned={"text": lambda *_: features["text"]})
