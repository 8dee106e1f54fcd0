"""ONNX files of any architecture: which inputs and outputs are used, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from llmrec_fast.encoding.encoder import Encoder
from llmrec_fast.encoding.session import OnnxFileSession
from llmrec_fast.errors import CorruptFile, InvalidInput
from tests.encoding.tiny_models import write_model

TABLE = np.random.default_rng(1).standard_normal((40, 6)).astype(np.float32)
IDS = np.array([[2, 7, 9, 3], [2, 8, 3, 0]], np.int32)
LENGTHS = np.array([4, 3], np.int32)


def write_onnx(path: Path, inputs: dict[str, int], outputs: tuple[str, ...], width: int | str = 6) -> Path:
    """A graph that looks each token up, adds its type and hides padding: enough to see every input arrive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["rows"])]
    last = "rows"
    for name, operator in (("attention_mask", "Mul"), ("token_type_ids", "Add")):
        if name in inputs:
            nodes.append(helper.make_node("Cast", [name], [f"{name}_float"], to=TensorProto.FLOAT))
            nodes.append(helper.make_node("Unsqueeze", [f"{name}_float", "axis"], [f"{name}_column"]))
            nodes.append(helper.make_node(operator, [last, f"{name}_column"], [f"after_{name}"]))
            last = f"after_{name}"
    values = []
    for name in outputs:
        if name == "sentence_embedding":
            nodes.append(helper.make_node("ReduceMean", [last], [name], axes=[1], keepdims=0))
            values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width]))
        else:
            nodes.append(helper.make_node("Identity", [last], [name]))
            values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "time", width]))
    graph = helper.make_graph(
        nodes,
        "lookup",
        [helper.make_tensor_value_info(name, kind, ["batch", "time"]) for name, kind in inputs.items()],
        values,
        [numpy_helper.from_array(TABLE, "table"), numpy_helper.from_array(np.array([2], np.int64), "axis")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.INT32])
@pytest.mark.parametrize("names", [("input_ids",), ("input_ids", "attention_mask", "token_type_ids")])
def test_the_usual_inputs_are_fed_in_their_own_type(tmp_path: Path, kind: int, names: tuple[str, ...]) -> None:
    path = write_onnx(tmp_path / "model.onnx", dict.fromkeys(names, kind), ("last_hidden_state",))
    session = OnnxFileSession(path, 1)
    found = session.run(IDS, LENGTHS)
    assert session.hidden == 6
    expected = TABLE[IDS]
    if "attention_mask" in names:
        expected[1, 3] = 0
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("outputs", [("sentence_embedding", "token_embeddings"), ("sentence_embedding", "other")])
def test_the_output_with_a_vector_a_token_is_chosen(tmp_path: Path, outputs: tuple[str, ...]) -> None:
    path = write_onnx(tmp_path / "model.onnx", {"input_ids": TensorProto.INT64}, outputs)
    np.testing.assert_array_equal(OnnxFileSession(path, 1).run(IDS, LENGTHS), TABLE[IDS])


def test_a_width_that_the_file_does_not_state_is_found(tmp_path: Path) -> None:
    inputs = {"input_ids": TensorProto.INT64, "attention_mask": TensorProto.INT64}
    path = write_onnx(tmp_path / "model.onnx", inputs, ("last_hidden_state",), width="columns")
    assert OnnxFileSession(path, 1).hidden == 6


def test_tokens_that_the_model_cannot_process_are_refused(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "model.onnx", {"input_ids": TensorProto.INT64}, ("last_hidden_state",))
    with pytest.raises(InvalidInput, match=r"model\.onnx cannot process 2 texts of up to 4 tokens"):
        OnnxFileSession(path, 1).run(IDS + 40, LENGTHS)


def test_an_unknown_input_is_refused_by_name(tmp_path: Path) -> None:
    inputs = {"input_ids": TensorProto.INT64, "pixel_values": TensorProto.INT64}
    path = write_onnx(tmp_path / "model.onnx", inputs, ("last_hidden_state",))
    with pytest.raises(InvalidInput, match="pixel_values"):
        OnnxFileSession(path, 1)


def test_inputs_must_be_integers(tmp_path: Path) -> None:
    inputs = {"input_ids": TensorProto.INT64, "attention_mask": TensorProto.FLOAT}
    path = write_onnx(tmp_path / "model.onnx", inputs, ("last_hidden_state",))
    with pytest.raises(InvalidInput, match=r"attention_mask must be int32 or int64; it is tensor\(float\)"):
        OnnxFileSession(path, 1)


def test_a_pooled_output_alone_is_refused(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "model.onnx", {"input_ids": TensorProto.INT64}, ("sentence_embedding",))
    with pytest.raises(InvalidInput, match="sentence_embedding"):
        OnnxFileSession(path, 1)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "model.onnx", {"input_ids": TensorProto.INT64}, ("last_hidden_state",))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(CorruptFile, match=r"model\.onnx"):
        OnnxFileSession(path, 1)


@pytest.mark.parametrize("place", ["model.onnx", "onnx/model.onnx"])
def test_a_folder_with_onnx_serves_an_architecture_that_cannot_be_built(tmp_path: Path, place: str) -> None:
    write_model(tmp_path, config={"model_type": "deberta-v2"})
    with pytest.raises(InvalidInput, match="deberta-v2"):
        Encoder(tmp_path)
    write_onnx(tmp_path / place, {"input_ids": TensorProto.INT64}, ("last_hidden_state",))
    encoder = Encoder(tmp_path)
    assert encoder.describe()["source"] == "onnx"
    # unk token 1 between [CLS] 2 and [SEP] 3
    np.testing.assert_allclose(encoder.encode(["zzz"])[0], TABLE[[2, 1, 3]].mean(axis=0), atol=1e-6)


def test_weights_that_can_be_built_go_before_an_onnx_file(tmp_path: Path) -> None:
    write_onnx(write_model(tmp_path) / "model.onnx", {"input_ids": TensorProto.INT64}, ("last_hidden_state",))
    assert Encoder(tmp_path).describe()["source"] == "safetensors"


def test_onnx_without_weights_needs_only_the_tokenizer(tmp_path: Path) -> None:
    (write_model(tmp_path) / "model.safetensors").unlink()
    write_onnx(tmp_path / "model.onnx", {"input_ids": TensorProto.INT64}, ("last_hidden_state",))
    assert Encoder(tmp_path).dimension == 6
