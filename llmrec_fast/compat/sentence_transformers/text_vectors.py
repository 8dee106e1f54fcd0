"""The stages of an encoder with a prompt and a length limit that may change from call to call: tokens, vectors, token vectors.

`llmrec_fast.Encoder` fixes both when it is made; sentence-transformers does not, so the stages are joined here anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from llmrec_fast.arrays import Float32Array
from llmrec_fast.encoding.batching import pad_batch, plan_batches
from llmrec_fast.encoding.dense import DenseLayers
from llmrec_fast.encoding.inference import Inference, load_model
from llmrec_fast.encoding.model_files import ModelFiles, find_model
from llmrec_fast.encoding.pooling import normalize_rows
from llmrec_fast.encoding.tokens import Int32Array, Tokenizer, check_unicode
from llmrec_fast.errors import InvalidInput
from llmrec_fast.kernels.threads import get_threads


class TextVectors:
    """A loaded model. Raises what `llmrec_fast.Encoder` raises."""

    def __init__(self, model: str | Path) -> None:
        self.files: ModelFiles = find_model(model)
        threads = get_threads()
        self._threads = threads
        self._model = load_model(self.files, threads)
        limits = [limit for limit in (self.files.max_length, self._model.positions) if limit is not None]
        if not limits:
            raise InvalidInput(f"no file of {self.files.folder} says how many tokens the model takes")
        self.padding_id = int(self.files.config.get("pad_token_id") or 0)
        self._inference = Inference(self._model, self.files.pooling, self.padding_id, threads)
        self._dense = DenseLayers(self.files.dense, self._inference.columns)
        self.set_max_length(min(limits))

    @property
    def columns(self) -> int:
        """Columns of the vectors."""
        return self._dense.columns

    @property
    def max_length(self) -> int:
        """Tokens a text is cut at, special tokens included."""
        return self._max_length

    def set_max_length(self, max_length: int) -> None:
        """Cut texts at another number of tokens, at most as many as the model has positions."""
        positions = self._model.positions
        if positions is not None and max_length > positions:
            raise InvalidInput(f"max_seq_length must be at most {positions}, the model's positions; got {max_length}")
        self._tokenizer = Tokenizer(self.files.tokenizer, max_length, None, self.files.lower_case)
        self._max_length = max_length

    def tokens(self, texts: Sequence[str]) -> list[Int32Array]:
        """The token ids of each text, special tokens included."""
        check_unicode(texts)
        return self._tokenizer.tokenize(texts).windows

    def vectors(self, texts: Sequence[str], prompt: str, *, show_progress: bool) -> Float32Array:
        """(n, columns) of texts that have `prompt` before them already; identical ones are encoded once."""
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        windows = self.tokens(list(places))
        lengths = np.array([len(window) for window in windows], np.int64)
        normalize = self.files.normalize
        direct = normalize and not self._dense
        skipped = None
        if prompt and not self.files.pooling.include_prompt:
            skipped = np.full(len(windows), self._tokenizer.prompt_length(prompt), np.int64)
        vectors = self._inference.vectors(
            windows, lengths, normalize=direct, show_progress=show_progress, skipped=skipped
        )
        if self._dense:
            vectors = self._dense.apply(vectors)
        if normalize and not direct:
            vectors = normalize_rows(vectors, self._threads)
        if len(places) == len(texts):
            return vectors
        return vectors[np.array([places[text] for text in texts], np.int64)]

    def token_vectors(self, texts: Sequence[str]) -> list[Float32Array]:
        """For each text the model's vectors of its tokens, (tokens, hidden)."""
        windows = self.tokens(texts)
        lengths = np.array([len(window) for window in windows], np.int64)
        result = [np.zeros((0, self._model.joint.hidden), np.float32) for _ in windows]
        for batch in plan_batches(lengths):
            ids, counts = pad_batch([windows[place] for place in batch], self.padding_id)
            embeddings = self._model.joint.run(ids, counts)
            for place, row, count in zip(batch.tolist(), embeddings, counts.tolist(), strict=True):
                result[place] = row[:count].copy()
        return result
