"""`precision="int8"`: close to float32, bit for bit independent of company, for every architecture and instruction set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from llmrec_fast.encoding import Encoder
from llmrec_fast.encoding.architectures import read_architecture
from llmrec_fast.encoding.packed import PackedModel, packed_arrays
from llmrec_fast.encoding.weights import WeightFiles
from llmrec_fast.errors import InvalidInput
from tests.encoding.reference_transformer import token_embeddings
from tests.encoding.test_encoder import TEXTS
from tests.encoding.test_graph import LENGTHS, random_ids
from tests.encoding.test_session import write_onnx
from tests.encoding.tiny_models import KINDS, WORDS, model_config, random_parameters, write_model

SETS = {"best": {}, "avx2": {"LLMREC_AVX2": "1"}, "portable": {"LLMREC_PORTABLE": "1"}}


def packed_model(folder: Path, config: dict, *, quantise: bool) -> PackedModel:
    with WeightFiles([folder / "model.safetensors"]) as weights:
        architecture = read_architecture(config, weights.names())
        return PackedModel(architecture, packed_arrays(architecture, weights, quantise=quantise))


def many(count: int) -> list[str]:
    rng = np.random.default_rng(5)
    return [" ".join(rng.choice(WORDS, rng.integers(0, 30))) for _ in range(count)]


@pytest.mark.parametrize(
    ("kind", "activation"), [*((kind, None) for kind in KINDS), ("bert", "gelu_new"), ("bert", "silu")]
)
def test_the_packed_kernels_equal_the_oracle_in_float32(tmp_path: Path, kind: str, activation: str | None) -> None:
    config = model_config(kind) | ({"hidden_act": activation} if activation else {})
    model = packed_model(write_model(tmp_path, kind, config=config), config, quantise=False)
    ids = random_ids(kind)
    found = model.run(ids, LENGTHS)
    for row, length in enumerate(LENGTHS):
        expected = token_embeddings(config, random_parameters(config, 0), ids[row, :length].tolist())
        np.testing.assert_allclose(found[row, :length], expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("chosen", SETS)
def test_int8_is_near_float32_on_every_instruction_set(bert: Path, monkeypatch: Any, chosen: str) -> None:
    for name, value in SETS[chosen].items():
        monkeypatch.setenv(name, value)
    texts = many(100)
    exact = Encoder(bert, normalize=True).encode(texts)
    found = Encoder(bert, normalize=True, precision="int8").encode(texts)
    assert (exact * found).sum(axis=1).min() > 0.995
    assert np.abs(exact - found).max() > 1e-6  # else nothing was quantised


def test_int8_does_not_depend_on_company_or_threads(bert: Path) -> None:
    texts = many(150)
    one, two = (Encoder(bert, precision="int8", threads=threads) for threads in (1, 2))
    together = one.encode(texts)
    np.testing.assert_array_equal(together, two.encode(texts))
    np.testing.assert_array_equal(together, np.concatenate([one.encode([text]) for text in texts]))


def test_describe_says_the_precision(bert: Path) -> None:
    assert Encoder(bert).describe()["precision"] == "float32"
    assert Encoder(bert, precision="int8").describe()["precision"] == "int8"


def test_what_cannot_be_quantised_is_refused(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="float32, float16, int8"):
        Encoder(bert, precision="int4")  # type: ignore[arg-type]
    (write_model(tmp_path) / "model.safetensors").unlink()
    write_onnx(tmp_path / "model.onnx", {"input_ids": TensorProto.INT64}, ("last_hidden_state",))
    with pytest.raises(InvalidInput, match="ONNX file only"):
        Encoder(tmp_path, precision="int8")


def test_a_tokenizer_of_another_model_is_noticed(tmp_path: Path) -> None:
    encoder = Encoder(write_model(tmp_path, config={"vocab_size": 6}), precision="int8")
    with pytest.raises(InvalidInput, match=r"token \d+, but the model knows 6 tokens"):
        encoder.encode(TEXTS)


@pytest.mark.real
def test_accuracy_on_real_texts() -> None:
    from benchmarks.encode_texts import descriptions

    texts = descriptions(2000)
    exact = Encoder("minilm", progress=False).encode(texts)
    found = Encoder("minilm", precision="int8", progress=False).encode(texts)
    cosines = (exact * found).sum(axis=1)
    assert cosines.mean() >= 0.996
    assert cosines.min() >= 0.985
    assert np.mean([len(a & b) / 10 for a, b in zip(nearest(exact), nearest(found), strict=True)]) >= 0.92


def nearest(vectors: np.ndarray) -> list[set[int]]:
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    return [set(row) for row in np.argpartition(-scores, 10, axis=1)[:, :10].tolist()]
