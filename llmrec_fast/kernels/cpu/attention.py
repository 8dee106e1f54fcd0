"""Softmax attention of one text over the projections of a packed batch: 4 h t operations a token, in float32."""

# Numba infers the types inside kernels; mypy cannot follow NumPy scalars through them
# mypy: disable-error-code="assignment, arg-type, no-any-return, return-value"

from __future__ import annotations

from llmrec_fast.kernels.cpu.softmax import copy_register, raise_tile, transpose_block
from llmrec_fast.kernels.cpu.tiles import TileShape, lanes, multiply_pair_tile, multiply_register_tile, tile_rows
from llmrec_fast.kernels.jit import jit


def attention_sizes(shape: TileShape, longest: int, columns: int) -> tuple[int, int, int]:
    """Elements of the working memory `keys`, `values` and `scores` that `attend` needs.

    `longest` counts the tokens of the longest text, `columns` those of a head.
    """
    tokens, padded = (-(-size // (2 * shape.lanes)) * 2 * shape.lanes for size in (longest, columns))
    return padded * tokens, longest * padded, shape.rows * (tokens + padded)


@jit()
def attend(isa, projections, stride, start, length, heads, hidden, distances, context, keys, values, scores, factors):
    """Rows `start` to `start + length` of `context`, head by head, as many queries at a time as a tile has rows.

    `projections` holds rows of queries (with the factor 1 / sqrt(head columns)), keys and values, `stride` apart. It is read
    as far as one register beyond the text's last row and column, and `context` is written one tile beyond its last row, so
    texts must come in the order of their starts. The rest is working memory: as `attention_sizes` tells, and in `factors` an
    element for each row of a tile.
    """
    columns = hidden // heads
    width = lanes(isa)
    score_stride = -(-length // width) * width
    value_stride = -(-columns // width) * width
    straight = value_stride == columns
    out_at = tile_rows(isa) * score_stride
    flat = context.reshape(-1)
    for head in range(heads):
        first = start * stride + head * columns
        _gather_keys(isa, projections, first + hidden, stride, length, columns, keys)
        _gather_values(isa, projections, first + 2 * hidden, stride, length, columns, values)
        for query in range(0, length, tile_rows(isa)):
            _multiply(
                isa, projections, first + query * stride, stride, keys, columns, length, None,
                scores, 0, score_stride,
            )  # fmt: skip
            queries = min(tile_rows(isa), length - query)
            if distances is not None:
                middle = (distances.shape[1] - 1) // 2
                for row in range(queries):
                    for key in range(length):
                        scores[row * score_stride + key] += distances[head, middle + key - query - row]
            raise_tile(isa, scores, 0, score_stride, length, factors)
            target = (start + query) * hidden + head * columns
            if straight:
                _multiply(isa, scores, 0, score_stride, values, length, columns, factors, flat, target, hidden)
            else:  # a whole register would reach into the next row's first head, which is done
                _multiply(isa, scores, 0, score_stride, values, length, columns, factors, scores, out_at, value_stride)
                for row in range(queries):
                    for column in range(columns):
                        flat[target + row * hidden + column] = scores[out_at + row * value_stride + column]


@jit(inline=True)
def _multiply(isa, left, left_at, left_stride, right, depth, columns, factors, out, out_at, out_stride):
    """A tile of rows times a matrix that lies in panels of two registers; `out` is written up to a whole register."""
    pair = 2 * lanes(isa)
    for column in range(0, columns, pair):
        if columns - column > lanes(isa):
            multiply_pair_tile(
                isa, left, left_at, left_stride, right, column * depth, pair, depth, None, 0, factors,
                out, out_at + column, out_stride, None, 0,
            )  # fmt: skip
        else:
            multiply_register_tile(
                isa, left, left_at, left_stride, right, column * depth, pair, depth, None, 0, factors,
                out, out_at + column, out_stride, None, 0,
            )  # fmt: skip


@jit(inline=True)
def _gather_keys(isa, projections, at, stride, length, columns, keys):
    """One head's keys as the columns of panels; what stands beyond the text and the head is never used."""
    width = lanes(isa)
    for row in range(0, length, width):
        panel = row // (2 * width) * 2 * width
        for column in range(0, columns, width):
            transpose_block(
                isa, projections, at + row * stride + column, stride,
                keys, panel * columns + column * 2 * width + row - panel, 2 * width,
            )  # fmt: skip


@jit(inline=True)
def _gather_values(isa, projections, at, stride, length, columns, values):
    """One head's values as the rows of panels; what stands beyond the head is never used."""
    width = lanes(isa)
    for column in range(0, columns, width):
        panel = column // (2 * width) * 2 * width
        for row in range(length):
            copy_register(
                isa, projections, at + row * stride + column, values, panel * length + row * 2 * width + column - panel
            )
