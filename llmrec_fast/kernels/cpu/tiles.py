"""Products of small tiles of matrices, held in registers: what `transformer.py` builds its matrix products from.

Like the instructions of `intrinsics.py`, a tile comes in forms for several instruction sets, chosen by the type of a marker.
A float32 tile gives the same everywhere: each element is one sum over k in ascending order. Tiles of integers are in
`byte_tiles.py`.

This file holds no algorithm. Offsets count elements, and nothing checks them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from llmrec_fast.kernels.cpu.intrinsics import InstructionSet

_I8, _I32, _F32 = ir.IntType(8), ir.IntType(32), ir.FloatType()
_LINE_BYTES = 64


@dataclass(frozen=True)
class TileShape:
    """How a set of instructions cuts its products.

    Attributes
    ----------
    rows : rows of every tile; the rows of an operand are padded to a multiple of it.
    lanes : 32-bit numbers in a register.
    float_panel, byte_panel : columns of a tile of float32 and of integers; packed weights come in panels of this width.
    weight_limit : the largest magnitude of an integer weight.
    """

    rows: int
    lanes: int
    float_panel: int
    byte_panel: int
    weight_limit: int


_SHAPES = {
    types.uint32: TileShape(6, 16, 64, 64, 127),  # 24 of 32 registers hold sums
    types.uint8: TileShape(6, 8, 16, 8, 64),  # 12 of 16
    types.uint16: TileShape(6, 8, 16, 8, 127),
}


def tile_shape(chosen: InstructionSet) -> TileShape:
    """The `TileShape` of an instruction set."""
    return _SHAPES[getattr(types, chosen.dtype.name)]


def shape_of(isa: Any) -> TileShape:
    """The `TileShape` of a marker's Numba type, for what emits code."""
    return _SHAPES[isa]


def _constant_of(field: str) -> Any:
    @intrinsic
    def constant(typing_context: Any, isa: Any) -> Any:
        value = getattr(_SHAPES[isa], field)

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return context.get_constant(types.intp, value)

        return types.intp(isa), generate

    return constant


tile_rows, lanes, float_panel, byte_panel = (
    _constant_of(field) for field in ("rows", "lanes", "float_panel", "byte_panel")
)


class Emitter:
    """Emits loads and stores at element offsets of arrays, and loops."""

    def __init__(self, context: Any, builder: Any) -> None:
        self.context, self.builder = context, builder

    def data(self, kind: Any, array: Any, offset: Any) -> Any:
        """A byte pointer to an element."""
        builder, size = self.builder, kind.dtype.bitwidth // 8
        data = builder.bitcast(self.context.make_array(kind)(self.context, builder, array).data, _I8.as_pointer())
        return builder.gep(data, [builder.mul(offset, self.index(size))])

    def index(self, value: int) -> Any:
        """An offset or a count."""
        return self.context.get_constant(types.intp, value)

    def at(self, pointer: Any, byte: Any) -> Any:
        """The pointer `byte` bytes on."""
        return self.builder.gep(pointer, [byte])

    def load(self, pointer: Any, kind: ir.Type, align: int) -> Any:
        """A value of `kind` from a byte pointer."""
        return self.builder.load(self.builder.bitcast(pointer, kind.as_pointer()), align=align)

    def store(self, value: Any, pointer: Any, align: int) -> None:
        """A value to a byte pointer."""
        self.builder.store(value, self.builder.bitcast(pointer, value.type.as_pointer()), align=align)

    def splat(self, scalar: Any, count: int) -> Any:
        """A vector of `count` times the same."""
        undefined = ir.Constant(ir.VectorType(scalar.type, count), ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
        return self.builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_I32, count), [0] * count))

    def constant(self, value: float, count: int) -> ir.Constant:
        """A float32 vector of `count` times the same constant."""
        return ir.Constant(ir.VectorType(_F32, count), [value] * count)

    def larger(self, x: Any, y: Any) -> Any:
        """The larger of two vectors' elements; `y` where `x` is NaN."""
        return self.builder.select(self.builder.fcmp_ordered(">", x, y), x, y)

    def smaller(self, x: Any, y: Any) -> Any:
        """The smaller of two vectors' elements; `y` where `x` is NaN."""
        return self.builder.select(self.builder.fcmp_ordered("<", x, y), x, y)

    def folded(self, value: Any, combine: Callable[[Any, Any], Any]) -> Any:
        """All of a vector's elements combined, in every place of the result."""
        count = value.type.count
        step = count // 2
        while step:
            order = ir.Constant(ir.VectorType(_I32, count), [place ^ step for place in range(count)])
            value = combine(value, self.builder.shuffle_vector(value, value, order))
            step //= 2
        return value

    def first_columns(self, k: Any, limit: Any, count: int) -> Any:
        """Which of the `count` columns of block `k` come before `limit`, a splat of int32."""
        integers = ir.VectorType(_I32, count)
        first = self.splat(self.builder.trunc(self.builder.mul(k, self.index(count)), _I32), count)
        places = self.builder.add(first, ir.Constant(integers, list(range(count))))
        return self.builder.icmp_signed("<", places, limit)

    def call(self, name: str, result: ir.Type, *arguments: Any) -> Any:
        """A call of one of LLVM's own functions."""
        function = ir.FunctionType(result, [argument.type for argument in arguments])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, function, name), arguments)

    def loop(self, count: Any, sums: list[Any], step: Any) -> list[Any]:
        """`sums = step(k, sums)` for k in range(count), the sums in registers throughout; count is at least 1."""
        builder = self.builder
        before, body = builder.block, builder.append_basic_block("tile")
        builder.branch(body)
        builder.position_at_end(body)
        k = builder.phi(count.type)
        phis = [builder.phi(value.type) for value in sums]
        k.add_incoming(ir.Constant(count.type, 0), before)
        for phi, value in zip(phis, sums, strict=True):
            phi.add_incoming(value, before)
        results: list[Any] = step(k, phis)
        following = builder.add(k, ir.Constant(count.type, 1))
        k.add_incoming(following, builder.block)
        for phi, value in zip(phis, results, strict=True):
            phi.add_incoming(value, builder.block)
        after = builder.append_basic_block("tiled")
        builder.cbranch(builder.icmp_signed("<", following, count), body, after)
        builder.position_at_end(after)
        return results

    def loop_asking_for_lines(self, later: Any, pace: Any, count: Any, sums: list[Any], step: Any) -> list[Any]:
        """`loop`, which asks for a cache line more from `later` on before every `pace` steps, into a core's second cache.

        In one go, as many as there are buffers for them would hold up the loads that the steps wait for.
        """
        builder = self.builder

        def part(number: Any, sums: list[Any]) -> list[Any]:
            read, second, data = (ir.Constant(_I32, value) for value in (0, 2, 1))
            line = self.at(later, builder.mul(number, self.index(_LINE_BYTES)))
            self.call("llvm.prefetch.p0", ir.VoidType(), line, read, second, data)
            first = builder.mul(number, pace)
            left = builder.sub(count, first)
            steps = builder.select(builder.icmp_signed("<", left, pace), left, pace)
            return self.loop(steps, sums, lambda k, sums: step(builder.add(first, k), sums))

        return self.loop(builder.sdiv(builder.add(count, builder.sub(pace, self.index(1))), pace), sums, part)


def _float_tile(registers_of: Any) -> Any:
    @intrinsic
    def multiply(
        typing_context: Any,
        isa: Any,
        left: Any,
        left_at: Any,
        left_stride: Any,
        right: Any,
        right_at: Any,
        right_stride: Any,
        depth: Any,
        bias: Any,
        bias_at: Any,
        factors: Any,
        out: Any,
        out_at: Any,
        out_stride: Any,
        ahead: Any,
        pace: Any,
    ) -> Any:
        shape = shape_of(isa)
        count = registers_of(shape)

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            emit, kinds = Emitter(context, builder), signature.args
            a, a_stride = emit.data(kinds[1], values[1], values[2]), builder.mul(values[3], emit.index(4))
            b, b_stride = emit.data(kinds[4], values[4], values[5]), builder.mul(values[6], emit.index(4))
            c, c_stride = emit.data(kinds[11], values[11], values[12]), builder.mul(values[13], emit.index(4))
            vector = ir.VectorType(_F32, shape.lanes)
            fused = f"llvm.fma.v{shape.lanes}f32"

            def step(k: Any, sums: list[Any]) -> list[Any]:
                row = emit.at(b, builder.mul(k, b_stride))
                rights = [emit.load(emit.at(row, emit.index(4 * shape.lanes * i)), vector, 4) for i in range(count)]
                column = emit.at(a, builder.mul(k, emit.index(4)))
                results = []
                for r in range(shape.rows):
                    scalar = emit.load(emit.at(column, builder.mul(a_stride, emit.index(r))), _F32, 4)
                    spread = emit.splat(scalar, shape.lanes)
                    for i in range(count):
                        results.append(emit.call(fused, vector, spread, rights[i], sums[r * count + i]))
                return results

            if kinds[8] == types.none:
                start = [ir.Constant(vector, None)] * count
            else:
                first = emit.data(kinds[8], values[8], values[9])
                start = [emit.load(emit.at(first, emit.index(4 * shape.lanes * i)), vector, 4) for i in range(count)]
            if kinds[14] == types.none:
                sums = emit.loop(values[7], start * shape.rows, step)
            else:
                later = emit.data(kinds[4], values[4], values[14])
                sums = emit.loop_asking_for_lines(later, values[15], values[7], start * shape.rows, step)
            if kinds[10] != types.none:
                first = emit.data(kinds[10], values[10], emit.index(0))
                for r in range(shape.rows):
                    factor = emit.splat(emit.load(emit.at(first, emit.index(4 * r)), _F32, 4), shape.lanes)
                    for i in range(count):
                        sums[r * count + i] = builder.fmul(sums[r * count + i], factor)
            for r in range(shape.rows):
                row = emit.at(c, builder.mul(c_stride, emit.index(r)))
                for i in range(count):
                    place = emit.at(row, emit.index(4 * shape.lanes * i))
                    emit.store(sums[r * count + i], place, 4)
            return context.get_dummy_value()

        place = types.intp
        signature = types.void(
            isa, left, place, place, right, place, place, place, bias, place, factors, out, place, place, ahead, place
        )  # fmt: skip
        return signature, generate

    return multiply


# out[r, c] = factors[r] * (bias[c] + sum over k < depth of left[r, k] * right[k, c]), float32; a bias of None is zeros, factors
# of None are ones. r runs over the rows of a tile; c over the columns of a panel, or the lanes of one register or of two. Each
# element is one chain of fused multiply-adds in the order of k, so it does not depend on where in which matrix the tile lies.
# From the offset `ahead` of `right` on, unless it is None, a cache line is asked for every `pace` steps of k.
multiply_panel_tile = _float_tile(lambda shape: shape.float_panel // shape.lanes)
multiply_pair_tile = _float_tile(lambda shape: 2)
multiply_register_tile = _float_tile(lambda shape: 1)


@intrinsic
def power_of_two(typing_context: Any, exponent: Any) -> Any:
    """2 ** exponent as float32, for -126 <= exponent <= 127; LLVM vectorises it."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        biased = builder.add(values[0], ir.Constant(_I32, 127))
        return builder.bitcast(builder.shl(biased, ir.Constant(_I32, 23)), _F32)

    return types.float32(types.int32), generate


@intrinsic
def ratio(typing_context: Any, dividend: Any, divisor: Any) -> Any:
    """dividend / divisor of float32, without Numba's branch for a divisor of zero, which LLVM does not vectorise."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.fdiv(*values)

    return types.float32(types.float32, types.float32), generate
