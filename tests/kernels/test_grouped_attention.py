"""Attention with shared keys and values, near each query only, on every instruction set against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest

from llmrec_fast.kernels.cpu.grouped_attention import attend_near
from llmrec_fast.kernels.cpu.intrinsics import InstructionSet
from llmrec_fast.kernels.cpu.tiles import tile_shape
from tests.kernels.instruction_sets import SETS

FAR = 1 << 30
LENGTHS = (1, 19, 2, 40, 5)


def expected(rows: np.ndarray, heads: int, shared: int, columns: int, behind: int, ahead: int) -> np.ndarray:
    rows = rows.astype(np.float64)
    distance = np.arange(len(rows))[None, :] - np.arange(len(rows))[:, None]
    seen = (distance >= -behind) & (distance <= ahead)
    outputs = []
    for head in range(heads):
        query, key, value = (
            rows[:, place * columns : (place + 1) * columns]
            for place in (head, heads + head * shared // heads, heads + shared + head * shared // heads)
        )
        scores = np.where(seen, query @ key.T, -np.inf)
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        outputs.append(powers / powers.sum(axis=1, keepdims=True) @ value)
    return np.concatenate(outputs, axis=1)


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize(("heads", "shared", "columns"), [(3, 3, 6), (6, 2, 16), (4, 1, 32)])
@pytest.mark.parametrize(("behind", "ahead"), [(FAR, FAR), (FAR, 0), (3, 3), (13, 13), (0, 0)])
def test_packed_texts_whatever_stands_beyond_them(
    isa: InstructionSet, heads: int, shared: int, columns: int, behind: int, ahead: int
) -> None:
    shape, tokens = tile_shape(isa), sum(LENGTHS)
    used = (heads + 2 * shared) * columns
    stride = used + 7
    projections = np.full((tokens + shape.rows + shape.lanes, stride), np.nan, np.float32)
    projections[:tokens, :used] = np.random.default_rng(columns).standard_normal((tokens, used))
    context = np.full((tokens, heads * columns), np.nan, np.float32)
    longest, wide = (-(-size // shape.lanes) * shape.lanes for size in (max(LENGTHS), columns))
    keys, values, scores = (
        np.full(size, np.nan, np.float32) for size in (wide * longest, longest * wide, shape.rows * (longest + wide))
    )
    starts = np.cumsum(LENGTHS) - LENGTHS
    # nothing is written beyond a text, so any order will do
    for start, length in reversed(list(zip(starts.tolist(), LENGTHS, strict=True))):
        attend_near(
            isa, projections.reshape(-1), stride, start, length, heads, shared, columns, behind, ahead,
            context, keys, values, scores, np.full(shape.rows, np.nan, np.float32),
        )  # fmt: skip
    for start, length in zip(starts, LENGTHS, strict=True):
        text = projections[start : start + length, :used]
        found = context[start : start + length]
        np.testing.assert_allclose(found, expected(text, heads, shared, columns, behind, ahead), rtol=1e-4, atol=1e-5)
