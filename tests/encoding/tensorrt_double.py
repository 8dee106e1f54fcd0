"""A double of TensorRT that offers only names which its bindings have, records what is asked of it, and runs the
parsed graph with ONNX Runtime's CPU engine on the addresses that it is given."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator

from llmrec_fast.encoding.graph_builder import OUTPUT
from llmrec_fast.encoding.plain_attention import TENSORRT
from tests.encoding.tensorrt_attention import TRT_Attention

RECORDED_STREAM = 4242
NAMES = frozenset(Path(__file__).with_name("tensorrt_names.txt").read_text(encoding="ascii").split())


class Surface:
    """What a class of the double derives from: no public name but TensorRT's own."""

    def __init_subclass__(cls) -> None:
        invented = {name for name in vars(cls) if not name.startswith("_")} - NAMES
        assert not invented, f"{cls.__name__}: TensorRT has no {invented}"

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"{type(self).__name__}.{name}: {'not doubled' if name in NAMES else 'no name of TensorRT'}"
        )


class TensorRT(Surface):
    """The module. What it was asked for lies in `_calls`, in order; `_fails` names calls that are to fail."""

    def __init__(self, version: str = "10.12.0.36") -> None:
        self.__version__ = version
        self._calls: list[tuple[Any, ...]] = []
        self._fails: set[str] = set()
        self._recording: list[Callable[[], None]] | None = None

    def _record(self, name: str, *values: Any) -> bool:
        self._calls.append((name, *values))
        return name not in self._fails

    def _made(self, name: str) -> list[tuple[Any, ...]]:
        return [values for called, *values in self._calls if called == name]

    def Builder(self, logger: Logger) -> Builder:
        assert isinstance(logger, Logger)
        return Builder(self)

    def OnnxParser(self, network: Network, logger: Logger) -> OnnxParser:
        return OnnxParser(self, network)

    def Runtime(self, logger: Logger) -> Runtime:
        return Runtime(self)

    class NetworkDefinitionCreationFlag(Surface):
        STRONGLY_TYPED = 1

    class ExecutionContextAllocationStrategy(Surface):
        USER_MANAGED = 2

    @property
    def Logger(self) -> type[Logger]:
        return Logger


class Logger(Surface):
    ERROR = 1

    def __init__(self, severity: int) -> None:
        assert severity == self.ERROR


class _Part(Surface):
    def __init__(self, library: TensorRT) -> None:
        self._library = library


class Builder(_Part):
    def create_network(self, flags: int) -> Network:
        assert flags == 2, "only strongly typed networks are the same on 10.12 and 11"
        return Network(self._library)

    def create_builder_config(self) -> Config:
        return Config(self._library)

    def create_optimization_profile(self) -> Profile:
        return Profile(self._library)

    def build_serialized_network(self, network: Network, config: Config) -> memoryview | None:
        packed = TENSORRT in {node.domain for node in onnx.load_from_string(network._model).graph.node}
        if packed and not self._library._record("build_packed"):
            return None
        if not self._library._record("build_serialized_network", len(config._profiles)):
            return None
        profiles = json.dumps([profile._shapes for profile in config._profiles]).encode()
        return memoryview(b"plan\n" + profiles + b"\n" + network._model)


class Network(_Part):
    _model = b""


class OnnxParser(Surface):
    def __init__(self, library: TensorRT, network: Network) -> None:
        self._library, self._network = library, network

    num_errors = 1

    def parse(self, model: bytes) -> bool:
        self._network._model = model
        return self._library._record("parse")

    def get_error(self, place: int) -> ParserError:
        assert place == 0
        return ParserError()


class ParserError(Surface):
    def desc(self) -> str:
        return "an unknown operator"


class Profile(_Part):
    def __init__(self, library: TensorRT) -> None:
        super().__init__(library)
        self._shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, name: str, least: Any, likeliest: Any, largest: Any) -> None:
        self._shapes[name] = [tuple(least), tuple(likeliest), tuple(largest)]


class Config(_Part):
    def __init__(self, library: TensorRT) -> None:
        super().__init__(library)
        self._profiles: list[Profile] = []

    def add_optimization_profile(self, profile: Profile) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, content: bytes) -> bytes:
        self._library._record("create_timing_cache", content)
        return content

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        return self._library._record("set_timing_cache")

    def get_timing_cache(self) -> TimingCache:
        return TimingCache()


class TimingCache(Surface):
    def serialize(self) -> memoryview:
        return memoryview(b"learned")


class Runtime(_Part):
    def deserialize_cuda_engine(self, content: bytes) -> Engine | None:
        assert isinstance(content, bytes)
        return Engine(self._library, content) if self._library._record("deserialize_cuda_engine") else None


class Engine(Surface):
    def __init__(self, library: TensorRT, content: bytes) -> None:
        self._library = library
        plan, profiles, model = content.split(b"\n", 2)
        assert plan == b"plan"
        self._profiles = json.loads(profiles)
        self._run = _evaluator(model)

    device_memory_size_v2 = 4096

    def create_execution_context(self, strategy: int = 0) -> Context | None:
        return Context(self) if self._library._record("create_execution_context") else None


class Context(Surface):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._profile = -1
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, place: int, stream: int) -> bool:
        assert 0 <= place < len(self._engine._profiles)
        self._profile, self._shapes = place, {}  # switching forgets the shapes
        return self._engine._library._record("set_optimization_profile_async", place, stream)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, largest = self._engine._profiles[self._profile][name]
        self._shapes[name] = shape
        return all(low <= size <= high for low, size, high in zip(least, shape, largest, strict=True))

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def set_device_memory(self, memory: int, size: int) -> None:
        assert size == self._engine.device_memory_size_v2
        self._engine._library._record("set_device_memory", memory)

    def execute_async_v3(self, stream: int) -> bool:
        library = self._engine._library
        if library._recording is not None:
            assert stream == RECORDED_STREAM
            library._recording.append(self._execute)
            return library._record("recorded", tuple(self._shapes["input_ids"]))
        self._execute()
        return library._record("execute_async_v3", tuple(self._shapes["input_ids"]), self._profile, stream)

    def _execute(self) -> None:
        inputs = {
            name: address_as_array(self._addresses[name], np.int32, shape) for name, shape in self._shapes.items()
        }
        found = self._engine._run(inputs)
        address_as_array(self._addresses[OUTPUT], np.float32, found.shape)[...] = found


def _evaluator(model: bytes) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """ONNX Runtime, or onnx's own evaluator where the graph has TensorRT's attention."""
    proto = onnx.load_from_string(model)
    if any(node.domain == TENSORRT for node in proto.graph.node):
        evaluator = ReferenceEvaluator(proto, new_ops=[TRT_Attention])
        return lambda inputs: evaluator.run([OUTPUT], inputs)[0]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # with AVX2 alone ONNX Runtime saturates pairs of int8 products, which no GPU does, unless it is told to be exact
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run([OUTPUT], inputs)[0]


def address_as_array(pointer: int, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The memory at an address."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(pointer), dtype).reshape(shape)


def graphs_of(library: TensorRT) -> type:
    """What takes the place of CUDA graphs: enqueued engines are kept, and run by `replay`."""

    class Graph:
        def __init__(self, here: Any, device: int, enqueue: Callable[[int], object]) -> None:
            library._recording = self._operations = []
            try:
                enqueue(RECORDED_STREAM)
            finally:
                library._recording = None

        def replay(self, place: Any) -> None:
            library._record("replay", place.stream)
            for operation in self._operations:
                operation()

    return Graph
