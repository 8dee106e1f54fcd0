"""The suite `gpu` without a GPU: all of it but CuPy runs on the emulated device, at a tiny size."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import gpu
from benchmarks.gpu import pooling
from benchmarks.gpu.device import Device
from llmrec_fast.kernels.cuda.runtime import using, why_unavailable
from tests.simt import build
from tests.simt.memory import DeviceArray, Emulation


class EmulatedDevice:
    """What `CuPyDevice` is to a GPU."""

    name = "emulated"

    def __init__(self, emulation: Emulation) -> None:
        self._emulation = emulation

    def upload(self, array: np.ndarray) -> DeviceArray:
        return DeviceArray(np.array(array))

    def download(self, array: DeviceArray) -> np.ndarray:
        return self._emulation.memory.download(array, self._emulation.memory.place)

    def synchronize(self) -> None:
        self._emulation.extension.synchronize(0, 0)

    def flush(self) -> None:
        pass

    def bandwidth(self) -> float:
        return 1e9


@pytest.fixture(scope="module")
def emulation() -> Emulation:
    if (reason := build.missing_for_module()) is not None:
        pytest.skip(f"the CUDA kernels cannot be emulated here: {reason}")
    return Emulation()


def arguments(output: Path, **values: Any) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    gpu.add_arguments(parser)
    own = parser.parse_args(["--rows", "1200", "--dimensions", "64", "--queries", "1,12", "--k", "5"])
    return argparse.Namespace(**vars(own) | {"quick": True, "seconds": 0.001, "output": output} | values)


def test_the_whole_suite_but_its_peers(emulation: Emulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "QUICK_POOL_SHAPES", ((8, 6, 32),))
    device: Device = EmulatedDevice(emulation)
    with using(emulation.runtime):
        report = gpu.measure(device, {}, arguments(tmp_path), ["no tests in this test"])
    written = report.write(tmp_path)
    found = json.loads(written[0].read_text())
    assert [cell["labels"].get("Q") for cell in found["cells"]] == [1, 12, None]
    assert {m["contender"] for cell in found["cells"] for m in cell["measurements"]} == {"llmrec_fast"}
    assert found["cells"][0]["figures"]["reranked a query"] >= 5
    assert "pooling" in report.markdown()


class FakeBruteForce:
    """An engine of the GPU in NumPy; `asked` rows and fewer at a time."""

    def build(self, rows: DeviceArray, metric: str) -> np.ndarray:
        assert metric == "inner_product"
        return rows._host

    def search(self, rows: np.ndarray, queries: DeviceArray, k: int) -> tuple[None, DeviceArray]:
        if len(queries._host) > 1:
            raise MemoryError("no room for so many scores")
        scores = queries._host.astype(np.float64) @ rows.T.astype(np.float64)
        return None, DeviceArray(np.argsort(-scores, axis=1)[:, :k])


def test_peers_take_part_while_they_can(emulation: Emulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "QUICK_POOL_SHAPES", ())
    modules: Any = {"cuvs.neighbors.brute_force": FakeBruteForce(), "faiss": SimpleNamespace()}
    with using(emulation.runtime):
        report = gpu.measure(EmulatedDevice(emulation), modules, arguments(tmp_path), [])
    one, many = report.cells
    assert {m.contender for m in one.comparison.measurements} == {"llmrec_fast", "cuvs"}
    assert {m.contender for m in many.comparison.measurements} == {"llmrec_fast"}
    assert any("no room" in note for note in many.comparison.notes)
    assert any(note.startswith("faiss is left out") for note in report.notes)


def test_wrong_answers_are_not_timed(emulation: Emulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.harness import Disagreement

    monkeypatch.setattr(pooling, "TOLERANCE", -1.0)
    monkeypatch.setattr(gpu, "QUICK_POOL_SHAPES", ((8, 6, 32),))
    with using(emulation.runtime), pytest.raises(Disagreement, match="differs from float64"):
        gpu.measure(EmulatedDevice(emulation), {}, arguments(tmp_path), [])


@pytest.mark.skipif(why_unavailable() is None, reason="there is a GPU")
def test_without_a_gpu_it_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="this suite needs a GPU: "):
        gpu.run(arguments(tmp_path))
