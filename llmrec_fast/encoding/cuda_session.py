"""ONNX Runtime on a GPU: token ids up, token embeddings that stay on the device, on a stream that the package shares.

Shapes are rounded up to a grid, and each shape of it keeps its buffers: a CUDA graph, which ONNX Runtime captures the second
time that it sees a shape, replays the same addresses. The host waits for nothing here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmrec_fast.arrays import Float32Array
from llmrec_fast.encoding.batching import pad_to_shape
from llmrec_fast.encoding.engine_profiles import round_up
from llmrec_fast.encoding.graph_builder import IDS, LENGTHS, OUTPUT, Graph
from llmrec_fast.encoding.session import check_vocabulary, import_onnxruntime
from llmrec_fast.encoding.token_table import TokenTable
from llmrec_fast.encoding.tokens import Int32Array
from llmrec_fast.errors import DeviceUnavailable
from llmrec_fast.kernels.cuda.memory import Place
from llmrec_fast.kernels.cuda.runtime import Runtime, runtime


@dataclass(frozen=True)
class _Buffers:
    """What one shape of the grid reads and writes, and how ONNX Runtime was told of it."""

    ids: Any
    lengths: Any
    rows: Any
    binding: Any
    options: Any


class CudaSession:
    """A graph built by this package, run by ONNX Runtime on the GPU.

    It works on the stream that was the caller's when it was made (CuPy's current one), and one call at a time: calls from
    several threads follow each other, as they would on the device.

    Parameters
    ----------
    graph : the model.
    capture : whether to replay CUDA graphs. They need a stream other than the default one, and a graph that runs on the GPU as
        a whole (`can_be_captured`): those of MPNet and ModernBERT compute distances of tokens on the CPU.

    Raises
    ------
    DeviceUnavailable : ONNX Runtime could not set its CUDA provider up and would have run on the CPU instead.
    """

    device = "cuda"
    engine = "ONNX Runtime on CUDA"

    def __init__(self, graph: Graph, *, capture: bool = True) -> None:
        self._library = import_onnxruntime()
        self.runtime: Runtime = runtime()
        self.place: Place = self.runtime.memory.current_place()
        self.hidden, self.vocabulary = graph.hidden, graph.vocabulary
        self.captures = capture and self.place.stream != 0
        self._session = self._open(graph.model, graph.parameters)
        self.longest = graph.max_length
        self._buffers: dict[tuple[int, int], _Buffers] = {}
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Nothing is left to do."""

    @contextmanager
    def running(self, ids: Int32Array, lengths: Int32Array, consumer: Place) -> Iterator[TokenTable]:
        """As `DeviceSession.running`."""
        check_vocabulary(ids, self.vocabulary)
        batch, time = round_up(ids.shape[0], ids.shape[1], self.longest)
        padded, counts = pad_to_shape(ids, lengths, (batch, time))
        memory, order = self.runtime.memory, self.runtime.extension.wait_for
        with self._lock:
            buffers = self._buffers.get((batch, time)) or self._bind(batch, time)
            memory.write(buffers.ids, 0, padded, self.place)
            memory.write(buffers.lengths, 0, counts, self.place)
            self._session.run_with_iobinding(buffers.binding, buffers.options)
            order(self.place.device, consumer.stream, self.place.stream)
            try:
                yield TokenTable(buffers.rows, np.arange(len(ids), dtype=np.int64) * time)
            finally:
                # the next run writes over the table: not before the consumer has read it
                order(self.place.device, self.place.stream, consumer.stream)

    def _open(self, model: bytes, parameters: Mapping[str, Float32Array]) -> Any:
        library = self._library
        options = library.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = library.GraphOptimizationLevel.ORT_ENABLE_BASIC
        values = [library.OrtValue.ortvalue_from_numpy(array) for array in parameters.values()]
        options.add_external_initializers(list(parameters), values)
        settings = {
            "device_id": str(self.place.device),
            "user_compute_stream": str(self.place.stream),
            "enable_cuda_graph": str(int(self.captures)),
            "use_tf32": "0",  # float32 means float32
        }
        session = library.InferenceSession(model, options, providers=[("CUDAExecutionProvider", settings)])
        if "CUDAExecutionProvider" not in session.get_providers():
            raise DeviceUnavailable(
                "ONNX Runtime could not set up its CUDA provider (its log on standard error says why) and would run on the CPU"
            )
        return session

    def _bind(self, batch: int, time: int) -> _Buffers:
        here, place = self.runtime, self.place
        ids = here.new(IDS, (batch, time), np.int32, place)
        lengths = here.new(LENGTHS, (batch,), np.int32, place)
        rows = here.new(OUTPUT, (batch * time, self.hidden), np.float32, place)
        binding = self._session.io_binding()
        for view in (ids, lengths):
            binding.bind_input(view.name, "cuda", place.device, np.int32, list(view.shape), view.pointer)
        binding.bind_output(OUTPUT, "cuda", place.device, np.float32, [batch, time, self.hidden], rows.pointer)
        options = self._library.RunOptions()
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        if self.captures:
            options.add_run_config_entry("gpu_graph_id", str(len(self._buffers) + 1))
        buffers = _Buffers(ids.owner, lengths.owner, rows.owner, binding, options)
        self._buffers[batch, time] = buffers
        return buffers
