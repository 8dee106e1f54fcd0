"""What the graphs of all architectures are made with: nodes, parameters by name, and the model that holds both.

Parameters stay outside the serialised graph, as arrays, so that building never copies them and 2 GB are no limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmrec_fast.arrays import Float32Array
from llmrec_fast.encoding.architectures import Activation
from llmrec_fast.encoding.weights import WeightFiles

IDS, LENGTHS, TYPES, OUTPUT = "input_ids", "lengths", "token_types", "token_embeddings"
FUSED = "com.microsoft"  # the domain of ONNX Runtime's own operators
_OPSET = 17
_IR_VERSION = 8


@dataclass(frozen=True)
class Graph:
    """A serialised ONNX model and the arrays it refers to by name.

    Inputs: `input_ids` (batch, time) int32, `lengths` (batch,) int32 and, in a graph for pairs, `token_types` (batch, time)
    int32. Output: `token_embeddings` (batch, time, hidden) float32, meaningless at positions from a row's length on.
    """

    model: bytes
    parameters: dict[str, Float32Array]
    hidden: int
    max_length: int
    vocabulary: int


class GraphBuilder:
    """Collects nodes and parameters; each method of a builder adds one part and returns the name of its output.

    Parameters
    ----------
    weights : where the parameters are read from.
    prefix : what every parameter's name begins with.
    """

    def __init__(self, weights: WeightFiles, prefix: str) -> None:
        self._weights = weights
        self._prefix = prefix
        self._nodes: list[Any] = []
        self._parameters: dict[str, Float32Array] = {}

    def _read(self, name: str, *shape: int | None) -> Float32Array:
        return self._weights.read(self._prefix + name, *shape)

    def _parameter(self, name: str, array: Float32Array) -> str:
        self._parameters[name] = np.ascontiguousarray(array, dtype=np.float32)
        return name

    def _constant(self, name: str, value: np.ndarray[Any, np.dtype[Any]]) -> str:
        from onnx import helper, numpy_helper

        self._nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value)))
        return name

    def _node(
        self, operator: str, inputs: list[str], output: str, extra_outputs: list[str] | None = None, **attributes: Any
    ) -> str:
        from onnx import helper

        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        self._nodes.append(helper.make_node(operator, inputs, [output, *(extra_outputs or [])], **attributes))
        return output

    def _activate(self, x: str, activation: Activation, output: str) -> str:
        if activation == "gelu":
            return self._node("Gelu", [x], output, domain=FUSED)
        if activation == "gelu_tanh":
            return self._node("FastGelu", [x], output, domain=FUSED)
        if activation == "relu":
            return self._node("Relu", [x], output)
        return self._node("QuickGelu", [x], output, domain=FUSED, alpha=1.0)  # x * sigmoid(x)

    def _finish(self, hidden: int, max_length: int, vocabulary: int, extra_inputs: Sequence[str] = ()) -> Graph:
        """The graph, the last node's output being its own; `extra_inputs` are (batch, time) int32 beside the ids."""
        from onnx import TensorProto, helper

        # renaming the last output saves an identity node
        self._nodes[-1].output[0] = OUTPUT
        inputs = [(IDS, ["batch", "time"]), (LENGTHS, ["batch"]), *((name, ["batch", "time"]) for name in extra_inputs)]
        graph = helper.make_graph(
            self._nodes,
            "encoder",
            [helper.make_tensor_value_info(name, TensorProto.INT32, shape) for name, shape in inputs],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", "time", hidden])],
            [_external_tensor(name, array.shape) for name, array in self._parameters.items()],
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", _OPSET), helper.make_opsetid(FUSED, 1)],
            ir_version=_IR_VERSION,
            producer_name="llmrec_fast",
        )
        return Graph(bytes(model.SerializeToString()), self._parameters, hidden, max_length, vocabulary)


def _external_tensor(name: str, shape: tuple[int, ...]) -> Any:
    """An initialiser whose values the session gets by name; the location is required by the format and never opened."""
    from onnx import TensorProto

    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "parameters"
    return tensor
