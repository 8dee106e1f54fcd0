import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec_fast.errors import InvalidInput
from llmrec_fast.features import Fusion, HistoryWeighting, user_vectors


def cosine(left, right):
    norm = np.linalg.norm(left) * np.linalg.norm(right)
    return float(left @ right / norm) if norm else 0.0


def random_vectors(seed, rows, **widths):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((rows, width)).astype(np.float32) for name, width in widths.items()}


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(0, 10), st.floats(0.01, 10))
def test_inner_product_is_the_weighted_sum_of_cosines(seed, text_weight, behaviour_weight):
    fusion = Fusion({"text": text_weight, "behaviour": behaviour_weight})
    users, items = (random_vectors(seed + side, 6, text=5, behaviour=3) for side in (0, 1))
    scores = fusion.fuse(users).astype(np.float64) @ fusion.fuse(items).T.astype(np.float64)
    for u in range(6):
        for i in range(6):
            expected = text_weight * cosine(users["text"][u], items["text"][i])
            expected += behaviour_weight * cosine(users["behaviour"][u], items["behaviour"][i])
            np.testing.assert_allclose(scores[u, i], expected, atol=1e-5)


def test_dot_features_keep_their_length():
    fusion = Fusion({"text": 2.0, "behaviour": 3.0}, dot={"behaviour"})
    users, items = random_vectors(0, 4, text=5, behaviour=3), random_vectors(1, 4, text=5, behaviour=3)
    scores = np.einsum("nd,nd->n", fusion.fuse(users), fusion.fuse(items))
    expected = [
        2 * cosine(users["text"][n], items["text"][n]) + 3 * float(users["behaviour"][n] @ items["behaviour"][n])
        for n in range(4)
    ]
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dot", [set(), {"behaviour"}, {"behaviour", "text"}])
def test_contributions_by_feature_sum_to_the_score(dot):
    fusion = Fusion({"text": 0.3, "behaviour": 1.0}, dot=frozenset(dot))
    users, items = random_vectors(2, 9, text=5, behaviour=3), random_vectors(3, 9, text=5, behaviour=3)
    users["text"][4] = 0
    parts = fusion.contributions(users, items)
    scores = np.einsum("nd,nd->n", fusion.fuse(users).astype(np.float64), fusion.fuse(items).astype(np.float64))
    np.testing.assert_allclose(sum(parts.values()), scores, atol=1e-6)
    assert parts["text"][4] == 0


@pytest.mark.parametrize("dot", [set(), {"behaviour"}])
def test_contributions_by_history_item_sum_to_the_score(dot):
    fusion = Fusion({"text": 0.3, "behaviour": 1.0}, dot=frozenset(dot))
    items = random_vectors(4, 20, text=5, behaviour=3)
    history = np.array([3, 7, 1, 19])
    indptr = [0, 4]
    weights = HistoryWeighting(decay=2.0).weights(indptr)
    user = {name: user_vectors(vectors, indptr, history, weights) for name, vectors in items.items()}
    parts = fusion.explain_history(
        {name: vectors[history] for name, vectors in items.items()},
        weights,
        {name: vectors[10] for name, vectors in items.items()},
    )
    score = fusion.fuse(user)[0].astype(np.float64) @ fusion.fuse(items)[10].astype(np.float64)
    assert {name: part.shape for name, part in parts.items()} == {"text": (4,), "behaviour": (4,)}
    np.testing.assert_allclose(sum(part.sum() for part in parts.values()), score, atol=1e-6)


def test_a_feature_that_knows_nothing_of_an_item_contributes_nothing():
    fusion = Fusion({"text": 1.0, "behaviour": 1.0})
    history = {"text": np.ones((2, 3)), "behaviour": np.zeros((2, 3))}
    parts = fusion.explain_history(history, [1, 1], {"text": np.ones(3), "behaviour": np.ones(3)})
    np.testing.assert_array_equal(parts["behaviour"], 0)
    np.testing.assert_allclose(parts["text"].sum(), 1)


def test_features_of_no_weight_are_left_out():
    fusion = Fusion({"text": 0, "behaviour": 2})
    assert fusion.features == ("behaviour",)
    assert fusion.fuse({"behaviour": [[3.0, 4.0]]}).shape == (1, 2)


def test_weights_cannot_be_changed_afterwards():
    weights = {"text": 1.0}
    fusion = Fusion(weights)
    weights["text"] = 5.0
    assert fusion.weights["text"] == 1
    with pytest.raises(TypeError):
        fusion.weights["text"] = 2


FUSION = Fusion({"text": 1.0, "behaviour": 1.0})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Fusion({"text": -1}), "not negative"),
        (lambda: Fusion({"text": np.inf}), "finite"),
        (lambda: Fusion({"text": 0}), "positive weight"),
        (lambda: Fusion({}), "positive weight"),
        (lambda: Fusion({"text": 1}, dot={"texts"}), "dot names texts"),
        (lambda: FUSION.fuse({"text": [[1.0]]}), "no vectors for the feature behaviour; got text"),
        (lambda: FUSION.fuse({"text": [[1.0]], "behaviour": [[1.0], [2.0]]}), "as many rows"),
        (lambda: FUSION.fuse({"text": [[np.nan]], "behaviour": [[1.0]]}), "text holds NaN in row 0"),
        (
            lambda: FUSION.contributions(
                {"text": [[1.0]], "behaviour": [[1.0]]}, {"text": [[1.0, 2.0]], "behaviour": [[1.0]]}
            ),
            "text: users have shape",
        ),
        (
            lambda: FUSION.explain_history(
                {"text": [[1.0]], "behaviour": [[1.0]]}, [1], {"text": [1.0, 2.0], "behaviour": [1.0]}
            ),
            "history has 1 columns where the item has 2",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InvalidInput, match=message):
        call()
