"""Judgments and rankings side by side as flat arrays: each retrieved document's gain, each query's ideal list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
