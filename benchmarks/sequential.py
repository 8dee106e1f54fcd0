"""Next-item prediction on the Amazon files of MiniOneRec: transitions and text, tuned on the validation file alone.

The folder holds `valid.csv.gz`, `test.csv.gz` (columns user_id, history_item_id, item_id: one row a history and the item that
follows) and a `*.item.json.gz` with title, brand and description of every item. All items are ranked for every row of the test
file, those of the history too; ties count for the smaller id.

The test file holds several rows a user, so that the answer of one row stands in the history of another; `leaks` shows how
often. Hence nothing is learned from test histories: transitions, popularity and every weight come from the validation file,
weights by cross-validation inside it, whole users at a time. The test file is looked at once, for the last table.
"""

from __future__ import annotations

import argparse
import ast
import csv
import gzip
import html
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from benchmarks.report import Report, Target
from llmrec_fast import Encoder
from llmrec_fast.arrays import Float32Array, Int64Array
from llmrec_fast.evaluation import find_sequence_leaks
from llmrec_fast.features import (
    Centring,
    HistoryWeighting,
    count_transitions,
    nearest_items,
    popularity_prior,
    smooth_transitions,
    transition_matrix,
    transition_scores,
    tune,
    user_vectors,
)

WANTED = {"hit_rate@10": 0.1650, "ndcg@10": 0.1150}
FOLDS = 5
DECAYS = (0.6, 1.0, 2.0)
GRID = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.5, 6.0)


@dataclass(frozen=True)
class Rows:
    """Histories as CSR, old to new, the item that follows each, and whose they are."""

    indptr: Int64Array
    items: Int64Array
    targets: Int64Array
    users: Int64Array

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, rows: Int64Array) -> Rows:
        spans = [self.items[self.indptr[row] : self.indptr[row + 1]] for row in rows.tolist()]
        return _rows(spans, self.targets[rows], self.users[rows])

    def sequences(self) -> tuple[Int64Array, Int64Array]:
        """Every history with its target behind it, as CSR."""
        ends = self.indptr[1:]
        return self.indptr + np.arange(len(self) + 1), np.insert(self.items, ends, self.targets)


@dataclass(frozen=True)
class Catalogue:
    """Centred text vectors (items, d) by name, and what lies near each item."""

    texts: dict[str, Float32Array]
    neighbours: csr_matrix

    @property
    def count(self) -> int:
        return len(next(iter(self.texts.values())))


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
    scores = components(validation, test, catalogue, tuned.choice)
    rows = {
        "title": figures(scores["title"], test.targets),
        "transitions": figures(scores["next"], test.targets),
        "all": figures(sum(weight * scores[name] for name, weight in tuned.weights.items()), test.targets),
    }
    report = Report(
        "sequential",
        "Next items on the Amazon files of MiniOneRec",
        targets=[
            Target(f"{name} on the test file", rows["all"][name], wanted, unit="") for name, wanted in WANTED.items()
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
        f"{len(test):,} test rows, {catalogue.count:,} items ranked, nothing left out; {time.perf_counter() - start:.0f} s",
    ]
    return report


def read_rows(path: Path) -> Rows:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    histories = [np.array(ast.literal_eval(row["history_item_id"]), np.int64) for row in rows]
    users = np.unique([row["user_id"] for row in rows], return_inverse=True)[1]
    return _rows(histories, np.array([int(row["item_id"]) for row in rows]), users.astype(np.int64))


def read_catalogue(folder: Path, encoder: Encoder) -> Catalogue:
    path = next(iter(sorted(folder.glob("*.item.json.gz"))))
    with gzip.open(path, "rt", encoding="utf-8") as file:
        table = json.load(file)
    items = [table[str(place)] for place in range(len(table))]
    texts = {
        "title": [item["title"] for item in items],
        "text": [f"{item['title']}. {item['brand']}. {_description(item['description'])}" for item in items],
        "brand": [item["brand"] or "" for item in items],
    }
    vectors = {}
    for name, values in texts.items():
        encoded = encoder.encode([html.unescape(value) for value in values])
        vectors[name] = Centring.fit(encoded).apply(encoded)
    near = nearest_items(np.concatenate([vectors["title"], vectors["text"]], axis=1), 10)
    return Catalogue(vectors, near)


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


def _crossed(rows: Rows, catalogue: Catalogue, decay: float) -> Callable[[], dict[str, Float32Array]]:
    """Scores of every validation row, learned from the rows of other users."""

    def scores() -> dict[str, Float32Array]:
        fold = np.random.default_rng(0).integers(0, FOLDS, rows.users.max() + 1)[rows.users]
        made: dict[str, Float32Array] = {}
        for number in range(FOLDS):
            asked = np.flatnonzero(fold == number)
            parts = components(rows.take(np.flatnonzero(fold != number)), rows.take(asked), catalogue, decay)
            for name, part in parts.items():
                made.setdefault(name, np.zeros((len(rows), catalogue.count), np.float32))[asked] = part
        return made

    return scores


def _rows(histories: list[Int64Array], targets: Int64Array, users: Int64Array) -> Rows:
    indptr = np.concatenate(([0], np.cumsum([len(history) for history in histories])))
    return Rows(indptr, np.concatenate([np.zeros(0, np.int64), *histories]), targets, users)


def _description(cell: str) -> str:
    """Descriptions are lists of paragraphs, written as Python; a few are plain text."""
    try:
        parts = ast.literal_eval(cell)
    except (ValueError, SyntaxError):
        return cell
    return " ".join(parts) if isinstance(parts, list) else str(parts)
