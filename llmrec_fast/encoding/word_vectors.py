"""`WordVectors`: texts to vectors by pooling the static vectors of their words. No model runs, only the `pool` kernel.

Reading the files is in `word_vector_files.py` (word2vec, GloVe) and `word_tables.py` (arrays with a vocabulary).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np

from llmrec_fast.arrays import ArrayLike, Float32Array, as_matrix, as_texts
from llmrec_fast.encoding.stop_words import ENGLISH
from llmrec_fast.encoding.word_vector_files import WordFormat, read_word_vectors
from llmrec_fast.errors import InvalidInput

WordPooling = Literal["mean", "max"]
# letters and digits, with inner apostrophes and hyphens: "don't", "sci-fi"
_WORD = r"[^\W_]+(?:['\u2019\-][^\W_]+)*"
_TEXTS_AT_A_TIME = 8192


class WordVectors:
    """An encoder without a model: a text's vector is the mean or the maximum of its words' vectors.

    Words that are not in the vocabulary count for nothing; a text without any known word gets a vector of zeros.

    Parameters
    ----------
    words : the vocabulary. Of a word that occurs twice, the first row counts.
    vectors : (len(words), d), a row a word.
    pooling : "mean" or "max" (column by column).
    normalize : whether the pooled vectors are scaled to length 1.
    stop_words : words to leave out; "english" for a list of English function words. Compared in lower case.
    lower_case : whether texts are lower-cased before their words are looked up; None: if no word of the vocabulary has an
        upper-case letter.
    word_pattern : the regular expression that finds words in a text.
    threads : threads of the pooling; None: `llmrec_fast.get_threads()`.

    Raises
    ------
    InvalidInput : lengths that do not fit, words that are not strings, values that are not finite, an unknown option.

    Examples
    --------
    >>> vectors = WordVectors(["snow", "bread"], [[1.0, 0.0], [0.0, 1.0]])
    >>> vectors.encode(["Snow on bread"]).tolist()
    [[0.5, 0.5]]
    """

    def __init__(
        self,
        words: Sequence[str],
        vectors: ArrayLike,
        *,
        pooling: WordPooling = "mean",
        normalize: bool = False,
        stop_words: Iterable[str] | Literal["english"] | None = None,
        lower_case: bool | None = None,
        word_pattern: str = _WORD,
        threads: int | None = None,
    ) -> None:
        vocabulary = as_texts(words, "words")
        self._vectors = as_matrix(vectors, "vectors")
        if len(vocabulary) != len(self._vectors):
            raise InvalidInput(f"{len(vocabulary)} words need as many vectors; got {len(self._vectors)}")
        if not self._vectors.size:
            raise InvalidInput(f"word vectors must not be empty; got shape {self._vectors.shape}")
        if pooling not in ("mean", "max"):
            raise InvalidInput(f"pooling must be 'mean' or 'max'; got {pooling!r}")
        try:
            self._pattern = re.compile(word_pattern)
        except re.error as error:
            raise InvalidInput(f"word_pattern {word_pattern!r} is not a regular expression: {error}") from error
        if self._pattern.groups:
            raise InvalidInput(f"word_pattern must have no capturing groups, use (?:...); got {word_pattern!r}")
        # of a word that occurs twice, the first row: rows are entered from the last to the first
        self._rows = dict(zip(reversed(vocabulary), range(len(vocabulary) - 1, -1, -1), strict=True))
        self._stop_words = _stop_words(stop_words)
        self._lower_case = all(word == word.lower() for word in vocabulary) if lower_case is None else lower_case
        self._pooling: WordPooling = pooling
        self._normalize = normalize
        self._threads = threads

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        vocabulary: str | Path | None = None,
        format: WordFormat | None = None,
        pooling: WordPooling = "mean",
        normalize: bool = False,
        stop_words: Iterable[str] | Literal["english"] | None = None,
        lower_case: bool | None = None,
        word_pattern: str = _WORD,
        threads: int | None = None,
    ) -> WordVectors:
        """Read word vectors from a file.

        Parameters
        ----------
        path : word2vec text or binary, GloVe text (each may be gzipped), or a table: npy, npz or safetensors.
        vocabulary : the words of a table, one a row: txt (a word a line), json (a list, or an object from word to row) or
            parquet (needs pyarrow). An npz may hold them itself.
        format : "word2vec", "word2vec-binary", "glove" or "table"; None: by the file's name and first line.
        pooling, normalize, stop_words, lower_case, word_pattern, threads : as for `WordVectors`.

        Raises
        ------
        InvalidInput : no such file, or a format that cannot be told from the name.
        CorruptFile : a damaged file; the message names the line, or the word in a binary file.
        """
        words, vectors = read_word_vectors(path, vocabulary=vocabulary, format=format)
        return cls(
            words,
            vectors,
            pooling=pooling,
            normalize=normalize,
            stop_words=stop_words,
            lower_case=lower_case,
            word_pattern=word_pattern,
            threads=threads,
        )

    @property
    def dimension(self) -> int:
        """Columns of the vectors."""
        return int(self._vectors.shape[1])

    def __len__(self) -> int:
        """Number of different words."""
        return len(self._rows)

    def __contains__(self, word: object) -> bool:
        return word in self._rows

    def describe(self) -> dict[str, Any]:
        """What was loaded and how it is used, for logs and for people."""
        return {
            "words": len(self),
            "dimension": self.dimension,
            "pooling": self._pooling,
            "normalize": self._normalize,
            "lower_case": self._lower_case,
            "stop_words": len(self._stop_words),
        }

    def words(self, text: str) -> list[str]:
        """The words of `text` that count: found by the pattern, in the vocabulary, not stop words."""
        found = self._pattern.findall(text.lower() if self._lower_case else text)
        return [word for word in found if word in self._rows and word.lower() not in self._stop_words]

    def encode(self, texts: Sequence[str], *, show_progress: bool | None = None) -> Float32Array:
        """The vectors of texts, in their order: (n, dimension) float32, zeros for a text without known words.

        `show_progress` is as for `Encoder.encode`. Raises `InvalidInput` for anything but a sequence of strings.
        """
        from tqdm import tqdm

        from llmrec_fast.kernels.cpu import pool

        given = as_texts(texts)
        out = np.empty((len(given), self.dimension), np.float32)
        # disable=None: shown on a terminal only
        disable = None if show_progress is None else not show_progress
        with tqdm(total=len(given), desc="encode", unit="text", disable=disable, delay=1.0 * (disable is None)) as bar:
            for start in range(0, len(given), _TEXTS_AT_A_TIME):
                rows = [
                    [self._rows[word] for word in self.words(text)] for text in given[start : start + _TEXTS_AT_A_TIME]
                ]
                lengths = np.fromiter(map(len, rows), np.int64, len(rows))
                pool(
                    self._vectors,
                    np.cumsum(lengths) - lengths,
                    lengths,
                    index=np.fromiter(chain.from_iterable(rows), np.int64, int(lengths.sum())),
                    mode=self._pooling,
                    normalize=self._normalize,
                    out=out[start : start + len(rows)],
                    threads=self._threads,
                )
                bar.update(len(rows))
        return out


def _stop_words(chosen: Iterable[str] | Literal["english"] | None) -> frozenset[str]:
    if chosen is None:
        return frozenset()
    if isinstance(chosen, str):
        if chosen != "english":
            raise InvalidInput(f"stop_words must be 'english' or an iterable of words; got {chosen!r}")
        return ENGLISH
    return frozenset(word.lower() for word in as_texts(list(chosen), "stop_words"))
