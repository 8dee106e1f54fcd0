"""`Recommender`: the one place that joins encoding, features, retrieval and ranking. The learning itself is in `fitting.py`."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from llmrec_fast.arrays import ArrayLike, Float32Array, Int64Array, as_count, as_matrix, as_texts
from llmrec_fast.encoding import Encoder, EncoderLike, TextEncoder, as_text_encoder
from llmrec_fast.errors import InvalidInput, NotFitted
from llmrec_fast.features import HistoryWeighting, Interactions, Items, read_interactions, read_items
from llmrec_fast.ranking import rerank_mmr
from llmrec_fast.recommender import storage
from llmrec_fast.recommender.fitted import FitReport, Fitted
from llmrec_fast.recommender.fitting import TEXT, Settings, fit
from llmrec_fast.recommender.results import Explanation, HistoryContribution, Recommendations
from llmrec_fast.recommender.space import PRIOR, WeightedHistories

# how many candidates a diversity reranking chooses from, for each one it returns
_CANDIDATES = 5


class Recommender:
    """Recommendations from item texts (or ready vectors) and what people did, with scores that explain themselves.

    The score of an item for a user is `sum over features f of weight_f * cos_f(user, item) + weight * popularity(item)`, where
    a user is the weighted sum of the items of the history. Features are "text" (centred language-model vectors),
    "collaborative" (EASE's eigenvectors) and any others given as arrays.

    Parameters
    ----------
    encoder : a known model (`"minilm"`), a model folder, an object with `encode(texts)`, any callable from a list of texts to a
        matrix, or None for no text feature. Loaded when the first text is encoded.
    weights : feature -> weight, with "popularity" for the prior. None: chosen on a validation part of the interactions.
    decay : items after which a history item counts 1/e; None weighs old and new alike; "auto" is chosen with the weights.
    liked_from : for ratings: from which value on an item was liked. Without it values weigh interactions as they are.
    others : how much an interaction below `liked_from` counts, 0 to 1.
    rank, regularization : of the collaborative vectors (`features.fit_ease`); rank None leaves them out.
    threads : bound on the number of threads.

    Attributes
    ----------
    report_ : what `fit` did: rows dropped and why, weights, seconds by stage.

    Examples
    --------
    >>> import numpy as np
    >>> from llmrec_fast import Recommender
    >>> items = {"id": ["a", "b", "c"], "text": ["red wine", "white wine", "motor oil"]}
    >>> vectors = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    >>> recommender = Recommender(encoder=None).fit(items, vectors={"text": vectors})
    >>> recommender.similar_items(["a"], k=1).items.tolist()
    [['b']]
    """

    def __init__(
        self,
        encoder: EncoderLike | None = "minilm",
        *,
        weights: Mapping[str, float] | None = None,
        decay: float | Literal["auto"] | None = "auto",
        liked_from: float | None = None,
        others: float = 0.25,
        rank: int | None = 256,
        regularization: float = 500.0,
        threads: int | None = None,
    ) -> None:
        if isinstance(decay, str) and decay != "auto":
            raise InvalidInput(f"decay must be a positive number of items, None or 'auto'; got {decay!r}")
        if decay != "auto":
            HistoryWeighting(decay)
        self._settings = Settings(weights, decay, liked_from, others, rank, regularization, threads)
        self._encoder_like = encoder
        self._encoder: TextEncoder | None = None
        self._state: Fitted | None = None
        self._writer = threading.Lock()
        self.report_: FitReport | None = None

    # -- learning -------------------------------------------------------------------------------------------------------

    def fit(
        self, items: Any, interactions: Any = None, *, vectors: Mapping[str, ArrayLike] | None = None
    ) -> Recommender:
        """Learn from a catalogue and interactions; returns self. A failed fit leaves what was fitted before.

        Parameters
        ----------
        items : `Items` from `features.read_items`, or what that reads: a DataFrame, a mapping of columns, a file's path.
        interactions : `Interactions` from `features.read_interactions`, or what that reads, or None. Items that are not in the
            catalogue are dropped and reported when a source is read, and refused in ready `Interactions`.
        vectors : ready features, name -> (items, d) in the order of the catalogue. "text" replaces encoding.

        Raises
        ------
        InvalidInput : an empty catalogue, vectors with NaN or of another length, weights for features that do not exist.
        """
        catalogue = items if isinstance(items, Items) else read_items(items)
        if interactions is not None and not isinstance(interactions, Interactions):
            interactions = read_interactions(interactions, known_items=catalogue.ids)
        encoder = self._text_encoder if self._encoder_like is not None else None
        fitted, report = fit(self._settings, catalogue, interactions, vectors or {}, encoder)
        with self._writer:
            self._state, self.report_ = fitted, report
        return self

    def add_items(self, items: Any, *, vectors: Mapping[str, ArrayLike] | None = None) -> None:
        """Add items nobody has chosen yet, by their text (or vectors); they can be recommended at once.

        Raises `InvalidInput`, and adds nothing, if an id is known already or a feature's vectors do not fit.
        """
        catalogue = items if isinstance(items, Items) else read_items(items)
        given = {name: as_matrix(values, f"vectors[{name!r}]") for name, values in (vectors or {}).items()}
        state = self._fitted()
        if TEXT in state.centrings and TEXT not in given:
            given[TEXT] = self._text_encoder().encode(catalogue.texts)
        for name, values in given.items():
            if name not in state.centrings:
                raise InvalidInput(f"there is no feature {name!r} to add to; features: {', '.join(state.centrings)}")
            if len(values) != len(catalogue):
                raise InvalidInput(f"vectors[{name!r}] has {len(values)} rows; expected {len(catalogue)}, one an item")
        features = {name: state.centrings[name].apply(values) for name, values in given.items()}
        with self._writer:
            state = self._fitted()
            start = len(state.item_ids)
            space = state.space.extended(features, np.zeros(len(catalogue), np.float32))
            state.item_ids.extend(catalogue.ids)
            self._state = replace(state, titles=state.titles + catalogue.titles, space=space)
            state.index.add(space.rows(start), np.arange(start, start + len(catalogue)))

    # -- answers --------------------------------------------------------------------------------------------------------

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
        """The k best items of each user, in one call into the index.

        Parameters
        ----------
        users : ids of known users. Someone without history gets what is popular.
        k : 1 to the number of items.
        filter_seen : whether to leave out everything in the user's history.
        exclude : items to leave out for everyone.
        allow : the only items to consider, for instance those in stock.
        diversity : 0 to 1; above 0, reorder by maximal marginal relevance over five times k candidates.
        weights : other weights than the fitted ones, for this call; a feature that is not named counts nothing.

        Raises
        ------
        UnknownId : a user or item that is not known.
        InvalidInput : k below 1 or above the number of items, a wrong weight.
        """
        state = self._fitted()
        histories = state.histories.take(state.user_ids.positions(users))
        seen = histories if filter_seen else None
        return self._answer(state, histories, k, seen, exclude, allow, diversity, weights)

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
        return self._answer(state, history, k, history if filter_seen else None, exclude, allow, diversity, weights)

    def recommend_for_text(
        self,
        texts: str | Sequence[str],
        k: int = 10,
        *,
        exclude: Sequence[Hashable] = (),
        allow: Sequence[Hashable] | None = None,
        diversity: float = 0.0,
        popularity: float = 0.0,
    ) -> Recommendations:
        """Items whose texts are nearest to what someone writes: a search, or a new user's wishes. A row a text.

        The score is the cosine of the text feature plus `popularity` times the prior.
        """
        state = self._fitted()
        if TEXT not in state.centrings:
            raise InvalidInput("there is no text feature: fit with an encoder")
        given = [texts] if isinstance(texts, str) else as_texts(texts)
        vectors = state.centrings[TEXT].apply(self._text_encoder().encode(given))
        queries = state.space.queries({TEXT: vectors}, {TEXT: 1.0, PRIOR: popularity}, len(vectors))
        return self._search(state, queries, k, None, exclude, allow, diversity)

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
        profiles = {name: vectors[positions] for name, vectors in state.space.features.items()}
        queries = state.space.queries(profiles, chosen, len(positions))
        itself = WeightedHistories(np.arange(len(positions) + 1), positions, np.ones(len(positions), np.float32))
        return self._search(state, queries, k, itself, exclude, allow, 0.0)

    def explain(self, user: Hashable, item: Hashable) -> Explanation:
        """The score of `item` for `user`, taken apart by feature and by item of the history."""
        state = self._fitted()
        target = state.item_ids.position(item)
        history = state.histories.take(np.array([state.user_ids.position(user)]))
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
        return Explanation(user, item, float(sum(features.values())), features, parts)

    # -- what is known --------------------------------------------------------------------------------------------------

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
        return state.titles[state.item_ids.position(item)]

    def history(self, user: Hashable) -> list[Hashable]:
        """What a user did, the latest last."""
        state = self._fitted()
        items, _ = state.histories.of(state.user_ids.position(user))
        return [state.item_ids[int(position)] for position in items]

    def save(self, path: str | Path) -> None:
        """Write everything but the encoder to the folder `path`, atomically, checksummed. Ids must be str, int or UUID.

        The name or folder of an encoder is kept; an object or callable must be given to `load` again.
        """
        name = str(self._encoder_like) if isinstance(self._encoder_like, str | Path) else None
        storage.save(Path(path), self._fitted(), self._settings, name)

    @classmethod
    def load(cls, path: str | Path, *, encoder: EncoderLike | None = None, threads: int | None = None) -> Recommender:
        """Read what `save` wrote. Raises `CorruptFile`, naming the file, if it is damaged."""
        state, settings, name = storage.load(Path(path), threads)
        recommender = cls(encoder if encoder is not None else name, threads=threads)
        recommender._settings = settings
        recommender._state = state
        return recommender

    # -- inside ---------------------------------------------------------------------------------------------------------

    def _fitted(self) -> Fitted:
        if self._state is None:
            raise NotFitted("this recommender is not fitted yet: call fit(items, interactions) first")
        return self._state

    def _text_encoder(self) -> TextEncoder:
        if self._encoder_like is None:
            raise InvalidInput("this recommender has no encoder: pass one to Recommender(...) or Recommender.load(...)")
        if self._encoder is None:
            like = self._encoder_like
            if isinstance(like, str | Path):
                self._encoder = Encoder(like, threads=self._settings.threads)
            else:
                self._encoder = as_text_encoder(like)
        return self._encoder

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
    ) -> Recommendations:
        chosen = state.weights if weights is None else weights
        queries = state.space.queries(state.space.profiles(histories), chosen, len(histories))
        return self._search(state, queries, k, seen, exclude, allow, diversity)

    @staticmethod
    def _search(
        state: Fitted,
        queries: Float32Array,
        k: int,
        seen: WeightedHistories | None,
        exclude: Sequence[Hashable],
        allow: Sequence[Hashable] | None,
        diversity: float,
    ) -> Recommendations:
        count = len(state.item_ids)
        if as_count(k, "k") > count:
            raise InvalidInput(f"k must be at most the number of items, {count}; got {k}")
        left_out = _join(seen, state.item_ids.positions(exclude), len(queries))
        allowed = None if allow is None else state.item_ids.positions(allow)
        wanted = min(count, _CANDIDATES * k) if diversity else k
        found = state.index.search(queries, wanted, exclude=left_out, allow=allowed)
        if not diversity:
            return Recommendations(found.ids, found.scores, state.item_ids)
        used = np.unique(found.ids)
        used = used[used >= 0]
        candidates = np.where(found.ids >= 0, np.searchsorted(used, found.ids), -1)
        rows = state.index.vectors(used)[:, :-1]
        # every block of a row has unit norm, so rows of one norm differ by their features alone
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        order = rerank_mmr(
            found.scores, candidates, np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0), k, diversity
        )
        return Recommendations(
            np.take_along_axis(found.ids, order, axis=1),
            np.take_along_axis(found.scores, order, axis=1),
            state.item_ids,
        )


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
