"""The kernels on the CPU, compiled by Numba. Importing this package imports Numba."""

from llmrec_fast.kernels.cpu.bounded_search import bounded_search
from llmrec_fast.kernels.cpu.encode_rows import encode_rows
from llmrec_fast.kernels.cpu.fuse import fuse
from llmrec_fast.kernels.cpu.pool import pool

__all__ = ["bounded_search", "encode_rows", "fuse", "pool"]
