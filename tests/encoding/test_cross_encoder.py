"""`CrossEncoder` on tiny models: equal to the float64 oracle for every head, in the caller's order, clear about bad input."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy.special import erf, expit

from llmrec_fast.encoding import CrossEncoder
from llmrec_fast.errors import CorruptFile, InvalidInput
from tests.encoding.gated_models import gated_config, gated_embeddings, gated_ids, write_gated_model
from tests.encoding.reference_transformer import token_embeddings
from tests.encoding.tiny_models import (
    HIDDEN,
    KINDS,
    WORDS,
    model_config,
    random_parameters,
    special_tokens,
    vocabulary,
    write_json,
    write_model,
)

TOLERANCE = 5e-5
PAIRS = [
    ("a man is eating", "food ."),
    ("snow", "the movie about space and time in snow café 雪"),
    ("", ""),
    ("snow", "bread"),
    ("bread", "snow"),
    ("snow", "bread"),
]
Arrays = Mapping[str, np.ndarray]
HEADS = {"bert": ("bert.pooler.dense", "classifier"), "distilbert": ("pre_classifier", "classifier")}


def head_names(kind: str) -> tuple[str, str]:
    return HEADS.get(kind, ("classifier.dense", "classifier.out_proj"))


def write_scorer(folder: Path, kind: str = "bert", labels: int = 1, **options: Any) -> Path:
    """A model folder whose weights have a head, the encoder's below its name."""
    write_model(folder, kind, prefix=f"{kind}.", **options)
    rng = np.random.default_rng(9)
    head: dict[str, np.ndarray] = {}
    for name, rows in zip(head_names(kind), (HIDDEN, labels), strict=True):
        head[f"{name}.weight"] = rng.normal(0, 0.4, (rows, HIDDEN)).astype(np.float32)
        head[f"{name}.bias"] = rng.normal(0, 0.4, rows).astype(np.float32)
    save_file(load_file(folder / "model.safetensors") | head, folder / "model.safetensors")
    return folder


def pair_ids(pair: tuple[str, str], kind: str) -> tuple[list[int], list[int]]:
    ids = vocabulary(kind)
    _, unknown, begin, end = special_tokens(kind)
    first, second = ([ids.get(word, ids[unknown]) for word in text.split()] for text in pair)
    if kind in ("bert", "distilbert"):
        types = [0] * (len(first) + 2) + [1] * (len(second) + 1) if kind == "bert" else None
        return [ids[begin], *first, ids[end], *second, ids[end]], types
    return [ids[begin], *first, ids[end], ids[end], *second, ids[end]], None


def logits(folder: Path, kind: str, pairs: list[tuple[str, str]], *, types: bool = True) -> np.ndarray:
    config, parameters = model_config(kind), random_parameters(model_config(kind), 0)
    head = {name: array.astype(np.float64) for name, array in load_file(folder / "model.safetensors").items()}
    dense, last = head_names(kind)
    activation = (lambda x: np.maximum(x, 0)) if kind == "distilbert" else np.tanh
    rows = []
    for pair in pairs:
        ids, kinds = pair_ids(pair, kind)
        first = token_embeddings(config, parameters, ids, kinds if types else None)[0]
        inner = activation(head[f"{dense}.weight"] @ first + head[f"{dense}.bias"])
        rows.append(head[f"{last}.weight"] @ inner + head[f"{last}.bias"])
    return np.array(rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scorer(tmp_path_factory.mktemp("scorers") / "bert")


@pytest.mark.parametrize("kind", KINDS)
def test_every_head_equals_the_oracle(tmp_path: Path, kind: str) -> None:
    scorer = CrossEncoder(write_scorer(tmp_path, kind))
    found = scorer.predict(PAIRS)
    assert found.shape == (len(PAIRS),)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expit(logits(tmp_path, kind, PAIRS)[:, 0]), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_modernbert_scores_by_its_first_token_or_the_mean(tmp_path: Path, pooling: str) -> None:
    config = gated_config("modernbert") | {"classifier_pooling": pooling}
    write_gated_model(tmp_path, "modernbert", prefix="model.", config=config)
    rng = np.random.default_rng(9)
    hidden = config["hidden_size"]
    shapes = {"head.dense.weight": (hidden, hidden), "head.norm.weight": (hidden,)}
    shapes |= {"classifier.weight": (1, hidden), "classifier.bias": (1,)}
    head = {name: rng.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}
    parameters = load_file(tmp_path / "model.safetensors")
    save_file(parameters | head, tmp_path / "model.safetensors")
    plain = {name.removeprefix("model."): array for name, array in parameters.items()}
    expected = []
    # this tokenizer puts nothing between the texts of a pair
    pairs = [("a man", "is eating"), ("snow", "")]
    for pair in pairs:
        ids = gated_ids(" ".join(pair), "modernbert")
        tokens = gated_embeddings(config, plain, ids[1:-1])
        inner = head["head.dense.weight"] @ (tokens[0] if pooling == "cls" else tokens.mean(axis=0))
        inner = inner * (1 + erf(inner / np.sqrt(2))) / 2
        inner = (inner - inner.mean()) / np.sqrt(inner.var() + 1e-5) * head["head.norm.weight"]
        expected.append((head["classifier.weight"] @ inner + head["classifier.bias"])[0])
    found = CrossEncoder(tmp_path, activation="identity").predict(pairs)
    np.testing.assert_allclose(found, expected, atol=2e-4, rtol=0)


def test_several_labels_give_a_row_of_logits(tmp_path: Path) -> None:
    scorer = CrossEncoder(write_scorer(tmp_path, labels=3))
    assert scorer.labels == 3
    np.testing.assert_allclose(scorer.predict(PAIRS), logits(tmp_path, "bert", PAIRS), atol=TOLERANCE, rtol=0)
    with pytest.raises(InvalidInput, match="one label; this one gives 3"):
        scorer.rank("snow", ["bread"])


@pytest.mark.parametrize(
    "config",
    [
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "5.0"}},
        {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
    ],
)
def test_the_activation_is_read_and_may_be_chosen(tmp_path: Path, config: dict) -> None:
    write_scorer(tmp_path, config=config)
    expected = logits(tmp_path, "bert", PAIRS)[:, 0]
    np.testing.assert_allclose(CrossEncoder(tmp_path).predict(PAIRS), expected, atol=TOLERANCE, rtol=0)
    chosen = CrossEncoder(tmp_path, activation="sigmoid")
    assert chosen.describe()["activation"] == "sigmoid"
    np.testing.assert_allclose(chosen.predict(PAIRS), expit(expected), atol=TOLERANCE, rtol=0)


def test_token_types_are_left_out_where_the_tokenizer_gives_none(tmp_path: Path) -> None:
    write_scorer(tmp_path)
    write_json(tmp_path / "tokenizer_config.json", {"model_input_names": ["input_ids", "attention_mask"]})
    without = expit(logits(tmp_path, "bert", PAIRS, types=False)[:, 0])
    np.testing.assert_allclose(CrossEncoder(tmp_path).predict(PAIRS), without, atol=TOLERANCE, rtol=0)
    assert np.abs(without - expit(logits(tmp_path, "bert", PAIRS)[:, 0])).max() > 10 * TOLERANCE


@pytest.mark.parametrize("threads", [1, 3])
def test_a_pair_does_not_depend_on_its_company(folder: Path, threads: int) -> None:
    rng = np.random.default_rng(5)
    many = [(" ".join(rng.choice(WORDS, rng.integers(0, 9))), " ".join(rng.choice(WORDS, 6))) for _ in range(120)]
    scorer = CrossEncoder(folder, threads=threads)
    expected = expit(logits(folder, "bert", many)[:, 0])
    for count in (1, 7, 120):
        np.testing.assert_allclose(scorer.predict(many[:count]), expected[:count], atol=TOLERANCE, rtol=0)
    assert scorer.predict([]).shape == (0,)


def test_the_longer_text_of_a_pair_is_cut(folder: Path) -> None:
    scorer = CrossEncoder(folder, max_length=9)
    assert scorer.max_length == 9
    long = "the movie about space and time"
    np.testing.assert_array_equal(
        scorer.predict([("snow bread", long)]), scorer.predict([("snow bread", "the movie about space")])
    )
    with pytest.raises(InvalidInput, match="above the 3 special tokens"):
        CrossEncoder(folder, max_length=4)


def test_documents_are_ranked_best_first_and_ties_keep_their_order(folder: Path) -> None:
    scorer = CrossEncoder(folder)
    documents = ["bread", "snow", "a man is eating food .", "bread", "space and time"]
    scores = scorer.predict([("snow", document) for document in documents])
    order, found = scorer.rank("snow", documents)
    np.testing.assert_array_equal(found, scores[order])
    assert order.tolist() == sorted(range(5), key=lambda place: -scores[place])
    assert order.tolist().index(0) + 1 == order.tolist().index(3)
    few, _ = scorer.rank("snow", documents, top_k=2)
    np.testing.assert_array_equal(few, order[:2])


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ("ab", "got one string"),
        (["ab"], r"pairs\[0\] must be two strings"),
        ([("a", "b"), ("a",)], r"pairs\[1\] must be two strings"),
        ([("a", 3)], r"pairs\[0\] must be two strings"),
        ([("a", "b"), ("a", "\ud800")], r"the second texts\[1\] holds the lone surrogate"),
    ],
)
def test_bad_pairs_are_named(folder: Path, pairs: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        CrossEncoder(folder).predict(pairs)


def test_models_without_a_head_are_refused(tmp_path: Path, bert: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no classifier\.weight.*ForSequenceClassification"):
        CrossEncoder(bert)
    with pytest.raises(InvalidInput, match="'llama'"):
        CrossEncoder(write_gated_model(tmp_path, "llama"))
    with pytest.raises(InvalidInput, match="'softmax'"):
        CrossEncoder(bert, activation="softmax")  # type: ignore[arg-type]


def test_a_damaged_head_and_an_unknown_activation_are_named(tmp_path: Path) -> None:
    write_scorer(tmp_path, config={"sbert_ce_default_activation_function": "torch.nn.Softplus"})
    with pytest.raises(InvalidInput, match="Softplus"):
        CrossEncoder(tmp_path)
    parameters = load_file(tmp_path / "model.safetensors")
    del parameters["bert.pooler.dense.weight"]
    save_file(parameters, tmp_path / "model.safetensors")
    with pytest.raises(CorruptFile, match=r"bert\.pooler\.dense\.weight"):
        CrossEncoder(tmp_path, activation="identity")
