"""TensorRT itself: build an engine from an ONNX file, and enqueue it on a stream. Nothing else uses the library.

A test holds every name that is used here against those of the bindings of TensorRT 10.12 and 11.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmrec_fast.encoding.engine_layouts import Layout
from llmrec_fast.encoding.engine_profiles import Profile, Shape, choose_profile
from llmrec_fast.errors import CorruptFile, CudaError, InvalidInput


def build_engine(model: bytes, layout: Layout, profiles: Sequence[Profile], timing: bytes) -> tuple[bytes, bytes]:
    """An engine of a strongly typed ONNX file, and what was learned about the speed of kernels, for the next build.

    Takes minutes, on the current GPU. `layout` is that of the inputs, `timing` what an earlier build learned, or nothing.

    Raises
    ------
    InvalidInput : TensorRT cannot parse the file.
    CudaError : it cannot build the engine; its log on standard error says why.
    """
    library, logger = _open()
    builder = library.Builder(logger)
    network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = library.OnnxParser(network, logger)
    if not parser.parse(model):
        errors = "; ".join(str(parser.get_error(place).desc()) for place in range(parser.num_errors))
        raise InvalidInput(f"TensorRT cannot read the model's graph: {errors}")
    settings = builder.create_builder_config()
    for profile in profiles:
        shapes = builder.create_optimization_profile()
        least, likeliest, largest = map(layout.dimensions, (profile.least, profile.likeliest, profile.largest))
        for name in least:
            shapes.set_shape(name, least[name], likeliest[name], largest[name])
        _check(settings.add_optimization_profile(shapes) >= 0, f"take the profile {profile}")
    cache = settings.create_timing_cache(timing)
    _check(settings.set_timing_cache(cache, False), "take the timing cache; delete the .timing file beside the engine")
    engine = builder.build_serialized_network(network, settings)
    _check(engine is not None, "build the engine")
    return bytes(engine), bytes(settings.get_timing_cache().serialize())


class Engine:
    """A built engine on the current GPU. Each stream has an execution context of its own, for as long as the engine lives.

    Contexts on several streams may be in the same profile (always since TensorRT 10).

    Raises `CorruptFile` where TensorRT does not take the engine.
    """

    def __init__(self, data: bytes, layout: Layout, profiles: Sequence[Profile]) -> None:
        library, self._logger = _open()
        self._runtime = library.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise CorruptFile("TensorRT cannot load the engine")
        self.layout = layout
        self._profiles = profiles
        self._contexts: dict[int, _Context] = {}
        self._lock = threading.Lock()

    def enqueue(self, shape: Shape, addresses: Mapping[str, int], stream: int) -> None:
        """Run on the stream, without waiting: the shape of the batch, device addresses of inputs and output by name.

        Calls of several threads on one stream follow each other. The addresses must stay valid until the stream is past them.
        """
        place = choose_profile(self._profiles, shape)
        with self._lock:
            context = self._contexts.get(stream)
            if context is None:
                made = self._engine.create_execution_context()
                _check(made is not None, "create an execution context (not enough memory?)")
                context = self._contexts[stream] = _Context(made)
        with context.lock:
            native = context.native
            if context.profile != place:
                _check(native.set_optimization_profile_async(place, stream), f"switch to profile {place}")
                context.profile = place
            self._bind(native, shape, addresses)
            _check(native.execute_async_v3(stream), "enqueue the engine")

    @property
    def activation_bytes(self) -> int:
        """Device memory that `fix` asks for."""
        return int(self._engine.device_memory_size_v2)

    def fix(self, shape: Shape, addresses: Mapping[str, int], activations: int, stream: int) -> FixedShape:
        """The engine for one shape and these addresses, in a context of its own, as a CUDA graph needs it.

        `activations` is the address of `activation_bytes` of memory; shapes that run on one stream may share it.
        """
        strategy = importlib.import_module("tensorrt").ExecutionContextAllocationStrategy.USER_MANAGED
        native = self._engine.create_execution_context(strategy)
        _check(native is not None, "create an execution context (not enough memory?)")
        native.set_device_memory(activations, self.activation_bytes)
        place = choose_profile(self._profiles, shape)
        _check(native.set_optimization_profile_async(place, stream), f"switch to profile {place}")
        self._bind(native, shape, addresses)
        return FixedShape(native)

    def _bind(self, native: Any, shape: Shape, addresses: Mapping[str, int]) -> None:
        for name, dimensions in self.layout.dimensions(shape).items():
            _check(native.set_input_shape(name, dimensions), f"take {name} of the shape {dimensions}")
        for name in addresses:
            _check(native.set_tensor_address(name, addresses[name]), f"take an address for {name}")


@dataclass(frozen=True)
class FixedShape:
    """An engine that is bound to one shape and one set of addresses."""

    native: Any

    def enqueue(self, stream: int) -> None:
        """Run on the stream, without waiting. A CUDA graph may record it from the second time on: the first one prepares."""
        _check(self.native.execute_async_v3(stream), "enqueue the engine")


@dataclass
class _Context:
    native: Any
    profile: int = -1
    lock: threading.Lock = field(default_factory=threading.Lock)


def _open() -> tuple[Any, Any]:
    """The library and a logger for its errors; `devices.missing_tensorrt` has told whoever lacks it."""
    library = importlib.import_module("tensorrt")
    return library, library.Logger(library.Logger.ERROR)


def _check(done: bool, what: str) -> None:
    if not done:
        raise CudaError(f"TensorRT could not {what}; its log on standard error says why")
