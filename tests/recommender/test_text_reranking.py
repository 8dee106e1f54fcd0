"""A text search whose candidates are read again beside the text, by any scorer and by a small cross-encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llmrec_fast import CrossEncoder, Recommender, TextReranker
from llmrec_fast.errors import InvalidInput
from tests.encoding.test_cross_encoder import write_scorer
from tests.recommender.conftest import TOOLS, WINES

TEXTS = WINES + TOOLS


def length_of_document(pairs: list[tuple[str, str]]) -> list[int]:
    return [len(document) for _, document in pairs]


def test_what_was_found_is_reordered_by_the_pairs(fitted: Recommender) -> None:
    found = fitted.recommend_for_text(["wine", "tool"], k=5)
    reranked = fitted.recommend_for_text(["wine", "tool"], k=5, reranker=TextReranker(length_of_document, candidates=5))
    for before, after in zip(found, reranked, strict=True):
        assert {item for item, _ in before} == {item for item, _ in after}
        lengths = [len(fitted.title(item)) for item, _ in after]
        assert lengths == sorted(lengths, reverse=True)
        assert [score for _, score in after] == lengths


def test_more_candidates_are_read_than_are_asked_for(fitted: Recommender) -> None:
    """The best for the reranker need not be among the first k of the search."""
    one = fitted.recommend_for_text("wine", k=1, reranker=TextReranker(length_of_document, candidates=5))
    assert [item for item, _ in one[0]] == ["i4"]  # sparkling wine


def test_what_the_reranker_reads_may_be_chosen(fitted: Recommender) -> None:
    seen: list[tuple[str, str]] = []

    def score(pairs: list[tuple[str, str]]) -> list[float]:
        seen.extend(pairs)
        return [float(document == "text of i2") for _, document in pairs]

    found = fitted.recommend_for_text(
        "wine", k=2, exclude=["i0"], reranker=TextReranker(score, 4), text_of=lambda item: f"text of {item}"
    )
    assert found[0][0][0] == "i2"
    assert len(seen) == 4
    assert ("wine", "text of i0") not in seen
    with pytest.raises(InvalidInput, match="give reranker as well"):
        fitted.recommend_for_text("wine", text_of=str)


def test_diversity_comes_after_the_reranker(fitted: Recommender) -> None:
    reranker = TextReranker(length_of_document, candidates=10)
    found = fitted.recommend_for_text("wine", k=2, diversity=0.5, reranker=reranker)
    longest = max(TEXTS, key=len)
    assert fitted.title(found[0][0][0]) == longest.title()


def test_a_cross_encoder_is_such_a_scorer(fitted: Recommender, tmp_path: Path) -> None:
    scorer = CrossEncoder(write_scorer(tmp_path))
    query = "the movie about bread"
    found = fitted.recommend_for_text(
        query, k=10, reranker=TextReranker(scorer.predict), text_of=lambda item: TEXTS[int(str(item)[1:])]
    )
    order, scores = scorer.rank(query, TEXTS)
    assert [score for _, score in found[0]] == pytest.approx(scores.tolist(), abs=1e-6)
    expected = dict(zip((f"i{place}" for place in order), scores, strict=True))
    np.testing.assert_allclose([expected[item] for item, _ in found[0]], scores, atol=1e-6)
