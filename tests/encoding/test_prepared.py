"""Prepared weights on disk: the same values as packed anew, and never those of something else."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmrec_fast.arrays import Float32Array
from llmrec_fast.encoding import Encoder, prepared
from llmrec_fast.encoding.families import build_model_graph
from llmrec_fast.encoding.graph_builder import Graph
from llmrec_fast.encoding.packed import packed_arrays
from llmrec_fast.encoding.weights import WeightFiles
from llmrec_fast.kernels.cpu.intrinsics import instruction_set
from tests.encoding.tiny_models import KINDS, write_model

TEXTS = ["a man is eating food", "the movie about space"]
PRECISIONS = ("float32", "int8")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMREC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(prepared, "LEAST_BYTES", 0)
    return tmp_path / "cache" / "prepared"


@pytest.fixture
def packings(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Grows by whether int8 was asked for whenever weights are packed."""
    calls = []

    def pack(architecture: object, parameters: object, *, quantise: bool) -> object:
        calls.append(quantise)
        return packed_arrays(architecture, parameters, quantise=quantise)  # type: ignore[arg-type]

    monkeypatch.setattr(prepared, "packed_arrays", pack)
    return calls


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def _encode(model: Path, precision: str = "int8") -> Float32Array:
    return Encoder(model, precision=precision, threads=1).encode(TEXTS)  # type: ignore[arg-type]


def _file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_second_load_maps_what_the_first_packed(
    model: Path, folder: Path, packings: list[bool], precision: str
) -> None:
    first = _encode(model, precision)
    assert packings == [precision == "int8"]
    np.testing.assert_array_equal(_encode(model, precision), first)
    assert len(packings) == 1
    assert _file(folder).name.split("-")[1] == precision


def test_the_precisions_lie_side_by_side(model: Path, folder: Path, packings: list[bool]) -> None:
    for precision in (*PRECISIONS, *PRECISIONS):
        _encode(model, precision)
    assert packings == [False, True]
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_is_built_once(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, packings: list[bool], kind: str
) -> None:
    model, built = write_model(tmp_path / kind, kind), []

    def build(config: Mapping[str, Any], weights: WeightFiles) -> Graph:
        built.append(kind)
        return build_model_graph(config, weights)

    monkeypatch.setattr(prepared, "build_model_graph", build)
    first = Encoder(model, threads=2).encode(TEXTS)
    np.testing.assert_array_equal(Encoder(model, threads=2).encode(TEXTS), first)
    assert built == [kind]
    (graph,) = (path for path in folder.iterdir() if "graph" in path.name)
    _flip(graph, graph.stat().st_size - 65)
    with pytest.warns(RuntimeWarning, match=f"{graph.name} is damaged .*prepared anew"):
        np.testing.assert_array_equal(Encoder(model, threads=2).encode(TEXTS), first)
    assert built == [kind, kind]


def test_mapped_arrays_can_be_written_to_and_the_file_does_not_see_it(model: Path, folder: Path) -> None:
    _encode(model)
    content = _file(folder).read_bytes()
    arrays = prepared._read(_key_of(folder, model))
    assert all(array.flags.writeable and array.flags.aligned for array in arrays.values())
    assert all(array.ctypes.data % 64 == 0 for array in arrays.values())
    arrays["words"][:] = 7
    assert _file(folder).read_bytes() == content


def _key_of(folder: Path, model: Path) -> prepared.PreparedKey:
    from llmrec_fast.encoding.architectures import read_architecture
    from llmrec_fast.encoding.model_files import find_model
    from llmrec_fast.encoding.weights import WeightFiles

    files = find_model(str(model))
    with WeightFiles(files.weights) as weights:
        architecture = read_architecture(files.config, weights.names())
    key = prepared._make_key(files.weights, repr(architecture), "int8", str(instruction_set().dtype))
    assert key.path == _file(folder)
    return key


def _flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-64])


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a value": (lambda path: _flip(path, path.stat().st_size - 65), "the values of .* have changed"),
    "the header": (lambda path: _flip(path, 100), "its header has changed"),
    "the kind": (lambda path: _flip(path, 0), "no file of prepared weights"),
    "cut": (_cut, "bytes, not"),
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "text": (lambda path: path.write_text("not this"), "no file of prepared weights"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_and_replaced(model: Path, folder: Path, packings: list[bool], damage: str) -> None:
    wanted = _encode(model)
    whole = _file(folder).read_bytes()
    change, message = DAMAGES[damage]
    change(_file(folder))
    with pytest.warns(RuntimeWarning, match=f"{_file(folder).name} is damaged .*{message}.*prepared anew"):
        np.testing.assert_array_equal(_encode(model), wanted)
    assert _file(folder).read_bytes() == whole
    assert len(packings) == 2


def test_other_weights_in_the_same_place_make_the_file_stale(
    model: Path, folder: Path, packings: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    first = _encode(model)
    write_model(model, seed=1)
    with caplog.at_level(logging.INFO, "llmrec_fast"):
        second = _encode(model)
    assert "is stale (weights was" in caplog.text
    assert np.abs(first - second).max() > 0.01
    np.testing.assert_array_equal(_encode(model), second)
    assert len(packings) == 2
    _file(folder)


@pytest.mark.parametrize("part", ["architecture", "code"])
def test_another_package_or_architecture_makes_the_file_stale(
    model: Path,
    packings: list[bool],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
) -> None:
    _encode(model)
    if part == "code":
        monkeypatch.setattr(prepared, "__version__", "99")
    else:
        config = (model / "config.json").read_text()
        (model / "config.json").write_text(config.replace("gelu", "relu"))
    with caplog.at_level(logging.INFO, "llmrec_fast"):
        _encode(model)
    assert f"is stale ({part} was" in caplog.text
    assert len(packings) == 2


def test_a_folder_that_cannot_be_written_costs_a_warning(model: Path, folder: Path, packings: list[bool]) -> None:
    folder.parent.mkdir()
    folder.write_text("a file in the way")
    with pytest.warns(RuntimeWarning, match="cannot be kept in .*each process prepares them anew") as seen:
        _encode(model)
    assert packings == [True]
    assert len(seen) == 1


def test_a_file_that_cannot_be_read_is_replaced(model: Path, folder: Path, packings: list[bool]) -> None:
    _encode(model)
    path = _file(folder)
    path.unlink()
    path.symlink_to(path)
    with pytest.warns(RuntimeWarning, match="cannot be read .*prepared anew"):
        _encode(model)
    _encode(model)
    assert packings == [True, True]


def test_a_folder_of_somebody_else_is_read(model: Path, packings: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    _encode(model)
    monkeypatch.setattr(os, "utime", refuse)
    _encode(model)
    assert packings == [True]


def test_a_full_disk_costs_a_warning_and_leaves_nothing(
    model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.warns(RuntimeWarning, match="cannot be kept in .*No space left"):
        _encode(model)
    assert list(folder.iterdir()) == []


def test_small_weights_are_packed_each_time(
    model: Path, folder: Path, packings: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared, "LEAST_BYTES", 1 << 20)
    _encode(model)
    _encode(model)
    assert len(packings) == 2
    assert not folder.exists()


def test_the_files_that_were_unused_the_longest_leave_first(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [write_model(tmp_path / name) for name in "abc"]
    _encode(models[0])
    size = _file(folder).stat().st_size
    monkeypatch.setattr(prepared, "LARGEST_FOLDER", 2 * size)
    first = _file(folder)
    _encode(models[1])
    (second,) = set(folder.iterdir()) - {first}
    os.utime(first, (1, 1))
    os.utime(second, (2, 2))
    _encode(models[0])  # now the last that was used
    _encode(models[2])
    assert first.exists()
    assert not second.exists()
    assert len(list(folder.iterdir())) == 2


_PROGRAM = """
import sys
from llmrec_fast.encoding import Encoder, prepared
prepared.LEAST_BYTES = 0
print(Encoder(sys.argv[1], precision="int8", threads=1).encode(["a man"]).tolist())
"""


def test_processes_that_prepare_at_once_leave_one_whole_file(model: Path, folder: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", _PROGRAM, str(model)]
    running = [
        subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    answers = {process.communicate()[0] for process in running}
    assert all(process.returncode == 0 for process in running)
    assert len(answers) == 1
    _file(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert prepared._read(_key_of(folder, model))
