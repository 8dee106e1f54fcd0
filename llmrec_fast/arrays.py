"""Accept and check arrays at the edge of the package, once, so that kernels never have to.

Every function takes whatever has the array protocol (NumPy, lists, pandas and polars columns, CPU Torch tensors), returns
a C-contiguous NumPy array, copies only when it must, and raises `InvalidInput` naming the argument and the first bad row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from llmrec_fast.errors import InvalidInput

Float32Array: TypeAlias = npt.NDArray[np.float32]
Float64Array: TypeAlias = npt.NDArray[np.float64]
Int64Array: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
ArrayLike: TypeAlias = npt.ArrayLike

_CHECK_ROWS_AT_A_TIME = 8192
_CUDA_DEVICE_TYPES = (2, 13)  # of DLPack: kDLCUDA, kDLCUDAManaged


def device_of(array: object) -> int | None:
    """The CUDA device that holds `array`, -1 where only a look at its memory would tell, or None for the host."""
    dlpack = getattr(array, "__dlpack_device__", None)
    if dlpack is not None:
        kind, device = dlpack()
        return int(device) if kind in _CUDA_DEVICE_TYPES else None
    return -1 if getattr(array, "__cuda_array_interface__", None) is not None else None


def is_on_device(array: object) -> bool:
    """Whether `array` is memory of a GPU."""
    return not isinstance(array, np.ndarray) and device_of(array) is not None


def refuse_device(array: object, name: str) -> None:
    """Raise `InvalidInput` for memory of a GPU, for calls that work on the host."""
    if is_on_device(array):
        raise InvalidInput(
            f"{name} is in the memory of a GPU, where this call does not work; copy it to the host first"
        )


def as_matrix(values: ArrayLike, name: str, *, dimension: int | None = None, finite: bool = True) -> Float32Array:
    """`values` as a C-contiguous float32 matrix.

    Parameters
    ----------
    values : (n, d) array of any real dtype.
    name : what the caller calls this argument, for the message.
    dimension : the d that is expected, if one is.
    finite : whether NaN, infinities and float64 values beyond float32 are refused.

    Raises
    ------
    InvalidInput : not two-dimensional, not real numbers, another d than `dimension`, or a row that is not finite.
    """
    array = _as_real(values, name)
    if array.ndim != 2:
        raise InvalidInput(f"{name} must have two dimensions (rows, columns); got shape {array.shape}")
    if dimension is not None and array.shape[1] != dimension:
        raise InvalidInput(f"{name} must have {dimension} columns; got shape {array.shape}")
    return _as_float32(array, name, finite)


def as_vector(values: ArrayLike, name: str, *, length: int | None = None, finite: bool = True) -> Float32Array:
    """`values` as a C-contiguous float32 vector; raises `InvalidInput` like `as_matrix`."""
    array = _as_real(values, name)
    if array.ndim != 1:
        raise InvalidInput(f"{name} must have one dimension; got shape {array.shape}")
    if length is not None and len(array) != length:
        raise InvalidInput(f"{name} must have {length} values; got {len(array)}")
    return _as_float32(array, name, finite)


def as_int64(values: ArrayLike, name: str, *, length: int | None = None) -> Int64Array:
    """`values` as a C-contiguous int64 vector. Floats, booleans and integers beyond int64 are refused, not rounded."""
    refuse_device(values, name)
    array = np.asarray(values)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.ndim != 1:
        raise InvalidInput(f"{name} must have one dimension; got shape {array.shape}")
    if array.dtype.kind not in "iu":
        raise InvalidInput(f"{name} must be integers; got dtype {array.dtype}")
    if array.dtype == np.uint64 and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise InvalidInput(f"{name} holds {int(array.max())}, which does not fit in int64")
    if length is not None and len(array) != length:
        raise InvalidInput(f"{name} must have {length} values; got {len(array)}")
    return np.ascontiguousarray(array, dtype=np.int64)


def as_texts(texts: str | Sequence[str], name: str = "texts") -> list[str]:
    """`texts` as a list of strings; a single string is refused where many are expected."""
    if isinstance(texts, str | bytes):
        raise InvalidInput(f"{name} must be a sequence of strings, not a single string: pass [{name}]")
    result = list(texts)
    for position, text in enumerate(result):
        if not isinstance(text, str):
            raise InvalidInput(f"{name}[{position}] must be a string; got {type(text).__name__}")
    return result


def as_count(value: Any, name: str, *, minimum: int = 1) -> int:
    """`value` as an int of at least `minimum`; booleans and floats are refused."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InvalidInput(f"{name} must be an integer; got {value!r}")
    if value < minimum:
        raise InvalidInput(f"{name} must be at least {minimum}; got {value}")
    return int(value)


def writable_view(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same memory as `array`, which is C-contiguous, without a read-only flag: for compiled code that only reads it.

    Numba would compile a kernel once more for read-only arrays. Whatever writes to the view is at fault: the memory may be
    mapped from a file that cannot be written.
    """
    if array.flags.writeable:
        return array

    class Memory:
        __array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}  # noqa: RUF012
        owner = array  # keeps the memory alive as long as the view

    return np.asarray(Memory())


def check_finite(array: npt.NDArray[Any], name: str) -> None:
    """Raise `InvalidInput` naming the first row of `array` that holds NaN or an infinity. Reads the array once."""
    for start in range(0, len(array), _CHECK_ROWS_AT_A_TIME):
        piece = array[start : start + _CHECK_ROWS_AT_A_TIME]
        finite = np.isfinite(piece)
        if not finite.all():
            bad = start + int(np.argmin(finite.reshape(len(piece), -1).all(axis=1)))
            what = "NaN" if np.isnan(array[bad]).any() else "an infinite value"
            raise InvalidInput(f"{name} holds {what} in row {bad}; every value must be finite")


def _as_real(values: ArrayLike, name: str) -> npt.NDArray[Any]:
    refuse_device(values, name)
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"{name} must be a rectangular array of numbers: {error}") from error
    # "V" is how NumPy shows the two-byte extension type bfloat16 (ml_dtypes)
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        raise InvalidInput(f"{name} must be real numbers; got dtype {array.dtype}")
    return array


def _as_float32(array: npt.NDArray[Any], name: str, finite: bool) -> Float32Array:
    if array.dtype == np.float32:
        result = np.ascontiguousarray(array)
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            result = np.ascontiguousarray(array, dtype=np.float32)
    if finite:
        check_finite(result, name)
    return result
