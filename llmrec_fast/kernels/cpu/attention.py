"""Softmax attention of one text over the projections of a packed batch: 4 h t operations a token, in float32."""

# Numba infers the types inside kernels; mypy cannot follow NumPy scalars through them
# mypy: disable-error-code="assignment, arg-type, no-any-return, return-value"

from __future__ import annotations

from llmrec_fast.kernels.cpu.softmax import soften_tile, transpose_block
from llmrec_fast.kernels.cpu.tiles import lanes, multiply_register_tile, tile_rows
from llmrec_fast.kernels.jit import jit


@jit()
def attend(isa, projections, stride, start, length, heads, hidden, distances, context, keys, values, scores):
    """Rows `start` to `start + length` of `context`, head by head, as many queries at a time as a tile has rows.

    `projections` holds rows of queries (with the factor 1 / sqrt(head columns)), keys and values, `stride` apart. It is read
    as far as one register beyond the text's last row and column, and `context` is written one tile beyond its last row, so
    texts must come in the order of their starts. The rest is working memory, of the sizes that `encode_packed` takes.
    """
    columns = hidden // heads
    width = lanes(isa)
    key_stride = -(-length // width) * width
    value_stride = -(-columns // width) * width
    straight = value_stride == columns
    out_at = tile_rows(isa) * key_stride
    flat = context.reshape(-1)
    for head in range(heads):
        first = start * stride + head * columns
        _gather_head(isa, projections, stride, first, hidden, length, columns, keys, key_stride, values, value_stride)
        for query in range(0, length, tile_rows(isa)):
            for key in range(0, key_stride, width):
                multiply_register_tile(
                    isa, projections, first + query * stride, stride, keys, key, key_stride, columns,
                    None, 0, scores, key, key_stride,
                )  # fmt: skip
            queries = min(tile_rows(isa), length - query)
            if distances is not None:
                middle = (distances.shape[1] - 1) // 2
                for row in range(queries):
                    for key in range(length):
                        scores[row * key_stride + key] += distances[head, middle + key - query - row]
            soften_tile(isa, scores, 0, key_stride, length)
            target = (start + query) * hidden + head * columns
            if straight:
                for column in range(0, columns, width):
                    multiply_register_tile(
                        isa, scores, 0, key_stride, values, column, value_stride, length,
                        None, 0, flat, target + column, hidden,
                    )  # fmt: skip
            else:  # a whole register would reach into the next row's first head, which is done
                for column in range(0, value_stride, width):
                    multiply_register_tile(
                        isa, scores, 0, key_stride, values, column, value_stride, length,
                        None, 0, scores, out_at + column, value_stride,
                    )  # fmt: skip
                for row in range(queries):
                    for column in range(columns):
                        flat[target + row * hidden + column] = scores[out_at + row * value_stride + column]


@jit()
def _gather_head(isa, projections, stride, first, hidden, length, columns, keys, key_stride, values, value_stride):
    """One head's keys as columns and its values as rows; what stands beyond the text and the head is never used."""
    for row in range(0, length, lanes(isa)):
        for column in range(0, columns, lanes(isa)):
            transpose_block(
                isa,
                projections,
                first + hidden + row * stride + column,
                stride,
                keys,
                column * key_stride + row,
                key_stride,
            )
    for row in range(length):
        source = projections[first + 2 * hidden + row * stride : first + 2 * hidden + row * stride + columns]
        target = values[row * value_stride : row * value_stride + columns]
        for column in range(columns):
            target[column] = source[column]
