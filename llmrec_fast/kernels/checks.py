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
    check_mode(mode, weighted=weights is not None)
    index_array = None if index is None else as_int64(index, "index")
    positions = len(rows) if index_array is None else len(index_array)
    check_segments(start_array, length_array, positions, "table" if index_array is None else "index")
    if index_array is not None:
        check_index(index_array, len(rows))
    weight_array = None if weights is None else as_vector(weights, "weights", length=positions)
    shape = (len(start_array), rows.shape[1])
    return PoolArguments(rows, start_array, length_array, index_array, weight_array, check_out(out, shape))


def check_mode(mode: str, *, weighted: bool) -> None:
    """Raise unless `mode` is one of `POOL_MODES`, and one that takes weights where there are any."""
    if mode not in POOL_MODES:
        raise InvalidInput(f"mode must be one of {', '.join(POOL_MODES)}; got {mode!r}")
    if weighted and mode not in _WEIGHTED_MODES:
        raise InvalidInput(f"weights go with the modes {' and '.join(_WEIGHTED_MODES)}, not with {mode!r}")


def check_segments(starts: Int64Array, lengths: Int64Array, positions: int, of: str) -> None:
    """Raise unless every segment lies within the `positions` of the argument `of`."""
    # positions - lengths cannot overflow, starts + lengths could
    outside = (starts < 0) | (lengths < 0) | (starts > positions - lengths)
    if outside.any():
        segment = int(np.argmax(outside))
        raise InvalidInput(
            f"segment {segment} starts at {starts[segment]} with length {lengths[segment]}, "
            f"outside the {positions} positions of {of}"
        )


def check_index(index: Int64Array, rows: int) -> None:
    """Raise unless every number in `index` is a row of a table of `rows` rows."""
    if len(index):
        low, high = int(index.min()), int(index.max())
        if low < 0 or high >= rows:
            bad = low if low < 0 else high
            raise InvalidInput(f"index holds {bad}, outside the {rows} rows of table")


def check_fuse(
    blocks: Sequence[npt.ArrayLike], weights: Sequence[float], out: Float32Array | None
) -> tuple[list[npt.NDArray[Any]], list[float], Float32Array]:
    """Check and convert the arguments of `fuse`; the weights that come back are the roots by which blocks are scaled."""
    if not len(blocks):
        raise InvalidInput("fuse needs at least one block")
    arrays = [check_rows(block, f"blocks[{position}]") for position, block in enumerate(blocks)]
    check_equal_rows([len(array) for array in arrays])
    roots = roots_of_weights(weights, len(arrays))
    columns = sum(array.shape[1] for array in arrays)
    return arrays, roots, check_out(out, (len(arrays[0]), columns))


def check_equal_rows(counts: Sequence[int]) -> None:
    """Raise unless all blocks have as many rows as the first."""
    for position, count in enumerate(counts):
        if count != counts[0]:
            raise InvalidInput(f"blocks[{position}] has {count} rows where blocks[0] has {counts[0]}")


def roots_of_weights(weights: Sequence[float], blocks: int) -> list[float]:
    """The roots by which blocks are scaled; raises unless there is a finite, non-negative weight for every block."""
    if len(weights) != blocks:
        raise InvalidInput(f"{blocks} blocks need as many weights; got {len(weights)}")
    for position, weight in enumerate(weights):
        if not 0 <= weight < np.inf:
            raise InvalidInput(f"weights[{position}] must be finite and not negative; got {weight}")
    return [float(np.sqrt(weight)) for weight in weights]


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
