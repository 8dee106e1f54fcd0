"""The BERT-family graph in standard ONNX operators (plain_builder.py), of padded or packed texts (plain_attention.py)."""

from __future__ import annotations

import numpy as np

from llmrec_fast.encoding.architectures import Architecture
from llmrec_fast.encoding.graph_builder import IDS
from llmrec_fast.encoding.plain_attention import INPUTS, PLACES, TENSORRT, Heads, LayoutName, TextsBuilder
from llmrec_fast.encoding.plain_builder import PlainGraph, Precision
from llmrec_fast.encoding.relative_positions import bias_by_distance
from llmrec_fast.encoding.weights import WeightFiles

_MASKED = -10000.0


def build_plain_graph(
    architecture: Architecture,
    weights: WeightFiles,
    precision: Precision = "float32",
    layout: LayoutName = "padded",
) -> PlainGraph:
    """The graph of a model, with its matrix products in `precision`.

    Raises
    ------
    CorruptFile : a parameter is missing or has the wrong shape.
    InvalidInput : another precision, or parameters beyond 2 GB.
    """
    return _Builder(architecture, weights, precision, layout).build()


class _Builder(TextsBuilder):
    def __init__(
        self, architecture: Architecture, weights: WeightFiles, precision: Precision, layout: LayoutName
    ) -> None:
        super().__init__(weights, architecture.prefix, precision, layout)
        self._architecture = architecture

    def build(self) -> PlainGraph:
        architecture = self._architecture
        padded = self._layout == "padded"
        states = self._embeddings()
        mask = self._mask() if padded else ""
        for layer in range(architecture.layers):
            states = self._feed_forward(layer, self._attention(layer, states, mask))
        model = self._finish(INPUTS[self._layout], architecture.hidden, () if padded else (TENSORRT,))
        return PlainGraph(model, architecture.hidden, architecture.max_length, architecture.vocabulary, self._precision)

    def _embeddings(self) -> str:
        architecture, hidden = self._architecture, self._architecture.hidden
        words = self._read("embeddings.word_embeddings.weight", architecture.vocabulary, hidden)
        positions = self._read("embeddings.position_embeddings.weight", architecture.positions, hidden)
        if architecture.token_types:
            positions = positions + self._read("embeddings.token_type_embeddings.weight", None, hidden)[0]
        self._node("Gather", [self._value("words", words), IDS], "word_rows", axis=0)
        self._node("Gather", [self._value("positions", positions), self._places()], "position_rows", axis=0)
        return self._norm(
            "embeddings", self._node("Add", ["word_rows", "position_rows"], "rows"), "embeddings.LayerNorm"
        )

    def _places(self) -> str:
        """The row of the table of positions for each token."""
        if self._layout == "packed":
            return PLACES
        keys, padding_id = self._keys(), self._architecture.padding_id
        return keys if padding_id is None else self._position_ids(padding_id)

    def _position_ids(self, padding_id: int) -> str:
        from onnx import TensorProto

        padding = self._value("padding_id", np.array(padding_id, np.int32))
        self._node("Equal", [IDS, padding], "is_padding")
        self._node("Not", ["is_padding"], "is_token")
        # TensorRT sums floats alone along an axis; counts of tokens are exact in them
        self._node("Cast", ["is_token"], "token_ones", to=TensorProto.FLOAT)
        self._node("CumSum", ["token_ones", self._value("time_axis", np.array(1, np.int32))], "token_count")
        self._node("Mul", ["token_count", "token_ones"], "token_rank_float")
        self._node("Cast", ["token_rank_float"], "token_rank", to=TensorProto.INT32)
        return self._node("Add", ["token_rank", padding], "position_ids")

    def _mask(self) -> str:
        """(batch, 1, 1, time): 0 for real keys, -10000 for padding; with MPNet's bias (batch, heads, time, time)."""
        real, masked = self._value("real", np.float32(0)), self._value("masked", np.float32(_MASKED))
        self._node("Where", [self._is_real(), real, masked], "mask_rows")
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
        # the scale of the scores goes into the query's weights: float16 scores stay small
        query = self._linear(f"query_{layer}", states, place + names.query, hidden, hidden, 1 / float(np.sqrt(width)))
        key = self._linear(f"key_{layer}", states, place + names.key, hidden, hidden)
        value = self._linear(f"value_{layer}", states, place + names.value, hidden, hidden)
        context = self._attend(layer, query, key, value, Heads(heads, heads, width), mask=mask)
        output = self._linear(f"attention_{layer}", context, place + names.attention_output, hidden, hidden)
        total = self._node("Add", [output, states], f"attention_{layer}_sum")
        return self._norm(f"attention_{layer}_norm", total, place + names.attention_norm)

    def _feed_forward(self, layer: int, states: str) -> str:
        names, place = self._architecture.names, self._architecture.names.layer.format(layer)
        hidden, intermediate = self._architecture.hidden, self._architecture.intermediate
        inner = self._linear(f"inner_{layer}", states, place + names.intermediate, hidden, intermediate)
        active = self._activate(inner, self._architecture.activation, f"activated_{layer}")
        outer = self._linear(f"outer_{layer}", active, place + names.output, intermediate, hidden)
        total = self._node("Add", [outer, states], f"outer_{layer}_sum")
        return self._norm(f"layer_{layer}", total, place + names.output_norm)

    def _norm(self, name: str, x: str, place: str) -> str:
        known, hidden = self._weights.names(), self._architecture.hidden
        scale, shift = ("weight", "bias") if f"{self._prefix}{place}.gamma" not in known else ("gamma", "beta")
        values = [
            self._value(f"{name}_scale", self._read(f"{place}.{scale}", hidden)),
            self._value(f"{name}_shift", self._read(f"{place}.{shift}", hidden)),
        ]
        return self._node("LayerNormalization", [x, *values], name, axis=-1, epsilon=self._architecture.epsilon)
