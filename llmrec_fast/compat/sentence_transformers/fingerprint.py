"""A 64-bit hash of a matrix's bits, at the speed of reading it: to notice that values changed, not to resist anyone."""

from __future__ import annotations

import numpy as np

from llmrec_fast.arrays import Float32Array
from llmrec_fast.kernels.jit import jit
from llmrec_fast.kernels.threads import get_threads, run_parallel, split_range

_WORDS_WORTH_A_THREAD = 1 << 17
_LANES = 16
# odd constants of splitmix64 (Steele, Lea and Flood 2014)
_MULTIPLIER, _STEP = 0xBF58476D1CE4E5B9, 0x9E3779B97F4A7C15


def fingerprint(rows: Float32Array) -> int:
    """The hash of a C-contiguous float32 matrix. Every bit and every place counts; equal matrices have equal hashes."""
    words = rows.reshape(-1).view(np.uint32)
    pieces = split_range(len(words), max(1, len(words) // _WORDS_WORTH_A_THREAD))
    parts = run_parallel(_hash_words, [(words, start, stop) for start, stop in pieces], get_threads())
    result = len(words)
    for part in parts:
        result = ((result ^ int(part)) * _MULTIPLIER + _STEP) % (1 << 64)
    return result


@jit()
def _hash_words(words, start, stop):  # type: ignore[no-untyped-def]
    """h = h m + w per lane, an invertible step for each word: a single changed word always changes the hash."""
    multiplier = np.uint64(_MULTIPLIER)
    lanes = np.full(_LANES, np.uint64(_STEP))
    whole = start + (stop - start) // _LANES * _LANES
    for first in range(start, whole, _LANES):
        for lane in range(_LANES):
            lanes[lane] = lanes[lane] * multiplier + np.uint64(words[first + lane])
    total = np.uint64(stop - start)
    for position in range(whole, stop):
        total = total * multiplier + np.uint64(words[position])
    for lane in range(_LANES):
        mixed = lanes[lane] ^ (lanes[lane] >> np.uint64(29))
        total = total * multiplier + mixed
    return total
