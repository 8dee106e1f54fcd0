"""all-MiniLM-L6-v2 itself, fetched once into the cache: the figures that its makers and others publish."""

from __future__ import annotations

import numpy as np
import pytest

from llmrec_fast.encoding import Encoder

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder("minilm", progress=False)


def test_the_published_vector_and_similarity(encoder: Encoder) -> None:
    vectors = encoder.encode(
        ["This is an example sentence", "A man is eating food.", "A man is eating a piece of bread."]
    )
    expected = [0.067657, 0.063496, 0.048713, 0.079305, 0.037448, 0.002653]
    np.testing.assert_allclose(vectors[0, :6], expected, atol=1e-6, rtol=0)
    assert vectors[1] @ vectors[2] == pytest.approx(0.7553, abs=5e-5)


def test_the_models_own_settings_are_used(encoder: Encoder) -> None:
    described = encoder.describe()
    assert (encoder.dimension, encoder.max_length) == (384, 256)
    assert (described["pooling"], described["normalize"], described["source"]) == ("mean", True, "safetensors")


def test_vectors_have_length_one_whatever_the_text(encoder: Encoder) -> None:
    vectors = encoder.encode(["", " ", "😀", "x" * 5000, "снег 雪 ثلج", "word " * 600, "\x00"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_a_text_does_not_depend_on_its_company(encoder: Encoder) -> None:
    texts = [" ".join(["snow", "and", "bread"][i % 3] for i in range(size)) for size in (0, 1, 5, 40, 90, 3, 300, 17)]
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    np.testing.assert_allclose(encoder.encode(texts), alone, atol=1e-5, rtol=0)


def test_windows_see_the_end_of_a_long_text() -> None:
    start, end = "A film about snow and ice. " * 60, "Recipes for bread and cake. " * 60
    cut = Encoder("minilm", progress=False).encode([start + end, start])
    windows = Encoder("minilm", long_texts="window", progress=False).encode([start + end, start, end])
    assert cut[0] @ cut[1] == pytest.approx(1, abs=1e-5)
    assert windows[0] @ windows[1] < 0.95
    assert windows[0] @ windows[2] > 0.5
