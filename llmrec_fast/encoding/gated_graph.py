"""What the graphs of pre-norm models with rotary positions and gated feed-forward layers share (ModernBERT, decoders)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmrec_fast.encoding.architectures import Activation
from llmrec_fast.encoding.graph_builder import GraphBuilder
from llmrec_fast.encoding.rotary import Rotation


class GatedGraphBuilder(GraphBuilder):
    """Parts; a family's builder puts them together."""

    def _rotary_tables(self, name: str, rotation: Rotation, positions: int, width: int) -> tuple[str, str]:
        cosines, sines = rotation.tables(positions, width)
        return self._parameter(f"{name}_cosines", cosines), self._parameter(f"{name}_sines", sines)

    def _linear(self, name: str, x: str, places: Sequence[tuple[str, int]], depth: int, *, bias: bool) -> str:
        """One product with the matrices at `places` side by side, each with so many rows of `depth` in the file."""
        weights = np.concatenate([self._read(f"{place}.weight", rows, depth).T for place, rows in places], axis=1)
        product = self._node("MatMul", [x, self._parameter(f"{name}_weight", weights)], f"{name}_product")
        if not bias:
            return product
        biases = np.concatenate([self._read(f"{place}.bias", rows) for place, rows in places])
        return self._node("Add", [product, self._parameter(f"{name}_bias", biases)], name)

    def _split(self, x: str, sizes: Sequence[int], outputs: list[str]) -> list[str]:
        """Parts of the columns."""
        sizes_name = self._constant(f"{x}_sizes", np.array(sizes, np.int64))
        self._node("Split", [x, sizes_name], outputs[0], outputs[1:], axis=-1)
        return outputs

    def _gate(self, name: str, both: str, width: int, activation: Activation) -> str:
        """activation(first half) * second half: a gated linear unit (arXiv 2002.05202)."""
        first, second = self._split(both, [width, width], [f"{name}_gate", f"{name}_up"])
        return self._node("Mul", [self._activate(first, activation, f"{name}_activated"), second], f"{name}_gated")
