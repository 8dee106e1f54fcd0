"""What can be asked of a recommender: recommendations, similar items, explanations, ids and titles. It changes nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from llmrec_fast.arrays import ArrayLike, Float32Array, Float64Array, Int64Array, as_count, as_matrix, as_texts
from llmrec_fast.encoding import TextEncoder
from llmrec_fast.errors import InvalidInput
from llmrec_fast.features import HistoryWeighting, PairHistories
from llmrec_fast.ranking import TextReranker, rerank_mmr
from llmrec_fast.recommender.fitted import Fitted
from llmrec_fast.recommender.fitting import TEXT
from llmrec_fast.recommender.histories import WeightedHistories
from llmrec_fast.recommender.reranking import new_histories, pair_histories
from llmrec_fast.recommender.results import Explanation, HistoryContribution, Recommendations
from llmrec_fast.recommender.space import PRIOR

# how many candidates a diversity reranking chooses from, for each one it returns
_CANDIDATES = 5


@dataclass(frozen=True)
class _Stage:
    """What reorders retrieved items: (rows, c) positions to the same in a new order and their scores; of how many."""

    order: Callable[[Int64Array], tuple[Int64Array, Float64Array]]
    candidates: int


class Answers(ABC):
    """The methods that read. Each takes the state once, so that its answer is that of one moment."""

    @abstractmethod
    def _fitted(self) -> Fitted:
        """The state to answer from."""

    @abstractmethod
    def _text_encoder(self) -> TextEncoder:
        """What turns a caller's texts into vectors."""

    def recommend(
        self,
        users: Sequence[Hashable],
        k: int = 10,
        *,
        filter_seen: bool = True,
        exclude: Sequence[Hashable] = (),
        allow: Sequence[Hashable] | None = None,
        diversity: float = 0.0,
        weights: Mapping[str, float] | None = None,
    ) -> Recommendations:
        """The k best items of each user, in one call into the index, reordered by the reranker where there is one.

        Parameters
        ----------
        users : ids of known users. Someone without history gets what is popular.
        k : 1 to the number of items.
        filter_seen : whether to leave out everything in the user's history.
        exclude : items to leave out for everyone.
        allow : the only items to consider, for instance those in stock.
        diversity : 0 to 1; above 0, reorder by maximal marginal relevance over five times k candidates.
        weights : other weights than the fitted ones, for this call; a feature that is not named counts nothing. The order is
            then that of the weighted features: there is no reranking.

        Raises
        ------
        UnknownId : a user or item that is not known.
        InvalidInput : k below 1 or above the number of items, a wrong weight.
        """
        state = self._fitted()
        positions = state.user_ids.positions(users)
        histories = state.histories.take(positions)
        seen = histories if filter_seen else None
        pairs = None
        if state.reranker is not None and weights is None:
            pairs = pair_histories(state.histories, positions, state.reranker.liked_above)
        return self._answer(state, histories, k, seen, exclude, allow, diversity, weights, pairs)

    def recommend_for_items(
        self,
        items: Sequence[Hashable],
        k: int = 10,
        *,
        filter_seen: bool = True,
        exclude: Sequence[Hashable] = (),
        allow: Sequence[Hashable] | None = None,
        diversity: float = 0.0,
        weights: Mapping[str, float] | None = None,
    ) -> Recommendations:
        """For someone new who liked `items`, the oldest first; otherwise as `recommend`. One row."""
        state = self._fitted()
        positions = state.item_ids.positions(items)
        indptr = np.array([0, len(positions)])
        history = WeightedHistories(indptr, positions, HistoryWeighting(state.decay).weights(indptr))
        pairs = None if state.reranker is None or weights is not None else new_histories(positions)
        seen = history if filter_seen else None
        return self._answer(state, history, k, seen, exclude, allow, diversity, weights, pairs)

    def recommend_for_text(
        self,
        texts: str | Sequence[str],
        k: int = 10,
        *,
        exclude: Sequence[Hashable] = (),
        allow: Sequence[Hashable] | None = None,
        diversity: float = 0.0,
        popularity: float = 0.0,
        reranker: TextReranker | None = None,
        text_of: Callable[[Hashable], str] | None = None,
    ) -> Recommendations:
        """Items whose texts are nearest to what someone writes: a search, or a new user's wishes. A row a text.

        The score is the cosine of the text feature plus `popularity` times the prior; with a reranker, its own.

        Parameters
        ----------
        texts : what is searched for.
        k, exclude, allow, diversity : as `recommend`.
        popularity : weight of the prior.
        reranker : reorders the items found by reading them beside the text, `TextReranker(CrossEncoder(...).predict)`.
        text_of : an item's id to what the reranker reads of it; None: its title.

        Raises
        ------
        InvalidInput : as `recommend`; `text_of` without a reranker; as `TextReranker.order`.
        """
        if text_of is not None and reranker is None:
            raise InvalidInput("text_of says what a reranker reads: give reranker as well")
        state = self._fitted()
        _check_text(state)
        given = [texts] if isinstance(texts, str) else as_texts(texts)
        stage = None
        if reranker is not None:
            read: Callable[[int], str] = (
                state.title if text_of is None else lambda position: text_of(state.item_ids[position])
            )
            stage = _Stage(lambda found: reranker.order(given, found, read), reranker.candidates)
        return self._for_text(
            state, self._text_encoder().encode(given), k, exclude, allow, diversity, popularity, stage
        )

    def recommend_for_text_vectors(
        self,
        vectors: ArrayLike,
        k: int = 10,
        *,
        exclude: Sequence[Hashable] = (),
        allow: Sequence[Hashable] | None = None,
        diversity: float = 0.0,
        popularity: float = 0.0,
    ) -> Recommendations:
        """`recommend_for_text` of texts that are encoded already: (n, d) as `text_encoder` gives them, not centred."""
        state = self._fitted()
        _check_text(state)
        given = as_matrix(vectors, "vectors", dimension=len(state.centrings[TEXT].mean))
        return self._for_text(state, given, k, exclude, allow, diversity, popularity)

    def similar_items(
        self,
        items: Sequence[Hashable],
        k: int = 10,
        *,
        exclude: Sequence[Hashable] = (),
        allow: Sequence[Hashable] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> Recommendations:
        """The items nearest to each of `items`, itself left out: the weighted sum of cosines, without the prior."""
        state = self._fitted()
        positions = state.item_ids.positions(items)
        chosen = {**(state.weights if weights is None else weights), PRIOR: 0.0}
        profiles = {name: state.space.vectors(name, positions) for name in state.space.names}
        queries = state.space.queries(profiles, chosen, len(positions))
        itself = WeightedHistories(np.arange(len(positions) + 1), positions, np.ones(len(positions), np.float32))
        return self._search(state, queries, k, itself, exclude, allow, 0.0)

    def explain(self, user: Hashable, item: Hashable) -> Explanation:
        """The score of `item` for `user`, taken apart by feature and by item of the history."""
        state = self._fitted()
        target = state.item_ids.position(item)
        history = state.histories.take(state.user_ids.positions([user]))
        query = state.space.queries(state.space.profiles(history), state.weights, 1)[0]
        row = state.index.vectors([target])[0]
        features = state.space.by_feature(query, row)
        items, item_weights = history.of(0)
        shares = state.space.by_history(items, item_weights, target, state.weights)
        parts = [
            HistoryContribution(
                state.item_ids[int(position)],
                float(sum(values[place] for values in shares.values())),
                {name: float(values[place]) for name, values in shares.items()},
            )
            for place, position in enumerate(items)
        ]
        parts.sort(key=lambda part: -part.total)
        reranking: dict[str, float] = {}
        if state.reranker is not None:
            pairs = pair_histories(state.histories, state.user_ids.positions([user]), state.reranker.liked_above)
            reranking = state.reranker.explain(pairs, target, state.space)
        return Explanation(user, item, float(sum(features.values())), features, parts, reranking)

    @property
    def item_count(self) -> int:
        """How many items the catalogue has."""
        return len(self._fitted().item_ids)

    def knows_item(self, item: Hashable) -> bool:
        """Whether the catalogue has this item."""
        return item in self._fitted().item_ids

    def knows_user(self, user: Hashable) -> bool:
        """Whether this user has done something."""
        return user in self._fitted().user_ids

    @property
    def text_encoder(self) -> TextEncoder:
        """What turns texts into vectors here, neither centred nor weighted. Loads the model at the first use."""
        return self._text_encoder()

    @property
    def item_ids(self) -> list[Hashable]:
        """The catalogue's ids, in the order of positions."""
        return list(self._fitted().item_ids)

    @property
    def user_ids(self) -> list[Hashable]:
        """The known users' ids."""
        return list(self._fitted().user_ids)

    @property
    def weights(self) -> dict[str, float]:
        """Feature -> weight, the prior's under "popularity"."""
        return dict(self._fitted().weights)

    def title(self, item: Hashable) -> str:
        """How an item is shown to people."""
        state = self._fitted()
        return state.title(state.item_ids.position(item))

    def titles(self, positions: Int64Array) -> list[str]:
        """The titles of the items at positions, as `Recommendations.positions` has them."""
        return self._fitted().titles(positions)

    def history(self, user: Hashable) -> list[Hashable]:
        """What a user did, the latest last."""
        state = self._fitted()
        items, _ = state.histories.of(state.user_ids.position(user))
        return [state.item_ids[int(position)] for position in items]

    def _answer(
        self,
        state: Fitted,
        histories: WeightedHistories,
        k: int,
        seen: WeightedHistories | None,
        exclude: Sequence[Hashable],
        allow: Sequence[Hashable] | None,
        diversity: float,
        weights: Mapping[str, float] | None,
        pairs: PairHistories | None,
    ) -> Recommendations:
        chosen = state.weights if weights is None else weights
        queries = state.space.queries(state.space.profiles(histories), chosen, len(histories))
        stage, reranker = None, state.reranker
        if pairs is not None and reranker is not None:
            stage = _Stage(lambda found: reranker.order(pairs, found, state.space), reranker.candidates)
        return self._search(state, queries, k, seen, exclude, allow, diversity, stage)

    def _for_text(
        self,
        state: Fitted,
        vectors: Float32Array,
        k: int,
        exclude: Sequence[Hashable],
        allow: Sequence[Hashable] | None,
        diversity: float,
        popularity: float,
        stage: _Stage | None = None,
    ) -> Recommendations:
        centred = state.centrings[TEXT].apply(vectors)
        queries = state.space.queries({TEXT: centred}, {TEXT: 1.0, PRIOR: popularity}, len(centred))
        return self._search(state, queries, k, None, exclude, allow, diversity, stage)

    @staticmethod
    def _search(
        state: Fitted,
        queries: Float32Array,
        k: int,
        seen: WeightedHistories | None,
        exclude: Sequence[Hashable],
        allow: Sequence[Hashable] | None,
        diversity: float,
        stage: _Stage | None = None,
    ) -> Recommendations:
        """Retrieve, rerank where there is a stage to do it, then diversify."""
        count = len(state.item_ids)
        if as_count(k, "k") > count:
            raise InvalidInput(f"k must be at most the number of items, {count}; got {k}")
        left_out = _join(seen, state.item_ids.positions(exclude), len(queries))
        allowed = None if allow is None else state.item_ids.positions(allow)
        wanted = min(count, _CANDIDATES * k) if diversity else k
        retrieved = wanted if stage is None else max(wanted, stage.candidates)
        found = state.index.search(queries, min(count, retrieved), exclude=left_out, allow=allowed)
        ids, scores = found.ids, found.scores
        if stage is not None:
            ids, scores = stage.order(ids)
            ids, scores = ids[:, :wanted], scores[:, :wanted]
        if not diversity:
            return Recommendations(ids, scores, state.item_ids)
        used = np.unique(ids)
        used = used[used >= 0]
        candidates = np.where(ids >= 0, np.searchsorted(used, ids), -1)
        rows = state.index.vectors(used)[:, :-1]
        # every block of a row has unit norm, so rows of one norm differ by their features alone
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        order = rerank_mmr(
            scores if stage is None else _unit_range(scores),
            candidates,
            np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0),
            k,
            diversity,
        )
        return Recommendations(
            np.take_along_axis(ids, order, axis=1),
            np.take_along_axis(scores, order, axis=1),
            state.item_ids,
        )


class Snapshot(Answers):
    """A recommender as it was at one moment, for reading: what `Recommender.snapshot` returns. Copies nothing."""

    def __init__(self, state: Fitted, encoder: Callable[[], TextEncoder]) -> None:
        self._state = state
        self._encoder = encoder

    def _fitted(self) -> Fitted:
        return self._state

    def _text_encoder(self) -> TextEncoder:
        return self._encoder()


def _check_text(state: Fitted) -> None:
    if TEXT not in state.centrings:
        raise InvalidInput("there is no text feature: fit with an encoder")


def _unit_range(scores: Float64Array) -> Float64Array:
    """Each row moved and scaled to 0 .. 1, so that a stage's scores weigh against cosines; -inf stays."""
    real = np.isfinite(scores)
    low = np.where(real, scores, np.inf).min(axis=1, keepdims=True)
    high = np.where(real, scores, -np.inf).max(axis=1, keepdims=True)
    span = np.where(high > low, high - low, 1.0)
    scaled: Float64Array = np.where(real, (scores - low) / span, -np.inf)
    return scaled


def _join(seen: WeightedHistories | None, exclude: Int64Array, count: int) -> tuple[Int64Array, Int64Array] | None:
    """What to leave out per query, as CSR: everyone's `exclude` and their own `seen`."""
    if seen is None and not len(exclude):
        return None
    if seen is None:
        return np.arange(count + 1) * len(exclude), np.tile(exclude, count)
    if not len(exclude):
        return seen.indptr, seen.items
    parts = [np.concatenate([seen.of(query)[0], exclude]) for query in range(count)]
    return seen.indptr + np.arange(count + 1) * len(exclude), np.concatenate([*parts, np.zeros(0, np.int64)])
