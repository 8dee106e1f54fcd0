"""The vector instructions of the bounded scan, each in forms that compute the same bits.

Kernels take an instruction set as their first argument; Numba compiles a kernel once for each set, because the sets have
different types, so all live side by side in one process and in one disk cache. `AVX2` calls the processor's
instruction where LLVM would not find it by itself; `VNNI` (x86 with AVX-512) is `AVX2` with products of bytes that one
instruction adds to int32, 64 at a time in the scan; `PORTABLE` spells everything in generic vector operations that LLVM lowers
for any processor (SSE, NEON, SVE). Most operations here are generic already and serve all sets.

This file holds no algorithm. Offsets of loads and stores count bytes, and nothing checks them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model

_I1, _I8, _I16, _I32 = (ir.IntType(bits) for bits in (1, 8, 16, 32))
_F32, _F64 = ir.FloatType(), ir.DoubleType()


# A marker that kernels are compiled for. Only its type counts: Numba tells NumPy scalars apart in half a microsecond,
# while a class of our own would cost 20 in every call.
InstructionSet: TypeAlias = np.uint8 | np.uint16 | np.uint32
AVX2: InstructionSet = np.uint8(1)
PORTABLE: InstructionSet = np.uint16(0)
VNNI: InstructionSet = np.uint32(2)
_NAMES = {types.uint8: "avx2", types.uint16: "portable", types.uint32: "vnni"}


@cache
def _host_has_avx2() -> bool:
    features = binding.get_host_cpu_features()
    return bool(features.get("avx2") and features.get("fma"))


@cache
def _host_has_vnni() -> bool:
    features = binding.get_host_cpu_features()
    return all(features.get(name) for name in ("avx512f", "avx512bw", "avx512vl", "avx512vnni"))


def instruction_set() -> InstructionSet:
    """The set that this processor runs best.

    `PORTABLE` when the environment variable LLMREC_PORTABLE is 1, nothing above `AVX2` when LLMREC_AVX2 is.
    """
    if os.environ.get("LLMREC_PORTABLE") == "1" or not _host_has_avx2():
        return PORTABLE
    return VNNI if _host_has_vnni() and os.environ.get("LLMREC_AVX2") != "1" else AVX2


class _Vector(types.Type):
    """`count` numbers in one register."""

    def __init__(self, name: str, element: ir.Type, count: int) -> None:
        self.backend = ir.VectorType(element, count)
        super().__init__(name=name)


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, vector: _Vector) -> None:
        super().__init__(manager, vector, vector.backend)


bytes64 = _Vector("bytes64", _I8, 64)
bytes32 = _Vector("bytes32", _I8, 32)
bytes16 = _Vector("bytes16", _I8, 16)
shorts16 = _Vector("shorts16", _I16, 16)
ints16 = _Vector("ints16", _I32, 16)
ints8 = _Vector("ints8", _I32, 8)
floats8 = _Vector("floats8", _F32, 8)
doubles8 = _Vector("doubles8", _F64, 8)

_FLOATS8_OF_SHORTS = ir.VectorType(_I16, 8)


def pointer_at(context: Any, builder: Any, array_type: Any, array: Any, offset: Any, to: ir.Type) -> Any:
    """Where `offset` bytes into an array's data a value of type `to` lies."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(builder.bitcast(data, _I8.as_pointer()), [offset]), to.as_pointer())


def call_by_name(builder: Any, name: str, result: ir.Type, values: list[Any]) -> Any:
    """Call an LLVM intrinsic."""
    function_type = ir.FunctionType(result, [value.type for value in values])
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), values)


def _constant(vector: ir.VectorType, values: list[Any]) -> ir.Constant:
    return ir.Constant(vector, values)


def _loader(vector: _Vector) -> Any:
    @intrinsic
    def load(typing_context: Any, array: Any, offset: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return builder.load(
                pointer_at(context, builder, signature.args[0], values[0], values[1], vector.backend), align=1
            )

        return vector(array, types.intp), generate

    return load


def _storer(vector: _Vector) -> Any:
    @intrinsic
    def store(typing_context: Any, array: Any, offset: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            pointer = pointer_at(context, builder, signature.args[0], values[0], values[1], vector.backend)
            builder.store(values[2], pointer, align=1)
            return context.get_dummy_value()

        return types.void(array, types.intp, vector), generate

    return store


def _zero(vector: _Vector) -> Any:
    @intrinsic
    def zero(typing_context: Any) -> Any:
        return vector(), lambda context, builder, signature, values: ir.Constant(vector.backend, None)

    return zero


def _splat(vector: _Vector, scalar: Any) -> Any:
    @intrinsic
    def splat(typing_context: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return _broadcast(builder, vector, values[0])

        return vector(scalar), generate

    return splat


def _broadcast(builder: Any, vector: _Vector, value: Any) -> Any:
    undefined = ir.Constant(vector.backend, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_I32, 0))
    lanes = ir.VectorType(_I32, vector.backend.count)
    return builder.shuffle_vector(first, undefined, ir.Constant(lanes, [0] * lanes.count))


def _binary(vector: _Vector, operation: str) -> Any:
    @intrinsic
    def operate(typing_context: Any, left: Any, right: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return getattr(builder, operation)(*values)

        return vector(vector, vector), generate

    return operate


def _by_set(result: _Vector, operands: int, operand: _Vector, forms: dict[str, Callable[[Any, list[Any]], Any]]) -> Any:
    """An operation whose first argument, the instruction set, chooses one of `forms` at compile time.

    `VNNI` takes the form of `AVX2` where it has none of its own.
    """

    def signature_of(isa: Any) -> Any:
        return result(isa, *[operand] * operands)

    def generator(isa: Any) -> Any:
        form = forms.get(_NAMES[isa], forms["avx2"])

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return form(builder, list(values[1:]))

        return generate

    if operands == 2:

        @intrinsic
        def operate(typing_context: Any, isa: Any, left: Any, right: Any) -> Any:
            return signature_of(isa), generator(isa)

        return operate

    @intrinsic
    def operate_three(typing_context: Any, isa: Any, first: Any, second: Any, third: Any) -> Any:
        return signature_of(isa), generator(isa)

    return operate_three


load_bytes32, load_bytes16, load_shorts16 = _loader(bytes32), _loader(bytes16), _loader(shorts16)
load_floats8, store_floats8 = _loader(floats8), _storer(floats8)
zero_ints8, zero_doubles8 = _zero(ints8), _zero(doubles8)
splat_shorts16, splat_ints8, splat_floats8 = (
    _splat(shorts16, types.int16),
    _splat(ints8, types.int32),
    _splat(floats8, types.float32),
)
add_ints8 = _binary(ints8, "add")
multiply_floats8 = _binary(floats8, "fmul")
add_doubles8, subtract_doubles8, multiply_doubles8 = (
    _binary(doubles8, operation) for operation in ("fadd", "fsub", "fmul")
)


# -- instructions that LLVM must be told by name ------------------------------------------------------------------------


def _pairs_by_name(name: str, result: _Vector) -> Callable[[Any, list[Any]], Any]:
    return lambda builder, values: call_by_name(builder, name, result.backend, values)


def _even_odd(builder: Any, product: Any) -> tuple[Any, Any]:
    count = product.type.count
    lanes = ir.VectorType(_I32, count // 2)
    undefined = ir.Constant(product.type, ir.Undefined)
    even, odd = (
        builder.shuffle_vector(product, undefined, ir.Constant(lanes, list(range(start, count, 2)))) for start in (0, 1)
    )
    return even, odd


def _portable_u8_s8(builder: Any, values: list[Any]) -> Any:
    wide = ir.VectorType(_I16, 32)
    product = builder.mul(builder.zext(values[0], wide), builder.sext(values[1], wide))
    return call_by_name(builder, "llvm.sadd.sat.v16i16", shorts16.backend, list(_even_odd(builder, product)))


def _portable_s16_s16(builder: Any, values: list[Any]) -> Any:
    wide = ir.VectorType(_I32, 16)
    product = builder.mul(builder.sext(values[0], wide), builder.sext(values[1], wide))
    return builder.add(*_even_odd(builder, product))


# 16 products of int16, neighbours added in int32.
multiply_pairs_s16 = _by_set(
    ints8, 2, shorts16, {"avx2": _pairs_by_name("llvm.x86.avx2.pmadd.wd", ints8), "portable": _portable_s16_s16}
)


def scan_bytes(isa: InstructionSet) -> int:
    """How many bytes of codes the scan multiplies at once."""
    return 64 if isa == VNNI else 32


@intrinsic
def scan_width(typing_context: Any, isa: Any) -> Any:
    """`scan_bytes` inside kernels."""
    width = 64 if _NAMES[isa] == "vnni" else 32
    return types.intp(isa), lambda context, builder, signature, values: context.get_constant(types.intp, width)


@intrinsic
def load_scan_bytes(typing_context: Any, isa: Any, array: Any, offset: Any) -> Any:
    """`scan_bytes` bytes."""
    vector = bytes64 if _NAMES[isa] == "vnni" else bytes32

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load(
            pointer_at(context, builder, signature.args[1], values[1], values[2], vector.backend), align=1
        )

    return vector(isa, array, types.intp), generate


def _sums_of(isa: Any, operand: Any) -> _Vector:
    """In what sums of products of bytes are kept: int32 where an instruction adds to it, else pairs in int16."""
    if operand is bytes64:
        return ints16
    return ints8 if _NAMES[isa] == "vnni" else shorts16


@intrinsic
def zero_products(typing_context: Any, isa: Any, operand: Any) -> Any:
    """Where `add_products` of vectors like `operand` begins."""
    vector = _sums_of(isa, operand)
    return vector(isa, operand), lambda context, builder, signature, values: ir.Constant(vector.backend, None)


@intrinsic
def add_products(typing_context: Any, isa: Any, sums: Any, unsigned: Any, signed: Any) -> Any:
    """sums + 32 or 64 products of an unsigned and a signed byte, for `widen_products`.

    Exact while the sum of the pairs that share an int16 stays within it: 8 times for nibbles, 8 * 2 * 15 * 127 = 30,480.
    """
    vector = _sums_of(isa, unsigned)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        total, left, right = values[1:]
        if vector is not shorts16:
            operands = [total, *(builder.bitcast(value, vector.backend) for value in (left, right))]
            name = f"llvm.x86.avx512.vpdpbusd.{32 * vector.backend.count}"
            return call_by_name(builder, name, vector.backend, operands)
        if _NAMES[isa] == "avx2":
            pairs = call_by_name(builder, "llvm.x86.avx2.pmadd.ub.sw", shorts16.backend, [left, right])
        else:
            pairs = _portable_u8_s8(builder, [left, right])
        return builder.add(total, pairs)

    return vector(isa, vector, unsigned, unsigned), generate


@intrinsic
def widen_products(typing_context: Any, isa: Any, total: Any, sums: Any) -> Any:
    """total (8 int32) + sums, each of which is four neighbouring products or a multiple of them; 64 bytes share 8 lanes."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        wide = values[2]
        if sums is ints16:
            undefined, lanes = ir.Constant(ints16.backend, ir.Undefined), ir.VectorType(_I32, 8)
            halves = [ir.Constant(lanes, list(range(start, start + 8))) for start in (0, 8)]
            wide = builder.add(*(builder.shuffle_vector(wide, undefined, half) for half in halves))
        elif sums is shorts16:
            ones = ir.Constant(shorts16.backend, [1] * 16)
            if _NAMES[isa] == "avx2":
                wide = call_by_name(builder, "llvm.x86.avx2.pmadd.wd", ints8.backend, [wide, ones])
            else:
                wide = _portable_s16_s16(builder, [wide, ones])
        return builder.add(values[1], wide)

    return ints8(isa, ints8, sums), generate


# LLVM turns store(select(a > old, a, old)) into a masked store, which is microcoded on some processors: name the maximum.
maximum_floats8 = _by_set(
    floats8,
    2,
    floats8,
    {
        "avx2": _pairs_by_name("llvm.x86.avx.max.ps.256", floats8),
        "portable": lambda builder, values: builder.select(builder.fcmp_ordered(">", *values), *values),
    },
)
# first * second + third; rounded once or twice, which the bounds allow for.
multiply_add_floats8 = _by_set(
    floats8,
    3,
    floats8,
    {
        "avx2": lambda builder, values: call_by_name(builder, "llvm.fma.v8f32", floats8.backend, values),
        "portable": lambda builder, values: builder.fadd(builder.fmul(values[0], values[1]), values[2]),
    },
)


@intrinsic
def store_bounds8(typing_context: Any, isa: Any, array: Any, offset: Any, value: Any) -> Any:
    """Store 8 floats as int16, truncated towards zero and saturated: 32767 stands for "at least 32767"."""
    by_name = _NAMES[isa] != "portable"

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        top = ir.Constant(floats8.backend, [32767.0] * 8)
        capped = builder.select(builder.fcmp_ordered("<", values[3], top), values[3], top)
        if by_name:  # below int32 this gives the least int32, as the generic conversion does
            whole = call_by_name(builder, "llvm.x86.avx.cvtt.ps2dq.256", ints8.backend, [capped])
        else:
            whole = call_by_name(builder, "llvm.fptosi.sat.v8i32.v8f32", ints8.backend, [capped])
        least = ir.Constant(ints8.backend, [-32768] * 8)
        whole = builder.select(builder.icmp_signed(">", whole, least), whole, least)
        pointer = pointer_at(context, builder, signature.args[1], values[1], values[2], _FLOATS8_OF_SHORTS)
        builder.store(builder.trunc(whole, _FLOATS8_OF_SHORTS), pointer, align=1)
        return context.get_dummy_value()

    return types.void(isa, array, types.intp, floats8), generate


# -- generic operations -------------------------------------------------------------------------------------------------


@intrinsic
def low_nibbles(typing_context: Any, packed: Any) -> Any:
    """The low four bits of each byte."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.and_(values[0], ir.Constant(packed.backend, [15] * packed.backend.count))

    return packed(packed), generate


@intrinsic
def high_nibbles(typing_context: Any, packed: Any) -> Any:
    """The high four bits of each byte."""
    count = packed.backend.count
    shorts = ir.VectorType(_I16, count // 2)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        shifted = builder.lshr(builder.bitcast(values[0], shorts), ir.Constant(shorts, [4] * (count // 2)))
        return builder.and_(builder.bitcast(shifted, packed.backend), ir.Constant(packed.backend, [15] * count))

    return packed(packed), generate


@intrinsic
def widen_bytes16(typing_context: Any, values: Any) -> Any:
    """16 signed bytes as int16."""
    return shorts16(bytes16), lambda context, builder, signature, values: builder.sext(values[0], shorts16.backend)


@intrinsic
def ints8_to_floats8(typing_context: Any, values: Any) -> Any:
    """8 int32 as float32."""
    return floats8(ints8), lambda context, builder, signature, values: builder.sitofp(values[0], floats8.backend)


@intrinsic
def floats8_to_doubles8(typing_context: Any, values: Any) -> Any:
    """8 float32 as float64."""
    return doubles8(floats8), lambda context, builder, signature, values: builder.fpext(values[0], doubles8.backend)


@intrinsic
def load_doubles8(typing_context: Any, array: Any, offset: Any) -> Any:
    """8 float64."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load(
            pointer_at(context, builder, signature.args[0], values[0], values[1], doubles8.backend), align=1
        )

    return doubles8(array, types.intp), generate


@intrinsic
def load_bfloats8(typing_context: Any, array: Any, offset: Any) -> Any:
    """8 bfloat16 as float32."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = pointer_at(context, builder, signature.args[0], values[0], values[1], _FLOATS8_OF_SHORTS)
        wide = builder.zext(builder.load(pointer, align=1), ints8.backend)
        return builder.bitcast(builder.shl(wide, ir.Constant(ints8.backend, [16] * 8)), floats8.backend)

    return floats8(array, types.intp), generate


@intrinsic
def load_splat_floats8(typing_context: Any, array: Any, offset: Any) -> Any:
    """One float32 in all 8 lanes."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = pointer_at(context, builder, signature.args[0], values[0], values[1], _F32)
        return _broadcast(builder, floats8, builder.load(pointer, align=4))

    return floats8(array, types.intp), generate


@intrinsic
def penalty_floats8(typing_context: Any, bits: Any) -> Any:
    """0 in the lanes whose bit is set, minus infinity in the others."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        lanes = builder.bitcast(values[0], ir.VectorType(_I1, 8))
        none, infinite = ir.Constant(floats8.backend, [0.0] * 8), ir.Constant(floats8.backend, [float("-inf")] * 8)
        return builder.select(lanes, none, infinite)

    return floats8(types.uint8), generate


@intrinsic
def at_least_shorts16(typing_context: Any, values: Any, threshold: Any) -> Any:
    """A bit for each of 16 lanes: values >= threshold."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.zext(builder.bitcast(builder.icmp_signed(">=", *values), _I16), _I32)

    return types.int32(shorts16, shorts16), generate


@intrinsic
def sum_doubles8(typing_context: Any, values: Any) -> Any:
    """((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7)): halves are added until one is left, in this order on every processor."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        vector = values[0]
        while vector.type.count > 1:
            half = vector.type.count // 2
            lanes, undefined = ir.VectorType(_I32, half), ir.Constant(vector.type, ir.Undefined)
            low = builder.shuffle_vector(vector, undefined, ir.Constant(lanes, list(range(half))))
            high = builder.shuffle_vector(vector, undefined, ir.Constant(lanes, list(range(half, 2 * half))))
            vector = builder.fadd(low, high)
        return builder.extract_element(vector, ir.Constant(_I32, 0))

    return types.float64(doubles8), generate


@intrinsic
def trailing_zeros(typing_context: Any, value: Any) -> Any:
    """The position of the lowest set bit; the value must not be 0."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return call_by_name(builder, "llvm.cttz.i32", _I32, [values[0], ir.Constant(_I1, 1)])

    return types.int32(types.int32), generate


def _prefetcher(locality: int) -> Any:
    @intrinsic
    def ask(typing_context: Any, array: Any, offset: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            pointer = pointer_at(context, builder, signature.args[0], values[0], values[1], _I8)
            read, keep, data = (ir.Constant(_I32, value) for value in (0, locality, 1))
            call_by_name(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, read, keep, data])
            return context.get_dummy_value()

        return types.void(array, types.intp), generate

    return ask


# Ask for the cache line at a byte offset; any offset is harmless, and a processor may ignore it.
prefetch = _prefetcher(3)
# The same for a line that is read once: it need not stay in the caches, where it would replace what is used again.
prefetch_once = _prefetcher(0)
