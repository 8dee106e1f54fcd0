"""`EncoderEmbeddings`: LangChain's interface to texts and their vectors, over `Encoder`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from langchain_core.embeddings import Embeddings

from llmrec_fast.encoding import Encoder
from llmrec_fast.errors import InvalidInput


class EncoderEmbeddings(Embeddings):
    """The vectors of a transformer model. Documents get the prompt that the model has for them, queries theirs.

    Parameters
    ----------
    model : an `Encoder`, or what it takes: a known name such as "minilm", or a model's folder.
    options : `Encoder`'s keywords, where `model` is not one already.

    Raises
    ------
    InvalidInput : options beside an `Encoder`; and what `Encoder` raises.

    Examples
    --------
    >>> embeddings = EncoderEmbeddings("minilm", normalize=True)  # doctest: +SKIP
    >>> len(embeddings.embed_query("a film about space"))  # doctest: +SKIP
    384
    """

    def __init__(self, model: Encoder | str | Path, **options: Any) -> None:
        if isinstance(model, Encoder):
            if options:
                raise InvalidInput(f"{', '.join(sorted(options))}: set when the encoder is made, not beside one")
            self.encoder = model
        else:
            self.encoder = Encoder(model, **options)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """A vector for each text."""
        vectors: list[list[float]] = self.encoder.encode_document(texts, show_progress=False).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query."""
        vector: list[float] = self.encoder.encode_query([text], show_progress=False)[0].tolist()
        return vector

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """As `embed_documents`, in a thread."""
        return await asyncio.to_thread(self.embed_documents, texts)

    async def aembed_query(self, text: str) -> list[float]:
        """As `embed_query`; queries that wait at the same time share a batch. Raises `Overloaded` where too many wait."""
        vectors = await self.encoder.encode_query_async([text])
        vector: list[float] = vectors[0].tolist()
        return vector
