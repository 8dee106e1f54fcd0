"""`ExactVectorStore`: LangChain's vector store interface over an exact index in this process."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from llmrec_fast.arrays import as_count, as_matrix, as_texts
from llmrec_fast.compat.langchain import storage
from llmrec_fast.compat.langchain.diversity import choose_diverse
from llmrec_fast.compat.langchain.documents import DocumentIndex, Found, copied
from llmrec_fast.errors import InvalidInput
from llmrec_fast.retrieval.result import Metric

Filter: TypeAlias = "Callable[[Document], bool] | Mapping[str, Any]"


class ExactVectorStore(VectorStore):
    """Documents by the similarity of their vectors: exact, and the same answers as `InMemoryVectorStore`.

    Scores are float64 and higher is nearer: cosine (default), inner product, or minus the Euclidean distance. Equal scores:
    the document added first (LangChain's store leaves that open). A document put again under its id counts as added last.
    Documents are copied in and out, their metadata's values are not. Any number of threads may search while others write;
    a search sees one state of the store. What the class inherits (`add_documents`, `from_documents`, `as_retriever`, `search`,
    `similarity_search_with_relevance_scores` and their asynchronous forms) works on top.

    A `filter` is a function that is given a document and says whether it may be found (it must not change it), or a dict
    whose keys and values the document's metadata must hold. As many documents are found as there are, up to k.

    Parameters
    ----------
    embedding : what turns texts into vectors.
    metric : "cosine", "dot" or "euclidean".
    threads : threads of a search; None: `llmrec_fast.get_threads()`.

    Raises
    ------
    InvalidInput : in every method: wrong ids, metadata, k, filter or embedding; nothing was changed.
    """

    def __init__(self, embedding: Embeddings, *, metric: Metric = "cosine", threads: int | None = None) -> None:
        if not isinstance(embedding, Embeddings):
            raise InvalidInput(f"embedding must be a LangChain Embeddings object; got {type(embedding).__name__}")
        self.embedding = embedding
        self._documents = DocumentIndex(metric, threads)

    @property
    def embeddings(self) -> Embeddings:
        """What turns texts into vectors."""
        return self.embedding

    def __len__(self) -> int:
        return len(self._documents)

    def __bool__(self) -> bool:
        return True  # an empty store is a store: callers write `if store`

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        metric: Metric = "cosine",
        threads: int | None = None,
    ) -> ExactVectorStore:
        """A store of texts; see `add_texts`."""
        store = cls(embedding, metric=metric, threads=threads)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    async def afrom_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        metric: Metric = "cosine",
        threads: int | None = None,
    ) -> ExactVectorStore:
        """A store of texts; see `add_texts`."""
        store = cls(embedding, metric=metric, threads=threads)
        await store.aadd_texts(texts, metadatas, ids=ids)
        return store

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
    ) -> list[str]:
        """Add texts, replacing those whose id is there; the last of several with one id counts. All or nothing.

        Parameters
        ----------
        texts : strings.
        metadatas : one dict a text; None: empty ones.
        ids : one string a text; None, also for single texts: a new UUID.

        Returns
        -------
        The ids, in the order of the texts.
        """
        documents = _documents(texts, metadatas, ids)
        self._documents.put(documents, self.embedding.embed_documents(_contents(documents)))
        return [document.id for document in documents]

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
    ) -> list[str]:
        """As `add_texts`, with the embedding's own asynchronous method."""
        documents = _documents(texts, metadatas, ids)
        vectors = await self.embedding.aembed_documents(_contents(documents))
        await asyncio.to_thread(self._documents.put, documents, vectors)
        return [document.id for document in documents]

    def delete(self, ids: Sequence[str] | None = None) -> bool:
        """Remove documents; None: all of them, as LangChain's interface has it. Unknown ids are ignored. Returns True."""
        self._documents.remove(None if ids is None else as_texts(ids, "ids"))
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents of ids, in their order; unknown ids are left out."""
        found = (self._documents.get(identifier) for identifier in as_texts(ids, "ids"))
        return [copied(document) for document in found if document is not None]

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """As `get_by_ids`, which waits for nothing."""
        return self.get_by_ids(ids)

    def similarity_search(self, query: str, k: int = 4, *, filter: Filter | None = None) -> list[Document]:
        """The k documents nearest to a text, nearest first."""
        return self.similarity_search_by_vector(self.embedding.embed_query(query), k, filter=filter)

    async def asimilarity_search(self, query: str, k: int = 4, *, filter: Filter | None = None) -> list[Document]:
        """As `similarity_search`, with the embedding's own asynchronous method."""
        vector = await self.embedding.aembed_query(query)
        return await asyncio.to_thread(self.similarity_search_by_vector, vector, k, filter=filter)

    def similarity_search_with_score(
        self, query: str, k: int = 4, *, filter: Filter | None = None
    ) -> list[tuple[Document, float]]:
        """As `similarity_search`, each document with its score."""
        return self.similarity_search_with_score_by_vector(self.embedding.embed_query(query), k, filter=filter)

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, *, filter: Filter | None = None
    ) -> list[tuple[Document, float]]:
        """As `similarity_search_with_score`, with the embedding's own asynchronous method."""
        vector = await self.embedding.aembed_query(query)
        return await asyncio.to_thread(self.similarity_search_with_score_by_vector, vector, k, filter=filter)

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, *, filter: Filter | None = None
    ) -> list[Document]:
        """The k documents nearest to a vector, nearest first."""
        return [copied(document) for document in self._nearest(embedding, k, filter).documents]

    def similarity_search_with_score_by_vector(
        self, embedding: list[float], k: int = 4, *, filter: Filter | None = None
    ) -> list[tuple[Document, float]]:
        """The k documents nearest to a vector, nearest first, each with its score."""
        found = self._nearest(embedding, k, filter)
        return list(zip(map(copied, found.documents), found.scores.tolist(), strict=True))

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, *, filter: Filter | None = None
    ) -> list[Document]:
        """k of the `fetch_k` documents nearest to a text, chosen for relevance and diversity: see `diversity`."""
        vector = self.embedding.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, filter=filter)

    async def amax_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, *, filter: Filter | None = None
    ) -> list[Document]:
        """As `max_marginal_relevance_search`, with the embedding's own asynchronous method."""
        vector = await self.embedding.aembed_query(query)
        return await asyncio.to_thread(
            self.max_marginal_relevance_search_by_vector, vector, k, fetch_k, lambda_mult, filter=filter
        )

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Filter | None = None,
    ) -> list[Document]:
        """k of the `fetch_k` documents nearest to a vector, chosen for relevance and diversity: see `diversity`."""
        found = self._nearest(embedding, as_count(fetch_k, "fetch_k"), filter)
        chosen = choose_diverse(as_matrix([embedding], "embedding"), found.vectors, k, lambda_mult)
        return [copied(found.documents[place]) for place in chosen]

    def save_local(self, folder_path: str | Path) -> None:
        """Write documents and vectors to a folder; what was there before stays if the process dies meanwhile.

        Metadata must hold what JSON holds: dicts with string keys, lists, strings, numbers, booleans and None.
        """
        documents, rows = self._documents.contents()
        storage.save(Path(folder_path), self._documents.metric, documents, rows)

    @classmethod
    def load_local(
        cls, folder_path: str | Path, embeddings: Embeddings, *, threads: int | None = None
    ) -> ExactVectorStore:
        """Read what `save_local` wrote: nothing in it is executed. Raises `CorruptFile` for damaged files."""
        metric, documents, rows = storage.load(Path(folder_path))
        store = cls(embeddings, metric=metric, threads=threads)
        store._documents.fill(documents, rows)
        return store

    def _nearest(self, embedding: list[float], k: int, filter: Filter | None) -> Found:
        return self._documents.nearest(embedding, k, _predicate(filter))

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        """Scores moved to 0..1: a cosine (negative ones: 0), or 1 - distance / sqrt(2), LangChain's rule for unit vectors."""
        if self._documents.metric == "dot":
            raise InvalidInput("inner products have no scale from 0 to 1; use metric='cosine' for relevance scores")
        if self._documents.metric == "cosine":
            return lambda score: min(max(score, 0.0), 1.0)
        return lambda score: max(1.0 + score / float(np.sqrt(2)), 0.0)


def _documents(
    texts: Iterable[str], metadatas: Sequence[Mapping[str, Any]] | None, ids: Sequence[str | None] | None
) -> list[Document]:
    """The caller's texts as documents of the store's own, each with an id."""
    contents = as_texts(texts if isinstance(texts, str) else list(texts))
    for given, name in ((metadatas, "metadatas"), (ids, "ids")):
        if given is not None and len(given) != len(contents):
            raise InvalidInput(f"{name} must have one entry a text; got {len(given)} for {len(contents)} texts")
    for metadata in metadatas or ():
        if not isinstance(metadata, Mapping):
            raise InvalidInput(f"metadatas must hold dicts; got {type(metadata).__name__}")
    for identifier in ids or ():
        if not (identifier is None or isinstance(identifier, str)):
            raise InvalidInput(f"ids must be strings or None; got {identifier!r}")
    return [
        Document(
            id=(ids[place] if ids else None) or str(uuid.uuid4()),
            page_content=content,
            metadata=dict(metadatas[place]) if metadatas else {},
        )
        for place, content in enumerate(contents)
    ]


def _contents(documents: Sequence[Document]) -> list[str]:
    return [document.page_content for document in documents]


def _predicate(given: Filter | None) -> Callable[[Document], bool] | None:
    if given is None or callable(given):
        return given
    if not isinstance(given, Mapping):
        raise InvalidInput(f"filter must be a function of a document or a dict; got {type(given).__name__}")
    wanted = list(given.items())
    missing = object()

    def holds(document: Document) -> bool:
        return all(document.metadata.get(key, missing) == value for key, value in wanted)

    return holds
