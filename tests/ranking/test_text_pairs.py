"""`TextReranker`: candidates in the order of the pairs' scores, one call for all queries, bad scores refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llmrec_fast.errors import InvalidInput
from llmrec_fast.ranking import TextReranker

ITEMS = ["red wine", "claw hammer", "white wine", "hand saw", "red saw"]


def shared_words(pairs: list[tuple[str, str]]) -> list[float]:
    return [float(len(set(first.split()) & set(second.split()))) for first, second in pairs]


def test_candidates_are_reordered_and_ties_keep_their_order() -> None:
    candidates = np.array([[3, 1, 0, 4], [2, 0, -1, -1]])
    order, scores = TextReranker(shared_words).order(["red wine", "white wine"], candidates, ITEMS.__getitem__)
    assert order.tolist() == [[0, 4, 3, 1], [2, 0, -1, -1]]
    assert scores.tolist() == [[2.0, 1.0, 0.0, 0.0], [2.0, 1.0, -np.inf, -np.inf]]


def test_all_pairs_are_scored_in_one_call_and_a_text_is_read_once() -> None:
    calls: list[list[tuple[str, str]]] = []
    read: list[int] = []

    def score(pairs: list[tuple[str, str]]) -> list[float]:
        calls.append(pairs)
        return shared_words(pairs)

    def text_of(position: int) -> str:
        read.append(position)
        return ITEMS[position]

    TextReranker(score).order(["a", "b"], np.array([[0, -1], [0, 1]]), text_of)
    assert calls == [[("a", "red wine"), ("b", "red wine"), ("b", "claw hammer")]]
    assert read == [0, 1]


def test_no_candidates_need_no_scores() -> None:
    order, scores = TextReranker(lambda pairs: [1 / 0]).order(["a"], np.full((1, 2), -1), ITEMS.__getitem__)
    assert order.tolist() == [[-1, -1]]
    assert not np.isfinite(scores).any()


@pytest.mark.parametrize("result", [[1.0], [1.0, np.nan], [[1.0, 2.0]], [[1.0], [2.0]]])
def test_scores_that_are_not_one_finite_number_a_pair_are_refused(result: Any) -> None:
    with pytest.raises(InvalidInput, match="the result of score"):
        TextReranker(lambda pairs: result).order(["a"], np.array([[0, 1]]), ITEMS.__getitem__)


def test_bad_options_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"callable.*CrossEncoder"):
        TextReranker("cross-encoder")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="candidates must be at least 1"):
        TextReranker(shared_words, candidates=0)
