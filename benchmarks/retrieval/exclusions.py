"""What excluding rows costs: the same queries without exclusions, without 1,000 random rows, and without their 1,000 best."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.harness import Contender, Effort, Measurement, compare
from benchmarks.report import Cell, Report, Target
from benchmarks.retrieval import oracle
from benchmarks.retrieval.data import Dataset
from benchmarks.retrieval.engines import OURS
from benchmarks.threads import Neutral

EXCLUDED, K, MOST_QUERIES = 1000, 10, 32
SECTION = "Exclusions"
RANDOM, BEST = f"{EXCLUDED:,} random ids", f"the {EXCLUDED:,} best rows"
WANTED = {RANDOM: 1.15, BEST: 2.0}


def run(report: Report, dataset: Dataset, index: Any, neutral: Neutral, effort: Effort) -> None:
    """Add one cell each for single queries and for 16 at a time, and the targets for single queries."""
    if len(dataset.rows) < 4 * EXCLUDED:
        report.notes.append(f"exclusions are not measured on {dataset.name}: too few rows")
        return
    queries = dataset.queries[:MOST_QUERIES]
    # deep enough that k rows are left whatever is excluded
    answers = oracle.find(dataset.rows, queries, EXCLUDED + K)
    rng = np.random.default_rng(0)
    lists = {
        OURS: [np.zeros(0, np.int64)] * len(queries),
        RANDOM: [rng.choice(len(dataset.rows), EXCLUDED, replace=False) for _ in queries],
        BEST: list(answers.ids[:, :EXCLUDED]),
    }
    for count in (1, 16):
        if count > len(queries):
            continue
        contenders = [_contender(name, index, queries, count, lists[name], answers) for name in lists]
        comparison = compare(contenders, neutral, effort)
        labels = {"data": dataset.kind, "N": len(dataset.rows), "d": dataset.rows.shape[1], "Q": count, "k": K}
        cost = {name: _cost(comparison.of(name), comparison.ours()) for name in WANTED}
        figures: dict[str, float | str] = {f"time with {name} / without": value for name, value in cost.items()}
        report.cells.append(Cell(labels, comparison, figures, ratio_among=[], section=SECTION))
        if count == 1:
            report.targets += [
                Target(f"{dataset.name}, Q=1, excluding {name}: time over none", value, WANTED[name], at_least=False)
                for name, value in cost.items()
            ]


def _cost(measured: Measurement, plain: Measurement) -> float:
    """The median over the queries of the time with exclusions over the time without.

    Query by query, because queries differ more from one another than exclusions cost.
    """
    pairs = zip(measured.seconds, plain.seconds, strict=False)
    return float(np.median([with_exclusions / without for with_exclusions, without in pairs]))


def _contender(
    name: str, index: Any, queries: Any, count: int, excluded: list[Any], answers: oracle.Oracle
) -> Contender:
    batches = []
    for start in range(0, len(queries) - count + 1, count):
        lists = excluded[start : start + count]
        indptr = np.concatenate([[0], np.cumsum([len(ids) for ids in lists])])
        batches.append((queries[start : start + count], (indptr, np.concatenate(lists).astype(np.int64))))

    def call(repetition: int) -> Any:
        batch, exclude = batches[repetition % len(batches)]
        if name == OURS:
            return index.search(batch, K).ids
        return index.search(batch, K, exclude=exclude).ids

    def check(ids: Any) -> str:
        for query in range(count):
            right = answers.ids[query][~np.isin(answers.ids[query], excluded[query])][:K]
            if not np.array_equal(ids[query], right):
                return f"{name}, query {query}: {ids[query].tolist()}, not {right.tolist()}"
        return ""

    return Contender(name, call, check, ours=name == OURS)
