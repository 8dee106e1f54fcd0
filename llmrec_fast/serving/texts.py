"""Texts to vectors for waiting requests: those that come together share a batch, and whoever leaves takes its share out of it.

Runs on the event loop; encoding is done by the encoder's own batching thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from llmrec_fast.arrays import Float32Array
from llmrec_fast.encoding import BatchingPolicy, TextEncoder
from llmrec_fast.encoding.dynamic_batching import DynamicBatcher
from llmrec_fast.errors import InvalidInput, Overloaded
from llmrec_fast.recommender import Recommender
from llmrec_fast.serving.batching import BUSY, LATE, STOPPING, Refused

_logger = logging.getLogger("llmrec_fast.serving")
_WARM_TEXT = "warm up"


@runtime_checkable
class AsyncTextEncoder(Protocol):
    """What `Encoder` is: calls that wait at the same time share a batch, and a cancelled one withdraws."""

    async def encode_async(self, texts: Sequence[str]) -> Float32Array:
        """(n, d) float32, a row a text."""
        ...


class _Batched:
    """The same for an encoder of another kind."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._batcher = DynamicBatcher(lambda given: encoder.encode([text for text, _ in given]), BatchingPolicy())

    async def encode_async(self, texts: Sequence[str]) -> Float32Array:
        return await asyncio.wrap_future(self._batcher.submit([(text, 0) for text in texts]))


class Texts:
    """The requests whose texts are being encoded. To the guard it is a queue like a `Lane`.

    Parameters
    ----------
    capacity : requests that may be under way.
    timeout : seconds that encoding may take, waiting included.
    """

    withdraws = True  # what a client that has gone asked for is not done

    def __init__(self, name: str, *, capacity: int, timeout: float) -> None:
        self.name = name
        self.shed = 0
        self._answered = 0
        self._under_way = 0
        self._capacity = capacity
        self._timeout = timeout
        self._stopping = False
        self._loading = asyncio.Lock()
        self._encoder: AsyncTextEncoder | None = None
        self._encoder_of: Recommender | None = None

    @property
    def full(self) -> bool:
        """Whether a request that comes now is refused."""
        return self._under_way >= self._capacity

    def figures(self) -> dict[str, int]:
        """What is counted, by the names that metrics show."""
        return {"queue_depth": self._under_way, "shed_total": self.shed, "batched_requests_total": self._answered}

    async def vectors(self, recommender: Recommender, texts: Sequence[str]) -> Float32Array:
        """(n, d) the vectors of `texts` by the recommender's encoder.

        Cancelling withdraws the texts from the batch that they wait for. Raises `Refused`: 429 too much waits, 503 stopping,
        504 late, 422 there is no encoder or it refuses the texts, 500 it failed.
        """
        if self._stopping:
            raise Refused(503, STOPPING)
        if self.full:
            self.shed += 1
            raise Refused(429, BUSY)
        self._under_way += 1
        try:
            async with asyncio.timeout(self._timeout):
                encoder = await self._loaded(recommender)
                vectors = await encoder.encode_async(texts)
        except TimeoutError:
            raise Refused(504, LATE) from None
        except Overloaded:
            self.shed += 1
            raise Refused(429, BUSY) from None
        except InvalidInput:
            raise Refused(422, "there is no encoder here, or it refuses these texts") from None
        except Exception as error:
            # the message may hold text, so only the kind of the error is logged
            _logger.error("%s failed: %s", self.name, type(error).__name__)
            raise Refused(500, "internal error") from None
        finally:
            self._under_way -= 1
        self._answered += 1
        return vectors

    async def warm(self, recommender: Recommender) -> None:
        """Load the recommender's encoder, if it has one, so that no request has to wait for it. A failure is logged."""
        try:
            await self._loaded(recommender)
        except InvalidInput:
            return  # it answers without texts
        except Exception as error:
            _logger.error("the encoder cannot be loaded: %s", type(error).__name__)

    def close(self) -> None:
        """Refuse what comes; what is under way is waited for by its requests."""
        self._stopping = True

    async def _loaded(self, recommender: Recommender) -> AsyncTextEncoder:
        """The recommender's encoder, which may have to be read from disk first: in a thread, once."""
        async with self._loading:
            if self._encoder is None or self._encoder_of is not recommender:
                encoder = await asyncio.to_thread(_warm_encoder, recommender)
                self._encoder, self._encoder_of = encoder, recommender
            return self._encoder


def _warm_encoder(recommender: Recommender) -> AsyncTextEncoder:
    encoder = recommender.text_encoder
    encoder.encode([_WARM_TEXT])
    return encoder if isinstance(encoder, AsyncTextEncoder) else _Batched(encoder)
