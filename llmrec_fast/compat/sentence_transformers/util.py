"""`sentence_transformers.util`: the functions that work on vectors."""

from llmrec_fast.compat.sentence_transformers.communities import community_detection
from llmrec_fast.compat.sentence_transformers.quantization import quantize_embeddings
from llmrec_fast.compat.sentence_transformers.search import (
    paraphrase_mining,
    paraphrase_mining_embeddings,
    semantic_search,
)
from llmrec_fast.compat.sentence_transformers.similarity import (
    cos_sim,
    dot_score,
    euclidean_sim,
    manhattan_sim,
    normalize_embeddings,
    pairwise_cos_sim,
    pairwise_dot_score,
    pairwise_euclidean_sim,
    pairwise_manhattan_sim,
    pytorch_cos_sim,
    truncate_embeddings,
)

__all__ = [
    "community_detection",
    "cos_sim",
    "dot_score",
    "euclidean_sim",
    "manhattan_sim",
    "normalize_embeddings",
    "pairwise_cos_sim",
    "pairwise_dot_score",
    "pairwise_euclidean_sim",
    "pairwise_manhattan_sim",
    "paraphrase_mining",
    "paraphrase_mining_embeddings",
    "pytorch_cos_sim",
    "quantize_embeddings",
    "semantic_search",
    "truncate_embeddings",
]
