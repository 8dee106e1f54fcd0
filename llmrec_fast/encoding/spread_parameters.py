"""A decoder's parameters, rewritten so that its activations have no outliers, for int8 (QuaRot, arXiv 2404.00456).

An RMS norm without scale commutes with rotations. So scales go into the matrices that follow, and the token table and all that
writes to the residual stream give rotated rows, which all that reads it turns back: the same vectors but for rounding, at no
cost at run time. Values are rotated head by head, and the attention's output turns them back. Only what is inside the
feed-forward layers has to be rotated while the model runs, for 1% of the time.

SmolLM2-135M with 7-bit weights, 400 short texts, against float32, tokens averaged (the last one's): mean cosine .9979 (.9978),
and of the ten nearest neighbours 88% (86%) the same; without rotations .9973 (.9962) and 82% (75%).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from llmrec_fast.arrays import Float32Array
from llmrec_fast.encoding.gated_parameters import DecoderParameters, GatedLayer, Pair
from llmrec_fast.encoding.rotations import block_of, spread, spread_back, unspread_blocks


class SpreadParameters:
    """`GatedParameters` of a decoder model, rotated."""

    def __init__(self, parameters: DecoderParameters) -> None:
        self._parameters = parameters
        self.shape = replace(parameters.shape, spread_block=block_of(parameters.shape.intermediate))

    def words(self) -> Float32Array:
        """See `GatedParameters`."""
        return spread(self._parameters.words())

    def layer(self, number: int) -> GatedLayer:
        """See `GatedParameters`."""
        layer, shape = self._parameters.layer(number), self.shape
        norm = (np.ones(shape.hidden, np.float32), np.zeros(shape.hidden, np.float32))
        weights, bias = _read_rotated(layer.projections, layer.attention_norm)
        values = (shape.heads + shape.key_value_heads) * shape.head_width
        for part in (weights, bias):
            part[..., values:] = self._spread_heads(part[..., values:])
        output, output_bias = layer.attention_output
        down, down_bias = layer.down
        return GatedLayer(
            norm,
            (weights, bias),
            layer.head_norm,
            (spread(np.ascontiguousarray(self._spread_heads(output.T).T)), spread(output_bias)),
            norm,
            _read_rotated(layer.gate_up, layer.feed_forward_norm),
            (spread(unspread_blocks(down, shape.spread_block)), spread(down_bias)),
        )

    def final_norm(self) -> Pair:
        """See `GatedParameters`."""
        return np.ones(self.shape.hidden, np.float32), np.zeros(self.shape.hidden, np.float32)

    def final_linear(self) -> Pair:
        """See `GatedParameters`: turns rows back, and holds the last norm's scale and shift."""
        scale, shift = self._parameters.final_norm()
        return spread_back(np.diag(scale)), shift

    def _spread_heads(self, columns: Float32Array) -> Float32Array:
        """Rotate the columns of each head."""
        heads = np.ascontiguousarray(columns).reshape(*columns.shape[:-1], -1, self.shape.head_width)
        return spread(heads).reshape(columns.shape)


def _read_rotated(linear: Pair, norm: Pair) -> Pair:
    """A linear layer that takes rotated rows after a norm without scale and shift."""
    weights, bias = linear
    scale, shift = norm
    return spread_back(scale[:, None] * weights), bias + shift @ weights
