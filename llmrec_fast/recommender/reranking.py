"""The stage after retrieval: learned trees reorder each user's candidates by pair features.

They are trained inside the training data: features are learned from the first part of everyone's interactions, and the likes
that came after it are what the trees learn to put first. Then features are learned anew from all interactions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from llmrec_fast.arrays import BoolArray, Float64Array, Int64Array, as_count
from llmrec_fast.errors import InvalidInput
from llmrec_fast.features import Interactions, PairFeatures, PairHistories
from llmrec_fast.ranking.trees import TreeRanker, TreeSettings
from llmrec_fast.recommender.histories import NO_TIME, History, UserHistories
from llmrec_fast.recommender.space import FusedSpace
from llmrec_fast.recommender.validation import hold_out
from llmrec_fast.retrieval import Index


@dataclass(frozen=True)
class RerankerSettings:
    """How candidates are reordered.

    Attributes
    ----------
    candidates : how many of the retrieved items are reordered; never fewer than are asked for.
    trees : how the trees are grown.
    """

    candidates: int = 200
    trees: TreeSettings = field(default_factory=TreeSettings)

    def __post_init__(self) -> None:
        as_count(self.candidates, "candidates")

    @classmethod
    def restored(cls, saved: Mapping[str, Any] | None) -> RerankerSettings | None:
        """From what `dataclasses.asdict` made of it; None for None."""
        return None if saved is None else cls(saved["candidates"], TreeSettings(**saved["trees"]))


@dataclass(frozen=True)
class Reranker:
    """Trained trees and what makes their features.

    Attributes
    ----------
    pairs : makes features, of the catalogue's positions.
    trees : scores them.
    candidates : how many retrieved items are reordered.
    liked_above : an interaction stronger than this is a like.
    """

    pairs: PairFeatures
    trees: TreeRanker
    candidates: int
    liked_above: float

    def order(
        self, histories: PairHistories, candidates: Int64Array, space: FusedSpace, threads: int | None = None
    ) -> tuple[Int64Array, Float64Array]:
        """(users, c) candidates and their scores, best first, ties in the order given; -1 and -inf at the end."""
        rows = self.pairs.compute(histories, candidates, space.features, space.row_of, threads=threads)
        scores = self.trees.scores(rows).reshape(candidates.shape)
        scores[candidates < 0] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")
        return np.take_along_axis(candidates, order, axis=1), np.take_along_axis(scores, order, axis=1)

    def explain(self, histories: PairHistories, item: int, space: FusedSpace) -> dict[str, float]:
        """What each feature adds to the score of one item for one user; "average" is what every score starts from."""
        rows = self.pairs.compute(histories, np.array([[item]]), space.features, space.row_of)
        shares = self.trees.contributions(rows)[0]
        return dict(zip((*self.trees.names, "average"), shares.tolist(), strict=True))

    def header(self) -> dict[str, Any]:
        """All but the arrays of `pairs`, JSON-able."""
        return {
            "candidates": self.candidates,
            "liked_above": self.liked_above,
            "vectors": list(self.pairs.vectors),
            "names": list(self.pairs.names),
            "trees": self.trees.to_text(),
        }

    @classmethod
    def restored(cls, header: Mapping[str, Any], arrays: Mapping[str, Any]) -> Reranker:
        """From `header` and the arrays of `pairs`. Raises `MissingDependency` without LightGBM."""
        names = tuple(header["names"])
        pairs = PairFeatures(dict(arrays), tuple(header["vectors"]), names)
        return cls(pairs, TreeRanker.from_text(header["trees"], names), header["candidates"], header["liked_above"])

    def taken(self, order: Int64Array) -> Reranker:
        """For a catalogue that holds the items at `order`, in this order."""
        return replace(self, pairs=self.pairs.take(order))


def pair_histories(histories: UserHistories, users: Int64Array, liked_above: float) -> PairHistories:
    """The histories of known users, without removed items."""
    kept = [histories.history(user) for user in users.tolist()]
    if histories.live is not None:
        kept = [_alive(history, histories.live) for history in kept]
    latest = [int(history.timestamps[-1]) if len(history.timestamps) else NO_TIME for history in kept]
    strengths = np.concatenate([np.zeros(0, np.float32), *(history.strengths for history in kept)])
    return PairHistories(
        np.concatenate(([0], np.cumsum([len(history.items) for history in kept]))).astype(np.int64),
        np.concatenate([np.zeros(0, np.int64), *(history.items for history in kept)]),
        strengths > liked_above,
        _times(np.array(latest, np.int64)),
    )


def _alive(history: History, live: BoolArray) -> History:
    alive = live[history.items]
    return History(history.items[alive], history.strengths[alive], history.timestamps[alive])


def new_histories(items: Int64Array) -> PairHistories:
    """The history of someone new who liked `items`, at an unknown time."""
    return PairHistories(np.array([0, len(items)]), items, np.ones(len(items), bool), np.array([np.nan]))


def fit_reranker(
    settings: RerankerSettings,
    interactions: Interactions,
    liked: BoolArray,
    learn: Callable[[BoolArray], FusedSpace],
    weights: Mapping[str, float],
    histories: Callable[[Interactions], UserHistories],
    vectors: list[str],
    threads: int | None,
) -> Reranker:
    """Train on the last part of everyone's interactions.

    Parameters
    ----------
    interactions : the training data, values being strengths.
    liked : (n,) which of them are likes.
    learn : makes the space that candidates come from, of the part of the interactions that a mask selects.
    weights : of the fused features.
    histories : weighs a part of the interactions as the recommender does.
    vectors : the ready features, of which cosines are taken.

    Raises
    ------
    InvalidInput : no times, or nothing liked after a history.
    MissingDependency : LightGBM is not installed.
    """
    held = hold_out(interactions, liked)
    if isinstance(held, str) or interactions.values is None:
        raise InvalidInput(f"a reranker learns what was liked after what: {held}")
    part, held_out = interactions.select(held.train), interactions.select(held.wanted)
    users = held.sample(1)  # there is no matrix of scores to keep in bounds
    strengths, lowest = interactions.values, float(interactions.values[liked].min())
    below = strengths[strengths < lowest]
    liked_above = (lowest + float(below.max())) / 2 if len(below) else lowest / 2

    space, before = learn(held.train), histories(part)
    weighted = before.take(users)
    count = len(space.prior)
    index = Index(space.dimension, "dot", threads=threads)
    index.add(space.rows(), np.arange(count))
    candidates = index.search(
        space.queries(space.profiles(weighted), weights, len(users)),
        min(settings.candidates, count),
        exclude=(weighted.indptr, weighted.items),
    ).ids
    known = _pairs(part, liked[held.train], vectors, count)
    rows = known.compute(pair_histories(before, users, liked_above), candidates, space.features, threads=threads)
    relevant = _relevance(users, held_out, candidates, count)
    chosen: BoolArray = relevant.any(axis=1, keepdims=True) & (candidates >= 0)  # without a hit a user teaches nothing
    if not chosen.any():
        raise InvalidInput("no liked item is among the candidates: there is nothing to learn a reranking from")
    trees = TreeRanker.fit(
        rows[chosen.ravel()],
        relevant[chosen],
        chosen.sum(axis=1)[chosen.any(axis=1)],
        known.names,
        settings.trees,
        threads=threads,
    )
    return Reranker(_pairs(interactions, liked, vectors, count), trees, settings.candidates, liked_above)


def _pairs(interactions: Interactions, liked: BoolArray, vectors: list[str], count: int) -> PairFeatures:
    histories = interactions.with_values(liked.astype(np.float32)).by_user()
    if histories.values is None or histories.timestamps is None:
        raise InvalidInput("pair features need likes and times")
    times = _times(histories.timestamps)
    latest = np.full(len(histories.indptr) - 1, np.nan)
    there = np.diff(histories.indptr) > 0
    latest[there] = times[histories.indptr[1:][there] - 1]
    pairs = PairHistories(histories.indptr, histories.items, histories.values > 0, latest)
    return PairFeatures.fit(pairs, times, vectors, count)


def _relevance(users: Int64Array, held_out: Interactions, candidates: Int64Array, count: int) -> BoolArray:
    """(users, c): which candidates the user liked later."""
    wanted = held_out.users * count + held_out.items
    return np.isin(users[:, None] * count + candidates, wanted) & (candidates >= 0)


def _times(timestamps: Int64Array) -> Float64Array:
    return np.where(timestamps == NO_TIME, np.nan, timestamps.astype(np.float64))
