"""Threads and caches between timed calls: one thread count for everyone, nobody's spinning threads, nobody's warm data.

BLAS and OpenMP pools keep spinning after a call (OpenBLAS for some 30 ms) and so hold a core that the next contender
needs. `Neutral.settle` keeps the cores busy with a loop that belongs to nobody until those threads have parked: merely
sleeping would let the clocks drop and charge the next contender for it. The same loop flushes the caches.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

FLUSH_BYTES = 256 << 20  # several times the last-level cache of the machines this is meant for
SETTLE_AT_LEAST_SECONDS = 0.03
SETTLE_AT_MOST_SECONDS = 1.0
_TASKS = Path("/proc/self/task")


def available_cores() -> int:
    """Number of cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_threads(threads: int) -> list[str]:
    """Give every library that is loaded by now `threads` threads; returns what could not be set, for the report.

    Call it after the peers are imported: a library loaded later has its own default.
    """
    from llmrec_fast.kernels.threads import set_threads

    unset: list[str] = []
    set_threads(threads)
    try:
        import threadpoolctl
    except ImportError:
        unset.append("threadpoolctl is not installed: BLAS and OpenMP keep their own thread counts")
    else:
        threadpoolctl.threadpool_limits(threads)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)
    if (faiss := sys.modules.get("faiss")) is not None:
        faiss.omp_set_num_threads(threads)
    return unset


class Neutral:
    """A load that belongs to no contender: streams a large array with `threads` threads.

    The array is allocated once, so that settling costs no page faults.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="neutral")
        self._pieces = np.array_split(np.ones(FLUSH_BYTES // 8), threads)
        self._fastest = float("inf")

    def stream(self) -> float:
        """Read the whole array once with all threads; returns the seconds it took.

        Of NumPy's reductions the maximum reads fastest: it waits for nothing but memory.
        """
        start = time.perf_counter()
        for done in [self._pool.submit(np.max, piece) for piece in self._pieces]:
            done.result()
        return time.perf_counter() - start

    def settle(self) -> None:
        """Stream until no thread of the process but this one runs, so that caches hold nobody's data."""
        start = time.perf_counter()
        while True:
            self.stream()
            spent = time.perf_counter() - start
            if spent > SETTLE_AT_MOST_SECONDS or (spent > SETTLE_AT_LEAST_SECONDS and running_threads() <= 1):
                return

    def bandwidth(self, repetitions: int = 5) -> float:
        """Bytes a second at which all threads together read memory: the best pass there has been, over several more."""
        self._fastest = min(self._fastest, *(self.stream() for _ in range(repetitions)))
        return sum(piece.nbytes for piece in self._pieces) / self._fastest


def running_threads() -> int:
    """How many threads of this process are running or runnable now (1, the caller, where the system does not tell)."""
    if not _TASKS.exists():
        return 1
    count = 0
    for task in _TASKS.iterdir():
        try:
            # the state follows the command name, which stands in parentheses and may hold anything
            count += (task / "stat").read_text().rpartition(")")[2].split()[0] == "R"
        except (FileNotFoundError, ProcessLookupError):  # the thread has just ended
            continue
    return max(count, 1)
