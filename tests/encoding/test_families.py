"""ModernBERT and decoder models: equal to the float64 oracle, whatever shares the batch and however texts were padded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from llmrec_fast.encoding import Encoder
from llmrec_fast.encoding.decoder import read_decoder
from llmrec_fast.encoding.device_inference import _why_not
from llmrec_fast.encoding.families import build_model_graph
from llmrec_fast.encoding.model_files import find_model
from llmrec_fast.encoding.modernbert import read_modernbert
from llmrec_fast.encoding.session import GraphSession
from llmrec_fast.encoding.weights import WeightFiles
from llmrec_fast.errors import CorruptFile, InvalidInput
from tests.encoding.gated_models import (
    GATED_KINDS,
    HIDDEN,
    POSITIONS,
    gated_config,
    gated_embeddings,
    gated_ids,
    gated_parameters,
    write_gated_model,
)
from tests.encoding.reference_transformer import pooled
from tests.encoding.tiny_models import WORDS, write_json

TOLERANCE = 5e-5  # float32 through four layers, of values up to 4
TEXTS = ["a man is eating food .", "", "snow", " ".join(WORDS * 2)[:150], "unknown words", "snow"]
LENGTHS = np.array([POSITIONS, 1, 9, 23], np.int32)
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((kind, {}) for kind in GATED_KINDS),
    ("llama", {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 2}),
    ("llama", {"rope_scaling": LLAMA3}),
    ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    ("qwen3", {"attention_bias": True, "head_dim": 16}),
    ("modernbert", {"attention_bias": True, "mlp_bias": True, "norm_bias": True}),
    ("modernbert", {"local_attention": 2, "global_rope_theta": 500.0, "local_rope_theta": 50.0}),
]


def session_of(folder: Path) -> GraphSession:
    with WeightFiles([folder / "model.safetensors"]) as weights:
        return GraphSession(build_model_graph(json.loads((folder / "config.json").read_text()), weights), 1)


def oracle(texts: list[str], kind: str, mode: str = "mean") -> np.ndarray:
    config = gated_config(kind)
    parameters = gated_parameters(config)
    rows = [gated_embeddings(config, parameters, gated_ids(text, kind)[:POSITIONS]) for text in texts]
    return np.array([pooled(row, mode) for row in rows])


@pytest.mark.parametrize(("kind", "config"), VARIANTS)
def test_every_token_equals_the_oracle(tmp_path: Path, kind: str, config: dict) -> None:
    session = session_of(write_gated_model(tmp_path, kind, config=config))
    settings = gated_config(kind) | config
    ids = np.random.default_rng(1).integers(3, settings["vocab_size"], (len(LENGTHS), POSITIONS)).astype(np.int32)
    found = session.run(ids, LENGTHS)
    assert found.shape == (*ids.shape, HIDDEN)
    for row, length in enumerate(LENGTHS):
        # what lies behind a text's end has no effect
        expected = gated_embeddings(settings, gated_parameters(settings), ids[row, :length])
        np.testing.assert_allclose(found[row, :length], expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("kind", GATED_KINDS)
def test_the_encoder_equals_the_oracle_with_the_last_token_and_the_mean(tmp_path: Path, kind: str) -> None:
    folder = write_gated_model(tmp_path, kind)
    for mode in ("mean", "last", "weighted_mean"):
        found = Encoder(folder, pooling=mode).encode(TEXTS)
        np.testing.assert_allclose(found, oracle(TEXTS, kind, mode), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("kind", ["modernbert", "qwen3"])
def test_a_text_does_not_depend_on_its_company_or_on_padding(tmp_path: Path, kind: str) -> None:
    right = Encoder(write_gated_model(tmp_path / "right", kind), pooling="last")
    left = Encoder(write_gated_model(tmp_path / "left", kind, left_padding=True), pooling="last")
    rng = np.random.default_rng(5)
    many = [" ".join(rng.choice(WORDS, rng.integers(0, 30))) for _ in range(60)]
    together = right.encode(many)
    np.testing.assert_allclose(together, np.concatenate([right.encode([text]) for text in many]), atol=1e-5, rtol=0)
    np.testing.assert_array_equal(left.encode(many), together)


@pytest.mark.parametrize("kind", ["modernbert", "llama"])
def test_a_checkpoint_with_a_head_keeps_its_prefix(tmp_path: Path, kind: str) -> None:
    found = Encoder(write_gated_model(tmp_path, kind, prefix="model.")).encode(["snow"])
    np.testing.assert_allclose(found, oracle(["snow"], kind), atol=TOLERANCE, rtol=0)


def test_layer_kinds_and_rotations_are_read_in_the_newer_form(tmp_path: Path) -> None:
    old = gated_config("modernbert") | {"global_rope_theta": 500.0, "local_rope_theta": 50.0}
    new = gated_config("modernbert") | {
        "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 500.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
        },
    }
    names = ["embeddings.tok_embeddings.weight"]
    assert read_modernbert(new, names) == read_modernbert(old, names)
    old = gated_config("llama")
    new = {key: value for key, value in old.items() if key != "rope_theta"}
    new["rope_parameters"] = {"rope_type": "default", "rope_theta": old["rope_theta"]}
    assert read_decoder(new, ["embed_tokens.weight"]) == read_decoder(old, ["embed_tokens.weight"])


def test_texts_are_cut_at_a_sliding_window(tmp_path: Path) -> None:
    assert Encoder(write_gated_model(tmp_path / "m", "mistral", config={"sliding_window": 12})).max_length == 12
    unused = {"sliding_window": 12, "use_sliding_window": False}
    assert Encoder(write_gated_model(tmp_path / "q", "qwen2", config=unused)).max_length == POSITIONS


@pytest.mark.parametrize(
    ("kind", "config", "message"),
    [
        ("llama", {"num_attention_heads": 4}, "multiple of 16 columns.* 8"),
        ("llama", {"num_attention_heads": 3}, "32 columns cannot be shared by 3"),
        ("llama", {"num_attention_heads": 2, "num_key_value_heads": 4}, "2 attention heads cannot share 4"),
        ("llama", {"hidden_act": "mish"}, "mish"),
        (
            "llama",
            {"rope_scaling": {"rope_type": "yarn", "factor": 4}},
            "'yarn'; supported are default, linear, llama3",
        ),
        ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 4}}, "need 'low_freq_factor'"),
        ("llama", {"partial_rotary_factor": 0.5}, "a share of 0.5"),
        ("llama", {"intermediate_size": None}, "intermediate_size"),
        ("modernbert", {"layer_types": ["full_attention", "chunked"] * 2}, "layer_types.*'chunked'"),
        ("modernbert", {"num_attention_heads": 3}, "32 columns cannot be shared by 3"),
        ("t5", {}, "architecture 't5'.*ONNX"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(tmp_path: Path, kind: str, config: dict, message: str) -> None:
    write_gated_model(tmp_path, "llama")
    write_json(tmp_path / "config.json", gated_config(kind) | config)
    if kind == "modernbert":
        save_file(gated_parameters(gated_config(kind)), tmp_path / "model.safetensors")
    with pytest.raises(InvalidInput, match=message):
        Encoder(tmp_path)


def test_a_parameter_that_is_missing_is_named(tmp_path: Path) -> None:
    write_gated_model(tmp_path, "qwen2")
    write_json(tmp_path / "config.json", gated_config("qwen3"))
    with pytest.raises(CorruptFile, match=r"self_attn\.q_proj\.weight has shape|self_attn\.q_norm"):
        Encoder(tmp_path)


@pytest.mark.parametrize("kind", ["modernbert", "qwen3"])
def test_gpus_are_open_to_them(tmp_path: Path, kind: str) -> None:
    files = find_model(write_gated_model(tmp_path, kind))
    assert [_why_not(files, device, None) for device in ("auto", "cuda", "tensorrt")] == [None] * 3
    assert _why_not(files, "tensorrt", "int8") is None
    assert "int8" in str(_why_not(files, "cuda", "int8"))
    assert Encoder(tmp_path, device="cpu").describe()["architecture"] == kind
