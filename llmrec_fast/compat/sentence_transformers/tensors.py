"""Between torch tensors and NumPy arrays. torch is imported only where a tensor has to be returned."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from llmrec_fast.arrays import Float32Array, as_matrix, check_finite, writable_view
from llmrec_fast.errors import InvalidInput, MissingDependency
from llmrec_fast.kernels.cpu.normalize import all_finite


def as_tensor(array: Any) -> Any:
    """`array` as a torch tensor that shares its memory. Raises `MissingDependency` without torch."""
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise MissingDependency(
            "a torch tensor is asked for, as sentence-transformers returns one here, and torch is not installed: "
            "pip install torch"
        ) from error
    return torch.from_numpy(np.ascontiguousarray(array))


def is_tensor(values: object) -> bool:
    """Whether `values` is a torch tensor; does not import torch."""
    return type(values).__module__.split(".")[0] == "torch" and hasattr(values, "detach")


def as_array(values: Any) -> Any:
    """A tensor on any device, sparse ones too, a list of tensors or arrays, or anything array-like, as a NumPy array."""
    if is_tensor(values):
        plain = values.detach().cpu()
        if "strided" not in str(plain.layout):
            plain = plain.to_dense()
        # NumPy has no bfloat16 and torch no view of it
        return np.asarray(plain.float() if str(plain.dtype) == "torch.bfloat16" else plain)
    if isinstance(values, list | tuple) and values and is_tensor(values[0]):
        return np.stack([as_array(row) for row in values])
    return np.asarray(values)


def as_two_dimensions(values: Any) -> Any:
    """`as_array`; a single vector is one row."""
    array = as_array(values)
    return array[None] if array.ndim == 1 and array.size else array


def as_rows(values: Any, name: str) -> Float32Array:
    """`values` as (n, d) float32; a single vector is one row. Raises `InvalidInput` as `as_matrix` does."""
    rows = as_matrix(as_two_dimensions(values), name, finite=False)
    if not all_finite(writable_view(rows)):
        check_finite(rows, name)
    return rows


def as_pair(a: Any, b: Any, names: Sequence[str] = ("a", "b")) -> tuple[Float32Array, Float32Array]:
    """Both as (n, d) float32 with the same d."""
    left, right = as_rows(a, names[0]), as_rows(b, names[1])
    check_columns(left, right, names)
    return left, right


def check_columns(left: Any, right: Any, names: Sequence[str]) -> None:
    """Raise `InvalidInput` unless both arrays have two dimensions and the same number of columns."""
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[1]:
        raise InvalidInput(
            f"{names[0]} and {names[1]} must have the same number of columns; got {left.shape} and {right.shape}"
        )
