"""What the CUDA kernels run on: the compiled extension, device memory, and the workspaces that calls share.

`runtime()` opens it on first use and says what is missing where it cannot. Tests put another one in its place (`using`).
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import device_of
from llmrec_fast.errors import CudaError, DeviceUnavailable, InvalidInput, MissingDependency
from llmrec_fast.kernels.cuda import views
from llmrec_fast.kernels.cuda.memory import CuPyMemory, Memory, Place
from llmrec_fast.kernels.cuda.views import DeviceView

_HOW_TO_BUILD = (
    'install from a checkout with the CUDA toolkit (nvcc 12 or 13) on the PATH: LLMREC_CUDA=1 pip install ".[gpu]"'
)


@dataclass(frozen=True)
class Runtime:
    """One extension module with the memory that goes with it."""

    extension: Any  # the module llmrec_fast._cuda, or the one that tests emulate
    memory: Memory
    _workspaces: dict[Place, _Workspace] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def find_place(self, arrays: Mapping[str, object]) -> tuple[Place, bool]:
        """Where a call with these arguments runs, and whether any of them is on a device.

        The stream is the caller's: PyTorch's current one for PyTorch tensors, else CuPy's. `InvalidInput` if the arguments
        are on different devices, or the stream is of another device than they are.
        """
        found: dict[str, int] = {}
        stream: int | None = None
        for name, array in arrays.items():
            device = None if array is None or isinstance(array, np.ndarray) else device_of(array)
            if device is None:
                continue
            found[name] = device if device >= 0 else self._device_of_interface(name, array)
            stream = views.stream_of(array, found[name]) if stream is None else stream
        current = self.memory.current_place()
        if not found:
            return current, False
        if len(set(found.values())) > 1:
            where = ", ".join(f"{name} on {device}" for name, device in found.items())
            raise InvalidInput(f"all arrays of a call must be on one device; got {where}")
        device = next(iter(found.values()))
        stream = current.stream if stream is None else stream
        # every device has its own default stream behind the number 0
        stream_device = self.extension.device_of_stream(stream) if stream else device
        if stream_device != device:
            raise InvalidInput(
                f"the current stream belongs to device {stream_device}, the arrays are on device {device}"
            )
        return Place(device, stream), True

    def on_device(self, name: str, array: Any, place: Place) -> DeviceView:
        """A view of a device array, or of a copy of a host array, for kernels on `place`."""
        if is_host(array):
            host = np.ascontiguousarray(array)
            dtype = host.dtype.name
            bits = host.view(np.uint16) if dtype == "bfloat16" else host  # namespaces on devices rarely know bfloat16
            copied = self.memory.upload(bits, place)
            return DeviceView(name, self.memory.pointer(copied), host.shape, dtype, copied)
        return views.view(name, array, place, self.extension.wait_for)

    def new(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike, place: Place) -> DeviceView:
        """A new device array; it is the view's `owner`."""
        array = self.memory.empty(shape, dtype, place)
        return DeviceView(name, self.memory.pointer(array), shape, np.dtype(dtype).name, array)

    def copy(self, target: int, source: int, size: int, place: Place) -> None:
        """Copy `size` bytes of device memory, in order on the stream."""
        self.extension.copy(device=place.device, stream=place.stream, target=target, source=source, bytes=size)

    def read(self, pointer: int, out: npt.NDArray[Any], place: Place) -> None:
        """Fill a C-contiguous host array with device memory. Waits for the stream."""
        self.copy(out.ctypes.data, pointer, out.nbytes, place)
        self.extension.synchronize(place.device, place.stream)

    @contextmanager
    def workspace(self, size: int, place: Place) -> Iterator[tuple[int, int]]:
        """Pointer and size of at least `size` bytes, kept from call to call.

        Calls on one stream follow each other on the device, so they may share it; on the host they enqueue in turn.
        """
        with self._lock:
            workspace = self._workspaces.setdefault(place, _Workspace())
        with workspace.lock:
            if workspace.size < size:
                workspace.array = self.memory.empty((size,), np.uint8, place)
                workspace.size = size
            yield (self.memory.pointer(workspace.array) if workspace.size else 0), workspace.size

    def _device_of_interface(self, name: str, array: Any) -> int:
        pointer = array.__cuda_array_interface__["data"][0]
        device = int(self.extension.device_of(pointer)) if pointer else self.memory.current_place().device
        if device < 0:
            raise InvalidInput(f"{name} has a __cuda_array_interface__, but its memory is on no device")
        return device


@dataclass
class _Workspace:
    array: Any = None
    size: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def is_host(array: object) -> bool:
    """Whether NumPy can look at `array`."""
    return isinstance(array, np.ndarray) or device_of(array) is None


_opening = threading.Lock()
_opened: Runtime | None = None


def runtime() -> Runtime:
    """The runtime of this machine's GPU, opened on first use; raises `DeviceUnavailable` or `MissingDependency`."""
    global _opened
    with _opening:
        if _opened is None:
            extension = load_extension()
            _opened = Runtime(extension, CuPyMemory())
        return _opened


@contextmanager
def using(other: Runtime) -> Iterator[None]:
    """Let all CUDA kernels run on `other` meanwhile (tests)."""
    global _opened
    with _opening:
        before, _opened = _opened, other
    try:
        yield
    finally:
        with _opening:
            _opened = before


def load_extension() -> Any:
    """The module `llmrec_fast._cuda`, if it is there and finds a GPU; raises `DeviceUnavailable` with the reason."""
    try:
        extension = importlib.import_module("llmrec_fast._cuda")
    except ModuleNotFoundError as error:
        raise DeviceUnavailable(f"this installation has no CUDA extension; {_HOW_TO_BUILD}") from error
    except ImportError as error:
        raise DeviceUnavailable(f"the CUDA extension cannot be loaded ({error}); {_HOW_TO_BUILD}") from error
    try:
        count = extension.device_count()
    except CudaError as error:
        raise DeviceUnavailable(
            f"the CUDA extension finds no usable NVIDIA driver ({error}); install or update it"
        ) from error
    if count == 0:
        raise DeviceUnavailable("the NVIDIA driver lists no GPU; CUDA_VISIBLE_DEVICES may hide it")
    return extension


def why_unavailable() -> str | None:
    """What is missing for `device="cuda"` and how to get it; None if nothing is."""
    try:
        runtime()
    except (DeviceUnavailable, MissingDependency) as error:
        return str(error)
    return None
