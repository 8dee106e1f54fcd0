"""A row of float32 to bytes with a scale and a zero point of its own, in registers.

Like the tiles of `tiles.py` it takes the form of an instruction set, and offsets count elements that nothing checks.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from llmrec_fast.kernels.cpu.tiles import Emitter, shape_of

_I8, _I32, _F32 = ir.IntType(8), ir.IntType(32), ir.FloatType()
# a row of next to nothing becomes zeros
_LEAST_SCALE = 1e-30


@intrinsic
def quantise_row(
    typing_context: Any,
    isa: Any,
    source: Any,
    source_at: Any,
    count: Any,
    out: Any,
    out_at: Any,
    scales: Any,
    zeros: Any,
    row: Any,
) -> Any:
    """out[c] = source[c] / scales[row] + zeros[row], rounded, for c < `count`, at least 1.

    The scale spans the values and zero in 255 steps. Reads and writes up to a whole register; what is written beyond `count`
    has no meaning.
    """
    lanes = shape_of(isa).lanes

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        emit, kinds = Emitter(context, builder), signature.args
        a, c = emit.data(kinds[1], values[1], values[2]), emit.data(kinds[4], values[4], values[5])
        floats, integers, small = (ir.VectorType(kind, lanes) for kind in (_F32, _I32, _I8))
        fused = f"llvm.fma.v{lanes}f32"
        zero, one, most = (emit.constant(value, lanes) for value in (0.0, 1.0, 255.0))
        half = emit.constant(0.5, lanes)
        limit = emit.splat(builder.trunc(values[3], _I32), lanes)
        blocks = builder.sdiv(builder.add(values[3], emit.index(lanes - 1)), emit.index(lanes))

        def load(k: Any) -> Any:
            value = emit.load(emit.at(a, builder.mul(k, emit.index(4 * lanes))), floats, 4)
            return builder.select(emit.first_columns(k, limit, lanes), value, zero)

        def widen(k: Any, range_: list[Any]) -> list[Any]:
            value = load(k)
            return [emit.smaller(value, range_[0]), emit.larger(value, range_[1])]

        low, high = emit.loop(blocks, [zero, zero], widen)
        low, high = emit.folded(low, emit.smaller), emit.folded(high, emit.larger)
        scale = builder.fdiv(builder.fsub(high, low), most)
        scale = builder.select(builder.fcmp_ordered("<", scale, emit.constant(_LEAST_SCALE, lanes)), one, scale)
        inverse = builder.fdiv(one, scale)
        point = builder.fptosi(builder.fsub(half, builder.fmul(low, inverse)), integers)
        shift = builder.fadd(builder.sitofp(point, floats), half)

        def store(k: Any, nothing: list[Any]) -> list[Any]:
            value = emit.call(fused, floats, load(k), inverse, shift)
            value = emit.smaller(emit.larger(value, zero), most)
            byte = builder.trunc(builder.fptosi(value, integers), small)
            emit.store(byte, emit.at(c, builder.mul(k, emit.index(lanes))), 1)
            return nothing

        emit.loop(blocks, [], store)
        first = ir.Constant(_I32, 0)
        for place, vector in ((6, scale), (7, point)):
            emit.store(builder.extract_element(vector, first), emit.data(kinds[place], values[place], values[8]), 4)
        return context.get_dummy_value()

    place = types.intp
    return types.void(isa, source, place, place, out, place, scales, zeros, place), generate
