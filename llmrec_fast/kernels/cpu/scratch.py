"""Working memory of searches, reused between calls. A search takes a `Scratch` for itself and gives it back; no lock
is held meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from llmrec_fast.kernels.codes import aligned_zeros

_KEEP = 16  # as many idle ones as there may soon be callers; the rest is freed


class Scratch:
    """Named buffers that grow to the largest size asked for. Their content is whatever was left there."""

    def __init__(self) -> None:
        self._buffers: dict[str, npt.NDArray[np.uint8]] = {}
        self._views: dict[str, npt.NDArray[Any]] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """A C-contiguous array of `shape`, valid until the next call with this name."""
        view = self._views.get(name)
        if view is not None and view.shape == shape and view.dtype == dtype:
            return view  # one search after the other asks for the same
        count = 1
        for length in shape:
            count *= length
        size = count * np.dtype(dtype).itemsize
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < size:
            buffer = self._buffers[name] = aligned_zeros(size, np.uint8).view(np.uint8)
        view = self._views[name] = buffer[:size].view(dtype).reshape(shape)
        return view


_idle: deque[Scratch] = deque(maxlen=_KEEP)


@contextmanager
def borrowed_scratch() -> Iterator[Scratch]:
    """A `Scratch` that nobody else has. `deque` operations are atomic, so callers never wait for each other."""
    try:
        scratch = _idle.pop()
    except IndexError:
        scratch = Scratch()
    try:
        yield scratch
    finally:
        _idle.append(scratch)
