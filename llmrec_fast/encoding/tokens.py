"""Texts to token ids, by the model's own tokenizer.json, cut at a length or into overlapping windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from llmrec_fast.errors import CorruptFile, InvalidInput

Int32Array = npt.NDArray[np.int32]
# The tokenizer's own results take kilobytes a text: they are turned into arrays this many texts at a time.
_TEXTS_AT_A_TIME = 2048


@dataclass(frozen=True)
class Tokens:
    """Token ids of texts, special tokens included.

    Attributes
    ----------
    windows : token ids, one array a window; a text that is not cut has one.
    counts : (texts,) how many windows each text has; windows lie in the order of the texts.
    """

    windows: list[Int32Array]
    counts: npt.NDArray[np.int64]


def read_tokenizer(path: Path) -> Any:
    """The tokenizers library's own, from a tokenizer.json. Raises `CorruptFile` for something else."""
    import tokenizers

    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:
        # the library raises plain Exception for every kind of damage
        raise CorruptFile(f"{path} is not a tokenizer that the tokenizers library can read: {error}") from error


class Tokenizer:
    """The tokenizer of a model. `tokenize` may be called by several threads at once.

    Parameters
    ----------
    path : tokenizer.json.
    max_length : tokens of a window, special tokens included.
    overlap : tokens that neighbouring windows share; None cuts a text after its first window.
    lower_case : whether texts are lower-cased first.
    """

    def __init__(self, path: Path, max_length: int, overlap: int | None, lower_case: bool) -> None:
        self._tokenizer = read_tokenizer(path)
        special = self._tokenizer.num_special_tokens_to_add(False)
        if max_length <= special:
            raise InvalidInput(f"max_length must be above the {special} special tokens of a text; got {max_length}")
        if overlap is not None and not 0 <= overlap < max_length - special:
            raise InvalidInput(
                f"window_overlap must be from 0 to {max_length - special - 1} tokens, below a window's own; got {overlap}"
            )
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length, stride=overlap or 0)
        self._windows = overlap is not None
        self._lower_case = lower_case

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """The `Tokens` of texts. Raises `InvalidInput` for a text with a lone surrogate, which no encoding can hold."""
        windows: list[Int32Array] = []
        counts = np.ones(len(texts), np.int64)
        for start in range(0, len(texts), _TEXTS_AT_A_TIME):
            piece = [self._prepare(text) for text in texts[start : start + _TEXTS_AT_A_TIME]]
            for position, encoding in enumerate(self._tokenizer.encode_batch_fast(piece), start):
                windows.append(np.array(encoding.ids, np.int32))
                if self._windows and encoding.overflowing:
                    windows += [np.array(window.ids, np.int32) for window in encoding.overflowing]
                    counts[position] += len(encoding.overflowing)
        return Tokens(windows, counts)

    def prompt_length(self, prompt: str) -> int:
        """Tokens of a prompt before a text: with the special ones before it, without the one after it."""
        encoding = self._tokenizer.encode(self._prepare(prompt))
        mask = encoding.special_tokens_mask
        return len(mask) - (1 if mask and mask[-1] else 0)

    def _prepare(self, text: str) -> str:
        return text.lower() if self._lower_case else text


def check_unicode(texts: Sequence[str], name: str = "texts") -> None:
    """Raise `InvalidInput` naming the first text that holds a lone surrogate (half of a character, from bad decoding)."""
    for position, text in enumerate(texts):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidInput(
                f"{name}[{position}] holds the lone surrogate U+{ord(text[error.start]):04X} at character {error.start}, "
                "which is not a character; replace it, for example with "
                "text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')"
            ) from error
