"""Device memory, owned through an array namespace. Kernels see pointers only; who allocates, copies and frees is decided here.

`Memory` is all that the CUDA kernels ask of a namespace. `CuPyMemory` is the one of a GPU; tests bring their own.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from llmrec_fast.errors import MissingDependency


@dataclass(frozen=True)
class Place:
    """Where a call runs: a device and one of its streams (a `cudaStream_t` as an integer; 0 is the default stream)."""

    device: int
    stream: int


class Memory(Protocol):
    """An array namespace on a device. What it does on a stream is ordered with the kernels there; the host does not wait."""

    def current_place(self) -> Place:
        """The device and stream on which the caller of the package works."""

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike, place: Place) -> Any:
        """A new C-contiguous device array, which other libraries can take through `__cuda_array_interface__`."""

    def upload(self, array: npt.NDArray[Any], place: Place) -> Any:
        """A copy of a host array on the device."""

    def write(self, array: Any, start: int, values: npt.NDArray[Any], place: Place) -> None:
        """Copy host values over array[start : start + len(values)]."""

    def download(self, array: Any, place: Place) -> npt.NDArray[Any]:
        """A copy of a device array on the host. Waits for the stream."""

    def pointer(self, array: Any) -> int:
        """The address of an array that came from this object."""

    def at(self, place: Place) -> AbstractContextManager[Any]:
        """Make the device and stream of `place` current, for other libraries that allocate or enqueue meanwhile."""


class CuPyMemory:
    """Memory from CuPy's pool, which keeps what is freed and hands it out again on the same stream without waiting."""

    def __init__(self) -> None:
        try:
            import cupy
        except ImportError as error:
            raise MissingDependency(
                'device="cuda" needs CuPy: pip install "llmrec-fast[gpu]" (CUDA 12) or "llmrec-fast[gpu-cu13]" (CUDA 13)'
            ) from error
        self._cupy = cupy

    def current_place(self) -> Place:
        """CuPy's current device and stream."""
        return Place(self._cupy.cuda.runtime.getDevice(), self._cupy.cuda.get_current_stream().ptr)

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike, place: Place) -> Any:
        """A new `cupy.ndarray`."""
        with self.at(place):
            return self._cupy.empty(shape, dtype)

    def upload(self, array: npt.NDArray[Any], place: Place) -> Any:
        """A copy through pinned memory, ordered on the stream."""
        with self.at(place):
            return self._cupy.array(array)

    def write(self, array: Any, start: int, values: npt.NDArray[Any], place: Place) -> None:
        """Through `cupy.ndarray.set`, ordered on the stream."""
        with self.at(place):
            array[start : start + len(values)].set(values)

    def download(self, array: Any, place: Place) -> npt.NDArray[Any]:
        """A copy on the host; waits for the stream."""
        with self.at(place):
            return np.asarray(self._cupy.asnumpy(array))

    def pointer(self, array: Any) -> int:
        """`array.data.ptr`."""
        return int(array.data.ptr)

    def at(self, place: Place) -> AbstractContextManager[Any]:
        """CuPy's current device and stream meanwhile; the device is CUDA's own too."""
        stack = ExitStack()
        stack.enter_context(self._cupy.cuda.Device(place.device))
        stream = (
            self._cupy.cuda.ExternalStream(place.stream, place.device) if place.stream else self._cupy.cuda.Stream.null
        )
        stack.enter_context(stream)
        return stack
