"""Which texts go through the model together: neighbours in length, up to a budget of tokens; and on how many threads.

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
# The package's kernels need less for an efficient product: a tile of rows is all that is ever multiplied at once. They are the
# fastest while a batch's states stay in a core's second cache: MiniLM on Zen 2, 5% faster with 192 or 256 tokens than 512.
TOKENS_PER_PACKED_BATCH = 192
TOKENS_WORTH_A_PACKED_BATCH = 32
_TOKENS_BEFORE_A_CUT = 128
_SHORTEST_SHARE = 0.8
# of one thread's share of the tokens; with a longer text, the other threads would wait for that one's
_MOST_OF_A_SHARE = 1.25


def plan_work(
    lengths: Int64Array, threads: int, *, packed: bool, tokens_of_one_thread: int | None
) -> tuple[bool, list[Int64Array]]:
    """Whether texts of `lengths` tokens are the sooner done by a thread a batch, and the batches, as positions.

    Otherwise all threads work on one batch after the other.

    Parameters
    ----------
    packed : whether nothing is padded where a thread has a batch to itself.
    tokens_of_one_thread : so few tokens are one thread's work even where they cannot be shared out; None: always.
    """
    tokens = int(lengths.sum())
    share = tokens // threads
    # the longest text cannot be shared out
    balanced = lengths.max(initial=0) <= _MOST_OF_A_SHARE * share
    worth = TOKENS_WORTH_A_PACKED_BATCH if packed else TOKENS_WORTH_A_BATCH
    if threads > 1 and balanced and share >= worth:
        return True, plan_packed_batches(lengths, threads) if packed else plan_batches(
            lengths, min(TOKENS_PER_BATCH, share)
        )
    if tokens_of_one_thread is None or tokens <= tokens_of_one_thread:
        return True, plan_packed_batches(lengths) if packed else plan_batches(lengths)
    return False, plan_batches(lengths)


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


def plan_packed_batches(
    lengths: Int64Array, threads: int = 1, tokens_per_batch: int = TOKENS_PER_PACKED_BATCH
) -> list[Int64Array]:
    """Positions of `lengths` in batches without padding, longest first; zero lengths are left out.

    Batches have equal shares of the tokens, of at most `tokens_per_batch`, as nearly as whole texts allow: none is further off
    than its longest text. Every thread has as many of them, but for texts that are longer than a share.
    """
    order = np.argsort(-lengths, kind="stable")
    order = order[lengths[order] > 0]
    if not len(order):
        return []
    stops = np.cumsum(lengths[order])
    tokens = int(stops[-1])
    shares = -(-tokens // (tokens_per_batch * threads)) * threads
    # a text belongs to the share in which its middle lies
    share = (2 * stops - lengths[order]) * shares // (2 * tokens)
    return np.split(order, np.flatnonzero(np.diff(share)) + 1)


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
