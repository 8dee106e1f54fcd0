"""Trained towers as ONNX models, built from their parameters and run by ONNX Runtime: torch is not needed to serve them."""

from __future__ import annotations

from typing import Any

import numpy as np

from llmrec_fast.arrays import ArrayLike, Float32Array, as_matrix
from llmrec_fast.ranking.onnx_models import INPUT, open_session, serialise

LEAK = 0.01


class Tower:
    """A map of rows that an ONNX model holds. Threads may share one."""

    def __init__(self, model: bytes, threads: int | None = None) -> None:
        """Raises `CorruptFile` for bytes that are no model, `MissingDependency` without ONNX Runtime."""
        self.model = model
        self._session = open_session(model, "the adapter tower", threads)
        self._width = int(self._session.get_inputs()[0].shape[-1])

    def __call__(self, rows: ArrayLike) -> Float32Array:
        """(n, dimension) float32 rows of norm 1 from (n, width); a row of zeros stays one."""
        given = as_matrix(rows, "rows", dimension=self._width)
        if not len(given):
            return np.zeros((0, int(self._session.get_outputs()[0].shape[-1])), np.float32)
        output: Float32Array = self._session.run(None, {INPUT: given})[0]
        # nothing known of an item gives nothing to adapt: the towers' biases alone would make all such items alike
        output[~given.any(axis=1)] = 0
        return output


class Attention:
    """Weights of a history's items from an ONNX model; see `attention_model`."""

    def __init__(self, model: bytes, threads: int | None = None) -> None:
        """As `Tower`."""
        self._tower = Tower(model, threads)
        self.model = model

    def weights(self, vectors: Float32Array) -> Float32Array:
        """(h,) float32 that sum to 1, for the history vectors (h, d) of one user's items, from old to new."""
        output: Float32Array = self._tower._session.run(None, {INPUT: np.ascontiguousarray(vectors[::-1])})[0]
        return output[::-1]


def tower_model(layers: list[tuple[Float32Array, Float32Array]]) -> bytes:
    """ONNX: `rows` (n, width) -> fully connected layers with leaky ReLU between -> rows of norm 1.

    Parameters
    ----------
    layers : (weight (out, in), bias (out,)) each, first to last.
    """
    from onnx import helper

    nodes: list[Any] = []
    values: dict[str, Any] = {}
    name = INPUT
    for place, (weight, bias) in enumerate(layers):
        values |= {f"weight_{place}": weight, f"bias_{place}": bias}
        nodes.append(helper.make_node("Gemm", [name, f"weight_{place}", f"bias_{place}"], [f"sum_{place}"], transB=1))
        name = f"sum_{place}"
        if place < len(layers) - 1:
            nodes.append(helper.make_node("LeakyRelu", [name], [f"active_{place}"], alpha=LEAK))
            name = f"active_{place}"
    nodes.append(helper.make_node("LpNormalization", [name], ["adapted"], axis=1, p=2))
    return serialise(nodes, values, layers[0][0].shape[1], ("adapted", ["n", len(layers[-1][1])]))


def attention_model(query: Float32Array, key: Float32Array, age: Float32Array) -> bytes:
    """ONNX: `rows` (h, d), a history's vectors from new to old -> (h,) attention weights of its items.

    `softmax over h of (Q z_0) . (K z_h) + age_h`: the latest item asks, every item answers, and its age counts. Items older
    than `age` reaches get the last age's.

    Parameters
    ----------
    query, key : (d, d), applied as `z @ Q`, the root of d included in one of them.
    age : (recent,).
    """
    from onnx import helper

    values: dict[str, Any] = {
        "query": query,
        "key": key,
        "age": age,
        "first": np.array([0], np.int64),
        "zero": np.array(0, np.int64),
        "one": np.array(1, np.int64),
        "oldest": np.array(len(age) - 1, np.int64),
        "column": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["rows", "first"], ["latest"], axis=0),
        helper.make_node("MatMul", ["latest", "query"], ["asked"]),
        helper.make_node("MatMul", ["rows", "key"], ["answers"]),
        helper.make_node("Transpose", ["asked"], ["asked_column"]),
        helper.make_node("MatMul", ["answers", "asked_column"], ["match"]),
        helper.make_node("Squeeze", ["match", "column"], ["matches"]),
        helper.make_node("Shape", ["matches"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["lengths"]),
        helper.make_node("Squeeze", ["lengths"], ["length"]),
        helper.make_node("Range", ["zero", "length", "one"], ["places"]),
        helper.make_node("Min", ["places", "oldest"], ["ages"]),
        helper.make_node("Gather", ["age", "ages"], ["by_age"]),
        helper.make_node("Add", ["matches", "by_age"], ["sums"]),
        helper.make_node("Softmax", ["sums"], ["weights"], axis=0),
    ]
    return serialise(nodes, values, len(query), ("weights", ["n"]))
