"""Device memory of the emulated runtime: NumPy arrays behind a wall, so that host code cannot read them by accident."""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from llmrec_fast.kernels.cuda.memory import Place
from llmrec_fast.kernels.cuda.runtime import Runtime
from tests.simt import build

ORDERS = [("ascending", 0), ("descending", 0), ("random", 1), ("random", 2), ("random", 3)]


class DeviceArray:
    """An array that only `__cuda_array_interface__` (version 3) gives away: what another library's device array looks like.

    NumPy refuses it, so code that reads device memory on the host without a download fails in the tests, as on a GPU.
    """

    def __init__(self, host: np.ndarray, stream: int | None = None, typestr: str | None = None) -> None:
        self._host = host
        self._stream = stream
        self._typestr = typestr or ("<V2" if host.dtype.name == "bfloat16" else host.dtype.str)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self._host.shape,
            "typestr": self._typestr,
            "data": (self._host.ctypes.data, not self._host.flags.writeable),
            "strides": None if self._host.flags.c_contiguous else self._host.strides,
            "version": 3,
            "stream": self._stream,
        }

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise TypeError("a device array cannot be read on the host")

    @property
    def shape(self) -> tuple[int, ...]:
        return self._host.shape


class EmulatedMemory:
    """The `Memory` of the emulated runtime. `place` is what a caller's library would call its current stream."""

    def __init__(self, synchronize: Callable[[int, int], None]) -> None:
        self._synchronize = synchronize
        # what a deferred stream has yet to use: a pool that is ordered by streams hands freed memory out no earlier either
        self._in_use: deque[DeviceArray] = deque(maxlen=1000)
        self.place = Place(0, 0)

    def current_place(self) -> Place:
        return self.place

    def empty(self, shape: tuple[int, ...], dtype: Any, place: Place) -> DeviceArray:
        # exactly as many bytes as asked for, poisoned: the sanitizer sees one more, and a test sees what was not written
        host = np.frombuffer(bytearray(b"\xff" * (int(np.prod(shape)) * np.dtype(dtype).itemsize)), dtype).reshape(
            shape
        )
        return self._keep(DeviceArray(host))

    def upload(self, array: np.ndarray, place: Place) -> DeviceArray:
        return self._keep(DeviceArray(np.array(array)))

    def write(self, array: DeviceArray, start: int, values: np.ndarray, place: Place) -> None:
        self._synchronize(place.device, place.stream)
        array._host[start : start + len(values)] = values

    def download(self, array: DeviceArray, place: Place) -> np.ndarray:
        self._synchronize(place.device, place.stream)
        self._in_use.clear()
        return array._host.copy()

    def pointer(self, array: DeviceArray) -> int:
        return int(array._host.ctypes.data)

    @contextmanager
    def at(self, place: Place) -> Iterator[None]:
        before, self.place = self.place, place
        try:
            yield
        finally:
            self.place = before

    def _keep(self, array: DeviceArray) -> DeviceArray:
        self._in_use.append(array)
        return array


class Emulation:
    """The emulated extension module with its controls: the order of blocks and threads, deferred streams, watched memory."""

    def __init__(self, variant: build.Variant = "plain") -> None:
        self.extension: ModuleType = build.load_module(variant)
        assert self.extension.__file__ is not None
        self.controls = ctypes.CDLL(str(Path(self.extension.__file__)))
        self.memory = EmulatedMemory(self.extension.synchronize)
        self.runtime = Runtime(self.extension, self.memory)

    def set_order(self, order: str, seed: int = 0) -> None:
        self.controls.simt_set_order(["ascending", "descending", "random"].index(order), ctypes.c_uint64(seed))

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Streams execute nothing until somebody waits for them."""
        self.controls.simt_set_deferred(1)
        try:
            yield
        finally:
            self.controls.simt_set_deferred(0)

    @contextmanager
    def on_device(self, array: np.ndarray, device: int) -> Iterator[None]:
        """Let `array` be memory of this device, or of the host (-1)."""
        start = ctypes.c_void_p(array.ctypes.data)
        self.controls.simt_set_device(start, ctypes.c_size_t(array.nbytes), device)
        yield
        self.controls.simt_set_device(start, ctypes.c_size_t(0), 0)

    def watch(self, start: int, size: int) -> None:
        """Count what kernels read and write there from now on; start 0: everywhere but in shared memory (race check only)."""
        self.controls.simt_watch(ctypes.c_void_p(start or None), ctypes.c_size_t(size))

    def watched_reads(self) -> int:
        """Bytes that kernels have read in the watched region."""
        self.controls.simt_watched_reads.restype = ctypes.c_uint64
        return int(self.controls.simt_watched_reads())

    def watched_writes(self) -> int:
        """Bytes that kernels have written in the watched region."""
        self.controls.simt_watched_writes.restype = ctypes.c_uint64
        return int(self.controls.simt_watched_writes())

    def shared_bytes(self) -> dict[str, int]:
        """For each kernel launched so far, by its mangled name, the most dynamic shared memory it was launched with."""
        self.controls.simt_shared_bytes.restype = ctypes.c_char_p
        pairs = (line.split() for line in self.controls.simt_shared_bytes().decode().splitlines())
        return {name: int(size) for name, size in pairs}

    @contextmanager
    def no_launches(self) -> Iterator[None]:
        """Fails the test if a kernel is launched meanwhile."""
        before = self.controls.simt_launches()
        yield
        assert self.controls.simt_launches() == before, "a kernel was launched"
