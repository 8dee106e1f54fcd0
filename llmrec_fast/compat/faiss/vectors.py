"""FAISS's std::vector and pointers, over NumPy arrays: `vector_to_array`, `swig_ptr` and its reverse."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from llmrec_fast.compat.faiss.metrics import FaissError


class Vector:
    """A read-only array with the methods of a std::vector. Nothing is copied until it is asked for."""

    def __init__(self, values: npt.NDArray[Any]) -> None:
        self._values = values

    def at(self, position: int) -> Any:
        """One value."""
        return self._values[position].item()

    def size(self) -> int:
        """How many values there are."""
        return len(self._values)

    def data(self) -> npt.NDArray[Any]:
        """The values, as `swig_ptr` gives them."""
        return self._values

    def __len__(self) -> int:
        return len(self._values)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self._values, dtype, copy=copy)


def vector_to_array(v: Vector) -> npt.NDArray[Any]:
    """A copy of the values of a `Vector`, such as an index's `id_map` or `codes`."""
    if not isinstance(v, Vector):
        raise FaissError(f"v must be a vector of this module; got {type(v).__name__}")
    return v.data().copy()


def swig_ptr(a: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Where FAISS wants a pointer to an array, this module takes the array itself."""
    if not isinstance(a, np.ndarray) or not a.flags.c_contiguous:
        raise FaissError("a must be a C-contiguous array")
    return a


def rev_swig_ptr(ptr: npt.NDArray[Any], n: int) -> npt.NDArray[Any]:
    """The first n values of what `swig_ptr`, `Vector.data` or `get_xb` gave."""
    if not isinstance(ptr, np.ndarray) or not 0 <= n <= ptr.size:
        raise FaissError(f"ptr must hold {n} values or more; got {np.size(ptr)}")
    return ptr.reshape(-1)[:n]
