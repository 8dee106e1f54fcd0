"""ranx's metrics by its names: `LABELS` lists them.

A name may carry a cut-off (`ndcg@10`; none: the whole list) and a relevance level (`ndcg@10-l2`: judgments of 2 and more are
relevant; default 1). Each function gives (queries,) float64. Conventions are ranx's: a query without relevant documents counts
with 0, a list shorter than the cut-off counts as filled up with misses.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from llmrec_fast.arrays import BoolArray, Float64Array
from llmrec_fast.compat.ranx.judged import Judged, Lists
from llmrec_fast.errors import InvalidInput

_Gain = Callable[[Float64Array], Float64Array]

LABELS = {
    "hits": "Hits",
    "hit_rate": "Hit Rate",
    "precision": "P",
    "recall": "Recall",
    "f1": "F1",
    "r-precision": "R-Prec",
    "mrr": "MRR",
    "map": "MAP",
    "dcg": "DCG",
    "dcg_burges": "DCG Burges",
    "ndcg": "NDCG",
    "ndcg_burges": "NDCG Burges",
    "bpref": "BPref",
    "rbp": "RBP",
}
_NAME = re.compile(r"(?P<name>[a-z0-9_-]+?)(?:@(?P<k>\d+)|\.(?P<p>\d+))?(?:-l(?P<level>\d+))?")
_WITHOUT_CUT_OFF = ("r-precision", "bpref", "rbp")


@dataclass(frozen=True)
class Metric:
    """A parsed name: cut-off k (0: none), persistence p of rbp, least relevant judgment."""

    name: str
    k: int
    p: float
    level: int

    @property
    def label(self) -> str:
        """The name as a table's heading."""
        cut = f"@{self.k}" if self.k else ""
        level = f"-l{self.level}" if self.level != 1 else ""
        persistence = f".{str(self.p).partition('.')[2]}" if self.name == "rbp" else ""
        return f"{LABELS[self.name]}{persistence}{cut}{level}"


def parse(text: str) -> Metric:
    """Read a metric's name; raises `InvalidInput` for one that ranx does not have."""
    match = _NAME.fullmatch(text) if isinstance(text, str) else None
    name = match["name"] if match else ""
    is_rbp = name == "rbp"
    if match is None or name not in LABELS or is_rbp != (match["p"] is not None):
        raise InvalidInput(
            f"unknown metric {text!r}; known are {', '.join(LABELS)}, with @k for a cut-off and -lN for a relevance level "
            "(ndcg@10-l2); rbp carries its persistence (rbp.95)"
        )
    if match["k"] is not None and (name in _WITHOUT_CUT_OFF or int(match["k"]) == 0):
        raise InvalidInput(f"metric {text!r} has a cut-off that means nothing; leave it out")
    return Metric(name, int(match["k"] or 0), float(f"0.{match['p']}") if is_rbp else 0.0, int(match["level"] or 1))


def compute(metric: Metric, data: Judged) -> Float64Array:
    """The metric's value for each query."""
    return _Computation(metric, data).value()


class _Computation:
    """What the formulas share: relevance by the metric's level, hits within its cut-off."""

    def __init__(self, metric: Metric, data: Judged) -> None:
        self.metric, self.runs, self.judged = metric, data.retrieved, data.judged
        self.relevant: BoolArray = self.runs.gains >= metric.level  # NaN, no judgment, is not
        self.cut = metric.k
        self.hits = self.relevant & self.runs.within(metric.k)
        self.relevant_counts = self.judged.sum(self.judged.gains >= metric.level)

    def value(self) -> Float64Array:
        functions: dict[str, Callable[[], Float64Array]] = {
            "hits": lambda: self.runs.sum(self.hits),
            "hit_rate": lambda: np.minimum(self.runs.sum(self.hits), 1.0),
            "precision": self.precision,
            "recall": lambda: _share(self.runs.sum(self.hits), self.relevant_counts),
            "f1": self.f1,
            "r-precision": self.r_precision,
            "mrr": self.reciprocal_rank,
            "map": self.average_precision,
            "dcg": lambda: self.gain(self.runs, lambda gains: gains),
            "dcg_burges": lambda: self.gain(self.runs, _burges),
            "ndcg": lambda: self.normalized_gain(lambda gains: gains),
            "ndcg_burges": lambda: self.normalized_gain(_burges),
            "bpref": self.bpref,
            "rbp": self.rank_biased_precision,
        }
        return functions[self.metric.name]()

    def precision(self) -> Float64Array:
        """Hits / cut-off; without one, / length of the list."""
        return _share(self.runs.sum(self.hits), self.sizes())

    def f1(self) -> Float64Array:
        """Harmonic mean of precision and recall: 2 hits / (size + relevant)."""
        hits = self.runs.sum(self.hits)
        return np.where(hits > 0, _share(2 * hits, self.sizes() + self.relevant_counts), 0.0)

    def r_precision(self) -> Float64Array:
        """Precision at R, the number of relevant documents."""
        hits = self.relevant & (self.runs.rank < self.relevant_counts[self.runs.query])
        return _share(self.runs.sum(hits), self.relevant_counts)

    def reciprocal_rank(self) -> Float64Array:
        """1 / place of the first hit, 0 without one."""
        result = np.zeros(len(self.runs.lengths))
        np.maximum.at(result, self.runs.query[self.hits], 1 / (self.runs.rank[self.hits] + 1.0))
        return result

    def average_precision(self) -> Float64Array:
        """Precision at each hit, summed, / all relevant."""
        precisions = _running_count(self.runs, self.hits) / (self.runs.rank + 1.0)
        return _share(self.runs.sum(np.where(self.hits, precisions, 0.0)), self.relevant_counts)

    def gain(self, lists: Lists, gain: _Gain) -> Float64Array:
        """sum gain / log2(place + 1) over relevant documents."""
        counted = (lists.gains >= self.metric.level) & lists.within(self.cut)
        return lists.sum(gain(np.where(counted, lists.gains, 0.0)) / np.log2(lists.rank + 2.0))

    def normalized_gain(self, gain: _Gain) -> Float64Array:
        """`gain` over that of the ideal list."""
        return _share(self.gain(self.runs, gain), self.gain(self.judged, gain))

    def bpref(self) -> Float64Array:
        """sum over hits of 1 - min(judged misses before it, R) / min(R, N), over R: R relevant, N judged not relevant.

        NaN, as in ranx, where a query has hits and no document that is judged not relevant; 0 without relevant ones.
        """
        misses = ~np.isnan(self.runs.gains) & ~self.relevant
        before = np.minimum(_running_count(self.runs, misses), self.relevant_counts[self.runs.query])
        scale = np.minimum(self.relevant_counts, self.judged.lengths - self.relevant_counts)
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = 1 - before / scale[self.runs.query]
        return _share(self.runs.sum(np.where(self.relevant, shares, 0.0)), self.relevant_counts)

    def rank_biased_precision(self) -> Float64Array:
        """(1 - p) sum judgment p^(place - 1) over relevant documents."""
        weights = np.where(self.relevant, self.runs.gains, 0.0) * self.metric.p**self.runs.rank
        return (1 - self.metric.p) * self.runs.sum(weights)

    def sizes(self) -> Float64Array:
        """The cut-off, or the lengths of the lists."""
        return np.full(len(self.runs.lengths), self.cut or 1.0) if self.cut else self.runs.lengths.astype(np.float64)


def _burges(gains: Float64Array) -> Float64Array:
    grown: Float64Array = np.exp2(gains) - 1
    return grown


def _share(part: Float64Array, whole: Float64Array) -> Float64Array:
    """part / whole, 0 where there is no whole."""
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), 0.0)


def _running_count(lists: Lists, marked: BoolArray) -> Float64Array:
    """For each entry, the marked ones of its list up to and with it."""
    total = np.cumsum(marked)
    starts = np.cumsum(lists.lengths) - lists.lengths
    before = np.concatenate([[0], total])[starts]
    counts: Float64Array = (total - before[lists.query]).astype(np.float64)
    return counts
