"""What a session on a GPU gives to the pooling kernel."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from llmrec_fast.arrays import Int64Array
from llmrec_fast.encoding.tokens import Int32Array
from llmrec_fast.kernels.cuda.memory import Place
from llmrec_fast.kernels.cuda.runtime import Runtime

TOKENS_PER_BATCH = 16384


@dataclass(frozen=True)
class TokenTable:
    """Token embeddings on a device: row `starts[text] + token` of `rows` (n, hidden) float32."""

    rows: Any
    starts: Int64Array


class DeviceSession(Protocol):
    """A model on a GPU. May be used by several threads at once."""

    runtime: Runtime
    hidden: int
    longest: int

    @property
    def engine(self) -> str:
        """What runs, for people."""

    def prepare(self) -> None:
        """Do what may take minutes and must not happen within a request."""

    def running(self, ids: Int32Array, lengths: Int32Array, consumer: Place) -> AbstractContextManager[TokenTable]:
        """Embed right-padded `ids` (batch, time); the table may be read on the stream of `consumer` until the block ends.

        Rows of padding, and of texts beyond the batch, are meaningless. Raises `InvalidInput` for an id beyond the vocabulary.
        """
        ...
