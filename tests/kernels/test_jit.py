"""Numba is set up without what no kernel here needs, and stays whole for others in the process."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import sys
import numpy as np
from llmrec_fast.kernels.cpu import pool
one = np.ones(1, np.int64)
pool(np.ones((1, 4), np.float32), 0 * one, one)
assert "numba" in sys.modules
assert "scipy.linalg" not in sys.modules

import numba
from numba.np import arraymath, linalg
assert arraymath._HAVE_BLAS
assert arraymath.ensure_blas is linalg.ensure_blas
product = numba.njit(lambda a, b: a @ b)
np.testing.assert_allclose(product(np.eye(3), np.full((3, 3), 2.0)), np.full((3, 3), 2.0))
assert "scipy.linalg" in sys.modules
"""


def test_a_first_kernel_does_not_import_scipys_linear_algebra_and_blas_still_works() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
