"""Which device encodes: what each one needs, what of it is missing here, and what "auto" therefore chooses.

A device that was asked for by name and cannot be used raises, and names every missing piece at once: driver, wheel, provider
library, kernels. Only "auto" chooses by itself, and it says why.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llmrec_fast.errors import DeviceUnavailable, InvalidInput

DEVICES = ("auto", "cpu", "cuda", "tensorrt")
OLDEST_TENSORRT = (10, 12)
_PROVIDER = "CUDAExecutionProvider"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


@dataclass(frozen=True)
class DeviceChoice:
    """What encodes, and why: `reason` is a sentence for `describe()` and `llmrec-fast info`."""

    device: str
    reason: str


@dataclass(frozen=True)
class Probes:
    """How to look at this machine; each gives what is missing, or None. Tests bring their own."""

    driver: Callable[[], str | None]
    provider: Callable[[], str | None]
    provider_library: Callable[[], str | None]
    tensorrt: Callable[[], str | None]
    kernels: Callable[[], str | None]

    def missing(self, device: str) -> list[str]:
        """Everything that `device` lacks here, in the order in which to install it."""
        if device == "cpu":
            return []
        session = [self.provider, self.provider_library] if device == "cuda" else [self.tensorrt]
        found = [probe() for probe in (self.driver, *session, self.kernels)]
        return [reason for reason in found if reason is not None]


def choose_device(
    device: str,
    *,
    refused: str | None = None,
    engine_cached: Callable[[], bool] = lambda: False,
    probes: Probes | None = None,
) -> DeviceChoice:
    """The device to use for `device`.

    Parameters
    ----------
    device : "auto", "cpu", "cuda" or "tensorrt".
    refused : why no GPU can run this model, if none can.
    engine_cached : whether a TensorRT engine of the model is on disk; asked by "auto" only, and only where TensorRT runs.

    Raises
    ------
    InvalidInput : another name.
    DeviceUnavailable : a device asked for by name lacks something here; the message names all of it.
    """
    if device not in DEVICES:
        raise InvalidInput(f"device must be one of {', '.join(DEVICES)}; got {device!r}")
    probes = THIS_MACHINE if probes is None else probes
    if device != "auto":
        if missing := probes.missing(device):
            raise DeviceUnavailable(f"device={device!r} cannot be used here; missing: {'; '.join(missing)}")
        if device != "cpu" and refused is not None:
            raise DeviceUnavailable(f"device={device!r} cannot run this model: {refused}")
        return DeviceChoice(device, "asked for by name")
    if (driver := probes.driver()) is not None:
        return DeviceChoice("cpu", f"no GPU can be used: {driver}")
    if refused is not None:
        return DeviceChoice("cpu", f"a GPU cannot run this model: {refused}")
    without_tensorrt = probes.missing("tensorrt")
    if not without_tensorrt and engine_cached():
        return DeviceChoice("tensorrt", "an engine of this model is cached")
    why_not = (
        f"TensorRT is missing {'; '.join(without_tensorrt)}"
        if without_tensorrt
        else "no TensorRT engine of this model is cached"
    )
    if missing := probes.missing("cuda"):
        return DeviceChoice("cpu", f"{why_not}; ONNX Runtime on CUDA is missing {'; '.join(missing)}")
    return DeviceChoice("cuda", why_not)


def missing_driver() -> str | None:
    """What keeps the NVIDIA driver from listing a GPU."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return f"the NVIDIA driver ({error})"
    count = ctypes.c_int(0)
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status:
        return f"a working NVIDIA driver (cuInit reports error {status})"
    return None if count.value else "a GPU that the NVIDIA driver lists (CUDA_VISIBLE_DEVICES may hide it)"


def missing_provider() -> str | None:
    """The wheel of ONNX Runtime that has the CUDA provider, where it is not the one installed."""
    wheel = (
        'pip uninstall onnxruntime, then pip install "llmrec-fast[gpu]" (CUDA 12) or "llmrec-fast[gpu-cu13]" (CUDA 13)'
    )
    if importlib.util.find_spec("onnxruntime") is None:
        return f"the onnxruntime-gpu wheel: {wheel}"
    available = importlib.import_module("onnxruntime").get_available_providers()
    if _PROVIDER not in available:
        return f"the onnxruntime-gpu wheel (the one installed has only {', '.join(available)}): {wheel}"
    return None


def missing_provider_library() -> str | None:
    """A library that ONNX Runtime's CUDA provider links to and that cannot be loaded."""
    if missing_provider() is not None:
        return None
    onnxruntime = importlib.import_module("onnxruntime")
    if hasattr(onnxruntime, "preload_dlls"):  # from 1.21 on: takes the libraries of NVIDIA's wheels
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find; the attempt below tells
            onnxruntime.preload_dlls()
    folder = Path(onnxruntime.__file__ or "").parent / "capi"
    try:
        # the provider takes its functions from the first one
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / "libonnxruntime_providers_cuda.so"))
    except OSError as error:
        return (
            f"a library of ONNX Runtime's CUDA provider ({error}): install CUDA and cuDNN of the version that it names"
        )
    return None


def missing_tensorrt() -> str | None:
    """The TensorRT wheel, or its libraries, or a new enough version of it."""
    wheel = 'pip install "llmrec-fast[gpu]" (CUDA 12) or "llmrec-fast[gpu-cu13]" (CUDA 13)'
    try:
        tensorrt = importlib.import_module("tensorrt")
    except ModuleNotFoundError:
        return f"the tensorrt wheel: {wheel}"
    except (ImportError, OSError) as error:
        return f"a library of TensorRT ({error}): {wheel}"
    version = tuple(int(part) for part in str(tensorrt.__version__).split(".")[:2])
    if version < OLDEST_TENSORRT:
        return f"TensorRT {'.'.join(map(str, OLDEST_TENSORRT))} or newer (installed: {tensorrt.__version__}): {wheel}"
    return None


def tensorrt_version() -> str:
    """The version of the TensorRT that is installed."""
    return str(importlib.import_module("tensorrt").__version__)


def describe_gpu(device: int) -> str:
    """Name and compute capability of a GPU, such as "NVIDIA H100 80GB HBM3 9.0"; raises `DeviceUnavailable`."""
    if (missing := missing_driver()) is not None:
        raise DeviceUnavailable(f"the GPU cannot be asked for its name; missing: {missing}")
    driver = ctypes.CDLL("libcuda.so.1")
    handle, name, major, minor = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_int(), ctypes.c_int()
    status = (
        driver.cuDeviceGet(ctypes.byref(handle), device)
        or driver.cuDeviceGetName(name, len(name), handle)
        or driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, handle)
        or driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, handle)
    )
    if status:
        raise DeviceUnavailable(f"the NVIDIA driver does not describe GPU {device} (error {status})")
    return f"{name.value.decode(errors='replace')} {major.value}.{minor.value}"


def missing_kernels() -> str | None:
    """What the package's own CUDA kernels, which pool the token embeddings, lack."""
    from llmrec_fast.kernels.cuda import why_unavailable

    return why_unavailable()


THIS_MACHINE = Probes(missing_driver, missing_provider, missing_provider_library, missing_tensorrt, missing_kernels)
