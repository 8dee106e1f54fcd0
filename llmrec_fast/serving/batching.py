"""Bounded queues whose waiting requests are answered together.

A lane has one thread. While it answers a batch, requests gather; when it is free, it takes what has gathered, so that an idle
service adds no delay and a busy one batches more the busier it is. A full lane refuses at once.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

_logger = logging.getLogger("llmrec_fast.serving")


class Refused(Exception):
    """A request that is answered with an error: an HTTP status and a sentence that holds nothing of what was sent."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


BUSY = "the queue is full; try again after the time in Retry-After"
# of the time limit; beyond it a queue would fill with requests that nobody waits for when their turn comes
_WAIT_SHARE = 0.5
# weight of the newest batch in what a request takes
_NEWEST = 0.2

LATE = "no answer within the time limit"
STOPPING = "the service is shutting down"

Answer: TypeAlias = bytes | Refused


class Queue(Protocol):
    """What the guard and the metrics know of a queue.

    `withdraws` says whether a request is given up when its client has gone; `shed` counts those that were refused.
    """

    name: str
    shed: int
    withdraws: bool

    @property
    def full(self) -> bool:
        """Whether a request that comes now is refused."""
        ...

    def figures(self) -> dict[str, int]:
        """Counters (names that end in _total) and gauges."""
        ...


@dataclass(eq=False)
class _Job:
    request: Any
    future: asyncio.Future[bytes]
    timer: asyncio.TimerHandle


class Lane:
    """One queue, one thread.

    Parameters
    ----------
    answer : takes the requests of a batch and returns an answer for each, in order; runs in the lane's thread.
    capacity : requests that may wait.
    most : requests of one batch.
    timeout : seconds a request may take, waiting included.
    """

    withdraws = False  # what was accepted is answered, and a write is written, whoever waits for it

    def __init__(
        self, name: str, answer: Callable[[list[Any]], Sequence[Answer]], *, capacity: int, most: int, timeout: float
    ) -> None:
        self.name = name
        self.shed = 0
        self._batches = 0
        self._answered = 0
        self._answer = answer
        self._capacity = capacity
        self._most = most
        self._timeout = timeout
        self._each = 0.0  # seconds that a request has taken lately
        self._waiting: deque[_Job] = deque()
        self._ready = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"llmrec-fast {name}", daemon=True)
        self._thread.start()

    def figures(self) -> dict[str, int]:
        """What is counted, by the names that metrics show."""
        return {
            "queue_depth": len(self._waiting),
            "shed_total": self.shed,
            "batches_total": self._batches,
            "batched_requests_total": self._answered,
        }

    @property
    def full(self) -> bool:
        """Whether a request that comes now is refused: too many wait, or for too long to leave time for an answer."""
        waiting = len(self._waiting)
        return waiting >= self._capacity or waiting * self._each > _WAIT_SHARE * self._timeout

    async def ask(self, request: Any) -> bytes:
        """The answer to one request; raises `Refused` (429 full, 503 stopping, 504 late, or what the answer says)."""
        loop = asyncio.get_running_loop()
        if self.full:
            self.shed += 1
            raise Refused(429, BUSY)
        future: asyncio.Future[bytes] = loop.create_future()
        job = _Job(request, future, loop.call_later(self._timeout, _expire, future))
        with self._ready:
            if self._stopping:
                job.timer.cancel()
                raise Refused(503, STOPPING)
            self._waiting.append(job)
            self._ready.notify()
        try:
            return await future
        finally:
            job.timer.cancel()

    def close(self) -> None:
        """Answer what waits, refuse what comes, and return when the thread has ended."""
        with self._ready:
            self._stopping = True
            self._ready.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._ready:
                while not self._waiting and not self._stopping:
                    self._ready.wait()
                if not self._waiting:
                    return
                jobs = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            # whoever gave up costs nothing more
            jobs = [job for job in jobs if not job.future.done()]
            if jobs:
                begin = time.perf_counter()
                answers = self._answers([job.request for job in jobs])
                took = (time.perf_counter() - begin) / len(jobs)
                self._each += _NEWEST * (took - self._each)
                self._batches += 1
                self._answered += len(jobs)
                try:
                    jobs[0].future.get_loop().call_soon_threadsafe(_deliver, jobs, answers)
                except RuntimeError:  # the loop was closed: nobody is there to hear
                    return

    def _answers(self, requests: list[Any]) -> Sequence[Answer]:
        try:
            return self._answer(requests)
        except Exception as error:
            # the message may hold ids or text, so only the kind of the error is logged
            _logger.error("%s failed for %d requests: %s", self.name, len(requests), type(error).__name__)
            return [Refused(500, "internal error")] * len(requests)


def _expire(future: asyncio.Future[bytes]) -> None:
    if not future.done():
        future.set_exception(Refused(504, LATE))


def _deliver(jobs: Sequence[_Job], answers: Sequence[Answer]) -> None:
    for job, answer in zip(jobs, answers, strict=True):
        if job.future.done():
            continue
        if isinstance(answer, Refused):
            job.future.set_exception(answer)
        else:
            job.future.set_result(answer)
