"""The CUDA kernels' suite once more under the address and undefined-behaviour sanitizers, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.simt import build

SUITES = ("test_pool.py", "test_fuse.py", "test_cuda.py", "test_cuda_bounded_search.py")


@pytest.mark.emulated
def test_the_suite_passes_under_the_sanitizers():
    if (reason := build.missing_for_module()) is not None:
        pytest.skip(f"the CUDA kernels cannot be emulated here: {reason}")
    build.build_module("sanitized")  # here, where no sanitizer slows the compiler down
    environment = {**build.sanitizer_environment(), "LLMREC_EMULATION_VARIANT": "sanitized"}
    suites = [f"tests/kernels/{suite}" for suite in SUITES]
    one_order = "cuda-emulated-random-1 or test_cuda.py"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        *suites,
        "-m",
        "emulated",
        "-k",
        one_order,
    ]
    done = subprocess.run(command, cwd=build.ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
