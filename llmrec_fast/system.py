"""What this machine and installation offer: for `llmrec-fast info`, bug reports and benchmark records."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from pathlib import Path
from typing import Any

from llmrec_fast.encoding import devices
from llmrec_fast.fetch import cache_folder
from llmrec_fast.kernels.threads import available_cores, get_threads

_PACKAGES = ("numpy", "numba", "scipy", "onnx", "onnxruntime", "onnxruntime-gpu", "tokenizers", "safetensors")


def describe_system() -> dict[str, Any]:
    """Versions, processor, threads, devices and the cache, as a JSON-able dictionary. Touches no network."""
    return {
        "llmrec_fast": importlib.metadata.version("llmrec-fast"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": available_cores(),
        "threads": get_threads(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "devices": _devices(),
        "cache": {"folder": str(cache_folder()), "megabytes": round(_folder_bytes(cache_folder()) / 1e6, 1)},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> dict[str, str]:
    """For each device whether it can be used, and if not, why and what to do."""
    if importlib.util.find_spec("onnxruntime") is None:
        encoding = 'kernels only; encoding needs ONNX Runtime: pip install "llmrec-fast[cpu]"'
    else:
        encoding = "ready"
    choice = devices.choose_device("auto")
    return {
        "cpu": encoding,
        "cuda": _cuda(),
        "tensorrt": _tensorrt(),
        "encoding chooses": f"{choice.device}: {choice.reason}",
    }


def _tensorrt() -> str:
    """Whether engines can be built and run here, or all that is missing for that."""
    if missing := devices.THIS_MACHINE.missing("tensorrt"):
        return f"not available; missing: {'; '.join(missing)}"
    return f"ready: TensorRT {devices.tensorrt_version()}; a model's engine is built by `llmrec-fast build-engine`"


def _cuda() -> str:
    """What a GPU call would say: the GPUs and what the extension was built for, or what is missing and how to get it."""
    from llmrec_fast.kernels.cuda import runtime

    if (reason := runtime.why_unavailable()) is not None:
        driver = shutil.which("nvidia-smi") or os.path.exists("/proc/driver/nvidia/version")
        return f"not available: {reason} ({'an NVIDIA driver is present' if driver else 'no NVIDIA driver here'})"
    extension = runtime.runtime().extension
    version = f"{extension.cuda_version // 1000}.{extension.cuda_version % 1000 // 10}"
    return f"ready: GPUs: {extension.device_count()}; extension of CUDA {version} for sm {extension.architectures}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
