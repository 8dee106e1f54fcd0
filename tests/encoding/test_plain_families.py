"""ModernBERT and decoders in standard operators, and packed texts: against float64, and what float16 and int8 lose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator
from safetensors.numpy import save_file

from llmrec_fast.encoding.engine_layouts import Packed, Padded, allowed_layouts
from llmrec_fast.encoding.graph_builder import IDS, LENGTHS, OUTPUT
from llmrec_fast.encoding.model_files import find_model
from llmrec_fast.encoding.plain_attention import TENSORRT, LayoutName
from llmrec_fast.encoding.plain_builder import PlainGraph, Precision
from llmrec_fast.encoding.plain_families import build_plain_model, read_any
from llmrec_fast.encoding.weights import WeightFiles
from tests.encoding.gated_models import (
    GATED_KINDS,
    POSITIONS,
    gated_config,
    gated_embeddings,
    gated_parameters,
    write_gated_model,
)
from tests.encoding.tensorrt_attention import TRT_Attention
from tests.encoding.test_families import LENGTHS as SIZES
from tests.encoding.test_families import VARIANTS
from tests.encoding.tiny_models import KINDS, write_model

# what the parser of TensorRT 11.0 takes (onnx-tensorrt, docs/operators.md), of what the graphs of all families need
TENSORRT_OPERATORS = {
    "Abs",
    "Add",
    "Cast",
    "Concat",
    "Div",
    "Erf",
    "Gather",
    "Greater",
    "LayerNormalization",
    "Less",
    "MatMul",
    "Max",
    "Mul",
    "Not",
    "Range",
    "ReduceMax",
    "ReduceMean",
    "Reshape",
    "Shape",
    "Sigmoid",
    "Softmax",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Transpose",
    "Unsqueeze",
    "Where",
}


def build(folder: Path, precision: Precision, layout: LayoutName, longest: int = POSITIONS) -> PlainGraph:
    files = find_model(folder)
    with WeightFiles(files.weights) as weights:
        architecture = read_any(files.config, weights.names())
        return build_plain_model(architecture, weights, precision, layout, longest)


def batch(vocabulary: int, sizes: np.ndarray = SIZES) -> np.ndarray:
    return np.random.default_rng(1).integers(3, vocabulary, (len(sizes), int(sizes.max()))).astype(np.int32)


def evaluate(graph: PlainGraph, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """As written, float16 included."""
    evaluator = ReferenceEvaluator(onnx.load_from_string(graph.model), new_ops=[TRT_Attention])
    found: np.ndarray = evaluator.run([OUTPUT], inputs)[0]
    assert found.dtype == np.float32
    return found


def run(graph: PlainGraph, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Quickly, by an engine that keeps float32 where the CPU has no float16."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(graph.model, options, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run([OUTPUT], inputs)[0]
    return found


def real_rows(found: np.ndarray, sizes: np.ndarray = SIZES) -> np.ndarray:
    return found[np.arange(found.shape[1]) < sizes[:, None]]


def oracle(kind: str, config: dict[str, Any], ids: np.ndarray, sizes: np.ndarray = SIZES) -> np.ndarray:
    settings = gated_config(kind) | config
    parameters = gated_parameters(settings)
    return np.concatenate(
        [gated_embeddings(settings, parameters, row[:size]) for row, size in zip(ids, sizes, strict=True)]
    )


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return (left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)


@pytest.mark.parametrize(("kind", "config"), VARIANTS)
def test_float32_equals_the_oracle(tmp_path: Path, kind: str, config: dict[str, Any]) -> None:
    graph = build(write_gated_model(tmp_path, kind, config=config), "float32", "padded")
    ids = batch(graph.vocabulary)
    found = real_rows(run(graph, {IDS: ids, LENGTHS: SIZES}))
    np.testing.assert_allclose(found, oracle(kind, config, ids), atol=5e-5, rtol=0)


@pytest.mark.parametrize("kind", GATED_KINDS)
def test_float16_and_int8_stay_near(tmp_path: Path, kind: str) -> None:
    folder = write_gated_model(tmp_path, kind)
    half, coded = build(folder, "float16", "padded"), build(folder, "int8", "padded")
    inputs = {IDS: batch(half.vocabulary), LENGTHS: SIZES}
    expected = oracle(kind, {}, inputs[IDS])
    found = real_rows(evaluate(half, inputs))
    assert 1e-4 < np.abs(found - expected).max() < 0.06
    assert cosines(found, expected).min() > 0.9995
    assert 0.98 < cosines(real_rows(run(coded, inputs)), expected).min() < 0.99999


@pytest.mark.parametrize("kind", ["modernbert", "qwen2"])
def test_large_gates_do_not_end_beyond_float16(tmp_path: Path, kind: str) -> None:
    """The last product of a layer gives more than 65504 here; what is not divided before it ends as infinity."""
    folder = write_gated_model(tmp_path, kind)
    config = gated_config(kind)
    parameters = gated_parameters(config)
    for name in parameters:
        if name.endswith(("mlp.Wo.weight", "mlp.down_proj.weight")):
            parameters[name] = parameters[name] * np.float32(3e4)
    save_file(parameters, folder / "model.safetensors")
    graph = build(folder, "float16", "padded")
    ids = batch(graph.vocabulary)
    expected = np.concatenate(
        [gated_embeddings(config, parameters, row[:size]) for row, size in zip(ids, SIZES, strict=True)]
    )
    found = real_rows(evaluate(graph, {IDS: ids, LENGTHS: SIZES}))
    assert np.isfinite(found).all()
    assert cosines(found, expected).min() > 0.999


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "distilbert"])
def test_packed_texts_have_the_embeddings_of_padded_ones(tmp_path: Path, kind: str) -> None:
    # heads of 16 columns: the fused kernels take no fewer
    folder = write_model(tmp_path, kind, config={"num_attention_heads": 1, "n_heads": 1})
    sizes = np.array([20, 1, 9, 14], np.int32)
    padded, packed = build(folder, "float16", "padded", 24), build(folder, "float16", "packed", 24)
    padding_id = 1 if kind in ("roberta", "xlm-roberta") else None
    ids = batch(padded.vocabulary, sizes)
    if padding_id is not None:
        ids[0, 5] = padding_id  # a token that is not counted, within a text
    ids[np.arange(20) >= sizes[:, None]] = padding_id or 0
    arranged = Packed().arrange(ids, sizes, 24, padding_id)
    found = evaluate(packed, arranged.inputs)
    expected = real_rows(evaluate(padded, {IDS: ids, LENGTHS: sizes}), sizes)
    rows = np.concatenate([np.arange(size) + start for size, start in zip(sizes, arranged.starts, strict=True)])
    np.testing.assert_allclose(found[rows], expected, atol=0.02)
    assert cosines(found[rows], expected).min() > 0.9999


@pytest.mark.parametrize(
    ("kind", "config"), [("llama", {}), ("qwen3", {}), ("modernbert", {"local_attention": 2 * POSITIONS})]
)
def test_packed_texts_of_the_other_families_equal_the_oracle(tmp_path: Path, kind: str, config: dict[str, Any]) -> None:
    graph = build(write_gated_model(tmp_path, kind, config=config), "float16", "packed")
    ids = batch(graph.vocabulary)
    arranged = Packed().arrange(ids, SIZES, POSITIONS, None)
    found = evaluate(graph, arranged.inputs)
    rows = np.concatenate([np.arange(size) + start for size, start in zip(SIZES, arranged.starts, strict=True)])
    assert cosines(found[rows], oracle(kind, config, ids)).min() > 0.9995


def test_packed_int8_attends_in_float16(tmp_path: Path) -> None:
    model = onnx.load_from_string(build(write_gated_model(tmp_path, "llama"), "int8", "packed").model)
    onnx.checker.check_model(model)
    makers = {node.output[0]: node for node in model.graph.node}
    attention = next(node for node in model.graph.node if node.op_type == "TRT_Attention")
    assert [makers[name].attribute[0].i for name in attention.input[:3]] == [onnx.TensorProto.FLOAT16] * 3
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) == 4 * 4  # four tensors a layer


@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize("kind", GATED_KINDS)
def test_every_operator_is_tensorrts_and_typed(tmp_path: Path, kind: str, layout: LayoutName) -> None:
    model = onnx.load_from_string(build(write_gated_model(tmp_path, kind), "float16", layout).model)
    onnx.checker.check_model(model)
    own = {node.op_type for node in model.graph.node if node.domain == TENSORRT}
    assert own == ({"TRT_Attention"} if layout == "packed" else set())
    assert {node.op_type for node in model.graph.node if node.domain == ""} <= TENSORRT_OPERATORS
    assert {value.type.tensor_type.elem_type for value in model.graph.input} == {onnx.TensorProto.INT32}
    if layout == "padded":
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        types = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
        products = {types[node.output[0]] for node in model.graph.node if node.op_type == "MatMul"}
        shares = {types[node.output[0]] for node in model.graph.node if node.op_type == "Softmax"}
        assert (products, shares) == ({onnx.TensorProto.FLOAT16}, {onnx.TensorProto.FLOAT})


@pytest.mark.parametrize(
    ("kind", "config", "precision", "version", "longest", "packed"),
    [
        ("llama", {}, "float16", "11.1.0.106", 40, True),
        ("llama", {}, "int8", "12.0", 40, True),
        ("llama", {}, "float16", "11.0.0.114", 40, False),
        ("llama", {}, "float16", "10.16.1.11", 40, False),
        ("llama", {}, "float32", "11.4.0.106", 40, False),
        ("modernbert", {}, "float16", "11.4.0.106", 40, False),
        ("modernbert", {}, "float16", "11.4.0.106", 4, True),
        ("mpnet", {"num_attention_heads": 1}, "float16", "11.4.0.106", 24, False),
        ("bert", {"num_attention_heads": 1}, "float16", "11.4.0.106", 24, True),
        ("bert", {}, "float16", "11.4.0.106", 24, False),  # heads of 4 columns
    ],
)
def test_packed_engines_are_tried_where_the_operator_allows_them(
    tmp_path: Path,
    kind: str,
    config: dict[str, Any],
    precision: Precision,
    version: str,
    longest: int,
    packed: bool,
) -> None:
    write = write_model if kind in KINDS else write_gated_model
    files = find_model(write(tmp_path, kind, config=config))
    with WeightFiles(files.weights) as weights:
        architecture = read_any(files.config, weights.names())
    found = allowed_layouts(architecture, precision, longest, version)
    assert [type(layout) for layout in found] == ([Packed, Padded] if packed else [Padded])
