"""Time by stage, for reports."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Put the time that the block takes in `seconds` under `stage`."""
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
