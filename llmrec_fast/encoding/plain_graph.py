"""The BERT-family graph in standard ONNX operators only, for runtimes that lack ONNX Runtime's fused ones (TensorRT).

The graph is strongly typed: with float16, the matrix products are float16 and everything between them (bias, softmax, layer
norm, activation, residual) float32, so that no builder has to choose a precision. With int8, the products of the linear layers
read QuantizeLinear / DequantizeLinear pairs: weights with a scale an output column, activations with a scale and a middle a
row. TensorRT takes only constants as scales, has no zero points, and makes no int8 by itself (its DynamicQuantize gives
blocks of 4-bit and 8-bit floats). So a row x = middle + size * unit is brought to unit values from -1 to 1, which a pair of
the constant scale 1/127 rounds, and x W = size * (unit W) + middle * (column sums of W). Parameters are inside the file:
TensorRT's parser takes one buffer, of at most 2 GB.

Texts are padded to the longest of their batch. TensorRT 11 has an attention layer that takes packed texts, but not from an ONNX
file, and whether it has a kernel for a model's head size shows only on a GPU: none was at hand to tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from llmrec_fast.arrays import Float32Array
from llmrec_fast.encoding.architectures import Architecture
from llmrec_fast.encoding.graph_builder import IDS, LENGTHS, OUTPUT
from llmrec_fast.encoding.relative_positions import bias_by_distance
from llmrec_fast.encoding.weights import WeightFiles
from llmrec_fast.errors import InvalidInput

Precision = Literal["float32", "float16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "int8")
VERSION = 2  # of what this file writes: engines built from another are stale
_OPSET = 17
_IR_VERSION = 8
_LARGEST_FILE = (1 << 31) - (1 << 20)
_MASKED = -10000.0
_LEAST_SIZE = 1e-30  # of a row, so that zeros can be divided by it


@dataclass(frozen=True)
class PlainGraph:
    """A complete ONNX file in memory. Inputs and output as `graph.Graph`; the output is float32 in every precision."""

    model: bytes
    hidden: int
    max_length: int
    vocabulary: int
    precision: Precision


def build_plain_graph(architecture: Architecture, weights: WeightFiles, precision: Precision = "float32") -> PlainGraph:
    """The graph of a model, with its matrix products in `precision`.

    Raises
    ------
    CorruptFile : a parameter is missing or has the wrong shape.
    InvalidInput : another precision, or parameters beyond 2 GB.
    """
    if precision not in PRECISIONS:
        raise InvalidInput(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}")
    return _Builder(architecture, weights, precision).build()


class _CodedRows(NamedTuple):
    """A tensor x whose rows are middle + size * near, but for rounding; `near` has passed through int8."""

    near: str
    size: str
    middle: str


class _Builder:
    """Each method adds one part and returns the name of its output, which is float32 everywhere but inside a product."""

    def __init__(self, architecture: Architecture, weights: WeightFiles, precision: Precision) -> None:
        self._architecture = architecture
        self._weights = weights
        self._precision = precision
        self._nodes: list[Any] = []
        self._coded: dict[str, _CodedRows] = {}
        self._initializers: dict[str, Any] = {}
        self._bytes = 0

    def build(self) -> PlainGraph:
        architecture = self._architecture
        states = self._embeddings()
        mask = self._mask()
        for layer in range(architecture.layers):
            states = self._feed_forward(layer, self._attention(layer, states, mask))
        self._nodes[-1].output[0] = OUTPUT
        return PlainGraph(
            self._serialise(), architecture.hidden, architecture.max_length, architecture.vocabulary, self._precision
        )

    def _embeddings(self) -> str:
        architecture, hidden = self._architecture, self._architecture.hidden
        words = self._read("embeddings.word_embeddings.weight", architecture.vocabulary, hidden)
        positions = self._read("embeddings.position_embeddings.weight", architecture.positions, hidden)
        if architecture.token_types:
            positions = positions + self._read("embeddings.token_type_embeddings.weight", None, hidden)[0]
        self._times()
        self._node("Gather", [self._value("words", words), IDS], "word_rows", axis=0)
        places = "keys" if architecture.padding_id is None else self._position_ids(architecture.padding_id)
        self._node("Gather", [self._value("positions", positions), places], "position_rows", axis=0)
        return self._norm(
            "embeddings", self._node("Add", ["word_rows", "position_rows"], "rows"), "embeddings.LayerNorm"
        )

    def _times(self) -> None:
        """`keys`: 0 .. time - 1, int64."""
        self._node("Shape", [IDS], "time", start=1, end=2)
        self._node("Squeeze", ["time"], "time_scalar")
        zero, one = self._value("zero", np.array(0, np.int64)), self._value("one", np.array(1, np.int64))
        self._node("Range", [zero, "time_scalar", one], "keys")

    def _position_ids(self, padding_id: int) -> str:
        from onnx import TensorProto

        padding = self._value("padding_id", np.array(padding_id, np.int32))
        self._node("Equal", [IDS, padding], "is_padding")
        self._node("Not", ["is_padding"], "is_token")
        self._node("Cast", ["is_token"], "token_ones", to=TensorProto.INT32)
        self._node("CumSum", ["token_ones", self._value("time_axis", np.array(1, np.int32))], "token_count")
        self._node("Mul", ["token_count", "token_ones"], "token_rank")
        return self._node("Add", ["token_rank", padding], "position_ids")

    def _mask(self) -> str:
        """(batch, 1, 1, time): 0 for real keys, -10000 for padding; with MPNet's bias (batch, heads, time, time)."""
        from onnx import TensorProto

        self._node("Cast", [LENGTHS], "lengths_wide", to=TensorProto.INT64)
        self._node("Unsqueeze", ["lengths_wide", self._value("second", np.array([1], np.int64))], "length_column")
        self._node("Less", ["keys", "length_column"], "is_real")
        real, masked = self._value("real", np.float32(0)), self._value("masked", np.float32(_MASKED))
        self._node("Where", ["is_real", real, masked], "mask_rows")
        mask = self._node("Unsqueeze", ["mask_rows", self._value("middle", np.array([1, 2], np.int64))], "mask")
        if not self._architecture.relative_buckets:
            return mask
        architecture = self._architecture
        table = self._read("encoder.relative_attention_bias.weight", architecture.relative_buckets, architecture.heads)
        longest = architecture.max_length
        by_distance = self._value("bias_by_distance", bias_by_distance(table, longest))
        self._node("Unsqueeze", ["keys", "second"], "queries")
        self._node("Sub", ["keys", "queries"], "distance")
        self._node("Add", ["distance", self._value("longest", np.array(longest - 1, np.int64))], "distance_row")
        self._node("Gather", [by_distance, "distance_row"], "head_bias", axis=1)
        self._node("Unsqueeze", ["head_bias", self._value("first", np.array([0], np.int64))], "bias")
        return self._node("Add", ["mask", "bias"], "mask_and_bias")

    def _attention(self, layer: int, states: str, mask: str) -> str:
        names, hidden, heads = self._architecture.names, self._architecture.hidden, self._architecture.heads
        place = names.layer.format(layer)
        width = hidden // heads
        split = self._value("split_heads", np.array([0, 0, heads, width], np.int64))
        joined = self._value("join_heads", np.array([0, 0, hidden], np.int64))
        tensors = {}
        for part, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
            # the scale of the scores goes into the query's weights: float16 scores stay small
            scale = 1 / float(np.sqrt(width)) if part == "query" else 1.0
            flat = self._linear(f"{part}_{layer}", states, place + getattr(names, part), hidden, hidden, scale)
            heads_apart = self._node("Reshape", [flat, split], f"{part}_{layer}_split")
            tensors[part] = self._node("Transpose", [heads_apart], f"{part}_{layer}_heads", perm=order)
        scores = self._product(f"scores_{layer}", tensors["query"], tensors["key"])
        masked = self._node("Add", [scores, mask], f"masked_{layer}")
        shares = self._node("Softmax", [masked], f"shares_{layer}", axis=-1)
        context = self._product(f"context_{layer}", shares, tensors["value"])
        together = self._node("Transpose", [context], f"context_{layer}_back", perm=[0, 2, 1, 3])
        flat = self._node("Reshape", [together, joined], f"context_{layer}_flat")
        output = self._linear(f"attention_{layer}", flat, place + names.attention_output, hidden, hidden)
        total = self._node("Add", [output, states], f"attention_{layer}_sum")
        return self._norm(f"attention_{layer}_norm", total, place + names.attention_norm)

    def _feed_forward(self, layer: int, states: str) -> str:
        names, place = self._architecture.names, self._architecture.names.layer.format(layer)
        hidden, intermediate = self._architecture.hidden, self._architecture.intermediate
        inner = self._linear(f"inner_{layer}", states, place + names.intermediate, hidden, intermediate)
        outer = self._linear(f"outer_{layer}", self._activate(layer, inner), place + names.output, intermediate, hidden)
        total = self._node("Add", [outer, states], f"outer_{layer}_sum")
        return self._norm(f"layer_{layer}", total, place + names.output_norm)

    def _activate(self, layer: int, x: str) -> str:
        """GELU (arXiv 1606.08415) by erf or by tanh, ReLU, or SiLU."""
        kind, name = self._architecture.activation, f"activated_{layer}"
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

    def _linear(self, name: str, x: str, place: str, columns: int, rows: int, scale: float = 1.0) -> str:
        """X W + b, scaled; `rows` and `columns` are the stored matrix's."""
        weight = np.ascontiguousarray(self._read(f"{place}.weight", rows, columns).T) * np.float32(scale)
        bias = self._value(f"{name}_bias", self._read(f"{place}.bias", rows) * np.float32(scale))
        if self._precision == "int8":
            product = self._product_of_codes(name, x, weight)
        else:
            product = self._product(name, x, self._value(f"{name}_weight", self._in_precision(weight)), constant=True)
        return self._node("Add", [product, bias], f"{name}_biased")

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
        from onnx import TensorProto

        if self._precision != "float16":
            return self._node("MatMul", [left, right], f"{name}_product")
        half = TensorProto.FLOAT16
        left = self._node("Cast", [left], f"{name}_left_half", to=half)
        right = right if constant else self._node("Cast", [right], f"{name}_right_half", to=half)
        product = self._node("MatMul", [left, right], f"{name}_half")
        return self._node("Cast", [product], f"{name}_product", to=TensorProto.FLOAT)

    def _in_precision(self, weight: Float32Array) -> Any:
        if self._precision != "float16":
            return weight
        largest = float(np.abs(weight).max(initial=0))
        if largest > float(np.finfo(np.float16).max):
            raise InvalidInput(f"a weight of {largest:g} is beyond float16; use precision='float32'")
        return weight.astype(np.float16)

    def _norm(self, name: str, x: str, place: str) -> str:
        prefix, known, hidden = self._architecture.prefix, self._weights.names(), self._architecture.hidden
        scale, shift = ("weight", "bias") if f"{prefix}{place}.gamma" not in known else ("gamma", "beta")
        values = [
            self._value(f"{name}_scale", self._read(f"{place}.{scale}", hidden)),
            self._value(f"{name}_shift", self._read(f"{place}.{shift}", hidden)),
        ]
        return self._node("LayerNormalization", [x, *values], name, axis=-1, epsilon=self._architecture.epsilon)

    def _read(self, name: str, *shape: int | None) -> Float32Array:
        return self._weights.read(self._architecture.prefix + name, *shape)

    def _value(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        if name not in self._initializers:
            array = np.asarray(value)
            self._bytes += array.nbytes
            if self._bytes > _LARGEST_FILE:
                raise InvalidInput("the model's parameters are beyond the 2 GB of one ONNX file; use device='cuda'")
            self._initializers[name] = numpy_helper.from_array(array, name)
        return name

    def _node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self._nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def _serialise(self) -> bytes:
        from onnx import TensorProto, helper

        outputs = [
            helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", "time", self._architecture.hidden])
        ]
        graph = helper.make_graph(
            self._nodes,
            "encoder",
            [
                helper.make_tensor_value_info(IDS, TensorProto.INT32, ["batch", "time"]),
                helper.make_tensor_value_info(LENGTHS, TensorProto.INT32, ["batch"]),
            ],
            outputs,
            list(self._initializers.values()),
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION, producer_name="llmrec_fast"
        )
        return bytes(model.SerializeToString())
