"""Static word vectors: what a text's vector is, and that every file format gives the same words and numbers."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from safetensors.numpy import save_file

from llmrec_fast.encoding import TextEncoder, WordVectors
from llmrec_fast.encoding.word_vector_files import read_word_vectors
from llmrec_fast.errors import CorruptFile, InvalidInput

# words with what trips readers up: punctuation, a space, Unicode line separators, other scripts, a number
WORDS = ["snow", "bread", ",", "café", "雪", "new york", "a\x85b", "a\u2028b", "1984"]
VECTORS = np.round(np.random.default_rng(2).standard_normal((len(WORDS), 3)), 4).astype(np.float32)


def text_lines(rows: range) -> list[str]:
    return [f"{WORDS[row]} {' '.join(map(str, VECTORS[row]))}" for row in rows]


def write_glove(path: Path) -> dict[str, Any]:
    path.write_bytes("\n".join(text_lines(range(len(WORDS)))).encode())
    return {}


def write_word2vec(path: Path) -> dict[str, Any]:
    # the original program ends each line with a space
    lines = " \n".join(text_lines(range(len(WORDS))))
    path.write_bytes(f"{len(WORDS)} 3\n{lines} \n".encode())
    return {}


def write_binary(path: Path) -> dict[str, Any]:
    # words without spaces only: the format cannot hold them
    rows = [
        f"{word.replace(' ', '_')} ".encode() + struct.pack("<3f", *row) + b"\n"
        for word, row in zip(WORDS, VECTORS, strict=True)
    ]
    path.write_bytes(f"{len(WORDS)} 3\n".encode() + b"".join(rows))
    return {}


def write_gzip(path: Path) -> dict[str, Any]:
    path.write_bytes(gzip.compress("\n".join(text_lines(range(len(WORDS)))).encode()))
    return {}


def write_npy(path: Path) -> dict[str, Any]:
    np.save(path, VECTORS)
    path.with_suffix(".txt").write_bytes("\n".join(WORDS).encode() + b"\n")
    return {"vocabulary": path.with_suffix(".txt")}


def write_npz(path: Path) -> dict[str, Any]:
    np.savez(path, vectors=VECTORS, words=np.array(WORDS))
    return {}


def write_safetensors(path: Path) -> dict[str, Any]:
    save_file({"embeddings": VECTORS}, path)
    order = {word: row for row, word in reversed(list(enumerate(WORDS)))}
    path.with_suffix(".json").write_text(json.dumps(order))
    return {"vocabulary": path.with_suffix(".json")}


def write_parquet(path: Path) -> dict[str, Any]:
    np.save(path, VECTORS.astype(np.float64))
    parquet.write_table(pyarrow.table({"index": WORDS}), path.with_suffix(".parquet"))
    return {"vocabulary": path.with_suffix(".parquet")}


def write_parquet_with_rows(path: Path) -> dict[str, Any]:
    np.save(path, VECTORS)
    table = pyarrow.table({"word": WORDS[::-1], "id": range(len(WORDS) - 1, -1, -1)})
    parquet.write_table(table, path.with_suffix(".parquet"))
    return {"vocabulary": path.with_suffix(".parquet")}


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("glove.txt", write_glove),
        ("vectors.vec", write_word2vec),
        ("vectors.txt", write_word2vec),
        ("vectors.bin", write_binary),
        ("glove.txt.gz", write_gzip),
        ("table.npy", write_npy),
        ("table.npz", write_npz),
        ("table.safetensors", write_safetensors),
        ("table.npy", write_parquet),
        ("table.npy", write_parquet_with_rows),
    ],
)
def test_every_format_gives_the_same_words_and_numbers(
    tmp_path: Path, name: str, write: Callable[[Path], dict[str, Any]]
) -> None:
    words, vectors = read_word_vectors(tmp_path / name, **write(tmp_path / name))
    assert words == [word.replace(" ", "_") for word in WORDS] if write is write_binary else words == WORDS
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, VECTORS)


def test_a_file_with_another_name_needs_its_format(tmp_path: Path) -> None:
    write_glove(tmp_path / "glove.dat")
    with pytest.raises(InvalidInput, match="pass format="):
        read_word_vectors(tmp_path / "glove.dat")
    assert read_word_vectors(tmp_path / "glove.dat", format="glove")[0] == WORDS
    with pytest.raises(InvalidInput, match="format must be"):
        read_word_vectors(tmp_path / "glove.dat", format="fasttext")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"snow 1 2\nbread 1 x\ncafe 1 2\n", "line 2: expected 2 finite numbers after b'bread'"),
        (b"snow 1 2\nbread 1 2\ncafe 1\n", "line 3: expected a word and 2 numbers; found 1"),
        (b"snow 1 2\nbread nan 2\n", "line 2: expected 2 finite numbers"),
        (b"snow 1 2\n\xff 1 2\n", r"line 2: the word b'\\xff' is not UTF-8"),
        (b"snow\nbread 1\n", "line 1: expected a word and its numbers"),
        (b"2 2\nsnow 1 2\nbread 1 2,5\n", "line 3: expected 2 finite numbers"),
        (b"3 2\nsnow 1 2\nbread 1 2\n", "line 1 promises 3 words; the file has 2"),
        (b"1 2\nsnow 1 2\nbread 1 2\n", "line 1 promises 1 words; the file has 2"),
        (b"", "is empty"),
    ],
)
def test_a_damaged_line_is_named_by_number(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "words.txt").write_bytes(content)
    with pytest.raises(CorruptFile, match=rf"words\.txt,? {message}"):
        read_word_vectors(tmp_path / "words.txt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"2 2\nsnow " + struct.pack("<2f", 1, 2) + b"\nbread \x00\x00", "ends within word 2 of 2"),
        (b"9 2\nsnow " + struct.pack("<2f", 1, 2), "promises 9 words"),
        (b"1 2\nsnow " + struct.pack("<4f", 1, 2, 3, 4), "goes on after the 1 words"),
        (b"1 1\nsnow " + struct.pack("<f", float("inf")), "word 1, 'snow'"),
        (b"hello\n", "line 1: expected the numbers of words and columns"),
        (b"1 1\n" + b"x" * 3000, "over 1000 bytes"),
        (b"1 1\n\xff\xfe " + struct.pack("<f", 1), "word 1: the word"),
    ],
)
def test_a_damaged_binary_file_is_named_by_word(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "words.bin").write_bytes(content)
    with pytest.raises(CorruptFile, match=message):
        read_word_vectors(tmp_path / "words.bin")


def test_a_truncated_gzip_file_is_named(tmp_path: Path) -> None:
    write_gzip(tmp_path / "glove.txt.gz")
    (tmp_path / "glove.txt.gz").write_bytes((tmp_path / "glove.txt.gz").read_bytes()[:-20])
    with pytest.raises(CorruptFile, match=r"glove\.txt\.gz is truncated"):
        read_word_vectors(tmp_path / "glove.txt.gz", format="glove")


@pytest.mark.parametrize(
    ("name", "write"), [("t.npy", write_npy), ("t.npz", write_npz), ("t.safetensors", write_safetensors)]
)
def test_a_truncated_table_is_named(tmp_path: Path, name: str, write: Callable[[Path], dict[str, Any]]) -> None:
    options = write(tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-60])
    with pytest.raises(CorruptFile, match=name.replace(".", "[.]")):
        read_word_vectors(tmp_path / name, **options)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.txt", "snow\nbread\n", "9 rows and .*v[.]txt 2 words"),
        ("v.json", '{"snow": 0, "bread": 2}', "from 0 to 1"),
        ("v.json", "[1, 2]", "list of words"),
        ("v.csv", "snow", "txt, json or parquet"),
    ],
)
def test_a_vocabulary_that_does_not_fit_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    write_npy(tmp_path / "table.npy")
    (tmp_path / name).write_text(content)
    with pytest.raises(InvalidInput, match=message):
        read_word_vectors(tmp_path / "table.npy", vocabulary=tmp_path / name)


def test_a_table_needs_its_words(tmp_path: Path) -> None:
    write_npy(tmp_path / "table.npy")
    with pytest.raises(InvalidInput, match="pass vocabulary="):
        read_word_vectors(tmp_path / "table.npy")


def test_a_vocabulary_beside_a_file_with_words_is_refused(tmp_path: Path) -> None:
    write_glove(tmp_path / "glove.txt")
    with pytest.raises(InvalidInput, match="holds its own words"):
        read_word_vectors(tmp_path / "glove.txt", vocabulary=tmp_path / "v.txt")


# -- encoding -----------------------------------------------------------------------------------------------------------

SMALL = ["snow", "bread", "don't", "sci-fi", "the"]
TABLE = np.array([[1, 0], [0, 1], [4, -4], [-2, 3], [9, 9]], np.float32)


def test_a_text_is_the_mean_or_maximum_of_its_words() -> None:
    texts = ["Snow, bread!", "bread bread snow", "don't -- sci-fi", "nothing known", ""]
    mean = WordVectors(SMALL, TABLE).encode(texts)
    np.testing.assert_allclose(mean, [[0.5, 0.5], [1 / 3, 2 / 3], [1, -0.5], [0, 0], [0, 0]], rtol=1e-6)
    maximum = WordVectors(SMALL, TABLE, pooling="max").encode(texts)
    np.testing.assert_array_equal(maximum, [[1, 1], [1, 1], [4, 3], [0, 0], [0, 0]])


@given(st.lists(st.lists(st.sampled_from([*SMALL, "unknown"]), max_size=30), max_size=20), st.booleans())
def test_any_texts_equal_the_plain_computation(texts: list[list[str]], normalize: bool) -> None:
    expected = np.zeros((len(texts), 2))
    for row, words in enumerate(texts):
        known = [TABLE[SMALL.index(word)].astype(np.float64) for word in words if word in SMALL]
        if known:
            expected[row] = np.mean(known, axis=0)
            norm = np.linalg.norm(expected[row])
            expected[row] /= norm if normalize and norm else 1
    found = WordVectors(SMALL, TABLE, normalize=normalize).encode([" ".join(words) for words in texts])
    # 30 additions of numbers up to 9; a mean near 0 is scaled up by normalisation
    np.testing.assert_allclose(found, expected, atol=1e-4 if normalize else 1e-5, rtol=0)


def test_stop_words_are_left_out() -> None:
    assert WordVectors(SMALL, TABLE, stop_words="english").words("The snow, the bread") == ["snow", "bread"]
    assert WordVectors(SMALL, TABLE, stop_words=["Snow"]).words("the snow") == ["the"]
    assert WordVectors(SMALL, TABLE).words("the snow") == ["the", "snow"]


def test_case_follows_the_vocabulary_unless_it_is_chosen() -> None:
    mixed = WordVectors(["Apple", "apple"], [[1.0], [2.0]])
    assert mixed.encode(["Apple", "apple"]).tolist() == [[1.0], [2.0]]
    assert WordVectors(["apple"], [[2.0]]).encode(["APPLE"]).tolist() == [[2.0]]
    assert WordVectors(["apple"], [[2.0]], lower_case=False).encode(["APPLE"]).tolist() == [[0.0]]


def test_the_first_row_of_a_repeated_word_counts() -> None:
    vectors = WordVectors(["a", "b", "a"], [[1.0], [2.0], [3.0]])
    assert vectors.encode(["a"]).tolist() == [[1.0]]
    assert len(vectors) == 2
    assert "a" in vectors
    assert "c" not in vectors


def test_words_and_files_give_the_same_interface_as_the_encoder(tmp_path: Path) -> None:
    write_glove(tmp_path / "glove.txt")
    vectors = WordVectors.load(tmp_path / "glove.txt", pooling="max", stop_words="english", normalize=True)
    assert isinstance(vectors, TextEncoder)
    assert vectors.dimension == 3
    assert vectors.describe()["words"] == len(WORDS)
    assert vectors.encode([], show_progress=False).shape == (0, 3)
    np.testing.assert_allclose(vectors.encode(["雪"])[0], VECTORS[4] / np.linalg.norm(VECTORS[4]), atol=1e-6)


@pytest.mark.parametrize(
    ("words", "table", "options", "message"),
    [
        (SMALL, TABLE[:2], {}, "5 words need as many vectors; got 2"),
        (["a", 3], TABLE[:2], {}, r"words\[1\] must be a string"),
        (["a"], [[np.nan]], {}, "NaN in row 0"),
        ([], np.zeros((0, 3)), {}, "must not be empty"),
        (SMALL, TABLE, {"pooling": "sum"}, "pooling must be"),
        (SMALL, TABLE, {"stop_words": "german"}, "stop_words must be"),
        (SMALL, TABLE, {"word_pattern": "("}, "not a regular expression"),
        (SMALL, TABLE, {"word_pattern": "(a)b"}, "capturing groups"),
    ],
)
def test_bad_input_is_refused(words: Any, table: Any, options: dict, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        WordVectors(words, table, **options)


def test_a_single_text_is_refused() -> None:
    with pytest.raises(InvalidInput, match="single string"):
        WordVectors(SMALL, TABLE).encode("snow")
