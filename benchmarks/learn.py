"""Suite `learn`: what learned recommenders reach on MovieLens, over several seeds, and whether that is EASE by chance.

Protocol: each user's ratings in order of time, then item id; the first 80% train, ratings of 4 and more among the rest are
to be predicted; all items ranked but those of the training part. Every choice (weights, decay, the settings of trees and
networks) was made inside the training part; the test part is looked at for the table only.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import Report, Target
from llmrec_fast import Encoder, Recommender
from llmrec_fast.arrays import Float32Array
from llmrec_fast.datasets import MovieLens, load
from llmrec_fast.demo import LIKED_FROM, tables
from llmrec_fast.evaluation import evaluate, evaluate_per_user, randomization_test, split_by_time
from llmrec_fast.offline import evaluate_offline
from llmrec_fast.ranking.adapter import AdapterSettings
from llmrec_fast.ranking.neural import NeuralSettings
from llmrec_fast.ranking.trees import TreeSettings
from llmrec_fast.recommender import RerankerSettings
from llmrec_fast.recommender.reranking import Kind

METRICS = ("ndcg@10", "recall@20")
WANTED = {"ml-100k": {"ndcg@10": 0.2150, "recall@20": 0.2950}}
SIGNIFICANT = 0.05
BASELINE = "collaborative"
ADAPTER = "adapter"
KINDS: tuple[Kind, ...] = ("trees", "neural")
# what is best on the validation part is what has to reach the figures
TARGETED = "trees"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", default="ml-100k", help="ml-100k, or a folder with MovieLens files (default: ml-100k)"
    )
    parser.add_argument("--seeds", type=int, default=3, help="of the rerankers (default: %(default)s)")
    parser.add_argument(
        "--adapter", action="store_true", help="also rank by adapter towers alone, trained once a seed (minutes each)"
    )


def genre_vectors(data: MovieLens) -> Float32Array:
    """(items, genres) float32: 1 where an item has a genre. On the validation part they add .004 of Recall@20."""
    names = sorted({name for genres in data.genres for name in genres})
    return np.array([[name in genres for name in names] for genres in data.genres], np.float32)


def run(arguments: argparse.Namespace) -> Report:
    data = load(arguments.data)
    items, interactions = tables(data)
    split = split_by_time(data.users, data.items, data.timestamps)
    seeds = 1 if arguments.quick else arguments.seeds
    encoder = Encoder("minilm")
    text = encoder.encode(items.texts)
    result = evaluate_offline(
        items, interactions, encoder, liked_from=LIKED_FROM, split=split, metrics=METRICS, rerank=False
    )
    decay = None if result.recommender.report_ is None else result.recommender.report_.decay
    genres = genre_vectors(data)
    report = Report(
        "learn", f"Learned recommenders on {Path(arguments.data).name}: {len(result.users)} users, {seeds} seeds"
    )
    for method, values in result.rows.items():
        report.figures[method] = _shown(values)
    trained: dict[str, _Trained] = {}
    kinds = [*KINDS, *([ADAPTER] if arguments.adapter else [])]
    for kind in kinds:
        trained[kind] = made = _Trained([], [], [])
        for seed in range(seeds):
            stage = _adapter(seed) if kind == ADAPTER else _reranked(kind, seed, result.recommender.weights, decay)
            vectors = {"text": text} if kind == ADAPTER else {"text": text, "genres": genres}
            start = time.perf_counter()
            recommender = stage.fit(items, result.train, vectors=vectors)
            made.seconds.append(time.perf_counter() - start)
            answers = recommender.recommend(result.users, 20).positions
            made.figures.append(evaluate(answers, result.relevant, METRICS))
            made.per_user.append(evaluate_per_user(answers, result.relevant, METRICS))
        what = kind if kind == ADAPTER else f"reranked by {kind}"
        report.figures[f"{what}, mean over seeds"] = _shown(made.means())
        report.figures[f"{what}, each seed"] = "; ".join(_shown(row) for row in made.figures)
        report.figures[f"seconds to fit with {kind}, each seed"] = ", ".join(f"{value:.1f}" for value in made.seconds)
    baseline = evaluate_per_user(result.answers[BASELINE], result.relevant, METRICS)
    wanted = WANTED.get(arguments.data, result.rows[BASELINE])
    for metric in METRICS:
        for kind, made in trained.items():
            ours = np.mean([values[metric] for values in made.per_user], axis=0)
            test = randomization_test(ours, baseline[metric])
            if kind == TARGETED:
                name = f"{metric}, {kind}, mean over seeds"
                report.targets.append(Target(name, made.means()[metric], wanted[metric], unit=""))
            name = f"{metric}, {kind}: p against EASE"
            report.targets.append(Target(name, test.p_value, SIGNIFICANT, at_least=False, unit=""))
    return report


def _reranked(kind: Kind, seed: int, weights: Mapping[str, float], decay: float | None) -> Recommender:
    settings = RerankerSettings(kind=kind, trees=TreeSettings(seed=seed), neural=NeuralSettings(seed=seed))
    return Recommender(None, weights=weights, decay=decay, liked_from=LIKED_FROM, reranker=settings)


def _adapter(seed: int) -> Recommender:
    """Towers over text alone: what they reach without collaborative vectors, popularity and reranking."""
    settings = AdapterSettings(seed=seed)
    return Recommender(
        None, weights={ADAPTER: 1.0}, decay=settings.decay, liked_from=LIKED_FROM, rank=None, adapter=settings
    )


@dataclass(frozen=True)
class _Trained:
    """What one kind of reranker reached: figures, figures by user and seconds to fit, each seed."""

    figures: list[dict[str, float]]
    per_user: list[Any]
    seconds: list[float]

    def means(self) -> dict[str, float]:
        return {metric: float(np.mean([row[metric] for row in self.figures])) for metric in METRICS}


def _shown(figures: dict[str, float]) -> str:
    return " / ".join(f"{figures[metric]:.4f}" for metric in METRICS)
