"""Token ids to pooled vectors on a GPU: the session's token embeddings go straight to the `pool` kernel, and the vectors come
to the host once, at the end."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmrec_fast.arrays import Float32Array, Int64Array
from llmrec_fast.encoding.batching import pad_batch, plan_batches
from llmrec_fast.encoding.cached_engine import TensorRTSession
from llmrec_fast.encoding.cuda_graph import build_cuda_graph, can_be_captured
from llmrec_fast.encoding.cuda_session import CudaSession
from llmrec_fast.encoding.devices import DeviceChoice, choose_device
from llmrec_fast.encoding.engine_profiles import TIME_STEP
from llmrec_fast.encoding.model_files import ModelFiles
from llmrec_fast.encoding.plain_builder import Precision
from llmrec_fast.encoding.pooling import Pooling, normalize_rows
from llmrec_fast.encoding.token_table import TOKENS_PER_BATCH, DeviceSession
from llmrec_fast.encoding.tokens import Int32Array
from llmrec_fast.encoding.weights import WeightFiles
from llmrec_fast.errors import DeviceUnavailable


@dataclass(frozen=True)
class DeviceModel:
    """A model on a GPU; `source` and `positions` as `LoadedModel`."""

    session: DeviceSession
    source: str
    positions: int

    @property
    def engine(self) -> str:
        """What runs the session, for people."""
        return self.session.engine


@dataclass(frozen=True)
class Chosen:
    """Where and how precisely a model runs; `model` where that is on a GPU, else the CPU is to load it."""

    choice: DeviceChoice
    precision: Precision
    model: DeviceModel | None


def choose_and_load(files: ModelFiles, device: str, precision: Precision | None) -> Chosen:
    """Choose a device, and load the model there if it is a GPU.

    `precision` None is float16 on TensorRT and float32 elsewhere. A TensorRT engine is looked for and not built; "auto" takes
    TensorRT where there is one.

    Raises
    ------
    DeviceUnavailable : the device, or the precision on it, cannot be had; as `choose_device`.
    InvalidInput, CorruptFile : as `build_model_graph` and `CudaSession`.
    """
    looked_up: list[TensorRTSession] = []

    def engine_cached() -> bool:
        looked_up.append(TensorRTSession(files, precision or "float16"))
        return looked_up[0].ready

    choice = choose_device(device, refused=_why_not(files, device, precision), engine_cached=engine_cached)
    if choice.device == "tensorrt" and not looked_up:
        looked_up.append(TensorRTSession(files, precision or "float16"))
    if looked_up and looked_up[0].problem is not None:
        warnings.warn(looked_up[0].problem, RuntimeWarning, stacklevel=3)
    if precision == "float16" and choice.device != "tensorrt":
        raise DeviceUnavailable(
            f"precision='float16' needs device='tensorrt'; the device is {choice.device!r} ({choice.reason})"
        )
    if choice.device == "cpu":
        return Chosen(choice, precision or "float32", None)
    if choice.device == "tensorrt":
        (session,) = looked_up
        _tell_of_cut_texts(session, files)
        return Chosen(choice, precision or "float16", DeviceModel(session, "safetensors", session.longest))
    with WeightFiles(files.weights) as weights:
        graph = build_cuda_graph(files.config, weights)
    cuda = CudaSession(graph, capture=can_be_captured(graph))
    return Chosen(choice, "float32", DeviceModel(cuda, "safetensors", graph.max_length))


def _tell_of_cut_texts(session: TensorRTSession, files: ModelFiles) -> None:
    if session.longest < min(session.positions, files.max_length or session.positions):
        warnings.warn(
            f"TensorRT engines take texts of up to {session.longest} tokens, and this model more: longer ones are cut there",
            RuntimeWarning,
            stacklevel=4,
        )


def _why_not(files: ModelFiles, device: str, precision: Precision | None) -> str | None:
    """Why the GPU sessions that `device` allows cannot run the model, if they cannot."""
    if not files.can_be_built:
        return "the package does not build its graph, and ONNX files run on the CPU"
    if precision == "int8" and device != "tensorrt":
        return "precision='int8' is for the CPU, and for device='tensorrt'"
    if precision == "float16" and device == "cuda":
        return "precision='float16' is for device='tensorrt'"
    return None


class DeviceInference:
    """Pooled vectors of token id arrays, as `Inference`, on a GPU. May be used by several threads at once."""

    def __init__(self, session: DeviceSession, pooling: Pooling, padding_id: int) -> None:
        self._session = session
        self._pooling = pooling
        self._padding_id = padding_id
        self.columns = session.hidden * len(pooling.modes)

    def vectors(
        self,
        windows: Sequence[Int32Array],
        lengths: Int64Array,
        *,
        normalize: bool,
        show_progress: bool | None,
        skipped: Int64Array | None = None,
    ) -> Float32Array:
        """(windows, columns): a vector for each token id array of `lengths` tokens; zeros where there are none.

        The first `skipped` (windows,) tokens of each take no part in the pooling.
        """
        from tqdm import tqdm

        from llmrec_fast.kernels.cuda import pool

        here, hidden, modes = self._session.runtime, self._session.hidden, self._pooling.modes
        place = here.memory.current_place()
        # the session rounds lengths up: what it computes is what the budget is for
        batches = plan_batches(-(-lengths // TIME_STEP) * TIME_STEP, TOKENS_PER_BATCH)
        order = np.concatenate(batches) if batches else np.zeros(0, np.int64)
        tables = [here.new("vectors", (len(order), hidden), np.float32, place) for _ in modes]
        disable = None if show_progress is None else not show_progress
        with tqdm(total=len(order), desc="encode", unit="text", disable=disable, delay=1.0 * (disable is None)) as bar:
            done = 0
            for batch in batches:
                ids, counts = pad_batch([windows[row] for row in batch], self._padding_id)
                with self._session.running(ids, counts, place) as tokens:
                    calls = self._pooling.kernel_calls(
                        tokens.rows.__cuda_array_interface__["shape"][0],
                        tokens.starts,
                        counts.astype(np.int64),
                        None if skipped is None else skipped[batch],
                    )
                    for call, table in zip(calls, tables, strict=True):
                        pool(
                            tokens.rows,
                            call.starts,
                            call.lengths,
                            weights=call.weights,
                            mode=call.mode,
                            normalize=normalize and len(modes) == 1,
                            out=_Rows(table.pointer + done * hidden * 4, (len(batch), hidden), place.stream),
                        )
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
