"""The kernels on the CPU, compiled by Numba. Importing this package imports Numba."""

from llmrec_fast.kernels.cpu.fuse import fuse
from llmrec_fast.kernels.cpu.pool import pool

__all__ = ["fuse", "pool"]
