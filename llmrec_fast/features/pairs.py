"""Pair features: what is known of a user and an item together, as columns that a learned scorer weighs.

Everything about a user follows from the history (items, which of them were liked, the time of the latest), so that a new user,
or one after a new event, needs no training; everything about items is learned from interactions once:

- collaborative scores by EASE, on likes and on everything that was chosen, and by PureSVD on likes, at several recencies;
- directed transitions from the latest items, to what comes next and to what comes within a page or two, and back; item
  neighbours by who liked both;
- cosines of each ready vector (text, genres, images), at several recencies;
- the item's counts of likes and choices, its share of likes, and when it was current;
- the user's number of choices, share of likes, and taste for what is popular; how current the item is for this user;
- where in a history the item usually stands, and how far this user still is from there (or past it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from llmrec_fast.arrays import BoolArray, Float32Array, Float64Array, Int64Array
from llmrec_fast.errors import CorruptFile
from llmrec_fast.features.collaborative import fit_ease, fit_svd
from llmrec_fast.features.pair_sums import (
    dot_products,
    pick,
    pooled,
    restored,
    sparse,
    weighted_profiles,
    with_empty_row,
)
from llmrec_fast.features.transitions import count_transitions, transition_matrix

_EASE_DECAYS = (None, 50.0, 10.0, 3.0)
_SVD_RANK = 16
_SVD_DECAYS = (None, 10.0)
_VECTOR_DECAYS = (None, 20.0, 5.0)
_TRANSITION_DECAYS = (20.0, 5.0, 1.0)
# what comes a page or two later: people work through lists, so that order reaches further than the next item
_WIDE_WINDOW, _WIDE_DECAY = 30, 10.0
_WIDE_TRANSITION_DECAYS = (20.0, 5.0)
_BACKWARD_DECAYS = (20.0,)
_NEIGHBOUR_DECAYS = (None, 10.0)
# the matrices by name, and at which recencies histories go through them
_TRANSITIONS: tuple[tuple[str, tuple[float, ...]], ...] = (
    ("transitions", _TRANSITION_DECAYS),
    ("wide_transitions", _WIDE_TRANSITION_DECAYS),
    ("backward_transitions", _BACKWARD_DECAYS),
)
_DAY = 86400.0
# the item columns of one that nobody has chosen yet
_NEW_ITEM = (0.0, 0.0, 0.5, np.nan, np.nan, 0.5, np.nan)
# places in a history are averaged as if an item had stood in the middle so many times more
_PLACE_SHRINKAGE = 5.0


@dataclass(frozen=True)
class PairHistories:
    """The histories that features are made for.

    Attributes
    ----------
    indptr : (users + 1,) offsets; user u has the positions `indptr[u] .. indptr[u + 1]` of the others.
    items : (m,) positions in the catalogue, oldest first.
    liked : (m,) which of them were liked.
    latest : (users,) when each user did something last, in seconds; NaN where that is not known.
    """

    indptr: Int64Array
    items: Int64Array
    liked: BoolArray
    latest: Float64Array

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def likes(self) -> tuple[Int64Array, Int64Array]:
        """The liked part as CSR: offsets and items."""
        before = np.concatenate(([0], np.cumsum(self.liked)))
        return before[self.indptr], self.items[self.liked]


@dataclass(frozen=True)
class PairFeatures:
    """What makes the features; arrays only, so that it can be saved as it is.

    Attributes
    ----------
    arrays : name -> array; those of items have a row an item that was there at the fit.
    vectors : names of the ready vectors, in the order of their columns.
    names : names of the columns.
    """

    arrays: Mapping[str, Any]
    vectors: tuple[str, ...]
    names: tuple[str, ...]

    def check(self) -> None:
        """Raises `CorruptFile` if another version of this package named the columns, so that they mean something else."""
        expected = _names(self.vectors)
        if self.names != expected:
            differing = sorted(set(self.names) ^ set(expected)) or "their order"
            raise CorruptFile(
                f"pair features of another version of llmrec_fast, which differ in {differing}; fit the reranker again"
            )

    @classmethod
    def fit(
        cls,
        histories: PairHistories,
        times: Float64Array | None,
        vectors: Sequence[str],
        n_items: int,
        *,
        rank: int = 256,
        liked_regularization: float = 100.0,
        chosen_regularization: float = 300.0,
    ) -> PairFeatures:
        """Learn from training histories.

        Parameters
        ----------
        histories : everyone's training part.
        times : (m,) when each interaction of `histories` happened, in seconds; None: not known.
        vectors : names of the ready vectors that `compute` will be given.
        n_items : size of the catalogue.
        rank, liked_regularization, chosen_regularization : of EASE on likes and on everything chosen.
        """
        from scipy.sparse import csr_matrix

        shape = (len(histories), n_items)
        liked_indptr, liked_items = histories.likes()
        likes = csr_matrix((np.ones(len(liked_items)), liked_items, liked_indptr), shape=shape)
        chosen = csr_matrix((np.ones(len(histories.items)), histories.items, histories.indptr), shape=shape)
        arrays: dict[str, Any] = {}
        for name, matrix, regularization in (
            ("liked", likes, liked_regularization),
            ("chosen", chosen, chosen_regularization),
        ):
            ease = fit_ease(matrix, min(rank, *shape), regularization=regularization)
            arrays[f"{name}_history"], arrays[f"{name}_item"] = ease.history_vectors, ease.item_vectors
        svd = fit_svd(likes, min(_SVD_RANK, *shape))
        arrays["latent_history"], arrays["latent_item"] = svd.history_vectors, svd.item_vectors
        counts = count_transitions(
            histories.indptr, histories.items, n_items, histories.liked.astype(np.float32), window=5, decay=3.0
        )
        arrays |= _transitions("transitions", counts)
        wide = count_transitions(
            histories.indptr,
            histories.items,
            n_items,
            histories.liked.astype(np.float32),
            window=_WIDE_WINDOW,
            decay=_WIDE_DECAY,
        )
        arrays |= _transitions("wide_transitions", wide) | _transitions("backward_transitions", wide.T.tocsr())
        lengths = np.sqrt(np.asarray(likes.sum(axis=0))).ravel()
        directions = likes.multiply(1 / np.maximum(lengths, 1)).tocsr()
        arrays |= sparse("neighbours", directions.T.tocsr())
        like_counts, counts_ = likes.getnnz(axis=0), chosen.getnnz(axis=0)
        arrays["item"] = _item_columns(like_counts, counts_, histories, times)
        return cls(arrays, tuple(vectors), _names(tuple(vectors)))

    def compute(
        self,
        histories: PairHistories,
        candidates: Int64Array,
        vectors: Mapping[str, Float32Array],
        row_of: Int64Array | None = None,
        *,
        threads: int | None = None,
    ) -> Float32Array:
        """(users x c, features) float32 of each user with their c candidates, user by user.

        Parameters
        ----------
        histories : as in `fit`. An item that came after the fit counts as one that nobody chose yet.
        candidates : (users, c) positions in the catalogue; -1 for none, whose row is zeros.
        vectors : name -> (rows, d) the ready vectors of the catalogue as it is now, centred.
        row_of : (items,) the row of `vectors` that describes an item; None: its position.
        threads : bound on the number of threads.
        """
        known = len(self.arrays["item"])
        fitted = (candidates >= 0) & (candidates < known)
        columns = self._behaviour(_known_only(histories, known), np.where(fitted, candidates, 0), threads)
        for column in columns:
            column[~fitted] = 0
        liked_indptr, liked_items = histories.likes()
        rows = np.maximum(candidates, 0)
        if row_of is not None:
            rows, liked_items = row_of[rows], row_of[liked_items]
        for name in self.vectors:
            norms = np.empty(rows.shape, np.float32)
            for user, chosen in enumerate(rows):
                norms[user] = np.linalg.norm(vectors[name][chosen], axis=1)
            for decay in _VECTOR_DECAYS:
                users = pooled(vectors[name], liked_indptr, liked_items, decay, True, threads)
                dots = dot_products(users, vectors[name], rows)
                columns.append(np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0))
        columns += self._counts(histories, candidates)
        features = np.stack(columns, axis=-1)
        features[candidates < 0] = 0
        return features.reshape(-1, len(self.names))

    def _behaviour(self, histories: PairHistories, candidates: Int64Array, threads: int | None) -> list[Float32Array]:
        """What others did: EASE, transitions and neighbours, for items of the fit."""
        columns: list[Float32Array] = []
        likes, choices = histories.likes(), (histories.indptr, histories.items)
        for name, (indptr, items), decays in (
            ("liked", likes, _EASE_DECAYS),
            ("chosen", choices, _EASE_DECAYS),
            ("latent", likes, _SVD_DECAYS),
        ):
            for decay in decays:
                users = pooled(self.arrays[f"{name}_history"], indptr, items, decay, False, threads)
                columns.append(dot_products(users, self.arrays[f"{name}_item"], candidates))
        n_items = len(self.arrays["item"])
        for name, recencies in _TRANSITIONS:
            for recency in recencies:
                profiles = weighted_profiles(*choices, recency, n_items)
                columns.append(pick(profiles, self._transition_matrices[name], None, candidates))
        neighbours, liked_by = self._neighbours
        for decay in _NEIGHBOUR_DECAYS:
            columns.append(pick(weighted_profiles(*likes, decay, n_items), neighbours, liked_by, candidates))
        return columns

    @cached_property
    def _transition_matrices(self) -> dict[str, Any]:
        """By name; made once, not for every request."""
        return {name: restored(name, self.arrays) for name, _ in _TRANSITIONS}

    @cached_property
    def _neighbours(self) -> tuple[Any, Any]:
        """(items, users) directions of likes, and those transposed; made once."""
        neighbours = restored("neighbours", self.arrays)
        return neighbours, neighbours.T.tocsr()

    @cached_property
    def _item_columns(self) -> Float32Array:
        """The columns of every item, and in a last row those of one that came after the fit."""
        return np.concatenate([self.arrays["item"], [_NEW_ITEM]]).astype(np.float32)

    def _counts(self, histories: PairHistories, candidates: Int64Array) -> list[Float32Array]:
        """What is known of the user and of the item by themselves, and how far apart they are in time."""
        items = self._item_columns
        new = len(items) - 1
        candidates = np.where((candidates < 0) | (candidates >= new), new, candidates)
        sizes, likes = np.diff(histories.indptr), np.diff(histories.likes()[0])
        user = np.repeat(np.arange(len(histories)), sizes)
        popularity = np.bincount(user, items[np.minimum(histories.items, new), 1], minlength=len(sizes))
        of_user = [np.log1p(sizes), (likes + 2) / (sizes + 4), popularity / np.maximum(sizes, 1)]
        columns = [np.broadcast_to(values[:, None], candidates.shape).astype(np.float32) for values in of_user]
        columns += [items[candidates, column] for column in range(3)]
        for column in (3, 4):  # between the user's latest and the item's mean and first time
            gap = histories.latest[:, None] / _DAY - items[candidates, column]
            columns.append(np.nan_to_num(gap, nan=0.0).astype(np.float32))
        columns.append(items[candidates, 5])
        still_to_go = items[candidates, 6] - np.log1p(sizes)[:, None]
        columns.append(np.nan_to_num(still_to_go, nan=0.0).astype(np.float32))
        return columns

    def take(self, order: Int64Array) -> PairFeatures:
        """For a catalogue that holds the items at `order` in this order; those that came after the fit are unknown."""
        known = len(self.arrays["item"])
        fitted = np.where(order < known, order, -1)
        arrays: dict[str, Any] = {}
        for name, values in self.arrays.items():
            if not name.startswith((*(f"{name}_" for name, _ in _TRANSITIONS), "neighbours_")):
                taken = values[np.maximum(fitted, 0)].copy()
                taken[fitted < 0] = _NEW_ITEM if name == "item" else 0
                arrays[name] = taken
        for name, square in (*((name, True) for name, _ in _TRANSITIONS), ("neighbours", False)):
            matrix = with_empty_row(restored(name, self.arrays), square)
            picked = matrix[fitted]
            arrays |= sparse(name, picked[:, fitted].tocsr() if square else picked.tocsr())
        return replace(self, arrays=arrays)


def _names(vectors: tuple[str, ...]) -> tuple[str, ...]:
    def at(name: str, decays: tuple[float | None, ...]) -> list[str]:
        return [name if decay is None else f"{name}, recency {decay:g}" for decay in decays]

    names = [*at("EASE of likes", _EASE_DECAYS), *at("EASE of choices", _EASE_DECAYS), *at("SVD of likes", _SVD_DECAYS)]
    for name, decays in _TRANSITIONS:
        names += at(name.replace("_", " "), decays)
    names += at("neighbours", _NEIGHBOUR_DECAYS)
    for vector in vectors:
        names += at(f"cosine of {vector}", _VECTOR_DECAYS)
    names += ["user's choices", "user's share of likes", "user's taste for the popular"]
    names += ["likes", "choices", "share of likes", "days since current", "days since first"]
    return (*names, "usual place", "still to its place")


def _item_columns(
    likes: Int64Array, counts: Int64Array, histories: PairHistories, times: Float64Array | None
) -> Float32Array:
    """Log likes, log choices, share of likes, mean and first time in days, mean place from 0 (first in a history) to 1, mean
    log of what came before; times and the last are NaN where not known."""
    items = histories.items
    mean = first = np.full(len(counts), np.nan)
    if times is not None and len(times):
        mean = np.bincount(items, times, minlength=len(counts)) / np.maximum(counts, 1) / _DAY
        first = np.full(len(counts), np.inf)
        np.minimum.at(first, items, times / _DAY)
        mean, first = (np.where(counts > 0, values, np.nan) for values in (mean, first))
    sizes = np.diff(histories.indptr)
    place = np.arange(len(items)) - np.repeat(histories.indptr[:-1], sizes)
    share, before = place / np.maximum(np.repeat(sizes, sizes) - 1, 1), np.log1p(place)
    shares, befores = (np.bincount(items, values, minlength=len(counts)) for values in (share, before))
    shares = (shares + _PLACE_SHRINKAGE / 2) / (counts + _PLACE_SHRINKAGE)
    middle = before.mean() if len(before) else 0.0
    befores = np.where(counts > 0, (befores + _PLACE_SHRINKAGE * middle) / (counts + _PLACE_SHRINKAGE), np.nan)
    columns = [np.log1p(likes), np.log1p(counts), (likes + 2) / (counts + 4), mean, first, shares, befores]
    return np.stack(columns, axis=1).astype(np.float32)


def _known_only(histories: PairHistories, known: int) -> PairHistories:
    kept = histories.items < known
    if kept.all():
        return histories
    before = np.concatenate(([0], np.cumsum(kept)))
    return replace(
        histories,
        indptr=before[histories.indptr],
        items=histories.items[kept],
        liked=histories.liked[kept],
    )


def _transitions(name: str, counts: Any) -> dict[str, Any]:
    return sparse(name, transition_matrix(counts, shrinkage=5.0, popularity=0.5).tocsr())
