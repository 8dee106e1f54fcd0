"""The package's one thread pool.

Kernels release the GIL, so plain Python threads run them side by side. Numba's own parallel layer is never used: its
default backend aborts the process when two Python threads enter it. The calling thread always works too, and takes over
whatever the pool has not started, so a call finishes even when every pool thread is busy with other callers' work.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from llmrec_fast.arrays import as_count

Result = TypeVar("Result")

_lock = threading.Lock()
_pool: _Pool | None = None
_threads: int | None = None


def available_cores() -> int:
    """Number of cores this process may run on (its affinity mask where the system has one)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def get_threads() -> int:
    """Number of threads that a kernel call uses: what `set_threads` chose, else `available_cores()`."""
    return _threads if _threads is not None else available_cores()


def set_threads(threads: int | None) -> None:
    """Choose the number of threads a kernel call uses; None returns to the affinity mask. Results never depend on it."""
    global _threads, _pool
    threads = None if threads is None else as_count(threads, "threads")
    with _lock:
        _threads = threads
        retired, _pool = _pool, None
    if retired is not None:
        retired.retire()


def run_parallel(
    function: Callable[..., Result], calls: Sequence[tuple[Any, ...]], threads: int | None = None
) -> list[Result]:
    """`[function(*call) for call in calls]`, shared between the caller and the pool; the first error is raised.

    `threads` bounds how many threads take part, the caller included (default: `get_threads()`). Handing work to a pool
    thread costs some 20 to 40 microseconds: give calls that take much longer than that.
    """
    threads = get_threads() if threads is None else as_count(threads, "threads")
    helpers = min(threads, len(calls)) - 1
    if helpers <= 0:
        return [function(*call) for call in calls]
    work = _Work(function, calls)
    for _ in range(helpers):
        _submit(work.drain)
    work.drain()
    return work.wait()


def split_range(count: int, parts: int, multiple: int = 1) -> list[tuple[int, int]]:
    """Cut range(count) in at most `parts` nearly equal, non-empty (start, stop) pairs that start at multiples of `multiple`."""
    units = -(-count // multiple)
    parts = max(1, min(parts, units))
    cuts = [min(count, units * part // parts * multiple) for part in range(parts + 1)]
    return [(start, stop) for start, stop in itertools.pairwise(cuts) if stop > start]


class _Work(Generic[Result]):
    """Calls that several threads take from one queue. `deque.popleft` is atomic, so no lock guards the queue itself."""

    def __init__(self, function: Callable[..., Result], calls: Sequence[tuple[Any, ...]]) -> None:
        self._function = function
        self._queue = deque(enumerate(calls))
        self._results: list[Any] = [None] * len(calls)
        self._left = len(calls)
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        # held until the last call has ended: an event takes longer to make than some calls
        self._done = threading.Lock()
        self._done.acquire()

    def drain(self) -> None:
        while True:
            try:
                position, call = self._queue.popleft()
            except IndexError:
                return
            try:
                self._results[position] = self._function(*call)
            except BaseException as error:  # handed to the caller by wait(); a pool thread has nobody else to tell
                self._error = self._error or error
            with self._lock:
                self._left -= 1
                if self._left == 0:
                    self._done.release()

    def wait(self) -> list[Result]:
        self._done.acquire()
        if self._error is not None:
            raise self._error
        return self._results


class _Pool:
    """Threads that run tasks from one queue: as an executor of the standard library, without a future for every task, whose
    making took a tenth of the time of a short search. They end with the process and hold no task that anyone still needs then.
    """

    def __init__(self, threads: int) -> None:
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads = threads
        for number in range(threads):
            threading.Thread(target=self._run, name=f"llmrec_fast_{number}", daemon=True).start()

    def submit(self, task: Callable[[], None]) -> None:
        """Have a thread run `task`, which must not raise."""
        self._tasks.put(task)

    def retire(self) -> None:
        """Let the threads end once they have run what was submitted."""
        for _ in range(self._threads):
            self._tasks.put(None)

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
            del task  # an idle thread must not keep a search's arrays alive


def _submit(task: Callable[[], None]) -> None:
    global _pool
    with _lock:
        if _pool is None:
            _pool = _Pool(max(1, get_threads() - 1))
        _pool.submit(task)


def _forget_pool() -> None:
    """A forked child has none of its parent's threads and perhaps a held lock."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
