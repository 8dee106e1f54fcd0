"""The graph of Llama, Mistral, Qwen2 and Qwen3 in standard ONNX operators, of padded or packed texts."""

from __future__ import annotations

import numpy as np

from llmrec_fast.arrays import Float32Array
from llmrec_fast.encoding.decoder import DecoderArchitecture
from llmrec_fast.encoding.plain_attention import INPUTS, TENSORRT, Heads, LayoutName
from llmrec_fast.encoding.plain_builder import PlainGraph, Precision
from llmrec_fast.encoding.plain_gated import PlainGatedBuilder
from llmrec_fast.encoding.weights import WeightFiles


def build_plain_decoder(
    architecture: DecoderArchitecture, weights: WeightFiles, precision: Precision, layout: LayoutName, longest: int
) -> PlainGraph:
    """The graph of a model for texts of up to `longest` tokens; raises as `build_plain_graph`."""
    return _Builder(architecture, weights, precision, layout, longest).build()


class _Builder(PlainGatedBuilder):
    def __init__(
        self,
        architecture: DecoderArchitecture,
        weights: WeightFiles,
        precision: Precision,
        layout: LayoutName,
        longest: int,
    ) -> None:
        super().__init__(weights, architecture.prefix, precision, layout, longest)
        self._architecture = architecture
        self._heads = Heads(architecture.heads, architecture.key_value_heads, architecture.head_width)

    def build(self) -> PlainGraph:
        architecture, padded = self._architecture, self._layout == "padded"
        states = self._word_rows(self._read("embed_tokens.weight", architecture.vocabulary, architecture.hidden))
        if padded:
            self._keys()
        self._angles_of_tokens = self._angles("rotary", architecture.rotation, architecture.head_width)
        mask = self._later() if padded else ""
        for layer in range(architecture.layers):
            states = self._feed_forward(layer, self._attention(layer, states, mask))
        self._rms_norm("final", states, self._read("norm.weight", architecture.hidden))
        model = self._finish(INPUTS[self._layout], architecture.hidden, () if padded else (TENSORRT,))
        return PlainGraph(model, architecture.hidden, self._longest, architecture.vocabulary, self._precision)

    def _later(self) -> str:
        """(1, 1, time, time), or with one more axis, of keys that come after the query; padding comes after all tokens."""
        after = self._node("Greater", [self._distance(), self._value("zero", np.array(0, np.int64))], "is_later")
        return self._masked_where(after, "later", [0, 1] if self._heads.queries == self._heads.shared else [0, 1, 2])

    def _attention(self, layer: int, states: str, mask: str) -> str:
        architecture, heads, place = self._architecture, self._heads, f"layers.{layer}."
        scale = self._read(f"{place}input_layernorm.weight", architecture.hidden)
        normed = self._rms_norm(f"before_attention_{layer}", states, scale)
        query = self._project(layer, "query", f"{place}self_attn.q_", normed, heads.queries)
        key = self._project(layer, "key", f"{place}self_attn.k_", normed, heads.shared)
        value = self._linear_of(
            f"value_{layer}",
            normed,
            *self._read_linear(
                f"{place}self_attn.v_proj",
                heads.shared * heads.width,
                architecture.hidden,
                architecture.projection_bias,
            ),
        )
        context = self._attend(layer, query, key, value, heads, mask=mask, causal=True)
        columns = heads.queries * heads.width
        weight, bias = self._read_linear(
            f"{place}self_attn.o_proj", architecture.hidden, columns, architecture.output_bias
        )
        output = self._linear_of(f"attention_{layer}", context, weight, bias)
        return self._node("Add", [states, output], f"attention_{layer}_sum")

    def _project(self, layer: int, part: str, place: str, normed: str, count: int) -> str:
        """Queries or keys, (..., heads, width), turned. The scale of the scores is in the last weights that queries meet."""
        architecture, width = self._architecture, self._heads.width
        scale = np.float32(1 / np.sqrt(width) if part == "query" else 1)
        weight, bias = self._read_linear(
            f"{place}proj", count * width, architecture.hidden, architecture.projection_bias
        )
        if not architecture.head_norms:
            weight, bias = weight * scale, None if bias is None else bias * scale
        apart = self._apart(self._linear_of(f"{part}_{layer}", normed, weight, bias), count, width)
        if architecture.head_norms:
            apart = self._rms_norm(f"{part}_{layer}_normed", apart, self._read(f"{place}norm.weight", width) * scale)
        return self._turn(apart, self._angles_of_tokens, width)

    def _feed_forward(self, layer: int, states: str) -> str:
        architecture, hidden, place = self._architecture, self._architecture.hidden, f"layers.{layer}."
        width, bias = architecture.intermediate, architecture.feed_forward_bias
        scale = self._read(f"{place}post_attention_layernorm.weight", hidden)
        normed = self._rms_norm(f"before_feed_forward_{layer}", states, scale)
        gate, up = (
            self._linear_of(
                f"{part}_{layer}", normed, *self._read_linear(f"{place}mlp.{part}_proj", width, hidden, bias)
            )
            for part in ("gate", "up")
        )
        active = self._activate(gate, architecture.activation, f"activated_{layer}")
        gated = self._node("Mul", [active, up], f"gated_{layer}")
        down = self._down(f"down_{layer}", gated, *self._read_linear(f"{place}mlp.down_proj", hidden, width, bias))
        return self._node("Add", [states, down], f"layer_{layer}")

    def _rms_norm(self, name: str, x: str, scale: Float32Array) -> str:
        """As float32 (arXiv 1910.07467); the operator of that name is newer than TensorRT 10.12."""
        square = self._node("Mul", [x, x], f"{name}_square")
        mean = self._node("ReduceMean", [square], f"{name}_mean", axes=[-1], keepdims=1)
        epsilon = self._value("epsilon", np.float32(self._architecture.epsilon))
        root = self._node("Sqrt", [self._node("Add", [mean, epsilon], f"{name}_variance")], f"{name}_root")
        unit = self._node("Div", [x, root], f"{name}_of_one")
        return self._node("Mul", [unit, self._value(f"{name}_scale", scale)], name)
