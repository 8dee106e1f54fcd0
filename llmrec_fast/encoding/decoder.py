"""Decoder language models as encoders: Llama (and SmolLM2), Mistral, Qwen2 and Qwen3; configuration and graph.

Pre-norm layers with RMS norms (arXiv 1910.07467), rotary positions, grouped queries (arXiv 2305.13245), a causal mask and
SwiGLU. A text's vectors do not depend on what comes after it, so padding on the right needs no mask.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmrec_fast.encoding.architectures import Activation, columns_of_a_head, find_prefix, read_activation, read_size
from llmrec_fast.encoding.gated_graph import GatedGraphBuilder
from llmrec_fast.encoding.graph_builder import FUSED, IDS, LENGTHS, Graph
from llmrec_fast.encoding.rotary import Rotation, read_rotation
from llmrec_fast.encoding.weights import WeightFiles
from llmrec_fast.errors import InvalidInput

_HEAD_STEP = 16  # ONNX Runtime's operator takes no others
DECODER_TYPES = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True)
class DecoderArchitecture:
    """One model's shape.

    Attributes
    ----------
    prefix : what every parameter name begins with (`model.` in a checkpoint with a language model head).
    layers, hidden, intermediate, vocabulary : sizes.
    heads, key_value_heads, head_width : query heads, the heads of keys and values that groups of them share, columns of each.
    max_length : the most tokens of a text.
    epsilon : of the RMS norms.
    activation : of the gate.
    rotation : of the rotary positions.
    projection_bias, output_bias, feed_forward_bias : whether query, key and value projections, the attention's output and the
        feed-forward layers have one.
    head_norms : whether queries and keys are normalised head by head (Qwen3).
    """

    prefix: str
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    heads: int
    key_value_heads: int
    head_width: int
    max_length: int
    epsilon: float
    activation: Activation
    rotation: Rotation
    projection_bias: bool
    output_bias: bool
    feed_forward_bias: bool
    head_norms: bool


def read_decoder(config: Mapping[str, Any], parameters: Collection[str]) -> DecoderArchitecture:
    """The `DecoderArchitecture` of a config.json, given the names of the parameters in the weights.

    Where a config.json gives a sliding window of attention, texts are cut at its size, within which it changes nothing.

    Raises
    ------
    InvalidInput : a missing size, sizes that do not fit, heads whose columns are not a multiple of 16, an unknown activation or
        rotation.
    """
    kind = str(config["model_type"])
    hidden, heads = read_size(config, "hidden_size"), read_size(config, "num_attention_heads")
    shared = read_size(config, "num_key_value_heads") if config.get("num_key_value_heads") is not None else heads
    if heads % shared:
        raise InvalidInput(f"config.json: {heads} attention heads cannot share {shared} key and value heads")
    if config.get("head_dim") is not None:
        width = read_size(config, "head_dim")
    elif kind == "qwen3":
        width = 128  # what its configuration means where it says nothing
    else:
        width = columns_of_a_head(hidden, heads)
    if width % _HEAD_STEP:
        raise InvalidInput(f"heads must have a multiple of {_HEAD_STEP} columns; config.json gives them {width}")
    everywhere = kind in ("llama", "qwen3") and bool(config.get("attention_bias", False))
    rotation = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return DecoderArchitecture(
        prefix=find_prefix(kind, parameters, "embed_tokens.weight"),
        layers=read_size(config, "num_hidden_layers"),
        hidden=hidden,
        intermediate=read_size(config, "intermediate_size"),
        vocabulary=read_size(config, "vocab_size"),
        heads=heads,
        key_value_heads=shared,
        head_width=width,
        max_length=_max_length(config),
        epsilon=float(config.get("rms_norm_eps", 1e-6)),
        activation=read_activation(config.get("hidden_act", "silu")),
        rotation=read_rotation(config, rotation, float(config.get("rope_theta", 10_000.0))),
        projection_bias=everywhere or kind == "qwen2",
        output_bias=everywhere,
        feed_forward_bias=kind == "llama" and bool(config.get("mlp_bias", False)),
        head_norms=kind == "qwen3",
    )


def _max_length(config: Mapping[str, Any]) -> int:
    positions = read_size(config, "max_position_embeddings")
    # Qwen's configurations give a window that they do not use
    used = bool(config.get("use_sliding_window", config["model_type"] == "mistral"))
    if not used or config.get("sliding_window") is None:
        return positions
    return min(positions, read_size(config, "sliding_window"))


def build_decoder_graph(architecture: DecoderArchitecture, weights: WeightFiles) -> Graph:
    """The `Graph` of a model. Raises `CorruptFile` for a parameter that is missing or has the wrong shape."""
    return DecoderGraphBuilder(architecture, weights).build()


class DecoderGraphBuilder(GatedGraphBuilder):
    """The parts of the graph; where another operator attends, `_attention_inputs` and `_attend` are another's."""

    def __init__(self, architecture: DecoderArchitecture, weights: WeightFiles) -> None:
        super().__init__(weights, architecture.prefix)
        self._architecture = architecture

    def build(self) -> Graph:
        """The graph of all the parts."""
        architecture = self._architecture
        words = self._read("embed_tokens.weight", architecture.vocabulary, architecture.hidden)
        states = self._node("Gather", [self._parameter("words", words), IDS], "embeddings", axis=0)
        self._attention_inputs()
        for layer in range(architecture.layers):
            states = self._feed_forward(layer, self._attention(layer, states))
        self._norm("final", states, "norm.weight", architecture.hidden)
        return self._finish(architecture.hidden, architecture.max_length, architecture.vocabulary)

    def _attention_inputs(self) -> None:
        """`last`: (batch,) place of each text's last token; `time`: () tokens of the longest; the rotary tables."""
        from onnx import TensorProto

        architecture = self._architecture
        self._node("Sub", [LENGTHS, self._constant("one", np.array(1, np.int32))], "last")
        self._node("Shape", [IDS], "time_wide", start=1, end=2)
        self._node("Cast", ["time_wide"], "time_one", to=TensorProto.INT32)
        self._node("Squeeze", ["time_one"], "time")
        self._tables = self._rotary_tables(
            "rotary", architecture.rotation, architecture.max_length, architecture.head_width
        )

    def _attention(self, layer: int, states: str) -> str:
        architecture, place = self._architecture, f"layers.{layer}."
        queries = architecture.heads * architecture.head_width
        shared = architecture.key_value_heads * architecture.head_width
        normed = self._norm(f"before_attention_{layer}", states, f"{place}input_layernorm.weight", architecture.hidden)
        projected = self._linear(
            f"query_key_value_{layer}",
            normed,
            [
                (f"{place}self_attn.q_proj", queries),
                (f"{place}self_attn.k_proj", shared),
                (f"{place}self_attn.v_proj", shared),
            ],
            architecture.hidden,
            bias=architecture.projection_bias,
        )
        query, key, value = self._split(
            projected, [queries, shared, shared], [f"{part}_{layer}" for part in ("query", "key", "value")]
        )
        if architecture.head_norms:
            query = self._head_norm(query, f"{place}self_attn.q_norm.weight", queries)
            key = self._head_norm(key, f"{place}self_attn.k_norm.weight", shared)
        context = self._attend(layer, query, key, value)
        output = self._linear(
            f"attention_{layer}",
            context,
            [(f"{place}self_attn.o_proj", architecture.hidden)],
            queries,
            bias=architecture.output_bias,
        )
        return self._node("Add", [states, output], f"attention_{layer}_sum")

    def _attend(self, layer: int, query: str, key: str, value: str) -> str:
        """(batch, time, heads * head_width): causal attention of queries and keys that are yet to be turned."""
        return self._node(
            "GroupQueryAttention",
            [query, key, value, "", "", "last", "time", *self._tables],
            f"context_{layer}",
            [f"unused_keys_{layer}", f"unused_values_{layer}"],
            domain=FUSED,
            num_heads=self._architecture.heads,
            kv_num_heads=self._architecture.key_value_heads,
            do_rotary=1,
        )

    def _feed_forward(self, layer: int, states: str) -> str:
        architecture, place = self._architecture, f"layers.{layer}."
        width, bias = architecture.intermediate, architecture.feed_forward_bias
        normed = self._norm(
            f"before_feed_forward_{layer}", states, f"{place}post_attention_layernorm.weight", architecture.hidden
        )
        both = self._linear(
            f"gate_up_{layer}",
            normed,
            [(f"{place}mlp.gate_proj", width), (f"{place}mlp.up_proj", width)],
            architecture.hidden,
            bias=bias,
        )
        gated = self._gate(f"feed_forward_{layer}", both, width, architecture.activation)
        down = self._linear(f"down_{layer}", gated, [(f"{place}mlp.down_proj", architecture.hidden)], width, bias=bias)
        return self._node("Add", [states, down], f"layer_{layer}")

    def _head_norm(self, x: str, place: str, columns: int) -> str:
        """RMS norm of each head's columns."""
        width = self._architecture.head_width
        apart = self._node(
            "Reshape", [x, self._constant(f"{x}_apart_shape", np.array([0, 0, -1, width], np.int64))], f"{x}_apart"
        )
        normed = self._norm(f"{x}_normed", apart, place, width)
        return self._node(
            "Reshape", [normed, self._constant(f"{x}_shape", np.array([0, 0, columns], np.int64))], f"{x}_together"
        )

    def _norm(self, name: str, x: str, place: str, columns: int) -> str:
        scale = self._parameter(f"{name}_scale", self._read(place, columns))
        return self._node("SimplifiedLayerNormalization", [x, scale], name, axis=-1, epsilon=self._architecture.epsilon)
