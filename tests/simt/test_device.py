"""The stand-in's own intrinsics (tests/simt/device.h) against what the CUDA programming guide says of them."""

from __future__ import annotations

import ctypes
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from tests.simt import build

LANES = np.arange(32)


@pytest.fixture(scope="module")
def library() -> Any:
    return ctypes.CDLL(str(build.build_library("plain", [build.STAND_IN / "intrinsics.cu"], "intrinsics")))


def call(function: Any, *arrays: np.ndarray) -> None:
    assert function(*(ctypes.c_void_p(array.ctypes.data) for array in arrays)) == 0


@pytest.mark.parametrize(("order", "seed"), [(0, 0), (1, 0), (2, 1)])
def test_warp_operations(library, order, seed):
    library.simt_set_order(order, ctypes.c_uint64(seed))
    out = np.zeros((17, 32), np.int32)
    call(library.run_shuffles, out)
    votes = sum(1 << lane for lane in range(0, 32, 3))
    same = [sum(1 << other for other in range(32) if other // 5 == lane // 5) for lane in range(32)]
    expected = [
        np.full(32, 105),
        100 + LANES // 8 * 8 + (LANES + 1) % 8,
        100 + np.where(LANES < 3, LANES, LANES - 3),
        100 + np.where(LANES > 28, LANES, LANES + 3),
        100 + np.where(LANES % 16 > 12, LANES, LANES + 3),
        100 + (LANES ^ 9),
        100 + (LANES ^ 1),
        np.full(32, np.uint32(votes).view(np.int32)),
        np.full(32, 1),
        np.full(32, 1),
        np.array(same, np.uint32).view(np.int32),
        np.full(32, 496),
        np.full(32, -31000),
        np.full(32, 255),
        np.full(32, 496),
        4 * (LANES // 4 * 4) + 6,
        100 + np.where(LANES < 16, LANES ^ 1, LANES ^ 2),
    ]
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_block_barriers_count_votes(library, order):
    library.simt_set_order(order, ctypes.c_uint64(3))
    out = np.zeros(96, np.int32)
    call(library.run_barriers, out)
    np.testing.assert_array_equal(out, 32 + 1000 + 4000)


def test_atomics(library):
    integers, wide = np.array([0, 0, 0, 0, 0, 0, 255, 0], np.int32), np.zeros(2, np.uint64)
    real, unsigneds = np.zeros(1, np.float32), np.zeros(1, np.uint32)
    call(library.run_atomics, integers, wide, real, unsigneds)
    np.testing.assert_array_equal(integers, [150 * 149 // 2, 149, -149, 7, 9, 255, 0, -150])
    np.testing.assert_array_equal(wide, [150 << 33, (1 << 40) + 149])
    assert real[0] == 75
    assert unsigneds[0] == 150 % 10


def neighbours(exact: Fraction, dtype: type) -> tuple[float, float]:
    """The largest number of this type below `exact` and the smallest above; both itself if it is one."""
    near = dtype(float(exact))
    if Fraction(float(near)) == exact:
        return float(near), float(near)
    if Fraction(float(near)) > exact:
        return float(np.nextafter(near, dtype(-np.inf))), float(near)
    return float(near), float(np.nextafter(near, dtype(np.inf)))


def test_directed_rounding(library):
    a, b = np.array([1, 1 / 3, 2], np.float32), np.array([1e-9, 1 / 7, 0], np.float32)
    c = np.array([0.1, 1.0, 1e-20])
    out, wide = np.zeros(13, np.float32), np.zeros(3)
    call(library.run_arithmetic, a, b, c, out, wide)
    x, y = [Fraction(float(v)) for v in a], [Fraction(float(v)) for v in b]
    low, high = neighbours(x[0] + y[0], np.float32)
    assert (out[0], out[1], out[2]) == (high, low, np.float32(1))
    assert (out[11], out[12]) == (high, low)
    low, high = neighbours(x[1] * y[1], np.float32)
    assert (out[3], out[4]) == (high, low)
    low, high = neighbours(x[1] * y[1] + x[0], np.float32)
    assert (out[5], out[6]) == (high, low)
    low, high = neighbours(Fraction(0.1), np.float32)
    assert (out[7], out[8]) == (high, low)
    assert Fraction(float(out[10])) ** 2 < 2 < Fraction(float(out[9])) ** 2
    assert np.nextafter(out[10], np.float32(2)) == out[9]
    assert tuple(wide[:2]) == (np.nextafter(1.0, 2), 1.0)
    assert wide[2] == neighbours(Fraction(0.1) ** 2, np.float64)[1]


def test_bits(library):
    given = np.array([0x84332281, 0x12F45678, 0x00010000, 0x00000100], np.uint32)
    out = np.zeros(11, np.uint32)
    call(library.run_bits, given, out)
    low, high = (int(value) for value in given[:2])
    both = (high << 32 | low).to_bytes(8, "little")

    def signed(value: int) -> np.ndarray:
        return np.frombuffer(value.to_bytes(4, "little"), np.int8).astype(int)

    unsigned = [np.frombuffer(value.to_bytes(4, "little"), np.uint8).astype(int) for value in (low, high)]
    expected = [
        both[7] << 24 | both[5] << 16 | both[3] << 8 | both[1],
        0xFF_00_FF_81,  # the signs of bytes 0, 1 and 3, then byte 0
        int(f"{low:032b}"[::-1], 2),
        low.bit_count() + 100 * 15 + 10000 * 9,
        low * high >> 32,
        (high << 32 | low) << 8 >> 32 & 0xFFFFFFFF,
        (high << 32 | low) >> 8 & 0xFFFFFFFF,
        (int(signed(low) @ signed(high)) + 5) & 0xFFFFFFFF,
        int(unsigned[0] @ unsigned[1]) + 5,
        low,
        64 + 100 * 63 + 10000 * 3,
    ]
    assert [hex(value) for value in out] == [hex(value) for value in expected]
