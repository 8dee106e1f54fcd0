"""What `semantic_search` remembers of a corpus: it is indexed when it comes again, and a change is always noticed."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from llmrec_fast.compat.sentence_transformers import corpus_index
from llmrec_fast.compat.sentence_transformers.corpus_index import CorpusIndex
from llmrec_fast.compat.sentence_transformers.fingerprint import fingerprint
from llmrec_fast.errors import InvalidInput
from llmrec_fast.retrieval import Index


@pytest.fixture
def corpus() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((5000, 8), dtype=np.float32)


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each index that is built."""
    built: list[int] = []

    class Counted(Index):
        @classmethod
        def build(cls, vectors: np.ndarray, **keywords: object) -> Index:
            built.append(len(vectors))
            return Index.build(vectors, **keywords)

    monkeypatch.setattr(corpus_index, "Index", Counted)
    return built


def test_a_corpus_is_indexed_when_it_comes_again_and_then_reused(corpus: np.ndarray, builds: list[int]) -> None:
    memory, counts = CorpusIndex(), []
    for _ in range(4):
        found = memory.search(corpus, corpus, corpus[:2], 1, "cosine", "corpus")
        assert found.ids.tolist() == [[0], [1]]
        counts.append(len(builds))
    assert counts == [0, 1, 1, 1]


def test_a_change_in_place_is_noticed(corpus: np.ndarray, builds: list[int]) -> None:
    memory = CorpusIndex()
    query = corpus[:1].copy()
    for _ in range(3):
        memory.search(corpus, corpus, query, 1, "dot", "corpus")
    corpus[4321] = 100 * query[0]
    assert memory.search(corpus, corpus, query, 1, "dot", "corpus").ids.tolist() == [[4321]]
    assert len(builds) == 1


def test_nan_is_refused_when_it_comes_and_when_it_is_put_in_later(corpus: np.ndarray) -> None:
    memory = CorpusIndex()
    for _ in range(3):
        memory.search(corpus, corpus, corpus[:1].copy(), 1, "dot", "corpus")
    corpus[17, 3] = np.nan
    for _ in range(3):
        with pytest.raises(InvalidInput, match="corpus holds NaN in row 17"):
            memory.search(corpus, corpus, np.ones((1, 8), np.float32), 1, "dot", "corpus")


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_types_are_known_by_their_own_bits(corpus: np.ndarray, builds: list[int], dtype: type) -> None:
    memory, given = CorpusIndex(), corpus.astype(dtype)[:, :7]
    wanted = given.astype(np.float32) @ np.ones(7, np.float32)
    for _ in range(4):
        found = memory.search(given, given, np.ones((1, 7), np.float32), 2, "dot", "corpus")
        assert found.ids.tolist() == [np.argsort(-wanted)[:2].tolist()]
    assert len(builds) == 1


def test_another_metric_or_another_object_is_another_corpus(corpus: np.ndarray, builds: list[int]) -> None:
    memory = CorpusIndex()
    for metric in ("cosine", "dot", "cosine"):
        memory.search(corpus, corpus, corpus[:1], 1, metric, "corpus")
    copy = corpus.copy()
    for rows in (corpus, copy, corpus):
        memory.search(rows, rows, corpus[:1], 1, "euclidean", "corpus")
    assert builds == []


def test_nothing_outlives_the_callers_corpus_and_lists_are_not_remembered(builds: list[int]) -> None:
    memory = CorpusIndex()
    rows = np.random.default_rng(0).standard_normal((5000, 4), dtype=np.float32)
    for _ in range(2):
        memory.search(rows, rows, rows[:1], 1, "dot", "corpus")
    assert memory._index is not None
    values = rows.tolist()
    del rows
    gc.collect()
    assert memory._index is None
    builds.clear()
    for _ in range(3):
        memory.search(values, np.array(values, np.float32), np.ones((1, 4), np.float32), 1, "dot", "corpus")
    assert builds == []


class TestFingerprint:
    @pytest.mark.parametrize("shape", [(1, 1), (1, 17), (3, 5), (1000, 400)])
    def test_any_changed_value_changes_it(self, shape: tuple[int, int]) -> None:
        rows = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        before = fingerprint(rows)
        assert fingerprint(rows.copy()) == before
        for place in np.random.default_rng(1).integers(0, rows.size, 20):
            changed = rows.copy()
            changed.flat[place] = np.nextafter(changed.flat[place], np.float32(np.inf))
            assert fingerprint(changed) != before

    def test_rows_of_few_significant_bits_that_change_places(self) -> None:
        """Values that were float16 once have zeros below; places a power of two apart are the hardest for products of words."""
        rows = np.random.default_rng(0).standard_normal((1 << 13, 64)).astype(np.float16).astype(np.float32)
        rows[:, 1:] = 1
        before = fingerprint(rows)
        for distance in (1, 64, 1 << 12):
            swapped = rows.copy()
            swapped[[0, distance]] = swapped[[distance, 0]]
            assert fingerprint(swapped) != before

    @pytest.mark.parametrize("octets", range(1, 9))
    def test_arrays_that_are_no_multiple_of_a_word(self, octets: int) -> None:
        array = np.arange(octets, dtype=np.uint8)
        assert len({fingerprint(array ^ np.eye(octets, dtype=np.uint8)[place]) for place in range(octets)}) == octets

    def test_swapped_rows_and_signs_of_zero_change_it(self) -> None:
        rows = np.arange(64, dtype=np.float32).reshape(4, 16)
        assert fingerprint(rows) != fingerprint(rows[::-1].copy())
        assert fingerprint(np.zeros((2, 2), np.float32)) != fingerprint(-np.zeros((2, 2), np.float32))
        assert fingerprint(np.zeros((2, 2), np.float32)) != fingerprint(np.zeros((2, 3), np.float32))
