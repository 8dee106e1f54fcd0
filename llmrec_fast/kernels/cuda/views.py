"""Arrays of other libraries on a device, seen without a copy, and ordered on the stream where a kernel will read them.

Two protocols bring them: DLPack (PyTorch, CuPy, JAX), where the producer makes our stream wait for its own, and version 2 or 3
of `__cuda_array_interface__` (CuPy, Numba, PyTorch), where version 3 names the producer's stream and we wait. The host waits in
neither case. An array that is not C-contiguous, or not of a dtype that a kernel reads, is refused: converting it would be a
hidden copy.

Sources: https://dmlc.github.io/dlpack/latest/c_api.html, https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmrec_fast.errors import InvalidInput
from llmrec_fast.kernels.cuda.memory import Place

_DLPACK_KINDS = {0: "int", 1: "uint", 2: "float", 4: "bfloat"}
_LEGACY_DEFAULT_STREAM = 1  # both protocols write the default stream as 1: 0 would be ambiguous


@dataclass(frozen=True)
class DeviceView:
    """Memory on a device, described and kept alive (`owner`), never copied. `dtype` is a NumPy name, or "bfloat16"."""

    name: str
    pointer: int
    shape: tuple[int, ...]
    dtype: str
    owner: object
    writeable: bool = True

    def expect(self, dtypes: Sequence[str], shape: Sequence[int | None]) -> DeviceView:
        """Itself, if it has one of `dtypes` and this shape (None: any length); raises `InvalidInput` otherwise."""
        if self.dtype not in dtypes:
            raise InvalidInput(f"{self.name} must be {' or '.join(dtypes)} on the device; got {self.dtype}")
        if len(self.shape) != len(shape):
            dimensions = {1: "one dimension", 2: "two dimensions (rows, columns)"}[len(shape)]
            raise InvalidInput(f"{self.name} must have {dimensions}; got shape {self.shape}")
        if any(wanted is not None and wanted != given for wanted, given in zip(shape, self.shape, strict=True)):
            expected = ", ".join("any" if length is None else str(length) for length in shape)
            raise InvalidInput(f"{self.name} must have shape ({expected}); got {self.shape}")
        return self


def stream_of(array: object, device: int) -> int | None:
    """The current stream of the library that made `array`, where we know how to ask: PyTorch. None otherwise."""
    if type(array).__module__.partition(".")[0] != "torch":
        return None
    return int(sys.modules["torch"].cuda.current_stream(device).cuda_stream)


def view(name: str, array: Any, place: Place, wait_for: Callable[[int, int, int], None]) -> DeviceView:
    """`array` as memory that kernels on `place` may use; `wait_for(device, consumer, producer)` orders two streams."""
    if getattr(array, "__dlpack_device__", None) is not None:
        return _from_dlpack(name, array, place)
    return _from_interface(name, _interface(array), array, place, wait_for)


# -- __cuda_array_interface__ -------------------------------------------------------------------------------------------


def _interface(array: object) -> dict[str, Any] | None:
    return getattr(array, "__cuda_array_interface__", None)


def _from_interface(
    name: str, interface: Any, owner: object, place: Place, wait_for: Callable[[int, int, int], None]
) -> DeviceView:
    shape, dtype = tuple(interface["shape"]), np.dtype(interface["typestr"])
    if interface.get("mask") is not None:
        raise InvalidInput(f"{name} has a mask; masked device arrays are not supported")
    _require_contiguous(name, shape, interface.get("strides"), dtype.itemsize)
    producer = interface.get("stream")
    if producer is not None:
        producer = 0 if producer == _LEGACY_DEFAULT_STREAM else int(producer)
        if producer != place.stream:
            wait_for(place.device, place.stream, producer)
    # PyTorch writes bfloat16, which NumPy has no letter for, as two bytes of nothing
    dtype_name = "bfloat16" if dtype.str == "|V2" else dtype.name
    pointer, read_only = interface["data"]
    return DeviceView(name, int(pointer or 0), shape, dtype_name, owner, writeable=not read_only)


# -- DLPack -------------------------------------------------------------------------------------------------------------


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


def _from_dlpack(name: str, array: Any, place: Place) -> DeviceView:
    try:
        capsule = array.__dlpack__(stream=place.stream or _LEGACY_DEFAULT_STREAM)
    except (BufferError, RuntimeError) as error:
        raise InvalidInput(f"{name} cannot be shared: {error}") from error
    # the capsule stays unconsumed: when it goes, it frees what the producer lent, and it goes with the view
    pointer = _capsule_pointer(capsule, b"dltensor")
    tensor = ctypes.cast(pointer, ctypes.POINTER(_DLTensor)).contents
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    strides = tuple(tensor.strides[i] for i in range(tensor.ndim)) if tensor.strides else None
    _require_contiguous(name, shape, strides, 1)
    kind = _DLPACK_KINDS.get(tensor.code, f"code {tensor.code} of ")
    dtype = f"{kind}{tensor.bits}" if tensor.lanes == 1 else f"{kind}{tensor.bits}x{tensor.lanes}"
    return DeviceView(name, (tensor.data or 0) + tensor.byte_offset, shape, dtype, (capsule, array))


_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
_capsule_pointer.restype = ctypes.c_void_p


def _require_contiguous(name: str, shape: tuple[int, ...], strides: Sequence[int] | None, unit: int) -> None:
    """Raise unless elements lie row after row; `unit` is the stride of neighbouring elements."""
    if strides is None or 0 in shape:
        return
    expected = unit
    for length, stride in zip(reversed(shape), reversed(strides), strict=True):
        if length != 1 and stride != expected:
            raise InvalidInput(
                f"{name} must be C-contiguous on the device: copy it first (.contiguous() or ascontiguousarray)"
            )
        expected *= length
