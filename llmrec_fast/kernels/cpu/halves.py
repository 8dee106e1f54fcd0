"""Read elements of float32, float16 and bfloat16 matrices as float32 inside compiled code.

Numba computes with float32 and float64 only, so half-precision matrices enter kernels as 16-bit patterns. Which of the two
formats the bits are in is told by the integer type, so that the conversion is chosen at compile time: float16 travels as
uint16, bfloat16 as int16. Both conversions are exact, use integer and float32 operations only, and vectorise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types
from numba.extending import overload

_BITS = {"float32": np.float32, "float16": np.uint16, "bfloat16": np.int16}


def as_bits(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array that a kernel takes for `rows`. Nothing is copied."""
    return rows.view(_BITS[rows.dtype.name])


def to_float32(value: Any) -> np.float32:
    """One element of an array from `as_bits` as float32 (compiled code only; Python never runs this body)."""
    raise TypeError(f"to_float32 exists in compiled code only; got {value!r}")


@overload(to_float32, jit_options={"forceinline": True})
def _to_float32(value):  # Numba compares these four signatures
    return {types.float32: _same, types.uint16: _half_to_float, types.int16: _bfloat_to_float}.get(value)


def _same(value):
    return value


def _half_to_float(value):
    """Shift into place, then multiply by 2^112 to re-bias the exponent, which normalises subnormals on the way.

    Infinity and NaN need the full exponent set afterwards.
    """
    bits = np.uint32(value)
    magnitude = (bits & np.uint32(0x7FFF)) << np.uint32(13)
    rebiased = np.float32(np.uint32(magnitude).view(np.float32) * np.float32(2.0**112)).view(np.uint32)
    special = np.uint32(magnitude | np.uint32(0x7F800000))
    pattern = special if magnitude >= np.uint32(0x0F800000) else rebiased
    return np.uint32(pattern | ((bits & np.uint32(0x8000)) << np.uint32(16))).view(np.float32)


def _bfloat_to_float(value):
    """A bfloat16 is the upper half of a float32."""
    return np.uint32(np.uint32(np.uint16(value)) << np.uint32(16)).view(np.float32)
