"""Ten million rows on one machine: written, built and searched with the float32 rows on disk, never all in memory.

Rows are drawn with the mean and the spectrum of real vectors (`data.Spectrum`); queries are real vectors held out. Building
and searching run in child processes, whose memory is measured; the answers are checked against a float64 oracle that reads
the file once. The folder goes when the run ends, also by an interrupt or a SIGTERM.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Comparison, Measurement
from benchmarks.report import Cell, Report, Target
from benchmarks.retrieval import data, oracle
from benchmarks.retrieval.child import in_child
from benchmarks.threads import Neutral

QUERIES, K = 16, 10
WANTED_SHARE, WANTED_MEMORY = 0.1, 8.0
FULL_SHAPE = (10_000_000, 384)
# the rows, the index's own copy of them, and codes; each as a multiple of the rows' bytes
DISK_SHARE = 2.5
_ROWS_AT_A_TIME = 65_536


def run(report: Report, arguments: argparse.Namespace, base: Any, neutral: Neutral) -> None:
    """Add the cell, figures and targets of the out-of-core run to `report`."""
    rows, dimension = arguments.scale_rows, base.shape[1]
    with (
        _terminated_in_order(),
        tempfile.TemporaryDirectory(prefix="llmrec-scale-", dir=arguments.scale_folder) as folder,
    ):
        rows_path, queries_path, answers_path = (
            Path(folder) / f"{name}.npy" for name in ("rows", "queries", "answers")
        )
        index_path = Path(folder) / "index"
        _need_disk(Path(folder), 4 * rows * dimension)
        start = time.perf_counter()
        kept, held = data.hold_out(base, np.random.default_rng(0))
        queries = held[:QUERIES]
        write_rows(rows_path, rows, data.Spectrum(kept, arguments.scale_noise), dimension, arguments.threads)
        written = time.perf_counter() - start
        np.save(queries_path, queries)
        print(f"{rows:,} x {dimension} written in {written:.0f} s", flush=True)
        built = in_child("build", rows_path, index_path, arguments.threads, "mapped")
        print(f"built and saved in {built['build_seconds']:.0f} s", flush=True)
        found = in_child("search", index_path, queries_path, K, arguments.threads, answers_path)
        answers = oracle.find(np.load(rows_path, mmap_mode="r"), queries, K)
        if problem := answers.wrong_order(np.load(answers_path), K):
            raise RuntimeError(f"wrong answer at {rows:,} rows: {problem}")
    measured = Measurement("llmrec_fast", "hot", found["search_seconds"], ours=True)
    one_pass = 4 * rows * dimension / neutral.bandwidth()
    share = measured.median / one_pass
    figures: dict[str, float | str] = {"one float32 pass, ms": 1e3 * one_pass, "ours / one pass": share}
    labels = {"data": "spectrum of real", "noise": arguments.scale_noise, "N": rows, "d": dimension, "Q": 1, "k": K}
    report.cells.append(Cell(labels, Comparison([measured], []), figures))
    memory = max(built["largest_resident_bytes"], found["largest_resident_bytes"])
    report.figures |= {
        "rows written, s": round(written),
        "built out of core and saved, s": round(built["build_seconds"]),
        "loaded mapped, s": round(found["load_seconds"], 2),
        "codes and norms, GB": round(built["code_bytes"] / 1e9, 2),
        "build: own memory at its peak, GB": round(built["peak_above_start_bytes"] / 1e9, 2),
        "build: largest resident set, mapped pages counted, GB": round(built["largest_resident_bytes"] / 1e9, 2),
        "search: own memory after loading, GB": round(found["kept_bytes"] / 1e9, 2),
        "search: largest resident set, mapped pages counted, GB": round(found["largest_resident_bytes"] / 1e9, 2),
    }
    if (rows, dimension) == FULL_SHAPE:
        report.targets += [
            Target("single query, time over one float32 pass", share, WANTED_SHARE, at_least=False),
            Target("largest resident set", memory / 1e9, WANTED_MEMORY, at_least=False, unit="GB"),
        ]


def write_rows(path: Path, rows: int, source: data.Spectrum, dimension: int, threads: int) -> None:
    """Write `rows` unit vectors drawn from `source` to a .npy file, piece by piece.

    The pieces are drawn from their own seeds, so the file does not depend on the number of threads.
    """
    shape = (rows, dimension)
    file = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    del file  # written through ordinary file writes: dirty mapped pages would count as resident memory
    with path.open("rb") as opened:
        np.lib.format.read_magic(opened)
        np.lib.format.read_array_header_1_0(opened)
        offset = opened.tell()

    def write(start: int) -> None:
        piece = source.draw(min(_ROWS_AT_A_TIME, rows - start), np.random.default_rng([7, start]))
        with path.open("r+b") as opened:
            opened.seek(offset + 4 * start * dimension)
            opened.write(piece.tobytes())

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(write, range(0, rows, _ROWS_AT_A_TIME)):
            pass


@contextmanager
def _terminated_in_order() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that children are ended and tens of gigabytes do not stay behind."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _need_disk(folder: Path, rows_bytes: int) -> None:
    needed, free = int(DISK_SHARE * rows_bytes), shutil.disk_usage(folder).free
    print(f"this needs {needed / 1e9:.0f} GB of disk in {folder}; {free / 1e9:.0f} GB are free", flush=True)
    if free < needed:
        raise SystemExit(f"not enough disk: {needed / 1e9:.0f} GB are needed; choose a folder with --scale-folder")
