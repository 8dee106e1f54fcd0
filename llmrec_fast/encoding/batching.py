"""Which texts go through the model together: neighbours in length, up to a budget of tokens.

Padding is work thrown away, so batches are cut where it would grow; very small products are inefficient, so not too early.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmrec_fast.arrays import Int64Array
from llmrec_fast.encoding.tokens import Int32Array

# MiniLM on an AVX2 core: 192 to 1024 tokens a batch run equally fast, 64 tokens 5% slower.
TOKENS_PER_BATCH = 512
TOKENS_WORTH_A_BATCH = 64
# The package's kernels need less for an efficient product: a tile of rows is all that is ever multiplied at once.
TOKENS_WORTH_A_PACKED_BATCH = 32
_TOKENS_BEFORE_A_CUT = 128
_SHORTEST_SHARE = 0.8


def plan_batches(lengths: Int64Array, tokens_per_batch: int = TOKENS_PER_BATCH) -> list[Int64Array]:
    """Positions of `lengths` in batches, longest first; zero lengths are left out.

    A batch holds at most `tokens_per_batch` tokens with its padding (or one text), and once it has enough tokens for an
    efficient product, no text shorter than 0.8 of its longest.
    """
    order = np.argsort(-lengths, kind="stable")
    order = order[lengths[order] > 0]
    batches: list[Int64Array] = []
    start = 0
    for stop in range(1, len(order) + 1):
        if stop < len(order):
            longest, rows = int(lengths[order[start]]), stop - start
            uneven = lengths[order[stop]] < _SHORTEST_SHARE * longest and rows * longest >= _TOKENS_BEFORE_A_CUT
            if not uneven and (rows + 1) * longest <= tokens_per_batch:
                continue
        batches.append(order[start:stop])
        start = stop
    return batches


def plan_packed_batches(lengths: Int64Array, tokens_per_batch: int = TOKENS_PER_BATCH) -> list[Int64Array]:
    """Positions of `lengths` in batches without padding, longest first; zero lengths are left out.

    A batch holds at most `tokens_per_batch` tokens, or one text.
    """
    order = np.argsort(-lengths, kind="stable")
    order = order[lengths[order] > 0]
    batches: list[Int64Array] = []
    start = tokens = 0
    for stop, length in enumerate(lengths[order].tolist()):
        if stop > start and tokens + length > tokens_per_batch:
            batches.append(order[start:stop])
            start, tokens = stop, 0
        tokens += length
    if len(order):
        batches.append(order[start:])
    return batches


def pad_batch(windows: Sequence[Int32Array], padding_id: int) -> tuple[Int32Array, Int32Array]:
    """Right-padded ids (batch, time) and lengths (batch,) of token id arrays."""
    lengths = np.array([len(window) for window in windows], np.int32)
    ids = np.full((len(windows), int(lengths.max())), padding_id, np.int32)
    for row, window in zip(ids, windows, strict=True):
        row[: len(window)] = window
    return ids, lengths


def pad_to_shape(ids: Int32Array, lengths: Int32Array, shape: tuple[int, int]) -> tuple[Int32Array, Int32Array]:
    """`ids` and `lengths` of a padded batch within a larger (batch, time); the texts that fill it up have one token."""
    padded = np.zeros(shape, np.int32)
    padded[: ids.shape[0], : ids.shape[1]] = ids
    counts = np.ones(shape[0], np.int32)
    counts[: len(lengths)] = lengths
    return padded, counts
