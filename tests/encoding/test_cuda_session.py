"""The CUDA session, all but ONNX Runtime's own GPU code: emulated memory and kernels, and a double over its CPU engine."""

from __future__ import annotations

import ctypes
import json
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from llmrec_fast.encoding import cuda_session, devices
from llmrec_fast.encoding.cuda_graph import build_cuda_graph
from llmrec_fast.encoding.devices import Probes
from llmrec_fast.encoding.encoder import Encoder
from llmrec_fast.encoding.families import build_model_graph
from llmrec_fast.encoding.graph_builder import FUSED, Graph
from llmrec_fast.encoding.weights import WeightFiles
from llmrec_fast.errors import DeviceUnavailable
from llmrec_fast.kernels.cuda.memory import Place
from llmrec_fast.kernels.cuda.runtime import using
from tests.encoding.gated_models import GATED_KINDS, write_gated_model
from tests.encoding.tiny_models import KINDS, WORDS, write_model
from tests.simt import build
from tests.simt.memory import Emulation

# ONNX Runtime's own operators with a float32 kernel on CUDA, of those that any graph here has (docs/OperatorKernels.md)
FLOAT32_KERNELS = {
    "Attention",
    "BiasGelu",
    "EmbedLayerNormalization",
    "FastGelu",
    "Gelu",
    "MultiHeadAttention",
    "QuickGelu",
    "RotaryEmbedding",
}
TEXTS = [" ".join(WORDS[first : first + length]) for first in range(4) for length in (0, 1, 3, 7, 11)]


class Double:
    """What the session uses of onnxruntime; "device" addresses are read and written where they are."""

    GraphOptimizationLevel, OrtValue = onnxruntime.GraphOptimizationLevel, onnxruntime.OrtValue
    SessionOptions = onnxruntime.SessionOptions

    def __init__(self, providers: tuple[str, ...] = ("CUDAExecutionProvider", "CPUExecutionProvider")) -> None:
        self._providers = providers
        self.settings: dict[str, str] = {}
        self.runs: list[tuple[tuple[int, ...], dict[str, str]]] = []

    def RunOptions(self) -> Any:
        entries: dict[str, str] = {}
        return SimpleNamespace(entries=entries, add_run_config_entry=entries.__setitem__)

    def InferenceSession(self, model: bytes, options: Any, providers: Any) -> Any:
        ((_, self.settings),) = providers
        real = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

        def run(binding: _Binding, run_options: Any) -> None:
            self.runs.append((binding.inputs["input_ids"].shape, run_options.entries))
            ((name, target),) = binding.outputs.items()
            target[...] = real.run([name], binding.inputs)[0]

        return SimpleNamespace(get_providers=lambda: list(self._providers), io_binding=_Binding, run_with_iobinding=run)


class _Binding:
    def __init__(self) -> None:
        self.inputs: dict[str, np.ndarray] = {}
        self.outputs: dict[str, np.ndarray] = {}

    def bind_input(self, name: str, kind: str, device: int, dtype: Any, shape: list[int], pointer: int) -> None:
        assert (kind, device) == ("cuda", 0)
        self.inputs[name] = _at(pointer, dtype, shape)

    def bind_output(self, name: str, kind: str, device: int, dtype: Any, shape: list[int], pointer: int) -> None:
        assert (kind, device) == ("cuda", 0)
        self.outputs[name] = _at(pointer, dtype, shape)


def _at(pointer: int, dtype: Any, shape: list[int]) -> np.ndarray:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(pointer), dtype).reshape(shape)


@pytest.fixture
def double(emulation: Emulation, monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Double()
    monkeypatch.setattr(cuda_session, "import_onnxruntime", lambda: made)
    everything = Probes(*(lambda: None for _ in range(5)))
    monkeypatch.setattr(devices, "THIS_MACHINE", replace(everything, tensorrt=lambda: "the tensorrt wheel"))
    with using(emulation.runtime):
        yield made


@pytest.fixture(scope="module")
def emulation() -> Emulation:
    if (reason := build.missing_for_module()) is not None:
        pytest.skip(f"the CUDA kernels cannot be emulated here: {reason}")
    return Emulation()


@pytest.mark.parametrize("pooling", ["mean", "max", "first", "last"])
@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_those_of_the_cpu(double: Double, tmp_path: Path, kind: str, pooling: str) -> None:
    folder = write_model(tmp_path, kind)
    ours, theirs = Encoder(folder, device="cuda", pooling=pooling), Encoder(folder, device="cpu", pooling=pooling)
    assert ours.describe()["device"] == "cuda"
    np.testing.assert_allclose(ours.encode(TEXTS), theirs.encode(TEXTS), atol=1e-5)
    assert ours.encode([]).shape == (0, ours.dimension)


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("kind", GATED_KINDS)
def test_vectors_of_the_other_families_are_those_of_the_cpu(
    double: Double, tmp_path: Path, kind: str, pooling: str
) -> None:
    folder = write_gated_model(tmp_path, kind)
    ours, theirs = Encoder(folder, device="cuda", pooling=pooling), Encoder(folder, device="cpu", pooling=pooling)
    np.testing.assert_allclose(ours.encode(TEXTS), theirs.encode(TEXTS), atol=5e-5)


@pytest.mark.parametrize("config", [{"num_key_value_heads": 2}, {"hidden_act": "gelu_new", "attention_bias": True}])
def test_decoders_of_other_shapes_too(double: Double, tmp_path: Path, config: dict[str, Any]) -> None:
    folder = write_gated_model(tmp_path, "llama", config=config)
    found = Encoder(folder, device="cuda", pooling="last").encode(TEXTS)
    np.testing.assert_allclose(found, Encoder(folder, device="cpu", pooling="last").encode(TEXTS), atol=5e-5)


@pytest.mark.parametrize("kind", [*KINDS, *GATED_KINDS])
def test_each_operator_has_a_kernel_on_the_gpu(tmp_path: Path, kind: str) -> None:
    folder = write_model(tmp_path, kind) if kind in KINDS else write_gated_model(tmp_path, kind)
    config = json.loads((folder / "config.json").read_text())
    with WeightFiles([folder / "model.safetensors"]) as weights:
        assert _own_operators(build_cuda_graph(config, weights)) <= FLOAT32_KERNELS
        on_cpu = _own_operators(build_model_graph(config, weights))
    assert ("GroupQueryAttention" in on_cpu) == (kind in GATED_KINDS[1:])


def _own_operators(graph: Graph) -> set[str]:
    return {node.op_type for node in onnx.load_from_string(graph.model).graph.node if node.domain == FUSED}


@pytest.mark.parametrize(("kind", "captured"), [("bert", "1"), ("mpnet", "0"), ("modernbert", "0"), ("qwen3", "1")])
def test_graphs_are_captured_where_nothing_runs_on_the_cpu(
    double: Double, tmp_path: Path, emulation: Emulation, kind: str, captured: str
) -> None:
    emulation.memory.place = Place(0, 7)
    try:
        Encoder(write_model(tmp_path, kind) if kind in KINDS else write_gated_model(tmp_path, kind), device="cuda")
    finally:
        emulation.memory.place = Place(0, 0)
    assert double.settings["enable_cuda_graph"] == captured


def test_several_modes_are_joined_and_normalised(double: Double, tmp_path: Path) -> None:
    modes = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}
    folder = write_model(tmp_path, pooling=modes, normalize=True)
    found = Encoder(folder, device="cuda").encode(TEXTS)
    np.testing.assert_allclose(found, Encoder(folder, device="cpu").encode(TEXTS), atol=1e-5)


def test_shapes_come_from_a_grid_and_keep_their_graph(double: Double, bert: Path, emulation: Emulation) -> None:
    emulation.memory.place = Place(0, 7)
    try:
        encoder = Encoder(bert, device="cuda")
        for count in (1, 3, 4, 3):
            encoder.encode(TEXTS[1 : 1 + count])
    finally:
        emulation.memory.place = Place(0, 0)
    assert double.settings["user_compute_stream"] == "7"
    assert double.settings["enable_cuda_graph"] == "1"
    shapes = [shape for shape, _ in double.runs]
    graphs = [entries["gpu_graph_id"] for _, entries in double.runs]
    assert shapes == [(1, 16), (4, 16), (4, 16), (4, 16)]
    assert graphs == ["1", "2", "2", "2"]
    assert all(entries["disable_synchronize_execution_providers"] == "1" for _, entries in double.runs)


def test_the_default_stream_captures_nothing(double: Double, bert: Path) -> None:
    Encoder(bert, device="cuda").encode(TEXTS[:2])
    assert double.settings["enable_cuda_graph"] == "0"
    assert "gpu_graph_id" not in double.runs[0][1]


def test_threads_do_not_mix_their_texts(double: Double, bert: Path) -> None:
    encoder, found = Encoder(bert, device="cuda"), [np.zeros(0)] * 6
    expected = encoder.encode(TEXTS)

    def work(place: int) -> None:
        found[place] = encoder.encode(TEXTS[place:])

    threads = [threading.Thread(target=work, args=(place,)) for place in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place, vectors in enumerate(found):
        np.testing.assert_allclose(vectors, expected[place:], atol=1e-5)


def test_a_provider_that_did_not_start_is_not_replaced_by_the_cpu(
    double: Double, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(double, "_providers", ("CPUExecutionProvider",))
    with pytest.raises(DeviceUnavailable, match="could not set up its CUDA provider"):
        Encoder(bert, device="cuda")


def test_what_no_session_runs_is_refused_by_name_and_left_to_the_cpu_by_auto(double: Double, bert: Path) -> None:
    with pytest.raises(DeviceUnavailable, match="precision='int8' is for the CPU"):
        Encoder(bert, device="cuda", precision="int8")
    described = Encoder(bert, precision="int8").describe()
    assert (described["device"], "int8" in described["device_reason"]) == ("cpu", True)
    assert Encoder(bert).describe()["device"] == "cuda"
