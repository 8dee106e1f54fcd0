"""Pair features against their definitions, written out with dense matrices in float64."""

import numpy as np
import pytest

from llmrec_fast.features import PairFeatures, PairHistories, count_transitions, fit_ease, transition_matrix

N_ITEMS = 12
DAY = 86400.0


def some_histories(users=20, seed=0, n_items=N_ITEMS):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 7, users)
    indptr = np.concatenate(([0], np.cumsum(sizes)))
    items = np.concatenate([rng.permutation(n_items)[:size] for size in sizes])
    liked = rng.random(len(items)) < 0.7
    times = np.concatenate([np.sort(rng.integers(0, 10**6, size)) for size in sizes]).astype(np.float64)
    return PairHistories(indptr, items, liked, times[indptr[1:] - 1]), times


@pytest.fixture(scope="module")
def world():
    histories, times = some_histories()
    vectors = {"text": np.random.default_rng(1).standard_normal((N_ITEMS, 4)).astype(np.float32)}
    return histories, times, vectors, PairFeatures.fit(histories, times, ["text"], N_ITEMS)


def column(pairs, features, name):
    return features[:, pairs.names.index(name)]


def history_matrix(histories, decay, liked_only):
    matrix = np.zeros((len(histories), N_ITEMS))
    for user in range(len(histories)):
        part = slice(histories.indptr[user], histories.indptr[user + 1])
        items = histories.items[part][histories.liked[part]] if liked_only else histories.items[part]
        for age, item in enumerate(items[::-1]):
            matrix[user, item] = 1 if decay is None else np.exp(-age / decay)
    return matrix


def places_of(histories):
    """For every item the shares of a history before it, and the logs of how much that was."""
    shares, befores = [[] for _ in range(N_ITEMS)], [[] for _ in range(N_ITEMS)]
    for start, end in zip(histories.indptr, histories.indptr[1:], strict=False):
        for place, item in enumerate(histories.items[start:end]):
            shares[item].append(place / max(end - start - 1, 1))
            befores[item].append(np.log1p(place))
    return shares, befores


def test_every_column_is_what_its_name_says(world):
    histories, times, vectors, pairs = world
    candidates = np.tile(np.arange(N_ITEMS), (len(histories), 1))
    features = pairs.compute(histories, candidates, vectors)
    assert features.shape == (len(histories) * N_ITEMS, len(pairs.names))
    assert features.dtype == np.float32
    likes, choices = history_matrix(histories, None, True), history_matrix(histories, None, False)
    expected = {}
    ease = fit_ease(_csr(likes), N_ITEMS, regularization=100.0)
    expected["EASE of likes"] = likes @ ease.history_vectors @ ease.item_vectors.T
    ease = fit_ease(_csr(choices), N_ITEMS, regularization=300.0)
    expected["EASE of choices, recency 3"] = (
        history_matrix(histories, 3.0, False) @ ease.history_vectors @ ease.item_vectors.T
    )
    counts = count_transitions(
        histories.indptr, histories.items, N_ITEMS, histories.liked.astype(np.float32), window=5, decay=3.0
    )
    transitions = transition_matrix(counts, shrinkage=5.0, popularity=0.5).toarray()
    expected["transitions, recency 5"] = history_matrix(histories, 5.0, False) @ transitions
    counts = count_transitions(
        histories.indptr, histories.items, N_ITEMS, histories.liked.astype(np.float32), window=30, decay=10.0
    )
    recent = history_matrix(histories, 20.0, False)
    expected["wide transitions, recency 20"] = recent @ transition_matrix(counts, shrinkage=5.0, popularity=0.5)
    expected["backward transitions, recency 20"] = recent @ transition_matrix(counts.T, shrinkage=5.0, popularity=0.5)
    directions = likes / np.maximum(np.linalg.norm(likes, axis=0), 1)
    expected["neighbours, recency 10"] = history_matrix(histories, 10.0, True) @ directions.T @ directions
    profile = history_matrix(histories, 20.0, True) @ vectors["text"]
    norms = np.linalg.norm(profile, axis=1, keepdims=True)
    unit = np.divide(profile, norms, out=np.zeros_like(profile), where=norms > 0)
    texts = vectors["text"] / np.linalg.norm(vectors["text"], axis=1, keepdims=True)
    expected["cosine of text, recency 20"] = unit @ texts.T
    expected["user's choices"] = np.repeat(np.log1p(choices.sum(axis=1))[:, None], N_ITEMS, axis=1)
    expected["likes"] = np.repeat(np.log1p(likes.sum(axis=0))[None], len(histories), axis=0)
    first = np.array([times[histories.items == item].min(initial=np.inf) for item in range(N_ITEMS)])
    gaps = (histories.latest[:, None] - first) / DAY
    expected["days since first"] = np.where(np.isfinite(gaps), gaps, 0)
    shares, befores = places_of(histories)
    shrunk = [(sum(values) + 5 * 0.5) / (len(values) + 5) for values in shares]
    expected["usual place"] = np.tile(shrunk, (len(histories), 1))
    middle = np.mean(np.concatenate(befores))
    usual = np.array([(sum(values) + 5 * middle) / (len(values) + 5) if values else np.nan for values in befores])
    still = usual - np.log1p(np.diff(histories.indptr))[:, None]
    expected["still to its place"] = np.where(np.isfinite(still), still, 0)
    for name, matrix in expected.items():
        np.testing.assert_allclose(column(pairs, features, name), matrix.ravel(), atol=2e-5, err_msg=name)


def _csr(matrix):
    from scipy.sparse import csr_matrix

    return csr_matrix(matrix)


def test_candidates_pick_from_the_whole(world):
    histories, _, vectors, pairs = world
    everything = pairs.compute(histories, np.tile(np.arange(N_ITEMS), (len(histories), 1)), vectors)
    chosen = np.array([[3, -1, 7]] * len(histories))
    found = pairs.compute(histories, chosen, vectors).reshape(len(histories), 3, -1)
    whole = everything.reshape(len(histories), N_ITEMS, -1)
    np.testing.assert_allclose(found[:, [0, 2]], whole[:, [3, 7]], atol=1e-6)
    assert not found[:, 1].any()


def test_a_new_item_is_one_that_nobody_chose(world):
    histories, _, vectors, pairs = world
    grown = {"text": np.concatenate([vectors["text"], vectors["text"][:1]])}
    known, new = (pairs.compute(histories, np.full((len(histories), 1), item), grown) for item in (0, N_ITEMS))
    for name in pairs.names:
        if name.startswith(("cosine", "user")):
            np.testing.assert_array_equal(column(pairs, new, name), column(pairs, known, name))
    assert not column(pairs, new, "EASE of likes").any()
    assert not column(pairs, new, "likes").any()
    assert (column(pairs, new, "share of likes") == 0.5).all()
    assert (column(pairs, new, "usual place") == 0.5).all()
    assert not column(pairs, new, "still to its place").any()
    after = PairHistories(np.array([0, 2]), np.array([3, N_ITEMS]), np.array([True, True]), np.array([np.nan]))
    assert np.isfinite(pairs.compute(after, np.array([[0, 1]]), grown)).all()


def test_another_order_of_the_catalogue_changes_nothing(world):
    histories, _, vectors, pairs = world
    order = np.array([5, 3, 11, N_ITEMS + 2, 0, 1, 2, 4])  # some left out, one that came after the fit
    moved = np.full(N_ITEMS + 3, -1)
    moved[order] = np.arange(len(order))
    kept = moved[histories.items] >= 0
    before = np.concatenate(([0], np.cumsum(kept)))
    items = histories.items[kept]
    here = PairHistories(before[histories.indptr], items, histories.liked[kept], histories.latest)
    there = PairHistories(before[histories.indptr], moved[items], histories.liked[kept], histories.latest)
    grown = np.concatenate([vectors["text"], np.ones((3, 4), np.float32)])
    candidates = np.array([[5, 0, N_ITEMS + 2]] * len(histories))
    np.testing.assert_allclose(
        pairs.take(order).compute(there, moved[candidates], {"text": grown[order]}),
        pairs.compute(here, candidates, {"text": grown}),
        atol=1e-5,
    )


def test_rows_say_where_vectors_are(world):
    histories, _, vectors, pairs = world
    candidates = np.array([[3, 7]] * len(histories))
    shuffled = np.random.default_rng(2).permutation(N_ITEMS)
    row_of = np.argsort(shuffled)
    np.testing.assert_allclose(
        pairs.compute(histories, candidates, {"text": vectors["text"][shuffled]}, row_of),
        pairs.compute(histories, candidates, vectors),
        atol=1e-6,
    )
