"""Texts of a batch in a graph of standard operators, padded or packed, and the attention among the tokens of each.

Padded: ids (batch, time) and lengths, matrix products, a softmax in float32 and masks. Packed: ids, places and offsets of all
texts' tokens end to end, and TensorRT's own attention (IAttention, with queries, keys and values in the form PACKED_NHD and
cumulative lengths; its bindings name them since 11.0). Its parser takes that as the operator TRT_Attention (onnx-tensorrt,
docs/TRT_custom_ops.md), packed since 11.1, without a mask. Its fused kernels take float16 and no float32 (NVIDIA: TensorRT,
"Fused Attention") and keep no matrix of scores in memory.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from llmrec_fast.encoding.graph_builder import IDS, LENGTHS
from llmrec_fast.encoding.plain_builder import PlainGraphBuilder, Precision
from llmrec_fast.encoding.weights import WeightFiles

LayoutName = Literal["padded", "packed"]
PLACES, OFFSETS = "places", "offsets"
TENSORRT = "trt"  # the domain of TensorRT's own operators
INPUTS: dict[LayoutName, dict[str, tuple[str, ...]]] = {
    "padded": {IDS: ("batch", "time"), LENGTHS: ("batch",)},
    "packed": {IDS: ("tokens",), PLACES: ("tokens",), OFFSETS: ("texts_and_one",)},
}


class Heads(NamedTuple):
    """Query heads, the heads of keys and values that groups of them share, columns of each."""

    queries: int
    shared: int
    width: int


class TextsBuilder(PlainGraphBuilder):
    """As `PlainGraphBuilder`, for one layout of the texts."""

    def __init__(self, weights: WeightFiles, prefix: str, precision: Precision, layout: LayoutName) -> None:
        super().__init__(weights, prefix, precision)
        self._layout = layout

    def _keys(self) -> str:
        """0 .. time - 1, int64, of padded texts."""
        self._node("Shape", [IDS], "time", start=1, end=2)
        self._node("Squeeze", ["time"], "time_scalar")
        zero, one = self._value("zero", np.array(0, np.int64)), self._value("one", np.array(1, np.int64))
        return self._node("Range", [zero, "time_scalar", one], "keys")

    def _is_real(self) -> str:
        """(batch, time): whether a token of padded texts is one. After `_keys`."""
        from onnx import TensorProto

        self._node("Cast", [LENGTHS], "lengths_wide", to=TensorProto.INT64)
        self._node("Unsqueeze", ["lengths_wide", self._value("second", np.array([1], np.int64))], "length_column")
        return self._node("Less", ["keys", "length_column"], "is_real")

    def _attend(
        self, layer: int, query: str, key: str, value: str, heads: Heads, *, mask: str = "", causal: bool = False
    ) -> str:
        """(..., queries * width): what each token takes from its text, of queries that are scaled already.

        Parameters
        ----------
        query, key, value : (..., heads * width) or (..., heads, width).
        mask : added to the scores of padded texts, with as many axes as they have: four, five where heads are shared.
        causal : whether packed tokens see none that come after them; for padded texts the mask says it.
        """
        parts = (query, key, value)
        if self._layout == "packed":
            return self._attend_packed(layer, parts, heads, causal)
        return self._attend_padded(layer, parts, heads, mask)

    def _attend_padded(self, layer: int, parts: tuple[str, str, str], heads: Heads, mask: str) -> str:
        groups = heads.queries // heads.shared
        # heads that share keys have an axis of their own, along which the products repeat those
        inner = [] if groups == 1 else [3]
        order, across = [0, 2, *inner, 1, 3 + len(inner)], [0, 2, *inner, 3 + len(inner), 1]
        tensors = []
        for part, x in zip(("query", "key", "value"), parts, strict=True):
            group = [] if groups == 1 else [groups if part == "query" else 1]
            split = self._value(f"split_{part}", np.array([0, 0, heads.shared, *group, heads.width], np.int64))
            apart = self._node("Reshape", [x, split], f"{part}_{layer}_split")
            turned = across if part == "key" else order
            tensors.append(self._node("Transpose", [apart], f"{part}_{layer}_heads", perm=turned))
        scores = self._product(f"scores_{layer}", tensors[0], tensors[1])
        masked = self._node("Add", [scores, mask], f"masked_{layer}") if mask else scores
        shares = self._node("Softmax", [masked], f"shares_{layer}", axis=-1)
        context = self._product(f"context_{layer}", shares, tensors[2])
        back = [0, 2 + len(inner), 1, *([2] if inner else []), 3 + len(inner)]
        together = self._node("Transpose", [context], f"context_{layer}_back", perm=back)
        joined = self._value("join_heads", np.array([0, 0, heads.queries * heads.width], np.int64))
        return self._node("Reshape", [together, joined], f"context_{layer}_flat")

    def _attend_packed(self, layer: int, parts: tuple[str, str, str], heads: Heads, causal: bool) -> str:
        tensors = []
        for part, x in zip(("query", "key", "value"), parts, strict=True):
            count = heads.queries if part == "query" else heads.shared
            split = self._value(f"split_{part}", np.array([0, count, heads.width], np.int64))
            apart = self._node("Reshape", [x, split], f"{part}_{layer}_split")
            tensors.append(self._half(apart, f"{part}_{layer}_packed"))
        context = self._node(
            "TRT_Attention",
            [*tensors, "", "", "", OFFSETS, OFFSETS],
            f"context_{layer}_packed",
            domain=TENSORRT,
            query_form="packed_nhd",
            kv_form="packed_nhd",
            scale=1.0,
            # the parser of 11.0 reads the first one, newer ones read the second (AttentionHelpers.hpp)
            is_causal=int(causal),
            causal_kind="upper_left" if causal else "none",
        )
        joined = self._value("join_heads", np.array([0, heads.queries * heads.width], np.int64))
        return self._node(
            "Reshape", [self._single(context, f"context_{layer}_single"), joined], f"context_{layer}_flat"
        )
