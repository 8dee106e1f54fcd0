"""Build the ONNX graph of a BERT-family encoder from its parameters, without torch.

The graph takes right-padded token ids and their lengths and gives token embeddings. It is made of ONNX Runtime's fused
operators (the com.microsoft domain), so that no optimiser has to find them and a session is ready in a tenth of a second.
"""

from __future__ import annotations

import numpy as np

from llmrec_fast.encoding.architectures import Architecture
from llmrec_fast.encoding.graph_builder import FUSED, IDS, LENGTHS, TYPES, Graph, GraphBuilder
from llmrec_fast.encoding.relative_positions import bias_by_distance
from llmrec_fast.encoding.weights import WeightFiles


def build_graph(architecture: Architecture, weights: WeightFiles, *, token_types: bool = False) -> Graph:
    """The `Graph` of a model; with `token_types`, of one that has them, it takes the type of each token.

    Raises `CorruptFile` for a parameter that is missing or has the wrong shape.
    """
    return _Builder(architecture, weights, token_types).build()


class _Builder(GraphBuilder):
    def __init__(self, architecture: Architecture, weights: WeightFiles, token_types: bool) -> None:
        super().__init__(weights, architecture.prefix)
        self._architecture = architecture
        self._token_types = token_types

    def build(self) -> Graph:
        architecture = self._architecture
        states = self._embeddings()
        bias = self._relative_bias() if architecture.relative_buckets else ""
        for layer in range(architecture.layers):
            states = self._feed_forward(layer, self._attention(layer, states, bias))
        inputs = [TYPES] if self._token_types else []
        return self._finish(architecture.hidden, architecture.max_length, architecture.vocabulary, inputs)

    def _embeddings(self) -> str:
        architecture = self._architecture
        hidden = architecture.hidden
        words = self._read("embeddings.word_embeddings.weight", architecture.vocabulary, hidden)
        positions = self._read("embeddings.position_embeddings.weight", architecture.positions, hidden)
        types = ""
        if architecture.token_types:
            table = self._read("embeddings.token_type_embeddings.weight", None, hidden)
            if self._token_types:
                types = self._parameter("types", table)
            else:
                # all tokens have type 0, so its row is added to the positions once and for all
                positions = positions + table[0]
        position_ids = "" if architecture.padding_id is None else self._position_ids(architecture.padding_id)
        return self._node(
            "EmbedLayerNormalization",
            [
                IDS,
                TYPES if types else "",
                self._parameter("words", words),
                self._parameter("positions", positions),
                types,
                *self._norm("embeddings.LayerNorm"),
                "",
                position_ids,
            ],
            "embeddings",
            extra_outputs=["unused_mask"],
            domain=FUSED,
            epsilon=architecture.epsilon,
        )

    def _position_ids(self, padding_id: int) -> str:
        """RoBERTa counts the tokens that are not padding from padding_id + 1; padding itself keeps padding_id."""
        from onnx import TensorProto

        padding = self._constant("padding_id", np.array(padding_id, np.int32))
        self._node("Equal", [IDS, padding], "is_padding")
        self._node("Not", ["is_padding"], "is_token")
        self._node("Cast", ["is_token"], "token_ones", to=TensorProto.INT32)
        self._node("CumSum", ["token_ones", self._constant("time_axis", np.array(1, np.int32))], "token_count")
        self._node("Mul", ["token_count", "token_ones"], "token_rank")
        return self._node("Add", ["token_rank", padding], "position_ids")

    def _relative_bias(self) -> str:
        """(1, heads, time, time) from a table over the distance key - query, shared by all layers."""
        architecture = self._architecture
        table = self._read("encoder.relative_attention_bias.weight", architecture.relative_buckets, architecture.heads)
        longest = architecture.max_length
        by_distance = self._parameter("bias_by_distance", bias_by_distance(table, longest))
        self._node("Shape", [IDS], "time", start=1, end=2)
        self._node("Squeeze", ["time"], "time_scalar")
        zero, one = self._constant("zero", np.array(0, np.int64)), self._constant("one", np.array(1, np.int64))
        self._node("Range", [zero, "time_scalar", one], "keys")
        self._node("Unsqueeze", ["keys", self._constant("last_axis", np.array([1], np.int64))], "queries")
        self._node("Sub", ["keys", "queries"], "distance")
        self._node("Add", ["distance", self._constant("longest", np.array(longest - 1, np.int64))], "distance_row")
        self._node("Gather", [by_distance, "distance_row"], "head_bias", axis=1)
        return self._node("Unsqueeze", ["head_bias", self._constant("first_axis", np.array([0], np.int64))], "bias")

    def _attention(self, layer: int, states: str, bias: str) -> str:
        names, hidden = self._architecture.names, self._architecture.hidden
        places = [names.layer.format(layer) + name for name in (names.query, names.key, names.value)]
        weights = np.concatenate([self._read(f"{place}.weight", hidden, hidden).T for place in places], axis=1)
        biases = np.concatenate([self._read(f"{place}.bias", hidden) for place in places])
        context = self._node(
            "Attention",
            [
                states,
                self._parameter(f"query_key_value_{layer}", weights),
                self._parameter(f"query_key_value_bias_{layer}", biases),
                LENGTHS,
                "",
                bias,
            ],
            f"context_{layer}",
            domain=FUSED,
            num_heads=self._architecture.heads,
        )
        return self._project(
            f"attention_{layer}",
            context,
            states,
            names.layer.format(layer) + names.attention_output,
            names.layer.format(layer) + names.attention_norm,
            hidden,
        )

    def _feed_forward(self, layer: int, states: str) -> str:
        names, place = self._architecture.names, self._architecture.names.layer.format(layer)
        intermediate = self._architecture.intermediate
        weight = self._read(f"{place}{names.intermediate}.weight", intermediate, self._architecture.hidden)
        bias = self._read(f"{place}{names.intermediate}.bias", intermediate)
        inner = self._node("MatMul", [states, self._parameter(f"intermediate_{layer}", weight.T)], f"inner_{layer}")
        inner = self._biased_activation(layer, inner, self._parameter(f"intermediate_bias_{layer}", bias))
        return self._project(
            f"layer_{layer}", inner, states, place + names.output, place + names.output_norm, intermediate
        )

    def _biased_activation(self, layer: int, inner: str, bias: str) -> str:
        kind, output = self._architecture.activation, f"activated_{layer}"
        if kind == "gelu":
            return self._node("BiasGelu", [inner, bias], output, domain=FUSED)
        if kind == "gelu_tanh":
            return self._node("FastGelu", [inner, bias], output, domain=FUSED)
        return self._activate(self._node("Add", [inner, bias], f"biased_{layer}"), kind, output)

    def _project(self, name: str, inner: str, residual: str, linear: str, norm: str, columns: int) -> str:
        """norm(residual + inner W + b)."""
        hidden = self._architecture.hidden
        weight = self._parameter(f"{name}_weight", self._read(f"{linear}.weight", hidden, columns).T)
        bias = self._parameter(f"{name}_bias", self._read(f"{linear}.bias", hidden))
        product = self._node("MatMul", [inner, weight], f"{name}_product")
        biased = self._node("Add", [product, bias], f"{name}_biased")
        total = self._node("Add", [biased, residual], f"{name}_sum")
        # SkipLayerNormalization does these three in one operator, at five times the time (ONNX Runtime 1.32, AVX2)
        return self._node(
            "LayerNormalization", [total, *self._norm(norm)], name, axis=-1, epsilon=self._architecture.epsilon
        )

    def _norm(self, place: str) -> tuple[str, str]:
        """Scale and shift of a layer norm; checkpoints converted from TensorFlow call them gamma and beta."""
        old = f"{self._prefix}{place}.gamma" in self._weights.names()
        scale, shift = ("weight", "bias") if not old else ("gamma", "beta")
        hidden = self._architecture.hidden
        return (
            self._parameter(f"{place}_scale", self._read(f"{place}.{scale}", hidden)),
            self._parameter(f"{place}_shift", self._read(f"{place}.{shift}", hidden)),
        )
