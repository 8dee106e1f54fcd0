"""TensorRT by CUDA graphs: a few texts spend more time on launches than on the device, and a graph launches all at once.

A graph has its addresses and its shape for good, so each shape of the grid has buffers and an execution context of its own on
each stream (NVIDIA: one context a graph, sharing the memory of activations). Only batches of up to `FEW_TEXTS` texts go
this way, which bounds how many there are; larger ones keep the device busy as they are.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from llmrec_fast.encoding.engine_layouts import Arranged
from llmrec_fast.encoding.engine_profiles import Shape
from llmrec_fast.encoding.graph_builder import OUTPUT
from llmrec_fast.encoding.tensorrt_session import Engine, FixedShape
from llmrec_fast.encoding.token_table import TokenTable
from llmrec_fast.errors import CudaError
from llmrec_fast.kernels.cuda.graphs import Graph
from llmrec_fast.kernels.cuda.memory import Place
from llmrec_fast.kernels.cuda.runtime import Runtime
from llmrec_fast.kernels.cuda.views import DeviceView


@dataclass
class _Bucket:
    """One shape on one stream. The first call enqueues the engine, the second records it, later ones replay."""

    inputs: dict[str, DeviceView]
    rows: DeviceView
    engine: FixedShape
    graph: Graph | None = None
    calls: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class GraphedEngine:
    """Small batches of an engine, replayed. May be used by several threads: those with the same shape and stream take turns."""

    def __init__(self, engine: Engine, here: Runtime, hidden: int) -> None:
        self._engine, self._here, self._hidden = engine, here, hidden
        self._activations: dict[int, DeviceView] = {}
        self._buckets: dict[tuple[int, Shape], _Bucket] = {}
        self._lock = threading.Lock()
        self._refused = False

    @contextmanager
    def running(self, batch: Arranged, place: Place) -> Iterator[TokenTable]:
        """As `DeviceSession.running`, for few texts."""
        shape = batch.shape
        with self._lock:
            bucket = self._buckets.get((place.stream, shape))
            if bucket is None:
                bucket = self._buckets[place.stream, shape] = self._bind(shape, place)
        memory = self._here.memory
        with bucket.lock, memory.at(place):
            for name, values in batch.inputs.items():
                memory.write(bucket.inputs[name].owner, 0, values, place)
            if bucket.graph is None and bucket.calls == 1 and not self._refused:
                self._record(bucket, place)
            if bucket.graph is None:
                bucket.engine.enqueue(place.stream)
            else:
                bucket.graph.replay(place)
            bucket.calls += 1
            # the next call writes over the rows: in order on the stream, and not before the consumer has enqueued its reading
            yield TokenTable(bucket.rows.owner, batch.starts)

    def _record(self, bucket: _Bucket, place: Place) -> None:
        try:
            bucket.graph = Graph(self._here, place.device, bucket.engine.enqueue)
        except CudaError as error:
            self._refused = True
            warnings.warn(
                f"the TensorRT engine cannot be recorded as a CUDA graph ({error}); it is enqueued anew each time",
                RuntimeWarning,
                stacklevel=2,
            )

    def _bind(self, shape: Shape, place: Place) -> _Bucket:
        here, layout = self._here, self._engine.layout
        with here.memory.at(place):
            if place.stream not in self._activations:
                size = max(1, self._engine.activation_bytes)
                self._activations[place.stream] = here.new("activations", (size,), np.uint8, place)
            inputs = {
                name: here.new(name, dimensions, np.int32, place)
                for name, dimensions in layout.dimensions(shape).items()
            }
            rows = here.new(OUTPUT, (layout.rows(shape), self._hidden), np.float32, place)
            addresses = {view.name: view.pointer for view in (*inputs.values(), rows)}
            engine = self._engine.fix(shape, addresses, self._activations[place.stream].pointer, place.stream)
        return _Bucket(inputs, rows, engine)
