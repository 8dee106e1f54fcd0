"""TensorRT engines of ModernBERT and decoders, and engines that take packed texts, over the double."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from llmrec_fast.encoding import cached_engine
from llmrec_fast.encoding.encoder import Encoder
from llmrec_fast.encoding.engine_layouts import Packed
from llmrec_fast.encoding.engine_profiles import choose_profile, plan_packed_profiles
from llmrec_fast.encoding.plain_attention import TENSORRT
from llmrec_fast.errors import CudaError
from llmrec_fast.kernels.cuda.memory import Place
from tests.encoding.gated_models import GATED_KINDS, write_gated_model
from tests.encoding.tensorrt_attention import TRT_Attention
from tests.encoding.tensorrt_double import TensorRT
from tests.encoding.test_plain_families import build, cosines
from tests.encoding.tiny_models import WORDS, write_model
from tests.encoding.write_attention_names import ATTENTION_NAMES
from tests.simt.memory import EmulatedMemory

NEWEST = "11.4.0.106"
TEXTS = [" ".join(WORDS[first : first + length]) for first in range(4) for length in (0, 1, 3, 7, 11)]


def warm(folder: Path, **settings: Any) -> Encoder:
    encoder = Encoder(folder, device="tensorrt", **settings)
    encoder.warmup()
    return encoder


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("kind", GATED_KINDS)
def test_vectors_are_those_of_the_cpu(double: TensorRT, tmp_path: Path, kind: str, pooling: str) -> None:
    folder = write_gated_model(tmp_path, kind)
    expected = Encoder(folder, device="cpu", pooling=pooling).encode(TEXTS)
    full, half = warm(folder, precision="float32", pooling=pooling), warm(folder, pooling=pooling)
    np.testing.assert_allclose(full.encode(TEXTS), expected, atol=5e-5)
    assert cosines(half.encode(TEXTS), expected).min() > 0.9995
    assert half.describe()["engine"] == "TensorRT, padded texts"


@pytest.mark.parametrize("kind", ["bert", "roberta", "llama", "qwen3"])
def test_packed_texts_have_the_vectors_of_the_cpu(double: TensorRT, tmp_path: Path, kind: str) -> None:
    double.__version__ = NEWEST
    if kind in GATED_KINDS:
        folder = write_gated_model(tmp_path, kind)
    else:
        folder = write_model(tmp_path, kind, config={"num_attention_heads": 1})
    for pooling in ("mean", "last"):
        expected = Encoder(folder, device="cpu", pooling=pooling).encode(TEXTS)
        encoder = warm(folder, pooling=pooling)
        assert encoder.describe()["engine"] == "TensorRT, packed texts"
        assert cosines(encoder.encode(TEXTS), expected).min() > 0.999
        for count in (1, 3, 8):
            assert cosines(encoder.encode(TEXTS[:count]), expected[:count]).min() > 0.999
    assert len(double._made("build_serialized_network")) == 1


def test_few_packed_texts_are_replayed_and_many_are_not_padded(
    double: TensorRT, tmp_path: Path, memory: EmulatedMemory
) -> None:
    double.__version__ = NEWEST
    encoder = warm(write_gated_model(tmp_path, "llama"))
    double._calls.clear()
    memory.place = Place(0, 5)
    try:
        for _ in range(3):
            encoder.encode(TEXTS[1:3])
        encoder.encode([f"snow {word}" for word in WORDS])
    finally:
        memory.place = Place(0, 0)
    count = len(dict.fromkeys(WORDS))
    # two texts and one of padding; ids have one axis
    assert [run[0] for run in double._made("execute_async_v3")] == [(16,), (3 * count,)]
    assert double._made("recorded") == [[(16,)]]
    assert double._made("replay") == [[5]] * 2


@pytest.mark.parametrize("longest", [1, 40, 512, 8192])
def test_profiles_hold_every_packed_batch(longest: int) -> None:
    profiles = plan_packed_profiles(longest, 4096)
    rng = np.random.default_rng(0)
    for texts in (1, 2, 3, 5, 7, 8, 9, 100, 4096):
        for size in {1, min(longest, max(4096 // texts, 1)), longest if texts == 1 else 1}:
            sizes = np.full(texts, size, np.int32)
            batch = Packed().arrange(rng.integers(0, 9, (texts, size)).astype(np.int32), sizes, longest, None)
            choose_profile(profiles, batch.shape)
            offsets = batch.inputs["offsets"]
            assert (offsets[0], offsets[-1], len(offsets)) == (0, batch.shape[1], batch.shape[0] + 1)
            assert (np.diff(offsets) > 0).all()
            np.testing.assert_array_equal(offsets[:texts], batch.starts)
            assert batch.few == (texts <= 8)
            if not batch.few:
                assert batch.shape == (texts, texts * size)


def test_where_packed_texts_cannot_be_had_they_are_padded_and_it_is_told(double: TensorRT, tmp_path: Path) -> None:
    double.__version__ = NEWEST
    folder = write_gated_model(tmp_path, "llama")
    double._fails = {"build_packed"}
    with pytest.warns(RuntimeWarning, match="attention of packed texts cannot be had .*takes padded ones"):
        encoder = warm(folder)
    assert encoder.describe()["engine"] == "TensorRT, padded texts"
    again = Encoder(folder)  # finds the padded engine, and tries the packed one no more
    assert again.describe()["engine"] == "TensorRT, padded texts"
    np.testing.assert_array_equal(again.encode(TEXTS), encoder.encode(TEXTS))
    double._fails = {"build_packed", "build_serialized_network"}
    with pytest.warns(RuntimeWarning), pytest.raises(CudaError, match="could not build the engine"):
        warm(write_gated_model(tmp_path / "other", "qwen3"))


def test_attention_that_was_read_wrongly_is_not_used(
    double: TensorRT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    double.__version__ = NEWEST
    right = TRT_Attention._run

    def not_causal(self: TRT_Attention, *inputs: Any, **attributes: Any) -> Any:
        return right(self, *inputs, **attributes | {"is_causal": 0, "causal_kind": "none"})

    monkeypatch.setattr(TRT_Attention, "_run", not_causal)
    folder = write_gated_model(tmp_path, "llama")
    with pytest.warns(RuntimeWarning, match="embeddings that it computes are not those of the model on the CPU"):
        encoder = warm(folder)
    assert encoder.describe()["engine"] == "TensorRT, padded texts"
    assert cosines(encoder.encode(TEXTS), Encoder(folder, device="cpu").encode(TEXTS)).min() > 0.9995


def test_what_the_operator_is_told_is_named_as_in_the_bindings(tmp_path: Path) -> None:
    names = set(ATTENTION_NAMES.read_text(encoding="ascii").split())
    model = onnx.load_from_string(build(write_gated_model(tmp_path, "llama"), "float16", "packed").model)
    (node, *_) = (node for node in model.graph.node if node.domain == TENSORRT)
    told = {item.name: item.s.decode().upper() for item in node.attribute if item.s}
    assert told == {"query_form": "PACKED_NHD", "kv_form": "PACKED_NHD", "causal_kind": "UPPER_LEFT"}
    assert set(told.values()) | {"query_form", "key_value_form", "causal_kind", "query_lengths"} <= names
    assert {"IAttention", "AttentionIOForm", "CausalMaskKind", "key_value_lengths"} <= names


def test_texts_beyond_what_engines_are_built_for_are_told(
    double: TensorRT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_gated_model(tmp_path, "modernbert")
    monkeypatch.setattr(cached_engine, "LONGEST", 24)
    with pytest.warns(RuntimeWarning, match="up to 24 tokens, and this model more"):
        encoder = warm(folder)
    assert encoder.max_length == 24
    assert encoder.encode([" ".join(WORDS * 3)]).shape == (1, encoder.dimension)
