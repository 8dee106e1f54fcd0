"""`quantize_embeddings`: float vectors as int8, uint8 or packed bits, bit for bit as sentence-transformers makes them."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from llmrec_fast.compat.sentence_transformers.tensors import as_array
from llmrec_fast.errors import InvalidInput

PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")
_ENOUGH_TO_CALIBRATE = 100

_log = logging.getLogger(__name__)


def quantize_embeddings(
    embeddings: Any,
    precision: str,
    ranges: npt.NDArray[Any] | None = None,
    calibration_embeddings: npt.NDArray[Any] | None = None,
) -> npt.NDArray[Any]:
    """`embeddings` at a lower precision.

    Parameters
    ----------
    embeddings : (n, d) or (d,) floats.
    precision : "float32"; "int8" or "uint8": 256 equal steps from a column's least to its greatest value; "binary" or
        "ubinary": 8 signs a byte, the first in the highest bit, minus 128 for "binary".
    ranges : (2, d) least and greatest value of each column, for int8 and uint8.
    calibration_embeddings : (m, d) vectors to take the ranges from. Default: the embeddings themselves.

    Raises
    ------
    InvalidInput : an unknown precision, embeddings that are integers already, or ranges asked of a single vector.
    """
    array: npt.NDArray[Any] = as_array(embeddings)
    if precision not in PRECISIONS:
        raise InvalidInput(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}")
    if array.dtype.kind != "f":
        if not array.size:
            return array
        raise InvalidInput(f"embeddings to quantize must be floats; got {array.dtype}")
    if precision == "float32":
        return array.astype(np.float32)
    if precision == "ubinary":
        return np.packbits(array > 0, axis=-1)
    if precision == "binary":
        return (np.packbits(array > 0, axis=-1) - np.uint8(128)).view(np.int8)
    if array.ndim == 2 and len(array) == 0:
        return np.zeros(array.shape, np.dtype(precision))
    if ranges is None:
        ranges = _ranges(array, precision, calibration_embeddings)
    limits = np.asarray(ranges, np.float32)
    if limits.shape != (2, array.shape[-1]):
        raise InvalidInput(f"ranges must have shape (2, {array.shape[-1]}); got {limits.shape}")
    starts = limits[0]
    steps = (limits[1] - starts) / np.float32(255)
    steps = np.where(steps == 0, np.float32(1), steps)
    values = np.clip(np.floor((array - starts) / steps), 0, 255)
    codes: npt.NDArray[Any] = values.astype(np.uint8) if precision == "uint8" else (values - 128).astype(np.int8)
    return codes


def _ranges(array: npt.NDArray[Any], precision: str, calibration: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
    if calibration is None:
        if array.ndim == 1 or len(array) == 1:
            raise InvalidInput(
                f"{precision} ranges cannot be taken from a single vector; pass ranges= or calibration_embeddings= to "
                "quantize_embeddings"
            )
        if len(array) < _ENOUGH_TO_CALIBRATE:
            _log.warning("%s ranges are taken from %d vectors; 100 or more give steadier ones", precision, len(array))
        calibration = array
    calibration = as_array(calibration)
    return np.stack([calibration.min(axis=0), calibration.max(axis=0)])
