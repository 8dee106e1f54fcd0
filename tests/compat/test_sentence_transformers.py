"""`SentenceTransformer`: every keyword of `encode`, against `llmrec_fast.Encoder` on the same model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from llmrec_fast import Encoder
from llmrec_fast.compat.sentence_transformers import SentenceTransformer, SimilarityFunction, quantize_embeddings, util
from llmrec_fast.errors import CorruptFile, DeviceUnavailable, InvalidInput, MissingDependency
from tests.encoding.tiny_models import HIDDEN, write_json, write_model

TEXTS = ["a man is eating food", "the movie about space", "snow", "the movie about space", ""]


@pytest.fixture(scope="module")
def model(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(folder)


@pytest.fixture(scope="module")
def expected(folder: Path) -> np.ndarray:
    return Encoder(folder).encode(TEXTS)


class TestEncoding:
    def test_vectors_are_the_encoders(self, model: SentenceTransformer, expected: np.ndarray) -> None:
        vectors = model.encode(TEXTS)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(vectors, expected, atol=1e-6)

    def test_a_single_text_gives_one_dimension(self, model: SentenceTransformer, expected: np.ndarray) -> None:
        vector = model.encode(TEXTS[0])
        assert vector.shape == (HIDDEN,)
        np.testing.assert_allclose(vector, expected[0], atol=1e-6)

    def test_no_texts_give_an_empty_array_of_one_dimension(self, model: SentenceTransformer) -> None:
        assert model.encode([]).shape == (0,)
        assert model.encode([], convert_to_numpy=False) == []

    def test_both_names_of_the_first_parameter_work(self, model: SentenceTransformer, expected: np.ndarray) -> None:
        np.testing.assert_array_equal(model.encode(sentences=TEXTS), model.encode(inputs=TEXTS))
        for wrong in ({}, {"inputs": TEXTS, "sentences": TEXTS}):
            with pytest.raises(InvalidInput, match="either inputs or sentences"):
                model.encode(**wrong)

    def test_columns_are_cut_before_vectors_are_normalized(
        self, model: SentenceTransformer, expected: np.ndarray
    ) -> None:
        vectors = model.encode(TEXTS, truncate_dim=5, normalize_embeddings=True)
        wanted = expected[:, :5] / np.linalg.norm(expected[:, :5], axis=1, keepdims=True)
        np.testing.assert_allclose(vectors, wanted, atol=1e-6)

    @pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
    def test_precisions_are_those_of_quantize_embeddings(self, model: SentenceTransformer, precision: str) -> None:
        codes = model.encode(TEXTS, precision=precision)
        np.testing.assert_array_equal(codes, quantize_embeddings(model.encode(TEXTS), precision))

    def test_keywords_that_change_nothing_are_checked_all_the_same(self, model: SentenceTransformer) -> None:
        np.testing.assert_array_equal(
            model.encode(TEXTS, batch_size=1, show_progress_bar=False, device="cpu"), model.encode(TEXTS)
        )
        with pytest.raises(InvalidInput, match="batch_size"):
            model.encode(TEXTS, batch_size=0)

    def test_a_progress_bar_is_shown_on_request(
        self, model: SentenceTransformer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        model.encode(TEXTS)
        assert capsys.readouterr().err == ""
        model.encode(TEXTS, show_progress_bar=True)
        assert "encode" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("keywords", "message"),
        [
            ({"precision": "int4"}, "precision must be one of"),
            ({"output_value": None}, "output_value must be"),
            ({"prompt_name": "nonsense"}, "prompt_name 'nonsense' is not among"),
            ({"pool": {}}, "threads do it here"),
            ({"chunk_size": 5}, "threads do it here"),
        ],
    )
    def test_what_is_not_covered_is_refused(
        self, model: SentenceTransformer, keywords: dict[str, object], message: str
    ) -> None:
        with pytest.raises(InvalidInput, match=message):
            model.encode(TEXTS, **keywords)

    def test_unknown_keywords_and_other_devices_are_refused(self, model: SentenceTransformer, folder: Path) -> None:
        with pytest.raises(TypeError):
            model.encode(TEXTS, normalise_embeddings=True)
        with pytest.raises(TypeError):
            SentenceTransformer(folder, trust_remote=True)
        for device in ("cuda", ["cpu", "cpu"]):
            with pytest.raises(DeviceUnavailable, match="not covered"):
                model.encode(TEXTS, device=device)
        with pytest.raises(DeviceUnavailable, match="cuda"):
            SentenceTransformer(folder, device="cuda")

    def test_options_that_change_nothing_here_are_accepted(self, folder: Path, expected: np.ndarray) -> None:
        options = {
            "trust_remote_code": True,
            "local_files_only": True,
            "backend": "onnx",
            "token": "secret",
            "model_kwargs": {},
        }
        own = SentenceTransformer(folder, cache_folder=None, **options).to("cpu").eval()
        np.testing.assert_allclose(own.encode(TEXTS), expected, atol=1e-6)

    @pytest.mark.parametrize(
        ("option", "value"),
        [("cache_folder", "/tmp"), ("revision", "v2"), ("model_kwargs", {"dtype": "float16"}), ("backend", "openvino")],
    )
    def test_options_that_would_change_something_are_refused(self, folder: Path, option: str, value: object) -> None:
        with pytest.raises(InvalidInput, match=option):
            SentenceTransformer(folder, **{option: value})
        with pytest.raises(DeviceUnavailable):
            SentenceTransformer(folder).to("cuda")
        with pytest.raises(InvalidInput, match="local_files_only"):
            SentenceTransformer("all-MiniLM-L6-v2", local_files_only=True)

    @pytest.mark.parametrize("texts", [[1], [("a", "b")], [None]])
    def test_only_texts_are_encoded(self, model: SentenceTransformer, texts: list[object]) -> None:
        with pytest.raises(InvalidInput, match="must be a string"):
            model.encode(texts)


class TestTensors:
    @pytest.mark.usefixtures("torch")
    def test_tensors_and_lists_of_tensors(self, model: SentenceTransformer, expected: np.ndarray) -> None:
        np.testing.assert_allclose(model.encode(TEXTS, convert_to_tensor=True), expected, atol=1e-6)
        rows = model.encode(TEXTS, convert_to_numpy=False)
        assert isinstance(rows, list)
        np.testing.assert_allclose(np.stack(rows), expected, atol=1e-6)
        assert model.encode([], convert_to_tensor=True).dtype == np.float32

    @pytest.mark.usefixtures("torch")
    def test_token_vectors_average_to_the_texts_vector(self, model: SentenceTransformer, expected: np.ndarray) -> None:
        tokens = model.encode(TEXTS, output_value="token_embeddings")
        assert [len(rows) for rows in tokens] == model.tokenize(TEXTS)["attention_mask"].sum(1).tolist()
        np.testing.assert_allclose(np.stack([rows.mean(0) for rows in tokens]), expected, atol=1e-5)
        assert model.encode("snow", output_value="token_embeddings").shape == (3, HIDDEN)

    @pytest.mark.usefixtures("torch")
    def test_tokens_are_padded_and_masked(self, model: SentenceTransformer) -> None:
        features = model.tokenize(["a man", "snow"])
        assert list(features) == ["input_ids", "token_type_ids", "attention_mask"]
        assert features["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
        assert features["input_ids"].dtype == np.int64
        assert features["token_type_ids"].tolist() == [[0] * 4] * 2

    @pytest.mark.usefixtures("no_torch")
    def test_without_torch_only_what_needs_it_raises(self, model: SentenceTransformer) -> None:
        assert model.encode("snow").shape == (HIDDEN,)
        for call in (
            lambda: model.encode(TEXTS, convert_to_tensor=True),
            lambda: model.similarity(np.ones((1, 2)), np.ones((1, 2))),
            lambda: model.tokenize(TEXTS),
        ):
            with pytest.raises(MissingDependency, match="pip install torch"):
                call()


class TestPrompts:
    def test_a_prompt_goes_before_each_text(self, model: SentenceTransformer) -> None:
        wanted = model.encode(["a man snow", "a man café"])
        np.testing.assert_array_equal(model.encode(["snow", "café"], prompt="a man "), wanted)
        np.testing.assert_array_equal(model.encode(["snow", "café"], prompt_name="query"), wanted)
        np.testing.assert_array_equal(model.encode_query(["snow", "café"]), wanted)
        np.testing.assert_array_equal(model.encode_query("snow", prompt=""), model.encode("snow"))

    def test_documents_take_the_first_document_prompt(self, model: SentenceTransformer) -> None:
        np.testing.assert_array_equal(model.encode_document("snow"), model.encode("snow"))  # "document" has no text
        np.testing.assert_array_equal(
            model.encode_document("snow", prompt_name="passage"), model.encode("the movie snow")
        )

    def test_the_callers_prompts_and_default_come_first(self, folder: Path, model: SentenceTransformer) -> None:
        own = SentenceTransformer(folder, prompts={"query": "space "}, default_prompt_name="query")
        np.testing.assert_array_equal(own.encode("snow"), model.encode("space snow"))
        np.testing.assert_array_equal(own.encode("snow", prompt_name="passage"), model.encode("the movie snow"))
        np.testing.assert_array_equal(own.encode("snow", prompt=""), model.encode("snow"))
        with pytest.raises(InvalidInput, match="default_prompt_name 'none'"):
            SentenceTransformer(folder, default_prompt_name="none")

    def test_the_models_default_prompt_applies_unless_another_is_given(self, tmp_path: Path) -> None:
        path = write_model(tmp_path / "model")
        settings = {"prompts": {"p": "a man "}, "default_prompt_name": "p"}
        (path / "config_sentence_transformers.json").write_text(json.dumps(settings))
        model = SentenceTransformer(path)
        np.testing.assert_array_equal(model.encode("snow"), model.encode("a man snow", prompt=""))

    def test_prompts_that_are_set_later_count(self, folder: Path, model: SentenceTransformer) -> None:
        own = SentenceTransformer(folder)
        own.prompts["late"] = "snow "
        own.default_prompt_name = "late"
        np.testing.assert_array_equal(own.encode("café"), model.encode("snow café"))
        own.default_prompt_name = "later"
        with pytest.raises(InvalidInput, match="default_prompt_name 'later'"):
            own.encode("café")

    def test_a_prompt_goes_before_a_name_with_a_warning(
        self, model: SentenceTransformer, caplog: pytest.LogCaptureFixture
    ) -> None:
        np.testing.assert_array_equal(
            model.encode("snow", prompt="café ", prompt_name="query"), model.encode("café snow")
        )
        assert "prompt_name is ignored" in caplog.text

    def test_damaged_settings_are_named(self, tmp_path: Path) -> None:
        path = write_model(tmp_path / "model")
        write_json(path / "config_sentence_transformers.json", {"prompts": {}})
        SentenceTransformer(path)
        (path / "config_sentence_transformers.json").write_text("{")
        with pytest.raises(CorruptFile, match="config_sentence_transformers"):
            SentenceTransformer(path)


class TestProperties:
    def test_dimensions_follow_truncation(self, folder: Path) -> None:
        model = SentenceTransformer(folder, truncate_dim=4)
        assert model.get_sentence_embedding_dimension() == model.get_embedding_dimension() == 4
        assert model.encode("snow").shape == (4,)
        assert model.encode("snow", truncate_dim=3).shape == (3,)
        with model.truncate_embeddings(None):
            assert model.encode("snow").shape == (HIDDEN,)
        assert model.get_sentence_embedding_dimension() == 4

    def test_texts_are_cut_at_a_length_that_may_be_set(self, folder: Path) -> None:
        model = SentenceTransformer(folder)
        model.max_seq_length = 4
        assert model.get_max_seq_length() == 4
        np.testing.assert_array_equal(model.encode("a man is eating"), model.encode("a man"))
        with pytest.raises(InvalidInput, match="max_seq_length must be at most 24"):
            model.max_seq_length = 25

    @pytest.mark.usefixtures("torch")
    def test_similarity_is_the_models_own_or_the_callers(self, folder: Path, model: SentenceTransformer) -> None:
        a, b = np.array([[3.0, 4.0], [1.0, 0.0]]), np.array([[0.0, 5.0]])
        assert model.similarity_fn_name == "dot"
        assert model.similarity(a, b).tolist() == [[20], [0]]
        own = SentenceTransformer(folder, similarity_fn_name="cosine")
        np.testing.assert_allclose(own.similarity(a, b), [[0.8], [0]], rtol=1e-6)
        np.testing.assert_allclose(own.similarity_pairwise(a, a), [1, 1], rtol=1e-6)
        own.similarity_fn_name = SimilarityFunction.DOT
        assert own.similarity_fn_name == "dot"
        own.similarity_fn_name = "manhattan"
        assert own.similarity(a, b).tolist() == [[-4], [-6]]
        with pytest.raises(InvalidInput, match="similarity_fn_name"):
            own.similarity_fn_name = "maxsim"

    def test_the_module_is_where_the_original_has_it(self) -> None:
        from llmrec_fast.compat.sentence_transformers import quantization
        from llmrec_fast.compat.sentence_transformers.util import cos_sim, semantic_search

        assert quantization.quantize_embeddings is quantize_embeddings
        assert (util.cos_sim, util.semantic_search) == (cos_sim, semantic_search)
