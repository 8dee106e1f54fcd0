"""What reorders candidates after retrieval."""

from llmrec_fast.ranking.mmr import rerank_mmr
from llmrec_fast.ranking.text_pairs import TextReranker

__all__ = ["TextReranker", "rerank_mmr"]
