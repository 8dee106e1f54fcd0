"""The layers of a BERT-family encoder over packed texts: no padding, no tensor between memory and cache that need not be.

Cost of a token and layer: 8 h^2 + 4 h f operations in the four products (h hidden, f intermediate columns), in float32 or
in bytes, and 4 h t for the attention to the t tokens of its text, in float32. A batch's states stay in a core's own cache;
each layer's weights pass through once a batch. One thread works on a batch.

With bytes, each row of activations has its own scale and zero point: the range of its values, zero included, in 256 steps.
Every element of a product is computed from its own row alone, in an order that only k decides, so a text's result is the same,
bit for bit, whatever else is in the batch.
"""

# Numba infers the types inside kernels; mypy cannot follow NumPy scalars through them
# mypy: disable-error-code="assignment, arg-type, no-any-return, return-value"

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import Float32Array, Int64Array
from llmrec_fast.kernels.cpu.activations import ACTIVATIONS, activate
from llmrec_fast.kernels.cpu.attention import attend, attention_sizes
from llmrec_fast.kernels.cpu.byte_tiles import multiply_bytes_tile
from llmrec_fast.kernels.cpu.intrinsics import instruction_set
from llmrec_fast.kernels.cpu.quantise import quantise_row
from llmrec_fast.kernels.cpu.scratch import Scratch
from llmrec_fast.kernels.cpu.tiles import (
    TileShape,
    byte_panel,
    float_panel,
    multiply_panel_tile,
    tile_rows,
    tile_shape,
)
from llmrec_fast.kernels.jit import jit

_FLOATS_PER_LINE = 16
# steps of a product between two cache lines that it asks for ahead
_LEAST_PACE = 8
_f = np.float32


class Linear(NamedTuple):
    """The same linear layer of every transformer layer.

    Attributes
    ----------
    weights : (layers, panels, depth * width) float32 or int8, packed as `pack_weights` does.
    bias : (layers, columns) float32, columns padded to whole panels.
    scales, sums : (layers, columns) float32 and int32: what a column's integers are multiplied with, and their sum; None
        for float32 weights.
    """

    weights: npt.NDArray[Any]
    bias: Float32Array
    scales: Float32Array | None
    sums: npt.NDArray[np.int32] | None


class Norm(NamedTuple):
    """Scale and shift of a layer norm, (layers, hidden) float32 each."""

    scale: Float32Array
    shift: Float32Array


class Layers(NamedTuple):
    """The parameters of all layers. The query's part of `projections` holds the factor 1 / sqrt(head columns)."""

    projections: Linear
    attention_output: Linear
    attention_norm: Norm
    intermediate: Linear
    output: Linear
    output_norm: Norm


class Embedding(NamedTuple):
    """Word and position tables, (rows, hidden) float32, and the (1, hidden) norm over their sum."""

    words: Float32Array
    positions: Float32Array
    norm: Norm


def pack_weights(matrix: npt.NDArray[Any], shape: TileShape) -> npt.NDArray[Any]:
    """A (depth, columns) matrix as (panels, elements): float32 by panels of columns; int8 with four rows side by side.

    Columns beyond the matrix, and rows up to a multiple of four, are zeros.
    """
    integer = matrix.dtype == np.int8
    width, step = (shape.byte_panel, 4) if integer else (shape.float_panel, 1)
    depth, columns = (-(-size // unit) * unit for size, unit in zip(matrix.shape, (step, width), strict=True))
    padded = np.zeros((depth, columns), matrix.dtype)
    padded[: matrix.shape[0], : matrix.shape[1]] = matrix
    quads = padded.reshape(depth // step, step, columns // width, width).transpose(2, 0, 3, 1)
    return np.ascontiguousarray(quads).reshape(columns // width, -1)


def encode_packed(
    ids: npt.NDArray[np.int32],
    positions: npt.NDArray[np.int32],
    lengths: Int64Array,
    embedding: Embedding,
    layers: Layers,
    *,
    heads: int,
    activation: str,
    epsilon: float,
    distances: Float32Array | None,
    scratch: Scratch,
) -> Float32Array:
    """Token embeddings of packed texts.

    Parameters
    ----------
    ids, positions : (tokens,) int32, text after text: rows of the word and of the position table. Nothing checks them.
    lengths : (texts,) tokens of each text; they sum to `tokens`.
    embedding, layers : the parameters, packed for `instruction_set()`.
    heads : of the attention.
    activation : one of `ACTIVATIONS`.
    epsilon : of the layer norms.
    distances : (heads, 2 n - 1) float32, added to the attention scores at key - query + n - 1, n at least the longest text;
        None: nothing is added.
    scratch : working memory; the result lies in it.

    Returns
    -------
    (tokens, hidden) float32, valid until `scratch` is used again.
    """
    isa = instruction_set()
    shape = tile_shape(isa)
    tokens, hidden = len(ids), embedding.words.shape[1]
    # the last tile of rows, and the last block of keys, reach beyond the last text
    rows = (-(-tokens // shape.rows) + 1) * shape.rows + shape.lanes
    key_size, value_size, score_size = attention_sizes(shape, int(lengths.max()), hidden // heads)
    linears = (layers.projections, layers.attention_output, layers.intermediate, layers.output)
    widest = max(linear.bias.shape[1] for linear in linears)
    depth = -(-max(hidden, layers.intermediate.bias.shape[1]) // 4) * 4
    states = scratch.take("states", (rows, hidden), np.float32)
    _forward(
        isa,
        ids,
        positions,
        lengths,
        embedding,
        layers,
        heads,
        ACTIVATIONS.index(activation),
        np.float32(epsilon),
        distances,
        states,
        scratch.take("context", (rows, hidden), np.float32),
        scratch.take("wide", (rows * widest,), np.float32),
        scratch.take("narrow", (rows * layers.output.bias.shape[1],), np.float32),
        scratch.take("bytes", (rows * depth,), np.uint8),
        scratch.take("row scales", (rows,), np.float32),
        scratch.take("row zeros", (rows,), np.int32),
        scratch.take("keys", (key_size,), np.float32),
        scratch.take("values", (value_size,), np.float32),
        scratch.take("scores", (score_size,), np.float32),
        scratch.take("factors", (shape.rows,), np.float32),
    )
    return states[:tokens]


@jit()
def _forward(
    isa, ids, positions, lengths, embedding, layers, heads, activation, epsilon, distances,
    states, context, wide, narrow, quantised, row_scales, row_zeros, keys, values, scores, factors,
):  # fmt: skip
    tokens, hidden = len(ids), states.shape[1]
    _embed(ids, positions, embedding.words, embedding.positions, states)
    _normalise(states, tokens, embedding.norm.scale[0], embedding.norm.shift[0], epsilon)
    for layer in range(layers.projections.weights.shape[0]):
        stride = apply_linear(
            isa, states, hidden, tokens, layer, layers.projections, wide, quantised, row_scales, row_zeros
        )
        start = 0
        for length in lengths:
            attend(isa, wide, stride, start, length, heads, hidden, distances, context, keys, values, scores, factors)
            start += length
        stride = apply_linear(
            isa, context, hidden, tokens, layer, layers.attention_output, narrow, quantised, row_scales, row_zeros
        )
        add_rows(states, tokens, narrow, stride)
        _normalise(states, tokens, layers.attention_norm.scale[layer], layers.attention_norm.shift[layer], epsilon)
        stride = apply_linear(
            isa, states, hidden, tokens, layer, layers.intermediate, wide, quantised, row_scales, row_zeros
        )
        activate(isa, activation, wide[: tokens * stride])
        stride = apply_linear(isa, wide, stride, tokens, layer, layers.output, narrow, quantised, row_scales, row_zeros)
        add_rows(states, tokens, narrow, stride)
        _normalise(states, tokens, layers.output_norm.scale[layer], layers.output_norm.shift[layer], epsilon)


@jit(inline=True)
def apply_linear(isa, rows, rows_stride, tokens, layer, linear, out, quantised, row_scales, row_zeros):
    """`rows` through one layer's weights to `out`; returns the stride of `out`."""
    return _multiply_rows(
        isa, rows, rows_stride, tokens, layer, linear.weights, linear.bias, linear.scales, linear.sums,
        out, quantised, row_scales, row_zeros,
    )  # fmt: skip


@jit()
def _multiply_rows(
    isa, rows, stride, tokens, layer, weights, bias, scales, sums, out, quantised, row_scales, row_zeros
):  # fmt: skip
    """`rows`, `stride` apart, through one layer's weights to `out`; returns the stride of `out`. The rest as in `Linear`."""
    panels, panel_size, columns = weights.shape[1], weights.shape[2], bias.shape[1]
    if scales is None:
        width = float_panel(isa)
        depth = panel_size // width
        # while one panel is multiplied, its tiles ask for the next one
        lines = -(-panel_size * tile_rows(isa) // (_FLOATS_PER_LINE * tokens))
        pace = max(depth // lines, _LEAST_PACE)
        share = -(-depth // pace) * _FLOATS_PER_LINE
        for panel in range(panels):
            place = (layer * panels + panel) * panel_size
            ahead = place + panel_size
            for row in range(0, tokens, tile_rows(isa)):
                multiply_panel_tile(
                    isa, rows, row * stride, stride, weights, place, width, depth,
                    bias, layer * columns + panel * width, None, out, row * columns + panel * width, columns, ahead, pace,
                )  # fmt: skip
                ahead += share
    else:
        width = byte_panel(isa)
        depth = panel_size // width
        _quantise_rows(isa, rows, stride, tokens, depth, quantised, row_scales, row_zeros)
        for panel in range(panels):
            for row in range(0, tokens, tile_rows(isa)):
                multiply_bytes_tile(
                    isa, quantised, row * depth, depth, row_scales, row_zeros, row,
                    weights, (layer * panels + panel) * panel_size, depth // 4,
                    scales, sums, bias, layer * columns + panel * width,
                    out, row * columns + panel * width, columns,
                )  # fmt: skip
    return columns


@jit()
def _quantise_rows(isa, rows, stride, tokens, depth, quantised, scales, zeros):
    """Each row to bytes: value = scale * (byte - zero). Values beyond a row's own columns meet weights of zero."""
    values = rows.reshape(-1)
    for row in range(tokens):
        quantise_row(isa, values, row * stride, min(depth, stride), quantised, row * depth, scales, zeros, row)


@jit()
def _embed(ids, positions, words, places, states):
    for token in range(len(ids)):
        row, word, place = states[token], words[ids[token]], places[positions[token]]
        for column in range(len(row)):
            row[column] = word[column] + place[column]


@jit()
def add_rows(states, tokens, addition, stride):
    """The first `tokens` rows of `states` plus those of `addition`, `stride` apart, in place."""
    for token in range(tokens):
        row, other = states[token], addition[token * stride : token * stride + states.shape[1]]
        for column in range(len(row)):
            row[column] += other[column]


@jit(fastmath={"reassoc", "contract", "nsz", "arcp"})
def _normalise(states, tokens, scale, shift, epsilon):
    for token in range(tokens):
        row = states[token]
        total = _f(0)
        for column in range(len(row)):
            total += row[column]
        mean = total / _f(len(row))
        square = _f(0)
        for column in range(len(row)):
            square += (row[column] - mean) * (row[column] - mean)
        inverse = _f(1) / np.sqrt(square / _f(len(row)) + epsilon)
        for column in range(len(row)):
            row[column] = (row[column] - mean) * inverse * scale[column] + shift[column]
