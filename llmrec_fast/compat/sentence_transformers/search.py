"""`util`'s searches: `semantic_search` and paraphrase mining, by this package's exact search. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from llmrec_fast.arrays import as_count
from llmrec_fast.compat.exact_search import best_rows
from llmrec_fast.compat.sentence_transformers.corpus_index import CorpusIndex
from llmrec_fast.compat.sentence_transformers.similarity import cos_sim, dot_score, euclidean_sim, pytorch_cos_sim
from llmrec_fast.compat.sentence_transformers.tensors import as_rows, as_two_dimensions, check_columns
from llmrec_fast.errors import InvalidInput
from llmrec_fast.retrieval.result import Metric

_corpus = CorpusIndex()

ScoreFunction = Callable[[Any, Any], Any]

_METRICS: dict[ScoreFunction, Metric] = {
    cos_sim: "cosine",
    pytorch_cos_sim: "cosine",
    dot_score: "dot",
    euclidean_sim: "euclidean",
}


class _Encodes(Protocol):
    def encode(self, sentences: list[str], /, **keywords: Any) -> Any: ...


def semantic_search(
    query_embeddings: Any,
    corpus_embeddings: Any,
    query_chunk_size: int = 100,
    corpus_chunk_size: int = 500_000,
    top_k: int = 10,
    score_function: ScoreFunction = cos_sim,
) -> list[list[dict[str, int | float]]]:
    """The `top_k` corpus rows that score highest for each query.

    Exact: rows are ordered by float64 scores, equal scores by smaller corpus_id (sentence-transformers leaves ties to
    torch.topk and a heap). The two chunk sizes change no answer and are not needed here. A corpus that comes a second time
    is indexed, which takes a while, and answers quickly from then on; the index lives as long as the caller's corpus object.

    Parameters
    ----------
    query_embeddings : (q, d), or (d,) for one query. Tensors on any device, arrays or lists.
    corpus_embeddings : (n, d).
    query_chunk_size, corpus_chunk_size : at least 1.
    top_k : at least 1; a smaller corpus gives fewer.
    score_function : `cos_sim`, `dot_score` or `euclidean_sim` of this module.

    Returns
    -------
    A list for each query of {"corpus_id": int, "score": float}, highest score first.

    Raises
    ------
    InvalidInput : another score function, shapes that do not fit, values that are not finite.
    """
    _check_chunks(query_chunk_size, corpus_chunk_size)
    queries, corpus = as_rows(query_embeddings, "query_embeddings"), as_two_dimensions(corpus_embeddings)
    check_columns(queries, corpus, ("query_embeddings", "corpus_embeddings"))
    k = min(as_count(top_k, "top_k"), len(corpus))
    if k == 0:
        return [[] for _ in queries]
    found = _corpus.search(corpus_embeddings, corpus, queries, k, _metric(score_function), "corpus_embeddings")
    pairs = zip(found.ids.ravel().tolist(), found.scores.ravel().tolist(), strict=True)
    hits = [{"corpus_id": corpus_id, "score": score} for corpus_id, score in pairs]
    return [hits[start : start + k] for start in range(0, len(hits), k)]


def paraphrase_mining(
    model: _Encodes,
    sentences: list[str],
    show_progress_bar: bool = False,
    batch_size: int = 32,
    query_chunk_size: int = 5000,
    corpus_chunk_size: int = 100_000,
    max_pairs: int = 500_000,
    top_k: int = 100,
    score_function: ScoreFunction = cos_sim,
    truncate_dim: int | None = None,
    prompt_name: str | None = None,
    prompt: str | None = None,
) -> list[list[float | int]]:
    """`paraphrase_mining_embeddings` of the sentences' vectors, which `model.encode` makes with the given keywords."""
    embeddings = model.encode(
        sentences,
        show_progress_bar=show_progress_bar,
        batch_size=batch_size,
        truncate_dim=truncate_dim,
        prompt_name=prompt_name,
        prompt=prompt,
    )
    return paraphrase_mining_embeddings(
        embeddings, query_chunk_size, corpus_chunk_size, max_pairs, top_k, score_function
    )


def paraphrase_mining_embeddings(
    embeddings: Any,
    query_chunk_size: int = 5000,
    corpus_chunk_size: int = 100_000,
    max_pairs: int = 500_000,
    top_k: int = 100,
    score_function: ScoreFunction = cos_sim,
) -> list[list[float | int]]:
    """The pairs of rows that score highest, among each row's `top_k` best others.

    Parameters
    ----------
    embeddings : (n, d).
    query_chunk_size, corpus_chunk_size : at least 1; they change no answer.
    max_pairs : the most pairs returned.
    top_k : how many others of each row are candidates.
    score_function : `cos_sim`, `dot_score` or `euclidean_sim` of this module.

    Returns
    -------
    [score, i, j] with i < j, highest score first; equal scores by smaller i, then j (sentence-transformers leaves them in
    the order of a heap).
    """
    _check_chunks(query_chunk_size, corpus_chunk_size)
    rows = as_rows(embeddings, "embeddings")
    max_pairs, top_k = as_count(max_pairs, "max_pairs"), as_count(top_k, "top_k")
    count = len(rows)
    if count < 2:
        return []
    found = best_rows(rows, rows, min(top_k + 1, count), _metric(score_function))
    others = found.ids != np.arange(count)[:, None]
    others &= np.cumsum(others, axis=1) <= top_k  # a row that is not among its own best leaves one too many
    left, at = np.nonzero(others)
    right, scores = found.ids[left, at], found.scores[left, at]
    keys, first = np.unique(np.minimum(left, right) * count + np.maximum(left, right), return_index=True)
    scores = scores[first]
    best = np.argsort(-scores, kind="stable")[:max_pairs]
    pairs = zip(scores[best].tolist(), (keys[best] // count).tolist(), (keys[best] % count).tolist(), strict=True)
    return [[score, i, j] for score, i, j in pairs]


def _metric(score_function: ScoreFunction) -> Metric:
    metric = _METRICS.get(score_function)
    if metric is None:
        raise InvalidInput(
            "score_function must be cos_sim, dot_score or euclidean_sim of llmrec_fast.compat.sentence_transformers.util; "
            f"got {getattr(score_function, '__name__', score_function)!r}"
        )
    return metric


def _check_chunks(query_chunk_size: int, corpus_chunk_size: int) -> None:
    as_count(query_chunk_size, "query_chunk_size")
    as_count(corpus_chunk_size, "corpus_chunk_size")
