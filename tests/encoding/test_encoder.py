"""`Encoder` on tiny models: equal to the oracle, independent of company, in the caller's order, clear about bad input."""

from __future__ import annotations

import builtins
import concurrent.futures
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from llmrec_fast.encoding.encoder import Encoder
from llmrec_fast.errors import CorruptFile, DeviceUnavailable, InvalidInput, MissingDependency
from tests.encoding.reference_transformer import pooled, token_embeddings
from tests.encoding.tiny_models import (
    HIDDEN,
    KINDS,
    POSITIONS,
    WORDS,
    model_config,
    random_parameters,
    special_tokens,
    vocabulary,
    write_json,
    write_model,
    write_modules,
)

TOLERANCE = 2e-5
MEAN = {"pooling_mode": "mean"}
TEXTS = [
    "a man is eating food .",
    "",
    "snow",
    "the movie about space and time in snow café 雪",
    "unknown words",
    "snow",
]
texts_of_words = st.lists(st.lists(st.sampled_from([*WORDS, "xyz"]), max_size=40).map(" ".join), max_size=12)


def token_ids(text: str, kind: str = "bert", max_length: int = POSITIONS) -> list[int]:
    ids = vocabulary(kind)
    _, unknown, begin, end = special_tokens(kind)
    words = [ids.get(word, ids[unknown]) for word in text.split()]
    return [ids[begin], *words[: max_length - 2], ids[end]]


def oracle(texts: list[str], kind: str = "bert", pooling: str = "mean", normalize: bool = False) -> np.ndarray:
    config = model_config(kind)
    parameters = random_parameters(config, 0)
    rows = []
    for text in texts:
        tokens = token_embeddings(config, parameters, token_ids(text, kind))
        row = pooled(tokens, pooling)
        rows.append(row / np.linalg.norm(row) if normalize else row)
    return np.array(rows).reshape(len(texts), HIDDEN)


@pytest.fixture(scope="module")
def encoder(bert: Path) -> Encoder:
    return Encoder(bert)


@pytest.mark.parametrize("kind", KINDS)
def test_every_architecture_equals_the_oracle(tmp_path: Path, kind: str) -> None:
    found = Encoder(write_model(tmp_path, kind)).encode(TEXTS)
    assert found.shape == (len(TEXTS), HIDDEN)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, oracle(TEXTS, kind), atol=TOLERANCE, rtol=0)


@given(texts_of_words)
@settings(max_examples=60, deadline=None)
def test_any_texts_in_any_order_equal_the_oracle(bert: Path, texts: list[str]) -> None:
    np.testing.assert_allclose(_cached(bert).encode(texts), oracle(texts), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    ("pooling", "mode"),
    [
        *[("mean", "mean"), ("max", "max"), ("cls", "first"), ("lasttoken", "last")],
        *[("weightedmean", "weighted_mean"), ("mean_sqrt_len", "mean_sqrt_len")],
    ],
)
@pytest.mark.parametrize("normalize", [False, True])
def test_pooling_and_normalisation_can_be_chosen(bert: Path, pooling: str, mode: str, normalize: bool) -> None:
    encoder = Encoder(bert, pooling=pooling, normalize=normalize)
    np.testing.assert_allclose(encoder.encode(TEXTS), oracle(TEXTS, "bert", mode, normalize), atol=TOLERANCE, rtol=0)
    assert encoder.describe()["pooling"] == mode


def test_the_models_own_pooling_and_normalisation_are_the_default(tmp_path: Path) -> None:
    encoder = Encoder(write_model(tmp_path, pooling={"pooling_mode": "cls"}, normalize=True))
    np.testing.assert_allclose(encoder.encode(TEXTS), oracle(TEXTS, "bert", "first", True), atol=TOLERANCE, rtol=0)


def test_choosing_a_pooling_avoids_one_that_is_not_supported(tmp_path: Path) -> None:
    write_model(tmp_path, pooling={"pooling_mode": "median"}, normalize=True)
    with pytest.raises(InvalidInput, match="median"):
        Encoder(tmp_path)
    found = Encoder(tmp_path, pooling="mean").encode(TEXTS)
    np.testing.assert_allclose(found, oracle(TEXTS, normalize=True), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("normalize", [False, True])
def test_several_modes_are_concatenated(tmp_path: Path, normalize: bool) -> None:
    encoder = Encoder(write_model(tmp_path, pooling={"pooling_mode": ["max", "mean"]}, normalize=normalize))
    expected = np.concatenate([oracle(TEXTS, pooling="max"), oracle(TEXTS)], axis=1)
    if normalize:
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert encoder.dimension == 2 * HIDDEN
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=TOLERANCE, rtol=0)


def test_dense_layers_come_between_pooling_and_normalisation(tmp_path: Path) -> None:
    write_model(tmp_path, pooling=MEAN)
    write_modules(tmp_path, ["Transformer", "Pooling", "Dense", "Normalize"])
    (tmp_path / "2_Dense").mkdir()
    write_json(tmp_path / "2_Dense" / "config.json", {"activation_function": "torch.nn.modules.activation.Tanh"})
    rng = np.random.default_rng(3)
    weight, bias = rng.standard_normal((5, HIDDEN)).astype(np.float32), rng.standard_normal(5).astype(np.float32)
    save_file({"linear.weight": weight, "linear.bias": bias}, tmp_path / "2_Dense" / "model.safetensors")
    expected = np.tanh(oracle(TEXTS) @ weight.T.astype(np.float64) + bias)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    encoder = Encoder(tmp_path)
    assert encoder.dimension == 5
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=TOLERANCE, rtol=0)


def test_a_text_does_not_depend_on_its_company(encoder: Encoder) -> None:
    rng = np.random.default_rng(5)
    many = [" ".join(rng.choice(WORDS, rng.integers(0, 30))) for _ in range(150)]
    together = encoder.encode(many)
    alone = np.concatenate([encoder.encode([text]) for text in many])
    np.testing.assert_allclose(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_little_and_much_work_give_the_same_for_any_number_of_threads(bert: Path, threads: int) -> None:
    rng = np.random.default_rng(6)
    texts = [" ".join(rng.choice(WORDS, rng.integers(0, 30))) for _ in range(400)]
    encoder = Encoder(bert, threads=threads)
    expected = oracle(texts)
    for count in (1, 3, 20, 400):
        np.testing.assert_allclose(encoder.encode(texts[:count]), expected[:count], atol=TOLERANCE, rtol=0)


def test_identical_texts_are_encoded_once_and_returned_everywhere(bert: Path, monkeypatch: Any) -> None:
    rows = []
    encoder = Encoder(bert, threads=1)
    run = encoder._inference.vectors
    monkeypatch.setattr(
        encoder._inference, "vectors", lambda ids, *r, **kw: rows.append(len(ids)) or run(ids, *r, **kw)
    )
    vectors = encoder.encode(["snow", "bread", "snow", "snow"])
    assert sum(rows) == 2
    np.testing.assert_array_equal(vectors[[2, 3]], vectors[[0, 0]])


def test_no_texts_give_no_rows(encoder: Encoder) -> None:
    assert encoder.encode([]).shape == (0, HIDDEN)


def test_control_characters_are_texts_like_any_other(encoder: Encoder) -> None:
    assert np.isfinite(encoder.encode(["\x00\x07", "a\tman\r\n", "\u200b"])).all()


def test_texts_are_cut_at_max_length(bert: Path) -> None:
    encoder = Encoder(bert, max_length=5)
    assert encoder.max_length == 5
    long = encoder.encode(["a man is eating food"])
    np.testing.assert_array_equal(long, encoder.encode(["a man is"]))


def test_the_default_max_length_is_the_smaller_of_recommendation_and_positions(bert: Path, tmp_path: Path) -> None:
    assert Encoder(bert).max_length == POSITIONS
    assert Encoder(write_model(tmp_path, settings={"max_seq_length": 9})).max_length == 9


def test_windows_of_a_long_text_are_averaged_by_their_tokens(bert: Path) -> None:
    words = [WORDS[place % len(WORDS)] for place in range(50)]
    encoder = Encoder(bert, max_length=12, long_texts="window", window_overlap=4, normalize=True)
    # windows of 10 words, each starting 6 after the one before, until the last word is in one
    windows = [" ".join(words[start : start + 10]) for start in range(0, 46, 6)]
    counts = np.array([len(window.split()) + 2 for window in windows])
    expected = (oracle(windows) * counts[:, None]).sum(axis=0) / counts.sum()
    expected /= np.linalg.norm(expected)
    found = encoder.encode(["snow", " ".join(words), "bread"])
    np.testing.assert_allclose(found[1], expected, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(found[[0, 2]], oracle(["snow", "bread"], normalize=True), atol=TOLERANCE, rtol=0)


def test_windows_leave_short_texts_alone(bert: Path) -> None:
    np.testing.assert_allclose(Encoder(bert, long_texts="window").encode(TEXTS), oracle(TEXTS), atol=TOLERANCE, rtol=0)


def test_lower_casing_and_prompts_happen_before_the_tokenizer(tmp_path: Path) -> None:
    write_model(tmp_path, settings={"do_lower_case": True})
    write_json(
        tmp_path / "config_sentence_transformers.json", {"prompts": {"p": "the movie "}, "default_prompt_name": "p"}
    )
    found = Encoder(tmp_path).encode(["About SPACE"])
    np.testing.assert_allclose(found, oracle(["the movie about space"]), atol=TOLERANCE, rtol=0)


def test_threads_share_an_encoder(encoder: Encoder) -> None:
    texts = [[" ".join(WORDS[start : start + size])] for start in range(10) for size in range(1, 8)]
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        found = np.concatenate(list(threads.map(encoder.encode, texts)))
    np.testing.assert_allclose(found, oracle([text for (text,) in texts]), atol=TOLERANCE, rtol=0)


def test_progress_goes_to_standard_error_only_where_asked(encoder: Encoder, capsys: Any) -> None:
    encoder.encode(TEXTS)
    assert capsys.readouterr().err == ""
    encoder.encode(TEXTS, show_progress=True)
    assert "5/5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("snow", "single string"),
        (["snow", None], r"texts\[1\] must be a string; got NoneType"),
        (["snow", "b\ud800d"], r"texts\[1\] holds the lone surrogate U\+D800 at character 1"),
    ],
)
def test_bad_texts_are_named(encoder: Encoder, texts: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        encoder.encode(texts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "median"}, "pooling must be one of"),
        ({"max_length": 0}, "max_length must be at least 1"),
        ({"max_length": 2}, "above the 2 special tokens"),
        ({"max_length": POSITIONS + 1}, f"at most {POSITIONS}"),
        ({"long_texts": "split"}, "'truncate' or 'window'"),
        ({"window_overlap": 3}, "goes with long_texts='window'"),
        ({"long_texts": "window", "window_overlap": POSITIONS - 2}, f"from 0 to {POSITIONS - 3}"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"device": "tpu"}, "device must be one of"),
    ],
)
def test_bad_options_are_refused(bert: Path, options: dict, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Encoder(bert, **options)


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_device_that_is_not_there_is_never_replaced(bert: Path, device: str) -> None:
    with pytest.raises(DeviceUnavailable, match=device):
        Encoder(bert, device=device)


def test_truncated_weights_are_named(tmp_path: Path) -> None:
    weights = write_model(tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    with pytest.raises(CorruptFile, match=r"model\.safetensors is truncated or damaged"):
        Encoder(tmp_path)


def test_a_damaged_tokenizer_is_named(tmp_path: Path) -> None:
    (write_model(tmp_path) / "tokenizer.json").write_text("{}")
    with pytest.raises(CorruptFile, match=r"tokenizer\.json is not a tokenizer"):
        Encoder(tmp_path)


def test_a_tokenizer_of_another_model_is_noticed(tmp_path: Path) -> None:
    write_model(tmp_path, config={"vocab_size": 6})
    encoder = Encoder(tmp_path)
    assert encoder.encode(["a man"]).shape == (1, HIDDEN)
    with pytest.raises(InvalidInput, match=r"token \d+, but the model knows 6 tokens"):
        encoder.encode(["snow"])


def test_missing_onnxruntime_names_the_command(bert: Path, monkeypatch: Any) -> None:
    real_import = builtins.__import__

    def import_without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "onnxruntime":
            raise ModuleNotFoundError("No module named 'onnxruntime'")
        return real_import(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", import_without)
    with pytest.raises(MissingDependency, match=r"pip install 'llmrec-fast\[cpu\]'"):
        Encoder(bert)


_encoders: dict[Path, Encoder] = {}


def _cached(folder: Path) -> Encoder:
    """hypothesis runs one test function many times; the model is loaded once."""
    if folder not in _encoders:
        _encoders[folder] = Encoder(folder)
    return _encoders[folder]


def test_prompts_by_name_and_by_text_are_texts_before_texts(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    write_json(folder / "config_sentence_transformers.json", {"prompts": {"query": "man ", "passage": "food "}})
    encoder = Encoder(folder, prompts={"mine": "snow "})
    assert encoder.prompts == {"query": "man ", "passage": "food ", "mine": "snow "}
    texts = ["time", "space about"]

    def plain(before: str) -> np.ndarray:
        return encoder.encode([before + text for text in texts])

    np.testing.assert_array_equal(encoder.encode(texts, prompt_name="mine"), plain("snow "))
    np.testing.assert_array_equal(encoder.encode(texts, prompt="eating "), plain("eating "))
    np.testing.assert_array_equal(encoder.encode_query(texts), plain("man "))
    np.testing.assert_array_equal(encoder.encode_document(texts), plain("food "))
    with_default = Encoder(folder, default_prompt_name="query")
    np.testing.assert_array_equal(with_default.encode(texts), plain("man "))
    np.testing.assert_array_equal(with_default.encode(texts, prompt=""), plain(""))
    for wrong in (
        {"prompt_name": "other"},
        {"prompt_name": "query", "prompt": "x"},
        {"prompt": 5},
        {"prompt": "\ud800"},
    ):
        with pytest.raises(InvalidInput, match="prompt"):
            encoder.encode(texts, **wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="default_prompt_name"):
        Encoder(folder, default_prompt_name="other")


def test_a_cache_tells_prompts_apart(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    encoder = Encoder(folder, cache=tmp_path / "cache")
    first, second = encoder.encode(["snow"]), encoder.encode(["snow"], prompt="man ")
    assert (first != second).any()
    np.testing.assert_array_equal(encoder.encode(["snow"], prompt="man "), second)


def test_truncated_vectors_are_cut_then_normalised(bert: Path) -> None:
    whole = Encoder(bert).encode(TEXTS)
    np.testing.assert_array_equal(Encoder(bert, truncate_dim=5).encode(TEXTS), whole[:, :5])
    cut = Encoder(bert, truncate_dim=5, normalize=True)
    assert cut.dimension == 5
    expected = whole[:, :5] / np.linalg.norm(whole[:, :5], axis=1, keepdims=True)
    np.testing.assert_allclose(cut.encode(TEXTS), expected, atol=1e-6)
    assert Encoder(bert, truncate_dim=HIDDEN, normalize=True).dimension == HIDDEN
    with pytest.raises(InvalidInput, match="truncate_dim"):
        Encoder(bert, truncate_dim=HIDDEN + 1)
