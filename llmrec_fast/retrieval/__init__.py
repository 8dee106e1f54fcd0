"""Exact top-k retrieval over item vectors.

`Index` holds vectors and answers exact top-k queries; `SearchResult` is what it returns, `IndexView` is one
state of it. Nothing here is approximate.
"""

from llmrec_fast.retrieval.index import Index
from llmrec_fast.retrieval.result import SearchResult, SearchStatistics
from llmrec_fast.retrieval.view import IndexView
from llmrec_fast.retrieval.warm import warmup

__all__ = ["Index", "IndexView", "SearchResult", "SearchStatistics", "warmup"]
