"""The registers' softmax and moves, on every instruction set, and attention over them against NumPy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llmrec_fast.kernels.cpu.attention import attend, attention_sizes
from llmrec_fast.kernels.cpu.intrinsics import instruction_set
from llmrec_fast.kernels.cpu.softmax import copy_register, raise_tile, transpose_block
from llmrec_fast.kernels.cpu.tiles import tile_shape
from llmrec_fast.kernels.jit import jit

SETS = {"best": {}, "avx2": {"LLMREC_AVX2": "1"}, "portable": {"LLMREC_PORTABLE": "1"}}


@jit()
def soften(isa, scores, at, stride, length, factors):  # type: ignore[no-untyped-def]
    raise_tile(isa, scores, at, stride, length, factors)


@jit()
def transpose(isa, source, at, stride, out, out_at, out_stride):  # type: ignore[no-untyped-def]
    transpose_block(isa, source, at, stride, out, out_at, out_stride)


@jit()
def copy(isa, source, at, out, out_at):  # type: ignore[no-untyped-def]
    copy_register(isa, source, at, out, out_at)


@pytest.fixture(params=SETS)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in SETS[request.param].items():
        monkeypatch.setenv(name, value)
    return instruction_set()


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores.astype(np.float64) - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("length", [1, 7, 8, 9, 16, 17, 300])
def test_softmax_of_a_tile(isa: Any, length: int) -> None:
    shape = tile_shape(isa)
    stride, at = -(-length // shape.lanes) * shape.lanes + 3, 5
    rng = np.random.default_rng(length)
    scores = np.full(at + shape.rows * stride, np.nan, np.float32)
    rows = scores[at:].reshape(shape.rows, stride)
    rows[:, :length] = rng.standard_normal((shape.rows, length)) * np.array([1e-3, 1, 10, 40, 1e4, 1])[:, None]
    rows[5, :length] = 7
    expected = softmax(rows[:, :length])
    factors = np.full(shape.rows, np.nan, np.float32)
    soften(isa, scores, at, stride, length, factors)
    np.testing.assert_allclose(rows[:, :length] * factors[:, None], expected, rtol=1e-5, atol=1e-7)
    padded = -(-length // shape.lanes) * shape.lanes
    assert np.isnan(rows[:, padded:]).all()
    assert np.isnan(scores[:at]).all()


def test_powers_are_as_close_as_float32_tells_their_exponents(isa: Any) -> None:
    shape, count = tile_shape(isa), 4096
    scores = np.tile(np.linspace(-80, 0, count, dtype=np.float32), (shape.rows, 1))
    exponents = scores[0].astype(np.float64)
    soften(isa, scores.reshape(-1), 0, count, count, np.zeros(shape.rows, np.float32))
    error = np.abs(scores / np.exp(exponents) - 1)
    assert (error <= (4 + 1.3 * np.abs(exponents)) * 2.0**-24).all()


def test_copy_of_a_register(isa: Any) -> None:
    lanes = tile_shape(isa).lanes
    source, out = np.arange(lanes + 3, dtype=np.float32), np.full(lanes + 2, -1, np.float32)
    copy(isa, source, 3, out, 1)
    np.testing.assert_array_equal(out, [-1, *source[3:], -1])


def test_transpose_of_a_block(isa: Any) -> None:
    lanes = tile_shape(isa).lanes
    source = np.random.default_rng(0).standard_normal((lanes, lanes + 5), dtype=np.float32)
    out = np.zeros((lanes, lanes + 2), np.float32)
    transpose(isa, source, 3, lanes + 5, out, 1, lanes + 2)
    np.testing.assert_array_equal(out[:, 1 : lanes + 1], source[:, 3 : lanes + 3].T)
    assert not out[:, 0].any()


@pytest.mark.parametrize("columns", [3, 16, 24, 32])
@pytest.mark.parametrize("with_distances", [False, True])
def test_attention_of_packed_texts_whatever_stands_beyond_them(isa: Any, columns: int, with_distances: bool) -> None:
    heads, lengths = 3, (1, 19, 2, 40, 5)
    shape, hidden, tokens = tile_shape(isa), heads * columns, sum(lengths)
    rng = np.random.default_rng(columns)
    stride = 3 * hidden + 7
    projections = np.full((tokens + shape.rows + shape.lanes, stride), np.nan, np.float32)
    projections[:tokens] = rng.standard_normal((tokens, stride))
    distances = rng.standard_normal((heads, 2 * 64 - 1)).astype(np.float32) if with_distances else None
    context = np.zeros((tokens + shape.rows, hidden), np.float32)
    sizes = (*attention_sizes(shape, max(lengths), columns), shape.rows)
    keys, values, scores, factors = (np.full(size, np.nan, np.float32) for size in sizes)
    start = 0
    for length in lengths:
        flat = projections.reshape(-1)
        attend(isa, flat, stride, start, length, heads, hidden, distances, context, keys, values, scores, factors)
        start += length
    start = 0
    for length in lengths:
        rows = projections[start : start + length].astype(np.float64)
        for head in range(heads):
            query, key, value = (
                rows[:, place + head * columns : place + (head + 1) * columns] for place in (0, hidden, 2 * hidden)
            )
            logits = query @ key.T
            if distances is not None:
                places = np.arange(length)
                logits += distances[head, 63 + places[None, :] - places[:, None]]
            found = context[start : start + length, head * columns : (head + 1) * columns]
            np.testing.assert_allclose(found, softmax(logits) @ value, rtol=1e-4, atol=1e-5)
        start += length
