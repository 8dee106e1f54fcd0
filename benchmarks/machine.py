"""What a figure was measured on: processor, memory, system, and the versions of everything that took part."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

from benchmarks.threads import available_cores

DISTRIBUTIONS = (
    *("llmrec-fast", "numpy", "numba", "scipy", "onnxruntime", "tokenizers"),
    *("torch", "sentence-transformers", "transformers", "fastembed"),
    *("faiss-cpu", "usearch", "numkong", "scalable-vs", "scikit-learn", "hnswlib", "chroma-hnswlib"),
)


def describe() -> dict[str, object]:
    """The machine and the software as plain values for JSON."""
    return {
        "processor": _processor(),
        "architecture": platform.machine(),
        "cores": available_cores(),
        "memory_bytes": memory_bytes(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version for name in DISTRIBUTIONS if (version := _version(name))},
        "commit": _commit(),
        "load_average": round(os.getloadavg()[0], 1),  # above 0 at the start means that others use the machine
    }


def memory_bytes() -> int:
    """Bytes of physical memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_memory_bytes() -> int:
    """Bytes that can be allocated without swapping, as the kernel estimates them."""
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return memory_bytes()


def _processor() -> str:
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit that is checked out, with a plus sign where the tree differs from it; None outside a checkout."""
    command = ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None
