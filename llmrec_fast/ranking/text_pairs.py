"""Reorder the candidates of a text search by a score of (query, document) pairs, such as a cross-encoder's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from llmrec_fast.arrays import ArrayLike, Float64Array, Int64Array, as_count, as_vector
from llmrec_fast.errors import InvalidInput


@dataclass(frozen=True)
class TextReranker:
    """The stage after a text search.

    Attributes
    ----------
    score : (query, document) pairs to one number each, higher for better, as `CrossEncoder.predict` does.
    candidates : how many of the items found are reordered; never fewer than are asked for. Each costs a pair a query.

    Raises
    ------
    InvalidInput : `score` that cannot be called, candidates below 1.
    """

    score: Callable[[list[tuple[str, str]]], ArrayLike]
    candidates: int = 50

    def __post_init__(self) -> None:
        if not callable(self.score):
            raise InvalidInput(
                f"score must be a callable from pairs of texts to numbers, such as CrossEncoder(...).predict; got "
                f"{type(self.score).__name__}"
            )
        as_count(self.candidates, "candidates")

    def order(
        self, queries: Sequence[str], candidates: Int64Array, text_of: Callable[[int], str]
    ) -> tuple[Int64Array, Float64Array]:
        """Reorder each query's candidates.

        Parameters
        ----------
        queries : a text a row.
        candidates : (queries, c) positions of items, -1 where there is none.
        text_of : the text of the item at a position.

        Returns
        -------
        (queries, c) candidates, best first, ties in the order given, and their scores; -1 and -inf at the end.

        Raises
        ------
        InvalidInput : `score` returned something other than a finite number for each pair.
        """
        rows, columns = np.nonzero(candidates >= 0)
        positions = candidates[rows, columns].tolist()
        texts = {position: text_of(position) for position in dict.fromkeys(positions)}
        pairs = [(queries[row], texts[position]) for row, position in zip(rows.tolist(), positions, strict=True)]
        scores = np.full(candidates.shape, -np.inf)
        if pairs:
            scores[rows, columns] = as_vector(self.score(pairs), "the result of score", length=len(pairs))
        order = np.argsort(-scores, axis=1, kind="stable")
        return np.take_along_axis(candidates, order, axis=1), np.take_along_axis(scores, order, axis=1)
