"""The device that the suite `gpu` measures on: moving arrays, waiting, flushing its cache, its bandwidth."""

from __future__ import annotations

import time
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.threads import Neutral

# several times the second-level cache of the largest GPUs
FLUSH_BYTES = 512 << 20
_COPIES = 8


class Device(Protocol):
    """What the suite asks of a device. Tests bring one without a GPU."""

    name: str

    def upload(self, array: npt.NDArray[Any]) -> Any:
        """A copy on the device."""

    def download(self, array: Any) -> npt.NDArray[Any]:
        """A copy on the host."""

    def synchronize(self) -> None:
        """Wait until the device has finished."""

    def flush(self) -> None:
        """Fill the device's cache with something else."""

    def bandwidth(self) -> float:
        """Bytes a second, read plus written, of a plain copy on the device."""


class CuPyDevice:
    """The current GPU, through CuPy."""

    def __init__(self) -> None:
        import cupy

        self._cupy = cupy
        properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())
        gigabytes = properties["totalGlobalMem"] / 2**30
        version = cupy.cuda.runtime.runtimeGetVersion()
        self.name = f"{properties['name'].decode()}, {gigabytes:.0f} GiB, CUDA runtime {version}"
        self._buffers: list[Any] = []

    def upload(self, array: npt.NDArray[Any]) -> Any:
        return self._cupy.asarray(array)

    def download(self, array: Any) -> npt.NDArray[Any]:
        return np.asarray(self._cupy.asnumpy(self._cupy.asarray(array)))

    def synchronize(self) -> None:
        self._cupy.cuda.runtime.deviceSynchronize()

    def flush(self) -> None:
        source, target = self._flush_buffers()
        self._cupy.copyto(target, source)
        self.synchronize()

    def bandwidth(self) -> float:
        source, target = self._flush_buffers()
        best = float("inf")
        for _ in range(_COPIES):
            self.synchronize()
            start = time.perf_counter()
            self._cupy.copyto(target, source)
            self.synchronize()
            best = min(best, time.perf_counter() - start)
        return float(source.nbytes + target.nbytes) / best

    def _flush_buffers(self) -> tuple[Any, Any]:
        # zeros: set by the driver, where ones would have CuPy compile a kernel, which needs NVRTC
        if not self._buffers:
            self._buffers = [self._cupy.zeros(FLUSH_BYTES // 8, self._cupy.float32) for _ in range(2)]
        return self._buffers[0], self._buffers[1]


class DeviceNeutral(Neutral):
    """Settling, on a device: everything has ended and the cache holds nobody's data."""

    def __init__(self, device: Device) -> None:
        super().__init__(1)
        self._device = device

    def settle(self) -> None:
        self._device.flush()
