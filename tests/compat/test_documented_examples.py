"""What the libraries' documentation shows, on other texts and numbers: the calls are theirs, the values what they returned."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from llmrec_fast.compat.implicit import MatrixFactorization
from llmrec_fast.compat.sentence_transformers import SentenceTransformer, util

FILMS = [
    "A robot falls in love on an abandoned planet.",
    "Two detectives hunt a killer in a rainy city.",
    "A crew of astronauts searches for a new home.",
    "A young cook opens a restaurant in Paris.",
    "A boxer trains for the fight of his life.",
    "A chef travels through Italy to learn to cook.",
]
SENTENCES = [
    "The match ended in a draw.",
    "She bought three apples.",
    "Neither team won the match.",
    "Three apples were bought by her.",
    "The library closes at six.",
]


@pytest.fixture(scope="module")
def model() -> SentenceTransformer:
    return SentenceTransformer("sentence-transformers/all-MiniLM-L6-v2")


@pytest.mark.real
class TestSentenceTransformers:
    """With all-MiniLM-L6-v2; the values are those of sentence-transformers 6.2."""

    @pytest.mark.usefixtures("torch")
    def test_the_quickstart(self, model: SentenceTransformer) -> None:
        embeddings = model.encode(
            [
                "Rain is expected all afternoon.",
                "Take an umbrella, it will be wet.",
                "The train to Lyon leaves at noon.",
            ]
        )
        assert embeddings.shape == (3, 384)
        similarities = model.similarity(embeddings, embeddings)
        wanted = [[1, 0.47577, 0.21959], [0.47577, 1, 0.04405], [0.21959, 0.04405, 1]]
        np.testing.assert_allclose(similarities, wanted, atol=1e-5)

    def test_semantic_search(self, model: SentenceTransformer) -> None:
        corpus, queries = model.encode(FILMS), ["A film about spaceships", "Something with food and cooking"]
        found = util.semantic_search(model.encode(queries), corpus, top_k=3)
        assert [[hit["corpus_id"] for hit in hits] for hits in found] == [[2, 0, 4], [5, 3, 4]]
        scores = [[hit["score"] for hit in hits] for hits in found]
        np.testing.assert_allclose(scores, [[0.30071, 0.22802, 0.15584], [0.4776, 0.41055, 0.08423]], atol=1e-5)

    def test_paraphrases_and_communities(self, model: SentenceTransformer) -> None:
        pairs = util.paraphrase_mining(model, SENTENCES)
        assert [pair[1:] for pair in pairs[:3]] == [[1, 3], [0, 2], [1, 2]]
        np.testing.assert_allclose([pair[0] for pair in pairs[:3]], [0.96633, 0.64773, 0.07528], atol=1e-5)
        communities = util.community_detection(model.encode(SENTENCES), threshold=0.5, min_community_size=2)
        assert communities == [[0, 2], [1, 3]]


@pytest.mark.filterwarnings("ignore:OpenBLAS is configured")
def test_implicit_trains_and_the_shim_answers_alike() -> None:
    """The library's quick start, with its own model beside the shim: a user, a batch of users, items like an item."""
    als = pytest.importorskip("implicit.als")
    rng = np.random.default_rng(0)
    plays = csr_matrix(rng.poisson(0.3, (60, 90)).astype(np.float32))
    theirs = als.AlternatingLeastSquares(factors=8, regularization=0.05, alpha=2.0, use_gpu=False, random_state=1)
    theirs.fit(plays, show_progress=False)
    ours = MatrixFactorization.from_factors(
        theirs.user_factors, theirs.item_factors, regularization=theirs.regularization, alpha=theirs.alpha
    )
    everyone = np.arange(60)
    for call in (
        lambda model: model.recommend(7, plays[7]),
        lambda model: model.recommend(7, plays[7], N=5, filter_already_liked_items=False),
        lambda model: model.recommend(everyone, plays[everyone], N=20, filter_items=[1, 2, 3]),
        lambda model: model.recommend(7, plays[7], items=[4, 8, 15, 16, 23, 42]),
        lambda model: model.similar_items(11),
        lambda model: model.similar_users(everyone, N=4),
    ):
        (ids, scores), (wanted, values) = call(ours), call(theirs)
        np.testing.assert_array_equal(ids, wanted)
        np.testing.assert_allclose(scores, values, rtol=1e-4, atol=1e-6)
    fitted = ours.recalculate_user(7, plays[7])
    np.testing.assert_allclose(fitted, theirs.recalculate_user(7, plays[7]), rtol=1e-3, atol=1e-5)
