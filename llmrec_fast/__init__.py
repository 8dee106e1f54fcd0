"""llmrec_fast: exact, fast recommendations from language-model embeddings.

The names below load on first use, so that `import llmrec_fast` stays quick: it imports neither numba nor onnxruntime.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmrec_fast.encoding import BatchingPolicy, CrossEncoder, Encoder, VectorCache, WordVectors
    from llmrec_fast.evaluation import evaluate
    from llmrec_fast.features import Interactions, Items
    from llmrec_fast.kernels.threads import get_threads, set_threads
    from llmrec_fast.ranking import TextReranker
    from llmrec_fast.recommender import Explanation, Recommendations, Recommender
    from llmrec_fast.retrieval import Index, SearchResult
    from llmrec_fast.warmup import warmup

__version__ = "0.1.0"

_HOMES = {
    "BatchingPolicy": "encoding",
    "CrossEncoder": "encoding",
    "Encoder": "encoding",
    "Explanation": "recommender",
    "Index": "retrieval",
    "Interactions": "features",
    "Items": "features",
    "Recommendations": "recommender",
    "Recommender": "recommender",
    "SearchResult": "retrieval",
    "TextReranker": "ranking",
    "VectorCache": "encoding",
    "WordVectors": "encoding",
    "evaluate": "evaluation",
    "get_threads": "kernels.threads",
    "set_threads": "kernels.threads",
    "warmup": "warmup",
}

__all__ = [
    "BatchingPolicy",
    "CrossEncoder",
    "Encoder",
    "Explanation",
    "Index",
    "Interactions",
    "Items",
    "Recommendations",
    "Recommender",
    "SearchResult",
    "TextReranker",
    "VectorCache",
    "WordVectors",
    "evaluate",
    "get_threads",
    "set_threads",
    "warmup",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'llmrec_fast' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"llmrec_fast.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
