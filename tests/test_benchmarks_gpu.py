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
from benchmarks.gpu import checks, pooling
from benchmarks.gpu.device import Device
from benchmarks.harness import Disagreement
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
    contenders = [{m["contender"] for m in cell["measurements"]} for cell in found["cells"]]
    assert contenders == [{"llmrec_fast", "llmrec_fast, CUDA graph"}] * 2 + [{"llmrec_fast"}]
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
    ours = {"llmrec_fast", "llmrec_fast, CUDA graph"}
    assert {m.contender for m in one.comparison.measurements} == {*ours, "cuvs"}
    assert {m.contender for m in many.comparison.measurements} == ours
    assert any("no room" in note for note in many.comparison.notes)
    assert any(note.startswith("faiss is left out") for note in report.notes)


def test_wrong_answers_are_not_timed(emulation: Emulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooling, "TOLERANCE", -1.0)
    monkeypatch.setattr(gpu, "QUICK_POOL_SHAPES", ((8, 6, 32),))
    with using(emulation.runtime), pytest.raises(Disagreement, match="differs from float64"):
        gpu.measure(EmulatedDevice(emulation), {}, arguments(tmp_path), [])


@pytest.mark.skipif(why_unavailable() is None, reason="there is a GPU")
def test_without_a_gpu_it_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"this suite needs a GPU: .*LLMREC_CUDA=1 pip install -e"):
        gpu.run(arguments(tmp_path))


def test_without_what_the_tests_need_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "NEEDED", ("pytest", "no_such_package"))
    with pytest.raises(SystemExit, match="the tests need no_such_package: pip install"):
        checks.run()


def test_no_test_for_the_gpu_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the extension is installed elsewhere than in the checkout that the tests run from."""
    monkeypatch.setattr(checks, "SELECTION", "no_such_test")
    with pytest.raises(Disagreement, match="tests fail on this GPU"):
        checks.run()


def test_a_pooling_peer_that_fails_is_left_out(
    emulation: Emulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise KeyError("in a way of its own")

    own = pooling._ways
    monkeypatch.setattr(pooling, "_ways", lambda *given: own(*given) | {"peer": fails})
    monkeypatch.setattr(gpu, "QUICK_POOL_SHAPES", ((8, 6, 32),))
    with using(emulation.runtime):
        report = gpu.measure(EmulatedDevice(emulation), {}, arguments(tmp_path, queries=(1,)), [])
    assert report.cells[-1].comparison.notes == ["peer is left out: 'in a way of its own'"]
    assert {cell["labels"].get("Q") for cell in json.loads((tmp_path / "gpu.json").read_text())["cells"]} == {1}
