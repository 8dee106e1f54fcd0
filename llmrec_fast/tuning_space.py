"""The settings that a search may choose, and how good each is on the validation part; `tuning.py` searches.

What is slow is done once and kept: texts are encoded once a pooling, models fitted once for each of their settings, towers
trained once a pooling and strength of the interactions that are no likes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from llmrec_fast.arrays import Float32Array, as_matrix
from llmrec_fast.encoding import TextEncoder
from llmrec_fast.errors import InvalidInput
from llmrec_fast.features import Centring, Interactions, Items, popularity_prior
from llmrec_fast.ranking.adapter import Adapter, AdapterSettings
from llmrec_fast.recommender import Recommender
from llmrec_fast.recommender.collaborating import COLLABORATIVE, Model, fit_collaborative, is_nested
from llmrec_fast.recommender.fitting import (
    ADAPTER,
    ADAPTER_HISTORIES,
    TEXT,
    Settings,
    adapt,
    join_space,
    strengths_and_likes,
)
from llmrec_fast.recommender.space import PRIOR
from llmrec_fast.recommender.validation import feature_scores, hold_out
from llmrec_fast.tuned import TunedSettings

OWN_POOLING = "own"
_OTHERS = (0.0, 0.1, 0.25, 0.5, 1.0)
_DECAYS = (2.0, 200.0)
_LARGEST_WEIGHT = 1.5
_EASE_RANKS = (32, 64, 128, 256, 512)
_FACTORS = (8, 16, 32, 64, 128)
# vectors of models that are kept for the next trial, as numbers
_KEPT_NUMBERS = 2**28
_KEPT_ADAPTERS = 16


@dataclass(frozen=True)
class ModelChoices:
    """Ranks and regularizations to try, and which of them first. No regularizations for a model that has none."""

    ranks: tuple[int, ...]
    regularizations: tuple[float, ...]
    first_rank: int
    first_regularization: float | None


MODEL_CHOICES: dict[Model, ModelChoices] = {
    "ease": ModelChoices(_EASE_RANKS, (10.0, 30.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0), 256, 500.0),
    "item-knn": ModelChoices(_EASE_RANKS[:-1], (0.0, 10.0, 30.0, 100.0, 300.0), 256, 10.0),
    "svd": ModelChoices(_FACTORS, (), 16, None),
    "als": ModelChoices(_FACTORS, (0.1, 1.0, 3.0, 10.0, 30.0, 100.0), 64, 10.0),
    "bpr": ModelChoices(_FACTORS, (0.001, 0.003, 0.01, 0.03, 0.1), 64, 0.01),
    "nmf": ModelChoices(_FACTORS[:-1], (), 32, None),
}


@dataclass(frozen=True)
class Setting:
    """One choice of everything."""

    model: Model
    rank: int
    regularization: float | None
    others: float
    decay: float
    pooling: str
    text: float
    popularity: float
    adapter: float | None

    @property
    def weights(self) -> dict[str, float]:
        """As `Recommender` takes them."""
        weights = {COLLABORATIVE: 1.0, TEXT: self.text, PRIOR: self.popularity}
        return weights if self.adapter is None else weights | {ADAPTER: self.adapter}


class PooledTexts:
    """The text vectors of a catalogue by pooling, each encoded when it is first asked for."""

    def __init__(self, texts: Sequence[str], encoder_of: Callable[[str], TextEncoder]) -> None:
        self._texts, self._encoder_of = texts, encoder_of
        self._vectors: dict[str, Float32Array] = {}
        self._centred: dict[str, Float32Array] = {}

    def vectors(self, pooling: str) -> Float32Array:
        """(items, d) float32 as the encoder gives them."""
        if pooling not in self._vectors:
            made = self._encoder_of(pooling).encode(self._texts)
            self._vectors[pooling] = as_matrix(made, "the vectors of the texts")
        return self._vectors[pooling]

    def centred(self, pooling: str) -> Float32Array:
        """(items, d) float32 as a recommender compares them."""
        if pooling not in self._centred:
            vectors = self.vectors(pooling)
            self._centred[pooling] = Centring.fit(vectors).apply(vectors)
        return self._centred[pooling]


class SearchSpace:
    """What may be chosen for these data, and how good it is.

    Parameters
    ----------
    items, interactions, liked_from : as `tune_recommender` has them.
    texts : the text vectors.
    models : those to choose among, the first to be tried first.
    poolings : those to choose among, likewise.
    adapter : whether there may be an adapter.
    threads : of what is fitted.

    Raises
    ------
    InvalidInput : there is nothing to validate on.
    """

    def __init__(
        self,
        items: Items,
        interactions: Interactions,
        liked_from: float | None,
        texts: PooledTexts,
        models: Sequence[Model],
        poolings: Sequence[str],
        adapter: bool,
        threads: int | None = None,
    ) -> None:
        _, liked = strengths_and_likes(Settings(liked_from=liked_from), interactions)
        held = hold_out(interactions, liked)
        if isinstance(held, str):
            raise InvalidInput(f"there is nothing to tune on: {held}")
        self._items, self._interactions, self._liked, self._held = items, interactions, liked, held
        self._liked_from, self._texts, self._threads = liked_from, texts, threads
        self._poolings, self._adapter = tuple(poolings), adapter
        side = min(interactions.to_csr().shape)
        # from this side on only the leading part of a spectrum is found
        most = side if side <= 2048 else side // 4
        self._models = {model: _within(MODEL_CHOICES[model], most) for model in models}
        counts = np.bincount(interactions.items[held.train & liked], minlength=len(items))
        self._prior = popularity_prior(counts)
        largest = max(choices.ranks[-1] for choices in self._models.values())
        kept = max(1, _KEPT_NUMBERS // (2 * len(items) * largest))
        self._fitted = lru_cache(kept)(self._fit)
        self._adapted = lru_cache(_KEPT_ADAPTERS)(self._adapt)

    def first(self) -> list[dict[str, Any]]:
        """What to try first: the defaults of every model, and those of the first model with an adapter, as parameters."""
        shared: dict[str, Any] = {"decay": 20.0, "text": 0.1, "popularity": 0.3, "pooling": self._poolings[0]}
        shared |= {} if self._liked_from is None else {"others": 0.25}
        tries = []
        for model, choices in self._models.items():
            own: dict[str, Any] = {"model": model, f"{model} rank": choices.first_rank}
            if choices.first_regularization is not None:
                own[f"{model} regularization"] = choices.first_regularization
            tries.append(shared | own | ({"adapter": False} if self._adapter else {}))
        if self._adapter:
            tries.insert(1, tries[0] | {"adapter": True, "adapter weight": 0.5})
        return tries

    def propose(self, trial: Any) -> Setting:
        """A setting that an Optuna trial suggests."""
        model: Model = trial.suggest_categorical("model", tuple(self._models))
        choices = self._models[model]
        regularization = None
        if choices.regularizations:
            regularization = trial.suggest_categorical(f"{model} regularization", choices.regularizations)
        adapter = None
        if self._adapter and trial.suggest_categorical("adapter", (False, True)):
            adapter = trial.suggest_float("adapter weight", 0, _LARGEST_WEIGHT)
        return Setting(
            model,
            trial.suggest_categorical(f"{model} rank", choices.ranks),
            regularization,
            0.25 if self._liked_from is None else trial.suggest_categorical("others", _OTHERS),
            trial.suggest_float("decay", *_DECAYS, log=True),
            trial.suggest_categorical("pooling", self._poolings),
            trial.suggest_float("text", 0, _LARGEST_WEIGHT),
            trial.suggest_float("popularity", 0, _LARGEST_WEIGHT),
            adapter,
        )

    def quality_of(self, setting: Setting) -> float:
        """Mean of NDCG@10 and Recall@20 on the validation part."""
        features = self._collaborative(setting)
        features[TEXT] = self._texts.centred(setting.pooling)
        adapter = None
        if setting.adapter is not None:
            adapter = self._adapted(setting.pooling, setting.others)
            features[ADAPTER], features[ADAPTER_HISTORIES] = adapter.item_vectors, adapter.history_vectors
        users = self._held.sample((5 if self._adapter else 4) * len(self._prior))
        space = join_space(features, self._prior, adapter)
        made = feature_scores(self._part(setting.others), users, space, setting.decay)
        total = made[COLLABORATIVE]
        for name, weight in setting.weights.items():
            if name != COLLABORATIVE:
                total = total + np.float32(weight) * made[name]
        return self._held.quality(self._interactions, users)(total)

    def quality_of_recommender(self, settings: TunedSettings) -> float:
        """The same of a whole recommender, its reranker included: fitted on the training side, asked for what was held out."""
        pooling = OWN_POOLING if settings.pooling is None else settings.pooling
        recommender = Recommender(None, **(settings.arguments() | {"pooling": None}), threads=self._threads)
        recommender.fit(
            self._items,
            self._interactions.select(self._held.train),
            vectors={TEXT: self._texts.vectors(pooling)},
            show_progress=False,
        )
        users = self._held.sample((5 if self._adapter else 4) * len(self._prior))
        quality = self._held.quality(self._interactions, users)
        known = [self._interactions.user_ids[int(code)] for code in users]
        return quality.of_lists(recommender.recommend(known, min(quality.shown, len(self._items))).positions)

    def _collaborative(self, setting: Setting) -> dict[str, Float32Array]:
        if not is_nested(setting.model):
            return dict(self._fitted(setting.model, setting.rank, setting.regularization, setting.others))
        largest = self._models[setting.model].ranks[-1]
        learned = self._fitted(setting.model, largest, setting.regularization, setting.others)
        return {name: np.ascontiguousarray(vectors[:, : setting.rank]) for name, vectors in learned.items()}

    def _part(self, others: float) -> Interactions:
        """The training side, values being strengths."""
        settings = Settings(liked_from=self._liked_from, others=others)
        strengths = strengths_and_likes(settings, self._interactions)[0]
        return self._interactions.with_values(strengths).select(self._held.train)

    def _fit(self, model: Model, rank: int, regularization: float | None, others: float) -> dict[str, Float32Array]:
        return fit_collaborative(model, self._part(others).to_csr(), rank, regularization, self._threads)

    def _adapt(self, pooling: str, others: float) -> Adapter:
        settings = Settings(adapter=AdapterSettings(), threads=self._threads)
        features = {TEXT: self._texts.centred(pooling)}
        return adapt(settings, features, self._part(others), self._liked[self._held.train], False)


def _within(choices: ModelChoices, most: int) -> ModelChoices:
    """`choices` with ranks of at most `most`, which is a rank where all are larger."""
    ranks = tuple(rank for rank in choices.ranks if rank <= most) or (most,)
    first = max(rank for rank in ranks if rank <= choices.first_rank or rank == ranks[0])
    return ModelChoices(ranks, choices.regularizations, first, choices.first_regularization)
