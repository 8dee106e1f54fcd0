"""What a recommender answers with: plain arrays in frozen dataclasses, with the caller's ids on top."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import Float64Array, Int64Array
from llmrec_fast.ids import IdTable, json_id


@dataclass(frozen=True)
class Recommendations:
    """The k best items of each query, best first.

    `recommendations[row]` and iteration give lists of (item id, score) without the padding.

    Attributes
    ----------
    positions : (queries, k) int64 positions in the catalogue, -1 where fewer than k items were allowed. This is what
        `llmrec_fast.evaluate` takes.
    scores : (queries, k) float64, -inf where there is no item.
    item_ids : the catalogue's ids.
    """

    positions: Int64Array
    scores: Float64Array
    item_ids: IdTable = field(repr=False)

    @cached_property
    def items(self) -> npt.NDArray[np.object_]:
        """(queries, k) the caller's item ids, None where there is no item."""
        return self.item_ids.at(self.positions)

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, row: int) -> list[tuple[Hashable, float]]:
        known = self.positions[row] >= 0
        return list(zip(self.items[row, known].tolist(), self.scores[row, known].tolist(), strict=True))

    def __iter__(self) -> Iterator[list[tuple[Hashable, float]]]:
        return (self[row] for row in range(len(self)))


@dataclass(frozen=True)
class HistoryContribution:
    """What one item of a user's history adds to a score."""

    item: Hashable
    total: float
    by_feature: dict[str, float]


@dataclass(frozen=True)
class Explanation:
    """A score taken apart without remainder.

    `score` is the sum of `features`; each feature but the prior ("popularity") is the sum of `history` over that feature, up
    to float32 rounding (1e-6).

    Attributes
    ----------
    user, item : the caller's ids.
    score : what `recommend` retrieves by, and ranks by where there is no reranker.
    features : contribution by feature.
    history : contribution by item of the user's history, largest first.
    reranking : what each pair feature adds to the score that the reranker orders by, from the average on: their sum is that
        score. Empty where there is no reranker.
    """

    user: Hashable
    item: Hashable
    score: float
    features: dict[str, float]
    history: list[HistoryContribution]
    reranking: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dictionary; ids become strings unless they are strings or integers already."""
        return {
            "user": json_id(self.user),
            "item": json_id(self.item),
            "score": self.score,
            "features": self.features,
            "history": [
                {"item": json_id(part.item), "total": part.total, "by_feature": part.by_feature}
                for part in self.history
            ],
            "reranking": self.reranking,
        }
