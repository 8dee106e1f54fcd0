"""A search of fixed shape: everything it needs is found when it is made, so that calls only launch kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from llmrec_fast.errors import InvalidInput
from llmrec_fast.kernels.cuda.bounded_search import WORKSPACE_BYTES, Search, exclusion_views
from llmrec_fast.kernels.cuda.graphs import Graph
from llmrec_fast.kernels.cuda.memory import Place
from llmrec_fast.kernels.cuda.runtime import Runtime, is_host
from llmrec_fast.kernels.cuda.scan_codes import DeviceSegment
from llmrec_fast.kernels.cuda.unit_rows import divide_by_norms
from llmrec_fast.kernels.cuda.views import DeviceView


class FixedSearch:
    """The top k of as many queries each time, over the same segments. A call allocates, copies and waits for nothing.

    So a CUDA graph may capture a call and replay it, or `record` makes one: the graph reads `queries` as they then are and
    writes `scores` and `ids`. It stays valid as long as this object and the array of queries that was captured live. Calls
    and replays share memory, so they must follow each other: on one stream, or ordered by events. One object a stream runs
    side by side.

    Attributes
    ----------
    queries : (q, d) float32 on the device, zeros at first; what a call without an argument searches for.
    scores, ids : (q, k) float64 and int64 on the device, which every call writes anew.
    """

    def __init__(
        self,
        here: Runtime,
        place: Place,
        segments: Sequence[DeviceSegment],
        queries: tuple[int, int],
        k: int,
        *,
        euclidean: bool,
        cosine: bool,
        excluded: tuple[Any, Any] | None = None,
    ) -> None:
        self._here, self._device, self._shape = here, place.device, queries
        self._segments = segments  # keeps their memory
        count, dim = queries
        self._search = Search(here, place, segments, euclidean, k, WORKSPACE_BYTES)
        self._own = here.new("queries", self._shape, np.float32, place)
        here.extension.clear(device=place.device, stream=place.stream, memory=self._own.pointer, bytes=count * dim * 4)
        self._unit = here.new("unit queries", self._shape, np.float32, place) if cosine else None
        self._out = (
            here.new("scores", (count, k), np.float64, place),
            here.new("ids", (count, k), np.int64, place),
        )
        self._excluded = exclusion_views(here, excluded, count, place)
        self._workspace = here.new("workspace", (self._search.group(count)[1],), np.uint8, place)
        here.extension.synchronize(place.device, place.stream)  # calls may come on other streams
        self.queries, self.scores, self.ids = self._own.owner, self._out[0].owner, self._out[1].owner

    def __call__(self, queries: Any = None) -> tuple[Any, Any]:
        """Enqueue one search on the caller's stream; returns (scores, ids), which hold the answer when the stream gets there.

        Parameters
        ----------
        queries : (q, d) float32 on the device; None for `self.queries`.

        Raises
        ------
        InvalidInput : another shape or dtype, an array on the host or on another device, a stream of another device.
        """
        queries = self.queries if queries is None else queries
        if is_host(queries):
            raise InvalidInput("queries must be on the device; a copy from the host would be part of every call")
        place, _ = self._here.find_place({"queries": queries})
        if place.device != self._device:
            raise InvalidInput(f"queries are on device {place.device}, the search was made on device {self._device}")
        view = self._own
        if queries is not self.queries:
            view = self._here.on_device("queries", queries, place).expect(["float32"], self._shape)
        self._enqueue(view, place)
        return self.scores, self.ids

    def record(self) -> Graph:
        """A CUDA graph of the search for `self.queries`; it must not outlive this object."""
        return Graph(self._here, self._device, lambda stream: self._enqueue(self._own, Place(self._device, stream)))

    def _enqueue(self, queries: DeviceView, place: Place) -> None:
        if self._unit is not None:
            divide_by_norms(self._here, place, queries, self._unit)
            queries = self._unit
        self._search.run(queries, self._excluded, self._out, workspace=self._workspace, place=place)
