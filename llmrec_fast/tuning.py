"""Choose the settings of a recommender by search, on a validation part of the training data: what `llmrec-fast tune` runs.

Optuna proposes settings; each is scored as `Recommender` would score with it: features are learned from the first four fifths
of everyone's interactions, and what was liked after them is to be found. The interactions given are all used up by this, so an
honest figure for the settings needs others: tune on one file, evaluate on another.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from llmrec_fast.arrays import BoolArray, Float32Array, as_count, as_matrix
from llmrec_fast.encoding import TextEncoder
from llmrec_fast.errors import InvalidInput, MissingDependency
from llmrec_fast.evaluation import evaluate
from llmrec_fast.features import Centring, Interactions, Items, fit_ease, popularity_prior
from llmrec_fast.offline import OfflineResult
from llmrec_fast.recommender import Recommender
from llmrec_fast.recommender.fitting import Settings, strengths_and_likes
from llmrec_fast.recommender.reranking import Kind, check_kind
from llmrec_fast.recommender.space import FusedSpace
from llmrec_fast.recommender.validation import HeldOut, feature_scores, hold_out
from llmrec_fast.tuned import TunedSettings

_RANKS = (32, 64, 128, 256, 512)
_REGULARIZATIONS = (10.0, 30.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0)
_OTHERS = (0.0, 0.1, 0.25, 0.5, 1.0)
_DECAYS = (2.0, 200.0)
_LARGEST_WEIGHT = 1.5
# what `Recommender` does unasked: tried first, so that what is found is never worse on the validation part
_DEFAULTS = {"decay": 20.0, "text": 0.1, "popularity": 0.3, "rank": 256, "regularization": 500.0, "others": 0.25}
# vectors of EASE that are kept for the next trial, as numbers
_KEPT_NUMBERS = 2**28


def tune_recommender(
    items: Items,
    interactions: Interactions,
    encoder: TextEncoder,
    *,
    liked_from: float | None = None,
    rerankers: Sequence[Kind] = (),
    minutes: float = 10.0,
    trials: int | None = None,
    storage: str | Path | None = None,
    study: str = "recommender",
    seed: int = 0,
) -> TunedSettings:
    """Search decay, weights of text and popularity, rank, regularization and, with `liked_from`, others.

    Texts are encoded once; EASE is fitted once for each regularization and others, of which lower ranks are the first columns.

    Parameters
    ----------
    items, interactions : the training data; item codes of `interactions` are positions in `items`.
    encoder : makes the text vectors.
    liked_from : for ratings: from which value on an item was liked.
    rerankers : kinds of reranker ("trees", "neural") to try on the settings that were found, after the search; each is trained
        once, inside the training side of the validation split, and the best of them and of none is taken.
    minutes : no trial starts after so many minutes from the call; one trial is made in any case.
    trials : at most so many trials in this call; None: as many as there is time for.
    storage : SQLite file that keeps the trials and what rerankers reached; a study of the same name in it goes on where it
        ended.
    study : its name in `storage`; give each encoder its own.
    seed : of the search. The same seed and number of trials find the same settings in a new study.

    Raises
    ------
    MissingDependency : Optuna, or what a reranker is trained by, is not installed.
    InvalidInput : nothing to validate on; a study of this name that was made on other data.
    """
    start = time.monotonic()
    if not 0 < minutes < math.inf:
        raise InvalidInput(f"minutes must be a positive number; got {minutes!r}")
    most = math.inf if trials is None else as_count(trials, "trials")
    try:
        import optuna
    except ImportError as error:
        raise MissingDependency("tuning needs Optuna: pip install 'llmrec-fast[tune]'") from error
    for kind in rerankers:
        check_kind(kind)
    search = _Search.start(items, interactions, encoder, liked_from)
    data = _checksum(interactions)
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        studied = optuna.create_study(
            storage=_storage_address(storage),
            study_name=study,
            direction="maximize",
            load_if_exists=True,
        )
        made_on = f"{data} {len(items)} {liked_from}"
        if studied.user_attrs.setdefault("data", made_on) != made_on:
            raise InvalidInput(f"the study {study!r} in {storage} was made on other data; give another name or file")
        studied.set_user_attr("data", made_on)
        finished = _finished(studied)
        # a study that goes on must not draw again what it drew at its start
        studied.sampler = optuna.samplers.TPESampler(seed=seed + len(finished))
        if not finished:
            studied.enqueue_trial(search.first())
        made = 0
        while made < most and (not made or time.monotonic() < start + 60 * minutes):
            trial = studied.ask()
            studied.tell(trial, search.quality_of(search.propose(trial)))
            made += 1
        found, best = _finished(studied), studied.best_trial
        chosen = best.params
        tuned = TunedSettings(
            {"collaborative": 1.0, "text": chosen["text"], "popularity": chosen["popularity"]},
            chosen["decay"],
            chosen["rank"],
            chosen["regularization"],
            chosen.get("others", _DEFAULTS["others"]),
            liked_from,
            False,
            float(best.value),
            float(found[0].value),
            len(found),
            data,
        )
        for kind in rerankers:
            name = f"quality of trial {best.number} reranked by {kind}"
            reranked = replace(tuned, reranker=kind)
            if name not in studied.user_attrs:
                studied.set_user_attr(name, search.reranked_quality(items, reranked))
            reranked = replace(reranked, quality=studied.user_attrs[name])
            tuned = max(tuned, reranked, key=lambda settings: settings.quality)
        return tuned
    finally:
        optuna.logging.set_verbosity(before)


def add_tuned(
    result: OfflineResult, settings: TunedSettings, items: Items, encoder: TextEncoder, metrics: Sequence[str]
) -> OfflineResult:
    """`result` with a row "tuned": a recommender with these settings, fitted on the same training part."""
    recommender = Recommender(encoder, **settings.arguments()).fit(items, result.train)
    k = next(iter(result.answers.values())).shape[1]
    positions = recommender.recommend(result.users, k).positions
    figures = evaluate(positions, result.relevant, metrics, n_items=len(items), item_counts=result.liked_counts)
    return replace(result, rows={**result.rows, "tuned": figures}, answers={**result.answers, "tuned": positions})


def tuned_on(settings: TunedSettings, interactions: Interactions) -> bool:
    """Whether these are the interactions that the settings were chosen on."""
    return settings.data == _checksum(interactions)


class EncodedOnce:
    """An encoder that remembers the vectors of the last texts, for those who ask for the same catalogue in turn."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._texts: list[str] | None = None
        self._vectors: Float32Array | None = None

    def encode(self, texts: Sequence[str]) -> Float32Array:
        """(n, d) float32."""
        if self._vectors is None or self._texts != list(texts):
            self._texts, self._vectors = list(texts), as_matrix(self._encoder.encode(texts), "the vectors of the texts")
        return self._vectors


@dataclass(frozen=True)
class _Search:
    """The space of settings and how good each is."""

    interactions: Interactions
    liked: BoolArray
    held: HeldOut
    ranks: tuple[int, ...]
    strengths: Callable[[float], Interactions]
    collaborative: Callable[[float, float], Float32Array]
    vectors: Float32Array
    text: Float32Array
    prior: Float32Array
    rated: bool

    @classmethod
    def start(cls, items: Items, interactions: Interactions, encoder: TextEncoder, liked_from: float | None) -> _Search:
        rated = liked_from is not None
        _, liked = strengths_and_likes(Settings(liked_from=liked_from), interactions)
        held = hold_out(interactions, liked)
        if isinstance(held, str):
            raise InvalidInput(f"there is nothing to tune on: {held}")

        def strengths(others: float) -> Interactions:
            settings = Settings(liked_from=liked_from, others=others)
            return interactions.with_values(strengths_and_likes(settings, interactions)[0])

        side = min(interactions.to_csr().shape)
        # from this side on EASE finds the leading part only
        ranks = tuple(rank for rank in _RANKS if rank <= (side if side <= 2048 else side // 4)) or (side,)

        @lru_cache(max(1, _KEPT_NUMBERS // (len(items) * ranks[-1])))
        def collaborative(regularization: float, others: float) -> Float32Array:
            matrix = strengths(others).select(held.train).to_csr()
            return fit_ease(matrix, ranks[-1], regularization=regularization).history_vectors

        vectors = as_matrix(encoder.encode(items.texts), "the vectors of the texts")
        counts = np.bincount(interactions.items[held.train & liked], minlength=len(items))
        text = Centring.fit(vectors).apply(vectors)
        prior = popularity_prior(counts)
        return cls(interactions, liked, held, ranks, strengths, collaborative, vectors, text, prior, rated)

    def first(self) -> dict[str, Any]:
        """The settings to try first."""
        known = {name: value for name, value in _DEFAULTS.items() if self.rated or name != "others"}
        return known | {"rank": max(rank for rank in self.ranks if rank <= 256 or rank == self.ranks[0])}

    def propose(self, trial: Any) -> dict[str, Any]:
        """Settings that an Optuna trial suggests."""
        return {
            "decay": trial.suggest_float("decay", *_DECAYS, log=True),
            "text": trial.suggest_float("text", 0, _LARGEST_WEIGHT),
            "popularity": trial.suggest_float("popularity", 0, _LARGEST_WEIGHT),
            "rank": trial.suggest_categorical("rank", self.ranks),
            "regularization": trial.suggest_categorical("regularization", _REGULARIZATIONS),
            "others": trial.suggest_categorical("others", _OTHERS) if self.rated else _DEFAULTS["others"],
        }

    def quality_of(self, setting: dict[str, Any]) -> float:
        """Mean of NDCG@10 and Recall@20 on the validation part."""
        vectors = self.collaborative(setting["regularization"], setting["others"])[:, : setting["rank"]]
        space = FusedSpace({"collaborative": np.ascontiguousarray(vectors), "text": self.text}, self.prior)
        users = self.held.sample(4 * len(self.prior))
        part = self.strengths(setting["others"]).select(self.held.train)
        made = feature_scores(part, users, space, setting["decay"])
        total = made["collaborative"]
        for name in ("text", "popularity"):
            total = total + np.float32(setting[name]) * made[name]
        return self.held.quality(self.interactions, users)(total)

    def reranked_quality(self, items: Items, settings: TunedSettings) -> float:
        """The same of a recommender with a reranker: fitted on the training side, asked for what was held out."""
        recommender = Recommender(None, **settings.arguments())
        recommender.fit(items, self.interactions.select(self.held.train), vectors={"text": self.vectors})
        users = self.held.sample(4 * len(self.prior))
        quality = self.held.quality(self.interactions, users)
        known = [self.interactions.user_ids[int(code)] for code in users]
        return quality.of_lists(recommender.recommend(known, min(quality.shown, len(items))).positions)


def _storage_address(storage: str | Path | None) -> str | None:
    if storage is None:
        return None
    path = Path(storage).resolve()
    if not path.parent.is_dir():
        raise InvalidInput(f"there is no folder {path.parent} to keep {path.name} in")
    if path.exists():
        with path.open("rb") as file:
            start = file.read(16)
        if start and start != b"SQLite format 3\0":
            raise InvalidInput(f"{path} is no SQLite file; name another for the storage")
    return f"sqlite:///{path}"


def _finished(study: Any) -> list[Any]:
    return [trial for trial in study.trials if trial.value is not None]


def _checksum(interactions: Interactions) -> str:
    """Of who did what when; ids and order count, files and columns do not."""
    digest = hashlib.sha256()
    for column in (interactions.users, interactions.items, interactions.values, interactions.timestamps):
        digest.update(b"none" if column is None else np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()
