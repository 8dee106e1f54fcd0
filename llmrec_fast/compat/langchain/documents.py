"""Documents and their vectors under string ids: written by one thread at a time, read by any number that never wait.

Every version of a document has a number of its own in the index, never used again. A reader holds one state of the index; what
it finds there is looked up by number. A writer adds documents before it shows the state that has them, and drops them after
it has shown the state that lacks them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from langchain_core.documents import Document

from llmrec_fast.arrays import Float32Array, Float64Array, as_count, as_matrix
from llmrec_fast.compat.exact_search import unit_rows
from llmrec_fast.errors import InvalidInput
from llmrec_fast.retrieval import Index
from llmrec_fast.retrieval.result import Metric
from llmrec_fast.retrieval.view import IndexView

# a filter is first asked about so many times the documents wanted, and about all only where too few of those pass
_CANDIDATES_A_DOCUMENT = 8
# fewer deleted rows are not worth building the index anew
_LEAST_RECLAIMED = 4096


@dataclass(frozen=True)
class Found:
    """The documents nearest to a vector, nearest first.

    Attributes
    ----------
    documents : n documents, which the caller must not change.
    scores : (n,) float64, higher is nearer.
    vectors : (n, d) float32, of norm 1 where the metric is cosine.
    """

    documents: list[Any]
    scores: Float64Array
    vectors: Float32Array


class _Outdated(Exception):
    """A document of the state that was read has been dropped meanwhile."""


class DocumentIndex:
    """The documents of a store. Vectors come first with the first documents, and set the number of columns."""

    def __init__(self, metric: Metric, threads: int | None) -> None:
        self.metric: Metric = metric
        self._threads = threads
        self._writer = threading.Lock()
        self._index: Index | None = None
        self._view: IndexView | None = None
        self._documents: dict[int, Any] = {}
        self._numbers: dict[str, int] = {}
        self._next_number = 0
        self._deleted = 0
        # a wrong metric or number of threads is refused now, not with the first documents
        Index(1, metric, threads=threads)

    def __len__(self) -> int:
        return len(self._numbers)

    def put(self, documents: Sequence[Any], vectors: Any) -> None:
        """Add documents, or replace those of the same id. The last of several with one id counts.

        Parameters
        ----------
        documents : n documents with ids, which nobody changes from now on.
        vectors : (n, d) finite values.
        """
        if not documents:
            return
        rows = self._prepared(as_matrix(vectors, "vectors"))
        if len(rows) != len(documents):
            raise InvalidInput(f"there must be one vector a document; got {len(rows)} for {len(documents)}")
        places = list({document.id: place for place, document in enumerate(documents)}.values())
        with self._writer:
            index = self._index or self._new_index(rows.shape[1])
            numbers = range(self._next_number, self._next_number + len(places))
            index.add(rows[places], np.arange(numbers.start, numbers.stop))
            self._index, self._next_number = index, numbers.stop
            fresh = {documents[place].id: number for place, number in zip(places, numbers, strict=True)}
            self._documents.update(zip(numbers, (documents[place] for place in places), strict=True))
            replaced = [self._numbers[identifier] for identifier in fresh if identifier in self._numbers]
            self._numbers.update(fresh)
            self._show(index, replaced)

    def remove(self, ids: Iterable[str] | None) -> None:
        """Remove documents; None: all of them. Ids that are not there are ignored."""
        with self._writer:
            wanted = list(self._numbers) if ids is None else list(dict.fromkeys(ids))
            numbers = [self._numbers.pop(identifier) for identifier in wanted if identifier in self._numbers]
            if numbers and self._index is not None:
                self._show(self._index, numbers)

    def get(self, identifier: str) -> Any | None:
        """The document, or None."""
        while (number := self._numbers.get(identifier)) is not None:
            document = self._documents.get(number)
            if document is not None:  # else it was replaced or removed between the two lines above
                return document
        return None

    def nearest(self, vector: Any, k: int, keep: Callable[[Any], bool] | None) -> Found:
        """The k documents nearest to a vector (d,), of those that `keep` is true for; equally near ones as they were added."""
        k = as_count(k, "k")
        query = self._prepared(as_matrix([vector], "embedding"))
        while True:
            view = self._view
            try:
                return self._nearest(view, query, k, keep)
            except _Outdated:
                continue

    def contents(self) -> tuple[list[Any], Float32Array]:
        """All documents in the order in which they were added, and their vectors (n, d)."""
        with self._writer:
            if self._view is None:
                return [], np.zeros((0, 0), np.float32)
            return self._at(self._view.ids.tolist()), self._view.vectors(self._view.ids)

    def fill(self, documents: Sequence[Any], rows: Float32Array) -> None:
        """Put what `contents` gave into an empty store."""
        if documents:
            self._index = self._new_index(rows.shape[1])
            self._index.add(rows, np.arange(len(documents)))
            self._documents = dict(enumerate(documents))
            self._numbers = {document.id: number for number, document in enumerate(documents)}
            self._next_number = len(documents)
            self._view = self._index.snapshot()

    def _prepared(self, rows: Float32Array) -> Float32Array:
        return unit_rows(rows) if self.metric == "cosine" else rows

    def _new_index(self, columns: int) -> Index:
        # rows of norm 1 are stored, so that what is saved and loaded is not rounded a second time
        return Index(columns, "dot" if self.metric == "cosine" else self.metric, threads=self._threads)

    def _show(self, index: Index, dropped: Sequence[int]) -> None:
        """Let readers see the index as it is without `dropped`, and forget those documents."""
        if dropped:
            index.remove(np.array(dropped, np.int64))
            self._deleted += len(dropped)
        if self._deleted > max(_LEAST_RECLAIMED, len(index)):
            index.optimize()
            self._deleted = 0
        self._view = index.snapshot()
        for number in dropped:
            del self._documents[number]

    def _nearest(
        self, view: IndexView | None, query: Float32Array, k: int, keep: Callable[[Any], bool] | None
    ) -> Found:
        if view is None or len(view) == 0:
            return Found([], np.zeros(0), np.zeros((0, query.shape[1]), np.float32))
        if keep is None:
            return self._best(view, query, min(k, len(view)))
        wide = min(_CANDIDATES_A_DOCUMENT * k, len(view))
        found = self._best(view, query, wide)
        passed = [place for place, document in enumerate(found.documents) if keep(document)]
        if len(passed) >= k or wide == len(view):
            best = passed[:k]
            return Found([found.documents[place] for place in best], found.scores[best], found.vectors[best])
        numbers = view.ids.tolist()
        kept = [number for number, document in zip(numbers, self._at(numbers), strict=True) if keep(document)]
        if not kept:
            return Found([], np.zeros(0), np.zeros((0, query.shape[1]), np.float32))
        return self._best(view, query, min(k, len(kept)), allow=np.array(kept, np.int64))

    def _best(self, view: IndexView, query: Float32Array, k: int, **allow: Any) -> Found:
        result = view.search(query, k, **allow)
        return Found(self._at(result.ids[0].tolist()), result.scores[0], view.vectors(result.ids[0]))

    def _at(self, numbers: Iterable[int]) -> list[Any]:
        documents = [self._documents.get(number) for number in numbers]
        if any(document is None for document in documents):
            raise _Outdated
        return documents


def copied(document: Any) -> Any:
    """A document that a caller may change: its metadata is another dict with the same values."""
    return Document(id=document.id, page_content=document.page_content, metadata=dict(document.metadata))
