"""ModernBERT's graph in standard ONNX operators, of padded texts, or of packed ones that are no longer than its windows.

A window is a mask, and TensorRT's attention of packed texts takes none (onnx-tensorrt, docs/TRT_custom_ops.md).
"""

from __future__ import annotations

import numpy as np

from llmrec_fast.encoding.modernbert import ModernBertArchitecture
from llmrec_fast.encoding.plain_attention import INPUTS, TENSORRT, Heads, LayoutName
from llmrec_fast.encoding.plain_builder import PlainGraph, Precision
from llmrec_fast.encoding.plain_gated import PlainGatedBuilder
from llmrec_fast.encoding.weights import WeightFiles


def build_plain_modernbert(
    architecture: ModernBertArchitecture, weights: WeightFiles, precision: Precision, layout: LayoutName, longest: int
) -> PlainGraph:
    """The graph of a model for texts of up to `longest` tokens; raises as `build_plain_graph`."""
    return _Builder(architecture, weights, precision, layout, longest).build()


class _Builder(PlainGatedBuilder):
    def __init__(
        self,
        architecture: ModernBertArchitecture,
        weights: WeightFiles,
        precision: Precision,
        layout: LayoutName,
        longest: int,
    ) -> None:
        super().__init__(weights, architecture.prefix, precision, layout, longest)
        self._architecture = architecture

    def build(self) -> PlainGraph:
        architecture, hidden = self._architecture, self._architecture.hidden
        words = self._read("embeddings.tok_embeddings.weight", architecture.vocabulary, hidden)
        states = self._norm("embeddings", self._word_rows(words), "embeddings.norm")
        padded = self._layout == "padded"
        if padded:
            self._keys()
        width = hidden // architecture.heads
        angles = [
            self._angles(name, rotation, width)
            for name, rotation in zip(("global", "local"), architecture.rotations, strict=True)
        ]
        masks = self._masks() if padded else ("", "")
        for layer, local in enumerate(architecture.local):
            attended = self._attention(layer, states, angles[local], masks[local])
            states = self._feed_forward(layer, attended)
        self._norm("final", states, "final_norm")
        model = self._finish(INPUTS[self._layout], hidden, () if padded else (TENSORRT,))
        return PlainGraph(model, hidden, self._longest, architecture.vocabulary, self._precision)

    def _masks(self) -> tuple[str, str]:
        """(batch, 1, 1, time) of padding, and (batch, 1, time, time) of padding and keys beyond the window."""
        padding = self._masked_where(self._node("Not", [self._is_real()], "is_padding"), "padding", [1, 2])
        reach = self._value("reach", np.array(self._architecture.reach, np.int64))
        far = self._node("Greater", [self._node("Abs", [self._distance()], "apart"), reach], "is_far")
        return padding, self._node("Add", [padding, self._masked_where(far, "window", [0, 1])], "padding_and_window")

    def _attention(self, layer: int, states: str, angles: tuple[str, str], mask: str) -> str:
        architecture, hidden, place = self._architecture, self._architecture.hidden, f"layers.{layer}."
        heads, width = architecture.heads, hidden // architecture.heads
        # the embeddings are normalised already
        normed = states if layer == 0 else self._norm(f"before_attention_{layer}", states, f"{place}attn_norm")
        query, key, value = self._linear_parts(
            [f"{part}_{layer}" for part in ("query", "key", "value")],
            normed,
            f"{place}attn.Wqkv",
            3 * hidden,
            hidden,
            bias=architecture.attention_bias,
            first=1 / float(np.sqrt(width)),  # the scale of the scores, as in BERT's graph
        )
        query, key = (self._turn(self._apart(part, heads, width), angles, width) for part in (query, key))
        context = self._attend(layer, query, key, value, Heads(heads, heads, width), mask=mask)
        weight, bias = self._read_linear(f"{place}attn.Wo", hidden, hidden, architecture.attention_bias)
        output = self._linear_of(f"attention_{layer}", context, weight, bias)
        return self._node("Add", [states, output], f"attention_{layer}_sum")

    def _feed_forward(self, layer: int, states: str) -> str:
        architecture, hidden, place = self._architecture, self._architecture.hidden, f"layers.{layer}."
        width, with_bias = architecture.intermediate, architecture.feed_forward_bias
        normed = self._norm(f"before_feed_forward_{layer}", states, f"{place}mlp_norm")
        names = [f"gate_{layer}", f"up_{layer}"]
        gate, up = self._linear_parts(names, normed, f"{place}mlp.Wi", 2 * width, hidden, bias=with_bias)
        active = self._activate(gate, architecture.activation, f"activated_{layer}")
        gated = self._node("Mul", [active, up], f"gated_{layer}")
        down = self._down(f"down_{layer}", gated, *self._read_linear(f"{place}mlp.Wo", hidden, width, with_bias))
        return self._node("Add", [states, down], f"layer_{layer}")

    def _norm(self, name: str, x: str, place: str) -> str:
        hidden = self._architecture.hidden
        scale = self._read(f"{place}.weight", hidden)
        shift = self._read(f"{place}.bias", hidden) if self._architecture.norm_bias else np.zeros(hidden, np.float32)
        values = [self._value(f"{name}_scale", scale), self._value(f"{name}_shift", shift)]
        return self._node("LayerNormalization", [x, *values], name, axis=-1, epsilon=self._architecture.epsilon)
