"""The TensorRT session of an encoder: an engine from the cache, or one that is built when somebody asks for it; never within a
request."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llmrec_fast.encoding import devices
from llmrec_fast.encoding.engine_cache import (
    EngineKey,
    digest_weights,
    make_key,
    read_engine,
    read_timing,
    write_engine,
    write_timing,
)
from llmrec_fast.encoding.engine_check import check_engine
from llmrec_fast.encoding.engine_layouts import Layout, allowed_layouts
from llmrec_fast.encoding.engine_profiles import Profile
from llmrec_fast.encoding.graph_builder import OUTPUT
from llmrec_fast.encoding.graphed_engine import GraphedEngine
from llmrec_fast.encoding.model_files import ModelFiles, find_model
from llmrec_fast.encoding.plain_builder import PRECISIONS, Precision
from llmrec_fast.encoding.plain_families import build_plain_model, positions_of, read_any
from llmrec_fast.encoding.session import check_vocabulary
from llmrec_fast.encoding.tensorrt_session import Engine, build_engine
from llmrec_fast.encoding.token_table import TOKENS_PER_BATCH, TokenTable
from llmrec_fast.encoding.tokens import Int32Array
from llmrec_fast.encoding.weights import WeightFiles
from llmrec_fast.errors import CorruptFile, CudaError, DeviceUnavailable, InvalidInput
from llmrec_fast.kernels.cuda.memory import Place
from llmrec_fast.kernels.cuda.runtime import Runtime, runtime

LONGEST = 8192  # tokens of a text that an engine is built for: scores of padded texts grow with their square


@dataclass(frozen=True)
class _Candidate:
    """An engine that the model may have."""

    layout: Layout
    profiles: tuple[Profile, ...]
    key: EngineKey


class TensorRTSession:
    """A model's engine on the GPU that was current when it was made; calls run on their caller's stream.

    Without an engine in the cache, or with a stale or damaged one, `running` raises until `prepare` or `build` has made one.
    The engine takes packed texts where `allowed_layouts` lets it and TensorRT builds it so, padded ones elsewhere.

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
            self._architecture = read_any(files.config, weights.names())
        self.hidden, self.positions = self._architecture.hidden, positions_of(self._architecture)
        self.longest = min(self.positions, LONGEST)
        self._candidates = self._list_candidates()
        self.key = self._candidates[0].key
        self.problem: str | None = None
        self._building = threading.Lock()
        self._engine: Engine | None = None
        self._graphed: GraphedEngine | None = None
        self._load()

    @property
    def ready(self) -> bool:
        """Whether there is an engine."""
        return self._engine is not None

    @property
    def engine(self) -> str:
        """What runs, for people."""
        return f"TensorRT, {self._engine.layout.name} texts" if self._engine else "TensorRT, no engine is built yet"

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
        layout = self._engine.layout
        batch = layout.arrange(ids, lengths, self.longest, getattr(self._architecture, "padding_id", None))
        if self._graphed is not None and batch.few:
            with self._graphed.running(batch, consumer) as table:
                yield table
            return
        views = [self.runtime.on_device(name, values, consumer) for name, values in batch.inputs.items()]
        views.append(self.runtime.new(OUTPUT, (layout.rows(batch.shape), self.hidden), np.float32, consumer))
        with self.runtime.memory.at(consumer):
            self._engine.enqueue(batch.shape, {view.name: view.pointer for view in views}, consumer.stream)
        yield TokenTable(views[-1].owner, batch.starts)

    def _list_candidates(self) -> list[_Candidate]:
        version, gpu = devices.tensorrt_version(), devices.describe_gpu(self.place.device)
        digest = digest_weights(self._files.weights)
        found = []
        for layout in allowed_layouts(self._architecture, self._precision, self.longest, version):
            profiles = layout.plan(self.longest, TOKENS_PER_BATCH)
            key = make_key(digest, self._architecture, self._precision, layout.name, profiles, gpu, version)
            found.append(_Candidate(layout, profiles, key))
        return found

    def _load(self) -> None:
        """The first candidate that has a file, whatever is wrong with it."""
        for candidate in self._candidates:
            found = read_engine(candidate.key)
            problem = found.problem
            if found.engine is not None:
                try:
                    with self.runtime.memory.at(self.place):
                        self._use(candidate, found.engine)
                        return
                except CorruptFile as error:
                    problem = f"is refused ({error})"
            if problem is not None:
                self.key = candidate.key
                self.problem = (
                    f"the TensorRT engine {self.key.path} {problem}; warmup() or {self._command()} replaces it"
                )
                return

    def _use(self, candidate: _Candidate, engine: bytes) -> None:
        self._engine = Engine(engine, candidate.layout, candidate.profiles)
        self._graphed = GraphedEngine(self._engine, self.runtime, self.hidden)
        self.key = candidate.key

    def _build(self) -> None:
        """Build, take into use, then keep: an `OSError` leaves an engine that works."""
        for candidate in self._candidates:
            try:
                engine, timing = self._build_candidate(candidate)
                break
            except CudaError as error:
                self._engine = self._graphed = None
                if candidate is self._candidates[-1]:
                    raise
                warnings.warn(
                    f"TensorRT's attention of {candidate.layout.name} texts cannot be had for this model on this GPU "
                    f"({error}); its engine takes {self._candidates[-1].layout.name} ones",
                    RuntimeWarning,
                    stacklevel=4,
                )
        write_timing(self.key, timing)
        write_engine(self.key, engine)

    def _build_candidate(self, candidate: _Candidate) -> tuple[bytes, bytes]:
        with WeightFiles(self._files.weights) as weights:
            graph = build_plain_model(self._architecture, weights, self._precision, candidate.layout.name, self.longest)
        with self.runtime.memory.at(self.place):
            built = build_engine(graph.model, candidate.layout, candidate.profiles, read_timing(candidate.key))
            self._use(candidate, built[0])
        if len(self._candidates) > 1 and candidate is self._candidates[0]:
            check_engine(self, self._files, self._precision)
        return built

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
    if not files.can_be_built:
        raise InvalidInput(
            f"{files.folder} is not a model that the package builds the graph of, given as weights: TensorRT cannot run it"
        )
    session = TensorRTSession(files, precision)
    if session.problem is not None:
        warnings.warn(session.problem, RuntimeWarning, stacklevel=2)
    return session.build()
