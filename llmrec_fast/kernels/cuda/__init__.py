"""The kernels on a GPU: same functions as `kernels.cpu`, over the compiled extension `llmrec_fast._cuda`.

Arrays may be NumPy arrays or live on the device: anything with DLPack or `__cuda_array_interface__` (CuPy, PyTorch, JAX, Numba)
goes in without a copy. A call runs on the caller's stream, does not wait for it, and gives a device array back if any of its
arguments was one; with NumPy arrays only, it copies, waits, and gives a NumPy array back.
"""

from llmrec_fast.kernels.cuda.bounded_search import bounded_search
from llmrec_fast.kernels.cuda.encode_rows import encode_rows
from llmrec_fast.kernels.cuda.fuse import fuse
from llmrec_fast.kernels.cuda.pool import pool
from llmrec_fast.kernels.cuda.runtime import why_unavailable

__all__ = ["bounded_search", "encode_rows", "fuse", "pool", "why_unavailable"]
