"""The TensorRT session of an encoder: an engine from the cache, or one that is built when somebody asks for it; never within a
request."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from llmrec_fast.encoding import devices
from llmrec_fast.encoding.architectures import read_architecture
from llmrec_fast.encoding.batching import pad_to_shape
from llmrec_fast.encoding.engine_cache import (
    EngineKey,
    make_key,
    read_engine,
    read_timing,
    write_engine,
    write_timing,
)
from llmrec_fast.encoding.engine_profiles import FEW_TEXTS, plan_profiles, round_up
from llmrec_fast.encoding.graph_builder import IDS, LENGTHS, OUTPUT
from llmrec_fast.encoding.graphed_engine import GraphedEngine
from llmrec_fast.encoding.model_files import ModelFiles, find_model
from llmrec_fast.encoding.plain_graph import PRECISIONS, Precision, build_plain_graph
from llmrec_fast.encoding.session import check_vocabulary
from llmrec_fast.encoding.tensorrt_session import Engine, build_engine
from llmrec_fast.encoding.token_table import TOKENS_PER_BATCH, TokenTable
from llmrec_fast.encoding.tokens import Int32Array
from llmrec_fast.encoding.weights import WeightFiles
from llmrec_fast.errors import CorruptFile, DeviceUnavailable, InvalidInput
from llmrec_fast.kernels.cuda.memory import Place
from llmrec_fast.kernels.cuda.runtime import Runtime, runtime


class TensorRTSession:
    """A model's engine on the GPU that was current when it was made; calls run on their caller's stream.

    Without an engine in the cache, or with a stale or damaged one, `running` raises until `prepare` or `build` has made one.

    Attributes
    ----------
    key : what the engine depends on, and where it lies.
    problem : what is wrong with the engine in the cache, a sentence; None if nothing is, or there is none.
    """

    device = "tensorrt"

    def __init__(self, files: ModelFiles, precision: Precision) -> None:
        self.runtime: Runtime = runtime()
        self.place: Place = self.runtime.memory.current_place()
        self._files, self._precision = files, precision
        with WeightFiles(files.weights) as weights:
            self._architecture = read_architecture(files.config, weights.names())
        self.hidden, self.longest = self._architecture.hidden, self._architecture.max_length
        self._profiles = plan_profiles(self.longest, TOKENS_PER_BATCH)
        self.key: EngineKey = make_key(
            files.weights,
            self._architecture,
            precision,
            self._profiles,
            devices.describe_gpu(self.place.device),
            devices.tensorrt_version(),
        )
        self.problem: str | None = None
        self._building = threading.Lock()
        self._engine: Engine | None = None
        self._graphed: GraphedEngine | None = None
        self._load()

    @property
    def ready(self) -> bool:
        """Whether there is an engine."""
        return self._engine is not None

    def prepare(self) -> None:
        """Build the engine if there is none, and keep it in the cache; one that cannot be kept is used, with a warning.

        Raises as `build`.
        """
        with self._building:
            if self._engine is not None:
                return
            try:
                self._build()
            except OSError as error:
                warnings.warn(
                    f"the TensorRT engine could not be kept in the cache ({error}); the next process builds it again",
                    RuntimeWarning,
                    stacklevel=3,
                )

    def build(self) -> Path:
        """Build the engine if there is none; returns its file. Takes minutes.

        Raises
        ------
        InvalidInput : TensorRT cannot take the model, or a cache that cannot be written.
        CudaError : the build failed.
        """
        with self._building:
            try:
                if self._engine is None:
                    self._build()
            except OSError as error:
                raise InvalidInput(
                    f"cannot write {self.key.path}: {error}. Set LLMREC_CACHE to a folder with enough room"
                ) from error
            return self.key.path

    @contextmanager
    def running(self, ids: Int32Array, lengths: Int32Array, consumer: Place) -> Iterator[TokenTable]:
        """As `DeviceSession.running`, on the stream of `consumer`.

        Raises `DeviceUnavailable` where there is no engine.
        """
        if self._engine is None:
            raise DeviceUnavailable(
                f"no {self._precision} TensorRT engine of this model is built for this GPU, and a request builds none: "
                f"call warmup() first, or run {self._command()}"
            )
        if consumer.device != self.place.device:
            raise InvalidInput(f"the engine is on device {self.place.device}, the caller on device {consumer.device}")
        check_vocabulary(ids, self._architecture.vocabulary)
        shape = batch, time = round_up(ids.shape[0], ids.shape[1], self.longest)
        padded, counts = pad_to_shape(ids, lengths, shape)
        if self._graphed is not None and batch <= FEW_TEXTS:
            with self._graphed.running(padded, counts, consumer) as table:
                yield table
            return
        views = [
            self.runtime.on_device(IDS, padded, consumer),
            self.runtime.on_device(LENGTHS, counts, consumer),
            self.runtime.new(OUTPUT, (batch * time, self.hidden), np.float32, consumer),
        ]
        with self.runtime.memory.at(consumer):
            self._engine.enqueue(shape, {view.name: view.pointer for view in views}, consumer.stream)
        yield TokenTable(views[-1].owner, time)

    def _load(self) -> None:
        found = read_engine(self.key)
        problem = found.problem
        if found.engine is not None:
            try:
                with self.runtime.memory.at(self.place):
                    self._use(found.engine)
                    return
            except CorruptFile as error:
                problem = f"is refused ({error})"
        if problem is not None:
            self.problem = f"the TensorRT engine {self.key.path} {problem}; warmup() or {self._command()} replaces it"

    def _use(self, engine: bytes) -> None:
        self._engine = Engine(engine, self._profiles)
        self._graphed = GraphedEngine(self._engine, self.runtime, self.hidden)

    def _build(self) -> None:
        """Build, take into use, then keep: an `OSError` leaves an engine that works."""
        with WeightFiles(self._files.weights) as weights:
            graph = build_plain_graph(self._architecture, weights, self._precision)
        with self.runtime.memory.at(self.place):
            engine, timing = build_engine(graph.model, self._profiles, read_timing(self.key))
            self._use(engine)
        write_timing(self.key, timing)
        write_engine(self.key, engine)

    def _command(self) -> str:
        return f"`llmrec-fast build-engine {self._files.folder} --precision {self._precision}`"


def build_cached_engine(model: str | Path, precision: Precision = "float16") -> Path:
    """Build a model's engine for this GPU if the cache has none; returns its file.

    Raises
    ------
    InvalidInput : a model that the package does not build the graph of, another precision; as `TensorRTSession.build`.
    DeviceUnavailable : TensorRT cannot be used here; the message names what is missing.
    """
    if precision not in PRECISIONS:
        raise InvalidInput(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}")
    devices.choose_device("tensorrt")
    files = find_model(model)
    if not files.of_bert_family:
        raise InvalidInput(f"{files.folder} is not a model of the BERT family given as weights: TensorRT cannot run it")
    session = TensorRTSession(files, precision)
    if session.problem is not None:
        warnings.warn(session.problem, RuntimeWarning, stacklevel=2)
    return session.build()
