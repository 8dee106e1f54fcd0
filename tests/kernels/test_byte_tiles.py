"""Tiles of bytes are exact in int32, whatever the instructions and however their sums are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba import njit

from llmrec_fast.kernels.cpu import byte_tiles
from llmrec_fast.kernels.cpu.intrinsics import AVX2
from llmrec_fast.kernels.cpu.tiles import tile_shape
from llmrec_fast.kernels.cpu.transformer import pack_weights
from tests.kernels.instruction_sets import SETS

# quads below, at and above the terms that 16 bits can hold
DEPTHS = (4, 384, 1020, 1024, 2040, 3072)


def compiled() -> Any:
    """Not cached: how a tile sums is chosen while it is compiled."""

    def multiply(isa, left, scales, zeros, right, quads, column_scales, column_sums, bias, out):
        byte_tiles.multiply_bytes_tile(
            isa, left, 0, left.shape[1], scales, zeros, 0, right, 0, quads,
            column_scales, column_sums, bias, 0, out, 0, out.shape[1],
        )  # fmt: skip

    return njit(multiply)


def product(multiply: Any, isa: Any, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    (rows, depth), columns = left.shape, right.shape[1]
    out = np.zeros((rows, columns), np.float32)
    packed = pack_weights(right, tile_shape(isa)).reshape(-1)
    ones, zeros = np.ones(64, np.float32), np.zeros(64, np.int32)
    multiply(isa, left, ones, zeros, packed, depth // 4, ones, zeros, np.zeros(64, np.float32), out)
    return out


@pytest.mark.parametrize(
    ("isa", "one_multiplier"), [*((isa, False) for isa in SETS), *((isa, True) for isa in SETS if isa is AVX2)]
)
def test_sums_are_exact(isa: Any, one_multiplier: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_tiles, "_one_multiplier", lambda: one_multiplier)
    multiply, shape, rng = compiled(), tile_shape(isa), np.random.default_rng(0)
    limit = shape.weight_limit
    for depth in DEPTHS:
        size = (depth, shape.byte_panel)
        left = rng.integers(0, 256, (shape.rows, depth)).astype(np.uint8)
        right = rng.integers(-limit, limit + 1, size).astype(np.int8)
        cases = [(left, right)]
        # as far as sums can go either way, and the halves of one that runs against the other
        cases += [(np.full_like(left, 255), np.full(size, sign * limit, np.int8)) for sign in (1, -1)]
        cases += [(np.full_like(left, 1), np.full(size, sign, np.int8)) for sign in (1, -1)]
        for a, b in cases:
            expected = a.astype(np.int64) @ b.astype(np.int64)
            assert np.abs(expected).max() < 2**31
            np.testing.assert_array_equal(product(multiply, isa, a, b), expected.astype(np.float32))
