"""What graphs of ModernBERT and of decoders share, in standard ONNX operators (plain_builder.py).

Such models carry a residual of large values, and what a gate lets through may be larger yet: a product of it in float16 ends
beyond 65504 in some models (Qwen2). So the rows that enter the last product of a layer are divided by their largest
value first and the outcome multiplied by it, in float32; the residual is float32 everywhere. int8 rows are so divided anyway.
"""

from __future__ import annotations

import numpy as np

from llmrec_fast.arrays import Float32Array
from llmrec_fast.encoding.graph_builder import IDS
from llmrec_fast.encoding.plain_attention import PLACES, LayoutName, TextsBuilder
from llmrec_fast.encoding.plain_builder import Precision
from llmrec_fast.encoding.rotary import Rotation
from llmrec_fast.encoding.weights import WeightFiles

_MASKED = -1e9  # added in float32 to the scores of keys that a token does not see


class PlainGatedBuilder(TextsBuilder):
    """Parts; a family's builder puts them together. `longest`: tokens of the longest text."""

    def __init__(
        self, weights: WeightFiles, prefix: str, precision: Precision, layout: LayoutName, longest: int
    ) -> None:
        super().__init__(weights, prefix, precision, layout)
        self._longest = longest

    def _word_rows(self, words: Float32Array) -> str:
        """Of a table in the graph's precision: half of a small decoder's parameters are here."""
        rows = self._node("Gather", [self._value("words", self._in_precision(words)), IDS], "word_rows", axis=0)
        return self._single(rows, "word_rows_single") if self._precision == "float16" else rows

    def _angles(self, name: str, rotation: Rotation, width: int) -> tuple[str, str]:
        """Cosines and sines for each token, (time, 1, width / 2) or (tokens, 1, width / 2)."""
        places = PLACES if self._layout == "packed" else "keys"
        axis = self._value("second", np.array([1], np.int64))
        found = []
        for kind, table in zip(("cosines", "sines"), rotation.tables(self._longest, width), strict=True):
            rows = self._node("Gather", [self._value(f"{name}_{kind}", table), places], f"{name}_{kind}_rows", axis=0)
            found.append(self._node("Unsqueeze", [rows, axis], f"{name}_{kind}_apart"))
        return found[0], found[1]

    def _apart(self, x: str, heads: int, width: int) -> str:
        """(..., heads, width) of (..., heads * width)."""
        leading = [0, 0] if self._layout == "padded" else [0]
        shape = self._value(f"apart_{heads}", np.array([*leading, heads, width], np.int64))
        return self._node("Reshape", [x, shape], f"{x}_apart")

    def _turn(self, x: str, angles: tuple[str, str], width: int) -> str:
        """Columns i and i + width / 2 of each head are a plane, turned by its angle (rotary.py)."""
        cosines, sines = angles
        half = self._value("half_heads", np.array([width // 2, width // 2], np.int64))
        first, second = self._node("Split", [x, half], f"{x}_first", more=[f"{x}_second"], axis=-1), f"{x}_second"
        left = self._node("Mul", [first, cosines], f"{x}_first_cosines")
        left = self._node("Sub", [left, self._node("Mul", [second, sines], f"{x}_second_sines")], f"{x}_left")
        right = self._node("Mul", [second, cosines], f"{x}_second_cosines")
        right = self._node("Add", [right, self._node("Mul", [first, sines], f"{x}_first_sines")], f"{x}_right")
        return self._node("Concat", [left, right], f"{x}_turned", axis=-1)

    def _masked_where(self, condition: str, name: str, axes: list[int]) -> str:
        """-1e9 where the condition holds, else 0, with axes of one element added."""
        values = [self._value("masked", np.float32(_MASKED)), self._value("real", np.float32(0))]
        rows = self._node("Where", [condition, *values], f"{name}_rows")
        return self._node("Unsqueeze", [rows, self._value(f"{name}_axes", np.array(axes, np.int64))], name)

    def _distance(self) -> str:
        """(time, time): how far key j is after query i."""
        queries = self._node("Unsqueeze", ["keys", self._value("second", np.array([1], np.int64))], "queries")
        return self._node("Sub", ["keys", queries], "distance")

    def _down(self, name: str, x: str, weight: Float32Array, bias: Float32Array | None) -> str:
        """X W^T + b of large values."""
        if self._precision != "float16":
            return self._linear_of(name, x, weight, bias)
        largest = self._node("ReduceMax", [self._node("Abs", [x], f"{x}_sizes")], f"{x}_largest", axes=[-1], keepdims=1)
        size = self._node("Max", [largest, self._value("one_float", np.float32(1))], f"{x}_size")
        unit = self._node("Div", [x, size], f"{x}_unit")
        product = self._node("Mul", [self._linear_of(name, unit, weight, None), size], f"{name}_resized")
        return product if bias is None else self._node("Add", [product, self._value(f"{name}_bias", bias)], name)

    def _linear_parts(
        self, names: list[str], x: str, place: str, rows: int, columns: int, *, bias: bool, first: float = 1.0
    ) -> list[str]:
        """The equal parts of X W^T + b, each a product of its own; the first part is scaled by `first`."""
        weight, shift = self._read_linear(place, rows, columns, bias)
        weights = np.split(weight, len(names))
        shifts = [None] * len(names) if shift is None else np.split(shift, len(names))
        scales = [np.float32(first)] + [np.float32(1)] * (len(names) - 1)
        return [
            self._linear_of(name, x, part * scale, None if own is None else own * scale)
            for name, part, own, scale in zip(names, weights, shifts, scales, strict=True)
        ]

    def _read_linear(self, place: str, rows: int, columns: int, bias: bool) -> tuple[Float32Array, Float32Array | None]:
        return self._read(f"{place}.weight", rows, columns), self._read(f"{place}.bias", rows) if bias else None
