"""The converters of published models: files of a few values, written here in the packages' formats, are read as they mean."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from benchmarks import convert_e5, convert_smollm2
from llmrec_fast.encoding import Encoder
from llmrec_fast.errors import CorruptFile

HIDDEN, INNER, LAYERS, HEADS, POSITIONS, TYPES = 32, 64, 1, 2, 16, 2
PIECES = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁snow", -1.0), ("▁", -2.0), ("é", -3.0)]


def _packed(values: np.ndarray) -> bytes:
    """Integers from -8 to 7, each block of 32 with the step 0.5."""
    integers = (values.reshape(-1, 32) / 0.5 + 8).astype(np.uint8)
    halves = integers[:, :16] | integers[:, 16:] << 4
    step = np.full((len(integers), 1), 0.5, "<f2").view(np.uint8)
    return np.concatenate([step, halves], axis=1).tobytes()


def write_packed(path: Path) -> dict[str, np.ndarray]:
    """A model in the package's format; what its parameters are."""
    rng = np.random.default_rng(0)
    shapes = {"emb.word": (len(PIECES), HIDDEN)}
    floats = {"emb.pos": (POSITIONS, HIDDEN), "emb.type": (TYPES, HIDDEN), "emb.ln.w": (HIDDEN,), "emb.ln.b": (HIDDEN,)}
    for name in ("q", "k", "v", "ao", "fi", "fo"):
        rows, columns = {"fi": (INNER, HIDDEN), "fo": (HIDDEN, INNER)}.get(name, (HIDDEN, HIDDEN))
        shapes[f"l0.{name}.w"] = (rows, columns)
        floats[f"l0.{name}.b"] = (rows,)
    floats |= {f"l0.{name}.{part}": (HIDDEN,) for name in ("aln", "oln") for part in "wb"}
    values = {name: rng.integers(-8, 8, shape).astype(np.float32) / 2 for name, shape in shapes.items()}
    values |= {name: rng.normal(0, 1, shape).astype(np.float32) for name, shape in floats.items()}
    blob = b"".join(piece.encode() for piece, _ in PIECES)
    offsets = np.cumsum([0, *(len(piece.encode()) for piece, _ in PIECES)]).astype("<u4")
    head = b"E5S1" + struct.pack("<I7ifi", 1, HIDDEN, LAYERS, HEADS, INNER, len(PIECES), POSITIONS, TYPES, 1e-12, 32)
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, len(blob)) + offsets.tobytes()
    head += np.array([score for _, score in PIECES], "<f4").tobytes() + blob
    replaced = struct.pack("<IBII", ord("ﬁ"), 2, ord("f"), ord("i"))
    head += struct.pack("<iI", 1, len(replaced)) + replaced + struct.pack("<i", len(values))
    data = {name: _packed(array) if name in shapes else array.tobytes() for name, array in values.items()}
    place = len(head) + sum(2 + len(name) + struct.calcsize("<BIQQ") for name in values)
    body = b""
    for name, stored in data.items():
        head += struct.pack("<H", len(name)) + name.encode()
        head += struct.pack("<BIQQ", int(name in shapes), values[name].size, place + len(body), len(stored))
        body += stored
    path.write_bytes(head + body)
    return values


def test_a_packed_model_becomes_a_folder_that_encodes(tmp_path: Path) -> None:
    values = write_packed(tmp_path / "model.bin")
    packed = convert_e5.read_packed(tmp_path / "model.bin")
    assert packed.pieces == PIECES
    assert packed.replacements == {"ﬁ": "fi"}
    assert packed.special == (0, 2, 1, 3)
    for short, long in {
        "emb.word": "embeddings.word_embeddings.weight",
        "l0.q.w": "encoder.layer.0.attention.self.query.weight",
        "l0.ao.b": "encoder.layer.0.attention.output.dense.bias",
        "l0.fi.w": "encoder.layer.0.intermediate.dense.weight",
        "l0.fo.w": "encoder.layer.0.output.dense.weight",
        "l0.oln.w": "encoder.layer.0.output.LayerNorm.weight",
    }.items():
        np.testing.assert_array_equal(packed.parameters[long], values[short])
    tokenizer = convert_e5.make_tokenizer(packed)
    assert tokenizer.encode("snow e\u0301").tokens == ["<s>", "▁snow", "▁", "é", "</s>"]
    assert convert_e5.agreement(packed, tokenizer) == (1, 1)
    convert_e5.write_folder(packed, tokenizer, tmp_path / "folder")
    encoder = Encoder(tmp_path / "folder", device="cpu")
    vectors = encoder.encode_query(["snow", "é"])
    assert vectors.shape == (2, HIDDEN)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert encoder.prompts == {"query": "query: ", "passage": "passage: "}
    assert json.loads((tmp_path / "folder" / "config.json").read_text())["num_hidden_layers"] == LAYERS


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(CorruptFile, match="no model of this package"):
        convert_e5.read_packed(tmp_path / "model.bin")


def test_rows_of_queries_are_put_back_into_their_order() -> None:
    """llama.cpp keeps row i and i + 2 of a head of four, which turn together, beside each other."""
    original = np.arange(8, dtype=np.float32)[:, None] * np.ones(3, np.float32)
    stored = original[[0, 2, 1, 3, 4, 6, 5, 7]]
    np.testing.assert_array_equal(convert_smollm2.restore_rows(stored, heads=2), original)


def test_what_gguf_says_becomes_a_decoder_and_its_tokenizer() -> None:
    tokens = ["<|end|>", "a", "b", "1", "2", "Ġ", "ab"]
    fields = {
        "llama.embedding_length": 64,
        "llama.feed_forward_length": 8,
        "llama.block_count": 1,
        "llama.attention.head_count": 2,
        "llama.attention.head_count_kv": 1,
        "llama.context_length": 32,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 1e5,
        "llama.vocab_size": len(tokens),
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.token_type": [3, 1, 1, 1, 1, 1, 1],
    }
    config = convert_smollm2.read_config(fields.__getitem__)
    assert (config["model_type"], config["rope_theta"], config["num_key_value_heads"]) == ("llama", 1e5, 1)
    tokenizer = convert_smollm2.make_tokenizer(fields.__getitem__)
    assert tokenizer.encode("ab 12<|end|>").tokens == ["ab", "Ġ", "1", "2", "<|end|>"]


def test_the_overlap_of_nearest_rows() -> None:
    first = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]], np.float32)
    assert convert_e5.nearest_overlap(first, first, 1) == 1.0
    assert convert_e5.nearest_overlap(first, first[[0, 2, 1, 3]], 1) == 0.0
