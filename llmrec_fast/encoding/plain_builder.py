"""What graphs of standard ONNX operators are made with, for runtimes that lack ONNX Runtime's fused ones (TensorRT).

The graph is strongly typed: with float16, the matrix products are float16 and everything between them (bias, softmax, norms,
activation, rotation, residual) float32, so that no builder has to choose a precision. With int8, the products of the linear
layers read QuantizeLinear / DequantizeLinear pairs: weights with a scale an output column, activations with a scale and a
middle a row. TensorRT takes only constants as scales, has no zero points, and makes no int8 by itself (its DynamicQuantize
gives blocks of 4-bit and 8-bit floats). So a row x = middle + size * unit is brought to unit values from -1 to 1, which a pair
of the constant scale 1/127 rounds, and x W = size * (unit W) + middle * (column sums of W). Parameters are inside the file:
TensorRT's parser takes one buffer, of at most 2 GB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from llmrec_fast.arrays import Float32Array
from llmrec_fast.encoding.architectures import Activation
from llmrec_fast.encoding.graph_builder import OUTPUT
from llmrec_fast.encoding.weights import WeightFiles
from llmrec_fast.errors import InvalidInput

Precision = Literal["float32", "float16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "int8")
VERSION = 3  # of what the graphs of standard operators are: engines built from another are stale
_OPSET = 17
_IR_VERSION = 8
_LARGEST_FILE = (1 << 31) - (1 << 20)
_LEAST_SIZE = 1e-30  # of a row, so that zeros can be divided by it


@dataclass(frozen=True)
class PlainGraph:
    """A complete ONNX file in memory. Its inputs are those of its layout; the output is float32 in every precision."""

    model: bytes
    hidden: int
    max_length: int
    vocabulary: int
    precision: Precision


class _CodedRows(NamedTuple):
    """A tensor x whose rows are middle + size * near, but for rounding; `near` has passed through int8."""

    near: str
    size: str
    middle: str


class PlainGraphBuilder:
    """Each method adds one part and returns the name of its output, which is float32 everywhere but inside a product.

    Parameters
    ----------
    weights : where the parameters are read from.
    prefix : what every parameter's name begins with.
    precision : of the matrix products.

    Raises
    ------
    InvalidInput : another precision, or parameters beyond 2 GB.
    """

    def __init__(self, weights: WeightFiles, prefix: str, precision: Precision) -> None:
        if precision not in PRECISIONS:
            raise InvalidInput(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}")
        self._weights = weights
        self._prefix = prefix
        self._precision = precision
        self._nodes: list[Any] = []
        self._coded: dict[str, _CodedRows] = {}
        self._initializers: dict[str, Any] = {}
        self._bytes = 0

    def _linear(self, name: str, x: str, place: str, columns: int, rows: int, scale: float = 1.0) -> str:
        """X W + b, scaled; `rows` and `columns` are the stored matrix's."""
        weight, bias = self._read(f"{place}.weight", rows, columns), self._read(f"{place}.bias", rows)
        return self._linear_of(name, x, weight * np.float32(scale), bias * np.float32(scale))

    def _linear_of(self, name: str, x: str, weight: Float32Array, bias: Float32Array | None) -> str:
        """X W^T + b, of a matrix as it is stored: (columns of the output, columns of the input)."""
        matrix = np.ascontiguousarray(weight.T)
        if self._precision == "int8":
            product = self._product_of_codes(name, x, matrix)
        else:
            product = self._product(name, x, self._value(f"{name}_weight", self._in_precision(matrix)), constant=True)
        if bias is None:
            return product
        return self._node("Add", [product, self._value(f"{name}_bias", bias)], f"{name}_biased")

    def _product_of_codes(self, name: str, x: str, weight: Float32Array) -> str:
        """A product of int8 codes and back: what a runtime with int8 products computes in int8."""
        rows = self._coded.get(x) or self._code_rows(x)
        steps = np.maximum(np.abs(weight).max(axis=0), np.finfo(np.float32).tiny).astype(np.float32) / np.float32(127)
        codes = np.rint(weight / steps).clip(-127, 127).astype(np.int8)
        zeros = self._value(f"{name}_zeros", np.zeros(len(steps), np.int8))
        parts = [self._value(f"{name}_weight", codes), self._value(f"{name}_steps", steps), zeros]
        near_weight = self._node("DequantizeLinear", parts, f"{name}_weight_near", axis=1)
        product = self._node("MatMul", [rows.near, near_weight], f"{name}_unit_product")
        scaled = self._node("Mul", [product, rows.size], f"{name}_scaled")
        # of the rounded weights: where most of a row lies far from its middle, the two products' errors must cancel
        sums = self._value(f"{name}_sums", codes.sum(axis=0, dtype=np.int64).astype(np.float32) * steps)
        moved = self._node("Mul", [rows.middle, sums], f"{name}_moved")
        return self._node("Add", [scaled, moved], f"{name}_product")

    def _code_rows(self, x: str) -> _CodedRows:
        high = self._node("ReduceMax", [x], f"{x}_high", axes=[-1], keepdims=1)
        low = self._node("ReduceMin", [x], f"{x}_low", axes=[-1], keepdims=1)
        half = self._value("half", np.float32(0.5))
        middle = self._node("Mul", [self._node("Add", [high, low], f"{x}_both"), half], f"{x}_middle")
        reach = self._node("Sub", [high, middle], f"{x}_reach")
        size = self._node("Max", [reach, self._value("least_size", np.float32(_LEAST_SIZE))], f"{x}_size")
        unit = self._node("Div", [self._node("Sub", [x, middle], f"{x}_centred"), size], f"{x}_unit")
        pair = [self._value("code_step", np.float32(1 / 127)), self._value("zero_point", np.int8(0))]
        coded = self._node("QuantizeLinear", [unit, *pair], f"{x}_coded")
        self._coded[x] = _CodedRows(self._node("DequantizeLinear", [coded, *pair], f"{x}_near"), size, middle)
        return self._coded[x]

    def _product(self, name: str, left: str, right: str, *, constant: bool = False) -> str:
        """A matrix product in the graph's precision, float32 in and out; a `constant` right side has that precision already."""
        if self._precision != "float16":
            return self._node("MatMul", [left, right], f"{name}_product")
        left = self._half(left, f"{name}_left_half")
        right = right if constant else self._half(right, f"{name}_right_half")
        return self._single(self._node("MatMul", [left, right], f"{name}_half"), f"{name}_product")

    def _half(self, x: str, output: str) -> str:
        from onnx import TensorProto

        return self._node("Cast", [x], output, to=TensorProto.FLOAT16)

    def _single(self, x: str, output: str) -> str:
        from onnx import TensorProto

        return self._node("Cast", [x], output, to=TensorProto.FLOAT)

    def _in_precision(self, weight: Float32Array) -> Any:
        if self._precision != "float16":
            return weight
        largest = float(np.abs(weight).max(initial=0))
        if largest > float(np.finfo(np.float16).max):
            raise InvalidInput(f"a weight of {largest:g} is beyond float16; use precision='float32'")
        return weight.astype(np.float16)

    def _activate(self, x: str, kind: Activation, name: str) -> str:
        """GELU (arXiv 1606.08415) by erf or by tanh, ReLU, or SiLU."""
        if kind == "relu":
            return self._node("Relu", [x], name)
        if kind == "silu":
            return self._node("Mul", [x, self._node("Sigmoid", [x], f"{name}_gate")], name)
        half, one = self._value("half", np.float32(0.5)), self._value("one_float", np.float32(1))
        if kind == "gelu":
            root = self._value("root_half", np.float32(np.sqrt(0.5)))
            curve = self._node("Erf", [self._node("Mul", [x, root], f"{name}_scaled")], f"{name}_curve")
        else:
            cubic = self._value("cubic", np.float32(0.044715))
            root = self._value("root_two_over_pi", np.float32(np.sqrt(2 / np.pi)))
            square = self._node("Mul", [x, x], f"{name}_square")
            factor = self._node("Add", [self._node("Mul", [square, cubic], f"{name}_cubic"), one], f"{name}_factor")
            inside = self._node("Mul", [self._node("Mul", [x, factor], f"{name}_sum"), root], f"{name}_inside")
            curve = self._node("Tanh", [inside], f"{name}_curve")
        gate = self._node("Mul", [self._node("Add", [curve, one], f"{name}_raised"), half], f"{name}_gate")
        return self._node("Mul", [x, gate], name)

    def _read(self, name: str, *shape: int | None) -> Float32Array:
        return self._weights.read(self._prefix + name, *shape)

    def _value(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        if name not in self._initializers:
            array = np.asarray(value)
            self._bytes += array.nbytes
            if self._bytes > _LARGEST_FILE:
                raise InvalidInput("the model's parameters are beyond the 2 GB of one ONNX file; use device='cuda'")
            self._initializers[name] = numpy_helper.from_array(array, name)
        return name

    def _node(
        self, operator: str, inputs: Sequence[str], output: str, *, more: Sequence[str] = (), **attributes: Any
    ) -> str:
        from onnx import helper

        self._nodes.append(helper.make_node(operator, inputs, [output, *more], **attributes))
        return output

    def _finish(self, inputs: Mapping[str, Sequence[str]], hidden: int, domains: Sequence[str] = ()) -> bytes:
        """The file; the last node's output is its own. `inputs` are int32, with names for their axes."""
        from onnx import TensorProto, helper

        self._nodes[-1].output[0] = OUTPUT
        rows = next(iter(inputs.values()))
        graph = helper.make_graph(
            self._nodes,
            "encoder",
            [helper.make_tensor_value_info(name, TensorProto.INT32, axes) for name, axes in inputs.items()],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [*rows, hidden])],
            list(self._initializers.values()),
        )
        opsets = [helper.make_opsetid("", _OPSET), *(helper.make_opsetid(domain, 1) for domain in domains)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="llmrec_fast")
        return bytes(model.SerializeToString())
