"""The graph built from safetensors gives what the float64 oracle gives, for every architecture it accepts."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from llmrec_fast.encoding.architectures import read_architecture
from llmrec_fast.encoding.graph import build_graph
from llmrec_fast.encoding.graph_builder import Graph
from llmrec_fast.encoding.relative_positions import relative_buckets
from llmrec_fast.encoding.session import GraphSession
from llmrec_fast.encoding.weights import WeightFiles
from llmrec_fast.errors import CorruptFile, InvalidInput
from tests.encoding.reference_transformer import token_embeddings
from tests.encoding.tiny_models import (
    HIDDEN,
    KINDS,
    POSITIONS,
    model_config,
    random_parameters,
    special_tokens,
    vocabulary,
    write_model,
)

# float32 through two layers of values near 1: some hundreds of roundings of 6e-8 each
TOLERANCE = 2e-5
LENGTHS = np.array([2, POSITIONS, 7, 7], np.int32)


def graph_of(folder: Path, **config: object) -> Graph:
    kind = str(config.pop("kind", "bert"))
    with WeightFiles([folder / "model.safetensors"]) as weights:
        return build_graph(read_architecture(model_config(kind) | config, weights.names()), weights)


def random_ids(kind: str) -> np.ndarray:
    """Right-padded random ids; the begin token first, no special token after it."""
    ids = vocabulary(kind)
    pad, _, begin, _ = special_tokens(kind)
    result = np.random.default_rng(7).integers(4, len(ids), (len(LENGTHS), POSITIONS)).astype(np.int32)
    result[:, 0] = ids[begin]
    result[np.arange(POSITIONS) >= LENGTHS[:, None]] = ids[pad]
    return result


def assert_equals_oracle(session: GraphSession, config: dict, seed: int = 0, tolerance: float = TOLERANCE) -> None:
    ids = random_ids(config["model_type"])
    found = session.run(ids, LENGTHS)
    assert found.shape == (*ids.shape, HIDDEN)
    assert found.dtype == np.float32
    parameters = random_parameters(config, seed)
    for row, length in enumerate(LENGTHS):
        expected = token_embeddings(config, parameters, ids[row, :length].tolist())
        np.testing.assert_allclose(found[row, :length], expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_every_architecture_equals_the_oracle(tmp_path: Path, kind: str) -> None:
    graph = graph_of(write_model(tmp_path, kind), kind=kind)
    assert graph.max_length == POSITIONS
    assert_equals_oracle(GraphSession(graph, 1), model_config(kind))


@pytest.mark.parametrize("activation", ["gelu_new", "relu", "silu"])
def test_every_activation_equals_the_oracle(tmp_path: Path, activation: str) -> None:
    config = {"hidden_act": activation}
    graph = graph_of(write_model(tmp_path, config=config), **config)
    assert_equals_oracle(GraphSession(graph, 1), model_config("bert") | config)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_weights_are_widened_exactly(tmp_path: Path, dtype: type) -> None:
    assert_equals_oracle(GraphSession(graph_of(write_model(tmp_path, dtype=dtype)), 1), model_config("bert"))


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_padding_token_inside_a_text_is_counted_as_transformers_counts_it(tmp_path: Path, kind: str) -> None:
    session = GraphSession(graph_of(write_model(tmp_path, kind), kind=kind), 1)
    ids = random_ids(kind)[1:2]
    ids[0, 3] = vocabulary(kind)[special_tokens(kind)[0]]
    expected = token_embeddings(model_config(kind), random_parameters(model_config(kind), 0), ids[0].tolist())
    found = session.run(ids, LENGTHS[1:2])[0]
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)


def test_what_is_padding_changes_nothing(tmp_path: Path) -> None:
    session = GraphSession(graph_of(write_model(tmp_path)), 1)
    ids = random_ids("bert")
    other = np.where(np.arange(POSITIONS) < LENGTHS[:, None], ids, 5).astype(np.int32)
    first, second = session.run(ids, LENGTHS), session.run(other, LENGTHS)
    for row, length in enumerate(LENGTHS):
        np.testing.assert_array_equal(first[row, :length], second[row, :length])


def test_a_checkpoint_with_a_head_keeps_its_prefix(tmp_path: Path) -> None:
    assert_equals_oracle(GraphSession(graph_of(write_model(tmp_path, prefix="bert.")), 1), model_config("bert"))


def test_layer_norms_may_be_called_gamma_and_beta(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): array
        for name, array in random_parameters(model_config("bert"), 0).items()
    }
    save_file(renamed, tmp_path / "model.safetensors")
    assert_equals_oracle(GraphSession(graph_of(tmp_path), 1), model_config("bert"))


def test_a_session_keeps_nothing_of_the_arrays_it_was_built_from(tmp_path: Path) -> None:
    graph = graph_of(write_model(tmp_path))
    session = GraphSession(graph, 1)
    before = session.run(random_ids("bert"), LENGTHS)
    for array in graph.parameters.values():
        array.setflags(write=True)
        array.fill(np.nan)
    np.testing.assert_array_equal(session.run(random_ids("bert"), LENGTHS), before)


def test_the_number_of_threads_does_not_change_the_result(tmp_path: Path) -> None:
    graph = graph_of(write_model(tmp_path))
    one, three = (GraphSession(graph, threads).run(random_ids("bert"), LENGTHS) for threads in (1, 3))
    for row, length in enumerate(LENGTHS):
        np.testing.assert_allclose(one[row, :length], three[row, :length], atol=1e-6, rtol=0)


def test_relative_buckets_are_those_of_t5() -> None:
    found = relative_buckets(np.array([0, -1, -7, -8, -15, -16, -90, -500, 1, 7, 8, 20, 127, 500]), 32)
    assert found.tolist() == [0, 1, 7, 8, 9, 10, 14, 15, 17, 23, 24, 26, 31, 31]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "t5"}, "'t5' is not an architecture of the BERT family"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"is_decoder": True}, "decoder"),
        ({"hidden_act": "mish"}, "mish"),
        ({"num_hidden_layers": None}, "num_hidden_layers"),
        ({"num_attention_heads": 5}, "16 columns.*5"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(config: dict, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read_architecture(model_config("bert") | config, ["embeddings.word_embeddings.weight"])


def test_weights_of_something_else_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"embeddings\.word_embeddings\.weight"):
        read_architecture(model_config("bert"), ["shared.weight"])


def test_a_parameter_that_does_not_fit_the_configuration_is_named(tmp_path: Path) -> None:
    write_model(tmp_path)
    with pytest.raises(
        CorruptFile, match=r"model\.safetensors: encoder\.layer\.0\.intermediate\.dense\.weight has shape"
    ):
        graph_of(tmp_path, intermediate_size=41)
    with pytest.raises(CorruptFile, match=r"no parameter encoder\.layer\.2\."):
        graph_of(tmp_path, num_hidden_layers=3)
