"""Rotations are orthogonal, flat and undone by the matrices that follow; outliers cost a rotated decoder less in int8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from llmrec_fast.encoding.decoder import read_decoder
from llmrec_fast.encoding.gated_parameters import DecoderParameters
from llmrec_fast.encoding.packed_gated import PackedGatedModel
from llmrec_fast.encoding.rotations import block_of, spread, spread_back, spread_blocks, unspread_blocks
from llmrec_fast.encoding.spread_parameters import SpreadParameters
from llmrec_fast.encoding.weights import WeightFiles
from tests.encoding.gated_models import POSITIONS, gated_config, gated_embeddings, gated_parameters

SIZES = [1, 9, 16, 48, 64, 576, 1024]


@pytest.mark.parametrize("columns", SIZES)
def test_spread_is_orthogonal_and_flat(columns: int) -> None:
    matrix = spread(np.eye(columns, dtype=np.float32)).astype(np.float64)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(columns), atol=1e-5)
    assert np.abs(matrix).max() <= np.sqrt(2 / columns) + 1e-6


@pytest.mark.parametrize("columns", SIZES)
def test_what_follows_undoes_the_rotation(columns: int) -> None:
    rng = np.random.default_rng(columns)
    rows, matrix = rng.standard_normal((2, 3, columns)).astype(np.float32), rng.standard_normal((columns, 5))
    matrix = matrix.astype(np.float32)
    block = block_of(columns)
    tolerance = 1e-5 * columns
    np.testing.assert_allclose(spread(rows) @ spread_back(matrix), rows @ matrix, atol=tolerance)
    found = spread_blocks(rows, block) @ unspread_blocks(matrix, block)
    np.testing.assert_allclose(found, rows @ matrix, atol=tolerance)


def test_blocks_mix_every_eighth_column_of_themselves() -> None:
    assert [block_of(columns) for columns in (20, 8, 48, 1536)] == [0, 0, 16, 512]
    row = np.zeros(48, np.float32)
    row[17] = 1
    np.testing.assert_array_equal(np.flatnonzero(spread_blocks(row, 16)), [17, 25])


def test_outliers_cost_a_rotated_model_less(tmp_path: Path) -> None:
    config = gated_config("llama") | {"intermediate_size": 64}
    arrays = gated_parameters(config)
    arrays["embed_tokens.weight"][:, 5] *= 60  # one column far beyond all others, as language models have
    save_file(arrays, tmp_path / "model.safetensors")
    ids = np.random.default_rng(2).integers(4, config["vocab_size"], POSITIONS).astype(np.int32)
    exact = gated_embeddings(config, arrays, ids)
    losses = []
    with WeightFiles([tmp_path / "model.safetensors"]) as weights:
        plain = DecoderParameters(read_decoder(config, weights.names()), weights)
        for parameters in (plain, SpreadParameters(plain)):
            found = PackedGatedModel(parameters, quantise=True).run(ids[None], np.array([POSITIONS], np.int32))[0]
            cosines = (found * exact).sum(axis=1) / np.linalg.norm(found, axis=1) / np.linalg.norm(exact, axis=1)
            losses.append(1 - cosines.mean())
    assert losses[1] < losses[0] / 2
