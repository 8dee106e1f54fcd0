"""The recommender: text and behaviour in, explained recommendations out."""

from llmrec_fast.recommender.answers import Snapshot
from llmrec_fast.recommender.fitted import FitReport
from llmrec_fast.recommender.recommender import Recommender
from llmrec_fast.recommender.reranking import RerankerSettings
from llmrec_fast.recommender.results import Explanation, HistoryContribution, Recommendations

__all__ = [
    "Explanation",
    "FitReport",
    "HistoryContribution",
    "Recommendations",
    "Recommender",
    "RerankerSettings",
    "Snapshot",
]
