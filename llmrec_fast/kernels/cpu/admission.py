"""Let no more searches compute at once than there are cores, first come, first served.

Eight callers on two cores gain nothing from eight searches that take turns: each then waits for all of them, and the
unlucky ones
much longer. Here a step of a search (one group of queries, some milliseconds) waits for its turn and then has a core
to itself, so
latencies under load are even. A batch asks again for every group, so single queries pass between them. The lock
inside is held for a few instructions only; nobody computes under it.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Admission:
    """`slots` steps run at a time; a step that ends hands its slot to the one that has waited longest."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all callers: a forked child has none of its parent's threads."""
        self._lock = threading.Lock()
        self._running = 0
        self._waiting: deque[threading.Lock] = deque()

    @contextmanager
    def step(self, slots: int) -> Iterator[int]:
        """Wait for a slot; yields how many steps run now, this one included."""
        turn: threading.Lock | None = None
        with self._lock:
            if self._running < slots and not self._waiting:
                self._running += 1
            else:
                turn = threading.Lock()
                turn.acquire()
                self._waiting.append(turn)
        if turn is not None:
            try:
                turn.acquire()  # released by the step that hands its slot over
            except BaseException:
                self._abandon(turn)
                raise
        try:
            yield self._running
        finally:
            self._leave()

    def _leave(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._running -= 1

    def _abandon(self, turn: threading.Lock) -> None:
        """An interrupted wait: leave the queue, or pass on the slot if it came meanwhile."""
        with self._lock:
            if turn in self._waiting:
                self._waiting.remove(turn)
                return
        self._leave()


admission = Admission()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=admission.reset)
