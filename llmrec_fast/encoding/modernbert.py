"""ModernBERT (arXiv 2412.13663): configuration and graph.

A pre-norm encoder with rotary positions and GeGLU; most layers attend within a window around each token, every third one to the
whole text.
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

_GLOBAL, _LOCAL = "full_attention", "sliding_attention"
_FAR = -1e9  # added to the score of a key outside the window


@dataclass(frozen=True)
class ModernBertArchitecture:
    """One model's shape.

    Attributes
    ----------
    prefix : what every parameter name begins with (`model.` in a checkpoint with a task head).
    layers, heads, hidden, intermediate, vocabulary, positions : sizes.
    epsilon : of the layer norms.
    activation : of the gate.
    local : (layers,) whether a layer attends within the window only.
    reach : how far the window goes to either side.
    rotations : of the layers that attend to the whole text, and of those that attend within the window.
    norm_bias, attention_bias, feed_forward_bias : whether these parts have a bias.
    """

    prefix: str
    layers: int
    heads: int
    hidden: int
    intermediate: int
    vocabulary: int
    positions: int
    epsilon: float
    activation: Activation
    local: tuple[bool, ...]
    reach: int
    rotations: tuple[Rotation, Rotation]
    norm_bias: bool
    attention_bias: bool
    feed_forward_bias: bool


def read_modernbert(config: Mapping[str, Any], parameters: Collection[str]) -> ModernBertArchitecture:
    """The `ModernBertArchitecture` of a config.json, given the names of the parameters in the weights.

    Raises
    ------
    InvalidInput : a missing size, sizes that do not fit, an unknown activation, kind of layer or rotation.
    """
    hidden, heads = read_size(config, "hidden_size"), read_size(config, "num_attention_heads")
    columns_of_a_head(hidden, heads)
    layers = read_size(config, "num_hidden_layers")
    rotations = config.get("rope_parameters") or {}
    return ModernBertArchitecture(
        prefix=find_prefix("modernbert", parameters, "embeddings.tok_embeddings.weight"),
        layers=layers,
        heads=heads,
        hidden=hidden,
        intermediate=read_size(config, "intermediate_size"),
        vocabulary=read_size(config, "vocab_size"),
        positions=read_size(config, "max_position_embeddings"),
        epsilon=float(config.get("norm_eps", 1e-5)),
        activation=read_activation(config.get("hidden_activation", "gelu")),
        local=_local_layers(config, layers),
        reach=int(config.get("local_attention", 128)) // 2,
        rotations=(
            read_rotation(config, rotations.get(_GLOBAL) or {}, float(config.get("global_rope_theta") or 160_000.0)),
            read_rotation(config, rotations.get(_LOCAL) or {}, float(config.get("local_rope_theta") or 10_000.0)),
        ),
        norm_bias=bool(config.get("norm_bias", False)),
        attention_bias=bool(config.get("attention_bias", False)),
        feed_forward_bias=bool(config.get("mlp_bias", False)),
    )


def _local_layers(config: Mapping[str, Any], layers: int) -> tuple[bool, ...]:
    kinds = config.get("layer_types")
    if kinds is None:
        every = int(config.get("global_attn_every_n_layers", 3))
        return tuple(bool(layer % every) for layer in range(layers))
    unknown = [kind for kind in kinds if kind not in (_GLOBAL, _LOCAL)]
    if unknown or len(kinds) != layers:
        raise InvalidInput(
            f"config.json: layer_types must give {_GLOBAL} or {_LOCAL} for each of the {layers} layers; it gives "
            f"{unknown[0] if unknown else len(kinds)!r}"
        )
    return tuple(kind == _LOCAL for kind in kinds)


def build_modernbert_graph(architecture: ModernBertArchitecture, weights: WeightFiles) -> Graph:
    """The `Graph` of a model. Raises `CorruptFile` for a parameter that is missing or has the wrong shape."""
    return _Builder(architecture, weights).build()


class _Builder(GatedGraphBuilder):
    def __init__(self, architecture: ModernBertArchitecture, weights: WeightFiles) -> None:
        super().__init__(weights, architecture.prefix)
        self._architecture = architecture

    def build(self) -> Graph:
        architecture = self._architecture
        words = self._read("embeddings.tok_embeddings.weight", architecture.vocabulary, architecture.hidden)
        rows = self._node("Gather", [self._parameter("words", words), IDS], "word_rows", axis=0)
        states = self._norm("embeddings", rows, "embeddings.norm")
        width = architecture.hidden // architecture.heads
        self._first = self._constant("first_position", np.zeros(1, np.int64))
        self._tables = [
            self._rotary_tables(name, rotation, architecture.positions, width)
            for name, rotation in zip(("global", "local"), architecture.rotations, strict=True)
        ]
        window = self._window() if any(architecture.local) else ""
        for layer in range(architecture.layers):
            states = self._feed_forward(layer, self._attention(layer, states, window))
        self._norm("final", states, "final_norm")
        return self._finish(architecture.hidden, architecture.positions, architecture.vocabulary)

    def _window(self) -> str:
        """(1, 1, time, time): 0 where a key is within the window of a query, far below any score elsewhere."""
        self._node("Shape", [IDS], "time", start=1, end=2)
        self._node("Squeeze", ["time"], "time_scalar")
        zero, one = self._constant("zero", np.array(0, np.int64)), self._constant("one", np.array(1, np.int64))
        self._node("Range", [zero, "time_scalar", one], "keys")
        self._node("Unsqueeze", ["keys", self._constant("last_axis", np.array([1], np.int64))], "queries")
        self._node("Abs", [self._node("Sub", ["keys", "queries"], "distance")], "size")
        reach = self._constant("reach", np.array(self._architecture.reach, np.int64))
        self._node("Greater", ["size", reach], "is_far")
        near, far = self._constant("near", np.array(0, np.float32)), self._constant("far", np.array(_FAR, np.float32))
        self._node("Where", ["is_far", far, near], "window_rows")
        return self._node(
            "Unsqueeze", ["window_rows", self._constant("outer_axes", np.array([0, 1], np.int64))], "window"
        )

    def _attention(self, layer: int, states: str, window: str) -> str:
        architecture, hidden, place = self._architecture, self._architecture.hidden, f"layers.{layer}."
        # the embeddings are normalised already
        normed = states if layer == 0 else self._norm(f"before_attention_{layer}", states, f"{place}attn_norm")
        projected = self._linear(
            f"query_key_value_{layer}",
            normed,
            [(f"{place}attn.Wqkv", 3 * hidden)],
            hidden,
            bias=architecture.attention_bias,
        )
        query, key, value = self._split(
            projected, [hidden] * 3, [f"{part}_{layer}" for part in ("query", "key", "value")]
        )
        local = architecture.local[layer]
        turned = [
            self._node(
                "RotaryEmbedding",
                [part, self._first, *self._tables[local]],
                f"{part}_turned",
                domain=FUSED,
                num_heads=architecture.heads,
            )
            for part in (query, key)
        ]
        context = self._node(
            "MultiHeadAttention",
            [*turned, value, "", LENGTHS, window if local else ""],
            f"context_{layer}",
            domain=FUSED,
            num_heads=architecture.heads,
        )
        output = self._linear(
            f"attention_{layer}", context, [(f"{place}attn.Wo", hidden)], hidden, bias=architecture.attention_bias
        )
        return self._node("Add", [states, output], f"attention_{layer}_sum")

    def _feed_forward(self, layer: int, states: str) -> str:
        architecture, place = self._architecture, f"layers.{layer}."
        width, bias = architecture.intermediate, architecture.feed_forward_bias
        normed = self._norm(f"before_feed_forward_{layer}", states, f"{place}mlp_norm")
        both = self._linear(f"gate_up_{layer}", normed, [(f"{place}mlp.Wi", 2 * width)], architecture.hidden, bias=bias)
        gated = self._gate(f"feed_forward_{layer}", both, width, architecture.activation)
        down = self._linear(f"down_{layer}", gated, [(f"{place}mlp.Wo", architecture.hidden)], width, bias=bias)
        return self._node("Add", [states, down], f"layer_{layer}")

    def _norm(self, name: str, x: str, place: str) -> str:
        hidden = self._architecture.hidden
        inputs = [x, self._parameter(f"{name}_scale", self._read(f"{place}.weight", hidden))]
        if self._architecture.norm_bias:
            inputs.append(self._parameter(f"{name}_shift", self._read(f"{place}.bias", hidden)))
        return self._node("LayerNormalization", inputs, name, axis=-1, epsilon=self._architecture.epsilon)
