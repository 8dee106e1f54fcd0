"""Suite `cold`: films that nobody has rated yet, found by their text alone and by adapter towers trained on the other films.

Protocol: a fifth of the films, drawn by chance, loses all ratings; everything else trains. Sought are the liked films among
them. Two rankings: all films that a user has not rated, where new films stand against those with a history, and the new
films alone. The settings of the adapter were chosen on such splits of the films that train; the new films' ratings are looked
at for the table only.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from benchmarks.learn import genre_vectors
from benchmarks.report import Report, Target
from llmrec_fast import Encoder, Recommender
from llmrec_fast.arrays import Float32Array, Int64Array
from llmrec_fast.datasets import MovieLens, load
from llmrec_fast.demo import LIKED_FROM, tables
from llmrec_fast.evaluation import EvaluationReport, cold_items, compare_methods, group_items_of, write_report
from llmrec_fast.ranking.adapter import AdapterSettings

SHARE = 0.2
SHOWN = 20
WANTED = 2.0
# on one such split of the films that train, recall@20 of text alone .294 among the new films and .104 among all, of these
# settings .327 and .075, of the default ones, smoothed and on text alone, .295 and .037; which film is popular, known as it
# turned out, would give .513
ADAPTER = AdapterSettings(smoothing=0, dropout=0.3, epochs=12, patience=3)
RANKINGS = {"among all": "all films ranked", "alone": "new films alone ranked"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", default="ml-100k", help="ml-100k, or a folder with MovieLens files (default: ml-100k)"
    )
    parser.add_argument("--split-seed", type=int, default=0, help="which films become new (default: %(default)s)")


def year_vectors(data: MovieLens) -> Float32Array:
    """(items, 16) float32: how near a film's year is to each of 1925, 1930 ... 2000 (Gaussian, 4 years); zeros if not known."""
    centres = np.arange(1925, 2001, 5)
    near = np.exp(-(((data.years[:, None] - centres) / 4) ** 2) / 2)
    return np.where(data.years[:, None] > 0, near, 0).astype(np.float32)


def run(arguments: argparse.Namespace) -> Report:
    data = load(arguments.data)
    items, interactions = tables(data)
    split = cold_items(interactions.items, SHARE, arguments.split_seed)
    train, test = interactions.select(split.train), interactions.select(split.test).at_least(LIKED_FROM)
    codes = np.intersect1d(train.at_least(LIKED_FROM).users, test.users)
    relevant = group_items_of(codes, test.users, test.items)
    counts = train.item_counts()
    new = np.unique(interactions.items[split.test])
    text = Encoder("minilm", threads=arguments.threads).encode(items.texts)
    vectors = {"text": text, "genres": genre_vectors(data), "years": year_vectors(data)}
    settings = AdapterSettings(epochs=1) if arguments.quick else ADAPTER
    start = time.perf_counter()
    recommender = Recommender(
        None,
        weights={"text": 1.0},
        decay=None,
        rank=None,
        liked_from=LIKED_FROM,
        adapter=settings,
        threads=arguments.threads,
    ).fit(items, train, vectors=vectors)
    seconds = time.perf_counter() - start
    users = [train.user_ids[int(code)] for code in codes]
    reports: dict[str, EvaluationReport] = {}
    for ranking, what in RANKINGS.items():
        allow = None if ranking == "among all" else [items.ids[int(position)] for position in new]
        answers: dict[str, Int64Array] = {
            name: recommender.recommend(users, SHOWN, allow=allow, weights={name: 1.0}).positions
            for name in ("text", "adapter")
        }
        reports[ranking] = compare_methods(
            answers,
            relevant,
            metrics=[f"recall@{SHOWN}", "ndcg@10"],
            n_items=len(items),
            item_counts=counts,
            reference="text",
            title=f"New items of {Path(arguments.data).name}, {what}",
        )
        write_report(arguments.output / f"cold-{ranking.replace(' ', '-')}", reports[ranking])
    return _report(arguments, reports, len(new), len(codes), seconds)


def _report(
    arguments: argparse.Namespace, reports: dict[str, EvaluationReport], new: int, users: int, seconds: float
) -> Report:
    report = Report("cold", f"Films without a rating in {Path(arguments.data).name}: {new} films, {users} users")
    for ranking, compared in reports.items():
        recalls: dict[str, float] = {}
        for method, result in compared.methods.items():
            if result.cold_items is None:
                raise ValueError(f"no new item is relevant to anybody: {method}, {ranking}")
            found = result.cold_items.recall
            recalls[method] = found.mean
            report.figures[f"{method}, {RANKINGS[ranking]}"] = f"{found.mean:.4f} ({found.low:.4f} to {found.high:.4f})"
        ratio = recalls["adapter"] / recalls["text"]
        report.targets.append(
            Target(f"recall@{SHOWN} of new items, {RANKINGS[ranking]}: adapter by text", ratio, WANTED, unit="")
        )
    report.figures["seconds to train"] = f"{seconds:.0f}"
    return report
