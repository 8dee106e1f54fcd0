"""Dynamic batching: small calls that arrive together, from threads or from asyncio, are answered by one batch.

One worker takes whatever calls wait, encodes their texts in one go, and gives each caller its own rows. It runs while there is
work and ends after a second without any, so nothing has to be closed and an idle process holds no thread.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from llmrec_fast.arrays import Float32Array
from llmrec_fast.encoding.loop_delivery import AnyFuture, begin, deliver, fail
from llmrec_fast.errors import InvalidInput, Overloaded

_IDLE_SECONDS = 1.0
# a text with its prompt, and how many of its first tokens are not pooled
TextToEncode: TypeAlias = tuple[str, int]


@dataclass(frozen=True)
class BatchingPolicy:
    """How calls are gathered.

    Attributes
    ----------
    latency_budget : seconds that the first of several calls waits for others to join. A call that arrives alone after a
        batch of one waits for nobody, and while one batch runs the next one gathers by itself.
    texts_per_batch : a batch takes waiting calls until it holds so many texts (at least one call).
    waiting_texts : calls that would make more texts wait than this are refused with `Overloaded`.
    """

    latency_budget: float = 0.002
    texts_per_batch: int = 64
    waiting_texts: int = 4096

    def __post_init__(self) -> None:
        if not 0 <= self.latency_budget < 60:
            raise InvalidInput(f"latency_budget must be from 0 to 60 seconds; got {self.latency_budget!r}")
        if self.texts_per_batch < 1 or self.waiting_texts < 1:
            raise InvalidInput(
                "texts_per_batch and waiting_texts must be at least 1; "
                f"got {self.texts_per_batch!r} and {self.waiting_texts!r}"
            )


class _Call(NamedTuple):
    texts: Sequence[TextToEncode]
    future: AnyFuture[Float32Array]
    arrived: float


class DynamicBatcher:
    """Gathers calls and answers them in batches. All methods may be called by several threads at once.

    Parameters
    ----------
    encode : what turns a list of texts, each with the tokens of its prompt that are not pooled, into one row each. Called by
        one thread at a time.
    policy : how calls are gathered.
    """

    def __init__(self, encode: Callable[[list[TextToEncode]], Float32Array], policy: BatchingPolicy) -> None:
        self._encode = encode
        self._policy = policy
        self._changed = threading.Condition()
        self._calls: deque[_Call] = deque()
        self._waiting = 0
        self._worker: threading.Thread | None = None
        self._alone = False

    def submit(self, texts: list[TextToEncode]) -> Future[Float32Array]:
        """A future of the vectors of `texts`, which the caller has checked. Cancelling it works until its batch starts.

        Raises
        ------
        Overloaded : too many texts wait already. The call was not taken; a call is never refused while none waits.
        """
        future: Future[Float32Array] = Future()
        self.put(texts, future)
        return future

    def put(self, texts: list[TextToEncode], future: AnyFuture[Float32Array]) -> None:
        """As `submit`, for a future of the caller's own, which may be one of an event loop."""
        with self._changed:
            if self._waiting and self._waiting + len(texts) > self._policy.waiting_texts:
                raise Overloaded(
                    f"{self._waiting} texts wait to be encoded and {len(texts)} more would exceed waiting_texts="
                    f"{self._policy.waiting_texts}; try again later, or shed load"
                )
            self._calls.append(_Call(texts, future, time.monotonic()))
            self._waiting += len(texts)
            # a thread of the parent does not live in a forked child
            if self._worker is None or not self._worker.is_alive():
                self._worker = threading.Thread(target=self._work, name="llmrec_fast-batching", daemon=True)
                self._worker.start()
            # in between, the worker would wake for nothing and contend with the callers for the interpreter
            if len(self._calls) == 1 or self._waiting >= self._policy.texts_per_batch:
                self._changed.notify()

    def _work(self) -> None:
        while batch := self._gather():
            self._answer(batch)

    def _gather(self) -> list[_Call]:
        """The calls of the next batch, marked as running; empty once there was no work for a while."""
        with self._changed:
            while True:
                if not self._changed.wait_for(lambda: self._calls, _IDLE_SECONDS):
                    self._worker = None  # under the lock: a call that comes now starts another one
                    return []
                if not self._alone:
                    deadline = self._calls[0].arrived + self._policy.latency_budget
                    self._changed.wait_for(
                        lambda: self._waiting >= self._policy.texts_per_batch, max(0.0, deadline - time.monotonic())
                    )
                batch = self._take()
                if batch:
                    self._alone = len(batch) == 1 and not self._calls
                    return batch

    def _take(self) -> list[_Call]:
        batch: list[_Call] = []
        texts = 0
        while self._calls and (not batch or texts + len(self._calls[0].texts) <= self._policy.texts_per_batch):
            call = self._calls.popleft()
            self._waiting -= len(call.texts)
            if begin(call.future):
                batch.append(call)
                texts += len(call.texts)
        return batch

    def _answer(self, batch: list[_Call]) -> None:
        try:
            vectors = self._encode([text for call in batch for text in call.texts])
        except BaseException as error:  # every caller learns of it; a worker has nobody else to tell
            if len(batch) == 1:
                fail(batch[0].future, error)
                return
            # one call's texts may be to blame, and the others must not pay for it
            for call in batch:
                self._answer([call])
            return
        stops = itertools.accumulate(len(call.texts) for call in batch)
        # copies: a caller that keeps its rows must not keep the whole batch alive
        deliver(
            (call.future, vectors[stop - len(call.texts) : stop].copy())
            for call, stop in zip(batch, stops, strict=True)
        )
