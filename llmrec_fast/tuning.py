"""Choose the settings of a recommender by search, on a validation part of the training data: what `llmrec-fast tune` runs.

Optuna proposes settings out of those that `tuning_space.py` knows; each is scored as `Recommender` would score with it:
features are learned from the first four fifths of everyone's interactions, and what was liked after them is to be found. The
interactions given are all used up by this, so an honest figure for the settings needs others: tune on one file, evaluate on
another.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from llmrec_fast.arrays import Float32Array, as_count, as_matrix
from llmrec_fast.encoding import Encoder, TextEncoder
from llmrec_fast.encoding.pooling import pooling_from_name
from llmrec_fast.errors import InvalidInput, MissingDependency
from llmrec_fast.evaluation import evaluate
from llmrec_fast.features import Interactions, Items
from llmrec_fast.offline import OfflineResult
from llmrec_fast.ranking.torch_training import import_torch
from llmrec_fast.recommender import Recommender
from llmrec_fast.recommender.collaborating import MODELS, Model, check_installed, check_model, is_installed
from llmrec_fast.recommender.reranking import Kind, check_kind
from llmrec_fast.tuned import TunedSettings
from llmrec_fast.tuning_space import OWN_POOLING, PooledTexts, SearchSpace, Setting

POOLINGS = ("mean", "max", "first")


def tune_recommender(
    items: Items,
    interactions: Interactions,
    encoder: TextEncoder | str | Path,
    *,
    liked_from: float | None = None,
    models: Sequence[Model] | None = None,
    poolings: Sequence[str] | None = None,
    adapter: bool = False,
    rerankers: Sequence[Kind] = (),
    minutes: float = 10.0,
    trials: int | None = None,
    storage: str | Path | None = None,
    study: str = "recommender",
    seed: int = 0,
    threads: int | None = None,
) -> TunedSettings:
    """Search the collaborative model with its rank and regularization, decay, pooling, weights, adapter, reranker and others.

    The defaults of every model are tried first, those of the first one before all. Texts are encoded once a pooling, when a
    trial first asks for it; a model is fitted once for each of its settings, lower ranks of EASE and SVD being the first
    columns of higher ones; an adapter is trained once for each pooling and `others`.

    Parameters
    ----------
    items, interactions : the training data; item codes of `interactions` are positions in `items`.
    encoder : makes the text vectors: a known model, a model folder, or a ready encoder.
    liked_from : for ratings: from which value on an item was liked; how much `others` count is searched then.
    models : collaborative models to choose among, see `Recommender`; None: all that are installed.
    poolings : poolings of a text's tokens to try beside the model's own, as `Recommender(pooling=...)` takes them; None: mean,
        max and first, or none for a ready encoder, which pools as it does.
    adapter : whether an adapter may be chosen; each is trained inside the training side of the validation split, in a minute or
        more.
    rerankers : kinds of reranker ("trees", "neural") to try on the settings that were found, after the search; each is trained
        once, inside the training side of the validation split, and the best of them and of none is taken.
    minutes : no trial starts after so many minutes from the call; one trial is made in any case.
    trials : at most so many trials in this call; None: as many as there is time for.
    storage : SQLite file that keeps the trials and what rerankers reached; a study of the same name in it goes on where it
        ended.
    study : its name in `storage`; give each encoder its own.
    seed : of the search. The same seed and number of trials find the same settings in a new study.
    threads : of the encoder and of what is fitted.

    Raises
    ------
    MissingDependency : Optuna, or what a model, an adapter or a reranker is trained by, is not installed.
    InvalidInput : nothing to validate on; no model to choose; poolings for a ready encoder; a study of this name that was made
        on other data or with other choices.
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
    if adapter:
        import_torch("an adapter")
    chosen_models = _check_models(models)
    texts, chosen_poolings = _texts(items, encoder, poolings, threads)
    space = SearchSpace(items, interactions, liked_from, texts, chosen_models, chosen_poolings, adapter, threads)
    data = _checksum(interactions)
    made_of = {
        "data": f"{data} {len(items)} {liked_from}",
        "choices": f"models {', '.join(chosen_models)}; poolings {', '.join(chosen_poolings)}; adapter {adapter}",
    }
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        studied = optuna.create_study(
            storage=_storage_address(storage),
            study_name=study,
            direction="maximize",
            load_if_exists=True,
        )
        _check_study(studied, made_of, f"the study {study!r} in {storage}")
        finished = _finished(studied)
        # a study that goes on must not draw again what it drew at its start
        studied.sampler = optuna.samplers.TPESampler(seed=seed + len(finished))
        if not studied.trials:
            for parameters in space.first():
                studied.enqueue_trial(parameters)
        made = 0
        while made < most and (not made or time.monotonic() < start + 60 * minutes):
            trial = studied.ask()
            studied.tell(trial, space.quality_of(space.propose(trial)))
            made += 1
        found, best = _finished(studied), studied.best_trial
        setting = space.propose(optuna.trial.FixedTrial(best.params))
        tuned = _tuned(setting, liked_from, float(best.value), float(found[0].value), len(found), data)
        for kind in rerankers:
            name = f"quality of trial {best.number} reranked by {kind}"
            reranked = replace(tuned, reranker=kind)
            if name not in studied.user_attrs:
                studied.set_user_attr(name, space.quality_of_recommender(reranked))
            reranked = replace(reranked, quality=studied.user_attrs[name])
            tuned = max(tuned, reranked, key=lambda settings: settings.quality)
        return tuned
    finally:
        optuna.logging.set_verbosity(before)


def add_tuned(
    result: OfflineResult, settings: TunedSettings, items: Items, encoder: TextEncoder, metrics: Sequence[str]
) -> OfflineResult:
    """`result` with a row "tuned": a recommender with these settings, fitted on the same training part.

    encoder : pools as `settings.pooling` says.
    """
    recommender = Recommender(encoder, **(settings.arguments() | {"pooling": None})).fit(items, result.train)
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


def _check_models(models: Sequence[Model] | None) -> tuple[Model, ...]:
    if models is None:
        return tuple(model for model in MODELS if is_installed(model))
    if not models:
        raise InvalidInput(f"models must name at least one of {', '.join(MODELS)}")
    for model in models:
        check_model(model)
        check_installed(model)
    return tuple(dict.fromkeys(models))


def _texts(
    items: Items, encoder: TextEncoder | str | Path, poolings: Sequence[str] | None, threads: int | None
) -> tuple[PooledTexts, tuple[str, ...]]:
    """The text vectors and the poolings to choose among, the model's own first."""
    if not isinstance(encoder, str | Path):
        if poolings:
            raise InvalidInput("a ready encoder pools as it does: give a model's name or folder to try other poolings")
        return PooledTexts(items.texts, lambda _: encoder), (OWN_POOLING,)
    own = Encoder(encoder, threads=threads)
    named = [pooling_from_name(name).modes[0] for name in (POOLINGS if poolings is None else poolings)]
    others = dict.fromkeys(name for name in named if name != own.describe()["pooling"])

    def encoder_of(pooling: str) -> TextEncoder:
        return own if pooling == OWN_POOLING else Encoder(encoder, pooling=pooling, threads=threads)

    return PooledTexts(items.texts, encoder_of), (OWN_POOLING, *others)


def _check_study(studied: Any, made_of: dict[str, str], which: str) -> None:
    """Note what a new study is made of; refuse one that is made of something else."""
    for name, value in made_of.items():
        noted = studied.user_attrs.get(name)
        if noted is None and not studied.trials:
            studied.set_user_attr(name, value)
        elif noted != value:
            raise InvalidInput(f"{which} was made with other {name} ({noted}; now {value}); give another name or file")


def _tuned(
    setting: Setting, liked_from: float | None, quality: float, default_quality: float, trials: int, data: str
) -> TunedSettings:
    return TunedSettings(
        setting.weights,
        setting.decay,
        setting.rank,
        setting.regularization,
        setting.others,
        liked_from,
        False,
        quality,
        default_quality,
        trials,
        data,
        setting.model,
        None if setting.pooling == OWN_POOLING else setting.pooling,
        setting.adapter is not None,
    )


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
