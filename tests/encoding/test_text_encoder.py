"""Whatever turns texts into vectors can serve as an encoder, and its answers are checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmrec_fast.encoding import Encoder, TextEncoder, as_text_encoder
from llmrec_fast.errors import InvalidInput


class OtherLibrary:
    def encode(self, texts: list[str]) -> np.ndarray:
        return np.array([[len(text), 1.0] for text in texts])


def lengths(texts: list[str]) -> list[list[int]]:
    return [[len(text), 1] for text in texts]


@pytest.mark.parametrize("encoder", [OtherLibrary(), lengths, as_text_encoder(lengths)])
def test_objects_and_callables_serve(encoder: Any) -> None:
    found = as_text_encoder(encoder).encode(("ab", "", "abc"))
    assert found.dtype == np.float32
    assert found.tolist() == [[2, 1], [0, 1], [3, 1]]


def test_a_folder_becomes_an_encoder(bert: Path) -> None:
    encoder = as_text_encoder(bert)
    assert isinstance(encoder, Encoder)
    assert isinstance(encoder, TextEncoder)
    assert as_text_encoder(encoder) is encoder


def test_the_callable_gets_a_list_of_its_own() -> None:
    texts = ["a", "b"]
    as_text_encoder(lambda given: [[float(bool(given.clear() or True))]] * 2).encode(texts)
    assert texts == ["a", "b"]


def test_no_texts_give_no_rows_of_the_known_width() -> None:
    encoder = as_text_encoder(lengths)
    encoder.encode(["a"])
    assert encoder.encode([]).shape == (0, 2)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda texts: [[1.0]], "2 texts and returned 1 rows"),
        (lambda texts: [1.0, 2.0], "two dimensions"),
        (lambda texts: [[1.0], [float("nan")]], "NaN in row 1"),
        (lambda texts: [["x"], ["y"]], "real numbers"),
        (lambda texts: np.zeros((2, 0)), "without columns"),
        (lambda texts: None, "real numbers"),
    ],
)
def test_a_wrong_answer_is_refused(function: Callable[[list[str]], Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        as_text_encoder(function).encode(["a", "b"])


def test_the_number_of_columns_may_not_change() -> None:
    encoder = as_text_encoder(lambda texts: np.zeros((len(texts), len(texts))))
    encoder.encode(["a", "b"])
    with pytest.raises(InvalidInput, match="must have 2 columns"):
        encoder.encode(["a"])


@pytest.mark.parametrize("thing", [3, None, OtherLibrary])
def test_other_things_are_refused(thing: Any) -> None:
    with pytest.raises(InvalidInput, match="encoder must be"):
        as_text_encoder(thing)
