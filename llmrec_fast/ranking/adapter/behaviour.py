"""What users did, as towers are trained on it: histories, what came before what, and a part held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmrec_fast.arrays import BoolArray, Float32Array, Int64Array

_MOST_VALIDATION_USERS = 2000


@dataclass(frozen=True)
class Behaviour:
    """Histories as CSR, old to new."""

    indptr: Int64Array
    items: Int64Array
    strengths: Float32Array
    liked: BoolArray
    n_items: int

    @property
    def users(self) -> Int64Array:
        """(positions,) whose each interaction is."""
        return np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr))

    @property
    def targets(self) -> Int64Array:
        """Positions of liked interactions with something before them."""
        first = np.zeros(len(self.items), bool)
        first[self.indptr[:-1][np.diff(self.indptr) > 0]] = True
        return np.flatnonzero(self.liked & ~first)

    def before(self, positions: Int64Array, recent: int) -> tuple[Int64Array, Int64Array]:
        """The `recent` positions before each of `positions`, old to new, as CSR."""
        return _spans(np.maximum(self.indptr[self.users[positions]], positions - recent), positions)

    def latest(self, users: Int64Array, recent: int) -> tuple[Int64Array, Int64Array]:
        """The `recent` last positions of each of `users`, old to new, as CSR."""
        return _spans(np.maximum(self.indptr[users], self.indptr[users + 1] - recent), self.indptr[users + 1])


def _spans(starts: Int64Array, ends: Int64Array) -> tuple[Int64Array, Int64Array]:
    lengths = ends - starts
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    return offsets, np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)


def hold_out(everything: Behaviour, share: float) -> tuple[Behaviour, list[tuple[int, Int64Array]]]:
    """The earlier part of each history, and (user, liked items of the later part) where both are there."""
    sizes = np.diff(everything.indptr)
    kept = np.floor(sizes * (1 - share) + 1e-9).astype(np.int64)
    place = np.arange(len(everything.items)) - np.repeat(everything.indptr[:-1], sizes)
    early = place < np.repeat(kept, sizes)
    part = Behaviour(
        np.concatenate(([0], np.cumsum(kept))),
        everything.items[early],
        everything.strengths[early],
        everything.liked[early],
        everything.n_items,
    )
    late = everything.liked & ~early
    held_out = []
    for user in np.flatnonzero(kept > 0):
        span = slice(everything.indptr[user], everything.indptr[user + 1])
        if len(wanted := np.unique(everything.items[span][late[span]])):
            held_out.append((int(user), wanted))
    step = max(1, -(-len(held_out) // _MOST_VALIDATION_USERS))
    return part, held_out[::step]
