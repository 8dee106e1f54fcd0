"""Run a model's graph: token ids and lengths in, token embeddings out, behind one small protocol for every device.

Here is ONNX Runtime on the CPU, for the package's own graphs and for ONNX files of any architecture; devices.py chooses.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from llmrec_fast.arrays import Float32Array
from llmrec_fast.encoding.graph_builder import IDS, LENGTHS, OUTPUT, TYPES, Graph
from llmrec_fast.encoding.tokens import Int32Array
from llmrec_fast.errors import CorruptFile, InvalidInput, MissingDependency

_NUMPY_TYPES: Mapping[str, type[np.generic]] = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
_TOKEN_OUTPUTS = ("token_embeddings", "last_hidden_state")


class Session(Protocol):
    """A loaded model on one device. `run` may be called by several threads at once."""

    hidden: int
    device: str

    def run(self, ids: Int32Array, lengths: Int32Array) -> Float32Array:
        """Token embeddings (batch, time, hidden) of right-padded `ids` (batch, time) with `lengths` (batch,) real tokens.

        Values at padding are meaningless.
        """
        ...


class GraphSession:
    """A graph built by this package, run by ONNX Runtime on the CPU."""

    device = "cpu"

    def __init__(self, graph: Graph, threads: int) -> None:
        onnxruntime = import_onnxruntime()
        options = _options(onnxruntime, threads)
        # the operators are fused already, and the extended level would undo the choice of layer norm
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        # the session copies the values (ONNX Runtime 1.19 to 1.32; a test watches it), so nothing here keeps them alive
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in graph.parameters.values()]
        options.add_external_initializers(list(graph.parameters), values)
        self._session = onnxruntime.InferenceSession(graph.model, options, providers=["CPUExecutionProvider"])
        self.hidden = graph.hidden
        self._vocabulary = graph.vocabulary

    def run(self, ids: Int32Array, lengths: Int32Array, types: Int32Array | None = None) -> Float32Array:
        """See `Session.run`; `types` (batch, time) for a graph that takes them.

        Raises `InvalidInput` for an id beyond the vocabulary.
        """
        check_vocabulary(ids, self._vocabulary)
        feed = {IDS: ids, LENGTHS: lengths} | ({} if types is None else {TYPES: types})
        output: Float32Array = self._session.run([OUTPUT], feed)[0]
        return output


class OnnxFileSession:
    """An ONNX file with the usual inputs (input_ids, attention_mask, token_type_ids) on the CPU."""

    device = "cpu"

    def __init__(self, path: Path, threads: int) -> None:
        onnxruntime = import_onnxruntime()
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), _options(onnxruntime, threads), providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            # ONNX Runtime's exceptions share no public base class; whichever it is, this file cannot be run
            raise CorruptFile(f"ONNX Runtime cannot load {path}: {error}") from error
        self._path = path
        self._types = {item.name: item.type for item in self._session.get_inputs()}
        unknown = [name for name in self._types if name not in ("input_ids", "attention_mask", "token_type_ids")]
        if unknown or "input_ids" not in self._types:
            raise InvalidInput(
                f"{path} has the inputs {', '.join(self._types)}; expected are input_ids and, optionally, attention_mask "
                "and token_type_ids"
            )
        for name, kind in self._types.items():
            if kind not in _NUMPY_TYPES:
                raise InvalidInput(f"{path}: the input {name} must be int32 or int64; it is {kind}")
        self._output, self.hidden = self._find_output(path)

    def run(self, ids: Int32Array, lengths: Int32Array) -> Float32Array:
        """See `Session.run`. Raises `InvalidInput` where the model cannot process the tokens."""
        arrays = {"input_ids": ids}
        if "attention_mask" in self._types:
            arrays["attention_mask"] = (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int32)
        if "token_type_ids" in self._types:
            arrays["token_type_ids"] = np.zeros_like(ids)
        feed = {name: array.astype(_NUMPY_TYPES[self._types[name]], copy=False) for name, array in arrays.items()}
        try:
            output = self._session.run([self._output], feed)[0]
        except Exception as error:
            # as above: no public base class
            raise InvalidInput(
                f"{self._path} cannot process {ids.shape[0]} texts of up to {ids.shape[1]} tokens: {error}"
            ) from error
        return np.asarray(output, dtype=np.float32)

    def _find_output(self, path: Path) -> tuple[str, int]:
        """The output with a vector a token: by its usual name, else the first with three dimensions."""
        outputs = {item.name: item.shape for item in self._session.get_outputs()}
        candidates = [name for name in _TOKEN_OUTPUTS if name in outputs]
        candidates += [name for name, shape in outputs.items() if len(shape) == 3]
        if not candidates:
            raise InvalidInput(
                f"{path} has the outputs {', '.join(outputs)}, none with a vector for each token (batch, time, columns); "
                "export the model without its pooling"
            )
        width = outputs[candidates[0]][-1]
        if isinstance(width, int):
            return candidates[0], width
        probe = self._session.run(
            [candidates[0]],
            {
                name: np.full((1, 1), int(name == "attention_mask"), _NUMPY_TYPES[kind])
                for name, kind in self._types.items()
            },
        )
        return candidates[0], int(probe[0].shape[-1])


def check_vocabulary(ids: Int32Array, vocabulary: int) -> None:
    """Raise `InvalidInput` for an id beyond the vocabulary, which would read beyond the model's table."""
    if ids.size and int(ids.max()) >= vocabulary:
        raise InvalidInput(
            f"the tokenizer gives the token {int(ids.max())}, but the model knows {vocabulary} tokens: "
            "tokenizer.json and the weights are not of the same model"
        )


def import_onnxruntime() -> Any:
    """The module; raises `MissingDependency` with the command that installs it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependency(
            "encoding with a transformer needs ONNX Runtime: pip install 'llmrec-fast[cpu]' (or pip install onnxruntime)"
        ) from error
    return onnxruntime


def _options(onnxruntime: Any, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # idle workers would spin for the next operator and hold the cores that the search after it needs
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors: what matters is raised
    return options
