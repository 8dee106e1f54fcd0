"""Many threads with a query each: what waits while a search runs is gathered and searched as one batch.

Sixteen queries in one pass take some seven times as long as one, so callers that merely took turns would waste most of the
machine. Here a caller that finds the machine free runs at once, alone. Others queue; whoever is first in the queue when a
search ends takes along all that wait for the same thing, and hands each its answer (flat combining: Hendler et al., SPAA
2010). There is no thread of its own and no delay to gather more. The lock is held for a few instructions only.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class _Call(Generic[Item, Answer]):
    """One caller: what it wants and, once `turn` is released, one of three things: an answer, a batch to lead, or neither,
    when it must run by itself."""

    def __init__(self, key: Hashable, size: int, item: Item) -> None:
        self.key, self.size, self.item = key, size, item
        self.turn = threading.Lock()
        self.turn.acquire()
        self.answer: Answer | None = None
        self.batch: list[_Call[Item, Answer]] | None = None


class Combiner(Generic[Item, Answer]):
    """Runs calls one after another, those with equal keys together.

    Parameters
    ----------
    compute : answers a list of items with equal keys, in order. Items alone must get the answers that they get together.
    most : the largest sum of sizes that run together.
    """

    def __init__(self, compute: Callable[[list[Item]], list[Answer]], most: int) -> None:
        self._compute, self._most = compute, most
        self._reset()
        _combiners.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self._waiting: deque[_Call[Item, Answer]] = deque()

    def run(self, key: Hashable, size: int, item: Item, slots: int = 1) -> Answer:
        """`compute([item])[0]`, perhaps together with others' items; `slots` batches may run at a time.

        Calls start in order of arrival, but for those that are taken along. If a batch fails or its leader is
        interrupted, every other member computes its own item, so it sees only its own errors.
        """
        call: _Call[Item, Answer] = _Call(key, size, item)
        with self._lock:
            free = self._running < slots
            if free:
                self._running += 1
            else:
                self._waiting.append(call)
        if free:
            return self._lead([call])
        try:
            call.turn.acquire()
        except BaseException:
            self._abandon(call)
            raise
        if call.batch is not None:
            return self._lead(call.batch)
        if call.answer is not None:
            return call.answer
        return self._compute([item])[0]

    def _lead(self, batch: list[_Call[Item, Answer]]) -> Answer:
        answers: list[Answer] | None = None
        others = batch[1:]
        try:
            answers = self._compute([call.item for call in batch])
        except Exception:
            if not others:
                raise
        finally:
            self._hand_over()
            for place, call in enumerate(others, 1):
                call.answer = None if answers is None else answers[place]
                call.turn.release()
        return self._compute([batch[0].item])[0] if answers is None else answers[0]

    def _hand_over(self) -> None:
        """Let the caller that has waited longest lead; it takes along whoever waits with the same key."""
        with self._lock:
            if not self._waiting:
                self._running -= 1
                return
            first = self._waiting.popleft()
            batch, size, others = [first], first.size, deque[_Call[Item, Answer]]()
            for call in self._waiting:
                if call.key == first.key and size + call.size <= self._most:
                    batch.append(call)
                    size += call.size
                else:
                    others.append(call)
            self._waiting = others
            first.batch = batch
            first.turn.release()

    def _abandon(self, call: _Call[Item, Answer]) -> None:
        """An interrupted wait: leave the queue, or pass on the lead if it came meanwhile."""
        with self._lock:
            if call in self._waiting:
                self._waiting.remove(call)
                return
            if call.batch is None:
                return  # part of a batch: its answer is dropped
            self._waiting.extendleft(reversed(call.batch[1:]))
        self._hand_over()


_combiners: weakref.WeakSet[Combiner[Any, Any]] = weakref.WeakSet()


def _forget_callers() -> None:
    """A forked child has none of its parent's threads and perhaps a held lock."""
    for combiner in _combiners:
        combiner._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_callers)
