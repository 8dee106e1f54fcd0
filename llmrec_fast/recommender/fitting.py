"""Learn everything that answers need from a catalogue and what people did with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from llmrec_fast.arrays import ArrayLike, BoolArray, Float32Array, Int64Array, as_matrix
from llmrec_fast.encoding import TextEncoder
from llmrec_fast.errors import InvalidInput
from llmrec_fast.features import (
    Centring,
    Interactions,
    Items,
    like_strengths,
    popularity_prior,
)
from llmrec_fast.ids import IdTable
from llmrec_fast.ranking.adapter import Adapter, AdapterSettings, fit_adapter
from llmrec_fast.recommender.collaborating import COLLABORATIVE, COLLABORATIVE_HISTORIES, Model, fit_collaborative
from llmrec_fast.recommender.fitted import FitReport, Fitted, Growing
from llmrec_fast.recommender.histories import NO_TIME, UserHistories
from llmrec_fast.recommender.reranking import Reranker, RerankerSettings, fit_reranker
from llmrec_fast.recommender.space import PRIOR, FusedSpace
from llmrec_fast.recommender.validation import DECAYS, Learn, choose_weights
from llmrec_fast.retrieval import Index
from llmrec_fast.timing import timed

TEXT, ADAPTER = "text", "adapter"
ADAPTER_HISTORIES = "adapter of histories"
DEFAULT_DECAY = 20.0
# for catalogues without enough behaviour to choose on: collaborative vectors lead, the rest refines
_DEFAULT_WEIGHTS = {COLLABORATIVE: 1.0, PRIOR: 0.3}
_DEFAULT_FEATURE_WEIGHT = 0.1


@dataclass(frozen=True)
class Settings:
    """How a recommender learns; see `Recommender`."""

    weights: Mapping[str, float] | None = None
    decay: float | Literal["auto"] | None = "auto"
    liked_from: float | None = None
    others: float = 0.25
    rank: int | None = 256
    regularization: float | None = None
    threads: int | None = None
    adapter: AdapterSettings | None = None
    reranker: RerankerSettings | None = None
    collaborative: Model = "ease"
    pooling: str | None = None


def fit(
    settings: Settings,
    items: Items,
    interactions: Interactions | None,
    vectors: Mapping[str, ArrayLike],
    encoder: Callable[[], TextEncoder] | None,
    show_progress: bool | None = False,
) -> tuple[Fitted, FitReport]:
    """Learn; `vectors` are ready features (items, d), `encoder` makes the text feature where they hold none.

    `show_progress` is that of what is trained: whether bars are shown on standard error; None: on a terminal.
    """
    seconds: dict[str, float] = {}
    if not len(items):
        raise InvalidInput("the catalogue is empty: there is nothing to recommend")
    given = {name: _check_vectors(name, values, len(items)) for name, values in vectors.items()}
    if TEXT not in given and encoder is not None:
        with timed(seconds, "encode"):
            given[TEXT] = as_matrix(encoder().encode(items.texts), "the vectors of the texts")
    centrings = {name: Centring.fit(values) for name, values in given.items()}
    centred = {name: centrings[name].apply(values, threads=settings.threads) for name, values in given.items()}
    if interactions is None:
        interactions = _no_interactions(items.ids)
    interactions = align_items(interactions, items.ids)
    strengths, liked = strengths_and_likes(settings, interactions)
    weighed = interactions.with_values(strengths)
    collaborates = bool(len(weighed)) and settings.rank is not None

    if settings.adapter is not None and not centred:
        raise InvalidInput("an adapter needs text or other vectors to adapt; give an encoder or vectors=")
    if settings.adapter is not None and settings.adapter.collaborative and settings.rank is None:
        raise InvalidInput("an adapter that reads collaborative vectors needs a rank for them")

    def learn_all(part: BoolArray) -> tuple[FusedSpace, Adapter | None]:
        features = dict(centred)
        if collaborates:
            features |= learn_collaborative(settings, weighed.select(part).to_csr())
        adapter = None
        if settings.adapter is not None:
            adapter = adapt(settings, centred, weighed.select(part), liked[part], show_progress)
            features[ADAPTER], features[ADAPTER_HISTORIES] = adapter.item_vectors, adapter.history_vectors
        # items nobody liked keep 0: on the validation parts of MovieLens 100K and latest-small the mean of the others, or that
        # of the nearest texts, brought next to none of them into lists of 20 and cost up to .001 of NDCG@10
        prior = popularity_prior(np.bincount(weighed.items[part & liked], minlength=len(items)))
        return join_space(features, prior, adapter), adapter

    @cache  # weights and reranker ask for the same part, and an adapter takes minutes
    def learned(part: bytes) -> FusedSpace:
        return learn_all(np.frombuffer(part, bool))[0]

    def learn(part: BoolArray) -> FusedSpace:
        return learned(part.tobytes())

    with timed(seconds, "choose weights"):
        weights, decay, source, quality, note = _choose(
            settings, weighed, liked, learn, collaborates, [*centred, *([] if settings.adapter is None else [ADAPTER])]
        )
    with timed(seconds, "learn"):
        space, adapter = learn_all(np.ones(len(weighed), bool))
        space.check_weights(weights)
    reranker: Reranker | None = None
    if settings.reranker is not None:
        with timed(seconds, "rerank"):
            reranker = fit_reranker(
                settings.reranker,
                weighed,
                liked,
                learn,
                weights,
                lambda part: _histories(part, decay),
                list(centred),
                settings.threads,
                show_progress,
            )
    with timed(seconds, "index"):
        index = Index(space.dimension, "dot", threads=settings.threads)
        index.add(space.rows(), np.arange(len(items)))
    # copies of the ids: what is added later is this recommender's, not the caller's tables'
    tables = IdTable(items.ids, kind="item"), IdTable(interactions.user_ids, kind="user")
    growing = Growing(*tables, list(items.titles), index)
    histories = _histories(weighed, decay)
    fitted = Fitted.start(growing, space, centrings, weights, decay, histories, adapter, reranker)
    report = FitReport(items.report, interactions.report, dict(weights), decay, source, quality, note, seconds)
    return fitted, report


def join_space(features: Mapping[str, Float32Array], prior: Float32Array, adapter: Adapter | None) -> FusedSpace:
    """The space of these features; some have a side of their own for histories, and an adapter's attention weighs those."""
    sides = {COLLABORATIVE: COLLABORATIVE_HISTORIES, ADAPTER: ADAPTER_HISTORIES}
    tables = {name: table for name, table in sides.items() if table in features}
    attention = {} if adapter is None or adapter.attention is None else {ADAPTER: adapter.attention.weights}
    return FusedSpace(features, prior, history_tables=tables, attention=attention)


def adapt(
    settings: Settings,
    features: Mapping[str, Float32Array],
    interactions: Interactions,
    liked: BoolArray,
    show_progress: bool | None,
) -> Adapter:
    """Towers trained on these interactions, whose values are strengths."""
    # in the order of histories, which sorts as `by_user` does
    histories = interactions.with_values(liked.astype(np.float32)).by_user()
    strengths = interactions.by_user().values
    if histories.values is None or strengths is None:
        raise InvalidInput("an adapter needs interactions with strengths")
    shape = len(interactions.user_ids), len(interactions.item_ids)

    def collaborative(indptr: Int64Array, items: Int64Array, values: Float32Array) -> Float32Array:
        from scipy.sparse import csr_matrix

        return learn_collaborative(settings, csr_matrix((values, items, indptr), shape))[COLLABORATIVE]

    reads = settings.adapter is not None and settings.adapter.collaborative
    return fit_adapter(
        features,
        histories.indptr,
        histories.items,
        strengths,
        histories.values > 0,
        settings.adapter,
        learned={COLLABORATIVE: collaborative} if reads else None,
        threads=settings.threads,
        show_progress=show_progress,
    )


def learn_collaborative(settings: Settings, matrix: Any) -> dict[str, Float32Array]:
    """The matrices of the feature "collaborative", learned from a (users, items) scipy sparse matrix; none without a rank."""
    if settings.rank is None:
        return {}
    return fit_collaborative(settings.collaborative, matrix, settings.rank, settings.regularization, settings.threads)


def _histories(interactions: Interactions, decay: float | None) -> UserHistories:
    """Every user's items and their strengths, oldest first."""
    histories = interactions.by_user()
    values, times = histories.values, histories.timestamps
    return UserHistories(
        len(interactions.user_ids),
        histories.indptr,
        histories.items,
        np.ones(len(histories.items), np.float32) if values is None else values,
        np.full(len(histories.items), NO_TIME) if times is None else times,
        decay,
    )


def align_items(interactions: Interactions, item_ids: IdTable) -> Interactions:
    """`interactions` with item codes that are positions in `item_ids`; an item that is not there raises `UnknownId`."""
    if interactions.item_ids is item_ids:
        return interactions
    used = np.unique(interactions.items)
    positions = np.full(len(interactions.item_ids), -1, np.int64)
    positions[used] = item_ids.positions(interactions.item_ids[int(code)] for code in used)
    return Interactions(
        interactions.users,
        positions[interactions.items],
        interactions.values,
        interactions.timestamps,
        interactions.user_ids,
        item_ids,
        interactions.report,
    )


def _no_interactions(item_ids: IdTable) -> Interactions:
    none: Int64Array = np.zeros(0, np.int64)
    return Interactions(none, none, None, None, IdTable(kind="user"), item_ids)


def _check_vectors(name: str, values: ArrayLike, count: int) -> Float32Array:
    if name in (COLLABORATIVE, COLLABORATIVE_HISTORIES, PRIOR, ADAPTER, ADAPTER_HISTORIES):
        raise InvalidInput(f"{name!r} is learned from the interactions; give these vectors another name")
    matrix = as_matrix(values, f"vectors[{name!r}]")
    if len(matrix) != count:
        raise InvalidInput(f"vectors[{name!r}] has {len(matrix)} rows; expected {count}, one an item")
    return matrix


def strengths_and_likes(settings: Settings, interactions: Interactions) -> tuple[Float32Array, BoolArray]:
    """How much each interaction counts, and which are likes."""
    strengths = strengths_of(settings, interactions.values, len(interactions))
    if settings.liked_from is not None and interactions.values is not None:
        return strengths, interactions.values >= settings.liked_from
    return strengths, strengths > 0


def strengths_of(settings: Settings, values: Float32Array | None, count: int) -> Float32Array:
    """How much interactions with these values count; without values each counts 1.

    Raises
    ------
    InvalidInput : no values where `liked_from` needs them, a negative value without it.
    """
    if settings.liked_from is not None:
        if values is None:
            raise InvalidInput("liked_from needs interactions with values")
        return like_strengths(values, liked_from=settings.liked_from, others=settings.others)
    strengths = np.ones(count, np.float32) if values is None else values
    if len(strengths) and strengths.min() < 0:
        row = int(np.argmin(strengths))
        raise InvalidInput(
            f"interaction {row} has the value {strengths[row]:g}; values weigh histories and must not be negative "
            "(for ratings, say with liked_from= from which one on an item was liked)"
        )
    return strengths


def _choose(
    settings: Settings,
    interactions: Interactions,
    liked: BoolArray,
    learn: Learn,
    collaborates: bool,
    features: list[str],
) -> tuple[Mapping[str, float], float | None, str, float | None, str]:
    """Weights, decay, where they come from, the quality on the validation part, and a note."""
    decay = DEFAULT_DECAY if settings.decay == "auto" else settings.decay
    if settings.weights is not None:
        return settings.weights, decay, "given", None, ""
    note = "there are no interactions"
    if collaborates:
        decays = DECAYS if settings.decay == "auto" else (decay,)
        tuned = choose_weights(interactions, liked, learn, COLLABORATIVE, decays)
        if not isinstance(tuned, str):
            return tuned.weights, tuned.choice, "validation", tuned.quality, ""
        note = tuned
    weights = dict(_DEFAULT_WEIGHTS) if collaborates else {}
    weights |= dict.fromkeys(features, _DEFAULT_FEATURE_WEIGHT if collaborates else 1.0)
    return weights, decay, "default", None, note
