"""Read the parameters of a model from safetensors files as float32 NumPy arrays.

float16 and bfloat16 are widened exactly. Pickled formats (pytorch_model.bin) are never read: loading them runs code.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from llmrec_fast.arrays import Float32Array, check_finite
from llmrec_fast.errors import CorruptFile, InvalidInput

_FLOAT_TYPES = ("F64", "F32", "F16", "BF16")


class WeightFiles:
    """Parameters by name over one or more safetensors files; a context manager that keeps the files open.

    Raises `CorruptFile`, naming the file, where one is truncated, is not safetensors or holds values that are not finite.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        from safetensors import SafetensorError, safe_open

        self._stack = ExitStack()
        self._homes: dict[str, tuple[Any, Path]] = {}
        for path in paths:
            try:
                file = self._stack.enter_context(safe_open(path, framework="numpy"))
            except SafetensorError as error:
                self._stack.close()
                raise CorruptFile(
                    f"{path} is truncated or damaged ({error}); its size is {path.stat().st_size} bytes. Fetch it again"
                ) from error
            self._homes.update((str(name), (file, path)) for name in file.keys())  # noqa: SIM118 - not a dict

    def __enter__(self) -> WeightFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def names(self) -> frozenset[str]:
        """The name of every parameter."""
        return frozenset(self._homes)

    def read(self, name: str, *shape: int | None) -> Float32Array:
        """One parameter as float32; `shape`, where given, is checked (None: any size)."""
        if name not in self._homes:
            files = ", ".join(sorted({str(path) for _, path in self._homes.values()})) or "the weights"
            raise CorruptFile(f"{files} has no parameter {name}, which config.json implies")
        file, path = self._homes[name]
        kind = file.get_slice(name).get_dtype()
        if kind not in _FLOAT_TYPES:
            raise CorruptFile(f"{path}: {name} must be floating-point numbers; it is {kind}")
        if kind == "BF16":
            import ml_dtypes  # noqa: F401 - gives NumPy the type
        array = np.ascontiguousarray(file.get_tensor(name), dtype=np.float32)
        if shape and (
            len(shape) != array.ndim
            or any(want not in (None, got) for want, got in zip(shape, array.shape, strict=True))
        ):
            expected = ", ".join("any" if size is None else str(size) for size in shape)
            raise CorruptFile(f"{path}: {name} has shape {array.shape} where config.json implies ({expected})")
        try:
            check_finite(array, f"{path}: {name}")
        except InvalidInput as error:
            raise CorruptFile(str(error)) from error
        return array
