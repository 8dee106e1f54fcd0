"""float32 on the CPU: the package's kernels where they are the faster ones, ONNX Runtime elsewhere, and the same vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from llmrec_fast.encoding import Encoder, VectorCache
from llmrec_fast.encoding.packed import PackedModel, float32_kernels, tokens_quick_alone, weight_bits
from llmrec_fast.encoding.plain_builder import Precision
from llmrec_fast.encoding.session import GraphSession, OnnxFileSession, Session
from llmrec_fast.kernels.cpu import scratch
from llmrec_fast.kernels.cpu.intrinsics import PORTABLE, VNNI, instruction_set
from tests.encoding.gated_models import write_gated_model
from tests.encoding.test_session import write_onnx
from tests.encoding.tiny_models import KINDS, WORDS, write_model

ENGINES = (PackedModel, GraphSession)


def use_engine(monkeypatch: pytest.MonkeyPatch, engine: type[Session]) -> None:
    """The package's kernels run on any processor; which one is faster is the only question."""
    monkeypatch.setattr(
        "llmrec_fast.encoding.inference.float32_kernels", lambda: (engine is PackedModel, engine.__name__)
    )


def texts(count: int, longest: int = 30) -> list[str]:
    rng = np.random.default_rng(4)
    return [" ".join(rng.choice(WORDS, rng.integers(0, longest))) for _ in range(count)]


def test_the_choice_follows_the_processor_and_is_told(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usable, engine = float32_kernels()
    assert usable == (instruction_set().dtype != PORTABLE.dtype)
    assert Encoder(bert, threads=1).describe()["engine"] == engine
    monkeypatch.setenv("LLMREC_PORTABLE", "1")
    for threads in (1, 2):
        encoder = Encoder(bert, threads=threads)
        assert encoder.describe()["engine"].startswith("ONNX Runtime: llmrec_fast's float32 kernels are for")
        assert isinstance(encoder._model.single, GraphSession)
    use_engine(monkeypatch, PackedModel)
    assert (
        Encoder(bert, threads=2).describe()["engine"] == "PackedModel; ONNX Runtime where all threads work on one batch"
    )
    assert isinstance(Encoder(bert, threads=1)._model.joint, PackedModel)


def test_an_onnx_file_is_onnx_runtimes(tmp_path: Path) -> None:
    (write_model(tmp_path) / "model.safetensors").unlink()
    write_onnx(tmp_path / "model.onnx", {"input_ids": TensorProto.INT64}, ("last_hidden_state",))
    encoder = Encoder(tmp_path)
    assert isinstance(encoder._model.single, OnnxFileSession)
    assert encoder.describe()["engine"] == "ONNX Runtime: the model is an ONNX file"


def test_other_families_are_onnx_runtimes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_engine(monkeypatch, PackedModel)
    encoder = Encoder(write_gated_model(tmp_path, "qwen3"), threads=2)
    assert isinstance(encoder._model.single, GraphSession)
    assert encoder.describe()["engine"].endswith("are for models of the BERT family")


@pytest.mark.parametrize("kind", KINDS)
def test_both_engines_give_the_same_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    folder, given, found = write_model(tmp_path, kind), texts(200), {}
    for engine in ENGINES:
        use_engine(monkeypatch, engine)
        encoder = Encoder(folder, threads=2)
        assert isinstance(encoder._model.single, engine)
        found[engine] = encoder.encode(given)
        # alone, few and many go different ways
        for count in (1, 4, 30):
            np.testing.assert_allclose(encoder.encode(given[:count]), found[engine][:count], atol=1e-5, rtol=0)
    np.testing.assert_allclose(found[PackedModel], found[GraphSession], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("lengths", "threads", "goes_to"),
    [
        ([17], 1, PackedModel),
        ([6], 2, PackedModel),  # nothing to share out, and quick enough alone
        ([100], 2, GraphSession),  # one text, which all threads work on
        ([20, 20], 2, GraphSession),
        ([40, 40], 2, PackedModel),
        ([100, 20, 20], 2, GraphSession),  # whoever had the long one would be waited for
        ([17] * 100, 16, PackedModel),
        ([], 2, PackedModel),
    ],
)
def test_work_that_can_be_shared_out_is_one_threads_a_batch(
    bert: Path, monkeypatch: pytest.MonkeyPatch, lengths: list[int], threads: int, goes_to: type[Session]
) -> None:
    use_engine(monkeypatch, PackedModel)
    session, batches = Encoder(bert, threads=threads)._inference._plan(np.array(lengths, np.int64))
    assert isinstance(session, goes_to)
    assert sorted(place for batch in batches for place in batch.tolist()) == list(range(len(lengths)))


def test_longer_texts_are_one_threads_where_registers_have_512_bits(
    bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_engine(monkeypatch, PackedModel)
    encoder = Encoder(bert, threads=2)
    for most in (32, 6):
        monkeypatch.setattr("llmrec_fast.encoding.inference.tokens_quick_alone", lambda most=most: most)
        for tokens, goes_to in ((most, PackedModel), (most + 1, GraphSession)):
            assert isinstance(encoder._inference._plan(np.array([tokens], np.int64))[0], goes_to)
    assert tokens_quick_alone() == (32 if instruction_set().dtype == VNNI.dtype else 6)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_what_was_left_in_working_memory_does_not_matter(
    bert: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    use_engine(monkeypatch, PackedModel)
    encoder, given = Encoder(bert, precision=precision, threads=1), texts(40)
    expected = encoder.encode(given)
    spoilt = 0
    for memory in scratch._idle:
        for buffer in memory._buffers.values():
            buffer[:] = 255  # of which float32 makes NaN
            spoilt += 1
    assert spoilt
    np.testing.assert_array_equal(encoder.encode(given), expected)


def test_a_cache_tells_integer_weights_of_seven_bits_from_those_of_eight(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, given = VectorCache(tmp_path / "cache"), texts(20)
    encoded: list[tuple[int, int]] = []

    def encode(bits: int) -> np.ndarray:
        monkeypatch.setattr("llmrec_fast.encoding.inference.weight_bits", lambda: bits)
        encoder = Encoder(bert, precision="int8", cache=cache)
        assert encoder.describe()["weight_bits"] == bits
        run = encoder._inference.vectors
        monkeypatch.setattr(
            encoder._inference, "vectors", lambda ids, *r, **kw: encoded.append((bits, len(ids))) or run(ids, *r, **kw)
        )
        return encoder.encode(given)

    for bits in (8, 8, 7, 7, 8):
        encode(bits)
    assert [(bits, count) for bits, count in encoded if count] == [(8, len(set(given))), (7, len(set(given)))]


def test_a_cache_does_not_tell_the_engines_of_float32_apart(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprints = set()
    for engine in ENGINES:
        use_engine(monkeypatch, engine)
        fingerprints.add(Encoder(bert)._fingerprint)
    assert len(fingerprints) == 1


@pytest.mark.parametrize("variable", ["LLMREC_NOTHING", "LLMREC_AVX2", "LLMREC_PORTABLE"])
def test_bits_of_weights_follow_the_instructions(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "1")
    assert weight_bits() == (7 if instruction_set().dtype == np.uint8 else 8)
