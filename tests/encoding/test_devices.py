"""Each missing piece of a GPU is named; "auto" chooses in order and says why."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from llmrec_fast.encoding import devices
from llmrec_fast.encoding.devices import Probes, choose_device
from llmrec_fast.errors import DeviceUnavailable, InvalidInput

ALL = Probes(*(lambda: None for _ in range(5)))
PIECES = {
    "cuda": ("driver", "provider", "provider_library", "kernels"),
    "tensorrt": ("driver", "tensorrt", "kernels"),
}


@pytest.mark.parametrize(
    ("device", "piece"), [(device, piece) for device, pieces in PIECES.items() for piece in pieces]
)
def test_a_missing_piece_is_named(device: str, piece: str) -> None:
    probes = replace(ALL, **{piece: lambda: f"the {piece}"})
    with pytest.raises(DeviceUnavailable, match=f"device='{device}' cannot be used here; missing: the {piece}$"):
        choose_device(device, probes=probes)


@pytest.mark.parametrize("device", PIECES)
def test_all_missing_pieces_are_named_at_once(device: str) -> None:
    nothing = Probes(*((lambda name=name: name) for name in ("driver", "provider", "library", "tensorrt", "kernels")))
    with pytest.raises(DeviceUnavailable) as caught:
        choose_device(device, probes=nothing)
    wanted = {"cuda": "driver; provider; library; kernels", "tensorrt": "driver; tensorrt; kernels"}[device]
    assert str(caught.value).endswith(f"missing: {wanted}")


@pytest.mark.parametrize(
    ("missing", "cached", "device", "reason"),
    [
        ([], True, "tensorrt", "cached"),
        ([], False, "cuda", "no TensorRT engine"),
        (["tensorrt"], True, "cuda", "TensorRT is missing the tensorrt"),
        (["provider"], True, "tensorrt", "cached"),
        (["provider"], False, "cpu", "CUDA is missing the provider"),
        (["kernels"], True, "cpu", "the kernels"),
        (["driver"], True, "cpu", "the driver"),
    ],
)
def test_auto_prefers_tensorrt_then_cuda_then_the_cpu(
    missing: list[str], cached: bool, device: str, reason: str
) -> None:
    probes = replace(ALL, **{piece: (lambda piece=piece: f"the {piece}") for piece in missing})
    choice = choose_device("auto", engine_cached=lambda: cached, probes=probes)
    assert choice.device == device
    assert reason in choice.reason


def test_by_name_nothing_else_is_chosen() -> None:
    assert [choose_device(device, probes=ALL).device for device in ("cpu", "cuda", "tensorrt")] == [
        "cpu",
        "cuda",
        "tensorrt",
    ]
    with pytest.raises(InvalidInput, match="auto, cpu, cuda, tensorrt"):
        choose_device("gpu", probes=ALL)


def test_an_onnx_runtime_without_the_provider_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, onnxruntime=SimpleNamespace(get_available_providers=lambda: ["CPUExecutionProvider"]))
    assert "only CPUExecutionProvider" in str(devices.missing_provider())
    assert devices.missing_provider_library() is None  # the wheel is named already
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert "onnxruntime-gpu wheel" in str(devices.missing_provider())


def test_a_provider_library_that_does_not_load_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = SimpleNamespace(get_available_providers=lambda: ["CUDAExecutionProvider"], __file__="/nowhere/__init__.py")
    _pretend(monkeypatch, onnxruntime=found)
    assert devices.missing_provider() is None
    assert "libonnxruntime_providers_shared.so" in str(devices.missing_provider_library())


def test_nvidias_wheels_are_loaded_before_a_library_is_called_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def preload_dlls() -> None:
        calls.append("preloaded")
        print("Failed to load libcublasLt.so.12")

    found = SimpleNamespace(
        get_available_providers=lambda: ["CUDAExecutionProvider"],
        __file__="/nowhere/__init__.py",
        preload_dlls=preload_dlls,
    )
    _pretend(monkeypatch, onnxruntime=found)
    monkeypatch.setattr(devices.ctypes, "CDLL", lambda path, mode=0: calls.append(path.rpartition("_")[2]))
    assert devices.missing_provider_library() is None
    assert calls == ["preloaded", "shared.so", "cuda.so"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("failing", [None, "cuDeviceGetName"])
def test_a_gpu_is_described_by_its_driver(monkeypatch: pytest.MonkeyPatch, failing: str | None) -> None:
    class Driver:
        def __getattr__(self, name: str) -> Any:
            return lambda *values: 1 if name == failing else self.fill(name, values)

        def fill(self, name: str, values: tuple[Any, ...]) -> int:
            if name == "cuDeviceGetName":
                values[0].value = b"NVIDIA X"
            elif name == "cuDeviceGetAttribute":
                values[0]._obj.value = {75: 9, 76: 1}[values[1]]
            elif name == "cuDeviceGetCount":
                values[0]._obj.value = 1
            return 0

    monkeypatch.setattr(devices.ctypes, "CDLL", lambda _: Driver())
    if failing is None:
        assert devices.describe_gpu(0) == "NVIDIA X 9.1"
    else:
        with pytest.raises(DeviceUnavailable, match="does not describe GPU 0"):
            devices.describe_gpu(0)


@pytest.mark.parametrize(("version", "missing"), [("10.11.0.33", True), ("10.12.0.36", False), ("11.4.0", False)])
def test_an_old_tensorrt_is_refused(monkeypatch: pytest.MonkeyPatch, version: str, missing: bool) -> None:
    _pretend(monkeypatch, tensorrt=SimpleNamespace(__version__=version))
    assert (devices.missing_tensorrt() is not None) == missing


def _pretend(monkeypatch: pytest.MonkeyPatch, **modules: object) -> None:
    real = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", lambda name: modules.get(name) or real(name))


@pytest.mark.skipif(devices.missing_driver() is None, reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_this_machine_without_a_gpu(device: str) -> None:
    with pytest.raises(DeviceUnavailable, match="NVIDIA driver"):
        choose_device(device)
    assert choose_device("auto").device == "cpu"


def test_a_model_that_no_gpu_runs_stays_on_the_cpu_and_says_so() -> None:
    choice = choose_device("auto", refused="it is odd", probes=ALL)
    assert (choice.device, "it is odd" in choice.reason) == ("cpu", True)
    with pytest.raises(DeviceUnavailable, match="cannot run this model: it is odd"):
        choose_device("cuda", refused="it is odd", probes=ALL)
