"""Remember the index of the corpus that `semantic_search` was last given: its callers pass all of it with every question.

The first time it is searched as it lies; when the same corpus comes again it is indexed, and from then on only its fingerprint
is taken: one pass over every bit into a 64-bit hash, so a corpus that was changed in place is noticed. That pass is the floor
of a call, so it is the only one: a known corpus is neither converted nor checked for NaN again. One index is kept, and only
while the caller keeps the corpus alive.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import Float32Array, as_matrix
from llmrec_fast.compat.exact_search import best_rows
from llmrec_fast.retrieval import Index
from llmrec_fast.retrieval.result import Metric, SearchResult

# below this, searching the rows as they lie takes no longer than the bookkeeping is worth
_LEAST_ROWS = 4096


class CorpusIndex:
    """The corpus seen last, and its index once it was seen twice. May be used by several threads at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._corpus: weakref.ref[Any] | None = None
        self._key: tuple[object, ...] = ()
        self._index: Index | None = None

    def search(
        self, corpus: Any, values: npt.NDArray[Any], queries: Float32Array, k: int, metric: Metric, name: str
    ) -> SearchResult:
        """The k best rows of `values`, an (n, d) array that reads the caller's `corpus`, which messages call `name`."""
        if len(values) < _LEAST_ROWS:
            return best_rows(queries, as_matrix(values, name), k, metric)
        from llmrec_fast.compat.sentence_transformers.fingerprint import fingerprint

        values = np.ascontiguousarray(values)
        key = (metric, values.shape, values.dtype, fingerprint(values))
        with self._lock:
            known = self._corpus is not None and self._corpus() is corpus and self._key == key
            index = self._index if known else None
        if index is None:
            rows = as_matrix(values, name)
            if not known:
                with self._lock:
                    self._remember(corpus, key)
                return best_rows(queries, rows, k, metric)
            index = Index.build(rows, metric=metric)
            with self._lock:
                if self._key == key:
                    self._index = index
        return index.search(queries, k)

    def _remember(self, corpus: Any, key: tuple[object, ...]) -> None:
        self._index, self._key = None, key
        try:
            self._corpus = weakref.ref(corpus, self._forget)
        except TypeError:  # a list, which is read into a new array every time
            self._corpus = None

    def _forget(self, reference: weakref.ref[Any]) -> None:
        if self._corpus is reference:  # no lock: this may run within any allocation of a thread that holds it
            self._corpus, self._index = None, None
