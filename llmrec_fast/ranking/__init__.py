"""What reorders candidates after retrieval."""

from llmrec_fast.ranking.mmr import rerank_mmr

__all__ = ["rerank_mmr"]
