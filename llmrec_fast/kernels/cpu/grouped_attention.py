"""Softmax attention of one text with shared keys and values, to the keys near each query only, in float32.

Grouped queries (arXiv 2305.13245): several query heads use the same keys and values, which are gathered once for all of them.
Of the keys that no query of a tile attends to, whole registers are passed over: causal attention costs about half of what
attention to the whole text does, and attention within a window grows linearly with the text.
"""

# Numba infers the types inside kernels; mypy cannot follow NumPy scalars through them
# mypy: disable-error-code="assignment, arg-type, no-any-return, return-value"

from __future__ import annotations

import numpy as np

from llmrec_fast.kernels.cpu.softmax import raise_tile, transpose_block
from llmrec_fast.kernels.cpu.tiles import lanes, multiply_register_tile, tile_rows
from llmrec_fast.kernels.jit import jit

# of a key that a query does not attend to: its share is 2^-125, which float32 loses beside the others
_UNSEEN = np.float32(-1e30)


@jit()
def attend_near(
    isa, projections, stride, start, length, heads, shared, columns, behind, ahead, context, keys, values, scores,
    factors,
):  # fmt: skip
    """Rows `start` to `start + length` of `context`, (tokens, heads * columns).

    Query i attends to keys i - behind to i + ahead.
    `projections` holds rows of `heads` queries (with the factor 1 / sqrt(columns)), `shared` keys and `shared` values, each of
    `columns` columns, `stride` apart; `shared` divides `heads`. It is read as far as one tile and one register beyond the
    text's last row and column. The rest is working memory, of the sizes that `encode_gated` takes.
    """
    width = lanes(isa)
    key_stride = -(-length // width) * width
    value_stride = -(-columns // width) * width
    out_at = tile_rows(isa) * key_stride
    first_key, first_value = start * stride + heads * columns, start * stride + (heads + shared) * columns
    for group in range(shared):
        _gather_keys(isa, projections, stride, first_key + group * columns, length, columns, keys, key_stride)
        _gather_values(projections, stride, first_value + group * columns, length, columns, values, value_stride)
        for head in range(group * heads // shared, (group + 1) * heads // shared):
            first = start * stride + head * columns
            for query in range(0, length, tile_rows(isa)):
                queries = min(tile_rows(isa), length - query)
                low = max(0, query - behind) // width * width
                high = min(length, query + queries + ahead)
                for key in range(low, high, width):
                    multiply_register_tile(
                        isa, projections, first + query * stride, stride, keys, key, key_stride, columns,
                        None, 0, None, scores, key - low, key_stride, None, 0,
                    )  # fmt: skip
                for row in range(queries):
                    at = row * key_stride - low
                    for key in range(low, query + row - behind):
                        scores[at + key] = _UNSEEN
                    for key in range(query + row + ahead + 1, high):
                        scores[at + key] = _UNSEEN
                raise_tile(isa, scores, 0, key_stride, high - low, factors)
                for column in range(0, value_stride, width):
                    multiply_register_tile(
                        isa, scores, 0, key_stride, values, low * value_stride + column, value_stride, high - low,
                        None, 0, factors, scores, out_at + column, value_stride, None, 0,
                    )  # fmt: skip
                for row in range(queries):
                    target = context[start + query + row, head * columns : (head + 1) * columns]
                    for column in range(columns):
                        target[column] = scores[out_at + row * value_stride + column]


@jit()
def _gather_keys(isa, projections, stride, first, length, columns, keys, key_stride):
    """One head's keys as columns; what stands beyond the text and the head is never used."""
    for row in range(0, length, lanes(isa)):
        for column in range(0, columns, lanes(isa)):
            transpose_block(
                isa, projections, first + row * stride + column, stride, keys, column * key_stride + row, key_stride
            )


@jit()
def _gather_values(projections, stride, first, length, columns, values, value_stride):
    """One head's values as rows."""
    for row in range(length):
        source = projections[first + row * stride : first + row * stride + columns]
        target = values[row * value_stride : row * value_stride + columns]
        for column in range(columns):
            target[column] = source[column]
