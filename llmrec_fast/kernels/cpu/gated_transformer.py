"""The layers of ModernBERT and of decoder models over packed texts: pre-norm, rotary positions, gated feed-forward layers.

`transformer.py` has the products, float32 or of bytes with a scale and a zero point a row, and says what they cost; there too,
one thread works on a batch, and a text's result does not depend, in any bit, on what else is in it.
"""

# Numba infers the types inside kernels; mypy cannot follow NumPy scalars through them
# mypy: disable-error-code="assignment, arg-type, no-any-return, return-value"

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import Float32Array, Int64Array
from llmrec_fast.kernels.cpu.activations import ACTIVATIONS, activate
from llmrec_fast.kernels.cpu.grouped_attention import attend_near
from llmrec_fast.kernels.cpu.intrinsics import instruction_set
from llmrec_fast.kernels.cpu.scratch import Scratch
from llmrec_fast.kernels.cpu.tiles import tile_shape
from llmrec_fast.kernels.cpu.transformer import Linear, Norm, add_rows, apply_linear
from llmrec_fast.kernels.jit import jit

_SUMS = {"reassoc", "contract", "nsz", "arcp"}
_f = np.float32


class GatedLayers(NamedTuple):
    """The parameters of all layers.

    Attributes
    ----------
    attention_norm, feed_forward_norm : before either half of a layer.
    projections : queries (with the factor 1 / sqrt(head columns), unless `head_norm` has it), keys and values side by side.
    head_norm : (layers, 2, head columns) float32, of queries and of keys, head by head; None: they are not normalised.
    attention_output, gate_up, down : the other products; gates and what they let through side by side.
    final_norm, final : (1, hidden), of the result, and a (hidden, hidden) linear layer after it; None: there is none.
    reaches : (layers, 2) int64, how far before and behind itself a token attends.
    tables : (layers,) int64, which of the rotary tables a layer uses.
    """

    attention_norm: Norm
    projections: Linear
    head_norm: Float32Array | None
    attention_output: Linear
    feed_forward_norm: Norm
    gate_up: Linear
    down: Linear
    final_norm: Norm
    final: Linear | None
    reaches: Int64Array
    tables: Int64Array


class Rotary(NamedTuple):
    """(tables, positions, half a head's columns) float32 each: the angles by which a position turns columns i and i + half."""

    cosines: Float32Array
    sines: Float32Array


class GatedSizes(NamedTuple):
    """Heads of queries, heads of keys and values that groups of them share, columns of each; columns within the gate.

    Of these, each `block`, a power of two that divides them, is mixed before `down`; 0: none is.
    """

    heads: int
    shared: int
    columns: int
    inner: int
    block: int


def encode_gated(
    ids: npt.NDArray[np.int32],
    lengths: Int64Array,
    words: Float32Array,
    layers: GatedLayers,
    rotary: Rotary,
    sizes: GatedSizes,
    *,
    activation: str,
    epsilon: float,
    centred: bool,
    normed_words: bool,
    scratch: Scratch,
) -> Float32Array:
    """Token embeddings of packed texts.

    Parameters
    ----------
    ids : (tokens,) int32, text after text: rows of `words`. Nothing checks them.
    lengths : (texts,) tokens of each text, at most the positions of `rotary`; they sum to `tokens`.
    words : (vocabulary, hidden) float32.
    layers, rotary, sizes : the parameters, packed for `instruction_set()`.
    activation : of the gate, one of `ACTIVATIONS`.
    epsilon : of the norms.
    centred : whether norms subtract the mean (layer norm), or not (RMS norm).
    normed_words : whether the first layer takes words as they are, without its attention norm.
    scratch : working memory; the result lies in it.

    Returns
    -------
    (tokens, hidden) float32, valid until `scratch` is used again.
    """
    isa = instruction_set()
    shape = tile_shape(isa)
    tokens, hidden = len(ids), words.shape[1]
    # the last tile of rows, and the last block of keys, reach beyond the last text
    rows = (-(-tokens // shape.rows) + 1) * shape.rows + shape.lanes
    longest = -(-int(lengths.max()) // shape.lanes) * shape.lanes
    head_columns = -(-sizes.columns // shape.lanes) * shape.lanes
    widest = max(layers.projections.bias.shape[1], layers.gate_up.bias.shape[1])
    narrow = max(layers.attention_output.bias.shape[1], layers.down.bias.shape[1])
    context = sizes.heads * sizes.columns
    depth = -(-max(hidden, sizes.inner, context) // 4) * 4
    normed = scratch.take("normed", (rows, hidden), np.float32)
    _forward(
        isa,
        ids,
        lengths,
        words,
        layers,
        rotary,
        sizes,
        ACTIVATIONS.index(activation),
        np.float32(epsilon),
        centred,
        normed_words,
        scratch.take("states", (rows, hidden), np.float32),
        normed,
        scratch.take("context", (rows, context), np.float32),
        scratch.take("gated", (rows, sizes.inner), np.float32),
        scratch.take("wide", (rows * widest,), np.float32),
        scratch.take("narrow", (rows * narrow,), np.float32),
        scratch.take("bytes", (rows * depth,), np.uint8),
        scratch.take("row scales", (rows,), np.float32),
        scratch.take("row zeros", (rows,), np.int32),
        scratch.take("keys", (head_columns * longest,), np.float32),
        scratch.take("values", (longest * head_columns,), np.float32),
        scratch.take("scores", (shape.rows * (longest + head_columns),), np.float32),
        scratch.take("factors", (shape.rows,), np.float32),
    )
    return normed[:tokens]


@jit()
def _forward(
    isa, ids, lengths, words, layers, rotary, sizes, activation, epsilon, centred, normed_words,
    states, normed, context, gated, wide, narrow, quantised, row_scales, row_zeros, keys, values, scores, factors,
):  # fmt: skip
    tokens, hidden = len(ids), states.shape[1]
    heads, shared, columns, inner, block = sizes
    for token in range(tokens):
        states[token] = words[ids[token]]
    for layer in range(layers.projections.weights.shape[0]):
        if layer == 0 and normed_words:
            normed[:tokens] = states[:tokens]
        else:
            _normalise(states, tokens, layers.attention_norm, layer, centred, epsilon, normed)
        stride = apply_linear(
            isa, normed, hidden, tokens, layer, layers.projections, wide, quantised, row_scales, row_zeros
        )
        _normalise_heads(wide, stride, tokens, heads, shared, columns, layers.head_norm, layer, epsilon)
        table, start = layers.tables[layer], 0
        for length in lengths:
            _turn(wide, stride, start, length, heads + shared, rotary.cosines[table], rotary.sines[table])
            attend_near(
                isa, wide, stride, start, length, heads, shared, columns,
                layers.reaches[layer, 0], layers.reaches[layer, 1], context, keys, values, scores, factors,
            )  # fmt: skip
            start += length
        stride = apply_linear(
            isa, context, heads * columns, tokens, layer, layers.attention_output,
            narrow, quantised, row_scales, row_zeros,
        )  # fmt: skip
        add_rows(states, tokens, narrow, stride)
        _normalise(states, tokens, layers.feed_forward_norm, layer, centred, epsilon, normed)
        stride = apply_linear(
            isa, normed, hidden, tokens, layer, layers.gate_up, wide, quantised, row_scales, row_zeros
        )
        _gate(isa, activation, wide, stride, tokens, inner, block, gated)
        stride = apply_linear(isa, gated, inner, tokens, layer, layers.down, narrow, quantised, row_scales, row_zeros)
        add_rows(states, tokens, narrow, stride)
    _normalise(states, tokens, layers.final_norm, 0, centred, epsilon, normed)
    _finish(isa, normed, tokens, layers.final, narrow, quantised, row_scales, row_zeros)


@jit()
def _finish(isa, normed, tokens, final, narrow, quantised, row_scales, row_zeros):
    """The last linear layer, in place, if there is one."""
    if final is not None:
        hidden = normed.shape[1]
        stride = apply_linear(isa, normed, hidden, tokens, 0, final, narrow, quantised, row_scales, row_zeros)
        for token in range(tokens):
            normed[token] = narrow[token * stride : token * stride + hidden]


@jit(fastmath=_SUMS)
def _normalise(states, tokens, norm, layer, centred, epsilon, out):
    """Layer norm where `centred`, else RMS norm (arXiv 1910.07467), from `states` to `out`."""
    scale, shift = norm.scale[layer], norm.shift[layer]
    for token in range(tokens):
        row, target = states[token], out[token]
        mean = _f(0)
        if centred:
            for column in range(len(row)):
                mean += row[column]
            mean /= _f(len(row))
        square = _f(0)
        for column in range(len(row)):
            square += (row[column] - mean) * (row[column] - mean)
        inverse = _f(1) / np.sqrt(square / _f(len(row)) + epsilon)
        for column in range(len(row)):
            target[column] = (row[column] - mean) * inverse * scale[column] + shift[column]


@jit(fastmath=_SUMS)
def _normalise_heads(rows, stride, tokens, heads, shared, columns, scales, layer, epsilon):
    """RMS norm of each head of queries and of keys, in place; nothing where `scales` is None."""
    if scales is not None:
        for token in range(tokens):
            for head in range(heads + shared):
                at = token * stride + head * columns
                row, scale = rows[at : at + columns], scales[layer, int(head >= heads)]
                square = _f(0)
                for column in range(columns):
                    square += row[column] * row[column]
                inverse = _f(1) / np.sqrt(square / _f(columns) + epsilon)
                for column in range(columns):
                    row[column] *= inverse * scale[column]


@jit(fastmath={"contract", "nsz"})
def _turn(rows, stride, start, length, heads, cosines, sines):
    """Rotary positions (arXiv 2104.09864): turn the first `heads` heads of one text's rows, in place."""
    half = cosines.shape[1]
    for position in range(length):
        cosine, sine = cosines[position], sines[position]
        for head in range(heads):
            at = (start + position) * stride + 2 * head * half
            left, right = rows[at : at + half], rows[at + half : at + 2 * half]
            for column in range(half):
                x, y = left[column], right[column]
                left[column] = x * cosine[column] - y * sine[column]
                right[column] = y * cosine[column] + x * sine[column]


@jit(fastmath={"contract", "nsz"})
def _gate(isa, activation, rows, stride, tokens, inner, block, out):
    """activation(gate) * up (arXiv 2002.05202), of rows that hold both side by side, then mixed."""
    for token in range(tokens):
        at, target = token * stride, out[token]
        target[:] = rows[at : at + inner]  # after the row before, whose last register reaches into this one
        activate(isa, activation, target)
        for column in range(inner):
            target[column] *= rows[at + inner + column]
        _mix(target, block)


@jit(fastmath={"contract", "nsz"})
def _mix(row, block):
    """A Hadamard transform, unscaled, over every eighth column of each block (`rotations.spread_blocks`), in place.

    Two of its steps at a time: one alone takes 1.8 times as long.
    """
    step = 8
    while 2 * step < block:
        for start in range(0, len(row), 4 * step):
            first, second = row[start : start + step], row[start + step : start + 2 * step]
            third, fourth = row[start + 2 * step : start + 3 * step], row[start + 3 * step : start + 4 * step]
            for column in range(step):
                low, high = first[column] + second[column], third[column] + fourth[column]
                low_rest, high_rest = first[column] - second[column], third[column] - fourth[column]
                first[column], second[column] = low + high, low_rest + high_rest
                third[column], fourth[column] = low - high, low_rest - high_rest
        step *= 4
    if step < block:
        for start in range(0, len(row), 2 * step):
            left, right = row[start : start + step], row[start + step : start + 2 * step]
            for column in range(step):
                left[column], right[column] = left[column] + right[column], left[column] - right[column]
