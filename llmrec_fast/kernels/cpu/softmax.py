"""Blocks of attention in registers: the powers of a tile of scores, and the moves that bring a head's keys and values in place.

Numba's own loops over rows of a few dozen scores cost three times as much: they end in scalar remainders, and every row is an
array whose references are counted. Like the tiles of `tiles.py`, all take the form of an instruction set, and offsets count
elements that nothing checks.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from llmrec_fast.kernels.cpu.tiles import Emitter, shape_of

_I32, _F32 = ir.IntType(32), ir.FloatType()
_LOWEST = -1e30
_LOG2_E = 1.44269504
# 2^r for |r| <= 1/2, ascending: least largest relative error (7.5e-8)
_COEFFICIENTS = (1.0000001, 0.69314694, 0.2402212, 0.05550713, 0.00967554, 0.00132765)
# below it, 2^x is no number that float32 holds in full
_LEAST_EXPONENT = -125.0
# added to a number and taken away again, it leaves the nearest integer; the sum's lowest bits are that integer
_ROUNDER = 1.5 * 2.0**23


@intrinsic
def raise_tile(
    typing_context: Any, isa: Any, scores: Any, scores_at: Any, stride: Any, length: Any, factors: Any
) -> Any:
    """The softmax of each row of a tile over its first `length` columns, but for the division.

    `scores` becomes exp(x - max), and factors[row] one over the sum of its row. A row's result depends on the row alone. What
    stands beyond `length` may be anything, even NaN, and is overwritten up to a whole register.
    """
    shape = shape_of(isa)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        emit, kinds = Emitter(context, builder), signature.args
        row_bytes = builder.mul(values[3], emit.index(4))
        rows = [
            emit.at(emit.data(kinds[1], values[1], values[2]), builder.mul(row_bytes, emit.index(r)))
            for r in range(shape.rows)
        ]
        vector = ir.VectorType(_F32, shape.lanes)
        lowest, zero = emit.constant(_LOWEST, shape.lanes), emit.constant(0.0, shape.lanes)
        blocks = builder.sdiv(builder.add(values[4], emit.index(shape.lanes - 1)), emit.index(shape.lanes))

        def places(k: Any) -> list[Any]:
            """Where each row's registers of block `k` lie."""
            offset = builder.mul(k, emit.index(4 * shape.lanes))
            return [emit.at(row, offset) for row in rows]

        last = builder.sub(blocks, emit.index(1))
        inside = emit.first_columns(last, emit.splat(builder.trunc(values[4], _I32), shape.lanes), shape.lanes)
        for place in places(last):
            emit.store(builder.select(inside, emit.load(place, vector, 4), lowest), place, 4)

        def highest(k: Any, tops: list[Any]) -> list[Any]:
            return [emit.larger(emit.load(place, vector, 4), top) for place, top in zip(places(k), tops, strict=True)]

        tops = emit.loop(blocks, [lowest] * shape.rows, highest)
        tops = [emit.folded(top, emit.larger) for top in tops]
        below = [builder.fmul(top, emit.constant(-_LOG2_E, shape.lanes)) for top in tops]

        def raise_e(k: Any, totals: list[Any]) -> list[Any]:
            powers = _exponentials(emit, [emit.load(place, vector, 4) for place in places(k)], below, shape.lanes)
            for place, power in zip(places(k), powers, strict=True):
                emit.store(power, place, 4)
            return [builder.fadd(total, power) for total, power in zip(totals, powers, strict=True)]

        totals = emit.loop(blocks, [zero] * shape.rows, raise_e)
        first = emit.data(kinds[5], values[5], emit.index(0))
        for r, total in enumerate(totals):
            row_sum = builder.extract_element(emit.folded(total, builder.fadd), ir.Constant(_I32, 0))
            emit.store(builder.fdiv(ir.Constant(_F32, 1.0), row_sum), emit.at(first, emit.index(4 * r)), 4)
        return context.get_dummy_value()

    return types.void(isa, scores, types.intp, types.intp, types.intp, factors), generate


@intrinsic
def copy_register(typing_context: Any, isa: Any, source: Any, source_at: Any, out: Any, out_at: Any) -> Any:
    """out[c] = source[c], float32, for as many columns as a register has lanes."""
    vector = ir.VectorType(_F32, shape_of(isa).lanes)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        emit, kinds = Emitter(context, builder), signature.args
        value = emit.load(emit.data(kinds[1], values[1], values[2]), vector, 4)
        emit.store(value, emit.data(kinds[3], values[3], values[4]), 4)
        return context.get_dummy_value()

    return types.void(isa, source, types.intp, out, types.intp), generate


@intrinsic
def transpose_block(
    typing_context: Any,
    isa: Any,
    source: Any,
    source_at: Any,
    source_stride: Any,
    out: Any,
    out_at: Any,
    out_stride: Any,
) -> Any:
    """out[c, r] = source[r, c], float32, for as many rows and columns as a register has lanes."""
    lanes = shape_of(isa).lanes

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        emit, kinds = Emitter(context, builder), signature.args
        a, a_stride = emit.data(kinds[1], values[1], values[2]), builder.mul(values[3], emit.index(4))
        c, c_stride = emit.data(kinds[4], values[4], values[5]), builder.mul(values[6], emit.index(4))
        vector = ir.VectorType(_F32, lanes)
        rows = [emit.load(emit.at(a, builder.mul(a_stride, emit.index(r))), vector, 4) for r in range(lanes)]
        # each step swaps one bit of the row's number with the same bit of the column's
        step = 1
        while step < lanes:
            low = [j if not j & step else lanes + (j ^ step) for j in range(lanes)]
            high = [(j | step) if not j & step else lanes + j for j in range(lanes)]
            swapped = list(rows)
            for r in range(lanes):
                if not r & step:
                    for place, mask in ((r, low), (r | step, high)):
                        order = ir.Constant(ir.VectorType(_I32, lanes), mask)
                        swapped[place] = builder.shuffle_vector(rows[r], rows[r | step], order)
            rows, step = swapped, 2 * step
        for r in range(lanes):
            emit.store(rows[r], emit.at(c, builder.mul(c_stride, emit.index(r))), 4)
        return context.get_dummy_value()

    place = types.intp
    return types.void(isa, source, place, place, out, place, place), generate


def _exponentials(emit: Emitter, xs: list[Any], below: list[Any], lanes: int) -> list[Any]:
    """exp(x + b / log2(e)) of vectors, for sums <= 0; 2^-125 where that is larger, and for NaN.

    The relative error is at most (4 + 1.3 |sum|) 2^-24: the second part is the exponent's own rounding, and weighs what the
    result is too small to show.

    Each step is emitted for all vectors before the next: a processor that looks only a few dozen instructions ahead would
    else wait for each vector's own last result.
    """
    builder, vector, integers = emit.builder, ir.VectorType(_F32, lanes), ir.VectorType(_I32, lanes)
    ones, by_one, by_two, by_three, by_four, by_five = (emit.constant(value, lanes) for value in _COEFFICIENTS)
    rounder, shift = emit.constant(_ROUNDER, lanes), ir.Constant(integers, [23] * lanes)

    def fused(a: list[Any], b: list[Any], c: list[Any]) -> list[Any]:
        name = f"llvm.fma.v{lanes}f32"
        return [emit.call(name, vector, *operands) for operands in zip(a, b, c, strict=True)]

    def same(constant: Any) -> list[Any]:
        return [constant] * len(xs)

    powers = [
        emit.larger(x, emit.constant(_LEAST_EXPONENT, lanes))
        for x in fused(xs, same(emit.constant(_LOG2_E, lanes)), below)
    ]
    rounded = [builder.fadd(power, rounder) for power in powers]
    whole = [builder.fsub(value, rounder) for value in rounded]
    rest = [builder.fsub(power, value) for power, value in zip(powers, whole, strict=True)]
    square = [builder.fmul(value, value) for value in rest]
    high, middle = fused(rest, same(by_five), same(by_four)), fused(rest, same(by_three), same(by_two))
    low = fused(rest, same(by_one), same(ones))
    fractions = fused(fused(high, square, middle), square, low)
    exponents = [builder.shl(builder.bitcast(value, integers), shift) for value in rounded]
    return [
        builder.bitcast(builder.add(builder.bitcast(fraction, integers), exponent), vector)
        for fraction, exponent in zip(fractions, exponents, strict=True)
    ]
