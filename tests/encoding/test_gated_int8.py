"""ModernBERT and decoder models in the package's kernels: equal to the oracle in float32, near it in int8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llmrec_fast.encoding import Encoder
from llmrec_fast.encoding.families import gated_parameters
from llmrec_fast.encoding.packed import weight_bits
from llmrec_fast.encoding.packed_gated import PackedGatedModel
from llmrec_fast.encoding.weights import WeightFiles
from llmrec_fast.errors import CorruptFile, InvalidInput
from tests.encoding.gated_models import (
    GATED_KINDS,
    HIDDEN,
    POSITIONS,
    gated_config,
    gated_embeddings,
    write_gated_model,
)
from tests.encoding.gated_models import (
    gated_parameters as random_parameters,
)
from tests.encoding.test_families import LENGTHS, TEXTS, TOLERANCE, VARIANTS
from tests.encoding.test_int8 import SETS
from tests.encoding.tiny_models import WORDS, write_json


def packed_model(folder: Path, config: dict, *, quantise: bool) -> PackedGatedModel:
    with WeightFiles([folder / "model.safetensors"]) as weights:
        return PackedGatedModel(gated_parameters(config, weights), quantise=quantise)


def many(count: int) -> list[str]:
    rng = np.random.default_rng(5)
    return [" ".join(rng.choice(WORDS, rng.integers(0, 30))) for _ in range(count)]


# how many of the columns within a decoder's gate are mixed at a time: 16, 32 and 64
INNER = [("llama", {"intermediate_size": columns}) for columns in (48, 96, 192)]


@pytest.mark.parametrize(("kind", "config"), [*VARIANTS, *INNER])
def test_the_packed_kernels_equal_the_oracle_in_float32(tmp_path: Path, kind: str, config: dict) -> None:
    settings = gated_config(kind) | config
    model = packed_model(write_gated_model(tmp_path, kind, config=config), settings, quantise=False)
    ids = np.random.default_rng(1).integers(3, settings["vocab_size"], (len(LENGTHS), POSITIONS)).astype(np.int32)
    found = model.run(ids, LENGTHS)
    assert found.shape == (*ids.shape, HIDDEN)
    for row, length in enumerate(LENGTHS):
        expected = gated_embeddings(settings, random_parameters(settings), ids[row, :length])
        np.testing.assert_allclose(found[row, :length], expected, atol=TOLERANCE, rtol=0)
        assert not found[row, length:].any()


@pytest.mark.parametrize("chosen", SETS)
@pytest.mark.parametrize("kind", GATED_KINDS)
def test_int8_is_near_float32_on_every_instruction_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, chosen: str
) -> None:
    for name, value in SETS[chosen].items():
        monkeypatch.setenv(name, value)
    folder = write_gated_model(tmp_path, kind)
    exact = Encoder(folder, normalize=True).encode(many(100))
    found = Encoder(folder, normalize=True, precision="int8").encode(many(100))
    cosines = (exact * found).sum(axis=1)
    assert cosines.mean() > 0.99
    assert cosines.min() > 0.95  # these models exaggerate attention
    assert np.abs(exact - found).max() > 1e-6  # else nothing was quantised


@pytest.mark.parametrize("kind", ["modernbert", "qwen3"])
def test_a_text_does_not_depend_on_company_or_threads_in_any_bit(tmp_path: Path, kind: str) -> None:
    folder = write_gated_model(tmp_path, kind)
    one, two = (Encoder(folder, precision="int8", pooling="last", threads=threads) for threads in (1, 2))
    together = one.encode(many(60))
    np.testing.assert_array_equal(together, two.encode(many(60)))
    np.testing.assert_array_equal(together, np.concatenate([one.encode([text]) for text in many(60)]))


@pytest.mark.parametrize("kind", ["modernbert", "llama"])
def test_a_checkpoint_with_a_head_and_left_padding(tmp_path: Path, kind: str) -> None:
    plain = Encoder(write_gated_model(tmp_path / "a", kind), precision="int8")
    other = Encoder(write_gated_model(tmp_path / "b", kind, prefix="model.", left_padding=True), precision="int8")
    np.testing.assert_array_equal(plain.encode(TEXTS), other.encode(TEXTS))


def test_describe_says_what_runs(tmp_path: Path) -> None:
    described = Encoder(write_gated_model(tmp_path, "qwen3"), precision="int8").describe()
    assert (described["architecture"], described["precision"], described["device"]) == ("qwen3", "int8", "cpu")
    assert described["engine"] == f"llmrec_fast's kernels, {weight_bits()}-bit weights"


def test_what_cannot_be_quantised_is_refused(tmp_path: Path) -> None:
    folder = write_gated_model(tmp_path, "llama")
    write_json(folder / "config.json", gated_config("llama") | {"hidden_act": "mish"})
    with pytest.raises(InvalidInput, match="mish"):
        Encoder(folder, precision="int8")
    write_json(folder / "config.json", gated_config("llama") | {"num_hidden_layers": 5})
    with pytest.raises(CorruptFile, match=r"layers\.4\."):
        Encoder(folder, precision="int8")
    write_json(folder / "config.json", gated_config("llama") | {"model_type": "t5"})
    with pytest.raises(InvalidInput, match=r"int8' is for models of the architectures bert, .*qwen3; .*'t5'"):
        Encoder(folder, precision="int8")


def test_a_tokenizer_of_another_model_is_noticed(tmp_path: Path) -> None:
    encoder = Encoder(write_gated_model(tmp_path, "llama", config={"vocab_size": 6}), precision="int8")
    with pytest.raises(InvalidInput, match=r"token \d+, but the model knows 6 tokens"):
        encoder.encode(TEXTS)
