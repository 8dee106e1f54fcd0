"""Suite `learn`: what learned recommenders reach on MovieLens, over several seeds, and whether that is EASE by chance.

Protocol: each user's ratings in order of time, then item id; the first 80% train, ratings of 4 and more among the rest are
to be predicted; all items ranked but those of the training part. Every choice (weights, decay, the settings of the trees)
was made inside the training part; the test part is looked at for the table only.
"""

from __future__ import annotations

import argparse
import time
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
from llmrec_fast.ranking.trees import TreeSettings
from llmrec_fast.recommender import RerankerSettings

METRICS = ("ndcg@10", "recall@20")
WANTED = {"ml-100k": {"ndcg@10": 0.2150, "recall@20": 0.2950}}
SIGNIFICANT = 0.05
BASELINE = "collaborative"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", default="ml-100k", help="ml-100k, or a folder with MovieLens files (default: ml-100k)"
    )
    parser.add_argument("--seeds", type=int, default=3, help="of the trees (default: %(default)s)")


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
    figures: list[dict[str, float]] = []
    per_user: list[Any] = []
    seconds: list[float] = []
    for seed in range(seeds):
        start = time.perf_counter()
        recommender = Recommender(
            None,
            weights=result.recommender.weights,
            decay=decay,
            liked_from=LIKED_FROM,
            reranker=RerankerSettings(trees=TreeSettings(seed=seed)),
        ).fit(items, result.train, vectors={"text": text, "genres": genres})
        seconds.append(time.perf_counter() - start)
        answers = recommender.recommend(result.users, 20).positions
        figures.append(evaluate(answers, result.relevant, METRICS))
        per_user.append(evaluate_per_user(answers, result.relevant, METRICS))
    report = Report(
        "learn", f"Learned recommenders on {Path(arguments.data).name}: {len(result.users)} users, {seeds} seeds"
    )
    for method, values in result.rows.items():
        report.figures[method] = " / ".join(f"{values[metric]:.4f}" for metric in METRICS)
    means = {metric: float(np.mean([row[metric] for row in figures])) for metric in METRICS}
    report.figures["reranked, mean over seeds"] = " / ".join(f"{means[metric]:.4f}" for metric in METRICS)
    report.figures["reranked, each seed"] = "; ".join(
        " / ".join(f"{row[metric]:.4f}" for metric in METRICS) for row in figures
    )
    report.figures["seconds to fit, each seed"] = ", ".join(f"{value:.1f}" for value in seconds)
    baseline = evaluate_per_user(result.answers[BASELINE], result.relevant, METRICS)
    wanted = WANTED.get(arguments.data, result.rows[BASELINE])
    for metric in METRICS:
        ours = np.mean([values[metric] for values in per_user], axis=0)
        test = randomization_test(ours, baseline[metric])
        report.targets.append(Target(f"{metric}, mean over seeds", means[metric], wanted[metric], unit=""))
        report.targets.append(Target(f"{metric}: p against EASE", test.p_value, SIGNIFICANT, at_least=False, unit=""))
    return report
