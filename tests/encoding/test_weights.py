"""Reading safetensors: values, and what is said about damaged files."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from llmrec_fast.encoding.weights import WeightFiles
from llmrec_fast.errors import CorruptFile

VALUES = np.array([[1.5, -2.0, 0.25], [0.0, 3.0, -0.5]], np.float32)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_every_floating_type_becomes_float32(tmp_path: Path, dtype: type) -> None:
    save_file({"w": VALUES.astype(dtype)}, tmp_path / "model.safetensors")
    with WeightFiles([tmp_path / "model.safetensors"]) as weights:
        array = weights.read("w", 2, 3)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, VALUES)


def test_shards_are_one_set_of_parameters(tmp_path: Path) -> None:
    save_file({"a": VALUES}, tmp_path / "one.safetensors")
    save_file({"b": 2 * VALUES}, tmp_path / "two.safetensors")
    with WeightFiles([tmp_path / "one.safetensors", tmp_path / "two.safetensors"]) as weights:
        assert weights.names() == {"a", "b"}
        np.testing.assert_array_equal(weights.read("b", None, 3), 2 * VALUES)


@pytest.mark.parametrize("kept", [0, 3, 40, -1])
def test_a_truncated_file_is_named(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"w": VALUES}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CorruptFile, match=r"model\.safetensors is truncated or damaged"):
        WeightFiles([path])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 4), np.float32), r"w has shape \(2, 4\).*\(any, 3\)"),
        (np.zeros(3, np.float32), r"w has shape \(3,\)"),
        (np.zeros((2, 3), np.int32), "w must be floating-point numbers; it is I32"),
        (np.array([[0, 0, 0], [0, np.nan, 0]], np.float32), r"w holds NaN in row 1"),
    ],
)
def test_a_wrong_parameter_is_named(tmp_path: Path, array: np.ndarray, message: str) -> None:
    save_file({"w": array}, tmp_path / "model.safetensors")
    with WeightFiles([tmp_path / "model.safetensors"]) as weights, pytest.raises(CorruptFile, match=message):
        weights.read("w", None, 3)


def test_a_missing_parameter_is_named(tmp_path: Path) -> None:
    save_file({"w": VALUES}, tmp_path / "model.safetensors")
    with WeightFiles([tmp_path / "model.safetensors"]) as weights, pytest.raises(CorruptFile, match="no parameter v"):
        weights.read("v")
