"""Small ONNX models of rows, built from trained parameters and run by ONNX Runtime: what serves learned scorers."""

from __future__ import annotations

from typing import Any

import numpy as np

from llmrec_fast.errors import CorruptFile, MissingDependency

_OPSET = 17
_IR_VERSION = 8
INPUT = "rows"


def open_session(model: bytes, what: str, threads: int | None = None) -> Any:
    """An ONNX Runtime session on the CPU that threads may share; `what` names the model in messages, in the singular.

    Raises
    ------
    CorruptFile : the bytes are no model.
    MissingDependency : ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependency(
            f"{what} is served by ONNX Runtime: pip install 'llmrec-fast[cpu]' (or pip install onnxruntime)"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # ONNX Runtime's exceptions share no public base class; whichever it is, these bytes cannot be run
        raise CorruptFile(f"ONNX Runtime cannot load {what}: {error}") from error


def serialise(nodes: list[Any], values: dict[str, Any], width: int, output: tuple[str, list[Any]]) -> bytes:
    """The model of `nodes` over `rows` (n, width) float32 and constant `values`, with one float32 `output` (name, shape)."""
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        nodes,
        "scorer",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], producer_name="llmrec_fast")
    model.ir_version = _IR_VERSION
    serialised: bytes = model.SerializeToString()
    return serialised


def constants(model: bytes) -> dict[str, Any]:
    """The constant values of a model that `serialise` wrote, by name."""
    import onnx
    from onnx import numpy_helper

    return {value.name: numpy_helper.to_array(value) for value in onnx.load_from_string(model).graph.initializer}
