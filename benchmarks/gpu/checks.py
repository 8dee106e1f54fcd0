"""Run the kernel and index tests on the GPU, before anything is timed there: figures of wrong kernels mean nothing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from benchmarks.harness import Disagreement

ROOT = Path(__file__).parents[2]
TESTS = ("tests/kernels", "tests/retrieval/test_cuda_index.py", "tests/retrieval/test_cuda_arrays.py")
NEEDED = ("pytest", "hypothesis", "ml_dtypes")
# parametrised by device: "cuda" is the GPU, "cuda-emulated..." is not
SELECTION = "cuda and not emulated and not attack"


def run() -> list[str]:
    """Notes for the report.

    Raises
    ------
    SystemExit : a package that the tests need is not installed.
    Disagreement : a test failed, or there was none to run.
    """
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise SystemExit(
            f'the tests need {", ".join(missing)}: pip install "llmrec-fast[bench-gpu]", or --without-tests'
        )
    # a warning of another library (CuPy's, say) says nothing about the kernels
    options = ["-q", "-p", "no:cacheprovider", "-W", "default"]
    command = [sys.executable, "-m", "pytest", *options, *TESTS, "-k", SELECTION]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    summary = done.stdout.strip().rpartition("\n")[2]
    if done.returncode:
        raise Disagreement(
            f"tests fail on this GPU ({' '.join(command[1:])}):\n{done.stdout[-4000:]}{done.stderr[-2000:]}"
        )
    return [f"tests on this GPU: {summary}"]
