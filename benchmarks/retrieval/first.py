"""The first answer of a fresh process, kernels cached on disk, and what the time until then is spent on."""

from __future__ import annotations

import statistics

from benchmarks.report import Report, Target
from benchmarks.retrieval.child import in_child

PROCESSES, WANTED_SECONDS = 5, 0.5
_STEPS = {
    "import": "import llmrec_fast",
    "numba": "import of Numba and the index",
    "build": "build of a small index",
    "search": "first search",
    "first_kernel": "of which: first kernel loaded, and Numba set up",
    "other_kernels": "of which: other kernels loaded",
    "cpu": "processor time until the first answer",
}


def run(report: Report) -> None:
    """Start some processes one after another; adds medians and the target."""
    in_child("first")  # compiles what is not cached yet
    runs = [in_child("first") for _ in range(PROCESSES)]
    medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    report.figures |= {f"fresh process, ms: {text}": round(1e3 * medians[name], 1) for name, text in _STEPS.items()}
    report.figures["fresh process: kernels loaded from the cache"] = medians["kernels"]
    report.figures["fresh process: first answer, s, each of them"] = [round(run["answer"], 3) for run in runs]
    name = f"fresh process: import to first answer, median of {PROCESSES}"
    report.targets.append(Target(name, medians["answer"], WANTED_SECONDS, at_least=False, unit="s"))
