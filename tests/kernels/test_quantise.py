"""A row's bytes, scale and zero point, on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest

from llmrec_fast.kernels.cpu.intrinsics import instruction_set
from llmrec_fast.kernels.cpu.quantise import quantise_row
from llmrec_fast.kernels.cpu.tiles import tile_shape
from llmrec_fast.kernels.jit import jit
from tests.kernels.test_attention import SETS


@jit()
def quantise(isa, source, at, count, out, out_at, scales, zeros, row):  # type: ignore[no-untyped-def]
    quantise_row(isa, source, at, count, out, out_at, scales, zeros, row)


@pytest.mark.parametrize("chosen", SETS)
@pytest.mark.parametrize("count", [1, 7, 8, 16, 17, 100])
@pytest.mark.parametrize("kind", ["both signs", "above zero", "below zero", "next to nothing", "large"])
def test_bytes_are_within_half_a_step(monkeypatch: pytest.MonkeyPatch, chosen: str, count: int, kind: str) -> None:
    for name, value in SETS[chosen].items():
        monkeypatch.setenv(name, value)
    isa = instruction_set()
    lanes = tile_shape(isa).lanes
    rng = np.random.default_rng(count)
    source = np.full(3 + count + lanes, np.nan, np.float32)
    given = rng.standard_normal(count).astype(np.float32)
    given = {
        "both signs": given,
        "above zero": abs(given) + np.float32(3),
        "below zero": -abs(given) - np.float32(3),
        "next to nothing": given * np.float32(1e-35),
        "large": given * np.float32(1e6),
    }[kind]
    source[3 : 3 + count] = given
    out = np.full(2 + count + lanes, 99, np.uint8)
    scales, zeros = np.zeros(3, np.float32), np.zeros(3, np.int32)
    quantise(isa, source, 3, count, out, 2, scales, zeros, 1)
    assert out[:2].tolist() == [99, 99]
    assert (scales[[0, 2]].any(), zeros[[0, 2]].any()) == (False, False)
    assert 0 <= zeros[1] <= 255
    spread = np.ptp([*given, 0])
    assert scales[1] == pytest.approx(spread / 255 if spread / 255 > 1e-30 else 1, rel=1e-6)
    back = scales[1] * (out[2 : 2 + count].astype(np.float64) - zeros[1])
    # the zero point is rounded too, so the ends may be cut by half a step
    assert np.abs(back - given).max() <= 1.01 * scales[1]
    inside = (out[2 : 2 + count] > 0) & (out[2 : 2 + count] < 255)
    assert np.abs(back - given)[inside].max(initial=0) <= 0.501 * scales[1]
