"""Vector operations on eight rows that lie apart: gather what belongs to each, one lane a row. Generic, for any processor.

Offsets count bytes, and nothing checks them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from llmrec_fast.kernels.cpu.intrinsics import call_by_name, floats8, ints8, pointer_at, shorts16

_I1, _I8, _I16, _I32 = (ir.IntType(bits) for bits in (1, 8, 16, 32))
_FOUR_FLOATS = ir.VectorType(ir.FloatType(), 4)
_EIGHT = range(8)
# For each byte, the positions of its set bits, lowest first; what follows them is of no account.
PLACES = np.array([([bit for bit in _EIGHT if byte >> bit & 1] + [0] * 8)[:8] for byte in range(256)], np.uint8).ravel()


def _shuffled(builder: Any, left: Any, right: Any, lanes: list[int]) -> Any:
    return builder.shuffle_vector(left, right, ir.Constant(ir.VectorType(_I32, len(lanes)), lanes))


@intrinsic
def store_places8(typing_context: Any, array: Any, offset: Any, places: Any, byte: Any, base: Any) -> Any:
    """Store `base` plus the position of each set bit of a byte, as int32. Writes 32 bytes, however few bits are set."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        from_table = builder.shl(builder.zext(values[3], values[1].type), ir.Constant(values[1].type, 3))
        table = pointer_at(context, builder, signature.args[2], values[2], from_table, ir.VectorType(_I8, 8))
        wide = builder.zext(builder.load(table, align=1), ints8.backend)
        undefined = ir.Constant(ints8.backend, ir.Undefined)
        base = builder.insert_element(undefined, values[4], ir.Constant(_I32, 0))
        total = builder.add(wide, _shuffled(builder, base, undefined, [0] * 8))
        target = pointer_at(context, builder, signature.args[0], values[0], values[1], ints8.backend)
        builder.store(total, target, align=1)
        return context.get_dummy_value()

    return types.void(array, types.intp, places, types.int32, types.int32), generate


@intrinsic
def count_bits(typing_context: Any, value: Any) -> Any:
    """How many bits are set."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return call_by_name(builder, "llvm.ctpop.i32", _I32, list(values))

    return types.int32(types.int32), generate


@intrinsic
def sums_of_ints8(
    typing_context: Any,
    first: Any,
    second: Any,
    third: Any,
    fourth: Any,
    fifth: Any,
    sixth: Any,
    seventh: Any,
    last: Any,
) -> Any:
    """The sum of each of eight vectors, one a lane."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        vectors = list(values)
        while len(vectors) > 1:
            # neighbours within the halves of a register are added, so that only the last step crosses them
            even = [0, 2, 8, 10, 4, 6, 12, 14]
            odd = [lane + 1 for lane in even]
            vectors = [
                builder.add(_shuffled(builder, a, b, even), _shuffled(builder, a, b, odd))
                for a, b in zip(vectors[::2], vectors[1::2], strict=True)
            ]
            if len(vectors) == 2:  # each register holds four sums of its lower half, then of its upper half
                low = _shuffled(builder, vectors[0], vectors[1], [0, 1, 2, 3, 8, 9, 10, 11])
                high = _shuffled(builder, vectors[0], vectors[1], [4, 5, 6, 7, 12, 13, 14, 15])
                vectors = [builder.add(low, high)]
        return vectors[0]

    return ints8(*[ints8] * 8), generate


@intrinsic
def load_columns4(typing_context: Any, array: Any, rows: Any, at: Any, stride: Any, shift: Any) -> Any:
    """Four neighbouring float32 of each of eight rows, as four vectors with one lane a row.

    The rows are the int32 at rows[at], rows[at + 1], ...; those of row r lie at byte r * stride + shift of `array`.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        word = values[2].type
        records = []
        for lane in _EIGHT:
            place = builder.mul(builder.add(values[2], ir.Constant(word, lane)), ir.Constant(word, 4))
            row = builder.load(pointer_at(context, builder, signature.args[1], values[1], place, _I32), align=4)
            offset = builder.add(builder.mul(builder.sext(row, word), values[3]), values[4])
            pointer = pointer_at(context, builder, signature.args[0], values[0], offset, _FOUR_FLOATS)
            records.append(builder.load(pointer, align=4))
        # rows r and r + 4 share a register; then four by four are transposed within its halves
        pairs = [_shuffled(builder, records[r], records[r + 4], list(_EIGHT)) for r in range(4)]
        low, high = [0, 8, 1, 9, 4, 12, 5, 13], [2, 10, 3, 11, 6, 14, 7, 15]
        front = [_shuffled(builder, pairs[r], pairs[r + 1], low) for r in (0, 2)]
        back = [_shuffled(builder, pairs[r], pairs[r + 1], high) for r in (0, 2)]
        first, last = [0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]
        columns = [_shuffled(builder, left, right, lanes) for left, right in (front, back) for lanes in (first, last)]
        return context.make_tuple(builder, signature.return_type, columns)

    return types.containers.UniTuple(floats8, 4)(array, rows, types.intp, types.intp, types.intp), generate


@intrinsic
def load_short_floats8(typing_context: Any, array: Any, offset: Any) -> Any:
    """8 int16 as float32."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = pointer_at(context, builder, signature.args[0], values[0], values[1], ir.VectorType(_I16, 8))
        return builder.sitofp(builder.sext(builder.load(pointer, align=1), ints8.backend), floats8.backend)

    return floats8(array, types.intp), generate


@intrinsic
def at_least_floats8(typing_context: Any, values: Any, threshold: Any) -> Any:
    """A bit for each of 8 lanes: values >= threshold."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.zext(builder.bitcast(builder.fcmp_ordered(">=", *values), _I8), _I32)

    return types.int32(floats8, floats8), generate


@intrinsic
def add_floats8(typing_context: Any, left: Any, right: Any) -> Any:
    """The sums of 8 float32, rounded once."""
    return floats8(floats8, floats8), lambda context, builder, signature, values: builder.fadd(*values)


@intrinsic
def maximum_shorts16(typing_context: Any, left: Any, right: Any) -> Any:
    """The larger of 16 int16, lane by lane."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.select(builder.icmp_signed(">", *values), *values)

    return shorts16(shorts16, shorts16), generate
