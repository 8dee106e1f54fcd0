"""Blocks of attention in registers: the softmax of a tile of scores, and the transpose of a block of keys.

Numba's own loops over rows of a few dozen scores cost three times as much: they end in scalar remainders, and every row is an
array whose references are counted. Like the tiles of `tiles.py`, both take the form of an instruction set, and offsets count
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
# exp(x) = 2^n exp(r), within two units of the last place (Cephes' expf): log2(e), ln 2 in two parts, and the polynomial
_LOG2_E, _LN2_HIGH, _LN2_LOW = 1.44269504, 0.693359375, -2.12194440e-4
_COEFFICIENTS = (
    1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1
)  # fmt: skip
# below it, exp(x) is the smallest that float32 holds in full
_LEAST_EXPONENT = -87.0


@intrinsic
def soften_tile(typing_context: Any, isa: Any, scores: Any, scores_at: Any, stride: Any, length: Any) -> Any:
    """Each row of a tile to exp(x - max) / sum over its first `length` columns, in place; zeros up to a whole register.

    A row's result depends on the row alone. What stands beyond `length` may be anything, even NaN.
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
        limit = emit.splat(builder.trunc(values[4], _I32), shape.lanes)
        blocks = builder.sdiv(builder.add(values[4], emit.index(shape.lanes - 1)), emit.index(shape.lanes))

        def block(k: Any) -> tuple[list[Any], Any]:
            """Where each row's registers of block `k` lie, and which lanes are columns."""
            offset = builder.mul(k, emit.index(4 * shape.lanes))
            return [emit.at(row, offset) for row in rows], emit.first_columns(k, limit, shape.lanes)

        def highest(k: Any, tops: list[Any]) -> list[Any]:
            pointers, inside = block(k)
            found = [builder.select(inside, emit.load(pointer, vector, 4), lowest) for pointer in pointers]
            return [emit.larger(value, top) for value, top in zip(found, tops, strict=True)]

        def raise_e(k: Any, totals: list[Any]) -> list[Any]:
            pointers, inside = block(k)
            results = []
            for pointer, top, total in zip(pointers, tops, totals, strict=True):
                below = builder.fsub(emit.load(pointer, vector, 4), top)
                power = builder.select(inside, _exponential(emit, below, shape.lanes), zero)
                emit.store(power, pointer, 4)
                results.append(builder.fadd(total, power))
            return results

        def share(k: Any, shares: list[Any]) -> list[Any]:
            for pointer, factor in zip(block(k)[0], shares, strict=True):
                emit.store(builder.fmul(emit.load(pointer, vector, 4), factor), pointer, 4)
            return shares

        tops = emit.loop(blocks, [lowest] * shape.rows, highest)
        tops = [emit.folded(top, emit.larger) for top in tops]
        totals = emit.loop(blocks, [zero] * shape.rows, raise_e)
        one = emit.constant(1.0, shape.lanes)
        totals = [emit.folded(total, builder.fadd) for total in totals]
        emit.loop(blocks, [builder.fdiv(one, total) for total in totals], share)
        return context.get_dummy_value()

    return types.void(isa, scores, types.intp, types.intp, types.intp), generate


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


def _exponential(emit: Emitter, x: Any, lanes: int) -> Any:
    """exp(x) for x <= 0; below -87, and for NaN, exp(-87)."""
    builder, vector, integers = emit.builder, ir.VectorType(_F32, lanes), ir.VectorType(_I32, lanes)

    def fused(a: Any, b: Any, c: Any) -> Any:
        return emit.call(f"llvm.fma.v{lanes}f32", vector, a, b, c)

    x = emit.larger(x, emit.constant(_LEAST_EXPONENT, lanes))
    whole = builder.fptosi(fused(x, emit.constant(_LOG2_E, lanes), emit.constant(-0.5, lanes)), integers)
    number = builder.sitofp(whole, vector)
    rest = fused(number, emit.constant(-_LN2_HIGH, lanes), x)
    rest = fused(number, emit.constant(-_LN2_LOW, lanes), rest)
    y = emit.constant(_COEFFICIENTS[0], lanes)
    for coefficient in _COEFFICIENTS[1:]:
        y = fused(y, rest, emit.constant(coefficient, lanes))
    y = fused(builder.fmul(y, rest), rest, builder.fadd(rest, emit.constant(1.0, lanes)))
    biased = builder.add(whole, ir.Constant(integers, [127] * lanes))
    power = builder.bitcast(builder.shl(biased, ir.Constant(integers, [23] * lanes)), vector)
    return builder.fmul(y, power)
