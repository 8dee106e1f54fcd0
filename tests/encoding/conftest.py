"""Shared by the encoding tests: small models, written once a session, and the double of TensorRT."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from llmrec_fast.encoding import devices, graphed_engine
from llmrec_fast.encoding.devices import Probes
from llmrec_fast.kernels import cpu, cuda
from llmrec_fast.kernels.cuda.runtime import Runtime, using
from tests.encoding.tensorrt_double import TensorRT, address_as_array, graphs_of
from tests.encoding.tiny_models import write_model
from tests.simt.memory import DeviceArray, EmulatedMemory


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain Hugging Face folder of a tiny BERT: mean pooling, no normalisation."""
    return write_model(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TensorRT:
    made = TensorRT()
    monkeypatch.setitem(sys.modules, "tensorrt", made)
    monkeypatch.setattr(devices, "THIS_MACHINE", Probes(*(lambda: None for _ in range(5))))
    monkeypatch.setattr(devices, "describe_gpu", lambda device: f"GPU {device} 9.0")
    monkeypatch.setattr(graphed_engine, "Graph", graphs_of(made))
    monkeypatch.setenv("LLMREC_CACHE", str(tmp_path / "cache"))
    return made


@pytest.fixture
def memory() -> EmulatedMemory:
    return EmulatedMemory(lambda device, stream: None)


@pytest.fixture
def double(library: TensorRT, memory: EmulatedMemory, monkeypatch: pytest.MonkeyPatch) -> Iterator[TensorRT]:
    """The double, and instead of the CUDA kernels, which need an emulation, the one for the CPU."""

    def pool(
        rows: DeviceArray, starts: Any, lengths: Any, *, weights: Any, mode: str, normalize: bool, out: Any
    ) -> None:
        pooled = cpu.pool(rows._host, starts, lengths, weights=weights, mode=mode, normalize=normalize)
        address_as_array(out.pointer, np.float32, out.shape)[...] = pooled

    monkeypatch.setattr(cuda, "pool", pool)
    with using(Runtime(SimpleNamespace(), memory)):
        yield library
