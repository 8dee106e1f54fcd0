"""Every pooling mode, with a prompt that takes part and one that is left out, equal to the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmrec_fast.encoding.encoder import Encoder
from llmrec_fast.encoding.pooling import Pooling
from tests.encoding.reference_transformer import pooled, token_embeddings
from tests.encoding.test_encoder import token_ids
from tests.encoding.tiny_models import model_config, random_parameters, write_model

TOLERANCE = 2e-5
MEAN = {"pooling_mode": "mean"}
PROMPTS = (("the movie ", 3), ("the ", 2), ("", 0))  # and their tokens, the begin token included


def tokens_of(text: str, max_length: int = 24) -> np.ndarray:
    config = model_config("bert")
    return token_embeddings(config, random_parameters(config, 0), token_ids(text, max_length=max_length))


@pytest.fixture(scope="module", params=["mean", "max", "cls", "lasttoken", "weightedmean", "mean_sqrt_len_tokens"])
def without_prompt(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A model whose pooling leaves prompts out, and its mode."""
    settings = {"pooling_mode": request.param, "include_prompt": False}
    names = {"cls": "first", "lasttoken": "last", "weightedmean": "weighted_mean"}
    mode = names.get(request.param, request.param.removesuffix("_tokens"))
    return write_model(tmp_path_factory.mktemp("models"), pooling=settings), mode


def test_prompt_tokens_may_be_left_out(without_prompt: tuple[Path, str]) -> None:
    folder, mode = without_prompt
    encoder, texts = Encoder(folder), ["snow", "bread and food", ""]
    for prompt, start in PROMPTS:
        expected = [pooled(tokens_of(prompt + text), mode, start) for text in texts]
        np.testing.assert_allclose(encoder.encode(texts, prompt=prompt), expected, atol=TOLERANCE, rtol=0)


def test_calls_with_different_prompts_share_a_batch_and_a_cache(tmp_path: Path) -> None:
    write_model(tmp_path / "model", pooling=MEAN | {"include_prompt": False})
    encoder = Encoder(tmp_path / "model", cache=tmp_path / "cache")
    # the same words with another part of them as the prompt
    calls = [("the movie ", "snow", 3), ("the ", "movie snow", 2), ("", "the movie snow", 0)]
    expected = [pooled(tokens_of("the movie snow"), "mean", start) for _, _, start in calls]
    assert np.abs(expected[0] - expected[1]).max() > 0.01
    for _ in range(2):
        futures = [encoder.submit([text], prompt=prompt) for prompt, text, _ in calls]
        found = [future.result(30)[0] for future in futures]
        np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)
    assert len({row.tobytes() for row in found}) == 3


def test_a_prompt_as_long_as_a_window_leaves_the_end_token(tmp_path: Path) -> None:
    write_model(tmp_path, pooling=MEAN | {"include_prompt": False})
    found = Encoder(tmp_path, max_length=4).encode(["snow"], prompt="the movie about space ")
    np.testing.assert_allclose(found[0], tokens_of("the movie", max_length=4)[-1], atol=TOLERANCE, rtol=0)


def test_a_prompt_is_left_out_of_the_first_window_only(tmp_path: Path) -> None:
    write_model(tmp_path, pooling=MEAN | {"include_prompt": False})
    encoder = Encoder(tmp_path, max_length=6, long_texts="window", window_overlap=0)
    expected = np.concatenate([tokens_of("the movie a man")[3:], tokens_of("is eating food")]).mean(axis=0)
    found = encoder.encode(["a man is eating food"], prompt="the movie ")
    np.testing.assert_allclose(found[0], expected, atol=TOLERANCE, rtol=0)


def test_a_model_without_the_normalize_module_gives_vectors_as_they_are(tmp_path: Path) -> None:
    plain = Encoder(write_model(tmp_path / "plain", pooling=MEAN)).encode(["snow"])
    scaled = Encoder(write_model(tmp_path / "scaled", pooling=MEAN, normalize=True)).encode(["snow"])
    assert abs(np.linalg.norm(plain) - 1) > 0.01
    np.testing.assert_allclose(scaled, plain / np.linalg.norm(plain), atol=1e-6)


@pytest.mark.parametrize("mode", ["mean", "max", "first", "last", "weighted_mean", "mean_sqrt_len"])
@pytest.mark.parametrize("normalize", [False, True])
def test_padded_and_packed_rows_give_the_same(mode: Any, normalize: bool) -> None:
    rng = np.random.default_rng(2)
    lengths, skipped = np.array([5, 1, 3, 3]), np.array([2, 1, 0, 7])
    padded = rng.standard_normal((4, 6, 3)).astype(np.float32)
    padded[np.arange(6) >= lengths[:, None]] = np.nan  # padding is never read
    packed = np.concatenate([rows[:length] for rows, length in zip(padded, lengths, strict=True)])
    options = {"normalize": normalize, "threads": 1, "skipped": skipped}
    found = Pooling((mode,)).apply(padded, lengths, **options)
    np.testing.assert_array_equal(
        Pooling((mode,)).apply_packed(packed, np.cumsum(lengths) - lengths, lengths, **options), found
    )
    for row in (0, 2):
        expected = pooled(padded[row, : lengths[row]].astype(float), mode, skipped[row])
        np.testing.assert_allclose(
            found[row], expected / np.linalg.norm(expected) if normalize else expected, atol=1e-6
        )
    # nothing is left of these
    assert not found[[1, 3]].any()
