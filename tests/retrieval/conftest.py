"""Small indexes that nevertheless use codes, on both instruction sets; what the device "cuda" means where there is no GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from llmrec_fast.kernels.cuda.runtime import runtime, using, why_unavailable
from llmrec_fast.retrieval import building
from tests.simt import build
from tests.simt.memory import DeviceArray, Emulation

GPU_IS_MISSING = why_unavailable()


@pytest.fixture
def coded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fit an index however few its rows are."""
    monkeypatch.setattr(building, "LEAST_FITTED_ROWS", 1)


@pytest.fixture(params=["native", "portable"])
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with this processor's instructions, and without them."""
    monkeypatch.setenv("LLMREC_PORTABLE", "1" if request.param == "portable" else "0")
    return str(request.param)


class Gpu:
    """Arrays on what the device "cuda" means: memory of the emulation, or CuPy's."""

    def __init__(self, emulation: Emulation | None) -> None:
        self.emulation = emulation

    def array(self, host: np.ndarray) -> Any:
        """A copy on the device."""
        if self.emulation is not None:
            return DeviceArray(np.array(host))
        import cupy

        return cupy.asarray(host)

    def host(self, array: Any) -> np.ndarray:
        """A copy on the host; fails if `array` is there already."""
        assert not isinstance(array, np.ndarray)
        memory = runtime().memory
        return memory.download(array, memory.current_place())


@pytest.fixture(scope="module", params=["cuda-emulated"] if GPU_IS_MISSING else ["cuda-emulated", "cuda"])
def gpu(request: pytest.FixtureRequest) -> Iterator[Gpu]:
    """What the device "cuda" means meanwhile."""
    if request.param == "cuda":
        with using(runtime()):
            yield Gpu(None)
        return
    if (reason := build.missing_for_module()) is not None:
        pytest.skip(f"the CUDA kernels cannot be emulated here: {reason}")
    emulation = Emulation()
    emulation.set_order("random", 5)
    with using(emulation.runtime):
        yield Gpu(emulation)
