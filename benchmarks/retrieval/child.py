"""Jobs that need a process of their own, because they measure memory or a fresh start. Prints one JSON object.

`python -m benchmarks.retrieval.child JOB ...` is run by `in_child`; it is not meant for the command line.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_SAMPLE_SECONDS = 0.005


def in_child(job: str, *words: object) -> dict[str, Any]:
    """Run one job of this module in a fresh interpreter.

    Raises
    ------
    RuntimeError : the job failed; the message holds its standard error.
    """
    command = [sys.executable, "-m", "benchmarks.retrieval.child", job, *map(str, words)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} exited with {done.returncode}:\n{done.stderr[-4000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


class MemoryPeak:
    """The largest anonymous resident memory of this process while the context is open, in bytes, above the start.

    Anonymous memory is what the process itself allocated; pages of mapped files can be dropped at any time and are left out.
    """

    def __enter__(self) -> MemoryPeak:
        self.before = self.peak = status_bytes("RssAnon")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.after = status_bytes("RssAnon")
        self.peak = max(self.peak, self.after)

    def _watch(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            self.peak = max(self.peak, status_bytes("RssAnon"))


def status_bytes(name: str) -> int:
    """A size from /proc/self/status; 0 on systems that have none.

    Not `getrusage`: its largest resident size is inherited from the parent that started this process.
    """
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else []:
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def build(rows_path: str, folder: str, threads: str, source: str) -> dict[str, Any]:
    """Build an index over the rows and save it. `source`: out of core from the "mapped" file, or from "memory", with a copy
    of the rows or with the rows "kept" as they are."""
    from llmrec_fast.retrieval import Index, warmup

    warmup()
    on_disk = source == "mapped"
    rows = np.load(rows_path, mmap_mode="r" if on_disk else None)
    with MemoryPeak() as memory:
        start = time.perf_counter()
        index = Index.build(
            rows, metric="dot", threads=int(threads), path=folder if on_disk else None, copy=source != "kept"
        )
        built = time.perf_counter()
    if not on_disk:
        index.save(folder)
    return {
        "build_seconds": built - start,
        "save_seconds": time.perf_counter() - built,
        "code_bytes": index.code_bytes,
        "rows_bytes": rows.nbytes,
        "own_rows_bytes": 0 if on_disk else rows.nbytes,
        "peak_above_start_bytes": memory.peak - memory.before,
        "kept_bytes": memory.after - memory.before,
        "largest_resident_bytes": status_bytes("VmHWM"),
    }


def search(folder: str, queries_path: str, k: str, threads: str, answers_path: str) -> dict[str, Any]:
    """Load a saved index with its rows mapped, then time single queries: one pass to warm up, three timed ones."""
    from llmrec_fast.retrieval import Index, warmup

    warmup()
    queries = np.load(queries_path)
    with MemoryPeak() as memory:
        start = time.perf_counter()
        index = Index.load(folder, mmap=True, threads=int(threads))
        load_seconds = time.perf_counter() - start
    answers = np.concatenate([index.search(query[None], int(k)).ids for query in queries])
    np.save(answers_path, answers)
    seconds = []
    for query in list(queries) * 3:
        start = time.perf_counter()
        index.search(query[None], int(k))
        seconds.append(time.perf_counter() - start)
    return {
        "load_seconds": load_seconds,
        "search_seconds": seconds,
        "kept_bytes": memory.after - memory.before,
        "largest_resident_bytes": status_bytes("VmHWM"),
    }


def first() -> dict[str, Any]:
    """From `import llmrec_fast` to the answer of a first search, kernels cached on disk: seconds of each step on the way."""
    # enough rows to be encoded, so that the kernels of the scan are needed
    rows = np.random.default_rng(0).standard_normal((5000, 64), dtype=np.float32)
    start, cpu_start = time.perf_counter(), time.process_time()
    import llmrec_fast

    imported = time.perf_counter()
    index_class = llmrec_fast.Index  # imports Numba and the kernels' Python code
    compiled = time.perf_counter()
    from llmrec_fast.kernels.jit import KernelCache

    loads: list[float] = []
    load = KernelCache.load_overload

    def timed_load(*arguments: Any) -> Any:
        before = time.perf_counter()
        loaded = load(*arguments)
        loads.append(time.perf_counter() - before)
        return loaded

    KernelCache.load_overload = timed_load  # type: ignore[method-assign, assignment]
    index = index_class.build(rows, metric="dot")
    built = time.perf_counter()
    index.search(rows[:1], 10)
    answered = time.perf_counter()
    return {
        "import": imported - start,
        "numba": compiled - imported,
        "build": built - compiled,
        "search": answered - built,
        "answer": answered - start,
        "cpu": time.process_time() - cpu_start,
        "first_kernel": loads[0],
        "other_kernels": sum(loads[1:]),
        "kernels": len(loads),
    }


if __name__ == "__main__":
    jobs: dict[str, Callable[..., dict[str, Any]]] = {"build": build, "search": search, "first": first}
    print(json.dumps(jobs[sys.argv[1]](*sys.argv[2:])))
