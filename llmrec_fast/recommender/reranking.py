"""The stage after retrieval: a learned scorer, trees or a network, reorders each user's candidates by pair features.

It is trained inside the training data: features are learned from the first part of everyone's interactions, and the likes
that came after it are what the scorer learns to put first. Then features are learned anew from all interactions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from llmrec_fast.arrays import BoolArray, Float64Array, Int64Array, as_count
from llmrec_fast.errors import InvalidInput
from llmrec_fast.features import Interactions, PairFeatures, PairHistories
from llmrec_fast.ranking.neural import NeuralRanker, NeuralSettings
from llmrec_fast.ranking.torch_training import import_torch
from llmrec_fast.ranking.trees import TreeRanker, TreeSettings, import_lightgbm
from llmrec_fast.recommender.histories import NO_TIME, History, UserHistories
from llmrec_fast.recommender.space import FusedSpace
from llmrec_fast.recommender.validation import hold_out
from llmrec_fast.retrieval import Index

Kind: TypeAlias = Literal["trees", "neural"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# what the arrays are called among those of a saved recommender
_PAIRS, _MODEL = "pairs_", "reranker_model"


@dataclass(frozen=True)
class RerankerSettings:
    """How candidates are reordered.

    Attributes
    ----------
    candidates : how many of the retrieved items are reordered; never fewer than are asked for.
    kind : "trees" (LightGBM) or "neural" (a network, trained with torch).
    trees : how trees are grown.
    neural : how networks are shaped and trained.
    """

    candidates: int = 200
    kind: Kind = "trees"
    trees: TreeSettings = field(default_factory=TreeSettings)
    neural: NeuralSettings = field(default_factory=NeuralSettings)

    def __post_init__(self) -> None:
        as_count(self.candidates, "candidates")
        if self.kind not in KINDS:
            raise InvalidInput(f"a reranker's kind must be 'trees' or 'neural'; got {self.kind!r}")

    @classmethod
    def of(cls, given: bool | Kind | RerankerSettings) -> RerankerSettings | None:
        """What `Recommender(reranker=...)` means; None for no reranker."""
        if isinstance(given, RerankerSettings):
            return given
        if isinstance(given, bool):
            return cls() if given else None
        return cls(kind=given)

    @classmethod
    def restored(cls, saved: Mapping[str, Any] | None) -> RerankerSettings | None:
        """From what `dataclasses.asdict` made of it; None for None."""
        if saved is None:
            return None
        return cls(
            saved["candidates"], saved["kind"], TreeSettings(**saved["trees"]), NeuralSettings(**saved["neural"])
        )


def check_kind(kind: Kind) -> None:
    """Raises `MissingDependency` if what trains this kind of reranker is not installed, `InvalidInput` for no kind."""
    if RerankerSettings(kind=kind).kind == "trees":
        import_lightgbm()
    else:
        import_torch("a neural reranker")


@dataclass(frozen=True)
class Reranker:
    """A trained scorer and what makes its features.

    Attributes
    ----------
    pairs : makes features, of the catalogue's positions.
    scorer : scores them.
    candidates : how many retrieved items are reordered.
    liked_above : an interaction stronger than this is a like.
    """

    pairs: PairFeatures
    scorer: TreeRanker | NeuralRanker
    candidates: int
    liked_above: float

    def order(
        self, histories: PairHistories, candidates: Int64Array, space: FusedSpace, threads: int | None = None
    ) -> tuple[Int64Array, Float64Array]:
        """(users, c) candidates and their scores, best first, ties in the order given; -1 and -inf at the end."""
        rows = self.pairs.compute(histories, candidates, space.features, space.row_of, threads=threads)
        scores = self.scorer.scores(rows).reshape(candidates.shape)
        scores[candidates < 0] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")
        return np.take_along_axis(candidates, order, axis=1), np.take_along_axis(scores, order, axis=1)

    def explain(self, histories: PairHistories, item: int, space: FusedSpace) -> dict[str, float]:
        """What each feature adds to the score of one item for one user; "average" is what every score starts from."""
        rows = self.pairs.compute(histories, np.array([[item]]), space.features, space.row_of)
        shares = self.scorer.contributions(rows)[0]
        return dict(zip((*self.scorer.names, "average"), shares.tolist(), strict=True))

    def header(self) -> dict[str, Any]:
        """All but the arrays, JSON-able."""
        trees = self.scorer.to_text() if isinstance(self.scorer, TreeRanker) else None
        return {
            "candidates": self.candidates,
            "liked_above": self.liked_above,
            "vectors": list(self.pairs.vectors),
            "names": list(self.pairs.names),
            "trees": trees,
        }

    def arrays(self, order: Int64Array) -> dict[str, Any]:
        """The arrays by name, for a catalogue that holds the items at `order`."""
        arrays = {f"{_PAIRS}{name}": values for name, values in self.pairs.take(order).arrays.items()}
        if isinstance(self.scorer, NeuralRanker):
            arrays[_MODEL] = np.frombuffer(self.scorer.model, np.uint8)
        return arrays

    @classmethod
    def restored(cls, header: Mapping[str, Any], arrays: Mapping[str, Any], threads: int | None = None) -> Reranker:
        """From `header` and, among others, `arrays`.

        Raises
        ------
        CorruptFile : what is there is no scorer, or one of other pair features than this version makes.
        MissingDependency : LightGBM is not installed, which trees need.
        """
        names = tuple(header["names"])
        made = {name.removeprefix(_PAIRS): array for name, array in arrays.items() if name.startswith(_PAIRS)}
        pairs = PairFeatures(made, tuple(header["vectors"]), names)
        pairs.check()
        scorer: TreeRanker | NeuralRanker
        if header["trees"] is not None:
            scorer = TreeRanker.from_text(header["trees"], names)
        else:
            scorer = NeuralRanker(arrays[_MODEL].tobytes(), names, threads)
        return cls(pairs, scorer, header["candidates"], header["liked_above"])


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
    show_progress: bool | None,
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
    MissingDependency : LightGBM, or torch for a neural one, is not installed.
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
    groups = rows[chosen.ravel()], relevant[chosen], chosen.sum(axis=1)[chosen.any(axis=1)], known.names
    scorer: TreeRanker | NeuralRanker
    if settings.kind == "trees":
        scorer = TreeRanker.fit(*groups, settings.trees, threads=threads)
    else:
        scorer = NeuralRanker.fit(*groups, settings.neural, threads=threads, show_progress=show_progress)
    return Reranker(_pairs(interactions, liked, vectors, count), scorer, settings.candidates, liked_above)


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
