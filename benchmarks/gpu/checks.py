"""Run the kernel and index tests on the GPU, before anything is timed there: figures of wrong kernels mean nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.harness import Disagreement

ROOT = Path(__file__).parents[2]
TESTS = ("tests/kernels", "tests/retrieval/test_cuda_index.py")
# parametrised by device: "cuda" is the GPU, "cuda-emulated..." is not
SELECTION = "cuda and not emulated and not attack"


def run() -> list[str]:
    """Notes for the report.

    Raises
    ------
    Disagreement : a test failed.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS, "-k", SELECTION]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    summary = done.stdout.strip().rpartition("\n")[2]
    if done.returncode:
        raise Disagreement(
            f"tests fail on this GPU ({' '.join(command[1:])}):\n{done.stdout[-4000:]}{done.stderr[-2000:]}"
        )
    return [f"tests on this GPU: {summary}"]
