"""`util` of the sentence-transformers shim, against definitions in float64 and against values the library itself returned."""

from __future__ import annotations

import numpy as np
import pytest

from llmrec_fast.compat.sentence_transformers import util
from llmrec_fast.errors import InvalidInput

A = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]])
B = np.array([[0.0, 5.0], [6.0, 8.0], [1.0, 1.0]])


class FakeTensor:
    """What the shim needs of a tensor: it is detached, moved to the CPU and read as an array."""

    __module__ = "torch"

    def __init__(self, values: object, dtype: str = "torch.float32", layout: str = "torch.strided") -> None:
        self.values, self.dtype, self.layout = np.asarray(values), dtype, layout

    def detach(self) -> FakeTensor:
        return self

    def cpu(self) -> FakeTensor:
        return self

    def to_dense(self) -> FakeTensor:
        return FakeTensor(self.values, self.dtype)

    def float(self) -> np.ndarray:
        return self.values.astype(np.float32)

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        if self.dtype == "torch.bfloat16":
            raise TypeError("NumPy has no bfloat16")
        if self.layout != "torch.strided":
            raise TypeError("NumPy has no sparse arrays")
        return self.values


@pytest.mark.usefixtures("torch")
class TestSimilarities:
    @pytest.mark.parametrize(
        ("function", "wanted"),
        [
            (util.cos_sim, [[0.8, 1, 0.9899495], [0, 0.6, 0.70710678], [0, 0, 0]]),
            (util.pytorch_cos_sim, [[0.8, 1, 0.9899495], [0, 0.6, 0.70710678], [0, 0, 0]]),
            (util.dot_score, [[20, 50, 7], [0, 6, 1], [0, 0, 0]]),
            (
                util.euclidean_sim,
                [[-3.16227766, -5, -3.60555128], [-5.09901951, -9.43398113, -1], [-5, -10, -1.41421356]],
            ),
            (util.manhattan_sim, [[-4, -7, -5], [-6, -13, -1], [-5, -14, -2]]),
        ],
    )
    def test_every_pair(self, function: object, wanted: list[list[float]]) -> None:
        np.testing.assert_allclose(function(A, B), wanted, rtol=1e-6, atol=1e-7)  # type: ignore[operator]

    @pytest.mark.parametrize(
        ("pairwise", "every"),
        [
            (util.pairwise_cos_sim, util.cos_sim),
            (util.pairwise_dot_score, util.dot_score),
            (util.pairwise_euclidean_sim, util.euclidean_sim),
            (util.pairwise_manhattan_sim, util.manhattan_sim),
        ],
    )
    def test_row_by_row_is_the_diagonal(self, pairwise: object, every: object) -> None:
        np.testing.assert_allclose(pairwise(A, B), np.diag(every(A, B)), rtol=1e-6)  # type: ignore[operator]

    def test_single_vectors_and_lists_are_rows(self) -> None:
        np.testing.assert_allclose(util.cos_sim([3.0, 4.0], list(B)), [[0.8, 1, 0.9899495]], rtol=1e-6)

    def test_shapes_that_do_not_fit_are_refused(self) -> None:
        with pytest.raises(InvalidInput, match="same number of columns"):
            util.cos_sim(np.ones((2, 3)), np.ones((2, 2)))
        with pytest.raises(InvalidInput, match="row by row"):
            util.pairwise_cos_sim(np.ones((2, 2)), np.ones((3, 2)))

    def test_normalizing_keeps_the_kind_and_the_shape(self) -> None:
        np.testing.assert_allclose(util.normalize_embeddings(A), [[0.6, 0.8], [1, 0], [0, 0]], rtol=1e-6)
        assert util.normalize_embeddings(np.array([3.0, 4.0])).shape == (2,)
        np.testing.assert_allclose(util.normalize_embeddings(FakeTensor(A))[0], [0.6, 0.8], rtol=1e-6)

    def test_truncating_keeps_the_first_columns(self) -> None:
        assert util.truncate_embeddings(A, 1).tolist() == [[3], [1], [0]]
        assert util.truncate_embeddings(A, None).shape == A.shape


class TestSemanticSearch:
    @pytest.mark.parametrize("queries", [1, 20, 1100])
    @pytest.mark.parametrize("function", [util.cos_sim, util.dot_score, util.euclidean_sim])
    def test_the_best_of_all_pairs_in_float64(self, queries: int, function: object) -> None:
        generator = np.random.default_rng(0)
        corpus = generator.standard_normal((300, 12)).astype(np.float32)
        asked = generator.standard_normal((queries, 12)).astype(np.float32)
        a, b = asked.astype(np.float64), corpus.astype(np.float64)
        if function is util.cos_sim:
            exact = a @ b.T / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)
        elif function is util.dot_score:
            exact = a @ b.T
        else:
            exact = -np.linalg.norm(a[:, None] - b, axis=2)
        hits = util.semantic_search(asked, corpus, top_k=4, score_function=function)
        assert [[hit["corpus_id"] for hit in row] for row in hits] == np.argsort(-exact, axis=1)[:, :4].tolist()
        np.testing.assert_allclose([[hit["score"] for hit in row] for row in hits], -np.sort(-exact)[:, :4], atol=1e-6)

    def test_equal_scores_come_by_corpus_id(self) -> None:
        corpus = np.array([[0, 1], [2, 0], [1, 0], [3, 0]], np.float32)
        hits = util.semantic_search(np.array([1.0, 0.0]), corpus, top_k=3)
        assert hits == [[{"corpus_id": i, "score": 1.0} for i in (1, 2, 3)]]

    def test_a_small_corpus_gives_fewer(self) -> None:
        assert [len(row) for row in util.semantic_search(A, B, top_k=10)] == [3, 3, 3]
        assert util.semantic_search(A, np.zeros((0, 2)), top_k=10) == [[], [], []]

    def test_tensors_of_any_float_type_and_lists_of_them_are_read(self) -> None:
        wanted = util.semantic_search(A, B)
        assert util.semantic_search(FakeTensor(A), FakeTensor(B, "torch.bfloat16")) == wanted
        assert util.semantic_search([FakeTensor(row) for row in A], B) == wanted
        assert util.semantic_search(FakeTensor(A, layout="torch.sparse_coo"), B) == wanted

    def test_another_score_function_or_keyword_is_refused(self) -> None:
        with pytest.raises(InvalidInput, match="score_function must be"):
            util.semantic_search(A, B, score_function=util.manhattan_sim)
        with pytest.raises(InvalidInput, match="top_k"):
            util.semantic_search(A, B, top_k=0)
        with pytest.raises(InvalidInput, match="corpus_chunk_size"):
            util.semantic_search(A, B, corpus_chunk_size=0)
        with pytest.raises(TypeError):
            util.semantic_search(A, B, k=3)
        with pytest.raises(InvalidInput, match="NaN in row 0"):
            util.semantic_search(A * np.nan, B)


class TestParaphraseMining:
    ROWS = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1], [1, 0]], np.float32)

    def test_pairs_come_once_best_first(self) -> None:
        pairs = util.paraphrase_mining_embeddings(self.ROWS)
        assert [pair[1:] for pair in pairs[:5]] == [[0, 4], [0, 1], [1, 4], [2, 3], [1, 3]]
        assert len(pairs) == 10
        assert pairs[0][0] == pytest.approx(1.0)
        assert pairs[1][0] == pytest.approx(1 / np.sqrt(1.01))

    def test_each_row_offers_its_best_others_only(self) -> None:
        assert {tuple(p[1:]) for p in util.paraphrase_mining_embeddings(self.ROWS, top_k=1)} == {(0, 4), (0, 1), (2, 3)}

    def test_only_so_many_pairs_are_kept(self) -> None:
        assert [p[1:] for p in util.paraphrase_mining_embeddings(self.ROWS, max_pairs=2)] == [[0, 4], [0, 1]]

    def test_nothing_pairs_with_itself(self) -> None:
        assert util.paraphrase_mining_embeddings(self.ROWS[:1]) == []

    def test_a_model_encodes_the_sentences_first(self) -> None:
        class Model:
            def encode(self, sentences: list[str], **keywords: object) -> np.ndarray:
                assert keywords["prompt"] == "p"
                return TestParaphraseMining.ROWS[: len(sentences)]

        assert util.paraphrase_mining(Model(), ["a", "b"], prompt="p")[0][1:] == [0, 1]


class TestCommunities:
    def test_the_largest_come_first_with_their_centers_and_without_overlap(self) -> None:
        angles = np.array([0.0, 0.1, -0.1, 0.05, 1.5, 1.55, 1.6, 3.0])
        rows = np.stack([np.cos(angles), np.sin(angles)], 1)
        assert util.community_detection(rows, threshold=0.99, min_community_size=2) == [[0, 3, 1, 2], [4, 5, 6]]
        assert util.community_detection(rows, threshold=0.99, min_community_size=4, batch_size=3) == [[0, 3, 1, 2]]

    def test_few_or_no_rows_have_no_community(self) -> None:
        assert util.community_detection(np.zeros((0, 3))) == []
        assert util.community_detection(np.ones((9, 3)), min_community_size=10) == []

    def test_not_a_number_is_no_threshold(self) -> None:
        with pytest.raises(InvalidInput, match="threshold"):
            util.community_detection(A, threshold=float("nan"))


class TestQuantizing:
    VECTORS = np.array([[0, -10, 2], [255, 181.25, 2], [63.75, 245, 2]], np.float32)

    def test_steps_run_from_the_least_to_the_greatest_of_each_column(self) -> None:
        assert util.quantize_embeddings(self.VECTORS, "uint8").tolist() == [[0, 0, 0], [255, 191, 0], [63, 255, 0]]
        wanted = [[-128, -128, -128], [127, 63, -128], [-65, 127, -128]]
        assert util.quantize_embeddings(self.VECTORS, "int8").tolist() == wanted

    def test_ranges_and_calibration_vectors_fix_the_steps(self) -> None:
        ranges = np.array([[0, 0, 0], [255, 255, 255]])
        assert util.quantize_embeddings(np.array([[7.5, 300, -3]]), "uint8", ranges=ranges).tolist() == [[7, 255, 0]]
        codes = util.quantize_embeddings(self.VECTORS[1], "uint8", calibration_embeddings=self.VECTORS)
        assert codes.tolist() == [255, 191, 0]

    def test_signs_are_packed_with_the_first_in_the_highest_bit(self) -> None:
        signs = np.array([[1, -1, 1, 0, -1, -1, -1, 1.0, 1]])
        assert util.quantize_embeddings(signs, "ubinary").tolist() == [[0b10100001, 0b10000000]]
        assert util.quantize_embeddings(signs, "binary").tolist() == [[0b10100001 - 128, 0]]

    def test_no_rows_keep_their_type(self) -> None:
        for precision, columns in (("int8", 3), ("uint8", 3), ("binary", 1), ("ubinary", 1), ("float32", 3)):
            assert util.quantize_embeddings(np.zeros((0, 3)), precision).shape == (0, columns)

    def test_what_cannot_be_quantized_is_refused(self) -> None:
        with pytest.raises(InvalidInput, match="single vector"):
            util.quantize_embeddings(self.VECTORS[:1], "int8")
        with pytest.raises(InvalidInput, match="must be floats"):
            util.quantize_embeddings(np.ones((2, 2), np.int8), "binary")
        with pytest.raises(InvalidInput, match="precision must be"):
            util.quantize_embeddings(self.VECTORS, "int4")
        with pytest.raises(InvalidInput, match=r"shape \(2, 3\)"):
            util.quantize_embeddings(self.VECTORS, "int8", ranges=np.zeros((2, 2)))
