"""Next-item prediction on the Amazon files of MiniOneRec: transitions, text and trees, tuned on the validation file alone.

The folder holds `valid.csv.gz`, `test.csv.gz` (columns user_id, history_item_id, item_id: one row a history and the item that
follows) and a `*.item.json.gz` with title, brand and description of every item. All items are ranked for every row of the test
file, those of the history too; ties count for the smaller id.

The test file holds several rows a user, so that the answer of one row stands in the history of another; `leaks` shows how
often. Hence nothing is learned from test histories: transitions, popularity, every weight and the trees come from the
validation file, weights and trees by cross-validation inside it, whole users at a time: what a row is scored or described by
was learned from other users. The test file is looked at once, for the last table.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.report import Report, Target
from benchmarks.sequential_data import Catalogue, Rows, read_catalogue, read_rows
from benchmarks.sequential_pairs import pair_columns
from llmrec_fast import Encoder
from llmrec_fast.arrays import Float32Array, Float64Array, Int64Array
from llmrec_fast.evaluation import find_sequence_leaks
from llmrec_fast.features import (
    HistoryWeighting,
    count_transitions,
    popularity_prior,
    smooth_transitions,
    transition_matrix,
    transition_scores,
    tune,
    user_vectors,
)
from llmrec_fast.ranking.trees import TreeRanker, TreeSettings

WANTED = {"hit_rate@10": 0.1650, "ndcg@10": 0.1150}
FOLDS = 5
DECAYS = (0.6, 1.0, 2.0)
CANDIDATES = 100
TREES = TreeSettings(rounds=120, learning_rate=0.05, least_in_leaf=50)
SEEDS = 3
GRID = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.5, 6.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--folder", type=Path, required=True, help="folder of valid.csv.gz, test.csv.gz and *.item.json.gz"
    )


def run(arguments: argparse.Namespace) -> Report:
    start = time.perf_counter()
    validation, test = (read_rows(arguments.folder / f"{name}.csv.gz") for name in ("valid", "test"))
    catalogue = read_catalogue(arguments.folder, Encoder("minilm", threads=arguments.threads))
    leaks = find_sequence_leaks((test.indptr, test.items), test.targets, test.users)
    decays = DECAYS[:1] if arguments.quick else DECAYS
    tuned = tune(
        {decay: _crossed(validation, catalogue, decay) for decay in decays},
        lambda scores: float(np.mean(list(figures(scores, validation.targets).values()))),
        anchor="title",
        grid=GRID,
    )
    trees, crossed = _reordered_across(validation, catalogue, tuned.choice, tuned.weights, arguments)
    scores = components(validation, test, catalogue, tuned.choice)
    fused = weighted_sum(scores, tuned.weights)
    candidates = _best(fused)
    columns, _ = pair_columns({"fused": fused, **scores}, validation, test, catalogue, candidates)
    rows = {
        "title": figures(scores["title"], test.targets),
        "transitions": figures(scores["next"], test.targets),
        "all": figures(fused, test.targets),
        "reordered by trees": figures(reordered(fused, candidates, _summed(trees, columns)), test.targets),
    }
    report = Report(
        "sequential",
        "Next items on the Amazon files of MiniOneRec",
        targets=[
            Target(f"{name} on the test file", rows["reordered by trees"][name], wanted, unit="")
            for name, wanted in WANTED.items()
        ],
        figures={"rows": rows},
    )
    report.notes = [
        *(
            f"{name}: " + ", ".join(f"{metric} {value:.4f}" for metric, value in row.items())
            for name, row in rows.items()
        ),
        f"leaks: {leaks}",
        f"chosen on the validation file by {FOLDS}-fold cross-validation over users, quality {tuned.quality:.4f}: decay "
        f"{tuned.choice:g}; " + ", ".join(f"{name} {weight:g}" for name, weight in tuned.weights.items()),
        *(
            f"validation file, {name}: " + ", ".join(f"{metric} {value:.4f}" for metric, value in row.items())
            for name, row in crossed.items()
        ),
        f"{len(test):,} test rows, {catalogue.count:,} items ranked, nothing left out; {time.perf_counter() - start:.0f} s",
    ]
    return report


def components(train: Rows, asked: Rows, catalogue: Catalogue, decay: float) -> dict[str, Float32Array]:
    """The (rows, items) scores that are summed, learned from `train`, for the histories of `asked`."""
    weights = HistoryWeighting(decay).weights(asked.indptr)
    made = {
        name: user_vectors(vectors, asked.indptr, asked.items, weights, mode="sum", normalize=True) @ vectors.T
        for name, vectors in catalogue.texts.items()
    }
    counts = count_transitions(*train.sequences(), catalogue.count, window=5, decay=1.0)
    for name, matrix in {
        "next": counts,
        "next, smoothed": smooth_transitions(counts, catalogue.neighbours),
        "together, smoothed": smooth_transitions(counts + counts.T, catalogue.neighbours),
    }.items():
        made[name] = transition_scores(transition_matrix(matrix), asked.indptr, asked.items, weights)
    _, items = train.sequences()
    made["popularity"] = popularity_prior(np.bincount(items, minlength=catalogue.count))
    made["popularity of targets"] = popularity_prior(np.bincount(train.targets, minlength=catalogue.count))
    return made


def figures(scores: Float32Array, targets: Int64Array) -> dict[str, float]:
    """HR@10 and NDCG@10 of one target a row; of equal scores the smaller id comes first."""
    own = scores[np.arange(len(targets)), targets][:, None]
    before = np.arange(scores.shape[1]) < targets[:, None]
    ranks = (scores > own).sum(axis=1) + ((scores == own) & before).sum(axis=1)
    hits = ranks < 10
    return {"hit_rate@10": float(hits.mean()), "ndcg@10": float((hits / np.log2(ranks + 2)).mean())}


def reordered(scores: Float32Array, candidates: Int64Array, by: Float64Array) -> Float64Array:
    """(rows, items): the candidates (rows, c) before all others, in the order of `by` (rows, c); the rest as `scores` say."""
    result = scores.astype(np.float64)
    top, lowest = result.max(axis=1, keepdims=True), by.min(axis=1, keepdims=True)
    np.put_along_axis(result, candidates, top + 1 + by - lowest, axis=1)
    return result


def weighted_sum(scores: Mapping[str, Float32Array], weights: Mapping[str, float]) -> Float32Array:
    """(rows, items): the weighted sum; a score of items alone, such as popularity, counts for every row."""
    parts = [np.float32(weight) * scores[name] for name, weight in weights.items()]
    total: Float32Array = sum(parts[1:], start=parts[0])
    return total


def _best(scores: Float32Array) -> Int64Array:
    return np.argsort(-scores, axis=1, kind="stable")[:, :CANDIDATES]


def _folds(rows: Rows) -> Iterator[tuple[Int64Array, Int64Array]]:
    """(rows of other users, rows of these users), the users being dealt by chance."""
    fold = np.random.default_rng(0).integers(0, FOLDS, rows.users.max() + 1)[rows.users]
    for number in range(FOLDS):
        yield np.flatnonzero(fold != number), np.flatnonzero(fold == number)


def _reordered_across(
    rows: Rows, catalogue: Catalogue, decay: float, weights: Mapping[str, float], arguments: argparse.Namespace
) -> tuple[list[TreeRanker], dict[str, dict[str, float]]]:
    """Trees trained on all validation rows, and what such trees reach there, each row scored by trees of other users."""
    fused = np.empty((len(rows), catalogue.count), np.float32)
    candidates = np.empty((len(rows), CANDIDATES), np.int64)
    described: dict[int, Float32Array] = {}
    names: list[str] = []
    for others, own in _folds(rows):
        train, asked = rows.take(others), rows.take(own)
        scores = components(train, asked, catalogue, decay)
        fused[own] = weighted_sum(scores, weights)
        candidates[own] = _best(fused[own])
        columns, names = pair_columns({"fused": fused[own], **scores}, train, asked, catalogue, candidates[own])
        described |= dict(zip(own.tolist(), columns, strict=True))
    features = np.stack([described[row] for row in range(len(rows))])
    relevant = candidates == rows.targets[:, None]

    def grow(chosen: Int64Array) -> list[TreeRanker]:
        teaching = chosen[relevant[chosen].any(axis=1)]  # without the target a row teaches nothing
        return [
            TreeRanker.fit(
                features[teaching].reshape(-1, len(names)),
                relevant[teaching].ravel(),
                np.full(len(teaching), CANDIDATES),
                names,
                replace(TREES, seed=seed),
                threads=arguments.threads,
            )
            for seed in range(1 if arguments.quick else SEEDS)
        ]

    by = np.empty(candidates.shape)
    for others, own in _folds(rows):
        by[own] = _summed(grow(others), features[own])
    crossed = {
        "all": figures(fused, rows.targets),
        "reordered by trees": figures(reordered(fused, candidates, by), rows.targets),
    }
    return grow(np.arange(len(rows))), crossed


def _summed(trees: list[TreeRanker], columns: Float32Array) -> Float64Array:
    """(rows, c): the sum of what trees of several seeds say, which wavers less than one of them."""
    flat = columns.reshape(-1, columns.shape[-1])
    total: Float64Array = np.sum([grown.scores(flat) for grown in trees], axis=0).reshape(columns.shape[:2])
    return total


def _crossed(rows: Rows, catalogue: Catalogue, decay: float) -> Callable[[], dict[str, Float32Array]]:
    """Scores of every validation row, learned from the rows of other users."""

    def scores() -> dict[str, Float32Array]:
        made: dict[str, Float32Array] = {}
        for others, own in _folds(rows):
            for name, part in components(rows.take(others), rows.take(own), catalogue, decay).items():
                made.setdefault(name, np.zeros((len(rows), catalogue.count), np.float32))[own] = part
        return made

    return scores
