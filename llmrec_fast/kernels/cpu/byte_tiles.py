"""Products of small tiles of bytes: unsigned activations with signed weights, summed in int32, exactly, on every processor.

Weights have 7 bits on AVX2, whose instruction saturates pairs of products at 16 bits, and 8 bits elsewhere. This file holds
no algorithm; `tiles.py` has the float32 tiles and the shapes. Offsets count elements, and nothing checks them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

from llvmlite import binding, ir
from numba.core import types
from numba.extending import intrinsic

from llmrec_fast.kernels.cpu.tiles import Emitter, TileShape, shape_of

_I8, _I16, _I32, _F32 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.FloatType()
# terms whose sum `_sum_in_halves` can tell
_EXACT_TERMS = 255
# left and right operands of the products of step k, registers of four bytes a lane
_Operands: TypeAlias = Callable[[Any], list[tuple[Any, Any]]]


@intrinsic
def multiply_bytes_tile(
    typing_context: Any,
    isa: Any,
    left: Any,
    left_at: Any,
    left_stride: Any,
    row_scales: Any,
    row_zeros: Any,
    row: Any,
    right: Any,
    right_at: Any,
    quads: Any,
    column_scales: Any,
    column_sums: Any,
    bias: Any,
    column: Any,
    out: Any,
    out_at: Any,
    out_stride: Any,
) -> Any:
    """out[r, c] = row_scales[r] column_scales[c] (sum_k left[r, k] right[k, c] - row_zeros[r] column_sums[c]) + bias[c].

    `left` is unsigned, `right` signed and packed: four bytes of a column side by side, columns of a panel side by side,
    `quads` of them. The sum is int32 and exact below a depth of 66,000.
    """
    shape = shape_of(isa)
    name = {types.uint32: "vnni", types.uint8: "avx2"}.get(isa, "portable")
    count, width = shape.byte_panel // shape.lanes, 4 * shape.lanes

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        emit, kinds = Emitter(context, builder), signature.args
        a, a_stride = emit.data(kinds[1], values[1], values[2]), values[3]
        b = emit.data(kinds[7], values[7], values[8])
        c, c_stride = emit.data(kinds[14], values[14], values[15]), builder.mul(values[16], emit.index(4))
        integers, floats = ir.VectorType(_I32, shape.lanes), ir.VectorType(_F32, shape.lanes)

        def operands(k: Any) -> list[tuple[Any, Any]]:
            panel = emit.at(b, builder.mul(k, emit.index(width * count)))
            rights = [emit.load(emit.at(panel, emit.index(width * i)), integers, 1) for i in range(count)]
            quad = emit.at(a, builder.mul(k, emit.index(4)))
            pairs = []
            for r in range(shape.rows):
                scalar = emit.load(emit.at(quad, builder.mul(a_stride, emit.index(r))), _I32, 1)
                spread = emit.splat(scalar, shape.lanes)
                pairs += [(spread, right) for right in rights]
            return pairs

        number = shape.rows * count
        if name == "avx2" and _one_multiplier():
            sums = _sum_in_halves(emit, shape, values[9], number, operands)
        else:
            sums = _sum_directly(emit, name, shape, values[9], number, operands)
        scales, zeros = emit.data(kinds[4], values[4], values[6]), emit.data(kinds[5], values[5], values[6])
        columns = [emit.data(kinds[place], values[place], values[13]) for place in (10, 11, 12)]
        by_column = [
            [emit.load(emit.at(pointer, emit.index(width * i)), kind, 4) for i in range(count)]
            for pointer, kind in zip(columns, (floats, integers, floats), strict=True)
        ]
        for r in range(shape.rows):
            scale = emit.splat(emit.load(emit.at(scales, emit.index(4 * r)), _F32, 4), shape.lanes)
            zero = emit.splat(emit.load(emit.at(zeros, emit.index(4 * r)), _I32, 4), shape.lanes)
            line = emit.at(c, builder.mul(c_stride, emit.index(r)))
            for i in range(count):
                total = builder.sub(sums[r * count + i], builder.mul(zero, by_column[1][i]))
                factor = builder.fmul(by_column[0][i], scale)
                fused = f"llvm.fma.v{shape.lanes}f32"
                result = emit.call(fused, floats, builder.sitofp(total, floats), factor, by_column[2][i])
                place = emit.at(line, emit.index(width * i))
                emit.store(result, place, 4)
        return context.get_dummy_value()

    signature = types.void(
        isa, left, types.intp, types.intp, row_scales, row_zeros, types.intp, right, types.intp, types.intp,
        column_scales, column_sums, bias, types.intp, out, types.intp, types.intp,
    )  # fmt: skip
    return signature, generate


@cache
def _one_multiplier() -> bool:
    """Whether only one of the processor's vector units multiplies integers: Zen 1 and 2 (agner.org/optimize)."""
    return binding.get_host_cpu_name() in ("znver1", "znver2")


def _sum_directly(emit: Emitter, name: str, shape: TileShape, quads: Any, count: int, operands: _Operands) -> list[Any]:
    """`count` sums of the products of `operands(k)` over k < `quads`, int32."""

    def step(k: Any, sums: list[Any]) -> list[Any]:
        pairs = zip(sums, operands(k), strict=True)
        return [_add_products(emit, name, shape.lanes, total, left, right) for total, (left, right) in pairs]

    return emit.loop(quads, [ir.Constant(ir.VectorType(_I32, shape.lanes), None)] * count, step)


def _sum_in_halves(emit: Emitter, shape: TileShape, quads: Any, count: int, operands: _Operands) -> list[Any]:
    """`_sum_directly` for AVX2, with one multiplication a pair of operands instead of two.

    A pair of products x has 16 bits. Of their sum, low = sum(x) wraps around, and high = sum(floor(x / 256)) cannot within
    255 terms. As 0 <= sum(x) - 256 high <= 255 * 255 < 2^16, the two tell the sum.
    """
    builder = emit.builder
    middle, integers = ir.VectorType(_I16, 2 * shape.lanes), ir.VectorType(_I32, shape.lanes)
    eight = ir.Constant(middle, [8] * (2 * shape.lanes))

    def block(number: Any, sums: list[Any]) -> list[Any]:
        start = builder.mul(number, emit.index(_EXACT_TERMS))
        rest = builder.sub(quads, start)
        more = builder.icmp_signed(">", rest, emit.index(_EXACT_TERMS))

        def step(k: Any, halves: list[Any]) -> list[Any]:
            # one product after the other: all of them at once would not fit into registers
            lows, highs = [], []
            for low, high, pair in zip(halves[:count], halves[count:], operands(builder.add(start, k)), strict=True):
                x = _pair_products(emit, shape.lanes, *pair)
                lows.append(builder.add(low, x))
                highs.append(builder.add(high, builder.ashr(x, eight)))
            return lows + highs

        zeros = [ir.Constant(middle, None)] * (2 * count)
        halves = emit.loop(builder.select(more, emit.index(_EXACT_TERMS), rest), zeros, step)
        both = zip(sums, halves[:count], halves[count:], strict=True)
        return [builder.add(total, whole(low, high)) for total, low, high in both]

    def whole(low: Any, high: Any) -> Any:
        """The sums of neighbouring lanes of 256 high + (low - 256 high mod 2^16)."""
        lower = builder.bitcast(builder.sub(low, builder.shl(high, eight)), integers)
        even = builder.and_(lower, ir.Constant(integers, [0xFFFF] * shape.lanes))
        odd = builder.lshr(lower, ir.Constant(integers, [16] * shape.lanes))
        weights = ir.Constant(middle, [256] * (2 * shape.lanes))
        upper = emit.call("llvm.x86.avx2.pmadd.wd", integers, high, weights)
        return builder.add(upper, builder.add(even, odd))

    blocks = builder.sdiv(builder.add(quads, emit.index(_EXACT_TERMS - 1)), emit.index(_EXACT_TERMS))
    return emit.loop(blocks, [ir.Constant(integers, None)] * count, block)


def _pair_products(emit: Emitter, lanes: int, left: Any, right: Any) -> Any:
    """Sums of two neighbouring products each, int16, saturating."""
    small, middle = ir.VectorType(_I8, 4 * lanes), ir.VectorType(_I16, 2 * lanes)
    bytes_of = (emit.builder.bitcast(operand, small) for operand in (left, right))
    return emit.call("llvm.x86.avx2.pmadd.ub.sw", middle, *bytes_of)


def _add_products(emit: Emitter, name: str, lanes: int, total: Any, left: Any, right: Any) -> Any:
    """`total` plus, in each lane, the four products of its unsigned bytes of `left` with its signed bytes of `right`."""
    builder = emit.builder
    if name == "vnni":
        return emit.call("llvm.x86.avx512.vpdpbusd.512", total.type, total, left, right)
    if name == "avx2":
        ones = ir.Constant(ir.VectorType(_I16, 2 * lanes), [1] * (2 * lanes))
        pairs = _pair_products(emit, lanes, left, right)
        return builder.add(total, emit.call("llvm.x86.avx2.pmadd.wd", total.type, pairs, ones))
    small, wide = ir.VectorType(_I8, 4 * lanes), ir.VectorType(_I32, 4 * lanes)
    products = builder.mul(
        builder.zext(builder.bitcast(left, small), wide), builder.sext(builder.bitcast(right, small), wide)
    )
    undefined, index = ir.Constant(wide, ir.Undefined), ir.VectorType(_I32, lanes)
    for part in range(4):
        places = ir.Constant(index, list(range(part, 4 * lanes, 4)))
        total = builder.add(total, builder.shuffle_vector(products, undefined, places))
    return total
