"""What stands between the two products of a feed-forward layer: an activation of each of some ten thousand numbers.

GELU, which most encoders use, takes the form of an instruction set, like the tiles of `tiles.py`: the loop that LLVM makes of
its formula takes one and a half times as long. The others are plain loops.
"""

# Numba infers the types inside kernels; mypy cannot follow NumPy scalars through them
# mypy: disable-error-code="assignment, arg-type, no-any-return, return-value"

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from llmrec_fast.kernels.cpu.tiles import Emitter, lanes, power_of_two, ratio, shape_of
from llmrec_fast.kernels.jit import jit

ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "silu")
_GELU, _GELU_TANH, _RELU = range(3)
# elementwise loops: no reordering of sums, so that the split constants of `_exponential` keep their meaning
_ELEMENTWISE = {"contract", "nsz", "arcp", "nnan", "ninf"}
_f = np.float32
# registers of GELU side by side: more of them have to be put aside on the way
_BLOCK = 4
# erf(x) = x P(x^2) / Q(x^2) within 3e-7, for |x| <= 4 (the rational approximation of Eigen and XLA), highest power first
_NUMERATOR = (
    -2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05, -7.34990630326855e-04,
    -2.95459980854025e-03, -1.60960333262415e-02,
)  # fmt: skip
_DENOMINATOR = (
    -1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03, -1.42647390514189e-02
)  # fmt: skip


def _gelu_of(count: int) -> Any:
    @intrinsic
    def gelu(typing_context: Any, isa: Any, values: Any, at: Any) -> Any:
        width = shape_of(isa).lanes

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit = Emitter(context, builder)
            first = emit.data(signature.args[1], arguments[1], arguments[2])
            places = [emit.at(first, emit.index(4 * width * number)) for number in range(count)]
            vector = ir.VectorType(ir.FloatType(), width)
            results = _gelu(emit, [emit.load(place, vector, 4) for place in places], width)
            for place, result in zip(places, results, strict=True):
                emit.store(result, place, 4)
            return context.get_dummy_value()

        return types.void(isa, values, types.intp), generate

    return gelu


# x (1 + erf(x / sqrt 2)) / 2 of some registers from an offset on, in place; a number's result depends on the number alone.
_gelu_block, _gelu_register = _gelu_of(_BLOCK), _gelu_of(1)


def _gelu(emit: Emitter, xs: list[Any], width: int) -> list[Any]:
    """Of vectors, each step for all of them before the next, as in `softmax.py`."""
    builder, vector = emit.builder, ir.VectorType(ir.FloatType(), width)

    def fused(a: list[Any], b: list[Any], c: list[Any]) -> list[Any]:
        name = f"llvm.fma.v{width}f32"
        return [emit.call(name, vector, *operands) for operands in zip(a, b, c, strict=True)]

    def same(value: float) -> list[Any]:
        return [emit.constant(value, width)] * len(xs)

    def times(a: list[Any], b: list[Any]) -> list[Any]:
        return [builder.fmul(*operands) for operands in zip(a, b, strict=True)]

    def polynomial(coefficients: tuple[float, ...], squares: list[Any]) -> list[Any]:
        sums = same(coefficients[0])
        for coefficient in coefficients[1:]:
            sums = fused(sums, squares, same(coefficient))
        return sums

    scaled = times(xs, same(0.70710678))
    scaled = [emit.smaller(emit.larger(x, emit.constant(-4.0, width)), emit.constant(4.0, width)) for x in scaled]
    squares = times(scaled, scaled)
    dividends = times(scaled, polynomial(_NUMERATOR, squares))
    divisors = polynomial(_DENOMINATOR, squares)
    errors = [builder.fdiv(*operands) for operands in zip(dividends, divisors, strict=True)]
    halves = times(xs, same(0.5))
    return fused(halves, errors, halves)


@jit(fastmath=_ELEMENTWISE)
def activate(isa, activation, values):
    """The function at place `activation` of `ACTIVATIONS` of each of `values`, in place.

    What follows `values` up to a whole register must be writable, and may become anything.
    """
    if activation == _GELU:
        block = _BLOCK * lanes(isa)
        blocks = len(values) // block * block
        for place in range(0, blocks, block):
            _gelu_block(isa, values, place)
        for place in range(blocks, len(values), lanes(isa)):
            _gelu_register(isa, values, place)
    elif activation == _GELU_TANH:
        for place in range(len(values)):
            x = values[place]
            # 1 / (1 + exp(-2 u)) = (1 + tanh u) / 2
            values[place] = x * _logistic(_f(1.5957691216) * (x + _f(0.044715) * x * x * x))
    elif activation == _RELU:
        for place in range(len(values)):
            values[place] = max(values[place], _f(0))
    else:
        for place in range(len(values)):
            values[place] = values[place] * _logistic(values[place])


@jit(fastmath=_ELEMENTWISE, inline=True)
def _exponential(x):
    """exp(x) for x <= 0, within two units of the last place (Cephes' expf); below -87, exp(-87)."""
    x = x if x > _f(-87) else _f(-87)
    whole = np.int32(x * _f(1.44269504) - _f(0.5))
    rest = x - _f(whole) * _f(0.693359375) - _f(whole) * _f(-2.12194440e-4)
    y = _f(1.9875691500e-4)
    y = y * rest + _f(1.3981999507e-3)
    y = y * rest + _f(8.3334519073e-3)
    y = y * rest + _f(4.1665795894e-2)
    y = y * rest + _f(1.6666665459e-1)
    y = y * rest + _f(5.0000001201e-1)
    return (y * rest * rest + rest + _f(1)) * power_of_two(whole)


@jit(fastmath=_ELEMENTWISE, inline=True)
def _logistic(x):
    power = _exponential(-abs(x))
    return ratio(_f(1) if x >= _f(0) else power, _f(1) + power)
