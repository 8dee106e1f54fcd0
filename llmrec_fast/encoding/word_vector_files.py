"""Read word vectors in the formats of word2vec (text and binary) and GloVe; damage is named by line.

word2vec text: a line "words columns", then a line a word: the word and its numbers. GloVe: the same without the first line.
word2vec binary: the first line as text, then for each word its bytes, a space, and float32 numbers, little-endian.
"""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal, TypeAlias, cast

import numpy as np

from llmrec_fast.arrays import Float32Array
from llmrec_fast.encoding.word_tables import TABLE_SUFFIXES, read_table
from llmrec_fast.errors import CorruptFile, InvalidInput

WordFormat: TypeAlias = Literal["word2vec", "word2vec-binary", "glove", "table"]
_LINES_AT_A_TIME = 10_000
_LONGEST_WORD = 1000
_BINARY_BLOCK = 1 << 20


def read_word_vectors(
    path: str | Path, *, vocabulary: str | Path | None = None, format: WordFormat | None = None
) -> tuple[list[str], Float32Array]:
    """Words and their vectors (n, d) from a file; see `WordVectors.load` for the formats and what is raised."""
    path = Path(path)
    if not path.is_file():
        raise InvalidInput(f"there is no file {path}")
    if format is None:
        format = _guess_format(path)
    if format == "table":
        return read_table(path, None if vocabulary is None else Path(vocabulary))
    if vocabulary is not None:
        raise InvalidInput(f"{path} holds its own words; a vocabulary goes with a table ({', '.join(TABLE_SUFFIXES)})")
    with _open(path) as stream:
        try:
            if format == "word2vec-binary":
                return _read_binary(path, stream)
            if format in ("word2vec", "glove"):
                return _read_text(path, stream, header=format == "word2vec")
        except (EOFError, gzip.BadGzipFile) as error:
            raise CorruptFile(f"{path} is truncated or not gzip: {error}") from error
    raise InvalidInput(f"format must be 'word2vec', 'word2vec-binary', 'glove' or 'table'; got {format!r}")


def _guess_format(path: Path) -> WordFormat:
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix in TABLE_SUFFIXES:
        return "table"
    if suffix == ".bin":
        return "word2vec-binary"
    if suffix in (".txt", ".vec"):
        with _open(path) as stream:
            return "word2vec" if _header(stream.readline()) is not None else "glove"
    raise InvalidInput(f"the format of {path} cannot be told from its name; pass format=")


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _header(line: bytes) -> tuple[int, int] | None:
    """(words, columns) where a line is two positive integers."""
    fields = line.split()
    if len(fields) != 2 or not all(field.isdigit() for field in fields):
        return None
    words, columns = int(fields[0]), int(fields[1])
    return (words, columns) if words and columns else None


def _read_header(path: Path, stream: IO[bytes]) -> tuple[int, int]:
    line = stream.readline(_LONGEST_WORD)
    header = _header(line)
    if header is None:
        raise CorruptFile(f"{path}, line 1: expected the numbers of words and columns; got {line[:60]!r}")
    return header


def _read_text(path: Path, stream: IO[bytes], header: bool) -> tuple[list[str], Float32Array]:
    expected, columns = _read_header(path, stream) if header else (None, 0)
    words: list[str] = []
    blocks: list[Float32Array] = []
    for first, lines in _blocks_of_lines(stream, 2 if header else 1):
        # a word may hold spaces itself (GloVe 840B), so numbers are counted from the right; the first line must not
        columns = columns or len(lines[0].split(b" ")) - 1
        if columns < 1:
            raise CorruptFile(f"{path}, line {first}: expected a word and its numbers; got {lines[0][:60]!r}")
        parts = [_split_line(line, columns) for line in lines]
        blocks.append(_parse_block(path, first, parts, columns))
        words += [_decode(path, f"line {first + place}", word) for place, (word, _) in enumerate(parts)]
    if expected is not None and len(words) != expected:
        raise CorruptFile(f"{path}, line 1 promises {expected} words; the file has {len(words)}")
    if not words:
        raise CorruptFile(f"{path} is empty")
    return words, np.concatenate(blocks)


def _blocks_of_lines(stream: IO[bytes], first: int) -> Iterator[tuple[int, list[bytes]]]:
    """(number of the first line, lines). Only \\n ends a line: words may hold every other separator of Unicode."""
    lines: list[bytes] = []
    for line in stream:
        lines.append(line.rstrip(b" \r\n"))
        if len(lines) == _LINES_AT_A_TIME:
            yield first, lines
            first, lines = first + len(lines), []
    if lines:
        yield first, lines


def _split_line(line: bytes, columns: int) -> tuple[bytes, bytes]:
    """The word and the text of its numbers: the last `columns` fields, or all but the first where there are fewer."""
    if line.count(b" ") <= columns:
        word, _, numbers = line.partition(b" ")
        return word, numbers
    fields = line.rsplit(b" ", columns)
    return fields[0], b" ".join(fields[1:])


def _parse_block(path: Path, first: int, parts: list[tuple[bytes, bytes]], columns: int) -> Float32Array:
    """All numbers of a block at once; where that fails, line by line, to name the one that is damaged."""
    if all(numbers.count(b" ") == columns - 1 for _, numbers in parts):
        values = _parse_numbers(b" ".join(numbers for _, numbers in parts))
        if values is not None and len(values) == len(parts) * columns and np.isfinite(values).all():
            return values.reshape(len(parts), columns)
    for number, (word, numbers) in enumerate(parts, first):
        found = len(numbers.split())
        if found != columns:
            raise CorruptFile(
                f"{path}, line {number}: expected a word and {columns} numbers; found {found} after the word"
            )
        values = _parse_numbers(numbers)
        if values is None or len(values) != columns or not np.isfinite(values).all():
            raise CorruptFile(f"{path}, line {number}: expected {columns} finite numbers after {word[:40]!r}")
    raise CorruptFile(f"{path}, lines {first} to {first + len(parts) - 1} cannot be read as numbers")


def _parse_numbers(text: bytes) -> Float32Array | None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # NumPy warns of unreadable numbers before it raises for them
        try:
            return np.fromstring(text, np.float32, sep=" ")
        except (ValueError, DeprecationWarning):
            return None


def _read_binary(path: Path, stream: IO[bytes]) -> tuple[list[str], Float32Array]:
    expected, columns = _read_header(path, stream)
    size = path.stat().st_size
    if path.suffix != ".gz" and size < expected * (4 * columns + 1):
        raise CorruptFile(f"{path}, line 1 promises {expected} words of {columns} columns; {size} bytes are too few")
    words: list[str] = []
    vectors = np.empty((expected, columns), "<f4")
    buffer, start = b"", 0
    for row in range(expected):
        while (space := buffer.find(b" ", start)) < 0 or len(buffer) < space + 1 + 4 * columns:
            if len(buffer) - start > _LONGEST_WORD + 4 * columns:
                raise CorruptFile(
                    f"{path}: word {row + 1} is over {_LONGEST_WORD} bytes long; this is not word2vec binary"
                )
            more = stream.read(_BINARY_BLOCK)
            if not more:
                raise CorruptFile(f"{path} ends within word {row + 1} of {expected}")
            buffer, start = buffer[start:] + more, 0
        words.append(_decode(path, f"word {row + 1}", buffer[start:space].lstrip(b"\n")))
        vectors[row] = np.frombuffer(buffer, "<f4", columns, space + 1)
        start = space + 1 + 4 * columns
    if (buffer[start:] + stream.read(2)).strip(b"\n"):
        raise CorruptFile(f"{path} goes on after the {expected} words that its first line promises")
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise CorruptFile(f"{path}: word {row + 1}, {words[row]!r}, has values that are not finite")
    return words, np.ascontiguousarray(vectors, dtype=np.float32)


def _decode(path: Path, place: str, word: bytes) -> str:
    try:
        return word.decode()
    except UnicodeDecodeError as error:
        raise CorruptFile(f"{path}, {place}: the word {word[:40]!r} is not UTF-8") from error
