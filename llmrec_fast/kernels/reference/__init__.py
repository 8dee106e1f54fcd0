"""The kernels in plain NumPy and float64: slow, obvious, and the oracle for every other device."""

from llmrec_fast.kernels.reference.bounded_search import bounded_search
from llmrec_fast.kernels.reference.encode_rows import encode_rows
from llmrec_fast.kernels.reference.fuse import fuse
from llmrec_fast.kernels.reference.pool import pool

__all__ = ["bounded_search", "encode_rows", "fuse", "pool"]
