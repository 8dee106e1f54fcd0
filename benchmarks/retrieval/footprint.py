"""What an index costs beside its answers: time and memory of the build, and bytes of codes.

Every figure comes from a child process, so that nothing else this process holds is counted.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.report import Report, Target
from benchmarks.retrieval import oracle
from benchmarks.retrieval.child import in_child
from benchmarks.retrieval.data import Dataset

QUERIES, K = 16, 10
BUILD_SHAPE, BUILD_SECONDS = (480_000, 384), 8.0
PEAK_SHARE, CODES_SHARE = 1.6, 0.4


def run(report: Report, dataset: Dataset, threads: int) -> None:
    """Build from memory and out of core, load mapped, search; adds figures and targets to `report`."""
    name, bytes_of_rows = dataset.name, dataset.rows.nbytes
    with tempfile.TemporaryDirectory(prefix="llmrec-bench-") as folder:
        rows, queries, answers = (Path(folder) / f"{what}.npy" for what in ("rows", "queries", "answers"))
        np.save(rows, dataset.rows)
        np.save(queries, dataset.queries[:QUERIES])
        mapped = in_child("build", rows, Path(folder) / "mapped", threads, "mapped")
        built = in_child("build", rows, Path(folder) / "index", threads, "memory")
        kept = in_child("build", rows, Path(folder) / "kept", threads, "kept")
        found = in_child("search", Path(folder) / "index", queries, K, threads, answers)
        problem = oracle.find(dataset.rows, dataset.queries[:QUERIES], K).wrong_order(np.load(answers), K)
        if problem:
            raise RuntimeError(f"the index that was saved and mapped answers wrongly: {problem}")
    peak = built["peak_above_start_bytes"] / bytes_of_rows
    whole = (kept["peak_above_start_bytes"] + kept["own_rows_bytes"]) / bytes_of_rows
    # what the index says it holds, or what the process really holds after loading, whichever is more
    codes = max(built["code_bytes"], found["kept_bytes"]) / bytes_of_rows
    report.figures |= {
        f"{name}: build, s (from memory; out of core, files written)": [
            round(built["build_seconds"], 2),
            round(mapped["build_seconds"], 2),
        ],
        f"{name}: save, s": round(built["save_seconds"], 2),
        f"{name}: peak memory of the build beyond the caller's array, x float32 rows": round(peak, 3),
        f"{name}: the same with the caller's array counted": round(peak + built["own_rows_bytes"] / bytes_of_rows, 3),
        f"{name}: build that keeps the caller's array, s": round(kept["build_seconds"], 2),
        f"{name}: the same out of core": round(mapped["peak_above_start_bytes"] / bytes_of_rows, 3),
        f"{name}: codes and norms, x float32 rows": round(built["code_bytes"] / bytes_of_rows, 3),
        f"{name}: own memory after loading mapped, x float32 rows": round(found["kept_bytes"] / bytes_of_rows, 3),
        f"{name}: load mapped, s": round(found["load_seconds"], 3),
    }
    if dataset.rows.shape == BUILD_SHAPE:
        report.targets.append(Target(f"{name}: build", built["build_seconds"], BUILD_SECONDS, at_least=False, unit="s"))
    report.targets += [
        Target(f"{name}: peak memory of the build, of the float32 rows", peak, PEAK_SHARE, at_least=False),
        Target(
            f"{name}: whole process, building with copy=False, of the float32 rows", whole, PEAK_SHARE, at_least=False
        ),
        Target(f"{name}: codes and norms, of the float32 rows", codes, CODES_SHARE, at_least=False),
    ]
