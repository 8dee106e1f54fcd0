"""Judgments and rankings side by side as flat arrays: each retrieved document's gain, each query's ideal list."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmrec_fast.arrays import BoolArray, Float64Array, Int64Array
from llmrec_fast.errors import InvalidInput

Scores = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Lists:
    """One ordered list a query, end to end.

    Attributes
    ----------
    query, rank : (entries,) number of the query and place in its list, from 0.
    gains : (entries,) float64: the relevance judgment, NaN where there is none.
    lengths : (queries,) entries of each query.
    """

    query: Int64Array
    rank: Int64Array
    gains: Float64Array
    lengths: Int64Array

    @classmethod
    def of(cls, lists: Sequence[Sequence[float]]) -> Lists:
        """Lists of gains."""
        lengths = np.array([len(gains) for gains in lists], np.int64)
        flat = np.fromiter((gain for gains in lists for gain in gains), np.float64, int(lengths.sum()))
        query = np.repeat(np.arange(len(lists)), lengths)
        starts = np.cumsum(lengths) - lengths
        return cls(query, np.arange(len(flat)) - starts[query], flat, lengths)

    def within(self, k: int) -> BoolArray:
        """Which entries are among the first k of their list; k = 0: all."""
        return self.rank < k if k else np.ones(len(self.rank), bool)

    def sum(self, values: Float64Array | BoolArray) -> Float64Array:
        """(queries,) sum of one value an entry over each query."""
        return np.bincount(self.query, weights=values, minlength=len(self.lengths)).astype(np.float64)


@dataclass(frozen=True)
class Judged:
    """`retrieved`: a run's lists with the gains of their documents; `judged`: all judgments of a query, greatest first."""

    retrieved: Lists
    judged: Lists

    @classmethod
    def of(cls, judgments: Scores, rankings: Scores) -> Judged:
        """Queries in the order of their ids; each ranking is ordered already.

        Raises
        ------
        InvalidInput : the two have different queries.
        """
        if judgments.keys() != rankings.keys():
            missing = sorted(judgments.keys() ^ rankings.keys())
            raise InvalidInput(
                f"qrels and run must have the same queries; {missing[0]!r} is in one of them only. make_comparable=True adds "
                "empty results for queries that the run lacks and drops those that qrels lacks"
            )
        queries = sorted(judgments)
        gains = [[judgments[query].get(doc, np.nan) for doc in rankings[query]] for query in queries]
        ideal = [sorted(judgments[query].values(), reverse=True) for query in queries]
        return cls(Lists.of(gains), Lists.of(ideal))

    @classmethod
    def of_arrays(cls, judgments: Collection[Any], rankings: Collection[Any]) -> Judged:
        """Of one (documents, 2) array a query, ids in the first column: gains beside them, or scores in falling order.

        Raises
        ------
        InvalidInput : the two have different numbers of queries, or an array another shape.
        """
        if len(judgments) != len(rankings):
            raise InvalidInput(f"qrels and run must have the same queries; got {len(judgments)} and {len(rankings)}")
        tables = []
        for arrays in (judgments, rankings):
            plain = [np.asarray(array) for array in arrays]
            if wrong := [array.shape for array in plain if array.ndim != 2 or array.shape[1] != 2]:
                raise InvalidInput(f"arrays of a query's documents must have the shape (documents, 2); got {wrong[0]}")
            tables.append([dict(array.tolist()) for array in plain])
        gains = [[judged.get(doc, np.nan) for doc in ranked] for judged, ranked in zip(*tables, strict=True)]
        return cls(Lists.of(gains), Lists.of([sorted(judged.values(), reverse=True) for judged in tables[0]]))
