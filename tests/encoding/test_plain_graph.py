"""The graph of standard operators against the fused one, both on the CPU; what float16 and int8 lose is bounded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

from llmrec_fast.encoding.architectures import Architecture, read_architecture
from llmrec_fast.encoding.graph import build_graph
from llmrec_fast.encoding.graph_builder import IDS, LENGTHS, OUTPUT
from llmrec_fast.encoding.plain_builder import PlainGraph
from llmrec_fast.encoding.plain_graph import build_plain_graph
from llmrec_fast.encoding.session import GraphSession
from llmrec_fast.encoding.weights import WeightFiles
from llmrec_fast.errors import InvalidInput
from tests.encoding.tiny_models import KINDS, write_model


def _open(folder: Path) -> tuple[Architecture, WeightFiles]:
    weights = WeightFiles([folder / "model.safetensors"])
    return read_architecture(json.loads((folder / "config.json").read_text()), weights.names()), weights


def _batch(architecture: Architecture) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    lengths = np.array([9, 1, 20, 14], np.int32)
    ids = rng.integers(4, architecture.vocabulary, (4, 20)).astype(np.int32)
    ids[np.arange(20) >= lengths[:, None]] = architecture.padding_id or 0
    return ids, lengths


def _run(graph: PlainGraph, ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # with AVX2 alone ONNX Runtime saturates pairs of int8 products, which no GPU does, unless it is told to be exact
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(graph.model, options, providers=["CPUExecutionProvider"])
    (found,) = session.run([OUTPUT], {IDS: ids, LENGTHS: lengths})
    assert found.dtype == np.float32
    return found[np.arange(ids.shape[1]) < lengths[:, None]]


def _fused(folder: Path, ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    architecture, weights = _open(folder)
    with weights:
        found = GraphSession(build_graph(architecture, weights), 1).run(ids, lengths)
    return found[np.arange(ids.shape[1]) < lengths[:, None]]


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu", "silu"])
@pytest.mark.parametrize("kind", KINDS)
def test_float32_gives_what_the_fused_graph_gives(tmp_path: Path, kind: str, activation: str) -> None:
    key = "activation" if kind == "distilbert" else "hidden_act"
    folder = write_model(tmp_path, kind, config={key: activation})
    architecture, weights = _open(folder)
    ids, lengths = _batch(architecture)
    with weights:
        graph = build_plain_graph(architecture, weights)
    np.testing.assert_allclose(_run(graph, ids, lengths), _fused(folder, ids, lengths), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_float16_products_lose_a_thousandth(tmp_path: Path, kind: str) -> None:
    folder = write_model(tmp_path, kind)
    architecture, weights = _open(folder)
    ids, lengths = _batch(architecture)
    with weights:
        graph = build_plain_graph(architecture, weights, "float16")
    # ONNX Runtime has no float16 products on the CPU and drops the casts around its own: onnx's evaluator rounds as written
    found = ReferenceEvaluator(onnx.load_from_string(graph.model)).run([OUTPUT], {IDS: ids, LENGTHS: lengths})[0]
    found = found[np.arange(ids.shape[1]) < lengths[:, None]]
    expected = _fused(folder, ids, lengths)
    assert found.dtype == np.float32
    assert 1e-4 < np.abs(found - expected).max() < 0.02
    assert _cosines(found, expected).min() > 0.9999


@pytest.mark.parametrize("kind", KINDS)
def test_int8_has_a_scale_a_row_and_stays_near(tmp_path: Path, kind: str) -> None:
    folder = write_model(tmp_path, kind)
    architecture, weights = _open(folder)
    ids, lengths = _batch(architecture)
    with weights:
        graph = build_plain_graph(architecture, weights, "int8")
    found, expected = _run(graph, ids, lengths), _fused(folder, ids, lengths)
    assert 0.999 < _cosines(found, expected).min() < 0.999999
    # a text's vectors do not depend on what else is in the batch: no scale is shared
    np.testing.assert_allclose(_run(graph, ids[2:3], lengths[2:3]), found[10:30], atol=1e-5)


def test_int8_takes_constants_as_scales_and_codes_a_tensor_once(bert: Path) -> None:
    """What TensorRT's QuantizeLinear and DequantizeLinear allow: constant scales, zero points of zero."""
    architecture, weights = _open(bert)
    with weights:
        model = onnx.load_from_string(build_plain_graph(architecture, weights, "int8").model)
    onnx.checker.check_model(model, full_check=True)
    values = {value.name: onnx.numpy_helper.to_array(value) for value in model.graph.initializer}
    pairs = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    for node in pairs:
        assert values[node.input[1]].dtype == np.float32
        assert not values[node.input[2]].any()
    coded = [node.input[0] for node in pairs if node.op_type == "QuantizeLinear"]
    assert len(coded) == len(set(coded)) == 4 * architecture.layers  # query, key and value share theirs


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_only_standard_operators_and_every_tensor_typed(bert: Path, precision: str) -> None:
    architecture, weights = _open(bert)
    with weights:
        model = onnx.load_from_string(build_plain_graph(architecture, weights, precision).model)  # type: ignore[arg-type]
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    wanted = onnx.TensorProto.FLOAT16 if precision == "float16" else onnx.TensorProto.FLOAT
    assert {types[node.output[0]] for node in products} == {wanted}
    norms = [node.output[0] for node in inferred.graph.node if node.op_type in ("LayerNormalization", "Softmax")]
    assert {types[name] for name in norms if name in types} == {onnx.TensorProto.FLOAT}


def test_an_unknown_precision_is_refused(bert: Path) -> None:
    architecture, weights = _open(bert)
    with weights, pytest.raises(InvalidInput, match="float32, float16, int8"):
        build_plain_graph(architecture, weights, "fp8")  # type: ignore[arg-type]


def _cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return (left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)
