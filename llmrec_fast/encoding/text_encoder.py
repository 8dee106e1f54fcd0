"""Anything that turns texts into vectors may serve as an encoder; what it returns is checked at the door."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np

from llmrec_fast.arrays import ArrayLike, Float32Array, as_matrix, as_texts
from llmrec_fast.errors import InvalidInput


@runtime_checkable
class TextEncoder(Protocol):
    """What `Encoder`, `WordVectors` and `as_text_encoder` give: texts to one vector each."""

    def encode(self, texts: Sequence[str]) -> Float32Array:
        """(n, d) float32, a row a text, in their order."""
        ...


@runtime_checkable
class _Encodes(Protocol):
    """An encoder of another library (sentence-transformers, model2vec): only what it returns is up to it."""

    def encode(self, texts: Sequence[str], /) -> ArrayLike:
        """One row a text."""
        ...


EncoderLike: TypeAlias = str | Path | _Encodes | Callable[[list[str]], ArrayLike]


def as_text_encoder(encoder: EncoderLike) -> TextEncoder:
    """`encoder` as a `TextEncoder`.

    Parameters
    ----------
    encoder : a model for `Encoder` (known name or folder), an object with `encode(texts)`, or a callable from a list of texts
        to a matrix with a row a text. What the last two return is checked: shape, row count, finite values, and the same
        number of columns in every call.

    Raises
    ------
    InvalidInput : none of these.
    """
    from llmrec_fast.encoding.encoder import Encoder
    from llmrec_fast.encoding.word_vectors import WordVectors

    if isinstance(encoder, Encoder | WordVectors | _CheckedEncoder):
        return encoder
    if isinstance(encoder, str | Path):
        return Encoder(encoder)
    if isinstance(encoder, type):
        raise InvalidInput(f"encoder must be an object, not the class {encoder.__name__}; call it first")
    if isinstance(encoder, _Encodes):
        return _CheckedEncoder(encoder.encode, _name(encoder))
    if callable(encoder):
        return _CheckedEncoder(encoder, _name(encoder))
    raise InvalidInput(
        "encoder must be a model's name or folder, an object with encode(texts), or a callable from a list of texts to a "
        f"matrix; got {type(encoder).__name__}"
    )


class _CheckedEncoder:
    """Calls a stranger's encoder and checks what comes back."""

    def __init__(self, function: Callable[[list[str]], ArrayLike], name: str) -> None:
        self._function = function
        self._name = name
        self._columns: int | None = None

    def encode(self, texts: Sequence[str]) -> Float32Array:
        """(n, d) float32. Raises `InvalidInput` if the callable's answer is not that."""
        given = as_texts(texts)
        if not given and self._columns is not None:
            return np.zeros((0, self._columns), np.float32)
        vectors = as_matrix(self._function(list(given)), f"the result of {self._name}", dimension=self._columns)
        if len(vectors) != len(given):
            raise InvalidInput(
                f"{self._name} was given {len(given)} texts and returned {len(vectors)} rows; expected one each"
            )
        if not vectors.shape[1]:
            raise InvalidInput(f"{self._name} returned vectors without columns")
        self._columns = vectors.shape[1]
        return vectors


def _name(encoder: object) -> str:
    return str(getattr(encoder, "__qualname__", None) or type(encoder).__name__)
