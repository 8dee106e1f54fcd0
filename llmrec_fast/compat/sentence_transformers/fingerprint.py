"""A 64-bit hash of an array's bits, at the speed of reading it: to notice that values changed, not to resist anyone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from llmrec_fast.kernels.cpu.intrinsics import prefetch
from llmrec_fast.kernels.jit import jit
from llmrec_fast.kernels.threads import get_threads, run_parallel, split_range

_WORDS_WORTH_A_THREAD = 1 << 17
_LANES = 64
# a processor's own prefetching stops at every page; twice as far ahead was slower again
_BYTES_AHEAD = 1024
# odd constants of splitmix64 (Steele, Lea and Flood 2014) and of the 32-bit finaliser of MurmurHash3
_MULTIPLIER, _STEP, _MULTIPLIER_32 = 0xBF58476D1CE4E5B9, 0x9E3779B97F4A7C15, 0x85EBCA6B


def fingerprint(array: npt.NDArray[Any]) -> int:
    """The hash of a C-contiguous array. Every bit and every place counts; arrays of equal bits have equal hashes."""
    octets = array.reshape(-1).view(np.uint8)
    whole = len(octets) // 4 * 4
    words = octets[:whole].view(np.uint32)
    pieces = split_range(len(words), max(1, len(words) // _WORDS_WORTH_A_THREAD))
    parts = run_parallel(_hash_words, [(words, start, stop) for start, stop in pieces], get_threads())
    result = len(octets)
    for part in (*parts, *octets[whole:].tolist()):
        result = ((result ^ int(part)) * _MULTIPLIER + _STEP) % (1 << 64)
    return result


@jit()
def _hash_words(words, start, stop):  # type: ignore[no-untyped-def]
    """h = mix((h ^ w) m) per 32-bit lane: invertible steps, so that a single changed word always changes its lane.

    The mixing h ^ (h >> 15) carries high bits down; without it words whose low bits are zeros (what was float16 once) would
    never reach the low bits of h, and two of them could change places unnoticed.
    """
    multiplier = np.uint32(_MULTIPLIER_32)
    lanes = np.full(_LANES, np.uint32(_STEP & 0xFFFFFFFF))
    whole = start + (stop - start) // _LANES * _LANES
    for first in range(start, whole, _LANES):
        for line in range(first * 4, (first + _LANES) * 4, 64):
            prefetch(words, line + _BYTES_AHEAD)
        block = words[first : first + _LANES]
        for lane in range(_LANES):
            product = np.uint32((lanes[lane] ^ block[lane]) * multiplier)
            lanes[lane] = np.uint32(product ^ np.uint32(product >> np.uint32(15)))
    total = np.uint64(stop - start)
    for position in range(whole, stop):
        total = total * np.uint64(_MULTIPLIER) + np.uint64(words[position])
    for lane in range(_LANES):
        total = (total ^ np.uint64(lanes[lane])) * np.uint64(_MULTIPLIER)
        total ^= total >> np.uint64(31)
    return total
