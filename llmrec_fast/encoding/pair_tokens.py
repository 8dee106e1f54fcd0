"""Pairs of texts to the token ids of one sequence and their types, by the model's own tokenizer.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from llmrec_fast.encoding.tokens import Int32Array, read_tokenizer
from llmrec_fast.errors import InvalidInput

_PAIRS_AT_A_TIME = 2048


class PairTokenizer:
    """The tokenizer of a model that reads two texts as one sequence. May be used by several threads at once.

    Parameters
    ----------
    path : tokenizer.json.
    max_length : tokens of a sequence, special tokens included; the longer text of a pair is cut first.
    lower_case : whether texts are lower-cased first.
    """

    def __init__(self, path: Path, max_length: int, lower_case: bool) -> None:
        self._tokenizer = read_tokenizer(path)
        special = self._tokenizer.num_special_tokens_to_add(True)
        if max_length <= special + 1:
            raise InvalidInput(f"max_length must be above the {special} special tokens of a pair + 1; got {max_length}")
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length, strategy="longest_first")
        self._lower_case = lower_case

    def tokenize(self, pairs: Sequence[tuple[str, str]]) -> tuple[list[Int32Array], list[Int32Array]]:
        """For each pair the token ids, special tokens included, and the type of each token (0 or 1)."""
        ids: list[Int32Array] = []
        types: list[Int32Array] = []
        for start in range(0, len(pairs), _PAIRS_AT_A_TIME):
            piece = pairs[start : start + _PAIRS_AT_A_TIME]
            if self._lower_case:
                piece = [(first.lower(), second.lower()) for first, second in piece]
            for encoding in self._tokenizer.encode_batch(list(piece)):
                ids.append(np.array(encoding.ids, np.int32))
                types.append(np.array(encoding.type_ids, np.int32))
        return ids, types
