"""CUDA graphs: launches that are recorded once and then given to the device all at once, with their addresses as they were."""

from __future__ import annotations

from collections.abc import Callable

from llmrec_fast.kernels.cuda.memory import Place
from llmrec_fast.kernels.cuda.runtime import Runtime


class Graph:
    """What a function gives to a stream. It frees itself; replays that have been given to the device must have ended by then.

    Parameters
    ----------
    device : where it runs.
    enqueue : called once, with a stream; may only launch. Whatever it raises goes on.

    Raises
    ------
    CudaError : something in it cannot be recorded: it waited for the device, or allocated.
    """

    def __init__(self, here: Runtime, device: int, enqueue: Callable[[int], object]) -> None:
        self._here, self._device = here, device
        self._graph: int | None = None
        self._graph = int(here.extension.record(device, enqueue))

    def replay(self, place: Place | None = None) -> None:
        """Run it on a stream of its device (None: CuPy's current one), without waiting."""
        place = self._here.memory.current_place() if place is None else place
        self._here.extension.replay(device=self._device, stream=place.stream, graph=self._graph)

    def __del__(self) -> None:
        if self._graph is not None:
            self._here.extension.forget(self._graph)
