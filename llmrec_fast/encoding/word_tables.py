"""Read word vectors kept as an array (npy, npz, safetensors) with the vocabulary beside it (txt, json, parquet)."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from llmrec_fast.arrays import Float32Array, as_matrix
from llmrec_fast.encoding.weights import WeightFiles
from llmrec_fast.errors import CorruptFile, InvalidInput, MissingDependency

TABLE_SUFFIXES = (".npy", ".npz", ".safetensors")
_VECTORS, _WORDS = "vectors", "words"


def read_table(path: Path, vocabulary: Path | None) -> tuple[list[str], Float32Array]:
    """Words and vectors (n, d). Raises `CorruptFile` for damage and `InvalidInput` where the two files do not fit."""
    vectors, words = _read_array(path)
    if vocabulary is not None:
        words = _read_vocabulary(vocabulary)
    if words is None:
        raise InvalidInput(f"{path} holds no words; pass vocabulary= (a txt, json or parquet file)")
    if len(words) != len(vectors):
        raise InvalidInput(
            f"{path} has {len(vectors)} rows and {vocabulary or path} {len(words)} words; expected as many"
        )
    return words, vectors


def _read_array(path: Path) -> tuple[Float32Array, list[str] | None]:
    """The vectors and, where the file holds them, the words."""
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        with WeightFiles([path]) as file:
            name = _only(path, sorted(file.names()))
            return as_matrix(file.read(name), f"{path}: {name}"), None
    try:
        # NumPy leaves a file that it opened itself open where it cannot read it
        with path.open("rb") as stream:
            content = np.load(stream, allow_pickle=False)
            arrays = {_VECTORS: content} if suffix == ".npy" else {name: content[name] for name in content.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise CorruptFile(f"{path} is damaged or not a NumPy file without pickled objects: {error}") from error
    name = _only(path, [name for name, array in arrays.items() if array.ndim == 2])
    return as_matrix(arrays[name], f"{path}: {name}"), [
        str(word) for word in arrays[_WORDS]
    ] if _WORDS in arrays else None


def _only(path: Path, names: list[str]) -> str:
    """The name of the vectors: `vectors`, or the only candidate."""
    if _VECTORS in names:
        return _VECTORS
    if len(names) != 1:
        raise InvalidInput(
            f"{path} must hold one matrix, or one called {_VECTORS!r}; it holds {', '.join(names) or 'none'}"
        )
    return names[0]


def _read_vocabulary(path: Path) -> list[str]:
    if not path.is_file():
        raise InvalidInput(f"there is no file {path}")
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _read_parquet(path)
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise CorruptFile(f"{path} is not UTF-8 text: {error}") from error
    if suffix == ".json":
        return _read_json(path, text)
    if suffix == ".txt":
        # only \n ends a line: words may hold every other separator of Unicode
        return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    raise InvalidInput(f"a vocabulary must be a txt, json or parquet file; got {path}")


def _read_json(path: Path, text: str) -> list[str]:
    try:
        content: Any = json.loads(text)
    except ValueError as error:
        raise CorruptFile(f"{path} is not valid JSON: {error}") from error
    if isinstance(content, dict):
        return _by_row(path, content)
    if isinstance(content, list) and all(isinstance(word, str) for word in content):
        return content
    raise InvalidInput(f"{path} must hold a list of words or an object from word to row")


def _by_row(path: Path, rows: Mapping[str, Any]) -> list[str]:
    """Words in the order of their rows, which must be 0 .. n - 1."""
    words = {row: word for word, row in rows.items() if isinstance(row, int)}
    if sorted(words) != list(range(len(rows))):
        raise InvalidInput(f"{path} must give each word its own row, from 0 to {len(rows) - 1}")
    return [words[row] for row in range(len(rows))]


def _read_parquet(path: Path) -> list[str]:
    """The only text column, in the order of the rows or of an integer column called index, id or row."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependency("reading a Parquet vocabulary needs pyarrow: pip install pyarrow") from error
    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise CorruptFile(f"{path} is damaged or not Parquet: {error}") from error
    types = {field.name: field.type for field in table.schema}
    text = [
        name for name, kind in types.items() if pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)
    ]
    if len(text) != 1:
        raise InvalidInput(f"{path} must have one text column with the words; it has {', '.join(text) or 'none'}")
    words: list[str] = table.column(text[0]).to_pylist()
    if table.column(text[0]).null_count:
        raise CorruptFile(f"{path} has no word in row {words.index(None)}")  # type: ignore[arg-type]
    order = [name for name in ("index", "id", "row") if name in types and pyarrow.types.is_integer(types[name])]
    return _by_row(path, dict(zip(words, table.column(order[0]).to_pylist(), strict=True))) if order else words
