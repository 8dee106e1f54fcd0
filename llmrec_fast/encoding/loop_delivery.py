"""Results of other threads for tasks of asyncio: however many arrive together, an event loop is woken once.

`asyncio.wrap_future` wakes it once a result, and each time both threads want the interpreter: of 64 callers the last one
waited a millisecond longer.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

Result = TypeVar("Result")


class LoopDelivery(Generic[Result]):
    """Waits for futures in event loops, of which each thread may have its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # what arrived and no loop has picked up yet; a loop that is woken already has an entry
        self._arrived: WeakKeyDictionary[
            asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Result], Future[Result]]]
        ] = WeakKeyDictionary()

    async def result(self, future: Future[Result]) -> Result:
        """The result, or the error, of `future`, which is cancelled where the task that waits is."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Result] = loop.create_future()
        future.add_done_callback(lambda done: self._arrive(loop, waiter, done))
        try:
            return await waiter
        except asyncio.CancelledError:
            future.cancel()
            raise

    def _arrive(self, loop: asyncio.AbstractEventLoop, waiter: asyncio.Future[Result], done: Future[Result]) -> None:
        if loop.is_closed():
            return
        with self._lock:
            woken = loop in self._arrived
            self._arrived.setdefault(loop, []).append((waiter, done))
        if not woken:
            loop.call_soon_threadsafe(self._settle, loop)

    def _settle(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            arrived = self._arrived.pop(loop)
        for waiter, done in arrived:
            if waiter.done():  # its task was cancelled
                continue
            if done.cancelled():
                waiter.cancel()
            elif (error := done.exception()) is not None:
                waiter.set_exception(error)
            else:
                waiter.set_result(done.result())
