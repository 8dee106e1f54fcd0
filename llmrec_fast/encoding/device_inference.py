"""Token ids to pooled vectors on a GPU: the session's token embeddings go straight to the `pool` kernel, and the vectors come
to the host once, at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmrec_fast.arrays import Float32Array, Int64Array
from llmrec_fast.encoding.architectures import read_architecture
from llmrec_fast.encoding.batching import pad_batch, plan_batches
from llmrec_fast.encoding.cuda_session import CudaSession
from llmrec_fast.encoding.graph import build_graph
from llmrec_fast.encoding.model_files import ModelFiles
from llmrec_fast.encoding.pooling import Pooling, normalize_rows
from llmrec_fast.encoding.tokens import Int32Array
from llmrec_fast.encoding.weights import WeightFiles
from llmrec_fast.errors import DeviceUnavailable

TOKENS_PER_BATCH = 16384


@dataclass(frozen=True)
class DeviceModel:
    """A model on a GPU; `source` and `positions` as `LoadedModel`."""

    session: CudaSession
    source: str
    positions: int


def load_on_device(files: ModelFiles, device: str) -> DeviceModel:
    """Load weights that the package builds a graph from; raises as `read_architecture`, `build_graph` and `CudaSession` do.

    `DeviceUnavailable` for a device that this version has no session for.
    """
    if device != CudaSession.device:
        raise DeviceUnavailable(
            f"this version of llmrec_fast has no {device} session for encoding; use 'cuda' or 'auto'"
        )
    with WeightFiles(files.weights) as weights:
        architecture = read_architecture(files.config, weights.names())
        graph = build_graph(architecture, weights)
    return DeviceModel(CudaSession(graph, capture=not architecture.relative_buckets), "safetensors", graph.max_length)


class DeviceInference:
    """Pooled vectors of token id arrays, as `Inference`, on a GPU. May be used by several threads at once."""

    def __init__(self, session: CudaSession, pooling: Pooling, padding_id: int) -> None:
        self._session = session
        self._pooling = pooling
        self._padding_id = padding_id
        self.columns = session.hidden * len(pooling.modes)

    def vectors(
        self, windows: Sequence[Int32Array], lengths: Int64Array, *, normalize: bool, show_progress: bool | None
    ) -> Float32Array:
        """(windows, columns): a vector for each token id array of `lengths` tokens; zeros where there are none."""
        from tqdm import tqdm

        from llmrec_fast.kernels.cuda import pool

        here, hidden, modes = self._session.runtime, self._session.hidden, self._pooling.modes
        place = here.memory.current_place()
        batches = plan_batches(lengths, TOKENS_PER_BATCH)
        order = np.concatenate(batches) if batches else np.zeros(0, np.int64)
        tables = [here.new("vectors", (len(order), hidden), np.float32, place) for _ in modes]
        disable = None if show_progress is None else not show_progress
        with tqdm(total=len(order), desc="encode", unit="text", disable=disable, delay=1.0 * (disable is None)) as bar:
            done = 0
            for batch in batches:
                ids, counts = pad_batch([windows[row] for row in batch], self._padding_id)
                with self._session.running(ids, counts, place) as tokens:
                    starts = np.arange(len(batch), dtype=np.int64) * tokens.time
                    for mode, table in zip(modes, tables, strict=True):
                        out = _Rows(table.pointer + done * hidden * 4, (len(batch), hidden), place.stream)
                        normal = normalize and len(modes) == 1
                        pool(tokens.rows, starts, counts.astype(np.int64), mode=mode, normalize=normal, out=out)
                done += len(batch)
                bar.update(len(batch))
        vectors = np.zeros((len(windows), self.columns), np.float32)
        if len(order):
            vectors[order] = np.concatenate([here.memory.download(table.owner, place) for table in tables], axis=1)
        return normalize_rows(vectors, 1) if normalize and len(modes) > 1 else vectors


@dataclass(frozen=True)
class _Rows:
    """Some rows of a float32 matrix on the device, for the kernels to write; its owner outlives it."""

    pointer: int
    shape: tuple[int, int]
    stream: int

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": "<f4",
            "data": (self.pointer, False),
            "strides": None,
            "version": 3,
            "stream": self.stream or 1,
        }
