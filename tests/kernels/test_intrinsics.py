"""Each vector operation equals its NumPy meaning, by the processor's instruction and by the portable form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llmrec_fast.kernels.cpu import intrinsics as vector
from llmrec_fast.kernels.cpu import row_vectors
from llmrec_fast.kernels.cpu.intrinsics import AVX2, PORTABLE, VNNI, InstructionSet, instruction_set
from llmrec_fast.kernels.jit import jit
from tests.kernels.instruction_sets import SETS

GENERATOR = np.random.default_rng(0)


@jit(inline=True)
def _sum(lanes: Any) -> int:
    """The sum of 8 int32."""
    out = np.empty(8, np.float32)
    vector.store_floats8(out, 0, vector.ints8_to_floats8(lanes))
    total = 0
    for value in out:
        total += np.int64(value)
    return total


@jit()
def _integer_operations(isa: Any, unsigned: Any, signed: Any, shorts: Any, out: Any, sums: Any) -> None:
    """Everything the integer kernels use, into `out` as int32 lanes."""
    packed, query = vector.load_bytes32(unsigned, 0), vector.load_bytes32(signed, 0)
    start, zero = vector.zero_products(isa, packed), vector.zero_ints8()
    low = vector.add_products(isa, start, vector.low_nibbles(packed), query)
    sums[0] = _sum(vector.widen_products(isa, zero, low))
    wide = vector.widen_bytes16(vector.load_bytes16(signed, 16))
    sums[1] = _sum(vector.multiply_pairs_s16(isa, wide, vector.load_shorts16(shorts, 0)))
    both = vector.add_products(isa, low, vector.high_nibbles(packed), query)
    lanes = vector.widen_products(isa, vector.splat_ints8(np.int32(7)), both)
    sums[2] = _sum(lanes)
    vector.store_floats8(out, 0, vector.ints8_to_floats8(lanes))


@pytest.mark.parametrize("isa", SETS, ids=str)
@pytest.mark.parametrize("extreme", [False, True])
def test_integer_products(isa: InstructionSet, extreme: bool) -> None:
    unsigned = GENERATOR.integers(0, 256, 32).astype(np.uint8)
    signed = GENERATOR.integers(-127, 128, 32).astype(np.int8)
    shorts = GENERATOR.integers(-4095, 4096, 16).astype(np.int16)
    if extreme:
        unsigned[:8], signed[:4], signed[4:8] = 255, 127, -127
    out, sums = np.zeros(8, np.float32), np.zeros(3, np.int32)
    _integer_operations(isa, unsigned, signed, shorts, out, sums)
    assert sums[0] == ((unsigned & 15).astype(np.int64) * signed).sum()
    assert sums[1] == (signed[16:].astype(np.int64) * shorts).sum()
    products = ((unsigned & 15).astype(np.int64) + (unsigned >> 4)) * signed
    np.testing.assert_array_equal(out, 7 + products.reshape(8, 4).sum(axis=1))
    assert sums[2] == 8 * 7 + products.sum()


@jit()
def _chained_products(isa: Any, packed: Any, queries: Any, length: int) -> int:
    """`length` additions of nibble products before they are widened."""
    low = vector.low_nibbles(vector.load_bytes32(packed, 0))
    total = vector.zero_products(isa, low)
    for _ in range(length):
        total = vector.add_products(isa, total, low, vector.load_bytes32(queries, 0))
    return _sum(vector.widen_products(isa, vector.zero_ints8(), total))


@pytest.mark.parametrize("isa", SETS, ids=str)
@pytest.mark.parametrize("sign", [1, -1])
def test_eight_products_of_nibbles_have_room_and_nine_do_not(isa: InstructionSet, sign: int) -> None:
    packed, queries = np.full(32, 15, np.uint8), np.full(32, sign * 127, np.int8)
    assert _chained_products(isa, packed, queries, 8) == sign * 8 * 32 * 15 * 127
    # int32, where an instruction adds to it, has room for more than the kernels rely on
    assert (_chained_products(isa, packed, queries, 9) == sign * 9 * 32 * 15 * 127) == (isa is VNNI)


@jit()
def _scan_operations(isa: Any, packed: Any, signed: Any, out: Any) -> int:
    """Products as the scan makes them, into 8 lanes."""
    codes, query = vector.load_scan_bytes(isa, packed, 0), vector.load_scan_bytes(isa, signed, 0)
    sums = vector.add_products(isa, vector.zero_products(isa, codes), vector.low_nibbles(codes), query)
    sums = vector.add_products(isa, sums, vector.high_nibbles(codes), vector.load_scan_bytes(isa, signed, 64))
    lanes = vector.widen_products(isa, vector.splat_ints8(np.int32(-3)), sums)
    vector.store_floats8(out, 0, vector.ints8_to_floats8(lanes))
    return vector.scan_width(isa)


@pytest.mark.parametrize("isa", SETS, ids=str)
def test_scan_products(isa: InstructionSet) -> None:
    packed = GENERATOR.integers(0, 256, 64).astype(np.uint8)
    signed = GENERATOR.integers(-127, 128, 128).astype(np.int8)
    out, width = np.zeros(8, np.float32), vector.scan_bytes(isa)
    assert _scan_operations(isa, packed, signed, out) == width
    products = (packed & 15).astype(np.int64) * signed[:64] + (packed >> 4).astype(np.int64) * signed[64:]
    np.testing.assert_array_equal(out, products[:width].reshape(-1, 8, 4).sum(axis=(0, 2)) - 3)


@jit()
def _float_operations(
    isa: Any, floats: Any, doubles: Any, halves: Any, bits: Any, out: Any, bounds: Any, sums: Any
) -> None:
    a, b, c = vector.load_floats8(floats, 0), vector.load_floats8(floats, 32), vector.load_floats8(floats, 64)
    vector.store_floats8(out, 0, vector.multiply_add_floats8(isa, a, b, c))
    vector.store_floats8(out, 32, vector.maximum_floats8(isa, a, b))
    vector.store_floats8(out, 64, vector.penalty_floats8(bits[0]))
    vector.store_floats8(out, 96, vector.load_bfloats8(halves, 0))
    vector.store_floats8(out, 128, vector.load_splat_floats8(floats, 12))
    vector.store_bounds8(isa, bounds, 0, vector.load_floats8(floats, 96))
    wide = vector.floats8_to_doubles8(a)
    product = vector.multiply_doubles8(wide, vector.load_doubles8(doubles, 0))
    sums[0] = vector.sum_doubles8(vector.add_doubles8(product, vector.subtract_doubles8(wide, wide)))


@pytest.mark.parametrize("isa", SETS, ids=str)
def test_float_operations(isa: InstructionSet) -> None:
    floats = GENERATOR.standard_normal(32).astype(np.float32)
    floats[24:] = [0.5, -0.5, -7.9, 32766.5, 1e30, -1e30, np.inf, -np.inf]
    doubles, halves = GENERATOR.standard_normal(8), (floats[:8].view(np.uint32) >> 16).astype(np.uint16)
    out, bounds, sums = np.zeros(40, np.float32), np.zeros(8, np.int16), np.zeros(1)
    _float_operations(isa, floats, doubles, halves, np.array([0b10110001], np.uint8), out, bounds, sums)
    a, b, c = floats[:8], floats[8:16], floats[16:24]
    np.testing.assert_allclose(out[:8], a.astype(np.float64) * b + c, rtol=1e-6)
    np.testing.assert_array_equal(out[8:16], np.maximum(a, b))
    np.testing.assert_array_equal(out[16:24], np.where([1, 0, 0, 0, 1, 1, 0, 1], 0, -np.inf))
    np.testing.assert_array_equal(out[24:32], (halves.astype(np.uint32) << 16).view(np.float32))
    np.testing.assert_array_equal(out[32:], floats[3])
    assert bounds.tolist() == [0, 0, -7, 32766, 32767, -32768, 32767, -32768]
    terms = a * doubles
    halves4 = terms[:4] + terms[4:]
    assert sums[0] == (halves4[0] + halves4[2]) + (halves4[1] + halves4[3])


@jit()
def _masks(shorts: Any, threshold: int) -> tuple[int, int]:
    mask = vector.at_least_shorts16(vector.load_shorts16(shorts, 0), vector.splat_shorts16(np.int16(threshold)))
    return mask, vector.trailing_zeros(mask)


def test_masks_name_the_lanes_that_reach_the_threshold() -> None:
    shorts = np.full(16, -5, np.int16)
    shorts[[3, 7, 15]] = [4, 100, 5]
    assert _masks(shorts, 4) == ((1 << 3) | (1 << 7) | (1 << 15), 3)
    assert _masks(shorts, 5) == ((1 << 7) | (1 << 15), 7)


def test_the_switch_chooses_the_portable_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMREC_PORTABLE", "1")
    assert instruction_set() is PORTABLE
    monkeypatch.setenv("LLMREC_PORTABLE", "0")
    assert instruction_set() is SETS[0]
    monkeypatch.setenv("LLMREC_AVX2", "1")
    assert instruction_set() is (AVX2 if vector._host_has_avx2() else PORTABLE)


@jit()
def _row_operations(floats: Any, shorts: Any, rows: Any, stride: int, ints: Any, columns: Any, bits: Any) -> None:
    """Everything that works on eight rows that lie apart."""
    vectors = row_vectors.load_columns4(floats, rows, 1, stride, 8)
    vector.store_floats8(columns, 0, vectors[0])
    vector.store_floats8(columns, 32, vectors[1])
    vector.store_floats8(columns, 64, vectors[2])
    vector.store_floats8(columns, 96, vectors[3])
    ones = vector.splat_shorts16(np.int16(1))
    isa = np.uint16(0)
    s0 = vector.multiply_pairs_s16(isa, vector.load_shorts16(shorts, 0), ones)
    s1 = vector.multiply_pairs_s16(isa, vector.load_shorts16(shorts, 32), ones)
    s2 = vector.multiply_pairs_s16(isa, vector.load_shorts16(shorts, 64), ones)
    s3 = vector.multiply_pairs_s16(isa, vector.load_shorts16(shorts, 96), ones)
    s4 = vector.multiply_pairs_s16(isa, vector.load_shorts16(shorts, 128), ones)
    s5 = vector.multiply_pairs_s16(isa, vector.load_shorts16(shorts, 160), ones)
    s6 = vector.multiply_pairs_s16(isa, vector.load_shorts16(shorts, 192), ones)
    s7 = vector.multiply_pairs_s16(isa, vector.load_shorts16(shorts, 224), ones)
    sums = row_vectors.sums_of_ints8(s0, s1, s2, s3, s4, s5, s6, s7)
    vector.store_floats8(ints, 0, vector.ints8_to_floats8(sums))
    near = row_vectors.load_short_floats8(shorts, 2)
    vector.store_floats8(ints, 32, near)
    bits[0] = row_vectors.at_least_floats8(near, vector.splat_floats8(np.float32(shorts[3])))
    bits[1] = row_vectors.count_bits(bits[0])
    far = vector.load_shorts16(shorts, 64)
    larger = row_vectors.maximum_shorts16(vector.load_shorts16(shorts, 2), far)
    bits[2] = vector.at_least_shorts16(larger, far)
    bits[3] = vector.at_least_shorts16(larger, vector.splat_shorts16(shorts[3]))
    vector.store_floats8(ints, 64, row_vectors.add_floats8(near, near))


def test_operations_on_rows_that_lie_apart() -> None:
    stride = 12
    floats = GENERATOR.standard_normal((40, stride), dtype=np.float32)
    shorts = GENERATOR.integers(-3000, 3000, 128).astype(np.int16)
    rows = GENERATOR.integers(0, 40, 9).astype(np.int32)
    ints, columns, bits = np.zeros(24, np.float32), np.zeros((4, 8), np.float32), np.zeros(4, np.int32)
    _row_operations(floats.ravel(), shorts, rows, stride * 4, ints, columns, bits)
    np.testing.assert_array_equal(columns, floats[rows[1:], 2:6].T)
    np.testing.assert_array_equal(ints[:8], shorts.reshape(8, 16).sum(axis=1, dtype=np.int64))
    np.testing.assert_array_equal(ints[8:16], shorts[1:9])
    np.testing.assert_array_equal(ints[16:], 2 * shorts[1:9])
    reached = shorts[1:9] >= shorts[3]
    assert bits[:2].tolist() == [np.packbits(reached, bitorder="little")[0], reached.sum()]
    larger = np.maximum(shorts[1:17], shorts[32:48]) >= shorts[3]
    assert bits[2:].tolist() == [0xFFFF, np.packbits(larger, bitorder="little").view(np.uint16)[0]]


@jit()
def _places(array: Any, at: int, byte: int, base: int) -> None:
    row_vectors.store_places8(array, at * 4, row_vectors.PLACES, np.int32(byte), np.int32(base))


def test_places_of_set_bits() -> None:
    for byte in range(256):
        out = np.full(12, -7, np.int32)
        _places(out, 2, byte, 1000)
        right = [1000 + bit for bit in range(8) if byte >> bit & 1]
        assert out[2 : 2 + len(right)].tolist() == right
        assert (out[:2] == -7).all()
        assert (out[10:] == -7).all()
