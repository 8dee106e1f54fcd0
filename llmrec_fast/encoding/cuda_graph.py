"""The graph of a model for ONNX Runtime's CUDA provider, in float32; that of the CPU wherever each operator has a kernel.

Decoders differ: the provider has no float32 kernel of GroupQueryAttention (its list of kernels, docs/OperatorKernels.md, gives
float16 and bfloat16), and ONNX Runtime would run every attention on the CPU. Here they rotate, share out and attend with three
operators that it has, none of which needs the CPU to work out a shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from llmrec_fast.encoding.decoder import DECODER_TYPES, DecoderGraphBuilder, read_decoder
from llmrec_fast.encoding.families import build_model_graph
from llmrec_fast.encoding.graph_builder import FUSED, Graph
from llmrec_fast.encoding.weights import WeightFiles


def build_cuda_graph(config: Mapping[str, Any], weights: WeightFiles) -> Graph:
    """The `Graph` of a model of any supported family. Raises as `build_model_graph`."""
    if config.get("model_type") in DECODER_TYPES:
        return _DecoderBuilder(read_decoder(config, weights.names()), weights).build()
    return build_model_graph(config, weights)


def can_be_captured(graph: Graph) -> bool:
    """Whether a graph runs on the GPU as a whole, as a CUDA graph must: what follows from a shape is computed on the CPU."""
    import onnx

    return all(node.op_type != "Shape" for node in onnx.load_from_string(graph.model).graph.node)


class _DecoderBuilder(DecoderGraphBuilder):
    def _attention_inputs(self) -> None:
        architecture = self._architecture
        shared, width = architecture.key_value_heads, architecture.head_width
        self._first = self._constant("first_position", np.zeros(1, np.int64))
        self._tables = self._rotary_tables("rotary", architecture.rotation, architecture.max_length, width)
        self._apart = self._constant("shared_heads", np.array([0, 0, shared, 1, width], np.int64))
        self._groups = self._constant("groups", np.array([1, 1, 1, architecture.heads // shared, 1], np.int64))
        self._together = self._constant("query_columns", np.array([0, 0, architecture.heads * width], np.int64))

    def _attend(self, layer: int, query: str, key: str, value: str) -> str:
        architecture = self._architecture
        query = self._turn(query, architecture.heads)
        key = self._turn(key, architecture.key_value_heads)
        if architecture.heads != architecture.key_value_heads:
            key, value = self._for_each_query_head(key), self._for_each_query_head(value)
        return self._node(
            "MultiHeadAttention",
            [query, key, value],
            f"context_{layer}",
            domain=FUSED,
            num_heads=architecture.heads,
            unidirectional=1,
        )

    def _turn(self, x: str, heads: int) -> str:
        inputs = [x, self._first, *self._tables]
        return self._node("RotaryEmbedding", inputs, f"{x}_turned", domain=FUSED, num_heads=heads)

    def _for_each_query_head(self, x: str) -> str:
        apart = self._node("Reshape", [x, self._apart], f"{x}_heads")
        repeated = self._node("Expand", [apart, self._groups], f"{x}_repeated")
        return self._node("Reshape", [repeated, self._together], f"{x}_of_queries")
