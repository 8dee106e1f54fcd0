"""Argument checks that every device's kernels share, so that each device refuses the same input with the same words.

They look at shapes, dtypes and ranges only: whether values are finite is checked where arrays enter the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import Float32Array, Int64Array, as_int64, as_vector
from llmrec_fast.errors import InvalidInput

PoolMode: TypeAlias = Literal["mean", "max", "sum", "first", "last"]
POOL_MODES: tuple[PoolMode, ...] = get_args(PoolMode)
_WEIGHTED_MODES = ("mean", "sum")
_ROW_DTYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class PoolArguments:
    """Checked arguments of `pool`: `index` and `weights` are None where the caller gave none."""

    table: npt.NDArray[Any]
    starts: Int64Array
    lengths: Int64Array
    index: Int64Array | None
    weights: Float32Array | None
    out: Float32Array


def check_pool(
    table: npt.ArrayLike,
    starts: npt.ArrayLike,
    lengths: npt.ArrayLike,
    index: npt.ArrayLike | None,
    weights: npt.ArrayLike | None,
    mode: str,
    out: Float32Array | None,
) -> PoolArguments:
    """Check and convert the arguments of `pool`; allocate `out` where the caller gave none."""
    rows = check_rows(table, "table")
    start_array = as_int64(starts, "starts")
    length_array = as_int64(lengths, "lengths", length=len(start_array))
    if mode not in POOL_MODES:
        raise InvalidInput(f"mode must be one of {', '.join(POOL_MODES)}; got {mode!r}")
    index_array = None if index is None else as_int64(index, "index")
    positions = len(rows) if index_array is None else len(index_array)
    if len(start_array):
        # positions - lengths cannot overflow, starts + lengths could
        outside = (start_array < 0) | (length_array < 0) | (start_array > positions - length_array)
        if outside.any():
            segment = int(np.argmax(outside))
            raise InvalidInput(
                f"segment {segment} starts at {start_array[segment]} with length {length_array[segment]}, "
                f"outside the {positions} positions of {'table' if index_array is None else 'index'}"
            )
    if index_array is not None and len(index_array):
        low, high = int(index_array.min()), int(index_array.max())
        if low < 0 or high >= len(rows):
            bad = low if low < 0 else high
            raise InvalidInput(f"index holds {bad}, outside the {len(rows)} rows of table")
    weight_array = None
    if weights is not None:
        if mode not in _WEIGHTED_MODES:
            raise InvalidInput(f"weights go with the modes {' and '.join(_WEIGHTED_MODES)}, not with {mode!r}")
        weight_array = as_vector(weights, "weights", length=positions)
    shape = (len(start_array), rows.shape[1])
    return PoolArguments(rows, start_array, length_array, index_array, weight_array, check_out(out, shape))


def check_fuse(
    blocks: Sequence[npt.ArrayLike], weights: Sequence[float], out: Float32Array | None
) -> tuple[list[npt.NDArray[Any]], list[float], Float32Array]:
    """Check and convert the arguments of `fuse`; the weights that come back are the roots by which blocks are scaled."""
    if not len(blocks):
        raise InvalidInput("fuse needs at least one block")
    arrays = [check_rows(block, f"blocks[{position}]") for position, block in enumerate(blocks)]
    rows = len(arrays[0])
    for position, array in enumerate(arrays):
        if len(array) != rows:
            raise InvalidInput(f"blocks[{position}] has {len(array)} rows where blocks[0] has {rows}")
    if len(weights) != len(arrays):
        raise InvalidInput(f"{len(arrays)} blocks need as many weights; got {len(weights)}")
    for position, weight in enumerate(weights):
        if not 0 <= weight < np.inf:
            raise InvalidInput(f"weights[{position}] must be finite and not negative; got {weight}")
    columns = sum(array.shape[1] for array in arrays)
    return arrays, [float(np.sqrt(weight)) for weight in weights], check_out(out, (rows, columns))


def check_rows(values: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    """`values` as a C-contiguous matrix of float32, float16 or bfloat16; other real dtypes become float32."""
    array = np.asarray(values)
    if array.ndim != 2:
        raise InvalidInput(f"{name} must have two dimensions (rows, columns); got shape {array.shape}")
    if array.dtype.name not in _ROW_DTYPES:
        if array.dtype.kind not in "fiu":
            raise InvalidInput(f"{name} must be real numbers; got dtype {array.dtype}")
        array = array.astype(np.float32)
    return np.ascontiguousarray(array)


def check_out(out: Float32Array | None, shape: tuple[int, int]) -> Float32Array:
    """`out` if it can take the result as it is, a new array if it is None."""
    if out is None:
        return np.empty(shape, np.float32)
    if not isinstance(out, np.ndarray) or out.dtype != np.float32 or out.shape != shape:
        got = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise InvalidInput(f"out must be a float32 array of shape {shape}; got {got}")
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise InvalidInput("out must be C-contiguous and writeable")
    return out
